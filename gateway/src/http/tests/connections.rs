//! Connections against a real listener on loopback: limits, times, both versions of HTTP, TLS, upgrades.

use std::io::Write as _;
use std::time::Duration;

use http::StatusCode;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::generate_simple_self_signed;
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use super::rig::{ORIGIN, Rig, Unusual};
use crate::http::HttpLimits;
use crate::http::listener::{Tls, TlsError};

/// Longer than any condition here takes; a test that waits so long has failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

fn soon() -> HttpLimits {
    HttpLimits {
        header_timeout: Duration::from_millis(300),
        tls_timeout: Duration::from_millis(300),
        idle_timeout: Duration::from_millis(300),
        ..HttpLimits::default()
    }
}

/// Everything until the peer closes.
pub(super) async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    // A reset is an end, too.
    let _ended = timeout(PATIENCE, stream.read_to_end(&mut bytes))
        .await
        .expect("the connection ends");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads until the text has been seen.
pub(super) async fn until(stream: &mut (impl AsyncRead + Unpin), wanted: &str) -> String {
    let mut text = String::new();
    let reading = async {
        let mut chunk = [0; 1024];
        while !text.contains(wanted) {
            let length = stream.read(&mut chunk).await.expect("readable");
            assert!(length > 0, "ended after {text:?}");
            text.push_str(&String::from_utf8_lossy(chunk.get(..length).expect("in bounds")));
        }
    };
    let in_time = timeout(PATIENCE, reading).await;
    assert!(in_time.is_ok(), "never came: {wanted:?}");
    text
}

#[tokio::test]
async fn connections_that_say_nothing_are_closed() {
    let rig = Rig::new();
    let served = rig.serve(&soon(), None);
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(served.connect().await);
    }
    for mut connection in silent {
        assert_eq!(rest(&mut connection).await, "");
    }
    // Each has given its place back.
    let mut asking = served.connect().await;
    asking
        .write_all(b"GET /v1/streams HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .expect("written");
    assert!(rest(&mut asking).await.starts_with("HTTP/1.1 401 "));
}

#[tokio::test]
async fn a_head_that_never_ends_is_given_up() {
    let rig = Rig::new();
    let served = rig.serve(&soon(), None);
    for begun in [
        "P",
        "PRI * HTTP/2.0\r\n",
        "GET /v1/str",
        "GET / HTTP/1.1\r\nhost: x\r\n",
    ] {
        let mut slow = served.connect().await;
        slow.write_all(begun.as_bytes()).await.expect("written");
        let said = rest(&mut slow).await;
        assert!(!said.contains("200 OK"), "{said}");
    }
}

#[tokio::test]
async fn a_large_head_is_431() {
    let rig = Rig::new();
    let served = rig.serve(
        &HttpLimits {
            head_bytes_max: 8192,
            ..HttpLimits::default()
        },
        None,
    );
    let mut large = served.connect().await;
    let head = format!(
        "GET / HTTP/1.1\r\nhost: x\r\nx-large: {}\r\n\r\n",
        "x".repeat(20_000)
    );
    // The server may answer before it has read everything.
    let _all_or_part = large.write_all(head.as_bytes()).await;
    let said = rest(&mut large).await;
    assert!(said.starts_with("HTTP/1.1 431 "), "{said}");
    assert!(said.contains("\"code\":\"headers_too_large\""), "{said}");
    let mut many = served.connect().await;
    let head = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "x-many: 1\r\n".repeat(100));
    many.write_all(head.as_bytes()).await.expect("written");
    assert!(rest(&mut many).await.starts_with("HTTP/1.1 431 "));
}

