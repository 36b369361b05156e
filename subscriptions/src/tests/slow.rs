//! Readers that take too little, or nothing: what becomes of them, and that nobody else feels it.

use std::time::Duration;

use serde_json::json;

use super::rig::{local, node, node_with, numbered};
use crate::hub::{After, HubConfig};

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_closed_with_its_code_and_the_others_keep_receiving() {
    local(async {
        let config = HubConfig {
            session_lag_bytes_max: 20_000,
            ..HubConfig::default()
        };
        let mut node = node_with(config).await;
        let mut slow = node
            .connect(Some(node.principal("north", "user/Observation.rs", None)), 2_000)
            .await;
        slow.subscribe(None).await;
        let mut quick = node.subscribe("north", None).await;
        for n in 0..600 {
            node.publish(0, "north", numbered(n)).await;
            assert_eq!(quick.event().await.0, n);
        }
        let all = slow.read_to_end().await;
        assert_eq!(slow.close, Some(4002));
        let cursor = all
            .iter()
            .rev()
            .find_map(|message| message["cursor"].as_str())
            .unwrap();
        let got = all.iter().filter(|message| message["type"] == "event").count() as i64;
        assert!(got < 600);
        // It resumes from the cursor that it last got, and misses nothing.
        let mut back = node.subscribe("north", Some(cursor)).await;
        let rest = usize::try_from(600 - got).unwrap();
        assert_eq!(back.events(rest).await.0, (got..600).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_whose_socket_takes_nothing_is_closed_after_the_stall_time() {
    local(async {
        let mut node = node().await;
        let mut stuck = node
            .connect(Some(node.principal("north", "user/Observation.rs", None)), 600)
            .await;
        stuck.subscribe(None).await;
        node.settle().await;
        for n in 0..5 {
            node.publish(0, "north", numbered(n)).await;
        }
        tokio::time::sleep(Duration::from_secs(31)).await;
        let all = stuck.read_to_end().await;
        assert!(all.len() < 8);
        assert_eq!(stuck.close, Some(4002));
    })
    .await;
}

fn large(n: i64) -> serde_json::Value {
    let mut value = numbered(n);
    value["text"] = json!("x".repeat(20_000));
    value
}

#[tokio::test(start_paused = true)]
async fn an_event_stream_that_takes_nothing_holds_nobody_up_and_is_closed() {
    local(async {
        let mut node = node_with(HubConfig {
            session_lag_bytes_max: 64 << 20,
            ..HubConfig::default()
        })
        .await;
        let mut stuck = node.sse("north", After::Latest).await;
        let mut quick = node.subscribe("north", None).await;
        for n in 0..50 {
            node.publish(0, "north", large(n)).await;
            assert_eq!(quick.event().await.0, n);
        }
        assert_eq!(node.sessions().await, 2);
        quick.idle(Duration::from_secs(60)).await;
        assert_eq!(node.sessions().await, 1);
        // What was handed over is still there; then the body ends.
        let mut chunks = 0;
        while stuck.recv().await.is_some() {
            chunks += 1;
        }
        assert!(chunks <= 4, "{chunks}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_event_stream_gets_a_long_replay_whole_while_others_go_on() {
    local(async {
        let mut node = node().await;
        let begin = node
            .pull("north", After::Latest, 1, Duration::ZERO)
            .await
            .unwrap()
            .next;
        let mut quick = node.subscribe("north", None).await;
        for n in 0..100 {
            node.publish(0, "north", large(n)).await;
            assert_eq!(quick.event().await.0, n);
        }
        let mut slow = node.sse("north", node.after("north", &begin)).await;
        let mut text = String::new();
        let mut n = 100;
        while text.matches("\ndata: {\"specversion").count() < 100 {
            text.push_str(std::str::from_utf8(&slow.recv().await.unwrap()).unwrap());
            quick.idle(Duration::from_secs(1)).await;
            if n < 110 {
                node.publish(0, "south", numbered(n)).await;
                n += 1;
            }
        }
        assert_eq!(numbers(&text), (0..100).collect::<Vec<i64>>());
    })
    .await;
}

/// The numbers of the events in the text of an event stream.
fn numbers(text: &str) -> Vec<i64> {
    text.lines()
        .filter_map(|line| line.strip_prefix("data: {\"spec"))
        .map(|rest| {
            let (_, after) = rest.split_once("\"n\":").unwrap();
            let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap()
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn what_a_replay_gives_back_for_want_of_memory_is_read_again_from_there() {
    local(async {
        let config = HubConfig {
            ring_bytes_max: 1,
            group_log_bytes_max: 1,
            ..HubConfig::default()
        };
        let mut node = node_with(config).await;
        let begin = node
            .pull("north", After::Latest, 1, Duration::ZERO)
            .await
            .unwrap()
            .next;
        for n in 0..300 {
            let mut value = numbered(n);
            value["text"] = json!("x".repeat(1_000));
            node.publish(0, "north", value).await;
        }
        node.log.page_events(100);
        let mut slow = node.sse("north", node.after("north", &begin)).await;
        let mut text = String::new();
        while text.matches("\ndata: {\"specversion").count() < 300 {
            text.push_str(std::str::from_utf8(&slow.recv().await.unwrap()).unwrap());
            node.settle().await;
        }
        assert_eq!(numbers(&text), (0..300).collect::<Vec<i64>>());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_large_frame_under_way_is_no_reason_to_close_at_a_heartbeat() {
    local(async {
        let config = HubConfig {
            control_bytes_max: 1_000,
            stall_max: Duration::from_secs(300),
            ..HubConfig::default()
        };
        let mut node = node_with(config).await;
        let mut reader = node
            .connect(Some(node.principal("north", "user/Observation.rs", None)), 1_000)
            .await;
        reader.subscribe(None).await;
        reader.until("subscribed").await;
        node.publish(0, "north", large(1)).await;
        // Two heartbeats pass before the reader takes the rest.
        tokio::time::sleep(Duration::from_secs(50)).await;
        assert_eq!(reader.event().await.0, 1);
    })
    .await;
}
