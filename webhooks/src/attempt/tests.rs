use auth::egress::Reach;
use schemas::project::Mask;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::endpoint::{Owner, Spec};
use crate::fixture;
use crate::matching::Start;
use crate::render::{ContentMode, render};
use crate::sign::{Ed25519, Held, Keys, Secret};

const NOW_MS: i64 = 1_700_000_000_000;
static POSITION_GIVEN: HeaderValue = HeaderValue::from_static("sealed-position");
const LOOPBACK: Reach = Reach {
    loopback: true,
    private: false,
    plain: false,
};

fn pair(byte: u8) -> Ed25519 {
    let seed = SecretString::from(format!("whsk_{}", STANDARD.encode([byte; 32])));
    Ed25519::parse(&seed).expect("a key")
}

fn held<K>(key: K) -> Vec<Held<K>> {
    vec![Held { key, until_ms: None }]
}

fn endpoint(url: &str, more: &Value) -> Endpoint {
    let mut body = json!({ "url": url, "streams": ["observations"] });
    for (name, value) in more.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    let spec = Spec::parse(&body, LOOPBACK).expect("a specification");
    let owner = Owner::of(
        &fixture::principal("lund", &["system/Observation.rs"]),
        None,
        NOW_MS,
        1,
    );
    let mut endpoint = Endpoint::create(spec, owner, Start::default(), NOW_MS).expect("keys");
    let secret = SecretString::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    endpoint.keys = Keys {
        secrets: held(Secret::parse(&secret).expect("a secret")),
        pairs: held(pair(1)),
    };
    endpoint
}

fn delivery() -> DeliveryId {
    DeliveryId::parse("msg_p5jXN8AQM9LWM0D4loKWxJek").expect("an id")
}

fn text(headers: &HeaderMap) -> String {
    let line = |(name, value): (&HeaderName, &HeaderValue)| {
        format!("{name}: {}\n", value.to_str().expect("visible"))
    };
    let mut lines: Vec<String> = headers.iter().map(line).collect();
    lines.sort();
    lines.concat()
}

#[test]
fn the_header_set_is_exactly_this_one() {
    let event = fixture::observation("lund", "1", "final");
    let everything = json!({
        "signing": ["v1", "v1a", "rfc9421"], "headers": {"X-Team": "cardiology"},
        "credentials": {"type": "basic", "username": "me", "password": "secret"},
    });
    let signer = MessageSigner::new(held(pair(2)));
    let dead = DeliveryId::parse("msg_dead").expect("an id");
    let mut all = String::new();
    for (name, more, mode) in [
        ("the smallest", json!({}), ContentMode::Thin),
        ("everything, binary", everything, ContentMode::Binary),
    ] {
        let endpoint = endpoint("https://partner.example/hooks?x=1", &more);
        let rendered = render(&event, &Mask::nothing_hidden(), mode);
        let is_full = mode == ContentMode::Binary;
        let outgoing = Outgoing {
            endpoint: &endpoint,
            delivery: &delivery(),
            number: 2,
            rendered: rendered.clone(),
            position: is_full.then_some(&POSITION_GIVEN),
            dead_lettered: is_full.then_some(&dead),
            token: None,
        };
        let (headers, body) = headers(outgoing, &signer, NOW_MS);
        assert_eq!(body, rendered.body);
        all.push_str(&format!("# {name}\n{}\n", text(&headers)));
        assert_eq!(
            headers
                .get("authorization")
                .is_some_and(HeaderValue::is_sensitive),
            is_full
        );
    }
    insta::assert_snapshot!(all);
}

/// Answers one request with these bytes; gives what it got.
async fn receive(answer: &'static str) -> (String, tokio::task::JoinSet<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!(
        "http://127.0.0.1:{}/hooks",
        listener.local_addr().expect("an address").port()
    );
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let (mut socket, _) = listener.accept().await.expect("a connection");
        let mut request = vec![0; 8192];
        let mut length = 0;
        // The head, and a body that ends with a brace.
        while !request[..length].ends_with(b"}") {
            length += socket.read(&mut request[length..]).await.expect("a request");
        }
        socket.write_all(answer.as_bytes()).await.expect("a write");
        request.truncate(length);
        String::from_utf8(request).expect("text")
    });
    (url, tasks)
}

async fn attempt(url: &str, more: &Value) -> Report {
    let endpoint = endpoint(url, more);
    let event = fixture::observation("lund", "1", "final");
    let rendered = render(&event, &Mask::nothing_hidden(), ContentMode::Thin);
    let outgoing = Outgoing {
        endpoint: &endpoint,
        delivery: &delivery(),
        number: 1,
        rendered,
        position: None,
        dead_lettered: None,
        token: None,
    };
    let client = Client::for_deliveries(LOOPBACK, None).expect("a client");
    post(&client, outgoing, &MessageSigner::default(), Clock::System).await
}

#[tokio::test]
async fn on_the_wire_there_is_nothing_more_than_the_set_and_the_connections_own() {
    let (url, mut receiver) = receive("HTTP/1.1 204 No Content\r\n\r\n").await;
    let report = attempt(&url, &json!({})).await;
    assert_eq!(
        (report.outcome, report.status, report.word),
        (Outcome::Delivered, Some(204), "delivered")
    );
    let request = receiver.join_next().await.expect("one").expect("a request");
    let (head, _) = request.split_once("\r\n\r\n").expect("a head");
    let mut names: Vec<&str> = head
        .lines()
        .skip(1)
        .map(|line| line.split_once(':').expect("a header").0)
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "accept",
            "content-length",
            "content-type",
            "host",
            "tidewire-attempt",
            "user-agent",
            "webhook-id",
            "webhook-signature",
            "webhook-timestamp",
        ]
    );
    assert!(head.starts_with("POST /hooks HTTP/1.1"));
}

#[tokio::test]
async fn answers_mean_what_they_say() {
    for (answer, outcome, word) in [
        (
            "HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n",
            Outcome::Gone,
            "gone",
        ),
        (
            "HTTP/1.1 429 Slow\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n",
            Outcome::Throttled {
                retry_after_ms: Some(7000),
            },
            "throttled",
        ),
        (
            "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
            Outcome::Failed,
            "status",
        ),
        (
            "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n",
            Outcome::Failed,
            "status",
        ),
        ("", Outcome::Failed, "exchange"),
    ] {
        let (url, _receiver) = receive(answer).await;
        let report = attempt(&url, &json!({})).await;
        assert_eq!((report.outcome, report.word), (outcome, word), "{answer}");
    }
    let (url, receiver) = receive("").await;
    drop(receiver);
    let report = attempt(&url, &json!({})).await;
    assert_eq!((report.outcome, report.status), (Outcome::Failed, None));
}
