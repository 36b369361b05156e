//! GraphQL answers that come over time: event streams, parts, the single connection.

use super::*;

/// A subscription over a real connection.
pub(super) struct Live {
    socket: TcpStream,
    found: Vec<u8>,
    _served: Served,
}

impl Live {
    /// Sends a request with a bearer token; its answer must be this one.
    pub(super) async fn open(rig: &Rig, line: &str, headers: &str, body: &str, status: u16) -> Self {
        Self::open_as(rig, &rig.bearer(), line, headers, body, status).await
    }

    /// The same with these credentials, or with none.
    pub(super) async fn open_as(
        rig: &Rig,
        bearer: &str,
        line: &str,
        headers: &str,
        body: &str,
        status: u16,
    ) -> Self {
        let served = rig.serve(&HttpLimits::default(), None);
        let mut socket = served.connect().await;
        let length = body.len();
        let credentials = match bearer {
            "" => String::new(),
            bearer => format!("authorization: {bearer}\r\n"),
        };
        let text = format!(
            "{line} HTTP/1.1\r\nhost: gateway.example\r\n{credentials}content-type: application/json\r\n\
             content-length: {length}\r\n{headers}\r\n\r\n{body}"
        );
        socket.write_all(text.as_bytes()).await.expect("written");
        let mut live = Self {
            socket,
            found: Vec::new(),
            _served: served,
        };
        let head = live.until("\r\n\r\n").await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        live
    }

    /// Everything so far, once this is in it.
    pub(super) async fn until(&mut self, wanted: &str) -> String {
        let reading = async {
            loop {
                let text = String::from_utf8_lossy(&self.found).into_owned();
                if text.contains(wanted) {
                    return text;
                }
                let length = self.socket.read_buf(&mut self.found).await.expect("read");
                assert_ne!(length, 0, "{text}");
            }
        };
        tokio::time::timeout(Duration::from_secs(20), reading)
            .await
            .expect("in time")
    }
}

#[tokio::test]
async fn a_subscription_comes_as_server_sent_events_by_post_and_by_get() {
    let mut rig = Rig::new();
    rig.complete().await;
    let mut post = Live::open(&rig, "POST /graphql", "accept: text/event-stream", SUBSCRIBE, 200).await;
    let query =
        "/graphql?query=subscription%20%7B%20observations%20%7B%20cursor%20data%20%7B%20id%20%7D%20%7D%20%7D";
    let mut get = Live::open(
        &rig,
        &format!("GET {query}"),
        "accept: text/event-stream",
        "",
        200,
    )
    .await;
    rig.observe("1").await;
    for live in [&mut post, &mut get] {
        let text = live.until("\"id\":\"o0\"").await;
        assert!(text.contains("content-type: text/event-stream"), "{text}");
        assert!(
            text.contains("event: next\ndata: {\"data\":{\"observations\":{"),
            "{text}"
        );
    }
    // From its cursor on, although the address says another place.
    let text = post.until("\nid: ").await;
    let mut ids = text.lines().filter_map(|line| line.strip_prefix("id: "));
    let cursor = ids.next_back().expect("a cursor").trim().to_owned();
    rig.observe("2").await;
    let headers = format!("accept: text/event-stream\r\nlast-event-id: {cursor}");
    let after = format!("GET {query}&extensions=%7B%22after%22%3A%22earliest%22%7D");
    let mut again = Live::open(&rig, &after, &headers, "", 200).await;
    let text = again.until("\"id\":\"o1\"").await;
    assert!(!text.contains("\"id\":\"o0\""), "{text}");
}

#[tokio::test]
async fn a_subscription_comes_in_parts() {
    let mut rig = Rig::new();
    rig.complete().await;
    let accept = "accept: multipart/mixed;boundary=graphql;subscriptionSpec=1.0, application/json";
    let mut live = Live::open(&rig, "POST /graphql", accept, SUBSCRIBE, 200).await;
    rig.observe("1").await;
    let text = live.until("\"id\":\"o0\"").await;
    assert!(
        text.contains("content-type: multipart/mixed;boundary=\"graphql\";subscriptionSpec=1.0"),
        "{text}"
    );
    live.until("}\r\n--graphql").await;
}

#[tokio::test]
async fn a_stream_that_is_not_granted_is_told_in_a_result() {
    let rig = Rig::new();
    rig.complete().await;
    let bearer = format!("Bearer {}", rig.token("north", "user/Patient.rs", ""));
    let headers = [
        ("accept", "text/event-stream"),
        ("authorization", bearer.as_str()),
    ];
    let answer = posted(&rig, &headers, SUBSCRIBE).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(
        answer.text.contains("\"code\":\"stream_forbidden\""),
        "{}",
        answer.text
    );
    assert!(
        answer.text.ends_with("event: complete\ndata:\n\n"),
        "{}",
        answer.text
    );
}

