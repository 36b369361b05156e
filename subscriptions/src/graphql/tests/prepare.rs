//! Operations in, streams and filters out.

use super::*;

const MINIMAL: &str = "{ things { kind } }";

#[test]
fn arguments_become_filters_as_attributes_have_them() {
    let schema = schema();
    let with = |arguments: &str| {
        let query = format!("subscription {{ things({arguments}) {{ cursor }} }}");
        Value::Object(bound(&schema, &request(&query)).filter)
    };
    for (arguments, filter) in [
        ("level: null", json!({})),
        ("patient: null, state: null, level: null", json!({})),
        ("after: null", json!({"level": ["3"]})),
        ("patient: 1, level: null", json!({"patient": ["Patient/1"]})),
        (r#"patient: "1", level: null"#, json!({"patient": ["Patient/1"]})),
        (
            r#"patient: "Patient/1", level: null"#,
            json!({"patient": ["Patient/1"]}),
        ),
        (
            "state: ENTERED_IN_ERROR, level: null",
            json!({"state": ["entered-in-error"]}),
        ),
        (
            "state: [NEW, final], level: null",
            json!({"state": ["new", "final"]}),
        ),
        (
            "urgent: true, level: -7",
            json!({"urgent": ["true"], "level": ["-7"]}),
        ),
        ("snapshot: false, overflow: \"close\", level: null", json!({})),
    ] {
        assert_eq!(with(arguments), filter, "{arguments}");
    }
    assert_eq!(
        bound(&schema, &request("subscription { things { cursor } }"))
            .stream
            .as_str(),
        "things"
    );
}

#[test]
fn variables_are_coerced_as_the_specification_says() {
    let schema = schema();
    let query = "subscription($p: ID, $s: [State!] = [NEW], $u: Boolean, $l: Int) {
        things(patient: $p, state: $s, urgent: $u, level: $l) { cursor } }";
    let with = |variables: Value| Value::Object(bound(&schema, &with_variables(query, variables)).filter);
    for (variables, filter) in [
        (json!({}), json!({"state": ["new"], "level": ["3"]})),
        (json!({"l": null, "s": null}), json!({})),
        (
            json!({"l": 5.0, "s": "final"}),
            json!({"level": ["5"], "state": ["final"]}),
        ),
        (
            json!({"l": null, "p": 17, "unknown": {}}),
            json!({"patient": ["Patient/17"], "state": ["new"]}),
        ),
        (
            json!({"l": null, "s": ["ENTERED_IN_ERROR"], "u": false}),
            json!({"state": ["entered-in-error"], "urgent": ["false"]}),
        ),
    ] {
        assert_eq!(with(variables.clone()), filter, "{variables}");
    }
    for variables in [
        json!({"l": "5"}),
        json!({"l": 1.5}),
        json!({"l": 3_000_000_000_u64}),
        json!({"s": ["entered-in-error"]}),
        json!({"s": [null]}),
        json!({"s": {"a": 1}}),
        json!({"p": true}),
        json!({"p": 1.5}),
        json!({"u": "true"}),
        json!({"u": []}),
    ] {
        let refused = refused(&schema, &with_variables(query, variables.clone()));
        let (code, place) = told(&refused);
        assert_eq!(code, "BAD_USER_INPUT", "{variables}");
        assert!(
            place.is_some_and(|(line, _)| line == 1),
            "{variables}: {}",
            refused.errors_json()
        );
    }
    let needed = "subscription($s: [State!]!) { states(state: $s) { cursor } }";
    assert_eq!(told(&refused(&schema, &request(needed))).0, "BAD_USER_INPUT");
    assert_eq!(
        told(&refused(&schema, &with_variables(needed, json!({"s": null})))).0,
        "BAD_USER_INPUT"
    );
}

