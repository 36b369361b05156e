//! Whatever is cut, whenever, on whichever node: the sequence that a reader ends with is exact.

use std::collections::BTreeMap;

use auth::dev::DevelopmentIssuer;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::rig::{Log, Node, Reader, local, numbered};
use crate::hub::HubConfig;

const PARTITIONS: i32 = 3;

/// One life of a reader: two nodes over one log, both fed at their own pace, cuts and switches at random.
async fn life(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let log = Log::new();
    log.page_events(random.random_range(1..20));
    let issuer = DevelopmentIssuer::ephemeral().unwrap();
    let mut nodes = Vec::new();
    for _ in 0..2 {
        let config = HubConfig {
            ring_bytes_max: [1, 3_000, 20_000, 1 << 20][random.random_range(0..4)],
            lane_bytes_max: [1, 700, 5_000][random.random_range(0..3)],
            ..HubConfig::default()
        };
        nodes.push(Node::start(&log, config, &issuer, &[0, 1, 2]).await);
    }
    let mut expected: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
    let mut got: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
    let mut cursor: Option<String> = None;
    let mut reader = connect(&nodes[0], 1 << 16, &mut cursor).await;
    let mut number = 0;
    for _ in 0..random.random_range(20..80) {
        match random.random_range(0..10) {
            0..=4 => {
                for _ in 0..random.random_range(1..12) {
                    let partition = random.random_range(0..PARTITIONS);
                    if random.random_bool(0.2) {
                        log.skip(1, partition, random.random_range(1..4));
                    } else if random.random_bool(0.3) {
                        log.append(1, partition, "south", numbered(-1));
                    } else {
                        number += 1;
                        log.append(
                            1,
                            partition,
                            "north",
                            numbered(number * 10 + i64::from(partition)),
                        );
                        expected
                            .entry(partition)
                            .or_default()
                            .push(number * 10 + i64::from(partition));
                    }
                }
            }
            5..=7 => {
                let node = random.random_range(0..2);
                let partition = random.random_range(0..PARTITIONS);
                let count = random.random_range(1..9);
                nodes[node].feed(1, partition, count).await;
            }
            8 => take(&mut reader, &mut got, &mut cursor, random.random_range(1..6)).await,
            _ => {
                reader.cut();
                let node = random.random_range(0..2);
                let pipe = [300, 2_000, 1 << 16][random.random_range(0..3)];
                reader = connect(&nodes[node], pipe, &mut cursor).await;
            }
        }
    }
    for node in &mut nodes {
        for partition in 0..PARTITIONS {
            node.feed(1, partition, usize::MAX).await;
        }
    }
    let total = expected.values().map(Vec::len).sum::<usize>();
    while got.values().map(Vec::len).sum::<usize>() < total {
        take(&mut reader, &mut got, &mut cursor, 1).await;
    }
    assert_eq!(got, expected, "seed {seed}");
    assert!(settles(&mut reader).await, "something came twice, seed {seed}");
}

async fn connect(node: &Node, pipe_bytes: usize, cursor: &mut Option<String>) -> Reader {
    let principal = node.principal("north", "user/Observation.rs", None);
    let mut reader = node.connect(Some(principal), pipe_bytes).await;
    reader.subscribe(cursor.as_deref()).await;
    let subscribed = reader.until("subscribed").await;
    *cursor = subscribed["cursor"].as_str().map(str::to_owned);
    reader
}

/// Reads some messages, if they come: events are noted, and every cursor that is told is the one to come back with.
async fn take(
    reader: &mut Reader,
    got: &mut BTreeMap<i32, Vec<i64>>,
    cursor: &mut Option<String>,
    count: usize,
) {
    for _ in 0..count {
        let next = tokio::time::timeout(std::time::Duration::from_millis(100), reader.next()).await;
        let Ok(Some(message)) = next else { return };
        assert_ne!(message["type"], "gap", "nothing was deleted");
        assert_ne!(message["type"], "error", "{message}");
        if message["type"] == "event" {
            let number = message["event"]["data"]["n"].as_i64().unwrap();
            got.entry((number % 10) as i32).or_default().push(number);
        }
        if let Some(told) = message["cursor"].as_str() {
            *cursor = Some(told.to_owned());
        }
    }
}

async fn settles(reader: &mut Reader) -> bool {
    let event = async {
        while let Some(message) = reader.next().await {
            if message["type"] == "event" {
                return;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(2), event)
        .await
        .is_err()
}

#[tokio::test(start_paused = true)]
async fn a_reader_cut_at_random_on_two_nodes_ends_with_the_exact_sequence() {
    let (seed, lives) = (
        std::env::var("TIDEWIRE_SEED").ok(),
        std::env::var("TIDEWIRE_LIVES").ok(),
    );
    let seed: u64 = seed.and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let lives: u64 = lives.and_then(|lives| lives.parse().ok()).unwrap_or(150);
    println!("TIDEWIRE_SEED={seed} TIDEWIRE_LIVES={lives}");
    for offset in 0..lives {
        local(life(seed + offset)).await;
    }
}
