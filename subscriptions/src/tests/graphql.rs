//! GraphQL on every transport of the engine, under paused time: the handshake and its close codes, results, cursors,
//! grants, and the end of operations.

mod responses;

use std::time::Duration;

use auth::dev::DevelopmentIssuer;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::rig::{Log, Node, Reader, local, node, numbered};
use crate::hub::{Body, GraphqlFraming, GraphqlSubscribe, HubConfig, Protocol};
use crate::worker::Order;

const ALL: &str = "subscription { observations { kind cursor data { n note } } }";

async fn clinician(node: &Node) -> Reader {
    let principal = node.principal("north", "user/Observation.rs", None);
    let mut reader = node
        .connect_as(Protocol::GraphqlTransportWs, Some(principal), 1 << 20)
        .await;
    reader.init().await;
    reader
}

async fn stranger(node: &Node, protocol: Protocol) -> Reader {
    node.connect_as(protocol, None, 1 << 20).await
}

/// The number of a result's event, and its cursor.
fn number(result: &Value) -> (i64, String) {
    let event = &result["payload"]["data"]["observations"];
    let cursor = event["cursor"].as_str().unwrap().to_owned();
    assert_eq!(result["payload"]["extensions"]["cursor"], cursor.as_str());
    (event["data"]["n"].as_i64().expect("numbered"), cursor)
}

