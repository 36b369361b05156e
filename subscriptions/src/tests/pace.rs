//! Clients that speak too fast are heard later, and nobody else feels it.

use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::moved::left;
use super::rig::{Node, local, node_with, numbered};
use crate::hub::{After, HubConfig};

/// Ten messages a second, twenty at once.
async fn node() -> Node {
    let config = HubConfig {
        messages_per_second_max: 10,
        subscriptions_per_session_max: 5,
        ..HubConfig::default()
    };
    node_with(config).await
}

#[tokio::test(start_paused = true)]
async fn who_speaks_too_fast_is_heard_later_in_order_and_to_the_last_word() {
    local(async {
        let mut node = node().await;
        let mut loud = node.subscribe("north", None).await;
        let mut quiet = node.subscribe("north", None).await;
        let begun = Instant::now();
        for n in 0..100 {
            loud.say(json!({"type": "unsubscribe", "id": format!("x{n}")}))
                .await;
        }
        // Events are given to everybody meanwhile, the loud one too.
        node.publish(0, "north", numbered(1)).await;
        assert_eq!(quiet.event().await.0, 1);
        // One of the twenty was its `subscribe`.
        for n in 0..100 {
            if n == 19 {
                assert_eq!(loud.event().await.0, 1);
                assert!(begun.elapsed() < Duration::from_millis(100));
            }
            assert_eq!(loud.until("error").await["id"], json!(format!("x{n}")));
        }
        let (took, least) = (begun.elapsed(), Duration::from_millis(100 * (100 + 1 - 20)));
        assert!(took + Duration::from_millis(150) > least, "{took:?}");
        assert!(took < least + Duration::from_secs(1), "{took:?}");
        assert!(node.metrics.paced.get() > 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_loud_client_that_leaves_is_noticed() {
    local(async {
        let node = node().await;
        let mut loud = node.subscribe("north", None).await;
        for _ in 0..50 {
            loud.say(json!({"type": "ping"})).await;
        }
        drop(loud);
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(node.sessions().await, 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_speaks_behind_a_request_is_read_on_and_noticed_when_it_leaves() {
    local(async {
        let node = node().await;
        let body = node.sse("north", After::Latest).await;
        let (mut client, held) = left(body, 1 << 20).await;
        for _ in 0..100 {
            client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            node.settle().await;
        }
        assert!(node.metrics.paced.get() > 0);
        drop(client);
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!((node.sessions().await, held.strong_count()), (0, 0));
    })
    .await;
}