#[test]
fn an_empty_list_is_refused_and_not_taken_for_everything() {
    let schema = schema();
    let direct = refused(&schema, &request("subscription { things(state: []) { cursor } }"));
    assert_eq!(told(&direct), ("filter_invalid".to_owned(), Some((1, 30))));
    let query = "subscription($s: [State!]) { things(state: $s) { cursor } }";
    let by_variable = refused(&schema, &with_variables(query, json!({"s": []})));
    assert_eq!(told(&by_variable).0, "filter_invalid");
}

#[test]
fn the_extension_after_beats_the_argument() {
    let schema = schema();
    let mut request = request("subscription { things { cursor } }");
    request.extensions = map(json!({"after": "from-extension", "other": [1]}));
    assert_eq!(bound(&schema, &request).after.as_deref(), Some("from-extension"));
    request.query = Some("subscription { things(after: \"from-argument\") { cursor } }".to_owned());
    assert_eq!(bound(&schema, &request).after.as_deref(), Some("from-extension"));
    request.extensions = map(json!({"after": null}));
    assert_eq!(bound(&schema, &request).after.as_deref(), Some("from-argument"));
    request.extensions = map(json!({"after": "from-extension"}));
    request.query = Some("subscription { things(after: null) { cursor } }".to_owned());
    assert_eq!(bound(&schema, &request).after.as_deref(), Some("from-extension"));
    request.extensions = map(json!({"after": 7}));
    assert_eq!(told(&refused(&schema, &request)).0, "BAD_USER_INPUT");
}

#[test]
fn what_a_later_version_does_is_refused_by_name() {
    let schema = schema();
    for arguments in ["snapshot: true", "overflow: \"drop\"", "rate: 5"] {
        let query = format!("subscription {{ things({arguments}) {{ cursor }} }}");
        assert_eq!(
            told(&refused(&schema, &request(&query))).0,
            "unsupported",
            "{arguments}"
        );
    }
}

#[test]
fn exactly_one_field_of_subscription_is_selected() {
    let schema = schema();
    for (query, is_good) in [
        ("subscription { things { kind } }", true),
        ("subscription { a: things { kind } a: things { cursor } }", true),
        (
            "subscription { ...F } fragment F on Subscription { things { kind } ... { things { cursor } } }",
            true,
        ),
        ("subscription { __typename }", false),
        ("subscription { things { kind } __typename }", false),
        ("subscription { things { kind } thing { id } }", false),
        ("subscription { a: things { kind } b: things { kind } }", false),
        ("subscription { things @include(if: true) { kind } }", false),
        ("subscription { ... @skip(if: false) { things { kind } } }", false),
    ] {
        let prepared = schema.prepare(&request(query), None);
        assert_eq!(prepared.is_ok(), is_good, "{query}");
        if let Err(refused) = prepared {
            let (code, place) = told(&refused);
            assert_eq!(code, "GRAPHQL_VALIDATION_FAILED", "{query}");
            assert!(place.is_some(), "{query}");
        }
    }
}