#[tokio::test]
async fn what_is_no_http_is_400() {
    let rig = Rig::new();
    let served = rig.serve(&HttpLimits::default(), None);
    for garbage in [
        "\u{16}\u{3}\u{1}\r\n\r\n",
        "nonsense\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
    ] {
        let mut connection = served.connect().await;
        connection.write_all(garbage.as_bytes()).await.expect("written");
        let said = rest(&mut connection).await;
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 400 "), "{said}");
        assert!(
            said.is_empty() || said.contains("\"code\":\"request_malformed\""),
            "{said}"
        );
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let rig = Rig::new();
    let served = rig.serve(
        &HttpLimits {
            connections_max: 1,
            ..HttpLimits::default()
        },
        None,
    );
    let ask = b"GET /v1/streams HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut first = served.connect().await;
    first.write_all(ask).await.expect("written");
    until(&mut first, "unauthenticated").await;
    let mut second = served.connect().await;
    second.write_all(ask).await.expect("written");
    assert!(
        timeout(Duration::from_millis(200), second.read_u8())
            .await
            .is_err(),
        "there is no place yet"
    );
    drop(first);
    until(&mut second, "unauthenticated").await;
}

#[tokio::test]
async fn events_flow_to_server_sent_events() {
    let mut rig = Rig::new();
    rig.complete().await;
    let served = rig.serve(&HttpLimits::default(), None);
    let mut connection = served.connect().await;
    let body = r#"{"where":{"patient":"Patient/1"}}"#;
    let ask = format!(
        "POST /v1/streams/observations HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\naccept: text/event-stream\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        rig.bearer(),
        body.len()
    );
    connection.write_all(ask.as_bytes()).await.expect("written");
    let head = until(&mut connection, "id: ").await;
    for wanted in [
        "HTTP/1.1 200 OK",
        "content-type: text/event-stream",
        "cache-control: no-store",
        "x-accel-buffering: no",
    ] {
        assert!(head.contains(wanted), "{head}");
    }
    rig.observe("2").await;
    rig.observe("1").await;
    let events = until(&mut connection, "\"Observation/o1\"").await;
    assert!(!events.contains("Observation/o0"), "{events}");
    assert_eq!(rig.hub.sessions().await.len(), 1);
    drop(connection);
    let gone = async {
        while !rig.hub.sessions().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, gone)
        .await
        .expect("the session ends with its connection");
}

/// One text message of a server, whose frames are not masked.
async fn message(stream: &mut TcpStream) -> Value {
    let reading = async {
        let opcode = stream.read_u8().await.expect("a frame");
        let length = match stream.read_u8().await.expect("a length") {
            126 => usize::from(stream.read_u16().await.expect("a length")),
            short => usize::from(short),
        };
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await.expect("a payload");
        assert_eq!(opcode, 0x81, "a text frame: {payload:?}");
        serde_json::from_slice(&payload).expect("JSON")
    };
    timeout(PATIENCE, reading).await.expect("a message in time")
}

/// A client's frames are masked; a mask of zeros changes nothing.
async fn say(stream: &mut TcpStream, message: &Value) {
    let payload = message.to_string();
    let mut frame = vec![0x81, 0xfe];
    frame.extend_from_slice(&u16::try_from(payload.len()).expect("short").to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload.as_bytes());
    stream.write_all(&frame).await.expect("written");
}

#[tokio::test]
async fn a_page_authenticates_its_websocket_with_the_first_message() {
    let mut rig = Rig::new();
    rig.complete().await;
    let served = rig.serve(&HttpLimits::default(), None);
    let mut socket = served.connect().await;
    let ask = format!(
        "GET /v1/ws HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: tidewire.v1\r\norigin: {ORIGIN}\r\n\r\n"
    );
    socket.write_all(ask.as_bytes()).await.expect("written");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(
            timeout(PATIENCE, socket.read_u8())
                .await
                .expect("in time")
                .expect("a byte"),
        );
    }
    assert!(
        head.starts_with(b"HTTP/1.1 101 "),
        "{}",
        String::from_utf8_lossy(&head)
    );
    let token = rig.token("north", "user/Observation.rs", "");
    say(&mut socket, &json!({"type": "auth", "token": token})).await;
    for wanted in ["welcome", "authorized"] {
        assert_eq!(message(&mut socket).await["type"], wanted);
    }
    say(
        &mut socket,
        &json!({"type": "subscribe", "id": "1", "stream": "observations"}),
    )
    .await;
    let told = message(&mut socket).await;
    assert_eq!(told["type"], "subscribed", "{told}");
    rig.observe("1").await;
    let told = message(&mut socket).await;
    assert_eq!(
        (&told["type"], &told["event"]["subject"]),
        (&json!("event"), &json!("Observation/o0"))
    );
    // A listener that stops does not take the engine's sessions with it.
    served.stop.cancel();
    rig.observe("1").await;
    assert_eq!(message(&mut socket).await["event"]["subject"], "Observation/o1");
}

