use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use reqwest::Method;
use reqwest::header::HeaderMap;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

const BOUNDS: Bounds = Bounds {
    deadline: Duration::from_secs(5),
    body_bytes_max: 1000,
};
const LOOPBACK: Reach = Reach {
    loopback: true,
    private: false,
    plain: false,
};

fn url(text: &str) -> Url {
    Url::parse(text).expect("a URL")
}

#[test]
fn urls_are_checked_before_anything_is_resolved() {
    let refused = |reach: Reach, text: &str| reach.check(&url(text)).is_err();
    for text in [
        "http://id.example/",
        "ftp://id.example/",
        "file:///etc/passwd",
        "https://user@id.example/",
        "https://user:secret@id.example/",
        "https://127.0.0.1/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://169.254.169.254/latest/meta-data",
        "http://127.0.0.1/",
        "http://localhost/",
    ] {
        assert!(refused(Reach::default(), text), "{text}");
    }
    assert!(!refused(Reach::default(), "https://id.example/jwks?x=1"));
    for text in [
        "http://127.0.0.1:1/",
        "http://localhost/",
        "http://[::1]/",
        "https://localhost/",
    ] {
        assert!(!refused(LOOPBACK, text), "{text}");
    }
    assert!(refused(LOOPBACK, "http://localhost.example/"));
    let private = Reach {
        private: true,
        ..Reach::default()
    };
    assert!(refused(private, "http://10.0.0.1/"));
}

#[test]
fn named_hosts_may_be_inside_and_speak_plain_http_and_metadata_services_stay_out_of_reach() {
    for text in [
        "http://router.internal:4000/",
        "http://10.0.0.1/",
        "https://127.0.0.1/",
    ] {
        assert!(Reach::NAMED_HOSTS.check(&url(text)).is_ok(), "{text}");
    }
    for text in ["http://169.254.169.254/", "http://user:secret@router.internal/"] {
        assert!(Reach::NAMED_HOSTS.check(&url(text)).is_err(), "{text}");
    }
}

#[tokio::test]
async fn a_post_brings_its_headers_and_its_body() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let server = async {
        let (mut socket, _) = listener.accept().await.expect("a connection");
        let mut request = Vec::new();
        while !request.ends_with(b"{\"a\":1}") {
            assert_ne!(socket.read_buf(&mut request).await.expect("a request"), 0);
        }
        socket
            .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
            .await
            .expect("a write");
        String::from_utf8(request).expect("text")
    };
    let client = Client::new(LOOPBACK).expect("a client");
    let address = url(&format!("http://127.0.0.1:{port}/callback"));
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "application/json".parse().expect("a value"));
    let body = Bytes::from_static(b"{\"a\":1}");
    let (answer, request) = tokio::join!(client.post(&address, headers, body, BOUNDS), server);
    assert_eq!(answer.expect("an answer").status, 204);
    assert!(request.starts_with("POST /callback HTTP/1.1\r\n"), "{request}");
    assert!(
        request.contains("content-type: application/json\r\n"),
        "{request}"
    );
}

#[tokio::test]
async fn a_name_that_resolves_to_a_forbidden_address_is_refused() {
    let client = Client::new(Reach::default()).expect("a client");
    let error = client
        .get(&url("https://localhost/"), BOUNDS)
        .await
        .expect_err("loopback");
    assert!(matches!(error, EgressError::Address), "{error:?}");
}

/// Answers one request on a free port with these bytes, then holds the connection open.
async fn answer(response: Vec<u8>) -> (Url, tokio::task::JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let (mut socket, _) = listener.accept().await.expect("a connection");
        let mut request = [0; 4096];
        let _length = socket.read(&mut request).await.expect("a request");
        socket.write_all(&response).await.expect("a write");
        std::future::pending::<()>().await;
    });
    (url(&format!("http://127.0.0.1:{port}/")), tasks)
}

#[tokio::test]
async fn https_begins_with_a_tls_handshake_and_ends_with_it_where_there_is_none() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let client = Client::new(LOOPBACK).expect("a client");
    let server = async {
        let (mut socket, _) = listener.accept().await.expect("a connection");
        let mut hello = [0; 3];
        socket.read_exact(&mut hello).await.expect("a record");
        socket
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .await
            .expect("a write");
        hello
    };
    let address = url(&format!("https://127.0.0.1:{port}/"));
    let (answer, hello) = tokio::join!(client.get(&address, BOUNDS), server);
    assert!(matches!(answer, Err(EgressError::Tls(_))), "{answer:?}");
    assert_eq!(hello, [22, 3, 1], "a handshake record (RFC 8446, section 5.1)");
}

#[tokio::test]
async fn redirects_are_answers_and_not_followed() {
    let response = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
    let (url, _server) = answer(response.to_vec()).await;
    let answer = Client::new(LOOPBACK)
        .expect("a client")
        .get(&url, BOUNDS)
        .await
        .expect("an answer");
    assert_eq!((answer.status, answer.body.len()), (302, 0));
}