#[test]
fn documents_that_are_not_valid_are_refused_with_a_place() {
    let schema = schema();
    for (query, code) in [
        ("subscription {", "GRAPHQL_PARSE_FAILED"),
        ("", "BAD_REQUEST"),
        ("subscription { nothing { kind } }", "GRAPHQL_VALIDATION_FAILED"),
        ("subscription { things { nothing } }", "GRAPHQL_VALIDATION_FAILED"),
        (
            "subscription { things { kind { x } } }",
            "GRAPHQL_VALIDATION_FAILED",
        ),
        ("subscription { things { data } }", "GRAPHQL_VALIDATION_FAILED"),
        (
            "subscription { things(nothing: 1) { kind } }",
            "GRAPHQL_VALIDATION_FAILED",
        ),
        ("subscription { things(level: \"x\") { kind } }", "BAD_USER_INPUT"),
        (
            "subscription { things(state: NOTHING) { kind } }",
            "BAD_USER_INPUT",
        ),
        (
            "subscription { things(state: \"NEW\") { kind } }",
            "BAD_USER_INPUT",
        ),
        (
            "subscription { things(patient: $p) { kind } }",
            "GRAPHQL_VALIDATION_FAILED",
        ),
        (
            "subscription($p: ID) { things { kind } }",
            "GRAPHQL_VALIDATION_FAILED",
        ),
        (
            "subscription($p: Nothing) { things(patient: $p) { kind } }",
            "GRAPHQL_VALIDATION_FAILED",
        ),
        (
            "subscription($l: [Int]) { things(level: $l) { kind } }",
            "GRAPHQL_VALIDATION_FAILED",
        ),
        (
            "subscription($s: State) { things(state: [$s]) { kind } }",
            "GRAPHQL_VALIDATION_FAILED",
        ),
        (
            "subscription { a: things(level: 1) { kind } ... on Subscription { a: things(level: 2) { kind } } }",
            "GRAPHQL_VALIDATION_FAILED",
        ),
        ("subscription { things { ...F } }", "GRAPHQL_VALIDATION_FAILED"),
        (
            "subscription { things { ...F } } fragment F on ThingEvent { ...F }",
            "GRAPHQL_VALIDATION_FAILED",
        ),
        (
            "subscription { things { ...F } } fragment F on Thing { id }",
            "GRAPHQL_VALIDATION_FAILED",
        ),
        (
            "subscription { things { a: kind a: cursor } }",
            "GRAPHQL_VALIDATION_FAILED",
        ),
        (
            "subscription { things { a: kind ... on ThingEvent { a: cursor } } }",
            "GRAPHQL_VALIDATION_FAILED",
        ),
        (
            "subscription { things { data { a: id } data { a: label } } }",
            "GRAPHQL_VALIDATION_FAILED",
        ),
        (
            "subscription { things { data { parts { ... on Bolt { s: size } ... on Nut { s: size } } } } }",
            "GRAPHQL_VALIDATION_FAILED",
        ),
        (
            "subscription { things { kind @nothing } }",
            "GRAPHQL_VALIDATION_FAILED",
        ),
        (
            "subscription { things { kind @include } }",
            "GRAPHQL_VALIDATION_FAILED",
        ),
        ("mutation { __typename }", "GRAPHQL_VALIDATION_FAILED"),
        ("query { nothing }", "GRAPHQL_VALIDATION_FAILED"),
    ] {
        let refused = refused(&schema, &request(query));
        assert_eq!(told(&refused).0, code, "{query}: {}", refused.errors_json());
        assert_eq!(refused.code, schemas::problem::Code::OPERATION_INVALID);
        let with_place = !matches!(code, "BAD_REQUEST");
        assert_eq!(
            told(&refused).1.is_some(),
            with_place,
            "{query}: {}",
            refused.errors_json()
        );
    }
}

#[test]
fn the_operation_is_found_by_its_name() {
    let schema = schema();
    let document =
        format!("subscription A {MINIMAL} subscription B {{ thing {{ id }} }} query C {{ __typename }}");
    let named = |name: Option<&str>| Request {
        operation_name: name.map(str::to_owned),
        ..request(&document)
    };
    assert_eq!(bound(&schema, &named(Some("A"))).projection.key.name(), "things");
    assert_eq!(bound(&schema, &named(Some("B"))).projection.key.name(), "thing");
    assert_eq!(schema.kind(&named(Some("A"))), Ok(OperationKind::Subscription));
    assert_eq!(schema.kind(&named(Some("C"))), Ok(OperationKind::Query));
    for name in [None, Some(""), Some("D")] {
        assert_eq!(
            told(&refused(&schema, &named(name))).0,
            "OPERATION_RESOLUTION_FAILURE"
        );
        assert!(schema.kind(&named(name)).is_err());
    }
    assert_eq!(
        schema.kind(&request("mutation { anything }")),
        Ok(OperationKind::Mutation)
    );
}

