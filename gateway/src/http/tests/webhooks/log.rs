//! The log of attempts, health, the cursor, and dry runs.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use schemas::decode::Record;
use schemas::ids::{Slot, StreamName, TenantId};
use serde_json::{Value, json};
use webhooks::delivery::{EndpointId, Position};
use webhooks::store::{Attempt, Bodies, Body, Kind, NewReplay, Parked};

use super::house::{ALL, ENDPOINTS, House, smallest, with};

const DELIVERIES: &str = "/v1/webhooks/deliveries";

pub(super) fn north() -> TenantId {
    TenantId::parse("north").expect("a tenant")
}

pub(super) fn observations() -> StreamName {
    StreamName::parse("observations").expect("a name")
}

pub(super) fn id_of(shown: &Value) -> EndpointId {
    EndpointId::parse(shown["id"].as_str().expect("an id")).expect("an id")
}

impl House {
    /// The end of partition 0 of the observations.
    pub(super) async fn end(&self) -> Position {
        let stream = self.desk.contract.stream("observations").expect("declared");
        let ends = self
            .desk
            .logs
            .ends(stream, &north())
            .await
            .expect("kafka answers");
        ends.into_iter()
            .find(|end| end.partition == 0)
            .expect("a partition")
    }

    pub(super) async fn log(&self, endpoint: &EndpointId, offset: i64, outcome: &str) -> String {
        let position = Position {
            offset,
            ..self.end().await
        };
        let delivery = self.desk.ids.of(endpoint, &observations(), &position);
        let attempt = Attempt {
            id: ulid::Ulid::generate(),
            tenant: north(),
            endpoint: endpoint.clone(),
            delivery: delivery.clone(),
            number: 1,
            at_ms: self.desk.clock.now_ms(),
            status: (outcome == "delivered").then_some(204),
            outcome: outcome.to_owned().into(),
            latency_ms: 12,
            place: Some((observations(), position)),
        };
        self.store.log(&[attempt], &[]).await.expect("logged");
        delivery.to_string()
    }
}

#[tokio::test]
async fn bodies_of_an_attempt_are_shown_to_who_would_be_sent_them_now() {
    let house = House::new().await;
    let (shown, path) = house.create(&with("content", json!("structured"))).await;
    let id = id_of(&shown);
    let offset = house.end().await.offset;
    house.observe("north", "1", "final");
    house.log(&id, offset, "delivered").await;
    let listed = house.get(DELIVERIES).await.json()["attempts"][0].clone();
    let uri = format!("/v1/webhooks/attempts/{}", listed["id"].as_str().expect("an id"));
    let mut plain = listed.clone();
    plain["bodies"] = json!("none");
    assert_eq!(house.get(&uri).await.json(), plain, "nothing was kept of it");

    // What is sent of it, as a dry run tells.
    let dry = house
        .ask("POST", &format!("{path}/dry-run"), &json!({"events": 1}))
        .await;
    let sent = dry.json()["deliveries"][0]["body"]
        .as_str()
        .expect("a body")
        .to_owned();
    assert!(sent.contains("a private note"), "{sent}");
    let keep = async |attempt: &Value, request: Body| {
        let bodies = Bodies {
            attempt: attempt["id"].as_str().expect("an id").parse().expect("an id"),
            tenant: north(),
            endpoint: id.clone(),
            at_ms: 0,
            request,
            answer: None,
        };
        house.store.log(&[], &[bodies]).await.expect("logged");
    };
    keep(&listed, Body::beginning(sent.as_bytes(), 20)).await;
    let mut kept = listed.clone();
    kept["bodies"] = json!("kept");
    kept["request"] = json!({"bytes": sent.len(), "cut": true, "text": sent.get(..20)});
    kept["answer"] = Value::Null;
    assert_eq!(house.get(&uri).await.json(), kept);

    let ask = async |tenant: &str, scopes: &str| {
        let token = house.bearer(tenant, scopes);
        house.ask_as(&token, "GET", &uri, &[], &Value::Null).await
    };
    let mut withheld = listed.clone();
    withheld["bodies"] = json!("withheld");
    // Nothing of the stream; a part of each event.
    for scopes in ["webhooks:read", "webhooks:read patient/Observation.rs"] {
        assert_eq!(ask("north", scopes).await.json(), withheld, "{scopes}");
    }
    assert_eq!(ask("south", ALL).await.code(), "not_found");
    assert_eq!(
        ask("north", "system/Observation.rs").await.status,
        StatusCode::FORBIDDEN
    );
    let strange = house
        .get("/v1/webhooks/attempts/01ARZ3NDEKTSV4RRFFQ69G5FAV")
        .await;
    assert_eq!(strange.code(), "not_found");
    assert_eq!(house.get("/v1/webhooks/attempts/x").await.code(), "not_found");

    // An event that is gone, and a body that is not what would be sent now.
    for (offset, request) in [
        (offset + 1000, Body::beginning(sent.as_bytes(), 20)),
        (offset, Body::beginning(b"{\"note\":\"hidden by now\"}", 20)),
    ] {
        house.log(&id, offset, "delivered").await;
        let attempt = house.get(DELIVERIES).await.json()["attempts"][0].clone();
        keep(&attempt, request).await;
        let uri = format!("/v1/webhooks/attempts/{}", attempt["id"].as_str().expect("an id"));
        assert_eq!(house.get(&uri).await.json()["bodies"], "withheld");
    }
}