#[tokio::test]
async fn a_body_beyond_the_bound_is_not_read_to_its_end() {
    let mut response = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..3 {
        response.extend_from_slice(format!("1f4\r\n{}\r\n", "x".repeat(500)).as_bytes());
    }
    // The body never ends: only the bound can.
    let (url, _server) = answer(response).await;
    let error = Client::new(LOOPBACK)
        .expect("a client")
        .get(&url, BOUNDS)
        .await
        .expect_err("too large");
    assert!(matches!(error, EgressError::TooLarge(1000)), "{error:?}");
}

#[tokio::test]
async fn the_deadline_covers_the_body() {
    let (url, _server) = answer(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc".to_vec()).await;
    let bounds = Bounds {
        deadline: Duration::from_millis(200),
        ..BOUNDS
    };
    let error = Client::new(LOOPBACK)
        .expect("a client")
        .get(&url, bounds)
        .await
        .expect_err("no end");
    assert!(matches!(error, EgressError::Deadline), "{error:?}");
}

const SEND: SendBounds = SendBounds {
    deadline: Duration::from_secs(5),
    body_deadline: Duration::from_millis(200),
    body_bytes_max: 1000,
};

fn post(url: &Url) -> Request<'_> {
    Request {
        method: Method::POST,
        url,
        headers: HeaderMap::new(),
        body: reqwest::Body::from("{}"),
    }
}

fn deliveries(reach: Reach, answers: &[&[&str]]) -> (Client, resolver::Script) {
    let addresses = |answer: &&[&str]| {
        let address = |text: &&str| text.parse::<IpAddr>().expect("an address");
        answer.iter().map(address).collect::<Vec<_>>()
    };
    let script = Arc::new(Mutex::new(answers.iter().map(addresses).collect::<VecDeque<_>>()));
    let guard = Guard::scripted(reach, Arc::clone(&script));
    (Client::deliveries(reach, guard, None).expect("a client"), script)
}

/// URLs that name what nobody may call, each in its own disguise.
const HOSTILE: &[&str] = &[
    // Other schemes, no transport security, credentials.
    "http://partner.example/",
    "ftp://partner.example/",
    "file:///etc/passwd",
    "gopher://partner.example/",
    "data:text/plain,x",
    "javascript:alert(1)",
    "ws://partner.example/",
    "unix:/run/docker.sock",
    "https://user:password@partner.example/",
    "https://partner.example@127.0.0.1/",
    "https://:password@partner.example/",
    // Loopback, spelled.
    "https://127.0.0.1/",
    "https://127.0.0.1./",
    "https://127.0.0.1:443/",
    "https://127.1/",
    "https://127.0.1/",
    "https://127.255.255.254/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.1/",
    "https://0x7F.0x0.0x0.0x1/",
    "https://0177.0.0.1/",
    "https://0177.1/",
    "https://017700000001/",
    "https://%31%32%37.0.0.1/",
    "https://\u{2460}\u{2461}\u{2466}.0.0.1/",
    "https://127\u{3002}0\u{3002}0\u{3002}1/",
    "https://127.0.0.1\\@partner.example/",
    "https://127.0.0.1#@partner.example/",
    "https://127.0.0.1?@partner.example/",
    "https:\\\\127.0.0.1\\",
    "https:127.0.0.1",
    "https://0/",
    "https://0x0/",
    "https://0.0.0.0/",
    // Private networks, metadata services, everything that is reserved.
    "https://10.0.0.1/",
    "https://012.1/",
    "https://172.16.0.1/",
    "https://172.31.255.254/",
    "https://192.168.0.1/",
    "https://3232235521/",
    "https://169.254.169.254/latest/meta-data/",
    "https://2852039166/",
    "https://0xa9fea9fe/",
    "https://0251.0376.0251.0376/",
    "https://100.64.0.1/",
    "https://100.100.100.200/",
    "https://168.63.129.16/",
    "https://192.0.0.192/",
    "https://192.0.2.1/",
    "https://192.88.99.1/",
    "https://198.18.0.1/",
    "https://198.51.100.7/",
    "https://203.0.113.9/",
    "https://224.0.0.1/",
    "https://240.0.0.1/",
    "https://255.255.255.255/",
    // The same in IPv6, plain and wrapped.
    "https://[::1]/",
    "https://[0:0:0:0:0:0:0:1]/",
    "https://[::]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[::ffff:a9fe:a9fe]/",
    "https://[::ffff:0:127.0.0.1]/",
    "https://[::127.0.0.1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[64:ff9b::a9fe:a9fe]/",
    "https://[64:ff9b:1::1]/",
    "https://[2002:7f00:1::]/",
    "https://[2002:a00:1::1]/",
    "https://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/",
    "https://[2606:4700::5efe:7f00:1]/",
    "https://[2606:4700::200:5efe:a00:1]/",
    "https://[fe80::5efe:7f00:1]/",
    "https://[fc00::1]/",
    "https://[fd00:ec2::254]/",
    "https://[fe80::1]/",
    "https://[fec0::1]/",
    "https://[ff02::1]/",
    "https://[100::1]/",
    "https://[2001:db8::1]/",
    "https://[3fff::1]/",
    "https://[5f00::1]/",
];

