//! Replays and resends: what is asked for is what is kept to be read again.

use std::time::Duration;

use http::StatusCode;
use schemas::cursor::{Cursor, Position as At, TopicPositions, topic_digest};
use serde_json::{Value, json};
use webhooks::delivery::Position;
use webhooks::store::Kind;

use super::house::{ALL, House, TOPIC, smallest};
use super::log::{id_of, north, observations};

impl House {
    /// The parts that wait to be read: kind, partition, first offset, the one after the last.
    async fn parts(&self) -> Vec<(Kind, i32, i64, i64)> {
        let mut parts = Vec::new();
        while let Some(part) = self
            .store
            .claim_replay("test", Duration::from_secs(60), &[])
            .await
            .expect("read")
        {
            parts.push((
                part.kind,
                part.position.partition,
                part.position.offset,
                part.until,
            ));
        }
        parts.sort_by_key(|part| (part.1, part.2));
        parts
    }

    fn cursor(&self, end: &Position, offset: i64) -> String {
        let cursor = Cursor {
            revision: 1,
            issued_at_ms: self.desk.clock.now_ms(),
            topics: vec![TopicPositions {
                topic: topic_digest(TOPIC),
                incarnation: end.incarnation,
                partitions: vec![At::At(offset), At::At(0)],
            }],
        };
        self.desk.sealer.seal(&observations(), &north(), &cursor)
    }
}

