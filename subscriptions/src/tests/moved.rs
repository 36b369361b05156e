//! Bodies that move from the HTTP server to their connection, under way.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use schemas::problem::Code;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::control::revocation;
use super::rig::{local, node, node_with, numbered};
use crate::hub::{After, Body, GraphqlFraming, GraphqlSubscribe, HubConfig, Transport};
use crate::outlet::Home;

/// Smaller than an event: what is written goes out in pieces.
const PIPE_BYTES: usize = 64;

/// Leaves the body to its connection; gives the client's end, and something that is held.
pub(super) async fn left(body: Body, pipe_bytes: usize) -> (DuplexStream, std::sync::Weak<()>) {
    let (ours, theirs) = tokio::io::duplex(pipe_bytes);
    let held = Arc::new(());
    let holds = Arc::downgrade(&held);
    let transport = Transport::Other {
        io: Box::new(theirs),
        read_ahead: Bytes::new(),
    };
    body.move_to(transport, Box::new(held)).await;
    (ours, holds)
}

/// What the HTTP server takes out of a body while there is something.
async fn taken(body: &mut Body) -> String {
    let mut text = Vec::new();
    while let Ok(Some(chunk)) = tokio::time::timeout(Duration::from_millis(5), body.recv()).await {
        text.extend_from_slice(&chunk);
    }
    String::from_utf8(text).unwrap()
}

/// The content of whole chunks, and whether the last one came. Panics where the bytes are not chunks.
fn content(mut bytes: &[u8]) -> (String, bool) {
    let mut text = Vec::new();
    loop {
        let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else {
            assert!(bytes.len() < 18, "no head is so long");
            return (String::from_utf8(text).unwrap(), false);
        };
        let digits = std::str::from_utf8(&bytes[..end]).unwrap();
        let length = usize::from_str_radix(digits, 16).unwrap();
        let rest = &bytes[end + 2..];
        if rest.len() < length + 2 {
            return (String::from_utf8(text).unwrap(), false);
        }
        assert_eq!(&rest[length..length + 2], b"\r\n");
        text.extend_from_slice(&rest[..length]);
        bytes = &rest[length + 2..];
        if length == 0 {
            assert!(bytes.is_empty(), "nothing comes behind the end");
            return (String::from_utf8(text).unwrap(), true);
        }
    }
}

/// Reads until this text has come.
async fn until(client: &mut DuplexStream, bytes: &mut Vec<u8>, wanted: &str) {
    let reading = async {
        while !content(bytes).0.contains(wanted) {
            assert!(client.read_buf(bytes).await.unwrap() > 0, "{wanted} did not come");
        }
    };
    let patience = Duration::from_secs(60);
    tokio::time::timeout(patience, reading)
        .await
        .unwrap_or_else(|_| panic!("{wanted} did not come"));
}

