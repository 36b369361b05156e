//! Event streams over HTTP/1.1: the connection leaves the HTTP server with them.

use std::time::Duration;

use auth::quota::{Limits, Quotas};
use bytes::Bytes;
use futures_util::future::join_all;
use rustls_pki_types::ServerName;
use subscriptions::hub::{Protocol, Transport, WebSocket};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::connections::{Identity, PATIENCE, connector, identity, rest, until};
use super::rig::Rig;
use crate::http::HttpLimits;

async fn ask(connection: &mut (impl AsyncRead + AsyncWrite + Unpin), rig: &Rig, version: &str) -> String {
    let request = format!(
        "GET /v1/streams/observations HTTP/{version}\r\nhost: x\r\nauthorization: {}\r\n\
         accept: text/event-stream\r\n\r\n",
        rig.bearer()
    );
    connection.write_all(request.as_bytes()).await.expect("written");
    until(connection, "id: ").await
}

#[tokio::test]
async fn an_event_stream_gives_its_place_back_and_ends_with_its_body() {
    let mut rig = Rig::new();
    rig.complete().await;
    let limits = HttpLimits {
        connections_max: 1,
        ..HttpLimits::default()
    };
    let served = rig.serve(&limits, None);
    let mut readers = Vec::new();
    for _ in 0..5 {
        let mut connection = served.connect().await;
        let head = ask(&mut connection, &rig, "1.1").await;
        for wanted in ["connection: close\r\n", "transfer-encoding: chunked\r\n"] {
            assert!(head.contains(wanted), "{head}");
        }
        readers.push(connection);
    }
    rig.observe("1").await;
    for reader in &mut readers {
        until(reader, "\"Observation/o0\"").await;
    }
    // The place is free: another request is answered while all of them are open.
    let mut other = served.connect().await;
    other
        .write_all(b"GET /v1/streams HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("written");
    until(&mut other, "unauthenticated").await;
    assert_eq!(rig.hub.sessions().await.len(), 5);
    // The client's end is waited for, so that its last words are not destroyed.
    let drained = rig.hub.drain(Duration::ZERO);
    let read = async {
        for mut reader in readers {
            let farewell = rest(&mut reader).await;
            assert!(farewell.contains("event: bye\n"), "{farewell}");
            assert!(farewell.ends_with("\r\n0\r\n\r\n"), "{farewell}");
        }
    };
    let both = async { tokio::join!(drained, read) };
    timeout(PATIENCE, both).await.expect("all are told, and end");
}

#[tokio::test]
async fn an_older_client_reads_events_to_the_end_of_the_connection() {
    let mut rig = Rig::new();
    rig.complete().await;
    let served = rig.serve(&HttpLimits::default(), None);
    let mut connection = served.connect().await;
    let head = ask(&mut connection, &rig, "1.0").await;
    assert!(
        head.starts_with("HTTP/1.0 200 ") && !head.contains("chunked"),
        "{head}"
    );
    rig.observe("1").await;
    let events = until(&mut connection, "\"Observation/o0\"").await;
    assert!(
        events.contains("\nid: ") || events.starts_with("id: "),
        "{events}"
    );
}

#[tokio::test]
async fn an_event_stream_leaves_under_tls_too() {
    let mut rig = Rig::new();
    rig.complete().await;
    let Identity { tls, roots } = identity();
    let limits = HttpLimits {
        connections_max: 1,
        ..HttpLimits::default()
    };
    let served = rig.serve(&limits, Some(tls));
    let mut readers = Vec::new();
    for _ in 0..3 {
        let name = ServerName::try_from("localhost").expect("a name");
        let connector = connector(roots.clone(), &[]);
        let mut connection = connector
            .connect(name, served.connect().await)
            .await
            .expect("a handshake");
        ask(&mut connection, &rig, "1.1").await;
        readers.push(connection);
    }
    rig.observe("1").await;
    for reader in &mut readers {
        until(reader, "\"Observation/o0\"").await;
    }
    drop(readers);
    let gone = async {
        while !rig.hub.sessions().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, gone)
        .await
        .expect("sessions end with their connections");
}

#[tokio::test]
async fn what_was_asked_before_on_the_connection_is_answered_and_what_comes_behind_is_not() {
    let mut rig = Rig::new();
    rig.complete().await;
    let served = rig.serve(&HttpLimits::default(), None);
    let mut connection = served.connect().await;
    let bearer = rig.bearer();
    let body = "{\"where\":{\"patient\":\"Patient/1\"}}";
    // In one piece: a page, an event stream by POST that is told to go on, and a request that nobody will answer.
    let all = format!(
        "GET /v1/streams HTTP/1.1\r\nhost: x\r\nauthorization: {bearer}\r\n\r\n\
         POST /v1/streams/observations HTTP/1.1\r\nhost: x\r\nauthorization: {bearer}\r\naccept: text/event-stream\r\n\
         content-type: application/json\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n{body}\
         GET /v1/nothing HTTP/1.1\r\nhost: x\r\n\r\n",
        body.len()
    );
    connection.write_all(all.as_bytes()).await.expect("written");
    let head = until(&mut connection, "id: ").await;
    let (page, stream) = head
        .split_once("HTTP/1.1 200 OK")
        .and_then(|(_, rest)| rest.split_once("HTTP/1.1 "))
        .expect("two answers");
    assert!(page.contains("\"observations\""), "{page}");
    assert!(stream.contains("text/event-stream"), "{stream}");
    rig.observe("2").await;
    rig.observe("1").await;
    let events = until(&mut connection, "\"Observation/o1\"").await;
    assert!(
        !events.contains("Observation/o0") && !events.contains("not_found"),
        "{events}"
    );
    let ((), farewell) = tokio::join!(rig.hub.drain(Duration::ZERO), async {
        let farewell = rest(&mut connection).await;
        drop(connection);
        farewell
    });
    assert!(
        farewell.ends_with("\r\n0\r\n\r\n") && !farewell.contains("not_found"),
        "{farewell}"
    );
}

#[tokio::test]
async fn a_crowd_that_comes_at_once_is_taken_over_to_the_last() {
    const CROWD: usize = 1500;
    let rig = Rig::new();
    let quotas = Quotas::new(Limits::default());
    let mut clients = Vec::new();
    let open = (0..CROWD).map(|_| {
        let (client, ours) = tokio::io::duplex(1 << 10);
        clients.push(client);
        rig.hub.open_websocket(WebSocket {
            transport: Transport::Other {
                io: Box::new(ours),
                read_ahead: Bytes::new(),
            },
            protocol: Protocol::GraphqlTransportWs,
            principal: None,
            restriction: None,
            permit: quotas.admit_unknown().expect("there is room"),
        })
    });
    timeout(PATIENCE, join_all(open)).await.expect("taken");
    assert_eq!(rig.hub.sessions().await.len(), CROWD);
}