#[tokio::test]
async fn a_replay_goes_from_a_cursor_to_a_cursor_or_to_the_end_of_now() {
    let house = House::new().await;
    for _ in 0..6 {
        house.observe("north", "1", "final");
    }
    let (_, path) = house.create(&smallest()).await;
    let replay = format!("{path}/replay");
    let end = house.end().await;
    let from = house.cursor(&end, 2);
    let begun = house.ask("POST", &replay, &json!({ "from": from })).await;
    assert_eq!(begun.status, StatusCode::ACCEPTED, "{}", begun.text);
    assert_eq!(begun.headers["location"], format!("{path}/replays"));
    assert_eq!(house.parts().await, [(Kind::Replay, 0, 2, 6)]);
    let until = house.cursor(&end, 4);
    let both = json!({"from": from, "until": until, "stream": "observations"});
    assert_eq!(
        house.ask("POST", &replay, &both).await.status,
        StatusCode::ACCEPTED
    );
    assert_eq!(house.parts().await, [(Kind::Replay, 0, 2, 4)]);
    // The embedded broker knows no times: all of it rather than nothing.
    let time = json!({"from": "2020-01-01T00:00:00Z"});
    assert_eq!(
        house.ask("POST", &replay, &time).await.status,
        StatusCode::ACCEPTED
    );
    assert_eq!(house.parts().await, [(Kind::Replay, 0, 0, 6)]);

    let list = house.get(&format!("{path}/replays")).await;
    let shown = list.json();
    assert_eq!(shown["replays"].as_array().map(Vec::len), Some(3));
    assert_eq!(
        (
            &shown["replays"][2]["id"],
            &shown["replays"][2]["kind"],
            &shown["replays"][2]["partitions_done"]
        ),
        (&begun.json()["id"], &json!("replay"), &json!(0))
    );
    assert!(!list.text.contains(TOPIC), "{}", list.text);
    let one = format!("{path}/replays/{}", begun.json()["id"].as_str().expect("an id"));
    let south = house.bearer("south", ALL);
    assert_eq!(
        house
            .ask_as(&south, "DELETE", &one, &[], &Value::Null)
            .await
            .code(),
        "not_found"
    );
    assert_eq!(
        house.ask("DELETE", &one, &Value::Null).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(house.ask("DELETE", &one, &Value::Null).await.code(), "not_found");

    let foreign = house.desk.sealer.seal(
        &schemas::ids::StreamName::parse("patients").expect("a name"),
        &north(),
        &Cursor {
            revision: 1,
            issued_at_ms: 0,
            topics: Vec::new(),
        },
    );
    for (body, code, pointer) in [
        (json!({}), "field_invalid", "/from"),
        (json!({"from": 7}), "field_invalid", "/from"),
        (json!({"from": "yesterday"}), "cursor_invalid", "/from"),
        (json!({"from": "2020-13-01T00:00:00Z"}), "field_invalid", "/from"),
        (json!({"from": foreign}), "cursor_foreign", "/from"),
        (json!({"from": house.cursor(&end, 100)}), "cursor_ahead", "/from"),
        (json!({"from": from, "until": "x"}), "cursor_invalid", "/until"),
        (
            json!({"from": from, "stream": "patients"}),
            "stream_forbidden",
            "/stream",
        ),
        (json!({"from": from, "speed": "high"}), "field_unknown", "/speed"),
        (json!({"from": "failed"}), "field_invalid", "/from"),
    ] {
        let refused = house.ask("POST", &replay, &body).await;
        assert_eq!(
            (&*refused.code(), &refused.json()["pointer"]),
            (code, &json!(pointer)),
            "{body}"
        );
    }
}

#[tokio::test]
async fn since_it_failed_means_what_was_given_up_and_what_came_while_it_fails() {
    let house = House::new().await;
    for _ in 0..6 {
        house.observe("north", "1", "final");
    }
    let (shown, path) = house.create(&smallest()).await;
    let id = id_of(&shown);
    house.log(&id, 1, "delivered").await;
    house.log(&id, 3, "timeout").await;
    house.log(&id, 5, "status").await;
    let replay = format!("{path}/replay");
    let begun = house.ask("POST", &replay, &json!({"from": "failed"})).await;
    assert_eq!(begun.status, StatusCode::ACCEPTED, "{}", begun.text);
    assert_eq!(house.parts().await, [(Kind::Replay, 0, 3, 6)]);
    // It fails now, and the embedded broker knows no times: from the beginning.
    house
        .store
        .report_health(&id, Some(1_000), None)
        .await
        .expect("told");
    house.ask("POST", &replay, &json!({"from": "failed"})).await;
    assert_eq!(house.parts().await, [(Kind::Replay, 0, 0, 6)]);
}

#[tokio::test]
async fn one_delivery_is_sent_again_and_only_its_own_tenant_can_ask() {
    let house = House::new().await;
    for _ in 0..3 {
        house.observe("north", "1", "final");
    }
    let (shown, path) = house.create(&smallest()).await;
    let delivery = house.log(&id_of(&shown), 1, "delivered").await;
    let resend = format!("/v1/webhooks/deliveries/{delivery}/resend");
    let south = house.bearer("south", ALL);
    assert_eq!(
        house
            .ask_as(&south, "POST", &resend, &[], &Value::Null)
            .await
            .code(),
        "not_found"
    );
    let begun = house.ask("POST", &resend, &Value::Null).await;
    assert_eq!(begun.status, StatusCode::ACCEPTED, "{}", begun.text);
    assert_eq!(house.parts().await, [(Kind::Resend, 0, 1, 2)]);
    let unknown = house
        .ask("POST", "/v1/webhooks/deliveries/msg_unknown/resend", &Value::Null)
        .await;
    assert_eq!(unknown.code(), "not_found");
    house.ask("DELETE", &path, &Value::Null).await;
    assert_eq!(house.ask("POST", &resend, &Value::Null).await.code(), "not_found");
}

#[tokio::test]
async fn only_so_many_replays_are_under_way() {
    let house = House::new().await;
    house.observe("north", "1", "final");
    let (_, path) = house.create(&smallest()).await;
    let replay = format!("{path}/replay");
    let body = json!({"from": "2020-01-01T00:00:00Z"});
    for _ in 0..8 {
        assert_eq!(
            house.ask("POST", &replay, &body).await.status,
            StatusCode::ACCEPTED
        );
    }
    let refused = house.ask("POST", &replay, &body).await;
    assert_eq!(
        (refused.status.as_u16(), &*refused.code()),
        (429, "replay_limited")
    );
}
