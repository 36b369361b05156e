//! Operations that cannot be served: each gets an answer with GraphQL errors, a code and a place, and nothing of what is
//! inside; and memory stays flat.

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tidewire_tests::gateway::Gateway;
use tidewire_tests::graphql::{EVENTS, Wire, operation};
use tidewire_tests::http::{self, Answer, bearer};
use tidewire_tests::plan::Planned;
use tidewire_tests::process;
use tidewire_tests::raw::{Raw, frame};
use tidewire_tests::volume::{say, volume};

use crate::support::World;

/// What no answer may say.
const INSIDES: [&str; 9] = [
    "async_graphql",
    "async-graphql",
    "panicked",
    ".rs:",
    "serde",
    "stack",
    "unwrap",
    "tidewire_",
    "thread",
];

/// An operation, and whether its place in the document can be told.
struct Bad {
    what: &'static str,
    query: String,
    variables: Value,
    placed: bool,
}

fn bad(what: &'static str, query: impl Into<String>) -> Bad {
    Bad {
        what,
        query: query.into(),
        variables: json!({}),
        placed: true,
    }
}

fn unplaced(bad: Bad) -> Bad {
    Bad { placed: false, ..bad }
}

fn with(variables: Value, query: &str, what: &'static str) -> Bad {
    Bad {
        variables,
        placed: false,
        ..bad(what, query)
    }
}