#[test]
fn queries_answer_the_sdl_and_introspection() {
    let schema = schema();
    let sdl = answer(&schema, &request("{ __typename _service { sdl } }"));
    assert_eq!(sdl["data"]["__typename"], "Query");
    assert_eq!(sdl["data"]["_service"]["sdl"], schema.sdl());
    let query = "query($n: String!) { __type(name: $n) { name enumValues { name } }
        __schema { subscriptionType { fields { name args { name defaultValue } } } } }";
    let told = answer(&schema, &with_variables(query, json!({"n": "State"})));
    assert_eq!(
        told["data"]["__type"]["enumValues"][1]["name"],
        "ENTERED_IN_ERROR"
    );
    let fields = told["data"]["__schema"]["subscriptionType"]["fields"]
        .as_array()
        .expect("fields")
        .clone();
    assert!(fields.iter().any(|field| field["name"] == "things"));
}

#[test]
fn what_tools_ask_of_a_schema_is_answered() {
    let reference = (0..9).fold("kind name".to_owned(), |below, _| {
        format!("kind name ofType {{ {below} }}")
    });
    let input =
        format!("name description type {{ {reference} }} defaultValue isDeprecated deprecationReason");
    let query = format!(
        "{{ __schema {{ description queryType {{ name }} mutationType {{ name }} subscriptionType {{ name }}
             types {{ kind name description specifiedByURL isOneOf
               fields(includeDeprecated: true) {{ name description args(includeDeprecated: true) {{ {input} }}
                 type {{ {reference} }} isDeprecated deprecationReason }}
               inputFields(includeDeprecated: true) {{ {input} }} interfaces {{ {reference} }}
               enumValues(includeDeprecated: true) {{ name description isDeprecated deprecationReason }}
               possibleTypes {{ {reference} }} }}
             directives {{ name description isRepeatable locations args(includeDeprecated: true) {{ {input} }} }} }} }}"
    );
    for contract in [contract(), Arc::new(schemas::contract::clinical())] {
        let options = Options {
            introspection: true,
            ..Options::default()
        };
        let schema = Schema::new(&contract, options).expect("a schema");
        let told = answer(&schema, &request(&query));
        assert!(told["data"]["__schema"]["types"].as_array().is_some());
    }
}

#[test]
fn introspection_can_be_switched_off() {
    let schema = schema_with(Options::default());
    for query in [
        "{ __schema { types { name } } }",
        "{ a: __type(name: \"Thing\") { name } }",
        "{ ...F } fragment F on Query { __schema { types { name } } }",
    ] {
        assert_eq!(
            told(&refused(&schema, &request(query))).0,
            "GRAPHQL_VALIDATION_FAILED"
        );
    }
    assert_eq!(
        answer(&schema, &request("{ __typename }")),
        json!({"data": {"__typename": "Query"}})
    );
    let query = "subscription { things { __typename kind } }";
    bound(&schema, &request(query));
}

#[test]
fn scopes_are_asked_for_wherever_the_field_is_hidden_in_the_document() {
    let schema = schema();
    let with = |query: &str, principal: Option<&Principal>| {
        schema
            .prepare(&request(query), principal)
            .map(|_| ())
            .map_err(|refused| told(&refused).0)
    };
    let secret = "subscription { things { data { ...F } } } fragment F on Thing { x: secret }";
    assert_eq!(with(secret, None), Err("unauthenticated".to_owned()));
    assert_eq!(
        with(secret, Some(&principal(&["things"]))),
        Err("field_forbidden".to_owned())
    );
    assert_eq!(with(secret, Some(&principal(&["secrets:read"]))), Ok(()));
    assert_eq!(
        with(secret, Some(&principal(&["things"]))),
        Err("field_forbidden".to_owned()),
        "kept for nobody else"
    );
    let known = "subscription { things { data { known } } }";
    assert_eq!(with(known, None), Err("unauthenticated".to_owned()));
    assert_eq!(with(known, Some(&principal(&[]))), Ok(()));
    let locked = "subscription { locked { kind } }";
    for (scopes, is_let_in) in [
        (&["admin"][..], true),
        (&["system/*.cruds", "launch"], true),
        (&["system/*.rs"], false),
        (&["system/*.rs?category=a", "launch"], false),
        (&["launch"], false),
    ] {
        assert_eq!(
            with(locked, Some(&principal(scopes))).is_ok(),
            is_let_in,
            "{scopes:?}"
        );
    }
    let skipped = "subscription { things { data { id secret @skip(if: true) } } }";
    assert_eq!(with(skipped, None), Ok(()), "what is not selected needs nothing");
}