#[tokio::test(start_paused = true)]
async fn an_operation_gets_results_until_it_is_completed_without_an_echo() {
    local(async {
        let mut node = node().await;
        let mut reader = clinician(&node).await;
        reader.operate("a", ALL, None).await;
        let began = reader.until("ping").await;
        assert!(began["payload"]["cursors"]["a"].is_string(), "{began}");
        node.publish(0, "north", numbered(1)).await;
        node.publish(0, "south", numbered(2)).await;
        node.publish(0, "north", numbered(3)).await;
        let first = reader.until("next").await;
        assert_eq!(first["id"], "a");
        assert_eq!(first["payload"]["data"]["observations"]["kind"], "CHANGED");
        assert_eq!(number(&first).0, 1);
        assert_eq!(number(&reader.until("next").await).0, 3);
        reader.say(json!({"type": "complete", "id": "a"})).await;
        node.publish(0, "north", numbered(4)).await;
        // The id is free again, and nothing was said meanwhile.
        reader.operate("a", ALL, None).await;
        assert_eq!(reader.next().await.unwrap()["type"], "ping");
        node.publish(0, "north", numbered(5)).await;
        assert_eq!(number(&reader.next().await.unwrap()).0, 5);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn every_breach_of_the_protocol_has_its_close_code() {
    local(async {
        let node = node().await;
        let init = || json!({"type": "connection_init"});
        let subscribe = || json!({"type": "subscribe", "id": "1", "payload": {"query": ALL}});
        let known: [(Vec<Value>, u16); 4] = [
            (vec![json!({"type": "unknown"})], 4400),
            (vec![subscribe()], 4401),
            (vec![init(), init()], 4429),
            (vec![init(), subscribe(), subscribe()], 4409),
        ];
        for (messages, code) in known {
            let principal = node.principal("north", "user/Observation.rs", None);
            let mut reader = node
                .connect_as(Protocol::GraphqlTransportWs, Some(principal), 1 << 20)
                .await;
            for message in &messages {
                reader.say(message.clone()).await;
            }
            reader.read_to_end().await;
            assert_eq!(reader.close, Some(code), "{messages:?}");
        }
        for (payload, code) in [(json!(null), 4403), (json!({"token": "no token at all"}), 4403)] {
            let mut reader = stranger(&node, Protocol::GraphqlTransportWs).await;
            reader
                .say(json!({"type": "connection_init", "payload": payload}))
                .await;
            assert!(reader.read_to_end().await.is_empty());
            assert_eq!(reader.close, Some(code), "{payload}");
        }
        let mut silent = stranger(&node, Protocol::GraphqlTransportWs).await;
        assert!(silent.read_to_end().await.is_empty());
        assert_eq!(silent.close, Some(4408));
        let mut other = stranger(&node, Protocol::Unacceptable).await;
        assert!(other.read_to_end().await.is_empty());
        assert_eq!(other.close, Some(4406));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn pings_are_answered_before_the_acknowledgement_too() {
    local(async {
        let node = node().await;
        let mut reader = stranger(&node, Protocol::GraphqlTransportWs).await;
        reader.say(json!({"type": "ping", "payload": {"x": 1}})).await;
        assert_eq!(reader.until("pong").await["payload"], json!({"x": 1}));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_token_in_connection_init_opens_and_a_ping_renews_it() {
    local(async {
        let mut node = node().await;
        let minute = Duration::from_secs(60);
        let mut reader = stranger(&node, Protocol::GraphqlTransportWs).await;
        let token = node.token("north", "a", "user/Observation.rs", None, minute);
        let payload = json!({"connectionParams": {"token": token}});
        reader
            .say(json!({"type": "connection_init", "payload": payload}))
            .await;
        reader.until("connection_ack").await;
        reader.operate("1", ALL, None).await;
        loop {
            let ping = reader.until("ping").await;
            if ping["payload"]["auth_required"].is_object() {
                break;
            }
        }
        let token = node.token("north", "a", "user/Observation.rs", None, 10 * minute);
        reader
            .say(json!({"type": "ping", "payload": {"token": token}}))
            .await;
        assert_eq!(reader.until("pong").await, json!({"type": "pong"}));
        reader.idle(2 * minute).await;
        node.publish(0, "north", numbered(1)).await;
        assert_eq!(number(&reader.until("next").await).0, 1);
        // Without another one the session ends, and the client comes back with a new token.
        while reader.next().await.is_some() {}
        assert_eq!(reader.close, Some(4403));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_cut_off_goes_on_exactly_after_its_cursor() {
    local(async {
        let mut node = node().await;
        let mut reader = clinician(&node).await;
        reader.operate("1", ALL, None).await;
        let began = reader.until("ping").await["payload"]["cursors"]["1"].clone();
        for n in 1..=3 {
            node.publish(0, "north", numbered(n)).await;
        }
        reader.cut();
        // Cut before its first event, it comes back with what the beginning told it.
        let mut reader = clinician(&node).await;
        reader.operate("1", ALL, began.as_str()).await;
        let first = number(&reader.until("next").await);
        assert_eq!(first.0, 1);
        reader.cut();
        let mut reader = clinician(&node).await;
        reader.operate("1", ALL, Some(&first.1)).await;
        assert_eq!(number(&reader.until("next").await).0, 2);
        assert_eq!(number(&reader.until("next").await).0, 3);
        node.publish(0, "north", numbered(4)).await;
        assert_eq!(number(&reader.until("next").await).0, 4);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_an_event_and_things_go_on_from_its_cursor() {
    local(async {
        let mut node = node().await;
        let mut reader = clinician(&node).await;
        reader.operate("1", ALL, None).await;
        reader.until("ping").await;
        node.remove(1).await;
        let gap = reader.until("next").await;
        let event = &gap["payload"]["data"]["observations"];
        assert_eq!((&event["kind"], &event["data"]), (&json!("GAP"), &Value::Null));
        assert_eq!(
            gap["payload"]["extensions"]["gap"]["partitions"][0]["reason"],
            "recreated"
        );
        let cursor = event["cursor"].as_str().unwrap();
        assert!(!cursor.is_empty());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn hidden_fields_are_null_under_any_alias_and_other_rows_do_not_come() {
    local(async {
        let mut node = node().await;
        let principal = node.principal("north", "patient/Observation.rs", Some("1"));
        let mut reader = node
            .connect_as(Protocol::GraphqlTransportWs, Some(principal), 1 << 20)
            .await;
        reader.init().await;
        let query = "subscription { observations { data { n a: note ...F } } } fragment F on Vital { note }";
        reader.operate("1", query, None).await;
        reader.until("ping").await;
        let other = json!({"n": 1, "patient": "Patient/2", "note": "secret"});
        node.publish(0, "north", other).await;
        node.publish(0, "north", numbered(2)).await;
        let next = reader.until("next").await;
        assert_eq!(
            next["payload"]["data"],
            json!({"observations": {"data": {"n": 2, "a": null, "note": null}}})
        );
        assert!(!next.to_string().contains("secret"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn equal_operations_share_a_group_whatever_their_documents_look_like() {
    local(async {
        let mut node = node().await;
        let mut readers = Vec::new();
        for query in [
            ALL,
            "subscription S { observations { ...F } } fragment F on VitalEvent { kind cursor data { n note } }",
            "subscription ($p: [String!]) { observations(patient: $p) { kind cursor data { n note } } }",
        ] {
            let mut reader = clinician(&node).await;
            reader.operate("1", query, None).await;
            reader.until("ping").await;
            readers.push(reader);
        }
        node.settle().await;
        assert_eq!(node.metrics.groups.get(), 1);
        node.publish(0, "north", numbered(1)).await;
        for reader in &mut readers {
            assert_eq!(number(&reader.until("next").await).0, 1);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn arguments_filter_by_the_index() {
    local(async {
        let mut node = node().await;
        let mut reader = clinician(&node).await;
        let query = r#"subscription { observations(status: "amended") { cursor data { n } } }"#;
        reader.operate("1", query, None).await;
        reader.until("ping").await;
        node.publish(0, "north", numbered(1)).await;
        let amended = json!({"n": 2, "patient": "Patient/1", "status": "amended"});
        node.publish(0, "north", amended).await;
        assert_eq!(number(&reader.until("next").await).0, 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_operation_is_an_error_and_the_others_go_on() {
    local(async {
        let mut node = node().await;
        let mut reader = clinician(&node).await;
        reader.operate("1", ALL, None).await;
        reader.until("ping").await;
        reader.operate("2", "subscription { nothing }", None).await;
        let error = reader.until("error").await;
        assert_eq!(error["id"], "2");
        assert!(error["payload"][0]["extensions"]["code"].is_string(), "{error}");
        reader.operate("3", "query { __typename }", None).await;
        assert_eq!(
            reader.until("next").await["payload"]["data"],
            json!({"__typename": "Query"})
        );
        assert_eq!(reader.until("complete").await["id"], "3");
        reader.operate("4", ALL, Some("no cursor")).await;
        assert_eq!(
            reader.until("error").await["payload"][0]["extensions"]["code"],
            "cursor_invalid"
        );
        node.publish(0, "north", numbered(1)).await;
        assert_eq!(reader.until("next").await["id"], "1");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn one_connection_speaks_for_several_people_only_with_the_scope_for_it() {
    local(async {
        let mut node = node().await;
        let router = node.principal("north", "tidewire:delegate", None);
        let mut reader = node
            .connect_as(Protocol::GraphqlTransportWs, Some(router), 1 << 20)
            .await;
        reader.init().await;
        let minute = Duration::from_secs(60);
        for (id, tenant, ttl) in [("n", "north", 10 * minute), ("s", "south", minute)] {
            let token = node.token(tenant, id, "user/Observation.rs", None, ttl);
            let extensions = json!({"authorization": format!("Bearer {token}")});
            let payload = json!({"query": ALL, "extensions": extensions});
            reader
                .say(json!({"type": "subscribe", "id": id, "payload": payload}))
                .await;
            let began = reader.until("ping").await;
            assert!(began["payload"]["cursors"][id].is_string(), "{began}");
        }
        // The router itself may read nothing.
        reader.operate("r", ALL, None).await;
        let error = reader.until("error").await;
        assert_eq!(error["payload"][0]["extensions"]["code"], "stream_forbidden");
        node.publish(0, "north", numbered(1)).await;
        let next = reader.until("next").await;
        assert_eq!((next["id"].as_str(), number(&next).0), (Some("n"), 1));
        node.publish(0, "south", numbered(2)).await;
        let next = reader.until("next").await;
        assert_eq!((next["id"].as_str(), number(&next).0), (Some("s"), 2));
        // Each ends with its own token.
        let error = reader.until("error").await;
        assert_eq!(error["id"], "s");
        assert_eq!(error["payload"][0]["extensions"]["code"], "token_expired");
        node.publish(0, "north", numbered(3)).await;
        assert_eq!(number(&reader.until("next").await).0, 3);

        let mut reader = clinician(&node).await;
        let token = node.token("south", "x", "user/Observation.rs", None, minute);
        let payload = json!({"query": ALL, "extensions": {"authorization": token}});
        reader
            .say(json!({"type": "subscribe", "id": "1", "payload": payload}))
            .await;
        let error = reader.until("error").await;
        assert_eq!(error["payload"][0]["extensions"]["code"], "unauthenticated");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_legacy_protocol_gives_the_same_in_its_own_words() {
    local(async {
        let mut node = node().await;
        let mut reader = stranger(&node, Protocol::GraphqlWs).await;
        let token = node.token(
            "north",
            "a",
            "user/Observation.rs",
            None,
            Duration::from_secs(600),
        );
        let payload = json!({"Authorization": format!("Bearer {token}")});
        reader
            .say(json!({"type": "connection_init", "payload": payload}))
            .await;
        reader.until("connection_ack").await;
        reader.until("ka").await;
        reader
            .say(json!({"type": "start", "id": "1", "payload": {"query": ALL}}))
            .await;
        node.settle().await;
        node.publish(0, "north", numbered(1)).await;
        assert_eq!(number(&reader.until("data").await).0, 1);
        reader.say(json!({"type": "connection_terminate"})).await;
        reader.read_to_end().await;
        assert_eq!(reader.close, Some(1000));

        let mut refused = stranger(&node, Protocol::GraphqlWs).await;
        refused.say(json!({"type": "connection_init"})).await;
        let error = refused.until("connection_error").await;
        assert_eq!(error["payload"]["code"], "unauthenticated");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_closed_with_1013_and_a_drain_with_1012() {
    local(async {
        let mut node = node().await;
        let mut slow = {
            let principal = node.principal("north", "user/Observation.rs", None);
            let mut reader = node
                .connect_as(Protocol::GraphqlTransportWs, Some(principal), 512)
                .await;
            reader.init().await;
            reader.operate("1", ALL, None).await;
            reader
        };
        let mut other = clinician(&node).await;
        other.operate("1", ALL, None).await;
        other.until("ping").await;
        node.settle().await;
        for n in 1..=20 {
            node.publish(0, "north", numbered(n)).await;
        }
        for n in 1..=20 {
            assert_eq!(number(&other.until("next").await).0, n);
        }
        // The stall time is over, and the time for last bytes is not.
        other.idle(Duration::from_secs(32)).await;
        while slow.next().await.is_some() {}
        assert_eq!(slow.close, Some(1013));
        let drained = node.drain().await;
        while other.next().await.is_some() {}
        assert_eq!(other.close, Some(1012));
        drop(other);
        drained.await.unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_operation_completed_before_its_stream_is_ready_does_not_begin() {
    local(async {
        let issuer = DevelopmentIssuer::ephemeral().unwrap();
        let mut node = Node::unready(&Log::new(), HubConfig::default(), &issuer).await;
        let mut reader = clinician(&node).await;
        reader.operate("1", ALL, None).await;
        reader.operate("2", ALL, None).await;
        reader.say(json!({"type": "complete", "id": "1"})).await;
        node.settle().await;
        node.complete(&[0]).await;
        let began = reader.until("ping").await;
        assert!(began["payload"]["cursors"]["2"].is_string(), "{began}");
        node.publish(0, "north", numbered(1)).await;
        assert_eq!(reader.next().await.unwrap()["id"], "2");
        // While it waited its id was taken.
        let mut node = Node::unready(&Log::new(), HubConfig::default(), &issuer).await;
        let mut reader = clinician(&node).await;
        reader.operate("1", ALL, None).await;
        reader.operate("1", ALL, None).await;
        node.complete(&[0]).await;
        while reader.next().await.is_some() {}
        assert_eq!(reader.close, Some(4409));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_renewed_token_loses_the_fields_and_the_people_that_it_does_not_open_any_more() {
    local(async {
        let mut node = node().await;
        let minute = Duration::from_secs(60);
        let mut reader = stranger(&node, Protocol::GraphqlTransportWs).await;
        let scopes = "user/Observation.rs phi:read tidewire:delegate";
        let token = node.token("north", "a", scopes, None, minute);
        reader
            .say(json!({"type": "connection_init", "payload": {"token": token}}))
            .await;
        reader.until("connection_ack").await;
        reader
            .operate("phi", "subscription { observations { data { phi } } }", None)
            .await;
        reader.until("ping").await;
        reader.operate("all", ALL, None).await;
        reader.until("ping").await;
        let token = node.token("north", "b", "user/Observation.rs", None, minute);
        let payload = json!({"query": ALL, "extensions": {"authorization": token}});
        reader
            .say(json!({"type": "subscribe", "id": "b", "payload": payload}))
            .await;
        reader.until("ping").await;
        let token = node.token("north", "a", "user/Observation.rs", None, minute);
        reader
            .say(json!({"type": "ping", "payload": {"token": token}}))
            .await;
        let ended = [reader.until("error").await, reader.until("error").await];
        let code = |error: &Value| error["payload"][0]["extensions"]["code"].clone();
        assert_eq!(
            (&ended[0]["id"], code(&ended[0])),
            (&json!("phi"), json!("field_forbidden"))
        );
        assert_eq!(
            (&ended[1]["id"], code(&ended[1])),
            (&json!("b"), json!("unauthenticated"))
        );
        reader.until("pong").await;
        node.publish(0, "north", numbered(1)).await;
        assert_eq!(reader.until("next").await["id"], "all");
        // Nor can it be asked for again.
        reader
            .operate("phi", "subscription { observations { data { phi } } }", None)
            .await;
        assert_eq!(code(&reader.until("error").await), "field_forbidden");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_read_for_somebody_else_ends_when_their_token_does_and_not_with_a_heartbeat() {
    local(async {
        let mut node = node().await;
        let router = node.principal("north", "tidewire:delegate", None);
        let mut reader = node
            .connect_as(Protocol::GraphqlTransportWs, Some(router), 1 << 20)
            .await;
        reader.init().await;
        let token = node.token("north", "a", "user/Observation.rs", None, Duration::from_secs(2));
        let payload = json!({"query": ALL, "extensions": {"authorization": token}});
        reader
            .say(json!({"type": "subscribe", "id": "1", "payload": payload}))
            .await;
        reader.until("ping").await;
        let error = timeout(Duration::from_millis(2_500), reader.until("error")).await;
        let error = error.expect("it ends in time");
        assert_eq!(error["payload"][0]["extensions"]["code"], "token_expired");
        node.publish(0, "north", numbered(1)).await;
        assert!(reader.is_quiet().await);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_token_that_ends_while_its_stream_is_not_ready_reads_nothing() {
    local(async {
        let issuer = DevelopmentIssuer::ephemeral().unwrap();
        let mut node = Node::unready(&Log::new(), HubConfig::default(), &issuer).await;
        node.log.append(1, 0, "north", numbered(1));
        let router = node.principal("north", "tidewire:delegate", None);
        let mut reader = node
            .connect_as(Protocol::GraphqlTransportWs, Some(router), 1 << 20)
            .await;
        reader.init().await;
        let token = node.token("north", "a", "user/Observation.rs", None, Duration::from_secs(2));
        let payload = json!({"query": ALL, "extensions": {"authorization": token, "after": "earliest"}});
        reader
            .say(json!({"type": "subscribe", "id": "1", "payload": payload}))
            .await;
        node.settle().await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        node.complete(&[0]).await;
        let error = reader.next().await.unwrap();
        assert_eq!(error["type"], "error", "{error}");
        assert_eq!(error["payload"][0]["extensions"]["code"], "token_expired");
    })
    .await;
}
