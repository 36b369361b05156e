//! Documents that are made to hurt: each gets an answer, soon.

use std::time::Duration;

use tokio::time::Instant;

use super::super::plan::Selected;
use super::*;

/// Generous: these are unoptimised builds on busy machines. What is not bounded takes longer than anybody waits.
const SOON: Duration = Duration::from_secs(5);

/// The code that the document is refused with.
fn code_of(query: &str) -> String {
    let schema = schema();
    let start = Instant::now();
    let code = told(&refused(&schema, &request(query))).0;
    assert!(schema.kind(&request(query)).is_ok() || code != "ok");
    assert!(start.elapsed() < SOON, "{:?} for {code}", start.elapsed());
    code
}

#[test]
fn documents_that_are_too_long_are_not_looked_at() {
    let text = format!("subscription {{ things {{ {} }} }}", "kind ".repeat(2_000_000));
    assert_eq!(code_of(&text), "operation_too_large");
    assert_eq!(
        code_of(&format!("# {}\n{{ a }}", "x".repeat(10 << 20))),
        "operation_too_large"
    );
}

#[test]
fn deep_documents_are_refused_before_a_parser_recurses() {
    for (open, close) in [("{a", "}"), ("{a(b:[", "])}"), ("{...on A", "}")] {
        assert_eq!(
            code_of(&format!("{}{}", open.repeat(5000), close.repeat(5000))),
            "operation_too_large"
        );
    }
    assert_eq!(
        code_of(&format!("{{a(b:{}1{})}}", "[".repeat(9000), "]".repeat(9000))),
        "operation_too_large"
    );
    assert_eq!(
        code_of(&format!("{{a(b:{}1{})}}", "{c:".repeat(3000), "}".repeat(3000))),
        "operation_too_large"
    );
    let parts = format!(
        "subscription {{ things {{ data {{ {} name {} }} }} }}",
        "parts { ... on Bolt { part {", "} } }"
    );
    bound(&schema(), &request(&parts));
    let deep = format!(
        "subscription {{ things {{ data {{ parts {{ {} name {} }} }} }} }}",
        "part { ".repeat(25),
        "} ".repeat(25)
    );
    assert_eq!(code_of(&deep), "operation_too_large");
}

#[test]
fn wide_documents_are_refused() {
    let wide = format!("subscription {{ things {{ {} }} }}", "kind ".repeat(1001));
    assert_eq!(code_of(&wide), "operation_too_large");
    let aliases: String = (0..300).map(|number| format!("a{number}: kind ")).collect();
    assert_eq!(
        code_of(&format!("subscription {{ things {{ {aliases} }} }}")),
        "operation_too_large"
    );
    let directives = "@skip(if: false) ".repeat(200);
    assert_eq!(
        code_of(&format!("subscription {{ things {{ kind {directives} }} }}")),
        "operation_too_large"
    );
    let unknown = "@a ".repeat(9_000);
    assert_eq!(
        code_of(&format!("subscription {unknown} {{ things {{ kind }} }}")),
        "operation_too_large"
    );
}

#[test]
fn fragments_do_not_multiply() {
    let mut text = "subscription { things { ...F0 } } ".to_owned();
    for number in 0..40 {
        text += &format!(
            "fragment F{number} on ThingEvent {{ ...F{} ...F{} }} ",
            number + 1,
            number + 1
        );
    }
    text += "fragment F40 on ThingEvent { kind }";
    assert_eq!(code_of(&text), "operation_too_large");
    let mut unused = "subscription { things { kind } } ".to_owned();
    unused += text
        .strip_prefix("subscription { things { ...F0 } } ")
        .expect("the fragments");
    assert_eq!(
        code_of(&unused),
        "operation_too_large",
        "validation looks at unused ones too"
    );
    let mut chain = "subscription { things { ...F0 } } ".to_owned();
    for number in 0..1500 {
        chain += &format!("fragment F{number} on ThingEvent {{ ...F{} }} ", number + 1);
    }
    chain += "fragment F1500 on ThingEvent { kind }";
    assert_eq!(code_of(&chain), "operation_too_large");
}

