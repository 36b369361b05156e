//! What operators know of readers, and what becomes of their sessions when they know more. Under paused time.

use std::sync::Arc;
use std::time::Duration;

use auth::control::{Change, Denial, Entry, EntryId, EntryKind, Revocation};
use auth::dev::DevelopmentIssuer;
use auth::token::Principal;
use schemas::ids::{AttributeName, TenantId};
use schemas::problem::Code;
use serde_json::{Value, json};

use super::rig::{Log, NOW_MS, Node, local, node, numbered};
use crate::hub::{After, GraphqlFraming, GraphqlSubscribe, HubConfig, Protocol};

fn id(text: &str) -> EntryId {
    EntryId::parse(text).expect("an id")
}

pub(super) fn revocation(subject: &str) -> Change {
    let revocation = Revocation {
        subject: Some(Arc::from(subject)),
        ..Revocation::new(NOW_MS + 3_600_000)
    };
    Change::Put(id("ab"), Entry::Revocation(revocation))
}

fn denial(patient: &str) -> Change {
    let north = TenantId::parse("north").unwrap();
    let attribute = AttributeName::parse("patient").unwrap();
    Change::Put(id("cd"), Entry::Denial(Denial::new(north, attribute, patient)))
}

fn other(node: &Node) -> Arc<Principal> {
    let mut principal = node.principal("north", "user/Observation.rs", None);
    Arc::make_mut(&mut principal).subject = Arc::from("another");
    principal
}

fn of(patient: &str, n: i64) -> Value {
    let mut value = numbered(n);
    value["patient"] = json!(patient);
    value
}

