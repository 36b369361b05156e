//! Tokens, limits, slowness and the end of sessions, under paused time.

use std::sync::Arc;
use std::time::Duration;

use auth::dev::DevelopmentIssuer;
use serde_json::json;

use super::rig::{Log, Node, local, node, node_with, numbered};
use crate::hub::{After, HubConfig};
use crate::sequencer::Input;

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_session_is_warned_before_its_token_ends_and_closed_when_it_does() {
    local(async {
        let node = node().await;
        let mut principal = node.principal("north", "user/Observation.rs", None);
        Arc::make_mut(&mut principal).expires_at_ms = super::rig::NOW_MS + 61_000;
        let mut reader = node.connect(Some(principal), 1 << 20).await;
        reader.subscribe(None).await;
        reader.until("auth_required").await;
        let last = reader.read_to_end().await;
        assert_eq!(last.last().unwrap()["code"], "token_expired");
        assert_eq!(reader.close, Some(4200));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_renewed_token_goes_on_without_subscribing_again() {
    local(async {
        let mut node = node().await;
        let mut reader = node.connect(None, 1 << 20).await;
        let token = node.token("north", "a", "user/Observation.rs", None, MINUTE);
        reader.say(json!({"type": "auth", "token": token})).await;
        // Behind the token, before it is verified: it waits.
        reader.subscribe(None).await;
        reader.until("authorized").await;
        reader.until("auth_required").await;
        let token = node.token("north", "a", "user/Observation.rs", None, 10 * MINUTE);
        reader.say(json!({"type": "auth", "token": token})).await;
        reader.until("authorized").await;
        reader.idle(2 * MINUTE).await;
        node.publish(0, "north", numbered(1)).await;
        assert_eq!(reader.event().await.0, 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_renewed_token_keeps_tenant_and_subject() {
    for (tenant, subject) in [("south", "a"), ("north", "b")] {
        local(async {
            let node = node().await;
            let mut reader = node.connect(None, 1 << 20).await;
            let first = node.token("north", "a", "user/Observation.rs", None, MINUTE);
            reader.say(json!({"type": "auth", "token": first})).await;
            let other = node.token(tenant, subject, "user/Observation.rs", None, MINUTE);
            reader.say(json!({"type": "auth", "token": other})).await;
            // The second may come while the first is being verified: it is then refused, and said again.
            tokio::time::sleep(Duration::from_secs(1)).await;
            reader.say(json!({"type": "auth", "token": other})).await;
            let all = reader.read_to_end().await;
            assert_eq!(all.last().unwrap()["code"], "principal_changed");
            assert_eq!(reader.close, Some(4203));
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_never_says_who_it_is_is_closed() {
    local(async {
        let node = node().await;
        let mut reader = node.connect(None, 1 << 20).await;
        let all = reader.read_to_end().await;
        assert_eq!(all.last().unwrap()["code"], "unauthenticated");
        assert_eq!(reader.close, Some(4201));
        let mut reader = node.connect(None, 1 << 20).await;
        reader.subscribe(None).await;
        reader.read_to_end().await;
        assert_eq!(reader.close, Some(4201));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_was_queued_under_a_withdrawn_grant_is_never_sent() {
    local(async {
        let mut node = node().await;
        // The pipe takes little: most of what follows waits in the group's log.
        let mut reader = node.connect(None, 512).await;
        let wide = node.token("north", "a", "user/Observation.rs", None, 10 * MINUTE);
        reader.say(json!({"type": "auth", "token": wide})).await;
        reader.until("authorized").await;
        reader.subscribe(None).await;
        reader.until("subscribed").await;
        for n in 0..20 {
            let mut value = numbered(n);
            value["patient"] = json!(if n % 2 == 0 { "Patient/1" } else { "Patient/2" });
            node.publish(0, "north", value).await;
        }
        let narrow = node.token("north", "a", "patient/Observation.rs", Some("1"), 10 * MINUTE);
        reader.say(json!({"type": "auth", "token": narrow})).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        node.publish(0, "north", numbered(20)).await;
        let mut got = Vec::new();
        let mut renewed = false;
        while got.last().map(|(n, _)| *n) != Some(20) {
            let message = reader.next().await.expect("the session goes on");
            if message["type"] == "authorized" {
                renewed = true;
            } else if message["type"] == "event" {
                let data = &message["event"]["data"];
                let hidden = data.get("note").is_none();
                got.push((data["n"].as_i64().unwrap(), renewed));
                // What was sent before the renewal may be wide; the rest of one frame may follow it.
                assert!(hidden || got.len() <= 3, "a note was sent under the narrow grant");
            }
        }
        let numbers: Vec<i64> = got.iter().map(|(n, _)| *n).collect();
        let narrow_from = got.len() - numbers.iter().rev().take_while(|n| *n % 2 == 0).count();
        assert!(narrow_from <= 3, "{numbers:?}");
        // Nothing of the patient's is missing, nothing came twice.
        let mut even: Vec<i64> = numbers.iter().copied().filter(|n| n % 2 == 0).collect();
        even.dedup();
        assert_eq!(even, (0..=20).step_by(2).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_renewed_token_that_opens_more_gives_more_from_then_on() {
    local(async {
        let mut node = node().await;
        let mut reader = node.connect(None, 1 << 20).await;
        let narrow = node.token("north", "a", "patient/Observation.rs", Some("1"), 10 * MINUTE);
        reader.say(json!({"type": "auth", "token": narrow})).await;
        reader.until("authorized").await;
        reader.subscribe(None).await;
        reader.until("subscribed").await;
        let of = |n: i64| {
            let mut value = numbered(n);
            value["patient"] = json!(if n % 2 == 0 { "Patient/1" } else { "Patient/2" });
            value
        };
        for n in 0..6 {
            node.publish(0, "north", of(n)).await;
        }
        for n in [0, 2, 4] {
            let message = reader.until("event").await;
            let data = &message["event"]["data"];
            assert!(data["n"] == n && data.get("note").is_none(), "{message}");
        }
        let wide = node.token("north", "a", "user/Observation.rs", None, 10 * MINUTE);
        reader.say(json!({"type": "auth", "token": wide})).await;
        reader.until("authorized").await;
        for n in 6..12 {
            node.publish(0, "north", of(n)).await;
        }
        for n in 6..12 {
            let message = reader.until("event").await;
            let data = &message["event"]["data"];
            assert!(data["n"] == n && data["note"] == "secret", "{message}");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_no_longer_granted_is_completed() {
    local(async {
        let node = node().await;
        let mut reader = node.connect(None, 1 << 20).await;
        let token = node.token("north", "a", "user/Observation.rs", None, 10 * MINUTE);
        reader.say(json!({"type": "auth", "token": token})).await;
        reader.until("authorized").await;
        reader.subscribe(None).await;
        reader.until("subscribed").await;
        let none = node.token("north", "a", "user/Patient.rs", None, 10 * MINUTE);
        reader.say(json!({"type": "auth", "token": none})).await;
        assert_eq!(reader.until("completed").await["reason"], "stream_forbidden");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_half_open_connection_is_found_by_its_silence() {
    local(async {
        let node = node().await;
        let silent = node
            .connect(
                Some(node.principal("north", "user/Observation.rs", None)),
                1 << 20,
            )
            .await;
        node.settle().await;
        assert_eq!(node.sessions().await, 1);
        tokio::time::sleep(Duration::from_secs(70)).await;
        assert_eq!(node.sessions().await, 0);
        drop(silent);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn bad_messages_are_answered_by_their_codes() {
    local(async {
        let node = node_with(HubConfig {
            subscriptions_per_session_max: 2,
            ..HubConfig::default()
        })
        .await;
        let mut reader = node
            .connect(
                Some(node.principal("north", "user/Observation.rs", None)),
                1 << 20,
            )
            .await;
        let subscribe = |id: &str, more: serde_json::Value| {
            let mut message = json!({"type": "subscribe", "id": id, "stream": "observations"});
            for (name, value) in more.as_object().unwrap() {
                message[name] = value.clone();
            }
            message
        };
        let cases = [
            (json!({"type": "nonsense"}), "message_invalid"),
            (json!([]), "message_invalid"),
            (json!({"type": "unsubscribe", "id": "9"}), "unknown_id"),
            (subscribe("1", json!({"stream": "nowhere"})), "stream_forbidden"),
            (
                subscribe("1", json!({"where": {"nope": "x"}})),
                "unknown_parameter",
            ),
            (subscribe("1", json!({"after": "rubbish"})), "cursor_invalid"),
            (
                subscribe("1", json!({"after": "2026-99-01T00:00:00Z"})),
                "parameter_invalid",
            ),
            (subscribe("1", json!({"overflow": "conflate"})), "unsupported"),
            (subscribe("1", json!({"snapshot": true})), "unsupported"),
        ];
        for (message, code) in cases {
            reader.say(message.clone()).await;
            assert_eq!(reader.until("error").await["code"], code, "{message}");
        }
        reader.say(subscribe("1", json!({}))).await;
        reader.until("subscribed").await;
        reader.say(subscribe("1", json!({}))).await;
        assert_eq!(reader.until("error").await["code"], "duplicate_id");
        reader.say(subscribe("2", json!({}))).await;
        reader.until("subscribed").await;
        reader.say(subscribe("3", json!({}))).await;
        assert_eq!(reader.until("error").await["code"], "subscriptions_exceeded");
        reader.say(json!({"type": "unsubscribe", "id": "1"})).await;
        assert_eq!(reader.until("unsubscribed").await["id"], "1");
        reader.say(json!({"type": "ping"})).await;
        reader.until("pong").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_oversized_message_ends_the_session_with_its_code() {
    local(async {
        let node = node_with(HubConfig {
            message_bytes_max: 1000,
            ..HubConfig::default()
        })
        .await;
        let mut reader = node
            .connect(
                Some(node.principal("north", "user/Observation.rs", None)),
                1 << 20,
            )
            .await;
        reader.say(json!({"type": "ping", "x": "y".repeat(2000)})).await;
        let all = reader.read_to_end().await;
        assert_eq!(all.last().unwrap()["code"], "message_too_large");
        assert_eq!(reader.close, Some(4301));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_says_bye_closes_and_lets_nobody_in() {
    local(async {
        let node = node().await;
        let mut reader = node.subscribe("north", None).await;
        let mut body = node.sse("north", After::Latest).await;
        let drained = node.drain().await;
        let all = reader.read_to_end().await;
        assert_eq!(all.last().unwrap()["type"], "bye");
        assert_eq!(reader.close, Some(4000));
        let mut text = Vec::new();
        while let Some(chunk) = body.recv().await {
            text.extend_from_slice(&chunk);
        }
        assert!(String::from_utf8(text).unwrap().contains("event: bye\n"));
        reader.cut();
        drained.await.unwrap();
        let refused = node.pull("north", After::Latest, 1, Duration::ZERO).await;
        assert_eq!(refused.unwrap_err().code.name, "draining");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_event_stream_begins_with_its_cursor_and_carries_one_with_each_event() {
    local(async {
        let mut node = node().await;
        let mut body = node.sse("north", After::Latest).await;
        let head = String::from_utf8(body.recv().await.unwrap().to_vec()).unwrap();
        assert!(
            head.starts_with("retry: 1000\n\nid: ") && head.ends_with("\n\n"),
            "{head}"
        );
        node.publish(0, "north", numbered(3)).await;
        let event = String::from_utf8(body.recv().await.unwrap().to_vec()).unwrap();
        let lines: Vec<&str> = event.lines().collect();
        let cursor = lines[0].strip_prefix("id: ").unwrap();
        let data: serde_json::Value = serde_json::from_str(lines[1].strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(data["data"]["n"], 3);
        assert!(matches!(node.after("north", cursor), After::Cursor(_)));
        drop(body);
        node.settle().await;
        assert_eq!(node.sessions().await, 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_comes_before_the_partitions_are_known_waits_for_them() {
    local(async {
        let mut node = Node::unready(
            &Log::new(),
            HubConfig::default(),
            &DevelopmentIssuer::ephemeral().unwrap(),
        )
        .await;
        let mut early = node
            .connect(
                Some(node.principal("north", "user/Observation.rs", None)),
                1 << 20,
            )
            .await;
        early.subscribe(None).await;
        node.settle().await;
        node.complete(&[0]).await;
        early.until("subscribed").await;
        node.publish(0, "north", numbered(1)).await;
        assert_eq!(early.event().await.0, 1);
        // Not for ever: then it is told, with leave to try again.
        let never = Node::unready(
            &Log::new(),
            HubConfig::default(),
            &DevelopmentIssuer::ephemeral().unwrap(),
        )
        .await;
        let refused = never
            .pull("north", After::Latest, 1, Duration::ZERO)
            .await
            .unwrap_err();
        assert_eq!(
            (refused.code.name, refused.code.retry),
            ("stream_unavailable", true)
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_comes_to_a_stream_that_was_put_to_rest_waits_until_it_is_read_and_misses_nothing_of_what_comes()
{
    local(async {
        let mut node = node().await;
        assert!(!node.needs.rouse(0), "nobody needs it");
        let principal = node.principal("north", "user/Observation.rs", None);
        let mut first = node.connect(Some(Arc::clone(&principal)), 1 << 20).await;
        first.subscribe(None).await;
        first.until("subscribed").await;
        assert!(node.needs.rouse(0), "a reader needs it");
        assert!(!node.needs.rest(0, Duration::ZERO));
        drop(first);
        node.settle().await;
        assert!(node.needs.rest(0, Duration::ZERO), "it is gone");
        let forbidden = node.principal("north", "user/Patient.rs", None);
        let mut forbidden_reader = node.connect(Some(forbidden), 1 << 20).await;
        forbidden_reader.subscribe(None).await;
        assert_eq!(
            forbidden_reader.until("error").await["code"],
            "stream_forbidden",
            "at once"
        );
        assert!(
            !node.needs.rouse(0),
            "nothing is read for whoever may have nothing of it"
        );
        // What is known here is of before: nothing was read since.
        node.log.append(1, 0, "north", numbered(1));
        let mut second = node.connect(Some(Arc::clone(&principal)), 1 << 20).await;
        second.until("authorized").await;
        second.subscribe(None).await;
        node.send(Input::Resting).await;
        node.unresolve(1, 0).await;
        node.settle().await;
        assert!(second.is_quiet().await, "it waits");
        assert!(node.needs.rouse(0));
        let end = node.log.end(1, 0);
        node.resolve(1, 0, end).await;
        let generation = node.needs.generation(0);
        assert_eq!(generation, 1);
        node.send(Input::Complete { generation }).await;
        second.until("subscribed").await;
        node.publish(0, "north", numbered(2)).await;
        assert_eq!(second.event().await.0, 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_alone_on_its_worker_is_told_heartbeats_and_its_end() {
    local(async {
        let node = node().await;
        // Nothing else ever wakes the worker: no event, no other session.
        let mut body = node.sse("north", After::Latest).await;
        let mut text = String::new();
        while let Ok(Some(chunk)) = tokio::time::timeout(MINUTE, body.recv()).await {
            text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        assert!(text.contains("event: auth_required"), "{text}");
        assert!(text.contains("token_expired"), "{text}");
    })
    .await;
}
