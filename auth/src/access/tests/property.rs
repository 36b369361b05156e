//! Random worlds: what a grant gives is what the rules say, said again in [`naive`].

use super::*;

fn id(name: &str) -> AttributeId {
    match name {
        "patient" => PATIENT,
        "status" => STATUS,
        "code" => CODE,
        _ => KEY,
    }
}

fn worlds() -> impl Strategy<Value = naive::World> {
    use proptest::collection::vec;
    use proptest::sample::{select, subsequence};
    let rule = (
        subsequence((0..naive::RULE_SCOPES.len()).collect::<Vec<_>>(), 1..=2),
        0..naive::ROWS.len(),
        0..naive::masks().len(),
    );
    let held = subsequence((0..naive::HELD_SCOPES.len()).collect::<Vec<_>>(), 0..=4);
    let patient = select(vec![None, Some(""), Some("1"), Some("2")]);
    let statuses = vec!["final", "amended", "draft"];
    let codes = vec!["a", "b", "c"];
    let patients = vec!["Patient/1", "Patient/2"];
    let term = |name: &'static str, values: &[&'static str], count| {
        let values = values.to_vec();
        proptest::option::weighted(0.3, subsequence(values, 1..=count))
            .prop_map(move |v| v.map(|v| (name, v)))
    };
    let filter = (
        term("patient", &patients, 2),
        term("status", &statuses, 2),
        term("code", &codes, 3),
        term("recordkey", &["ann", "bob"], 1),
    )
        .prop_map(|(a, b, c, d)| [a, b, c, d].into_iter().flatten().collect());
    let event = (
        select(vec!["north", "north", "south"]),
        proptest::option::weighted(0.9, select(patients)),
        proptest::option::weighted(0.9, select(statuses)),
        subsequence(codes, 0..=3),
        proptest::option::of(select(vec!["ann", "bob"])),
    )
        .prop_map(|(of, patient, status, codes, key)| {
            let mut values: Vec<(&str, &str)> = codes.into_iter().map(|code| ("code", code)).collect();
            values.extend(patient.map(|value| ("patient", value)));
            values.extend(status.map(|value| ("status", value)));
            values.extend(key.map(|value| ("recordkey", value)));
            (of, values)
        });
    (vec(rule, 0..5), held, patient, filter, vec(event, 12)).prop_map(
        |(rules, held, patient, filter, events)| naive::World {
            rules,
            held,
            patient,
            filter,
            events,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn what_a_reader_gets_is_what_the_rules_say(world in worlds()) {
        let rules = world.rules.iter().map(|(scopes, rows, mask)| {
            let scopes: Vec<&str> = scopes.iter().map(|place| naive::RULE_SCOPES[*place]).collect();
            let rows: Vec<_> = naive::ROWS[*rows].iter().map(|(name, text)| (id(name), *text)).collect();
            rule(&scopes, &rows, naive::masks()[*mask].0.clone())
        });
        let stream = stream(rules.collect());
        let scopes: Vec<&str> = world.held.iter().map(|place| naive::HELD_SCOPES[*place].0).collect();
        let claims: Vec<_> = world.patient.iter().map(|patient| ("patient", *patient)).collect();
        let wanted: Vec<_> = world.filter.iter().map(|(name, values)| (id(name), values.as_slice())).collect();
        let expected: Vec<_> = (0..world.events.len()).map(|event| naive::hidden(&world, event)).collect();

        let grant = Grant::compile(&stream, &principal(&scopes, &claims));
        if let Ok(grant) = &grant {
            prop_assert!(grant.clauses.is_sorted() && grant.clauses.len() <= CLAUSES_MAX);
        }
        let selection = grant.and_then(|grant| grant.select(&stream, &filter(&wanted)));
        let selection = match selection {
            Ok(selection) => selection,
            Err(denied) if denied.code == Code::STREAM_FORBIDDEN || denied.code == Code::UNKNOWN_PARAMETER => {
                prop_assert!(expected.iter().all(Option::is_none), "{:?} denies what the rules give", denied);
                return Ok(());
            }
            // The two limits: too many clauses, and a filter that no single predicate can say.
            Err(denied) => {
                let restricted = world.filter.iter().any(|(name, _)| *name == "code");
                let limit = denied.code == Code::GRANT_TOO_WIDE || (denied.code == Code::FILTER_INVALID && restricted);
                prop_assert!(limit, "{:?}", denied);
                return Ok(());
            }
        };
        for ((of, values), expected) in world.events.iter().zip(expected) {
            let values: Vec<_> = values.iter().map(|(name, value)| (id(name), *value)).collect();
            let bits = selection.matching(&event(of, &values));
            let hidden = (bits != 0).then(|| {
                let mask = selection.mask(bits);
                let hidden = naive::FIELDS.iter().filter(|(_, at)| mask.hides(&pointer(at)));
                hidden.map(|(name, _)| *name).collect::<BTreeSet<_>>()
            });
            prop_assert_eq!(hidden, expected);
        }
    }

    /// What is left with denials is what there was without, less the events that have one of the values.
    #[test]
    fn exceptions_take_their_rows_away_and_nothing_else(
        world in worlds(),
        denials in proptest::collection::vec(
            (
                proptest::sample::select(vec!["patient", "status", "code", "recordkey", "undeclared"]),
                proptest::sample::select(vec!["Patient/1", "Patient/2", "final", "amended", "a", "b", "ann", "bob"]),
            ),
            0..6,
        ),
    ) {
        let rules = world.rules.iter().map(|(scopes, rows, mask)| {
            let scopes: Vec<&str> = scopes.iter().map(|place| naive::RULE_SCOPES[*place]).collect();
            let rows: Vec<_> = naive::ROWS[*rows].iter().map(|(name, text)| (id(name), *text)).collect();
            rule(&scopes, &rows, naive::masks()[*mask].0.clone())
        });
        let stream = stream(rules.collect());
        let scopes: Vec<&str> = world.held.iter().map(|place| naive::HELD_SCOPES[*place].0).collect();
        let claims: Vec<_> = world.patient.iter().map(|patient| ("patient", *patient)).collect();
        let wanted: Vec<_> = world.filter.iter().map(|(name, values)| (id(name), values.as_slice())).collect();
        let select = |reader: &Principal| {
            Grant::compile(&stream, reader).and_then(|grant| grant.select(&stream, &filter(&wanted)))
        };
        let whole = select(&principal(&scopes, &claims));
        let less = select(&denied(&denials, principal(&scopes, &claims)));
        let (whole, less) = match (whole, less) {
            (Ok(whole), Ok(less)) => (whole, less),
            (whole, less) => {
                prop_assert_eq!(whole.err(), less.err());
                return Ok(());
            }
        };
        for (of, values) in &world.events {
            let is_denied = values.iter().any(|value| denials.contains(value));
            let values: Vec<_> = values.iter().map(|(name, value)| (id(name), *value)).collect();
            let event = event(of, &values);
            let expected = if is_denied { 0 } else { whole.matching(&event) };
            prop_assert_eq!(less.matching(&event), expected);
        }
    }
}