#[tokio::test]
async fn hostile_urls_are_refused_before_anything_is_looked_up_or_connected() {
    assert!(HOSTILE.len() >= 60);
    // Nothing is in the script: a look-up would be told as one.
    let (client, _) = deliveries(Reach::default(), &[]);
    for text in HOSTILE {
        // What is no URL at all is refused where it is parsed.
        if let Ok(url) = Url::parse(text) {
            let error = client.send(post(&url), SEND).await.expect_err(text);
            assert!(
                matches!(error, EgressError::Url(_) | EgressError::Address),
                "{text}: {error:?}"
            );
        }
    }
}

#[tokio::test]
async fn hostile_answers_of_a_resolver_are_refused_before_a_connection_is_made() {
    let answers: &[&[&str]] = &[
        &["127.0.0.1"],
        &["::1"],
        &["0.0.0.0"],
        &["10.1.2.3"],
        &["172.20.0.1"],
        &["192.168.1.1"],
        &["169.254.169.254"],
        &["100.64.3.4"],
        &["168.63.129.16"],
        &["224.0.0.1"],
        &["::ffff:10.0.0.1"],
        &["64:ff9b::7f00:1"],
        &["2002:c0a8:101::1"],
        &["2606:4700::5efe:a9fe:a9fe"],
        &["fd00::1"],
        &["fe80::1"],
        // One among good ones, at each place.
        &["127.0.0.1", "93.184.216.34"],
        &["93.184.216.34", "127.0.0.1"],
        &["93.184.216.34", "2606:4700::1111", "10.0.0.1"],
    ];
    let (client, script) = deliveries(Reach::default(), answers);
    for (place, answer) in answers.iter().enumerate() {
        let url = url(&format!("https://partner-{place}.example/"));
        let error = client
            .send(post(&url), SEND)
            .await
            .expect_err("a forbidden address");
        assert!(matches!(error, EgressError::Address), "{answer:?}: {error:?}");
    }
    assert!(
        script.lock().expect("no panic").is_empty(),
        "each name was looked up once"
    );
    let (client, _) = deliveries(Reach::default(), &[&[]]);
    let error = client
        .send(post(&url("https://nothing.example/")), SEND)
        .await
        .expect_err("no address");
    assert!(matches!(error, EgressError::Resolve), "{error:?}");
}

#[tokio::test]
async fn a_name_that_changes_its_answer_is_vetted_at_each_look_up_and_connected_to_what_was_vetted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    // In this house loopback is a good address and a private one is not. One answer for each connection: a second look-up
    // of the first attempt would get the second answer.
    let (client, script) = deliveries(
        LOOPBACK,
        &[&["127.0.0.1"], &["10.0.0.1"], &["127.0.0.1", "169.254.169.254"]],
    );
    let url = url(&format!("https://rebind.example:{port}/"));
    let accepted = async {
        let (mut socket, _) = listener.accept().await.expect("a connection");
        let mut hello = [0; 3];
        socket.read_exact(&mut hello).await.expect("a record");
        hello
    };
    let (first, hello) = tokio::join!(client.send(post(&url), SEND), accepted);
    assert!(
        matches!(first, Err(EgressError::Connect(_) | EgressError::Tls(_))),
        "{first:?}"
    );
    assert_eq!(hello, [22, 3, 1]);
    for _ in 0..2 {
        let error = client.send(post(&url), SEND).await.expect_err("another answer");
        assert!(matches!(error, EgressError::Address), "{error:?}");
    }
    assert!(script.lock().expect("no panic").is_empty());
}

#[tokio::test]
async fn a_status_counts_whatever_the_body_does() {
    let client = Client::for_deliveries(LOOPBACK, None).expect("a client");
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\nretry-after: 7\r\n\r\n";
    // It drips: here, one byte and then nothing.
    let (dripping, _one) = answer(format!("{head}x").into_bytes()).await;
    let reply = client.send(post(&dripping), SEND).await.expect("an answer");
    assert_eq!((reply.status, reply.whole, reply.body.len()), (200, false, 1));
    assert_eq!(reply.headers["retry-after"], "7");
    // It is long.
    let (long, _two) = answer(format!("{head}{}", "x".repeat(5_000)).into_bytes()).await;
    let reply = client.send(post(&long), SEND).await.expect("an answer");
    assert_eq!((reply.status, reply.whole, reply.body.len()), (200, false, 1000));
    // It is whole, and so is the connection.
    let (short, _three) = answer(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()).await;
    let reply = client.send(post(&short), SEND).await.expect("an answer");
    assert_eq!((reply.status, reply.whole), (204, true));
}

#[tokio::test]
async fn a_head_that_does_not_come_ends_at_the_deadline() {
    let (silent, _server) = answer(b"HTTP/1.1 200".to_vec()).await;
    let bounds = SendBounds {
        deadline: Duration::from_millis(200),
        ..SEND
    };
    let client = Client::for_deliveries(LOOPBACK, None).expect("a client");
    let error = client.send(post(&silent), bounds).await.expect_err("no head");
    assert!(matches!(error, EgressError::Deadline), "{error:?}");
}
