//! Tickets and cookies: what opens, how often, and what is noticed.

use serde_json::json;

use super::*;

const NOW_MS: i64 = 1_800_000_000_000;
const ORIGIN: Option<&str> = Some("https://app.example");

fn key(letter: &str) -> SecretString {
    SecretString::from(letter.repeat(32))
}

fn tickets(keys: &[&str]) -> Tickets {
    Tickets::new(&keys.iter().map(|letter| key(letter)).collect::<Vec<_>>()).expect("good keys")
}

fn principal() -> Principal {
    Principal {
        issuer: "https://id.example".into(),
        subject: "ann".into(),
        tenant: TenantId::parse("north").expect("a tenant"),
        scopes: vec!["patient/*.rs".into()],
        claims: BTreeMap::from([("patient".to_owned(), Arc::from("1"))]),
        token_id: Some("t1".into()),
        issued_at_ms: Some(NOW_MS - 1000),
        expires_at_ms: NOW_MS + 600_000,
        application: Some("app".into()),
        denials: Arc::default(),
    }
}

fn detail<T>(answer: Result<T, BadTicket>) -> &'static str {
    answer.err().expect("refused").detail
}

#[test]
fn a_ticket_carries_its_principal_stream_and_filter_and_opens_once() {
    let tickets = tickets(&["a"]);
    let stream = StreamName::parse("observations").expect("a name");
    let filter = json!({"patient": "Patient/1"});
    let text = tickets.issue(&principal(), Some(&stream), Some(&filter), ORIGIN, NOW_MS);
    assert!(
        text.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    );
    let ticket = tickets.redeem(&text, ORIGIN, NOW_MS + 1).expect("good");
    assert_eq!(
        (ticket.principal, ticket.stream, ticket.filter),
        (principal(), Some(stream), Some(filter))
    );
    assert_eq!(detail(tickets.redeem(&text, ORIGIN, NOW_MS + 2)), "spent");
    assert_eq!(detail(tickets.clone().redeem(&text, ORIGIN, NOW_MS + 2)), "spent");
    assert_eq!(
        detail(tickets.redeem(&text, ORIGIN, NOW_MS + TICKET_TTL_MS)),
        "expired"
    );
}

#[test]
fn a_ticket_is_for_one_origin_and_a_wrong_one_does_not_spend_it() {
    let tickets = tickets(&["a"]);
    let text = tickets.issue(&principal(), None, None, ORIGIN, NOW_MS);
    for origin in [
        None,
        Some("https://app.example.evil"),
        Some("http://app.example"),
        Some("null"),
    ] {
        assert_eq!(detail(tickets.redeem(&text, origin, NOW_MS)), "origin_mismatch");
    }
    assert!(tickets.redeem(&text, ORIGIN, NOW_MS).is_ok());
    let without = tickets.issue(&principal(), None, None, None, NOW_MS);
    assert_eq!(
        detail(tickets.redeem(&without, ORIGIN, NOW_MS)),
        "origin_mismatch"
    );
    assert!(tickets.redeem(&without, None, NOW_MS).is_ok());
}

#[test]
fn a_ticket_does_not_outlive_its_token() {
    let tickets = tickets(&["a"]);
    let short = Principal {
        expires_at_ms: NOW_MS + 1000,
        ..principal()
    };
    let text = tickets.issue(&short, None, None, None, NOW_MS);
    assert_eq!(detail(tickets.redeem(&text, None, NOW_MS + 1000)), "expired");
}

#[test]
fn a_cookie_opens_again_and_again_until_its_token_expires() {
    let tickets = tickets(&["a"]);
    let text = tickets.issue_cookie(&principal(), NOW_MS);
    for later_ms in [0, 1, 599_999] {
        assert_eq!(tickets.open_cookie(&text, NOW_MS + later_ms), Ok(principal()));
    }
    let bad = tickets.open_cookie(&text, NOW_MS + 600_000).expect_err("expired");
    assert_eq!(bad.code, Code::TOKEN_EXPIRED);
}

#[test]
fn a_ticket_is_no_cookie_and_a_cookie_no_ticket() {
    let tickets = tickets(&["a"]);
    let ticket = tickets.issue(&principal(), None, None, None, NOW_MS);
    let cookie = tickets.issue_cookie(&principal(), NOW_MS);
    assert_eq!(detail(tickets.open_cookie(&ticket, NOW_MS)), "sealed_otherwise");
    assert_eq!(detail(tickets.redeem(&cookie, None, NOW_MS)), "sealed_otherwise");
    assert!(
        tickets.redeem(&ticket, None, NOW_MS).is_ok(),
        "looking at it as a cookie did not spend it"
    );
}