fn numbers(text: &str) -> Vec<i64> {
    text.split(r#""n":"#)
        .skip(1)
        .map(|rest| rest.split(',').next().unwrap().parse().unwrap())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_or_repeated_while_a_body_moves() {
    local(async {
        // Before it moves: nothing waits, something waits in the body, more waits than the body holds.
        for waiting in [0, 1, 2, 50] {
            let mut node = node().await;
            let mut body = node.sse("north", After::Latest).await;
            node.publish(0, "north", numbered(0)).await;
            let mut seen = taken(&mut body).await;
            for n in 1..=waiting {
                node.publish(0, "north", numbered(n)).await;
                node.settle().await;
            }
            let (mut client, _) = left(body, PIPE_BYTES).await;
            for n in waiting + 1..=waiting + 20 {
                node.publish(0, "north", numbered(n)).await;
            }
            let mut bytes = Vec::new();
            until(&mut client, &mut bytes, &format!(r#""n":{},"#, waiting + 20)).await;
            seen.push_str(&content(&bytes).0);
            let expected: Vec<i64> = (0..=waiting + 20).collect();
            assert_eq!(numbers(&seen), expected, "{waiting} waited");
            assert_eq!(node.sessions().await, 1);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_moved_body_is_ended_by_the_last_chunk() {
    local(async {
        let mut node = node().await;
        let body = node.sse("north", After::Latest).await;
        let (mut client, held) = left(body, PIPE_BYTES).await;
        node.publish(0, "north", numbered(1)).await;
        let mut bytes = Vec::new();
        until(&mut client, &mut bytes, r#""n":1,"#).await;
        let drained = node.drain().await;
        client.read_to_end(&mut bytes).await.unwrap();
        drop(client);
        drained.await.unwrap();
        let (text, is_whole) = content(&bytes);
        assert!(is_whole && text.contains("event: bye\n"), "{text}");
        assert_eq!(held.strong_count(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ended_while_its_body_moved_has_its_last_word() {
    local(async {
        // With room in the body it is over at once; without, it waits for room until it may not wait any longer.
        for waiting in [0, 50] {
            let mut node = node().await;
            let mut body = node.sse("north", After::Latest).await;
            let mut seen = taken(&mut body).await;
            for n in 0..waiting {
                node.publish(0, "north", numbered(n)).await;
                node.settle().await;
            }
            let mut drained = node.drain().await;
            node.settle().await;
            assert_eq!(node.sessions().await, usize::from(waiting > 0));
            let (mut client, held) = left(body, PIPE_BYTES).await;
            let mut bytes = Vec::new();
            client.read_to_end(&mut bytes).await.unwrap();
            if waiting > 0 {
                assert!(drained.try_recv().is_err(), "it ends when the client does");
            }
            drop(client);
            let (text, is_whole) = content(&bytes);
            assert!(is_whole && text.ends_with("}\n\n"), "{text}");
            assert!(text.contains("event: bye\n"), "{text}");
            seen.push_str(&text);
            // What a full body had no room for is for the next session.
            let expected: Vec<i64> = (0..).take(numbers(&seen).len()).collect();
            assert_eq!(numbers(&seen), expected);
            node.settle().await;
            assert_eq!(held.strong_count(), 0);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_connection_is_the_end_of_its_session() {
    local(async {
        let node = node().await;
        let body = node.sse("north", After::Latest).await;
        let (client, held) = left(body, 1 << 20).await;
        node.settle().await;
        assert_eq!((node.sessions().await, held.strong_count()), (1, 1));
        drop(client);
        node.settle().await;
        assert_eq!((node.sessions().await, held.strong_count()), (0, 0));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_a_client_says_behind_its_request_is_said_to_nobody() {
    local(async {
        let mut node = node().await;
        let body = node.sse("north", After::Latest).await;
        let (mut client, _) = left(body, 1 << 20).await;
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        node.publish(0, "north", numbered(1)).await;
        let mut bytes = Vec::new();
        until(&mut client, &mut bytes, r#""n":1,"#).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_was_cut_never_looks_whole() {
    local(async {
        // Cut while the HTTP server had it.
        let mut node = node().await;
        let body = node.sse("north", After::Latest).await;
        for n in 0..10 {
            node.publish(0, "north", numbered(n)).await;
        }
        node.control.apply([revocation("reader")]);
        tokio::time::sleep(Duration::from_millis(150)).await;
        let (mut client, held) = left(body, 1 << 20).await;
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).await.unwrap();
        assert!(bytes.is_empty(), "{}", String::from_utf8_lossy(&bytes));
        assert_eq!(held.strong_count(), 0);
    })
    .await;
    local(async {
        // Cut on its connection, which takes too little.
        let mut node = node().await;
        let body = node.sse("north", After::Latest).await;
        let (mut client, _) = left(body, PIPE_BYTES).await;
        for n in 0..10 {
            node.publish(0, "north", numbered(n)).await;
        }
        node.control.apply([revocation("reader")]);
        tokio::time::sleep(Duration::from_millis(150)).await;
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).await.unwrap();
        let (text, is_whole) = content(&bytes);
        assert!(!is_whole && numbers(&text).is_empty(), "{text}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_of_a_moved_body_is_told_and_closed() {
    local(async {
        let config = HubConfig {
            session_lag_bytes_max: 4 << 10,
            ..HubConfig::default()
        };
        let mut node = node_with(config).await;
        let body = node.sse("north", After::Latest).await;
        let (mut client, _) = left(body, PIPE_BYTES).await;
        for n in 0..300 {
            node.publish(0, "north", numbered(n)).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).await.unwrap();
        let (text, is_whole) = content(&bytes);
        assert!(is_whole && text.contains(Code::SLOW_READER.name), "{text}");
        let expected: Vec<i64> = (0..).take(numbers(&text).len()).collect();
        assert_eq!(numbers(&text), expected);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn bodies_of_graphql_move_too() {
    const ALL: &str = "subscription { observations { data { n } } }";
    local(async {
        for (framing, end) in [
            (GraphqlFraming::SseDistinct, "event: complete"),
            (GraphqlFraming::Multipart, "--graphql--"),
        ] {
            let mut node = node().await;
            let first = GraphqlSubscribe {
                id: String::new(),
                bound: node.bound(ALL, None),
            };
            let (place, serial, body) = node.graphql(framing, Some(first)).await.unwrap();
            let body = body.of(Home {
                worker: node.worker(),
                place,
                serial,
            });
            let (mut client, _) = left(body, PIPE_BYTES).await;
            for n in 0..5 {
                node.publish(0, "north", numbered(n)).await;
            }
            let mut bytes = Vec::new();
            until(&mut client, &mut bytes, r#""n":4"#).await;
            node.control.apply([revocation("reader")]);
            client.read_to_end(&mut bytes).await.unwrap();
            let (text, is_whole) = content(&bytes);
            assert!(is_whole, "{framing:?}: {text}");
            assert!(text.contains(end), "{framing:?}: {text}");
        }
    })
    .await;
}