#[tokio::test(start_paused = true)]
async fn a_revoked_session_is_told_so_and_ended_and_the_others_feel_nothing() {
    local(async {
        let mut node = node().await;
        let mut revoked = node.subscribe("north", None).await;
        let mut stays = node.connect(Some(other(&node)), 1 << 20).await;
        stays.subscribe(None).await;
        stays.until("subscribed").await;
        node.publish(0, "north", numbered(1)).await;
        assert_eq!(revoked.event().await.0, 1);
        node.control.apply([revocation("reader")]);
        node.publish(0, "north", numbered(2)).await;
        let last = revoked.read_to_end().await;
        assert_eq!(last.len(), 1, "{last:?}");
        assert_eq!(last[0]["code"], "token_revoked");
        assert_eq!(revoked.close, Some(4202));
        node.publish(0, "north", numbered(3)).await;
        assert_eq!(stays.events(3).await.0, [1, 2, 3]);
        revoked.cut();
        node.settle().await;
        assert_eq!(node.sessions().await, 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_was_queued_for_somebody_who_is_revoked_is_never_sent() {
    local(async {
        let mut node = node().await;
        // The pipe takes little: most of what follows waits for the reader.
        let principal = node.principal("north", "user/Observation.rs", None);
        let mut slow = node.connect(Some(principal), 512).await;
        slow.subscribe(None).await;
        slow.until("subscribed").await;
        for n in 0..20 {
            node.publish(0, "north", numbered(n)).await;
        }
        node.control.apply([revocation("reader")]);
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert_eq!(node.sessions().await, 0, "it is cut off, not waited for");
        let got = slow.read_to_end().await;
        let events = got.iter().filter(|message| message["type"] == "event").count();
        // What the pipe had taken before.
        assert!(events <= 1, "{events} events");
        assert_eq!(slow.close, None);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_older_is_not_replayed_to_somebody_who_is_revoked() {
    local(async {
        let log = Log::new();
        for n in 0..200 {
            log.append(1, 0, "north", numbered(n));
        }
        let issuer = DevelopmentIssuer::ephemeral().unwrap();
        let node = Node::start(&log, HubConfig::default(), &issuer, &[0]).await;
        let principal = node.principal("north", "user/Observation.rs", None);
        let mut reader = node.connect(Some(principal), 4096).await;
        reader.subscribe(Some("earliest")).await;
        reader.event().await;
        node.control.apply([revocation("reader")]);
        node.settle().await;
        let rest = reader.read_to_end().await;
        let events = rest.iter().filter(|message| message["type"] == "event").count();
        assert!(events < 20, "{events} events");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_event_stream_ends_with_the_problem() {
    local(async {
        let mut node = node().await;
        let mut body = node.sse("north", After::Latest).await;
        node.publish(0, "north", numbered(1)).await;
        let mut text = Vec::new();
        while !String::from_utf8_lossy(&text).contains("data: ") {
            text.extend_from_slice(&body.recv().await.expect("the event"));
        }
        node.control.apply([revocation("reader")]);
        node.publish(0, "north", numbered(2)).await;
        while let Some(chunk) = body.recv().await {
            text.extend_from_slice(&chunk);
        }
        let text = String::from_utf8(text).unwrap();
        assert!(
            text.contains("event: problem\n") && text.contains("token_revoked"),
            "{text}"
        );
        assert!(!text.contains(r#""n":2"#) && !body.is_cut());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_being_taken_goes_out_before_the_reader_is_told() {
    local(async {
        let mut node = node().await;
        let mut body = node.sse("north", After::Latest).await;
        node.publish(0, "north", numbered(1)).await;
        node.control.apply([revocation("reader")]);
        node.publish(0, "north", numbered(2)).await;
        let mut text = Vec::new();
        while let Some(chunk) = body.recv().await {
            text.extend_from_slice(&chunk);
        }
        let text = String::from_utf8(text).unwrap();
        assert!(
            text.contains(r#""n":1"#) && text.contains("token_revoked"),
            "{text}"
        );
        assert!(!text.contains(r#""n":2"#) && !body.is_cut());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_behind_is_cut_with_what_waits_in_it() {
    local(async {
        let mut node = node().await;
        let mut body = node.sse("north", After::Latest).await;
        for n in 0..10 {
            node.publish(0, "north", numbered(n)).await;
        }
        node.control.apply([revocation("reader")]);
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert!(body.recv().await.is_none() && body.is_cut());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn graphql_sessions_end_by_their_own_words() {
    const ALL: &str = "subscription { observations { data { n } } }";
    local(async {
        let mut node = node().await;
        let principal = node.principal("north", "user/Observation.rs", None);
        let mut socket = node
            .connect_as(Protocol::GraphqlTransportWs, Some(principal), 1 << 20)
            .await;
        socket.init().await;
        socket.operate("a", ALL, None).await;
        socket.until("ping").await;
        let subscribe = || GraphqlSubscribe {
            id: String::new(),
            bound: node.bound(ALL, None),
        };
        let mut bodies = Vec::new();
        for framing in [
            GraphqlFraming::SseDistinct,
            GraphqlFraming::Multipart,
            GraphqlFraming::Lines,
        ] {
            let (_, _, mut body) = node.graphql(framing, Some(subscribe())).await.unwrap();
            while tokio::time::timeout(Duration::from_millis(1), body.recv())
                .await
                .is_ok()
            {}
            bodies.push((framing, body));
        }
        node.control.apply([revocation("reader")]);
        node.publish(0, "north", numbered(1)).await;
        let said = socket.read_to_end().await;
        assert!(said.iter().all(|message| message["type"] != "next"), "{said:?}");
        assert_eq!(socket.close, Some(4403));
        for (framing, mut body) in bodies {
            let mut text = Vec::new();
            while let Some(chunk) = body.recv().await {
                text.extend_from_slice(&chunk);
            }
            let text = String::from_utf8(text).unwrap();
            assert!(text.contains("token_revoked"), "{framing:?}: {text}");
            assert!(!text.contains(r#""n":1"#), "{framing:?}: {text}");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_page_is_refused() {
    local(async {
        let node = node().await;
        let waits = node.pull("north", After::Latest, 10, Duration::from_secs(30));
        let revokes = async {
            node.settle().await;
            node.control.apply([revocation("reader")]);
            node.log.append(1, 0, "north", numbered(1));
            node.feed_all(1, 0).await;
        };
        let (page, ()) = tokio::join!(waits, revokes);
        assert_eq!(page.expect_err("refused").code, Code::TOKEN_REVOKED);
        let again = node.pull("north", After::Earliest, 10, Duration::ZERO).await;
        assert_eq!(again.expect_err("refused").code, Code::TOKEN_REVOKED);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_revoked_token_neither_opens_nor_renews_a_session() {
    local(async {
        let node = node().await;
        let token = node.token(
            "north",
            "a",
            "user/Observation.rs",
            None,
            Duration::from_secs(600),
        );
        let mut open = node.connect(None, 1 << 20).await;
        open.say(json!({"type": "auth", "token": token})).await;
        open.until("authorized").await;
        let by_token = Revocation {
            subject: Some(Arc::from("a")),
            tenant: TenantId::parse("north").ok(),
            ..Revocation::new(NOW_MS - 60_000)
        };
        // Of before the session's token: it goes on.
        node.control
            .apply([Change::Put(id("ab"), Entry::Revocation(by_token.clone()))]);
        node.settle().await;
        assert_eq!(node.sessions().await, 1);
        let now = Revocation {
            issued_until_ms: NOW_MS + 3_600_000,
            ..by_token
        };
        node.control
            .apply([Change::Put(id("ab"), Entry::Revocation(now))]);
        open.read_to_end().await;
        assert_eq!(open.close, Some(4202));
        let mut again = node.connect(None, 1 << 20).await;
        again.say(json!({"type": "auth", "token": token})).await;
        let said = again.read_to_end().await;
        assert_eq!(said.last().unwrap()["code"], "token_revoked");
        assert_eq!(again.close, Some(4202));
        // One that the server let in just before, too.
        let mut late = node.connect(Some(other(&node)), 1 << 20).await;
        late.until("authorized").await;
        node.control.apply([revocation("another")]);
        let mut later = node.connect(Some(other(&node)), 1 << 20).await;
        for reader in [&mut late, &mut later] {
            reader.read_to_end().await;
            assert_eq!(reader.close, Some(4202));
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn rows_whose_consent_was_withdrawn_are_left_out_from_then_on_and_nothing_else_is() {
    local(async {
        let mut node = node().await;
        let mut reader = node.subscribe("north", None).await;
        node.publish(0, "north", of("Patient/1", 1)).await;
        node.publish(0, "north", of("Patient/2", 2)).await;
        let (numbers, cursor) = reader.events(2).await;
        assert_eq!(numbers, [1, 2]);
        node.control.apply([denial("Patient/1")]);
        for n in 3..9 {
            node.publish(
                0,
                "north",
                of(if n % 2 == 0 { "Patient/2" } else { "Patient/1" }, n),
            )
            .await;
        }
        assert_eq!(reader.events(3).await.0, [4, 6, 8]);
        // On a replay and on a page, too.
        let mut back = node.subscribe("north", Some(&cursor)).await;
        assert_eq!(back.events(3).await.0, [4, 6, 8]);
        let after = node.after("north", &cursor);
        let page = node.pull("north", after, 10, Duration::ZERO).await.unwrap();
        assert_eq!(page.events.len(), 3);
        // Taken back, it holds for what comes, without a new session; what was left out is there for whoever asks again.
        node.control.apply([Change::Remove(EntryKind::Denial, id("cd"))]);
        node.settle().await;
        node.publish(0, "north", of("Patient/1", 9)).await;
        assert_eq!(reader.event().await.0, 9);
        let mut whole = node.subscribe("north", Some(&cursor)).await;
        assert_eq!(whole.events(7).await.0, (3..=9).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_under_the_wider_grant_is_not_sent_when_consent_is_withdrawn() {
    local(async {
        let mut node = node().await;
        let principal = node.principal("north", "user/Observation.rs", None);
        let mut slow = node.connect(Some(principal), 512).await;
        slow.subscribe(None).await;
        slow.until("subscribed").await;
        for n in 0..20 {
            node.publish(
                0,
                "north",
                of(if n % 2 == 0 { "Patient/2" } else { "Patient/1" }, n),
            )
            .await;
        }
        node.control.apply([denial("Patient/1")]);
        node.settle().await;
        node.publish(0, "north", of("Patient/2", 20)).await;
        let mut got = Vec::new();
        while got.last() != Some(&20) {
            got.push(slow.event().await.0);
        }
        // At most the frame that had begun before.
        let denied: Vec<i64> = got.iter().copied().filter(|n| n % 2 == 1).collect();
        assert!(denied.len() <= 1 && denied.iter().all(|n| *n < 3), "{got:?}");
        got.retain(|n| n % 2 == 0);
        assert_eq!(got, (0..=20).step_by(2).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_page_that_is_waited_for_is_read_again_under_the_narrower_grant() {
    local(async {
        let node = node().await;
        let waits = node.pull("north", After::Latest, 10, Duration::from_secs(30));
        let denies = async {
            node.settle().await;
            node.control.apply([denial("Patient/1")]);
            node.log.append(1, 0, "north", of("Patient/1", 1));
            node.log.append(1, 0, "north", of("Patient/2", 2));
            node.feed_all(1, 0).await;
        };
        let (page, ()) = tokio::join!(waits, denies);
        let events = page.expect("a page").events;
        assert_eq!(events.len(), 1);
        assert!(String::from_utf8_lossy(&events[0]).contains(r#""n":2"#));
    })
    .await;
}