#[test]
fn keys_rotate_and_a_withdrawn_key_opens_nothing() {
    let old = tickets(&["a"]);
    let text = old.issue(&principal(), None, None, None, NOW_MS);
    let cookie = old.issue_cookie(&principal(), NOW_MS);
    assert!(tickets(&["b", "a"]).redeem(&text, None, NOW_MS).is_ok());
    assert!(tickets(&["b", "a"]).open_cookie(&cookie, NOW_MS).is_ok());
    assert_eq!(
        detail(tickets(&["b"]).redeem(&text, None, NOW_MS)),
        "sealed_otherwise"
    );
    let new = tickets(&["b", "a"]).issue(&principal(), None, None, None, NOW_MS);
    assert_eq!(detail(old.redeem(&new, None, NOW_MS)), "sealed_otherwise");
}

#[test]
fn every_altered_byte_is_noticed() {
    let tickets = tickets(&["a"]);
    let text = tickets.issue(&principal(), None, None, None, NOW_MS);
    for place in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
        let altered = String::from_utf8(bytes).expect("text");
        assert_eq!(detail(tickets.redeem(&altered, None, NOW_MS)), "sealed_otherwise");
    }
    for text in ["", "A", "not a ticket", &"A".repeat(100_000)] {
        assert_eq!(detail(tickets.redeem(text, None, NOW_MS)), "sealed_otherwise");
    }
    assert!(tickets.redeem(&text, None, NOW_MS).is_ok());
}

#[test]
fn what_was_spent_is_forgotten_when_it_expires_and_never_before() {
    let mut spent = Spent::default();
    let mut id = 0_u128;
    // Each from a tenant of its own.
    let mut spend = |spent: &mut Spent, expires_at_ms, now_ms| {
        id += 1;
        spent.spend(Ulid::from(id), owners(id, id), expires_at_ms, now_ms)
    };
    for _ in 0..SPENT_MAX {
        spend(&mut spent, 100, 0).expect("room");
    }
    assert_eq!(
        spend(&mut spent, 100, 0),
        Err(BadTicket {
            code: Code::RATE_LIMITED,
            detail: "too_many"
        })
    );
    assert_eq!(detail(spent.spend(Ulid::from(1), owners(1, 1), 100, 99)), "spent");
    spend(&mut spent, 200, 100).expect("room again");
    assert_eq!((spent.tickets.len(), spent.by_owner.len()), (1, 2));
}

/// Numbers in place of hashes.
fn owners(tenant: u128, principal: u128) -> Owners {
    let number = |of: u128| u64::try_from(of).expect("small");
    Owners {
        tenant: number(tenant),
        principal: number(principal) | 1 << 63,
    }
}

#[test]
fn who_spends_too_many_tickets_is_refused_and_the_others_are_not() {
    let mut spent = Spent::default();
    let mut id = 0_u128;
    let mut spend = |spent: &mut Spent, tenant, principal, now_ms| {
        id += 1;
        spent.spend(Ulid::from(id), owners(tenant, principal), 100, now_ms)
    };
    for _ in 0..SPENT_BY_PRINCIPAL_MAX {
        spend(&mut spent, 1, 1, 0).expect("room");
    }
    let refused = spend(&mut spent, 1, 1, 0).expect_err("too many");
    assert_eq!(refused.code, Code::RATE_LIMITED);
    // The tenant's others go on, until it is the tenant's share that is used up.
    for number in u128::from(SPENT_BY_PRINCIPAL_MAX)..u128::from(SPENT_BY_TENANT_MAX) {
        spend(&mut spent, 1, number, 0).expect("room for others");
    }
    assert_eq!(detail(spend(&mut spent, 1, 2, 0)), "too_many");
    spend(&mut spent, 2, 1_000_000, 0).expect("room for another tenant");
    spend(&mut spent, 1, 1, 100).expect("room again");
}

#[test]
fn owners_are_told_apart_by_issuer_tenant_and_subject() {
    let spent = Spent::default();
    let mine = spent.owners_of(&principal());
    let mut other = principal();
    other.subject = "bob".into();
    let theirs = spent.owners_of(&other);
    assert_eq!(mine.tenant, theirs.tenant);
    assert_ne!(mine.principal, theirs.principal);
}

#[test]
fn nothing_of_a_ticket_is_printed() {
    let tickets = tickets(&["a"]);
    let text = tickets.issue(
        &principal(),
        None,
        Some(&json!({"patient": "Patient/1"})),
        None,
        NOW_MS,
    );
    let printed = format!("{:?}", tickets.redeem(&text, None, NOW_MS).expect("good"));
    for secret in ["ann", "patient", "Patient", "t1"] {
        assert!(!printed.contains(secret), "{printed}");
    }
}
