//! The router's side of the protocol, played by a small server.

use std::sync::{Arc, Mutex};

use axum::extract::State as Shared;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::*;

/// A token that lasts.
const NEVER: Expiry = Expiry {
    clock: Clock::System,
    at_ms: i64::MAX,
};

/// How the router answers: by action, and how often that was asked before.
type Script = Box<dyn Fn(&str, usize) -> StatusCode + Send + Sync>;

/// What a router was told, and how it answers.
struct Emulated {
    posts: Mutex<Vec<Value>>,
    answer: Script,
    /// How many posts are under way, and whether there were ever two.
    under_way: Mutex<(usize, bool)>,
}

struct Rig {
    emulated: Arc<Emulated>,
    url: String,
    callbacks: Callbacks,
    tasks: TaskTracker,
    drain: CancellationToken,
    _server: JoinSet<()>,
}

async fn take(Shared(router): Shared<Arc<Emulated>>, headers: HeaderMap, body: Bytes) -> Response {
    assert_eq!(headers["subscription-protocol"], "callback/1.0");
    assert_eq!(headers["content-type"], "application/json");
    {
        let mut under_way = router.under_way.lock().expect("lock");
        under_way.0 += 1;
        under_way.1 |= under_way.0 > 1;
    }
    let post: Value = serde_json::from_slice(&body).expect("JSON");
    let action = post["action"].as_str().expect("an action").to_owned();
    let before = {
        let mut posts = router.posts.lock().expect("lock");
        let before = posts
            .iter()
            .filter(|post| post["action"] == action.as_str())
            .count();
        posts.push(post);
        before
    };
    tokio::task::yield_now().await;
    router.under_way.lock().expect("lock").0 -= 1;
    let status = (router.answer)(&action, before);
    (status, [("subscription-protocol", "callback/1.0")]).into_response()
}

