//! The cases that break naive cursors.

use std::time::Duration;

use auth::dev::DevelopmentIssuer;
use schemas::cursor::Position;
use serde_json::json;

use super::rig::{Log, Node, local, numbered};
use crate::hub::{After, HubConfig};

fn issuer() -> DevelopmentIssuer {
    DevelopmentIssuer::ephemeral().unwrap()
}

/// A ring that holds about one event: everything older is read from the log.
fn tiny_ring() -> HubConfig {
    HubConfig {
        ring_bytes_max: 1,
        ..HubConfig::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_live_reader_gets_its_tenants_events_and_no_others() {
    local(async {
        let mut node = Node::start(&Log::new(), HubConfig::default(), &issuer(), &[0, 1]).await;
        let mut north = node.subscribe("north", None).await;
        let mut south = node.subscribe("south", None).await;
        for n in 0..10 {
            node.publish((n % 2) as i32, if n < 5 { "north" } else { "south" }, numbered(n))
                .await;
        }
        assert_eq!(north.events(5).await.0, [0, 1, 2, 3, 4]);
        assert_eq!(south.events(5).await.0, [5, 6, 7, 8, 9]);
        assert!(north.is_quiet().await && south.is_quiet().await);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_goes_on_exactly_after_its_cursor_from_the_ring_and_from_the_log() {
    for config in [HubConfig::default(), tiny_ring()] {
        local(async {
            let mut node = Node::start(&Log::new(), config, &issuer(), &[0]).await;
            let mut reader = node.subscribe("north", None).await;
            for n in 0..50 {
                node.publish(0, "north", numbered(n)).await;
            }
            let (_, cursor) = reader.events(20).await;
            reader.cut();
            let mut reader = node.subscribe("north", Some(&cursor)).await;
            assert_eq!(reader.events(30).await.0, (20..50).collect::<Vec<_>>());
            reader.until("live").await;
            node.publish(0, "north", numbered(50)).await;
            assert_eq!(reader.event().await.0, 50);
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_behind_on_one_slow_partition_gets_the_others_and_may_be_cut_again() {
    local(async {
        let log = Log::new();
        let mut node = Node::start(&log, tiny_ring(), &issuer(), &[0, 1]).await;
        let reader = node
            .connect(
                Some(node.principal("north", "user/Observation.rs", None)),
                1 << 20,
            )
            .await;
        reader.cut();
        let mut reader = node.subscribe("north", None).await;
        node.publish(0, "north", numbered(0)).await;
        let (_, cursor) = reader.event().await;
        reader.cut();
        for n in 1..10 {
            node.publish(1, "north", numbered(n)).await;
        }
        for n in 10..20 {
            node.publish(0, "north", numbered(n)).await;
        }
        log.hold(1);
        let mut reader = node.subscribe("north", Some(&cursor)).await;
        let (fast, cursor) = reader.events(10).await;
        assert_eq!(fast, (10..20).collect::<Vec<_>>());
        // Cut while partition 1 has given nothing, and events keep arriving on the other.
        reader.cut();
        node.publish(0, "north", numbered(20)).await;
        let mut reader = node.subscribe("north", Some(&cursor)).await;
        assert_eq!(reader.event().await.0, 20);
        node.publish(0, "north", numbered(21)).await;
        assert_eq!(reader.event().await.0, 21);
        assert!(reader.is_quiet().await);
        log.let_go(1);
        assert_eq!(reader.events(9).await.0, (1..10).collect::<Vec<_>>());
        reader.until("live").await;
        assert!(reader.is_quiet().await);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_from_a_node_that_was_ahead_gets_nothing_twice_and_misses_nothing() {
    local(async {
        let (log, issuer) = (Log::new(), issuer());
        let mut ahead = Node::start(&log, HubConfig::default(), &issuer, &[0, 1]).await;
        let mut behind = Node::start(&log, HubConfig::default(), &issuer, &[0, 1]).await;
        let mut reader = ahead.subscribe("north", None).await;
        for n in 0..10 {
            ahead.publish((n % 2) as i32, "north", numbered(n)).await;
        }
        let (_, cursor) = reader.events(10).await;
        reader.cut();
        behind.feed(1, 0, 2).await;
        let mut reader = behind.subscribe("north", Some(&cursor)).await;
        reader.until("live").await;
        assert!(reader.is_quiet().await);
        behind.feed(1, 1, 1).await;
        assert!(reader.is_quiet().await);
        // Cut once more while this node is still behind: the position must not go back with it.
        let before = reader.until("cursor").await["cursor"]
            .as_str()
            .unwrap()
            .to_owned();
        reader.cut();
        let mut reader = behind.subscribe("north", Some(&before)).await;
        reader.until("live").await;
        behind.feed(1, 0, usize::MAX).await;
        behind.feed(1, 1, usize::MAX).await;
        assert!(reader.is_quiet().await);
        behind.publish(1, "north", numbered(10)).await;
        assert_eq!(reader.event().await.0, 10);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_cursor_beyond_the_end_of_the_log_is_told_and_not_clamped() {
    local(async {
        let issuer = issuer();
        let (log, other) = (Log::new(), Log::new());
        let mut elsewhere = Node::start(&other, HubConfig::default(), &issuer, &[0]).await;
        let mut reader = elsewhere.subscribe("north", None).await;
        elsewhere.publish(0, "north", numbered(0)).await;
        let (_, cursor) = reader.event().await;
        let node = Node::start(&log, HubConfig::default(), &issuer, &[0]).await;
        let mut reader = node.subscribe("north", Some(&cursor)).await;
        assert_eq!(reader.until("error").await["code"], "cursor_ahead");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_end_that_was_asked_for_before_the_reader_went_on_is_not_held_against_it() {
    local(async {
        let (log, issuer) = (Log::new(), issuer());
        let mut former = Node::start(&log, HubConfig::default(), &issuer, &[0]).await;
        let node = Node::start(&log, HubConfig::default(), &issuer, &[0]).await;
        let mut reader = former.subscribe("north", None).await;
        for n in 0..10 {
            former.publish(0, "north", numbered(n)).await;
        }
        let (_, cursor) = reader.events(10).await;
        log.ends_take(Duration::from_millis(100));
        let pull = node.pull("north", node.after("north", &cursor), 100, Duration::from_secs(1));
        let catches_up = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            for n in 10..15 {
                log.append(1, 0, "north", numbered(n));
            }
            node.feed_all(1, 0).await;
        };
        let (page, ()) = tokio::join!(pull, catches_up);
        let page = page.map_err(|failure| failure.code.name);
        assert_eq!(page.map(|page| page.events.len()), Ok(5));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_quiet_reader_advances_without_a_false_gap_or_a_scan() {
    local(async {
        let log = Log::new();
        let mut node = Node::start(&log, tiny_ring(), &issuer(), &[0]).await;
        let mut reader = node.subscribe("north", None).await;
        for n in 0..200 {
            node.publish(0, "south", numbered(n)).await;
        }
        let cursor = reader.until("cursor").await["cursor"]
            .as_str()
            .unwrap()
            .to_owned();
        reader.cut();
        log.retain_from(1, 0, 200);
        let mut reader = node.subscribe("north", Some(&cursor)).await;
        reader.until("live").await;
        assert!(reader.is_quiet().await);
        assert_eq!(log.pages(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_cut_before_its_first_event_resumes_from_where_it_began() {
    local(async {
        let mut node = Node::start(&Log::new(), HubConfig::default(), &issuer(), &[0]).await;
        let mut reader = node
            .connect(
                Some(node.principal("north", "user/Observation.rs", None)),
                1 << 20,
            )
            .await;
        reader.subscribe(None).await;
        let cursor = reader.until("subscribed").await["cursor"]
            .as_str()
            .unwrap()
            .to_owned();
        reader.cut();
        node.publish(0, "north", numbered(7)).await;
        let mut reader = node.subscribe("north", Some(&cursor)).await;
        assert_eq!(reader.event().await.0, 7);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_retention_deleted_is_a_gap_with_the_right_numbers() {
    local(async {
        let log = Log::new();
        let mut node = Node::start(&log, tiny_ring(), &issuer(), &[0]).await;
        let mut reader = node.subscribe("north", None).await;
        for n in 0..40 {
            node.publish(0, "north", numbered(n)).await;
        }
        let (_, cursor) = reader.events(10).await;
        reader.cut();
        log.retain_from(1, 0, 25);
        let mut reader = node.subscribe("north", Some(&cursor)).await;
        let gap = reader.until("gap").await;
        assert_eq!(gap["partitions"][0]["reason"], "expired");
        assert_eq!(gap["partitions"][0]["partition"], 0);
        assert_eq!(gap["partitions"][0]["from"], 10);
        assert_eq!(gap["partitions"][0]["to"], 25);
        assert_eq!(reader.events(15).await.0, (25..40).collect::<Vec<_>>());
        // The gap's own cursor leads to what follows it, not to the gap again.
        let mut again = node.subscribe("north", gap["cursor"].as_str()).await;
        assert_eq!(again.event().await.0, 25);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_new_partition_reaches_open_sessions_and_old_cursors_from_its_first_record() {
    local(async {
        let mut node = Node::start(&Log::new(), HubConfig::default(), &issuer(), &[0]).await;
        let mut reader = node.subscribe("north", None).await;
        node.publish(0, "north", numbered(0)).await;
        let (_, cursor) = reader.event().await;
        node.announce(1, 1, Position::At(0)).await;
        node.publish(1, "north", numbered(1)).await;
        assert_eq!(reader.event().await.0, 1);
        let mut old = node.subscribe("north", Some(&cursor)).await;
        assert_eq!(old.event().await.0, 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_this_node_has_not_found_yet_keeps_its_position() {
    local(async {
        let (log, issuer) = (Log::new(), issuer());
        let mut first = Node::start(&log, HubConfig::default(), &issuer, &[0]).await;
        let mut second = Node::start(&log, HubConfig::default(), &issuer, &[0]).await;
        let mut reader = first.subscribe("north", None).await;
        first.announce(1, 1, Position::At(0)).await;
        first.publish(1, "north", numbered(0)).await;
        first.publish(1, "north", numbered(1)).await;
        let (_, cursor) = reader.events(2).await;
        let mut reader = second.subscribe("north", Some(&cursor)).await;
        second.publish(0, "north", numbered(2)).await;
        let (n, cursor) = reader.event().await;
        assert_eq!(n, 2);
        // It is carried over one more reconnect.
        reader.cut();
        let mut reader = second.subscribe("north", Some(&cursor)).await;
        second.announce(1, 1, Position::At(0)).await;
        second.feed(1, 1, usize::MAX).await;
        assert!(reader.until("live").await["cursor"].is_string());
        assert!(reader.is_quiet().await);
        second.publish(1, "north", numbered(3)).await;
        assert_eq!(reader.event().await.0, 3);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_topic_made_again_is_a_gap_for_open_sessions_and_for_old_cursors() {
    local(async {
        let log = Log::new();
        let mut node = Node::start(&log, HubConfig::default(), &issuer(), &[0]).await;
        let mut reader = node.subscribe("north", None).await;
        for n in 0..5 {
            node.publish(0, "north", numbered(n)).await;
        }
        let (_, cursor) = reader.events(5).await;
        node.remove(1).await;
        node.announce(2, 0, Position::At(0)).await;
        assert_eq!(reader.until("gap").await["partitions"][0]["reason"], "recreated");
        log.append(2, 0, "north", numbered(100));
        node.feed(2, 0, usize::MAX).await;
        let (n, live) = reader.event().await;
        assert_eq!(n, 100);
        let mut old = node.subscribe("north", Some(&cursor)).await;
        assert_eq!(old.until("gap").await["partitions"][0]["reason"], "recreated");
        assert_eq!(old.event().await.0, 100);
        // Cut before the gap was read: it is told again.
        let body = node.sse("north", node.after("north", &cursor)).await;
        let first = first_id(body).await;
        let mut again = node.subscribe("north", Some(&first)).await;
        assert_eq!(again.until("gap").await["partitions"][0]["reason"], "recreated");
        let mut new = node.subscribe("north", Some(&live)).await;
        new.until("live").await;
        assert!(new.is_quiet().await);
    })
    .await;
}

/// The id with which an event stream begins.
async fn first_id(mut body: crate::hub::Body) -> String {
    let head = body.recv().await.expect("the stream begins");
    let head = std::str::from_utf8(&head).expect("it is text").to_owned();
    let id = head.lines().find_map(|line| line.strip_prefix("id: "));
    id.expect("it begins with an id").to_owned()
}

#[tokio::test(start_paused = true)]
async fn holes_at_the_end_of_a_partition_hold_nobody_back() {
    local(async {
        let log = Log::new();
        let mut node = Node::start(&log, tiny_ring(), &issuer(), &[0]).await;
        let mut reader = node.subscribe("north", None).await;
        node.publish(0, "north", numbered(0)).await;
        let (_, cursor) = reader.event().await;
        reader.cut();
        node.publish(0, "north", numbered(1)).await;
        log.skip(1, 0, 5);
        node.feed(1, 0, usize::MAX).await;
        let mut reader = node.subscribe("north", Some(&cursor)).await;
        assert_eq!(reader.event().await.0, 1);
        reader.until("live").await;
        node.publish(0, "north", numbered(2)).await;
        assert_eq!(reader.event().await.0, 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_unresolved_partition_is_neither_zero_nor_the_end() {
    local(async {
        let log = Log::new();
        for n in 0..3 {
            log.append(1, 1, "north", numbered(n));
        }
        let mut node = Node::start(&log, HubConfig::default(), &issuer(), &[0]).await;
        node.announce(1, 1, Position::Since(super::rig::NOW_MS)).await;
        let mut reader = node.subscribe("north", None).await;
        node.publish(0, "north", numbered(10)).await;
        let (n, cursor) = reader.event().await;
        assert_eq!(n, 10);
        reader.cut();
        // Resumes while the partition is still unresolved, then it is resolved to where the node began.
        let mut reader = node.subscribe("north", Some(&cursor)).await;
        reader.until("live").await;
        assert!(reader.is_quiet().await);
        node.resolve(1, 1, 3).await;
        node.publish(1, "north", numbered(11)).await;
        assert_eq!(reader.event().await.0, 11);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn pages_chain_to_the_exact_sequence_and_an_empty_page_advances() {
    for config in [HubConfig::default(), tiny_ring()] {
        local(async {
            let mut node = Node::start(&Log::new(), config, &issuer(), &[0, 1]).await;
            let begin = node
                .pull("north", After::Latest, 10, Duration::ZERO)
                .await
                .unwrap();
            assert!(begin.events.is_empty());
            for n in 0..60 {
                node.publish((n % 2) as i32, "north", numbered(n)).await;
            }
            let mut next = begin.next;
            let mut got = Vec::new();
            while got.len() < 60 {
                let page = node
                    .pull("north", node.after("north", &next), 7, Duration::ZERO)
                    .await
                    .unwrap();
                assert!(!page.events.is_empty() && page.events.len() <= 7);
                for event in &page.events {
                    let event: serde_json::Value = serde_json::from_slice(event).unwrap();
                    assert!(event["cursor"].is_string());
                    got.push(event["data"]["n"].as_i64().unwrap());
                }
                next = page.next;
            }
            got.sort_unstable();
            assert_eq!(got, (0..60).collect::<Vec<_>>());
            node.publish(0, "south", numbered(0)).await;
            let page = node
                .pull("north", node.after("north", &next), 7, Duration::ZERO)
                .await
                .unwrap();
            assert!(page.events.is_empty() && page.next != next);
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_is_answered_by_the_first_event_or_by_its_deadline() {
    local(async {
        let node = Node::start(&Log::new(), HubConfig::default(), &issuer(), &[0]).await;
        let started = tokio::time::Instant::now();
        let page = node
            .pull("north", After::Latest, 7, Duration::from_secs(20))
            .await
            .unwrap();
        assert!(page.events.is_empty());
        assert_eq!(started.elapsed().as_secs(), 20);
        let begin = node.after("north", &page.next);
        let (page, ()) = tokio::join!(node.pull("north", begin, 7, Duration::from_secs(20)), async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            node.log
                .append(1, 0, "north", json!({"n": 1, "patient": "Patient/1"}));
            node.feed_all(1, 0).await;
        });
        assert_eq!(page.unwrap().events.len(), 1);
    })
    .await;
}
