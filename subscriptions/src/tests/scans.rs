//! Replays that find nothing: ended at their bounds, with a cursor that brings whoever comes again further.

use std::time::Duration;

use auth::dev::DevelopmentIssuer;

use super::rig::{Log, Node, local, numbered};
use crate::hub::{After, HubConfig};
use crate::scans::WINDOW;

const PAGES: i64 = 10;
/// What the rig says that a page is, and how many events it has.
const PAGE_BYTES: u64 = 100;
const PAGE_EVENTS: i64 = 7;

fn limits(reader_pages: u64, tenant_pages: u64) -> HubConfig {
    HubConfig {
        ring_bytes_max: 1,
        scan_bytes_max: reader_pages * PAGE_BYTES,
        tenant_scan_bytes_max: tenant_pages * PAGE_BYTES,
        ..HubConfig::default()
    }
}

/// A node over some pages of another tenant's events, and one event for `north` after them.
async fn haystack(config: HubConfig) -> Node {
    let issuer = DevelopmentIssuer::ephemeral().unwrap();
    let mut node = Node::start(&Log::new(), config, &issuer, &[0]).await;
    for n in 0..PAGES * PAGE_EVENTS {
        node.publish(0, "south", numbered(n)).await;
    }
    node.publish(0, "north", numbered(-1)).await;
    node.publish(0, "south", numbered(-2)).await;
    node
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_finds_nothing_is_ended_and_whoever_comes_again_gets_further() {
    local(async {
        let node = haystack(limits(3, 1000)).await;
        let (mut after, mut limited) = (After::Earliest, 0);
        let found = loop {
            let page = node
                .pull("north", after, 100, Duration::ZERO)
                .await
                .expect("a page");
            if !page.limited {
                break page.events.len();
            }
            assert!(page.events.is_empty());
            limited += 1;
            assert!(limited < PAGES, "it does not get further");
            after = node.after("north", &page.next);
        };
        assert_eq!(found, 1);
        assert_eq!(limited, 2, "four pages, four pages, and the rest");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_session_is_told_the_cursor_before_its_limited_replay_ends() {
    local(async {
        let node = haystack(limits(3, 1000)).await;
        let mut reader = node
            .connect(
                Some(node.principal("north", "user/Observation.rs", None)),
                1 << 20,
            )
            .await;
        reader.subscribe(Some("earliest")).await;
        let begun = reader.until("subscribed").await["cursor"].clone();
        let cursor = reader.until("cursor").await["cursor"].clone();
        assert_ne!(begun, cursor);
        assert_eq!(reader.until("error").await["code"], "replay_limited");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_tenants_replays_that_find_nothing_share_a_bound_and_others_do_not_feel_it() {
    local(async {
        let node = haystack(limits(1000, 15)).await;
        let limited = async |tenant: &str| {
            node.pull(tenant, After::Earliest, 1000, Duration::ZERO)
                .await
                .expect("a page")
                .limited
        };
        assert!(!limited("north").await, "ten pages in vain");
        assert!(limited("north").await, "and ten again");
        assert!(
            !limited("south").await,
            "another tenant, which finds what it reads"
        );
        tokio::time::sleep(WINDOW).await;
        assert!(!limited("north").await, "a minute later");
    })
    .await;
}