#[test]
fn equal_selections_are_one_projection_whatever_the_document() {
    let schema = schema();
    let of = |query: &str| bound(&schema, &request(query)).projection;
    let hash = |projection: &Projection| {
        use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
        BuildHasherDefault::<DefaultHasher>::default().hash_one(projection)
    };
    let plain = of("subscription { things { kind data { id parts { name ... on Bolt { size } } } } }");
    for same in [
        "subscription Named($p: ID) { things(patient: $p) { kind data { id parts { name ... on Bolt { size } } } } }",
        "subscription { things { ...E } } fragment E on ThingEvent { kind data { id } data { parts { name ... on Bolt { size } } } }",
        "subscription { things { kind data { id parts { ... on Part { name } ... on Bolt { size name } id: name @skip(if: true) } } } }",
    ] {
        let other = of(same);
        assert_eq!(plain, other, "{same}");
        assert_eq!(hash(&plain), hash(&other));
    }
    for other in [
        "subscription { x: things { kind data { id parts { name ... on Bolt { size } } } } }",
        "subscription { things { kind data { parts { name ... on Bolt { size } } id } } }",
        "subscription { things { kind data { id parts { name ... on Bolt { s: size } } } } }",
        "subscription { things { kind data { id parts { name } } } }",
    ] {
        assert_ne!(plain, of(other), "{other}");
    }
}

#[test]
fn requests_that_differ_in_arguments_share_one_projection() {
    let schema = schema();
    let query =
        "subscription($p: ID, $b: Boolean = false) { things(patient: $p) { kind cursor @include(if: $b) } }";
    let of = |variables: Value| bound(&schema, &with_variables(query, variables)).projection;
    let one = of(json!({"p": "1"}));
    assert!(Arc::ptr_eq(&one, &of(json!({"p": "2"}))));
    assert!(Arc::ptr_eq(&one, &of(json!({"p": "2", "b": false}))));
    assert_ne!(one, of(json!({"b": true})));
}

#[test]
fn requests_are_read_as_every_transport_carries_them() {
    let read = |value: Value| serde_json::from_value::<Request>(value);
    let request =
        read(json!({"query": "{a}", "operationName": null, "variables": null, "extensions": null, "id": 1}));
    assert_eq!(request.expect("a request"), super::request("{a}"));
    let request = read(json!({"documentId": "d", "variables": {"a": 1}})).expect("a request");
    assert_eq!(request.document_id.as_deref(), Some("d"));
    assert!(read(json!({"query": 1})).is_err());
    assert!(read(json!({"query": "{a}", "variables": []})).is_err());
    let text = format!("{:?}", with_variables("{a}", json!({"patient": "Patient/1"})));
    assert!(!text.contains("Patient"), "{text}");
}

#[test]
fn the_latest_conditions_stay_compiled_however_many_there_are() {
    let schema = schema();
    let query = "subscription($a: Boolean!, $b: Boolean!, $c: Boolean!, $d: Boolean!) { things {
        cursor a: kind @include(if: $a) b: kind @include(if: $b) c: kind @include(if: $c) d: kind @include(if: $d) } }";
    for number in 0..16 {
        let is = |bit: u8| number & (1 << bit) != 0;
        let request = with_variables(query, json!({"a": is(0), "b": is(1), "c": is(2), "d": is(3)}));
        let (one, other) = (bound(&schema, &request), bound(&schema, &request));
        assert!(Arc::ptr_eq(&one.projection, &other.projection), "{number}");
    }
}