#[tokio::test]
async fn a_single_connection_carries_the_operations_of_its_principal_only() {
    let mut rig = Rig::new();
    rig.complete().await;
    let bearer = rig.bearer();
    let other = format!("Bearer {}", rig.token("south", "user/Observation.rs", ""));
    let reserved = rig
        .ask(request(
            "PUT",
            "/graphql/stream",
            &[("authorization", &bearer)],
            "",
        ))
        .await;
    assert_eq!(reserved.status, StatusCode::CREATED, "{}", reserved.text);
    let token = reserved.text;
    let operate = async |bearer: &str, token: &str, id: &str| {
        let headers = [
            ("authorization", bearer),
            ("x-graphql-event-stream-token", token),
            ("content-type", "application/json"),
        ];
        let body = json!({
            "query": "subscription { observations { data { id } } }",
            "extensions": {"operationId": id},
        });
        rig.post("/graphql/stream", &headers, &body.to_string()).await
    };
    let early = operate(&bearer, &token, "a").await;
    assert_eq!(
        (early.status.as_u16(), code(&early).as_str()),
        (409, "reservation_state")
    );
    let open = format!("GET /graphql/stream?token={token}");
    let mut live = Live::open(&rig, &open, "accept: text/event-stream", "", 200).await;
    Live::open(&rig, &open, "accept: text/event-stream", "", 409).await;
    for (bearer, token) in [(&bearer, "unknown"), (&other, token.as_str())] {
        let foreign = operate(bearer, token, "a").await;
        assert_eq!(
            (foreign.status.as_u16(), code(&foreign).as_str()),
            (404, "reservation_unknown")
        );
    }
    assert_eq!(operate(&bearer, &token, "a").await.status, StatusCode::ACCEPTED);
    assert_eq!(operate(&bearer, &token, "a").await.status, StatusCode::CONFLICT);
    rig.observe("1").await;
    let text = live.until("\"id\":\"o0\"").await;
    assert!(
        text.contains("event: next\ndata: {\"id\":\"a\",\"payload\":{\"data\":"),
        "{text}"
    );
    let headers = [
        ("authorization", bearer.as_str()),
        ("x-graphql-event-stream-token", token.as_str()),
    ];
    let stopped = rig
        .ask(request("DELETE", "/graphql/stream?operationId=a", &headers, ""))
        .await;
    assert_eq!(stopped.status, StatusCode::OK);
    drop(live);
    let gone = async {
        while rig
            .ask(request("DELETE", "/graphql/stream?operationId=a", &headers, ""))
            .await
            .status
            != StatusCode::NOT_FOUND
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone)
        .await
        .expect("the token ends with its stream");
}

#[tokio::test]
async fn what_a_ticket_is_restricted_to_binds_every_operation_of_its_connection() {
    let mut rig = Rig::new();
    rig.complete().await;
    let bearer = rig.bearer();
    let json_type = ("content-type", "application/json");
    let headers = [("authorization", bearer.as_str()), json_type];
    let token = rig
        .ask(request("PUT", "/graphql/stream", &headers, ""))
        .await
        .text;
    let restricted = r#"{"stream":"observations","where":{"patient":["Patient/2"]}}"#;
    let issued = rig.post("/v1/tickets", &headers, restricted).await.json();
    let ticket = issued["ticket"].as_str().expect("a ticket");
    // Alone it reserves nothing, and begins nothing.
    let uri = format!("/graphql/stream?token={token}&ticket={ticket}");
    let reserved = rig.ask(request("PUT", &uri, &[], "")).await;
    assert!(reserved.status.is_client_error(), "{}", reserved.text);
    let open = format!("GET {uri}");
    let mut live = Live::open_as(&rig, "", &open, "accept: text/event-stream", "", 200).await;
    let operation = json!({
        "query": "subscription { observations { data { id } } }",
        "extensions": {"operationId": "a"},
    });
    let operation = operation.to_string();
    assert_eq!(
        rig.post(&uri, &[json_type], &operation).await.status,
        StatusCode::UNAUTHORIZED
    );
    let begun = rig.post(&uri, &headers, &operation).await;
    assert_eq!(begun.status, StatusCode::ACCEPTED, "{}", begun.text);
    rig.observe("1").await;
    rig.observe("2").await;
    let text = live.until("\"id\":\"o1\"").await;
    assert!(!text.contains("\"id\":\"o0\""), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_reservation_that_is_not_used_is_forgotten_and_gives_its_place_back() {
    let rig = Rig::with(Unusual {
        principal_max: Some(1),
        ..Unusual::default()
    });
    let bearer = rig.bearer();
    let reserve = || {
        rig.ask(request(
            "PUT",
            "/graphql/stream",
            &[("authorization", &bearer)],
            "",
        ))
    };
    assert_eq!(reserve().await.status, StatusCode::CREATED);
    let full = reserve().await;
    assert_eq!(
        (full.status.as_u16(), code(&full).as_str()),
        (429, "principal_connections_exceeded")
    );
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(reserve().await.status, StatusCode::CREATED);
    let nobody = rig.ask(request("PUT", "/graphql/stream", &[], "")).await;
    assert_eq!(nobody.status, StatusCode::UNAUTHORIZED);
}
