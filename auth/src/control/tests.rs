//! Knowledge against a naive restatement, and the sentences of the design one by one.

use proptest::prelude::*;
use schemas::ids::{AttributeName, TenantId};
use schemas::problem::Code;
use secrecy::SecretString;

use super::*;
use crate::testing::{NOW_MS, principal, tenant};

fn names() -> Names {
    Names::new(&SecretString::from("a secret that all nodes have, long enough"))
}

fn by_subject(subject: &str) -> Revocation {
    Revocation {
        subject: Some(Arc::from(subject)),
        ..Revocation::new(NOW_MS)
    }
}

fn of_patient(value: &str) -> Denial {
    Denial::new(tenant("north"), attribute("patient"), value)
}

fn attribute(name: &str) -> AttributeName {
    AttributeName::parse(name).expect("a name")
}

fn put(entry: Entry) -> Change {
    Change::Put(names().of(&entry), entry)
}

fn remove(entry: &Entry) -> Change {
    Change::Remove(entry.kind(), names().of(entry))
}

#[test]
fn what_a_revocation_names_must_all_be_so() {
    let ann = Principal {
        token_id: Some("t1".into()),
        ..principal(&[], &[])
    };
    let everything = Revocation {
        issuer: Some(Arc::clone(&ann.issuer)),
        tenant: Some(ann.tenant.clone()),
        subject: Some(Arc::clone(&ann.subject)),
        token_id: Some("t1".into()),
        ..Revocation::new(NOW_MS)
    };
    assert!(everything.concerns(&ann));
    let others = [
        Principal {
            issuer: "https://other.example".into(),
            ..ann.clone()
        },
        Principal {
            tenant: tenant("south"),
            ..ann.clone()
        },
        Principal {
            subject: "bob".into(),
            ..ann.clone()
        },
        Principal {
            token_id: Some("t2".into()),
            ..ann.clone()
        },
        Principal {
            token_id: None,
            ..ann.clone()
        },
    ];
    for other in others {
        assert!(!everything.concerns(&other), "{other:?}");
    }
}

#[test]
fn somebody_is_let_in_again_with_a_token_of_after_the_revocation() {
    let revocation = by_subject("ann");
    let issued_at = |issued_at_ms| Principal {
        issued_at_ms,
        ..principal(&[], &[])
    };
    assert!(revocation.concerns(&issued_at(Some(NOW_MS - 1))));
    assert!(revocation.concerns(&issued_at(Some(NOW_MS))));
    assert!(!revocation.concerns(&issued_at(Some(NOW_MS + 1))));
    assert!(
        revocation.concerns(&issued_at(None)),
        "nobody knows when it was issued"
    );
    let by_token = Revocation {
        token_id: Some("t1".into()),
        ..Revocation::new(NOW_MS)
    };
    let named = Principal {
        token_id: Some("t1".into()),
        ..issued_at(Some(NOW_MS + 1))
    };
    assert!(by_token.concerns(&named), "a token that is named stays revoked");
}

#[test]
fn whose_application_is_not_known_is_concerned_by_a_denial_for_one() {
    let denial = Denial {
        application: Some("viewer".into()),
        ..of_patient("Patient/1")
    };
    let through = |application: Option<&str>| Principal {
        application: application.map(Arc::from),
        ..principal(&[], &[])
    };
    assert!(denial.concerns(&through(Some("viewer"))));
    assert!(!denial.concerns(&through(Some("other"))));
    assert!(denial.concerns(&through(None)));
}