#[test]
fn fragments_that_spread_themselves_are_refused() {
    assert_eq!(
        code_of(
            "subscription { things { ...A } } fragment A on ThingEvent { ...B } fragment B on ThingEvent { kind ...A }"
        ),
        "GRAPHQL_VALIDATION_FAILED"
    );
}

#[test]
fn types_do_not_multiply() {
    // Each level can be of two types, and each has a selection of its own for either.
    let mut text = "name".to_owned();
    for _ in 0..8 {
        text = format!("part {{ name ... on Bolt {{ {text} }} ... on Nut {{ part {{ name }} }} }}");
    }
    let schema = schema();
    let start = Instant::now();
    let bound = bound(
        &schema,
        &request(&format!(
            "subscription {{ things {{ data {{ parts {{ {text} }} }} }} }}"
        )),
    );
    let parts = bound.projection.selected().flat_map(Selected::parts);
    let selections: usize = parts.map(|part| part.plan().plan.selections.len()).sum();
    assert!((8..100).contains(&selections), "{selections}");
    assert!(start.elapsed() < SOON);
}

#[test]
fn introspection_does_not_explode() {
    let text = format!(
        "{{ __schema {{ types {{ {} name {} }} }} }}",
        "fields { type { ".repeat(9),
        "} } ".repeat(9)
    );
    assert_eq!(code_of(&text), "operation_too_large");
    let leaves: String = (0..180).map(|number| format!("a{number}: name ")).collect();
    for around in [
        "fields { type { fields { type { fields { LEAVES } } } } }",
        "fields { type { enumValues { LEAVES } } }",
        "possibleTypes { fields { args { LEAVES } } }",
        "interfaces { possibleTypes { interfaces { LEAVES } } }",
        "fields { type { fields { type { LEAVES } } } }",
    ] {
        let text = format!("{{ __schema {{ types {{ {around} }} }} }}").replace("LEAVES", &leaves);
        assert_eq!(code_of(&text), "operation_too_large", "{around}");
    }
    let long = "x".repeat(60_000);
    assert_eq!(
        code_of(&format!("{{ __schema {{ types {{ {long}: name }} }} }}")),
        "operation_too_large"
    );
}

#[test]
fn the_sdl_is_not_told_under_many_names() {
    let aliases = |count: usize, one: &str| -> String {
        (0..count).map(|number| format!("a{number}: {one} ")).collect()
    };
    let told = answer(
        &schema(),
        &request(&format!("{{ {} }}", aliases(2, "_service { sdl }"))),
    );
    assert_eq!(told["data"]["a1"], told["data"]["a0"]);
    // A contract whose SDL is long beside what it declares, as descriptions make it.
    let sdl = SDL.replacen(
        "scalar Long",
        &format!("\"{}\" scalar Long", "long ".repeat(100_000)),
        1,
    );
    let schema = schema_of(&sdl, Options::default());
    for text in [
        format!("{{ {} }}", aliases(200, "_service { sdl }")),
        format!("{{ _service {{ {} }} }}", aliases(200, "sdl")),
        format!(
            "{{ ...F }} fragment F on Query {{ {} }}",
            aliases(3, "_service { sdl }")
        ),
    ] {
        assert_eq!(
            self::told(&refused(&schema, &request(&text))).0,
            "operation_too_large"
        );
    }
    answer(&schema, &request("{ _service { sdl } }"));
}

