//! Bad SDL: each is refused with its code, at its line and column.

use super::*;

#[test]
fn bad_types_are_refused_at_their_places() {
    let cases: &[(&str, &[&str])] = &[
        ("type Observation {\n  id ID!\n}\n", &["2:6 sdl_syntax"]),
        ("type Observation {", &["1:19 sdl_syntax"]),
        ("query { x }", &["1:1 sdl_syntax"]),
        ("type A { x: Sting }", &["1:10 sdl_type_unknown"]),
        ("type A { x(y: B): Int }", &["1:15 sdl_type_unknown"]),
        ("union U = A | B\ntype A { x: Int }", &["1:15 sdl_type_unknown"]),
        ("input I { x: Nothing }", &["1:14 sdl_type_unknown"]),
        ("type A { x: Int }\ntype A { y: Int }", &["2:6 sdl_duplicate"]),
        (
            "type A { x: Int }\nextend type A { x: Int }",
            &["2:17 sdl_duplicate"],
        ),
        (
            "type A { x: Int }\nextend input A { y: Int }",
            &["2:14 sdl_extension"],
        ),
        (
            "type A { x: Int @json(pointer: \"x\") }",
            &["1:32 pointer_invalid"],
        ),
        ("type A { x: Int @json(pointer: 5) }", &["1:32 pointer_invalid"]),
    ];
    let streams = with_line(STREAMS, 3, "");
    for (sdl, expected) in cases {
        assert_eq!(brief(load(&streams, sdl)), *expected, "{sdl}");
    }
}

#[test]
fn federations_words_are_tolerated() {
    let sdl = r#"
extend schema
  @link(url: "https://specs.apollo.dev/federation/v2.9", import: ["@key", "FieldSet", { name: "Scope", as: "Zone" }])
  @composeDirective(name: "@mine")
directive @mine(fields: FieldSet, emit: Emit = EVENT) repeatable on OBJECT | FIELD_DEFINITION
enum Emit { EVENT ENTITY }
interface Node { id: ID! }
type A implements Node @key(fields: "id", resolvable: false) @mine @mine { id: ID! a: _Any b: Zone c: federation__Scope }
extend type A @shareable { more(first: Int = 5, of: [In!]): [[Float!]]! @requiresScopes(scopes: [["x"]]) }
input In { x: Int = 1 @mine }
type Query { _service: _Service! }
schema { query: Query }
"#;
    assert_eq!(brief(load(&with_line(STREAMS, 3, ""), sdl)), Vec::<String>::new());
}

#[test]
fn a_broken_sdl_leaves_the_streams_checked() {
    let streams = with_line(STREAMS, 4, "tenent = { header = 'tenant' }");
    let found = load(&streams, "type Observation {").expect_err("refused");
    let codes: Vec<_> = found.iter().map(|finding| finding.code).collect();
    assert_eq!(
        codes,
        ["missing_key", "unknown_key", "sdl_syntax"],
        "and no `schema_unknown`"
    );
}

#[test]
fn interfaces_are_followed_into_their_implementations() {
    let sdl = "interface Resource @discriminator(pointer: \"/type\") { id: ID! }\n\
               type Visit implements Resource { id: ID! ward: String! }\n\
               type Bed implements Resource { id: ID! room: String }\n";
    let streams = with_line(STREAMS, 3, "schema = 'Resource'");
    let streams = with_line(&streams, 5, "attributes = { ward = '/ward', room = '/room' }");
    assert_eq!(brief(load(&streams, sdl)), Vec::<String>::new());
    let hidden = with_line(&streams, 8, "rows = 'tenant'\nhide = ['/room', '/ward']");
    assert_eq!(brief(load(&hidden, sdl)), ["9:18 hidden_non_null"]);
}

#[test]
fn recursive_types_are_followed_as_far_as_the_pointer_goes() {
    let sdl = "type Observation { part: Observation parts: [Observation!] name: String! }";
    let streams = with_line(STREAMS, 5, "attributes = { name = '/part/parts/3/part/name' }");
    assert_eq!(brief(load(&streams, sdl)), Vec::<String>::new());
}