#[tokio::test]
async fn attempts_are_found_by_endpoint_delivery_outcome_and_time_and_come_in_pages() {
    let house = House::new().await;
    let (shown, _) = house.create(&smallest()).await;
    let id = id_of(&shown);
    for offset in 0..5 {
        let outcome = if offset == 2 { "timeout" } else { "delivered" };
        house.log(&id, offset, outcome).await;
    }
    let found = async |query: &str| {
        let answer = house.get(&format!("{DELIVERIES}{query}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{query}: {}", answer.text);
        answer.json()["attempts"].as_array().expect("a list").len()
    };
    assert_eq!(found("").await, 5);
    assert_eq!(found(&format!("?endpoint={id}")).await, 5);
    assert_eq!(found("?endpoint=ep_01ARZ3NDEKTSV4RRFFQ69G5FAV").await, 0);
    assert_eq!(found("?outcome=timeout").await, 1);
    assert_eq!((found("?status=204").await, found("?status=500").await), (4, 0));
    assert_eq!(found("?since=2020-01-01T00:00:00Z").await, 5);
    assert_eq!(found("?until=2020-01-01T00:00:00Z").await, 0);
    let failed = house.get(&format!("{DELIVERIES}?outcome=timeout")).await.json();
    let failed = &failed["attempts"][0];
    assert_eq!(
        (&failed["status"], &failed["latency_ms"]),
        (&Value::Null, &json!(12))
    );
    let delivery = failed["delivery"].as_str().expect("an id");
    assert_eq!(found(&format!("?delivery={delivery}")).await, 1);

    let (mut seen, mut uri) = (0, format!("{DELIVERIES}?endpoint={id}&limit=2"));
    loop {
        let page = house.get(&uri).await;
        seen += page.json()["attempts"].as_array().expect("a list").len();
        let Some(link) = page.headers.get("link") else {
            break;
        };
        let link = link.to_str().expect("text");
        uri = link
            .strip_prefix('<')
            .and_then(|link| link.split_once('>'))
            .expect("a link")
            .0
            .to_owned();
    }
    assert_eq!(seen, 5);
    let south = house.bearer("south", ALL);
    let foreign = house
        .ask_as(&south, "GET", DELIVERIES, &[], &Value::Null)
        .await
        .json();
    assert_eq!(foreign, json!({"attempts": [], "next": null}));
    for query in [
        "endpoint=x",
        "delivery=a.b",
        "outcome=NO",
        "status=99",
        "status=ok",
        "since=yesterday",
        "until=1",
        "after=x",
        "limit=101",
    ] {
        assert_eq!(
            house.get(&format!("{DELIVERIES}?{query}")).await.code(),
            "parameter_invalid",
            "{query}"
        );
    }
    assert_eq!(
        house.get(&format!("{DELIVERIES}?code=500")).await.code(),
        "unknown_parameter"
    );
}

#[tokio::test]
async fn health_is_of_the_last_hour_and_of_what_waits() {
    let house = House::new().await;
    let (shown, path) = house.create(&smallest()).await;
    let health = async || house.get(&format!("{path}/health")).await.json();
    let quiet = health().await;
    assert_eq!(
        (&quiet["attempts"], &quiet["success_rate"]),
        (&json!(0), &Value::Null)
    );
    let id = id_of(&shown);
    for outcome in ["delivered", "delivered", "delivered", "status"] {
        house.log(&id, 1, outcome).await;
    }
    house
        .store
        .report_health(&id, Some(1_000), Some(2_000))
        .await
        .expect("told");
    let told = health().await;
    assert_eq!(
        (&told["success_rate"], &told["p95_ms"], &told["backlog"]),
        (&json!(0.75), &json!(12), &json!(0))
    );
    assert_eq!(told["failing_since"], "1970-01-01T00:00:01Z");
    assert_eq!(told["breaker_open_until"], Value::Null, "that is over");
}

#[tokio::test]
async fn from_the_cursor_everything_unsettled_follows_on_another_surface() {
    let mut house = House::new().await;
    for _ in 0..3 {
        house.observe("north", "1", "final");
        house.rig.observe("1").await;
    }
    let (shown, path) = house.create(&smallest()).await;
    let id = id_of(&shown);
    let end = house.end().await;
    assert_eq!(end.offset, 3);
    house.observe("north", "1", "final");
    // Nobody knows the endpoint yet: from its start on.
    let opened = async |house: &House| {
        let answer = house.get(&format!("{path}/cursor")).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        let cursor = answer.json()["cursor"].as_str().expect("a cursor").to_owned();
        assert_eq!(answer.headers["tidewire-cursor"], cursor.as_str());
        let opened = house
            .desk
            .sealer
            .open(&observations(), &north(), &cursor)
            .expect("ours");
        assert_eq!(opened.topics.len(), 1);
        opened.topics[0].partitions.clone()
    };
    use schemas::cursor::Position::At;
    assert_eq!(opened(&house).await, [At(3), At(0)]);
    // Known and settled further: what is parked is what is left.
    for partition in 0..2 {
        let part = NewReplay {
            endpoint: id.clone(),
            tenant: north(),
            stream: observations(),
            position: Position {
                partition,
                offset: 3,
                ..end.clone()
            },
            until: 3,
        };
        house
            .store
            .add_replays("cu_1", Kind::CatchUp, &[part])
            .await
            .expect("kept");
    }
    let commit = webhooks::ledger::Commit {
        partition: webhooks::ledger::Partition {
            topic: Arc::clone(&end.topic),
            number: 0,
        },
        incarnation: end.incarnation,
        offset: 9,
    };
    house
        .store
        .keep_watermarks("group", &[commit])
        .await
        .expect("kept");
    assert_eq!(opened(&house).await, [At(9), At(0)]);
    let position = Position {
        offset: 5,
        ..end.clone()
    };
    let parked = Parked {
        delivery: house.desk.ids.of(&id, &observations(), &position),
        endpoint: id.clone(),
        tenant: north(),
        stream: observations(),
        record: Arc::new(Record {
            topic: Arc::clone(&end.topic),
            incarnation: end.incarnation,
            slot: Slot(0),
            partition: 0,
            offset: 5,
            timestamp_ms: 0,
            key: None,
            value: Some(Bytes::from_static(b"{}")),
            headers: Vec::new(),
        }),
        order_key: None,
        attempts: 1,
        age: Duration::ZERO,
        due_in: Duration::ZERO,
        lease: None,
    };
    house.store.park(&[parked]).await.expect("parked");
    assert_eq!(opened(&house).await, [At(5), At(0)]);
    let health = house.get(&format!("{path}/health")).await.json();
    assert_eq!(health["backlog"], 1);
    assert!(health["next_attempt_at"].is_string());

    let refused = house.get(&format!("{path}/cursor?stream=patients")).await;
    assert_eq!(
        (&*refused.code(), &refused.json()["pointer"]),
        ("stream_forbidden", &json!("/stream"))
    );
    assert_eq!(
        house.get(&format!("{path}/cursor?after=x")).await.code(),
        "unknown_parameter"
    );
}

#[tokio::test]
async fn a_dry_run_shows_what_would_be_sent_under_the_owners_grant_and_sends_nothing() {
    let house = House::new().await;
    for (tenant, patient, status) in [
        ("north", "1", "final"),
        ("north", "1", "amended"),
        ("north", "2", "final"),
        ("south", "1", "final"),
    ] {
        house.observe(tenant, patient, status);
    }
    let mut body = with("content", json!("structured"));
    body["filter"] = json!({"exact": {"status": "final"}});
    body["headers"] = json!({"x-team": "a"});
    body["credentials"] = json!({"type": "bearer", "token": "hush-hush"});
    let (_, path) = house.create(&body).await;
    let dry_run = format!("{path}/dry-run");
    let answer = house.ask("POST", &dry_run, &json!({"events": 100})).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let told = answer.json();
    assert_eq!((&told["events"], &told["matched"]), (&json!(3), &json!(2)));
    let first = &told["deliveries"][0];
    assert!(
        first["headers"]["webhook-id"]
            .as_str()
            .is_some_and(|id| id.starts_with("msg_"))
    );
    assert_eq!(first["headers"]["x-team"], "a");
    let event: Value = serde_json::from_str(first["body"].as_str().expect("a body")).expect("JSON");
    assert_eq!(
        (&event["tenant"], &event["status"]),
        (&json!("north"), &json!("final"))
    );
    for hidden in ["hush-hush", "signature", "authorization"] {
        assert!(!answer.text.contains(hidden), "{}", answer.text);
    }
    let one = house
        .ask("POST", &dry_run, &json!({"events": 1, "stream": "observations"}))
        .await
        .json();
    assert_eq!(one["events"], 1);

    // Of a specification: under the grant of whoever asks, with what that hides left out.
    let patient = house.bearer("north", "webhooks:write patient/Observation.rs");
    let body = json!({"specification": with("content", json!("structured")), "events": 100});
    let told = house
        .ask_as(&patient, "POST", "/v1/webhooks/dry-run", &[], &body)
        .await;
    assert_eq!(told.status, StatusCode::OK, "{}", told.text);
    assert_eq!(
        (&told.json()["events"], &told.json()["matched"]),
        (&json!(2), &json!(2))
    );
    assert!(
        !told.text.contains("private") && !told.text.contains("Patient/2"),
        "{}",
        told.text
    );
    let list = house.get(ENDPOINTS).await.json();
    assert_eq!(
        list["endpoints"].as_array().map(Vec::len),
        Some(1),
        "nothing was kept"
    );

    let refused = async |uri: &str, body: Value| {
        let answer = house.ask("POST", uri, &body).await;
        (answer.code(), answer.json()["pointer"].clone())
    };
    let unsaved = "/v1/webhooks/dry-run";
    assert_eq!(
        refused(&dry_run, json!({"events": 0})).await,
        ("field_invalid".into(), json!("/events"))
    );
    assert_eq!(
        refused(&dry_run, json!({"events": 101})).await,
        ("field_invalid".into(), json!("/events"))
    );
    assert_eq!(
        refused(&dry_run, json!({"stream": "patients"})).await,
        ("stream_forbidden".into(), json!("/stream"))
    );
    assert_eq!(
        refused(unsaved, json!({})).await,
        ("field_invalid".into(), json!("/specification"))
    );
    assert_eq!(
        refused(
            unsaved,
            json!({"specification": {"url": "x", "streams": ["observations"]}})
        )
        .await,
        ("url_invalid".into(), json!("/specification/url"))
    );
    assert_eq!(
        refused(
            unsaved,
            json!({"specification": with("streams", json!(["patients"]))})
        )
        .await,
        ("stream_forbidden".into(), json!("/specification/streams/0"))
    );
}