#[test]
fn nobody_is_admitted_before_the_knowledge_was_read() {
    let control = Control::unread(Duration::from_secs(60));
    let refused = control.admit(&principal(&[], &[])).expect_err("not read");
    assert_eq!(refused, reason::CONTROL_STALE);
    assert!(refused.code.retry, "which is no revocation");
    assert_eq!(control.ready(), Err(reason::CONTROL_STALE));
    assert!(Control::none().admit(&principal(&[], &[])).is_ok());
    assert_eq!(Control::none().ready(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn knowledge_that_is_too_old_lets_nobody_new_in_keeps_who_is_there_and_heals() {
    let control = Control::unread(Duration::from_secs(60));
    control.has_read(Instant::now());
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(control.ready(), Ok(()));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(control.ready(), Err(reason::CONTROL_STALE));
    assert!(control.admit(&principal(&[], &[])).is_ok());
    control.has_read(Instant::now());
    assert_eq!(control.ready(), Ok(()));
}

#[test]
fn a_revoked_principal_is_refused_and_others_are_not() {
    let control = Control::none();
    let mut changes = control.changes();
    assert!(control.apply([put(Entry::Revocation(by_subject("ann")))]));
    assert!(changes.has_changed().expect("open"));
    changes.mark_unchanged();
    let refused = control.admit(&principal(&[], &[])).expect_err("revoked");
    assert_eq!(refused.code, Code::TOKEN_REVOKED);
    let bob = Principal {
        subject: "bob".into(),
        ..principal(&[], &[])
    };
    assert!(control.admit(&bob).is_ok());
    let epoch = control.epoch();
    assert!(
        !control.apply([put(Entry::Revocation(by_subject("ann")))]),
        "known already"
    );
    assert!(!changes.has_changed().expect("open") && control.epoch() == epoch);
    assert!(control.apply([remove(&Entry::Revocation(by_subject("ann")))]));
    assert!(control.admit(&principal(&[], &[])).is_ok() && control.epoch() > epoch);
}

#[test]
fn those_whom_the_same_denials_concern_share_them() {
    let control = Control::none();
    let for_bob = Denial {
        subject: Some("bob".into()),
        ..of_patient("Patient/2")
    };
    control.apply([
        put(Entry::Denial(of_patient("Patient/1"))),
        put(Entry::Denial(for_bob.clone())),
    ]);
    let ann = principal(&[], &[]);
    let bob = Principal {
        subject: "bob".into(),
        ..ann.clone()
    };
    let elsewhere = Principal {
        tenant: tenant("south"),
        ..ann.clone()
    };
    assert!(Arc::ptr_eq(
        &control.denials_for(&ann),
        &control.denials_for(&ann)
    ));
    assert_eq!(*control.denials_for(&ann), [of_patient("Patient/1")]);
    assert_eq!(control.denials_for(&bob).len(), 2);
    assert!(control.denials_for(&elsewhere).is_empty());
    assert_eq!(control.admit(&bob).expect("admitted").denials.len(), 2);
    control.apply([remove(&Entry::Denial(for_bob))]);
    assert_eq!(control.denials_for(&bob).len(), 1);
}

#[test]
fn what_is_over_is_forgotten() {
    let control = Control::none();
    let short = Revocation {
        expires_at_ms: Some(NOW_MS + 1000),
        ..by_subject("ann")
    };
    control.apply([put(Entry::Revocation(short))]);
    assert!(!control.forget(NOW_MS + 999) && control.is_revoked(&principal(&[], &[])));
    assert!(control.forget(NOW_MS + 1000) && !control.is_revoked(&principal(&[], &[])));
}

#[test]
fn a_key_says_nothing_of_whom_it_is_about_and_is_the_same_on_every_node() {
    let revocation = Entry::Revocation(by_subject("Patient/4711"));
    let denial = Entry::Denial(of_patient("Patient/4711"));
    for entry in [&revocation, &denial] {
        let key = key_of(entry.kind(), &names().of(entry));
        assert!(!key.contains("4711") && !key.contains("north"), "{key}");
        assert_eq!(names().of(entry), names().of(entry));
        let elsewhere = Names::new(&SecretString::from("another secret"));
        assert_ne!(
            names().of(entry),
            elsewhere.of(entry),
            "it cannot be found by trial"
        );
    }
    let moved = Entry::Revocation(Revocation {
        issued_until_ms: NOW_MS + 5,
        reason: Some("again".into()),
        ..by_subject("Patient/4711")
    });
    assert_eq!(names().of(&revocation), names().of(&moved));
    let tenant_only = Revocation {
        tenant: Some(TenantId::parse("a").expect("a tenant")),
        ..Revocation::new(0)
    };
    let subject_only = Revocation {
        subject: Some("a".into()),
        ..Revocation::new(0)
    };
    assert_ne!(
        names().of(&Entry::Revocation(tenant_only)),
        names().of(&Entry::Revocation(subject_only))
    );
}

#[test]
fn records_of_other_releases_are_passed_over_and_damaged_ones_too() {
    let read =
        |key: &str, value: Option<&str>| Change::decode(Some(key.as_bytes()), value.map(str::as_bytes));
    for (key, value) in [
        ("application:ab", Some(r#"{"v":1}"#)),
        ("application:ab", None),
        ("revocation:ab", Some(r#"{"v":2,"whatever":[]}"#)),
        ("denial:ab", Some(r#"{"v":7}"#)),
    ] {
        assert_eq!(read(key, value), Err(Passed::Unknown), "{key} {value:?}");
    }
    for (key, value) in [
        ("", None),
        ("revocation", None),
        ("revocation:", None),
        ("revocation:Patient/1", None),
        ("revocation:ab", Some("")),
        ("revocation:ab", Some("[]")),
        ("revocation:ab", Some(r#"{"v":"1"}"#)),
        ("revocation:ab", Some(r#"{"v":1}"#)),
        ("revocation:ab", Some(r#"{"v":1,"issued_until_ms":1}"#)),
        (
            "revocation:ab",
            Some(r#"{"v":1,"issued_until_ms":1,"subject":""}"#),
        ),
        (
            "revocation:ab",
            Some(r#"{"v":1,"issued_until_ms":1,"subject":"a","subject":"b"}"#),
        ),
        (
            "revocation:ab",
            Some(r#"{"v":1,"issued_until_ms":1,"tenant":"a b"}"#),
        ),
        (
            "denial:ab",
            Some(r#"{"v":1,"tenant":"a","attribute":"Patient","value":"x"}"#),
        ),
        ("denial:ab", Some(r#"{"v":1,"tenant":"a","attribute":"patient"}"#)),
    ] {
        assert!(
            matches!(read(key, value), Err(Passed::Malformed(_))),
            "{key} {value:?}"
        );
    }
    assert!(matches!(Change::decode(None, None), Err(Passed::Malformed(_))));
    assert!(matches!(
        Change::decode(Some(b"\xff:1"), None),
        Err(Passed::Malformed(_))
    ));
    let tolerant = read(
        "revocation:ab",
        Some(r#"{"v":1,"issued_until_ms":1,"subject":"a","of a later release":{}}"#),
    );
    assert!(matches!(tolerant, Ok(Change::Put(_, Entry::Revocation(_)))));
}

fn entries() -> impl Strategy<Value = Entry> {
    use proptest::option::of;
    use proptest::sample::select;
    let text =
        |values: &'static [&'static str]| of(select(values)).prop_map(|text| text.map(Arc::<str>::from));
    let revocation = (
        text(&["https://id.example", "https://other.example"]),
        of(select(&["north", "south"][..])),
        text(&["ann", "bob"]),
        text(&["t1", "t2"]),
        0_i64..4,
    )
        .prop_map(
            |(issuer, of_tenant, subject, token_id, issued_until_ms)| Revocation {
                issuer,
                tenant: of_tenant.map(tenant),
                subject,
                token_id,
                ..Revocation::new(issued_until_ms)
            },
        )
        .prop_filter("names somebody", |revocation| revocation.check().is_ok());
    let denial = (
        select(&["north", "south"][..]),
        select(&["patient", "status"][..]),
        select(&["Patient/1", "Patient/2", "final"][..]),
        text(&["ann", "bob"]),
        text(&["viewer", "other"]),
        text(&["https://id.example", "https://other.example"]),
    )
        .prop_map(|(of, name, value, subject, application, issuer)| Denial {
            subject,
            application,
            issuer,
            ..Denial::new(tenant(of), attribute(name), value)
        });
    prop_oneof![
        revocation.prop_map(Entry::Revocation),
        denial.prop_map(Entry::Denial)
    ]
}

fn principals() -> impl Strategy<Value = Principal> {
    use proptest::option::of;
    use proptest::sample::select;
    (
        select(&["https://id.example", "https://other.example"][..]),
        select(&["north", "south"][..]),
        select(&["ann", "bob"][..]),
        of(select(&["t1", "t2"][..])),
        of(0_i64..4),
        of(select(&["viewer", "other"][..])),
    )
        .prop_map(
            |(issuer, of_tenant, subject, token_id, issued_at_ms, application)| Principal {
                issuer: issuer.into(),
                tenant: tenant(of_tenant),
                subject: subject.into(),
                token_id: token_id.map(Arc::from),
                issued_at_ms,
                application: application.map(Arc::from),
                ..principal(&[], &[])
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn an_entry_is_read_as_it_was_written(entry in entries()) {
        let id = names().of(&entry);
        let key = key_of(entry.kind(), &id);
        let read = Change::decode(Some(key.as_bytes()), Some(&entry.encode()));
        prop_assert_eq!(read, Ok(Change::Put(id.clone(), entry.clone())));
        let read = Change::decode(Some(key.as_bytes()), None);
        prop_assert_eq!(read, Ok(Change::Remove(entry.kind(), id)));
    }

    #[test]
    fn no_record_is_too_strange(key in proptest::collection::vec(any::<u8>(), 0..40), value in ".{0,80}") {
        let _read = Change::decode(Some(&key), Some(value.as_bytes()));
        let key = format!("denial:{value}");
        let _read = Change::decode(Some(key.as_bytes()), Some(value.as_bytes()));
        let _read = Change::decode(Some(b"revocation:ab"), Some(format!("{{\"v\":1,{value}}}").as_bytes()));
    }

    /// The index against looking at everything that was not removed again.
    #[test]
    fn the_index_says_what_the_entries_say(
        steps in proptest::collection::vec((entries(), proptest::bool::weighted(0.3)), 0..24),
        who in proptest::collection::vec(principals(), 6),
    ) {
        let control = Control::none();
        let mut naive: Vec<(EntryId, Entry)> = Vec::new();
        for (entry, goes) in steps {
            let id = names().of(&entry);
            naive.retain(|(have, _)| *have != id);
            if goes {
                control.apply([Change::Remove(entry.kind(), id)]);
            } else {
                naive.push((id.clone(), entry.clone()));
                control.apply([Change::Put(id, entry)]);
            }
        }
        for principal in who {
            let revoked = naive.iter().any(|(_, entry)| match entry {
                Entry::Revocation(revocation) => revocation.concerns(&principal),
                Entry::Denial(_) => false,
            });
            let mut denials: Vec<Denial> = naive
                .iter()
                .filter_map(|(_, entry)| match entry {
                    Entry::Denial(denial) if denial.concerns(&principal) => Some(denial.clone()),
                    _ => None,
                })
                .collect();
            denials.sort();
            prop_assert_eq!(control.is_revoked(&principal), revoked);
            match control.admit(&principal) {
                Ok(admitted) => {
                    prop_assert!(!revoked);
                    let mut have = admitted.denials.to_vec();
                    have.sort();
                    prop_assert_eq!(have, denials);
                }
                Err(refused) => prop_assert!(revoked && refused == reason::REVOKED),
            }
        }
    }
}