fn operations() -> Vec<Bad> {
    let deep = |levels: usize| {
        format!(
            "subscription {{ observations {}kind{} }}",
            "{ data ".repeat(levels),
            " }".repeat(levels)
        )
    };
    let wide = |count: usize| {
        let fields: String = (0..count).map(|n| format!("a{n}: kind ")).collect();
        format!("subscription {{ observations {{ {fields} }} }}")
    };
    let squares = {
        // Fragments that double: 2^24 fields where nothing counts them.
        let mut text = String::from("subscription { observations { ...f0 } }");
        for n in 0..24 {
            text.push_str(&format!(
                " fragment f{n} on ObservationEvent {{ ...f{0} ...f{0} }}",
                n + 1
            ));
        }
        text + " fragment f24 on ObservationEvent { kind }"
    };
    let introspection = format!(
        "{{ __schema {{ types {{ fields {{ type {}name{} }} }} }} }}",
        "{ ofType { fields { type ".repeat(30),
        " } } }".repeat(30)
    );
    vec![
        unplaced(bad("an empty document", "")),
        unplaced(bad("only a comment", "# nothing")),
        unplaced(bad("only a fragment", "fragment f on Observation { id }")),
        bad("a bracket too few", "subscription { observations { kind }"),
        bad("a bracket too many", "subscription { observations { kind } } }"),
        bad(
            "an unended string",
            "subscription { observations(patient: \"1) { kind } }",
        ),
        bad(
            "a control character",
            "subscription { observations\u{0} { kind } }",
        ),
        bad("an unknown root field", "subscription { secrets { kind } }"),
        bad(
            "an unknown field",
            "subscription { observations { kind data { id secret } } }",
        ),
        bad(
            "an unknown argument",
            "subscription { observations(tenant: \"south\") { kind } }",
        ),
        bad(
            "an unknown directive",
            "subscription { observations { kind @secret } }",
        ),
        bad(
            "an unknown type condition",
            "subscription { observations { ... on Secret { kind } } }",
        ),
        bad(
            "an unknown fragment",
            "subscription { observations { ...secret } }",
        ),
        bad(
            "a fragment of another type",
            "subscription { observations { ... on Observation { id } } }",
        ),
        bad(
            "a fragment in a circle",
            "subscription { observations { ...f } } fragment f on ObservationEvent { ...f }",
        ),
        bad(
            "a fragment that nothing uses",
            "subscription { observations { kind } } fragment f on Observation { id }",
        ),
        bad("an object without a selection", "subscription { observations }"),
        bad(
            "a leaf with a selection",
            "subscription { observations { kind { id } } }",
        ),
        bad(
            "a value of no enum",
            "subscription { observations(status: [SECRET]) { kind } }",
        ),
        bad(
            "text for an enum",
            "subscription { observations(status: [\"final\"]) { kind } }",
        ),
        bad(
            "null in a list of non-null",
            "subscription { observations(status: [null]) { kind } }",
        ),
        bad(
            "an empty list",
            "subscription { observations(status: []) { kind } }",
        ),
        bad(
            "an object for an id",
            "subscription { observations(patient: {a: 1}) { kind } }",
        ),
        bad(
            "one name for two fields",
            "subscription { observations { x: kind x: cursor } }",
        ),
        bad(
            "two root fields",
            "subscription { a: observations { kind } b: observations { kind } }",
        ),
        bad("only __typename", "subscription { __typename }"),
        bad(
            "a root field that may be skipped",
            "subscription($x: Boolean!) { observations @skip(if: $x) { kind } }",
        ),
        bad(
            "an undeclared variable",
            "subscription { observations(patient: $p) { kind } }",
        ),
        bad(
            "an unused variable",
            "subscription($p: ID) { observations { kind } }",
        ),
        bad(
            "a variable of the wrong type",
            "subscription($p: Int) { observations(after: $p) { kind } }",
        ),
        bad(
            "a variable of no type",
            "subscription($p: Secret) { observations(patient: $p) { kind } }",
        ),
        bad(
            "a variable twice",
            "subscription($p: ID, $p: ID) { observations(patient: $p) { kind } }",
        ),
        bad(
            "two operations of one name",
            "subscription A { observations { kind } } subscription A { observations { kind } }",
        ),
        unplaced(bad(
            "two operations, none chosen",
            "query A { __typename } query B { __typename }",
        )),
        bad(
            "an argument twice",
            "subscription { observations(patient: 1, patient: 2) { kind } }",
        ),
        bad("an unknown query", "{ secrets }"),
        bad("a mutation", "mutation { secrets }"),
        unplaced(bad(
            "a cursor that is none",
            "subscription { observations(after: \"nonsense\") { kind } }",
        )),
        with(
            json!({}),
            "subscription($p: ID!) { observations(patient: $p) { kind } }",
            "a missing variable",
        ),
        with(
            json!({"p": null}),
            "subscription($p: ID!) { observations(patient: $p) { kind } }",
            "null for a non-null variable",
        ),
        with(
            json!({"p": {"a": 1}}),
            "subscription($p: ID) { observations(patient: $p) { kind } }",
            "an object for an id variable",
        ),
        with(
            json!({"s": ["final"]}),
            "subscription($s: [ObservationStatus!]) { observations(status: $s) { kind } }",
            "a document's word for an enum variable",
        ),
        with(
            json!({"s": []}),
            "subscription($s: [ObservationStatus!]) { observations(status: $s) { kind } }",
            "an empty list as a variable",
        ),
        unplaced(bad("a hundred levels", deep(100))),
        unplaced(bad("five thousand levels", deep(5000))),
        unplaced(bad("two thousand aliases", wide(2000))),
        unplaced(bad("fragments that double", squares)),
        unplaced(bad("a deep look at the schema", introspection)),
        unplaced(bad(
            "three thousand directives",
            format!(
                "subscription {{ observations {{ kind {} }} }}",
                "@skip(if: false) ".repeat(3000)
            ),
        )),
        unplaced(bad(
            "a list in a list in a list",
            format!(
                "subscription {{ observations(patient: {}1{}) {{ kind }} }}",
                "[".repeat(8000),
                "]".repeat(8000)
            ),
        )),
    ]
}

/// Whether these are GraphQL errors with a code each, a place where there is one, and nothing of what is inside.
fn check(errors: &Value, placed: bool) -> Result<()> {
    let list = errors.as_array().context("a list of errors")?;
    ensure!(!list.is_empty(), "no errors");
    for error in list {
        ensure!(
            error["message"]
                .as_str()
                .is_some_and(|message| !message.is_empty()),
            "{error}"
        );
        let code = error["extensions"]["code"].as_str().unwrap_or_default();
        ensure!(!code.is_empty(), "no code: {error}");
        ensure!(code != "internal", "not our fault: {error}");
        let text = error.to_string();
        let inside = INSIDES.iter().find(|inside| text.contains(**inside));
        ensure!(inside.is_none(), "{inside:?} in {error}");
        ensure!(text.len() < 4096, "{} bytes of error", text.len());
    }
    let place = &list[0]["locations"][0];
    ensure!(
        !placed || (place["line"].is_u64() && place["column"].is_u64()),
        "no place: {errors}"
    );
    Ok(())
}