impl Rig {
    async fn new(answer: impl Fn(&str, usize) -> StatusCode + Send + Sync + 'static) -> Self {
        let emulated = Arc::new(Emulated {
            posts: Mutex::default(),
            answer: Box::new(answer),
            under_way: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let app = axum::Router::new()
            .fallback(take)
            .with_state(Arc::clone(&emulated));
        let mut server = JoinSet::new();
        server.spawn(async move {
            axum::serve(listener, app).await.expect("served");
        });
        let settings = CallbackSettings {
            hosts: vec![Host::parse(&format!("127.0.0.1:{port}")).expect("a host")],
            retry_max: Duration::from_millis(500),
            heartbeat_min: Duration::from_millis(20),
            ..CallbackSettings::default()
        };
        let (tasks, drain) = (TaskTracker::new(), CancellationToken::new());
        let metrics = Metrics::new(&mut Registry::default());
        let callbacks = Callbacks::new(settings, metrics, tasks.clone(), drain.clone());
        Self {
            emulated,
            url: format!("http://127.0.0.1:{port}/callback/1"),
            callbacks: callbacks.expect("a client"),
            tasks,
            drain,
            _server: server,
        }
    }

    fn extensions(&self, heartbeat_ms: u64) -> Map<String, Value> {
        let extensions = json!({"subscription": {
            "callbackUrl": self.url,
            "subscriptionId": "sub \"1\"",
            "verifier": "v",
            "heartbeatIntervalMs": heartbeat_ms,
        }});
        extensions.as_object().expect("an object").clone()
    }

    fn router(&self, heartbeat_ms: u64) -> Router {
        let extensions = self.extensions(heartbeat_ms);
        self.callbacks.router(&extensions, NEVER).expect("a router")
    }

    /// A subscription that gave these lines and ended; what the router was told.
    async fn told(&self, lines: &str) -> Vec<Value> {
        self.told_until(NEVER, lines).await
    }

    /// The same, of a reader whose token ends.
    async fn told_until(&self, expiry: Expiry, lines: &str) -> Vec<Value> {
        let router = self.callbacks.router(&self.extensions(0), expiry);
        let router = router.expect("a router");
        let (results, chunks) = mpsc::channel(4);
        self.callbacks.begin(router, chunks.into());
        for piece in lines.as_bytes().chunks(7) {
            // The router may have had enough.
            let _ended = results.send(Bytes::copy_from_slice(piece)).await;
        }
        drop(results);
        self.finished().await
    }

    async fn finished(&self) -> Vec<Value> {
        self.tasks.close();
        tokio::time::timeout(Duration::from_secs(20), self.tasks.wait())
            .await
            .expect("the subscription ends");
        self.emulated.posts.lock().expect("lock").clone()
    }
}

fn actions(posts: &[Value]) -> Vec<&str> {
    posts
        .iter()
        .map(|post| post["action"].as_str().expect("an action"))
        .collect()
}

#[tokio::test]
async fn results_are_posted_in_order_one_at_a_time_and_the_end_is_told_without_errors() {
    let rig = Rig::new(|action, _| match action {
        "complete" => StatusCode::ACCEPTED,
        _ => StatusCode::OK,
    })
    .await;
    let mut lines: String = (0..50)
        .map(|number| format!("{{\"data\":{{\"n\":{number}}}}}\n"))
        .collect();
    lines.push_str("{\"complete\":true}\n");
    let posts = rig.told(&lines).await;
    for (number, post) in posts.iter().take(50).enumerate() {
        assert_eq!(
            *post,
            json!({"kind": "subscription", "action": "next", "id": "sub \"1\"", "verifier": "v",
                "payload": {"data": {"n": number}}})
        );
    }
    assert_eq!(
        posts[50],
        json!({"kind": "subscription", "action": "complete", "id": "sub \"1\"", "verifier": "v"})
    );
    assert_eq!(posts.len(), 51);
    assert!(
        !rig.emulated.under_way.lock().expect("lock").1,
        "one after the other"
    );
}

#[tokio::test]
async fn an_end_with_errors_tells_them() {
    let rig = Rig::new(|_, _| StatusCode::NO_CONTENT).await;
    let posts = rig
        .told("{\"complete\":true,\"errors\":[{\"message\":\"m\",\"extensions\":{\"code\":\"token_expired\"}}]}\n")
        .await;
    assert_eq!(posts.len(), 1);
    assert_eq!(posts[0]["action"], "complete");
    assert_eq!(posts[0]["errors"][0]["extensions"]["code"], "token_expired");
}

#[tokio::test]
async fn a_session_that_is_cut_off_ends_with_an_error() {
    let rig = Rig::new(|_, _| StatusCode::OK).await;
    let posts = rig.told("{\"data\":{}}\n").await;
    assert_eq!(actions(&posts), ["next", "complete"]);
    assert_eq!(posts[1]["errors"][0]["extensions"]["code"], "internal");
}

#[tokio::test]
async fn a_router_that_fails_is_asked_again_and_gets_everything_in_order() {
    let rig = Rig::new(|_, before| match before {
        0 => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    })
    .await;
    let posts = rig
        .told("{\"data\":{\"n\":0}}\n{\"data\":{\"n\":1}}\n{\"complete\":true}\n")
        .await;
    assert_eq!(actions(&posts), ["next", "next", "next", "complete", "complete"]);
    let numbers: Vec<i64> = posts
        .iter()
        .filter_map(|post| post["payload"]["data"]["n"].as_i64())
        .collect();
    assert_eq!(numbers, [0, 0, 1]);
}

#[tokio::test]
async fn after_a_result_that_was_never_taken_only_the_end_is_told() {
    let rig = Rig::new(|_, _| StatusCode::INTERNAL_SERVER_ERROR).await;
    let posts = rig.told("{\"data\":{\"n\":0}}\n{\"data\":{\"n\":1}}\n").await;
    let (last, before) = posts.split_last().expect("posts");
    assert!(before.len() >= 2, "it was tried again");
    assert!(before.iter().all(|post| post["payload"]["data"]["n"] == 0));
    assert_eq!(last["action"], "complete");
    assert_eq!(last["errors"][0]["extensions"]["code"], "callback_refused");
}

#[tokio::test]
async fn what_waits_when_the_token_ends_is_dropped_and_the_end_is_told() {
    let two = "{\"data\":{\"n\":0}}\n{\"data\":{\"n\":1}}\n{\"complete\":true}\n";
    let after_ms = |ms: i64| Expiry {
        clock: Clock::System,
        at_ms: Clock::System.now_ms() + ms,
    };
    let rig = Rig::new(|_, _| StatusCode::OK).await;
    let posts = rig.told_until(after_ms(0), two).await;
    assert_eq!(actions(&posts), ["complete"]);
    assert_eq!(posts[0]["errors"][0]["extensions"]["code"], "token_expired");

    // What is tried again is dropped as well.
    let rig = Rig::new(|action, _| match action {
        "next" => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    })
    .await;
    let posts = rig.told_until(after_ms(200), two).await;
    let (last, before) = posts.split_last().expect("posts");
    assert!(before.iter().all(|post| post["payload"]["data"]["n"] == 0));
    assert_eq!(last["action"], "complete");
    assert_eq!(last["errors"][0]["extensions"]["code"], "token_expired");
}

#[tokio::test]
async fn a_router_that_has_forgotten_the_subscription_is_left_alone() {
    let rig = Rig::new(|_, _| StatusCode::NOT_FOUND).await;
    let posts = rig
        .told("{\"data\":{}}\n{\"data\":{}}\n{\"complete\":true}\n")
        .await;
    assert_eq!(actions(&posts), ["next"]);
}

#[tokio::test]
async fn a_router_that_refuses_is_not_asked_again() {
    let rig = Rig::new(|_, _| StatusCode::UNAUTHORIZED).await;
    let posts = rig.told("{\"data\":{}}\n{\"data\":{}}\n").await;
    assert_eq!(actions(&posts), ["next", "complete"]);
}

#[tokio::test]
async fn checks_come_while_nothing_happens_and_end_the_subscription_when_it_is_gone() {
    let rig = Rig::new(|_, before| match before {
        0..=2 => StatusCode::NO_CONTENT,
        _ => StatusCode::NOT_FOUND,
    })
    .await;
    let router = rig.router(40);
    let (results, chunks) = mpsc::channel::<Bytes>(4);
    rig.callbacks.begin(router, chunks.into());
    let posts = rig.finished().await;
    assert_eq!(actions(&posts), ["check"; 4]);
    assert!(results.is_closed(), "the session ends with it");
}

#[tokio::test]
async fn nothing_is_tried_again_once_the_node_drains() {
    let rig = Rig::new(|_, _| StatusCode::SERVICE_UNAVAILABLE).await;
    rig.drain.cancel();
    let posts = rig.told("{\"complete\":true,\"errors\":[]}\n").await;
    assert_eq!(actions(&posts), ["complete"]);
}

#[tokio::test]
async fn a_check_that_is_not_answered_with_204_refuses_the_subscription() {
    for (status, is_taken) in [
        (204, true),
        (200, false),
        (400, false),
        (404, false),
        (500, false),
    ] {
        let rig = Rig::new(move |_, _| StatusCode::from_u16(status).expect("a status")).await;
        let router = rig.router(0);
        assert_eq!(rig.callbacks.check(&router).await.is_ok(), is_taken, "{status}");
        assert_eq!(actions(&rig.finished().await), ["check"], "asked once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_check_waits_for_its_place_and_not_for_ever() {
    let rig = Rig::new(|_, _| StatusCode::NO_CONTENT).await;
    let router = rig.router(0);
    let all = u32::try_from(CHECKS_MAX).expect("small");
    let places = rig.callbacks.checks.acquire_many(all).await.expect("places");
    let problem = rig.callbacks.check(&router).await.expect_err("no place");
    assert_eq!(problem.code, Code::RATE_LIMITED);
    drop(places);
    assert!(rig.finished().await.is_empty(), "nothing was asked");
    assert_eq!(rig.callbacks.checks.available_permits(), CHECKS_MAX);
}

#[tokio::test]
async fn only_hosts_that_were_named_are_called_back() {
    let rig = Rig::new(|_, _| StatusCode::OK).await;
    let refused = |member: &str, value: Value| {
        let mut extensions = rig.extensions(5000);
        extensions["subscription"][member] = value;
        let problem = rig.callbacks.router(&extensions, NEVER).err().expect("refused");
        assert_eq!(problem.code, CALLBACK_REFUSED, "{member}");
        assert!(
            !problem.detail.contains("169.254"),
            "nothing of the request is repeated"
        );
    };
    for url in [
        "http://127.0.0.1:1/callback",
        "http://169.254.169.254/",
        "https://elsewhere.example/",
        "ftp://127.0.0.1/",
        "nonsense",
    ] {
        refused("callbackUrl", json!(url));
    }
    refused(
        "callbackUrl",
        json!(rig.url.replace("127.0.0.1", "user:secret@127.0.0.1")),
    );
    refused("callbackUrl", Value::Null);
    refused("subscriptionId", json!(""));
    refused("verifier", json!(7));
    refused("verifier", json!("x".repeat(600)));
    refused("heartbeatIntervalMs", json!(1));
    refused("heartbeatIntervalMs", json!(-1));
    assert!(rig.callbacks.router(&Map::new(), NEVER).is_err());
    assert!(rig.callbacks.router(&rig.extensions(0), NEVER).is_ok());
}