#[tokio::test]
async fn a_stopped_listener_lets_open_requests_finish() {
    let mut rig = Rig::new();
    rig.complete().await;
    let mut served = rig.serve(&HttpLimits::default(), None);
    let bearer = rig.bearer();
    let headers = [("authorization", &*bearer), ("accept", "application/json")];
    let now = rig.get("/v1/streams/observations", &headers).await;
    let cursor = now.headers["tidewire-cursor"].to_str().expect("a cursor");
    let mut idle = served.connect().await;
    let mut polling = served.connect().await;
    let ask = format!(
        "GET /v1/streams/observations?after={cursor}&wait=20 HTTP/1.1\r\nhost: x\r\nauthorization: {bearer}\r\n\
         accept: application/json\r\n\r\n"
    );
    polling.write_all(ask.as_bytes()).await.expect("written");
    let mut asked = served.connect().await;
    asked
        .write_all(b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("written");
    until(&mut asked, "not_found").await;
    served.stop.cancel();
    assert_eq!(rest(&mut idle).await, "");
    assert_eq!(rest(&mut asked).await, "");
    rig.observe("1").await;
    let answered = rest(&mut polling).await;
    assert!(
        answered.starts_with("HTTP/1.1 200 OK") && answered.contains("Observation/o0"),
        "{answered}"
    );
    let ended = timeout(PATIENCE, served.task.join_next())
        .await
        .expect("serve ends");
    assert!(ended.is_some_and(|ended| ended.is_ok()));
}

#[tokio::test]
async fn http2_is_spoken_without_tls_and_an_idle_connection_is_closed() {
    let rig = Rig::new();
    let served = rig.serve(&soon(), None);
    let io = TokioIo::new(served.connect().await);
    let (mut client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .expect("a handshake");
    let mut task = JoinSet::new();
    task.spawn(connection);
    let request = http::Request::get(format!("http://{}/v1/streams", served.address));
    let response = client
        .send_request(request.body(Empty::<bytes::Bytes>::new()).expect("a request"))
        .await;
    let response = response.expect("a response");
    assert_eq!(
        (response.status(), response.version()),
        (StatusCode::UNAUTHORIZED, http::Version::HTTP_2)
    );
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("unauthenticated"));
    timeout(PATIENCE, task.join_next())
        .await
        .expect("the idle connection is closed");
}

#[tokio::test]
async fn a_peer_without_room_for_its_answers_is_cut_off_and_holds_its_places_until_then() {
    let mut rig = Rig::with(Unusual {
        principal_max: Some(2),
        ..Unusual::default()
    });
    rig.complete().await;
    let served = rig.serve(
        &HttpLimits {
            write_stall_max: Duration::from_secs(1),
            ..HttpLimits::default()
        },
        None,
    );
    let bearer = rig.bearer();
    let connected = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(0)
        .handshake(TokioIo::new(served.connect().await))
        .await;
    let (mut client, connection) = connected.expect("a handshake");
    let mut task = JoinSet::new();
    task.spawn(connection);
    let mut unread = Vec::new();
    for accept in ["text/event-stream", "application/json"] {
        let request = http::Request::get(format!("http://{}/v1/streams/observations", served.address))
            .header("authorization", &bearer)
            .header("accept", accept)
            .body(Empty::<bytes::Bytes>::new());
        let response = client.send_request(request.expect("a request")).await;
        let response = response.expect("a response");
        assert_eq!(response.status(), StatusCode::OK, "{accept}");
        unread.push(response);
    }
    rig.observe("1").await;
    let headers = [("authorization", &*bearer), ("accept", "application/json")];
    let third = rig.get("/v1/streams/observations", &headers).await;
    assert_eq!(third.code(), "principal_connections_exceeded");
    timeout(PATIENCE, task.join_next())
        .await
        .expect("the connection is ended");
    let placed = async {
        while rig.get("/v1/streams/observations", &headers).await.status != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, placed)
        .await
        .expect("the places are given back");
}

pub(super) struct Identity {
    pub(super) tls: Tls,
    pub(super) roots: RootCertStore,
}

pub(super) fn identity() -> Identity {
    let made = generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let folder = tempfile::tempdir().expect("a folder");
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a root");
    Identity {
        tls: Tls::load(&certificate, &key).expect("tls"),
        roots,
    }
}

pub(super) fn connector(roots: RootCertStore, alpn: &[&[u8]]) -> TlsConnector {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    TlsConnector::from(std::sync::Arc::new(config))
}

#[tokio::test]
async fn tls_offers_http2_and_http1() {
    let rig = Rig::new();
    let Identity { tls, roots } = identity();
    let served = rig.serve(&HttpLimits::default(), Some(tls));
    let name = || ServerName::try_from("localhost").expect("a name");
    let h2 = connector(roots.clone(), &[b"h2", b"http/1.1"]);
    let stream = h2
        .connect(name(), served.connect().await)
        .await
        .expect("a handshake");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut h1 = connector(roots, &[])
        .connect(name(), served.connect().await)
        .await
        .expect("a handshake");
    h1.write_all(b"GET /v1/streams HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .await
        .expect("written");
    assert!(rest(&mut h1).await.starts_with("HTTP/1.1 401 "));
}

#[tokio::test]
async fn a_websocket_works_under_tls() {
    let rig = Rig::new();
    rig.complete().await;
    let Identity { tls, roots } = identity();
    let served = rig.serve(&HttpLimits::default(), Some(tls));
    let name = ServerName::try_from("localhost").expect("a name");
    let mut socket = connector(roots, &[])
        .connect(name, served.connect().await)
        .await
        .expect("a handshake");
    let ask = format!(
        "GET /v1/ws HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: tidewire.v1\r\nauthorization: {}\r\n\r\n",
        rig.bearer()
    );
    socket.write_all(ask.as_bytes()).await.expect("written");
    let told = until(&mut socket, "\"authorized\"").await;
    assert!(
        told.contains("HTTP/1.1 101 ") && told.contains("\"welcome\""),
        "{told}"
    );
}

#[tokio::test]
async fn a_tls_handshake_that_never_ends_is_given_up() {
    let rig = Rig::new();
    let served = rig.serve(&soon(), Some(identity().tls));
    let mut silent = served.connect().await;
    assert_eq!(rest(&mut silent).await, "");
    let mut plain = served.connect().await;
    plain
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("written");
    assert!(!rest(&mut plain).await.contains("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_handshake_that_says_nothing_holds_no_drain_up() {
    let rig = Rig::new();
    let patient = HttpLimits {
        tls_timeout: Duration::from_secs(600),
        ..HttpLimits::default()
    };
    let mut served = rig.serve(&patient, Some(identity().tls));
    let mut silent = served.connect().await;
    served.stop.cancel();
    timeout(PATIENCE, served.task.join_next())
        .await
        .expect("the listener ends");
    assert_eq!(rest(&mut silent).await, "");
}

#[test]
fn bad_certificates_are_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    assert!(matches!(
        Tls::load(&certificate, &key),
        Err(TlsError::File { .. })
    ));
    std::fs::write(&certificate, "").expect("written");
    assert!(matches!(
        Tls::load(&certificate, &key),
        Err(TlsError::NoCertificate { .. })
    ));
    let made = generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let other = generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    std::fs::write(&certificate, made.cert.pem()).expect("written");
    let mut file = std::fs::File::create(&key).expect("a file");
    file.write_all(other.signing_key.serialize_pem().as_bytes())
        .expect("written");
    assert!(matches!(
        Tls::load(&certificate, &key),
        Err(TlsError::Mismatch(_))
    ));
}
