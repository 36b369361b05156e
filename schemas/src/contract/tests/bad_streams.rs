//! Bad declarations of streams: each is refused with its code, at its line and column.

use super::*;

/// (line of the good declaration, what stands there instead, what is found)
type Case = (usize, &'static str, &'static [&'static str]);

fn check(cases: &[Case]) {
    for (line, instead, expected) in cases {
        let text = with_line(STREAMS, *line, instead);
        assert_eq!(brief(load(&text, SDL)), *expected, "{instead:?} in line {line}");
    }
}

#[test]
fn keys_and_types() {
    check(&[
        (
            2,
            "topic = ['fhir.observation']",
            &["1:1 missing_key", "2:1 unknown_key"],
        ),
        (2, "topics = 'fhir.observation'", &["2:10 wrong_type"]),
        (2, "topics = ['a', 7]", &["2:16 wrong_type"]),
        (2, "topics = []", &["2:1 topics_empty"]),
        (2, "topics = ['a']\nformat = 'jsn'", &["3:10 unknown_value"]),
        (2, "topics = ['a']\nshow_offsets = 1", &["3:16 wrong_type"]),
        (2, "topics = ['a']\ndescription = true", &["3:15 wrong_type"]),
        (
            2,
            "topics = ['a']\ntype_prefix = 'a..b'",
            &["3:15 type_prefix_invalid"],
        ),
        (
            2,
            "topics = ['a']\nsource = 'two words'",
            &["3:10 source_invalid"],
        ),
        (2, "topics = ['a'\nfoo = 1", &["3:1 toml_syntax"]),
    ]);
}

#[test]
fn names_of_streams() {
    for bad in ["Observations", "2x", "'a-b'", "'a.b'", "''", "é"] {
        let bad = if bad == "é" { "'é'" } else { bad };
        let text = STREAMS.replace("streams.observations", &format!("streams.{bad}"));
        assert_eq!(brief(load(&text, SDL)), ["1:10 stream_name_invalid"], "{bad}");
    }
}

#[test]
fn names_of_attributes() {
    for reserved in RESERVED_BY_EVENTS.iter().chain(&RESERVED_BY_QUERIES) {
        let line = format!("attributes = {{ {reserved} = '/status' }}");
        let found = brief(load(&with_line(STREAMS, 5, &line), SDL));
        assert_eq!(found, ["5:16 attribute_name_reserved"], "{reserved}");
    }
    for bad in [
        "Patient",
        "patient_id",
        "'patient-id'",
        "2nd",
        "abcdefghijklmnopqrstu",
        "''",
        "'ü'",
    ] {
        let line = format!("attributes = {{ {bad} = '/status' }}");
        let found = brief(load(&with_line(STREAMS, 5, &line), SDL));
        assert_eq!(found, ["5:16 attribute_name_invalid"], "{bad}");
    }
}

#[test]
fn sources_of_attributes() {
    check(&[
        (
            5,
            "attributes = { a = 'subject/reference' }",
            &["5:20 pointer_invalid"],
        ),
        (5, "attributes = { a = '' }", &["5:20 pointer_invalid"]),
        (5, "attributes = { a = '/a~2' }", &["5:20 pointer_invalid"]),
        (5, "attributes = { a = 'header:' }", &["5:20 header_invalid"]),
        (5, "attributes = { a = 5 }", &["5:20 wrong_type"]),
        (5, "attributes = { a = {} }", &["5:20 attribute_source_invalid"]),
        (
            5,
            "attributes = { a = { key = true, header = 'x' } }",
            &["5:20 attribute_source_invalid"],
        ),
        (
            5,
            "attributes = { a = { key = false } }",
            &["5:28 attribute_source_invalid"],
        ),
        (
            5,
            "attributes = { a = { pointer = '/status', normalise = 'ref' } }",
            &["5:55 unknown_value"],
        ),
        (
            5,
            "attributes = { a = { pointer = '/status', normalize = 'reference' } }",
            &["5:43 unknown_key"],
        ),
        (
            5,
            "attributes = { a = '/subjct/reference' }",
            &["5:20 pointer_unknown"],
        ),
        (
            5,
            "attributes = { a = '/subject/refrence' }",
            &["5:20 pointer_unknown"],
        ),
        (
            5,
            "attributes = { a = '/status/code' }",
            &["5:20 pointer_unknown"],
        ),
        (
            5,
            "attributes = { a = '/code/coding/code' }",
            &["5:20 pointer_unknown"],
        ),
        (5, "attributes = { a = '/patientId' }", &["5:20 pointer_unknown"]),
        (
            5,
            "attributes = { a = { pointer = '/value/nothing' } }",
            &["5:32 pointer_unknown"],
        ),
        (5, "attributes = { a = '/subject' }", &["5:20 attribute_no_value"]),
        (
            5,
            "attributes = { a = '/links/patient' }",
            &["5:20 attribute_no_value"],
        ),
        (
            5,
            "attributes = { a = '/code/coding' }",
            &["5:20 attribute_no_value"],
        ),
        (5, "attributes = 'patient'", &["5:14 wrong_type"]),
        // These are right: an open scalar, @json, an index, a member of a union.
        (
            5,
            "attributes = { a = '/extra/x/y', b = '/links/patient/id', c = '/code/coding/0/code', d = '/value/unit' }",
            &[],
        ),
    ]);
}

#[test]
fn topics_and_tenants() {
    check(&[
        (2, "topics = ['a b']", &["2:11 topic_invalid"]),
        (2, "topics = ['_internal']", &["2:11 topic_invalid"]),
        (2, "topics = ['a', 'tidewire.control']", &["2:16 topic_invalid"]),
        (2, "topics = ['a', 'a']", &["2:16 duplicate"]),
        (2, "topics = ['a.{tenant}']", &["2:11 tenant_capture_unused"]),
        (
            4,
            "tenant = { topic = '{tenant}' }",
            &["2:11 tenant_capture_missing"],
        ),
        (4, "tenant = { topic = 'tenant' }", &["4:20 unknown_value"]),
        (4, "tenant = 'tenant'", &["4:10 wrong_type"]),
        (4, "tenant = {}", &["4:1 tenant_source_invalid"]),
        (
            4,
            "tenant = { header = 'a', key = 'prefix' }",
            &["4:1 tenant_source_invalid"],
        ),
        (
            4,
            "tenant = { headr = 'a' }",
            &["4:1 tenant_source_invalid", "4:12 unknown_key"],
        ),
        (4, "tenant = { header = '' }", &["4:21 header_invalid"]),
        (4, "tenant = { key = 'suffix' }", &["4:18 unknown_value"]),
        (
            4,
            "tenant = { key = 'prefix', separator = '::' }",
            &["4:40 separator_invalid"],
        ),
        (4, "tenant = { pointer = 'meta' }", &["4:22 pointer_invalid"]),
        (4, "tenant = { pointer = '/meta/*' }", &["4:22 tenant_wildcard"]),
        (4, "", &["1:1 missing_key"]),
        (
            4,
            "tenant = { pointer = '/meta/tenant' }\ndeletes = 'headers'",
            &["5:1 deletes_without_tenant"],
        ),
        // These are right: the tenant is no part of what readers see, so that the SDL need not have it.
        (4, "tenant = { pointer = '/meta/tenant' }\ndeletes = 'none'", &[]),
        (
            4,
            "tenant = { key = 'prefix', separator = '|' }\ndeletes = 'headers'",
            &[],
        ),
    ]);
    let text = with_line(STREAMS, 2, "topics = ['a.{tenant}', 'a.b.{tenant}']");
    let text = with_line(&text, 4, "tenant = { topic = '{tenant}' }");
    assert_eq!(brief(load(&text, SDL)), ["2:25 topic_ambiguous"]);
}

#[test]
fn what_comes_later_says_so() {
    check(&[
        (
            4,
            "tenant = { header = 'tenant' }\nstate = 'compacted'",
            &["5:9 not_yet"],
        ),
        (
            4,
            "tenant = { header = 'tenant' }\nstate = 'latest'",
            &["5:9 unknown_value"],
        ),
        (
            4,
            "tenant = { header = 'tenant' }\ndeletes = 'previous'",
            &["5:11 not_yet"],
        ),
        (
            4,
            "tenant = { header = 'tenant' }\nformat = 'debezium'",
            &["5:10 not_yet"],
        ),
        (
            4,
            "tenant = { header = 'tenant' }\nformat = 'avro'",
            &["5:10 not_yet"],
        ),
        (
            4,
            "tenant = { header = 'tenant' }\nformat = 'protobuf'",
            &["5:10 not_yet"],
        ),
        (
            4,
            "tenant = { header = 'tenant' }\nformat = 'json-schema'",
            &["5:10 not_yet"],
        ),
    ]);
}

#[test]
fn rules() {
    check(&[
        (7, "", &["6:1 missing_key"]),
        (7, "scopes = []", &["7:1 scopes_empty"]),
        (7, "scopes = ['two words']", &["7:11 scope_invalid"]),
        (7, "scopes = ['user/Observation']", &["7:11 scope_invalid"]),
        (7, "scopes = ['user/Observation.sr']", &["7:11 scope_invalid"]),
        (7, "scopes = ['user/Observation.cud']", &["7:11 scope_invalid"]),
        (7, "scopes = ['user/Observation.write']", &["7:11 scope_invalid"]),
        (
            7,
            "scopes = ['user/Observation.rs?category=lab']",
            &["7:11 scope_invalid"],
        ),
        (
            7,
            "scopes = ['user/*.cruds', 'x:y', 'system/Observation.read', 'patient/*.*']",
            &[],
        ),
        (8, "", &["6:1 missing_key"]),
        (8, "rows = 'all'", &["8:8 unknown_value"]),
        (8, "rows = true", &["8:8 wrong_type"]),
        (8, "rows = {}", &["8:8 rows_empty"]),
        (
            8,
            "rows = { patint = '{subject}' }",
            &["8:10 row_attribute_unknown"],
        ),
        (8, "rows = { tenant = 'north' }", &["8:10 row_attribute_unknown"]),
        (
            8,
            "rows = { code = '{claims.code}' }",
            &["8:10 row_attribute_wildcard"],
        ),
        (8, "rows = { patient = ['a'] }", &["8:20 wrong_type"]),
        (
            8,
            "rows = { patient = 'Patient/{claims.patient' }",
            &["8:20 template_syntax"],
        ),
        (8, "rows = { patient = 'Patient/}' }", &["8:20 template_syntax"]),
        (8, "rows = { patient = '' }", &["8:20 template_syntax"]),
        (
            8,
            "rows = { patient = '{claim.patient}' }",
            &["8:20 template_variable_unknown"],
        ),
        (
            8,
            "rows = { patient = '{tenant}' }",
            &["8:20 template_variable_unknown"],
        ),
        (8, "rows = 'tenant'\nhides = ['/note']", &["9:1 unknown_key"]),
        (
            8,
            "rows = 'tenant'\nhide = ['/note']\nshow = ['/id']",
            &["10:1 hide_and_show"],
        ),
    ]);
    let mut without: Vec<&str> = STREAMS.lines().take(5).collect();
    assert_eq!(brief(load(&without.join("\n"), SDL)), ["1:1 no_access_rule"]);
    for _ in 0..9 {
        without.extend(STREAMS.lines().skip(5));
    }
    assert_eq!(brief(load(&without.join("\n"), SDL)), ["30:1 too_many_rules"]);
}

#[test]
fn a_row_on_an_attribute_that_is_itself_wrong_is_told_once() {
    let text = with_line(STREAMS, 5, "attributes = { patient = 'subject' }");
    let text = with_line(&text, 8, "rows = { patient = '{subject}' }");
    assert_eq!(brief(load(&text, SDL)), ["5:26 pointer_invalid"]);
}

#[test]
fn hidden_fields() {
    check(&[
        (8, "rows = 'tenant'\nhide = ['/status']", &["9:9 hidden_non_null"]),
        (
            8,
            "rows = 'tenant'\nhide = ['/note', '/code']",
            &["9:18 hidden_non_null"],
        ),
        (
            8,
            "rows = 'tenant'\nhide = ['/code/coding/*/code']",
            &["9:9 hidden_non_null"],
        ),
        (
            8,
            "rows = 'tenant'\nhide = ['/code/coding/0/code']",
            &["9:9 hidden_non_null"],
        ),
        (
            8,
            "rows = 'tenant'\nhide = ['/code/coding/*']",
            &["9:9 hidden_non_null"],
        ),
        (
            8,
            "rows = 'tenant'\nhide = ['/note/*/text']",
            &["9:9 hidden_non_null"],
        ),
        (8, "rows = 'tenant'\nhide = ['/links']", &["9:9 hidden_non_null"]),
        (
            8,
            "rows = 'tenant'\nhide = ['/links/owner']",
            &["9:9 hidden_non_null"],
        ),
        (
            8,
            "rows = 'tenant'\nhide = ['/value/amount']",
            &["9:9 hidden_non_null"],
        ),
        (8, "rows = 'tenant'\nhide = ['/nots']", &["9:9 pointer_unknown"]),
        (8, "rows = 'tenant'\nhide = ['']", &["9:9 pointer_invalid"]),
        (8, "rows = 'tenant'\nhide = ['note']", &["9:9 pointer_invalid"]),
        (
            8,
            "rows = 'tenant'\nhide = ['/note', '/note']",
            &["9:18 duplicate"],
        ),
        (8, "rows = 'tenant'\nhide = '/note'", &["9:8 wrong_type"]),
        (
            8,
            "rows = 'tenant'\nshow = ['/id', '/status', '/code']",
            &["9:1 hidden_non_null"],
        ),
        (
            8,
            "rows = 'tenant'\nshow = ['/id', '/status', '/code', '/links', '/note/*/author']",
            &["9:1 hidden_non_null"],
        ),
        (8, "rows = 'tenant'\nshow = ['/idd']", &["9:9 pointer_unknown"]),
        // These are right.
        (
            8,
            "rows = 'tenant'\nhide = ['/note', '/note/*/author', '/performer', '/links/patient', '/value', '/extra/x']",
            &[],
        ),
        (
            8,
            "rows = 'tenant'\nhide = ['/note/*', '/code/coding', '/value/text']",
            &[],
        ),
        (
            8,
            "rows = 'tenant'\nshow = ['/id', '/status', '/code/coding/*', '/links/owner/id', '/value/amount', '/value/kind', '/note/*/text']",
            &[],
        ),
    ]);
    let everything = brief(load(
        &with_line(STREAMS, 8, "rows = 'tenant'\nhide = ['/*']"),
        SDL,
    ));
    assert_eq!(
        everything, ["9:9 hidden_non_null"; 4],
        "id, status, code and owner"
    );
}

#[test]
fn a_type_that_is_not_there() {
    check(&[
        (3, "schema = 'Observations'", &["3:10 schema_unknown"]),
        (3, "schema = 'Status'", &["3:10 schema_unknown"]),
        (3, "schema = 'String'", &["3:10 schema_unknown"]),
        (3, "schema = 5", &["3:10 wrong_type"]),
        // Without a schema nothing is known of the data.
        (3, "", &[]),
    ]);
}

#[test]
fn field_lists_need_a_type_to_be_checked_against() {
    let without = with_line(STREAMS, 3, "");
    for list in ["hide = ['/perfromer']", "show = ['/id']"] {
        let text = with_line(&without, 7, &format!("rows = 'tenant'\n{list}"));
        assert_eq!(brief(load(&text, SDL)), ["8:1 schema_missing"], "{list}");
    }
}

#[test]
fn a_tenant_is_where_its_pointer_says() {
    let sdl = SDL.replace("issued: String", "issued: String tenant: String");
    for (pointer, expected) in [
        ("/tenant", None),
        ("/extra/tenant", None),
        // Not promised to readers, and like nothing that is.
        ("/_meta/org", None),
        ("/tenat", Some("4:22 pointer_unknown")),
        ("/subject/tenant", Some("4:22 pointer_unknown")),
        ("/tenant/name", Some("4:22 pointer_unknown")),
        ("/note/author", Some("4:22 pointer_unknown")),
        ("/subject", Some("4:22 tenant_no_value")),
        ("/performer", Some("4:22 tenant_no_value")),
    ] {
        let text = with_line(STREAMS, 4, &format!("tenant = {{ pointer = '{pointer}' }}"));
        assert_eq!(
            brief(load(&text, &sdl)),
            expected.into_iter().collect::<Vec<_>>(),
            "{pointer}"
        );
    }
}