#[test]
fn variables_are_bounded_whatever_they_are() {
    let schema = schema();
    let query = "subscription($s: [State!]) { things(state: $s) { kind } }";
    for variables in [
        json!({"s": vec!["NEW"; 100_000]}),
        json!({"unused": "x".repeat(100_000)}),
        json!({"s": (0..100).fold(json!("NEW"), |value, _| json!([value]))}),
    ] {
        let refused = refused(&schema, &with_variables(query, variables));
        assert!(refused.errors_json().len() < 1000);
    }
    let definitions: String = (0..3000).map(|number| format!("$v{number}: Int ")).collect();
    let text = format!("subscription({definitions}) {{ things {{ kind }} }}");
    let start = Instant::now();
    assert!(refused(&schema, &request(&text)).errors_json().len() < 10_000);
    assert!(start.elapsed() < SOON);
}

#[test]
fn a_variable_in_many_places_of_a_list_is_not_copied_for_each() {
    let schema = schema();
    let many = |name: &str| format!("[{}]", format!("${name},").repeat(4_000));
    let start = Instant::now();
    for (query, variables) in [
        (
            format!(
                "subscription($s: State!) {{ things(state: {}) {{ kind }} }}",
                many("s")
            ),
            json!({"s": "NEW"}),
        ),
        (
            format!("subscription($i: ID!) {{ named(id: {}) {{ kind }} }}", many("i")),
            json!({"i": "x".repeat(48 << 10)}),
        ),
    ] {
        let refused = refused(&schema, &with_variables(&query, variables));
        assert_eq!(told(&refused).0, "filter_invalid", "{}", refused.errors_json());
    }
    assert!(start.elapsed() < SOON);
    let most = with_variables(
        "subscription($i: [ID!]) { named(id: $i) { kind } }",
        json!({"i": vec!["y"; 64]}),
    );
    assert_eq!(
        bound(&schema, &most).filter["name"].as_array().map(Vec::len),
        Some(64)
    );
}

#[test]
fn a_document_that_is_not_valid_is_looked_at_once() {
    let schema = schema();
    let text = format!(
        "subscription {{ things {{ data {{ {} missing }} }} }}",
        "id label ".repeat(450)
    );
    let first = refused(&schema, &request(&text));
    assert_eq!(told(&first).0, "GRAPHQL_VALIDATION_FAILED");
    assert_eq!(schema.kept(), (0, 1));
    let start = Instant::now();
    for _ in 0..1_000 {
        assert_eq!(refused(&schema, &request(&text)), first);
    }
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    assert_eq!(schema.kept(), (0, 1));
    // Another operation of it is another question.
    let named = Request {
        operation_name: Some("A".to_owned()),
        ..request(&text)
    };
    assert_eq!(told(&refused(&schema, &named)).0, "OPERATION_RESOLUTION_FAILURE");
    for number in 0..2_000 {
        refused(&schema, &request(&format!("subscription {{ missing{number} }}")));
    }
    assert!(schema.kept().1 <= 1_000);
}

#[test]
fn what_is_valid_is_kept_whoever_sends_it() {
    let schema = schema();
    let secret = request("subscription { things { data { secret } } }");
    assert_eq!(told(&refused(&schema, &secret)).0, "unauthenticated");
    let query = "subscription($l: Int) { things(level: $l) { kind } }";
    let wrong = with_variables(query, json!({"l": "x"}));
    assert_eq!(told(&refused(&schema, &wrong)).0, "BAD_USER_INPUT");
    assert_eq!(schema.kept(), (2, 0));
    let reader = principal(&["secrets:read"]);
    assert!(schema.prepare(&secret, Some(&reader)).is_ok());
    assert_eq!(
        told(&refused(&schema, &secret)).0,
        "unauthenticated",
        "what is kept is not what is allowed"
    );
    bound(&schema, &with_variables(query, json!({"l": 1})));
}

#[test]
fn what_is_kept_is_bounded() {
    let schema = schema_with(Options {
        limits: Limits {
            cached_operations_max: 10,
            ..Limits::default()
        },
        ..Options::default()
    });
    for number in 0..50 {
        bound(
            &schema,
            &request(&format!("subscription {{ things {{ a{number}: kind }} }}")),
        );
    }
}