async fn post(gateway: &Gateway, token: &str, body: Vec<u8>, kind: &str) -> Result<Answer> {
    let authorization = bearer(token);
    let headers = [
        ("authorization", authorization.as_str()),
        ("content-type", kind),
        ("accept", "application/graphql-response+json"),
    ];
    http::request(Method::POST, gateway.address(), "/graphql", &headers, Some(body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_that_cannot_be_served_is_answered_with_a_code_and_a_place() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("operations", 1).await?;
    let gateway = world.graphql(&[&topic]).start().await?;
    let token = world.user("north");
    let operations = operations();
    let mut wrong = Vec::new();
    // Over HTTP with the media type of the specification: 400, or 404 for a cursor and the like: a client error.
    for bad in &operations {
        let body = json!({"query": bad.query, "variables": bad.variables}).to_string();
        // A refusal of a stream may come as an event of the stream: so a query's answer is asked for, not a stream's.
        let answer = post(&gateway, &token, body.into_bytes(), "application/json").await?;
        let told = (|| {
            ensure!((400..500).contains(&answer.status), "{}", answer.status);
            let body = answer.json()?;
            ensure!(body.get("data").is_none_or(Value::is_null), "{body}");
            check(&body["errors"], bad.placed)
        })();
        if let Err(error) = told {
            wrong.push(format!("POST, {}: {error:#}; {}", bad.what, cut(&answer.text())));
        }
    }
    // On a socket: an error each, and the socket goes on.
    let mut wire = Wire::open(gateway.address(), &token).await?;
    for (n, bad) in operations.iter().enumerate() {
        // Larger messages than the limit end the session: that is the next promise's.
        if bad.query.len() > 60_000 {
            continue;
        }
        let id = n.to_string();
        wire.start(&id, &json!({"query": bad.query, "variables": bad.variables}))
            .await?;
        let error = wire.ws.until("error").await.with_context(|| bad.what)?;
        ensure!(error["id"] == id.as_str(), "{}: {error}", bad.what);
        if let Err(error) = check(&error["payload"], bad.placed) {
            wrong.push(format!("socket, {}: {error:#}", bad.what));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Variables that the operation does not declare are nobody's business, and a good operation is served.
    wire.subscribe(
        "good",
        &operation(EVENTS, &json!({"unknown": {"deep": [1, 2]}, "patient": null})),
    )
    .await?;
    world.producer.send(&north(0).record(&topic)).await?;
    let event = wire.event("good").await?;
    ensure!(event["data"]["n"] == 0, "{event}");
    say(&format!(
        "bad operations: {} of them, over HTTP and on a socket",
        operations.len()
    ));
    Ok(())
}

fn cut(text: &str) -> String {
    text.chars().take(300).collect()
}

fn north(n: i64) -> Planned {
    Planned {
        tenant: "north",
        patient: 1,
        status: "final",
        partition: 0,
        n,
        padding: 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_no_requests_are_answered() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("bodies", 1).await?;
    let gateway = world.graphql(&[&topic]).start().await?;
    let token = world.user("north");
    let json_kind = "application/json";
    let nested = |depth: usize| {
        let deep = "[".repeat(depth) + &"]".repeat(depth);
        format!(r#"{{"query":"{{__typename}}","variables":{{"a":{deep}}}}}"#)
    };
    let huge = format!("{{\"query\":\"{{ __typename }} #{}\"}}", "x".repeat(10 << 20));
    let cases: Vec<(&str, Vec<u8>, &str, &[u16])> = vec![
        ("nothing", Vec::new(), json_kind, &[400]),
        ("no JSON", b"query { __typename }".to_vec(), json_kind, &[400]),
        ("a list", b"[]".to_vec(), json_kind, &[400]),
        (
            "a batch",
            br#"[{"query":"{__typename}"},{"query":"{__typename}"}]"#.to_vec(),
            json_kind,
            &[400],
        ),
        ("a number", b"17".to_vec(), json_kind, &[400]),
        ("no query", b"{}".to_vec(), json_kind, &[400]),
        (
            "a query that is no text",
            br#"{"query":{}}"#.to_vec(),
            json_kind,
            &[400],
        ),
        (
            "variables that are a list",
            br#"{"query":"{__typename}","variables":[]}"#.to_vec(),
            json_kind,
            &[400],
        ),
        (
            "extensions that are text",
            br#"{"query":"{__typename}","extensions":"x"}"#.to_vec(),
            json_kind,
            &[400],
        ),
        (
            "an operation name that is a number",
            br#"{"query":"{__typename}","operationName":1}"#.to_vec(),
            json_kind,
            &[400],
        ),
        (
            "half a JSON",
            br#"{"query":"{__typename}"#.to_vec(),
            json_kind,
            &[400],
        ),
        (
            "invalid UTF-8",
            b"{\"query\":\"{ __typename \xff\xfe }\"}".to_vec(),
            json_kind,
            &[400],
        ),
        ("invalid UTF-8 alone", vec![0xff, 0xfe, 0x00], json_kind, &[400]),
        (
            "half a surrogate",
            br#"{"query":"{ __typename } # \ud800"}"#.to_vec(),
            json_kind,
            &[400],
        ),
        (
            "variables 100,000 deep",
            nested(25_000).into_bytes(),
            json_kind,
            &[400],
        ),
        (
            "a form",
            b"query={__typename}".to_vec(),
            "application/x-www-form-urlencoded",
            &[415],
        ),
        (
            "plain text",
            br#"{"query":"{__typename}"}"#.to_vec(),
            "text/plain",
            &[415],
        ),
        (
            "another charset",
            br#"{"query":"{__typename}"}"#.to_vec(),
            "application/json; charset=utf-16",
            &[400, 415],
        ),
    ];
    let mut wrong = Vec::new();
    for (what, body, kind, statuses) in &cases {
        let answer = post(&gateway, &token, body.clone(), kind)
            .await
            .with_context(|| (*what).to_owned())?;
        if !statuses.contains(&answer.status) {
            wrong.push(format!("{what}: {} {}", answer.status, cut(&answer.text())));
        }
        let text = answer.text();
        if let Some(inside) = INSIDES.iter().find(|inside| text.contains(**inside)) {
            wrong.push(format!("{what}: {inside} in {}", cut(&text)));
        }
    }
    // 10 MB: the answer does not wait for what would be thrown away.
    let mut raw = Raw::connect(gateway.address()).await?;
    let head = format!(
        "POST /graphql HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Accept: application/graphql-response+json\r\nContent-Length: {}\r\n\r\n",
        gateway.address(),
        huge.len()
    );
    raw.send(head.as_bytes()).await?;
    let answered = raw.read_until(b"\r\n").await?;
    ensure!(
        answered.starts_with(b"HTTP/1.1 413 "),
        "{}",
        String::from_utf8_lossy(&answered)
    );
    // On a socket, a message that is too large ends it, and so does invalid UTF-8; by the codes of WebSocket itself.
    for (what, payload, codes) in [
        ("10 MB", huge.as_bytes(), [1009, 4400]),
        ("invalid UTF-8", &[0x7b, 0xff, 0xfe][..], [1007, 4400]),
    ] {
        let mut raw = Raw::upgrade_to(
            gateway.address(),
            "/graphql/ws",
            &format!("Sec-WebSocket-Protocol: graphql-transport-ws\r\nAuthorization: Bearer {token}\r\n"),
        )
        .await?;
        raw.send(&frame(0x81, payload, true)).await?;
        let code = raw.to_end().await?.close_code();
        if !code.is_some_and(|code| codes.contains(&code)) {
            wrong.push(format!("socket, {what}: closed with {code:?}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_operations_by_the_thousand_leave_memory_flat() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("flat", 1).await?;
    let gateway = world.graphql(&[&topic]).start().await?;
    let token = world.user("north");
    let operations = operations();
    let rounds = volume(20, 200);
    let round = async |n: usize| -> Result<()> {
        for bad in &operations {
            // Each document is new, so that what remembers documents would grow.
            let query = format!("{} # {n}", bad.query);
            let body = json!({"query": query, "variables": bad.variables}).to_string();
            post(&gateway, &token, body.into_bytes(), "application/json").await?;
        }
        let good = json!({"query": format!("query Q{n} {{ __typename }}")}).to_string();
        let answer = post(&gateway, &token, good.into_bytes(), "application/json").await?;
        ensure!(answer.status == 200, "{}", answer.text());
        Ok(())
    };
    for n in 0..5 {
        round(n).await?;
    }
    let before = process::resident_bytes(gateway.pid())?;
    for n in 0..rounds {
        round(n + 5).await?;
    }
    let grown = process::resident_bytes(gateway.pid())?.saturating_sub(before);
    ensure!(grown < 24 << 20, "memory grew by {grown} bytes");
    say(&format!(
        "bad operations: {} requests, memory grew by {} KiB",
        rounds * (operations.len() + 1),
        grown >> 10
    ));
    Ok(())
}
