//! GraphQL in the bodies of responses: event streams, parts, lines for a callback.

use super::*;

/// What a body gives until this text has come.
async fn until(body: &mut Body, wanted: &str) -> String {
    let mut text = String::new();
    let read = async {
        while !text.contains(wanted) {
            let chunk = body
                .recv()
                .await
                .unwrap_or_else(|| panic!("no {wanted} in {text}"));
            text.push_str(std::str::from_utf8(&chunk).expect("text"));
        }
    };
    timeout(Duration::from_secs(120), read).await.expect("in time");
    text
}

fn first(node: &Node, id: &str, after: Option<&str>) -> Option<GraphqlSubscribe> {
    Some(GraphqlSubscribe {
        id: id.to_owned(),
        bound: node.bound(ALL, after),
    })
}

#[tokio::test(start_paused = true)]
async fn an_event_stream_of_one_operation_has_cursors_as_ids_and_resumes_from_them() {
    local(async {
        let mut node = node().await;
        let opened = node
            .graphql(GraphqlFraming::SseDistinct, first(&node, "", None))
            .await;
        let (_, _, mut body) = opened.unwrap();
        until(&mut body, "id: ").await;
        node.publish(0, "north", numbered(1)).await;
        let text = until(&mut body, "event: next").await;
        let cursor = text
            .lines()
            .find_map(|line| line.strip_prefix("id: "))
            .unwrap()
            .to_owned();
        drop(body);
        node.publish(0, "north", numbered(2)).await;
        let again = first(&node, "", Some(&cursor));
        let (_, _, mut body) = node.graphql(GraphqlFraming::SseDistinct, again).await.unwrap();
        let text = until(&mut body, "event: next").await;
        assert!(text.contains(r#""n":2"#) && !text.contains(r#""n":1"#), "{text}");
        // A quiet stream is given a comment.
        until(&mut body, ":\n\n").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_event_stream_ends_with_an_error_and_complete_when_the_token_does() {
    local(async {
        let node = node().await;
        let opened = node
            .graphql(GraphqlFraming::SseDistinct, first(&node, "", None))
            .await;
        let (_, _, mut body) = opened.unwrap();
        let mut all = String::new();
        while let Ok(Some(chunk)) = timeout(Duration::from_secs(40), body.recv()).await {
            all.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        assert!(all.contains("token_expired"), "{all}");
        assert!(all.ends_with("event: complete\ndata:\n\n"), "{all}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn one_event_stream_carries_many_operations_that_other_requests_begin_and_end() {
    local(async {
        let mut node = node().await;
        let mut opened = node.graphql(GraphqlFraming::SseSingle, None).await.unwrap();
        for id in ["a", "b"] {
            let subscribe = first(&node, id, None).unwrap();
            assert_eq!(node.order(&opened, Order::Subscribe(subscribe)).await, Ok(true));
        }
        let twice = first(&node, "a", None).unwrap();
        let refused = node.order(&opened, Order::Subscribe(twice)).await.unwrap_err();
        assert_eq!(refused.code.name, "duplicate_id");
        node.publish(0, "north", numbered(1)).await;
        let text = until(&mut opened.2, r#""id":"b","payload""#).await;
        assert!(text.contains(r#"{"id":"a","payload":{"data""#), "{text}");
        assert_eq!(node.order(&opened, Order::Stop("a".to_owned())).await, Ok(true));
        assert_eq!(node.order(&opened, Order::Stop("a".to_owned())).await, Ok(false));
        until(&mut opened.2, "event: complete\ndata: {\"id\":\"a\"}").await;
        let answer = Bytes::from_static(br#"{"data":{"__typename":"Query"}}"#);
        let answered = node.order(&opened, Order::Answer("q".to_owned(), answer)).await;
        assert_eq!(answered, Ok(true));
        until(&mut opened.2, "event: complete\ndata: {\"id\":\"q\"}").await;
        node.publish(0, "north", numbered(2)).await;
        let text = until(&mut opened.2, r#""n":2"#).await;
        assert!(!text.contains(r#""id":"a""#), "{text}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_multipart_response_closes_each_part_at_once_and_beats() {
    local(async {
        let mut node = node().await;
        let opened = node
            .graphql(GraphqlFraming::Multipart, first(&node, "", None))
            .await;
        let (_, _, mut body) = opened.unwrap();
        let begun = until(&mut body, "--graphql").await;
        assert_eq!(begun, "--graphql");
        node.publish(0, "north", numbered(1)).await;
        let part = until(&mut body, "--graphql").await;
        assert!(part.contains(r#"{"payload":{"data":{"observations":"#), "{part}");
        let beat = until(&mut body, "--graphql").await;
        assert!(beat.ends_with("\r\n\r\n{}\r\n--graphql"), "{beat}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn lines_for_a_callback_end_with_why() {
    local(async {
        let mut node = node().await;
        let opened = node.graphql(GraphqlFraming::Lines, first(&node, "", None)).await;
        let (_, _, mut body) = opened.unwrap();
        node.settle().await;
        node.publish(0, "north", numbered(1)).await;
        let mut text = until(&mut body, "\n").await;
        while let Some(chunk) = body.recv().await {
            text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("each line is JSON"))
            .collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(lines[0]["data"]["observations"]["data"]["n"], 1);
        assert_eq!(lines[1]["complete"], true);
        assert_eq!(lines[1]["errors"][0]["extensions"]["code"], "token_expired");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_subscription_opens_no_response() {
    local(async {
        let node = node().await;
        let sessions = node.sessions().await;
        let bad = first(&node, "", Some("no cursor"));
        let refused = node.graphql(GraphqlFraming::SseDistinct, bad).await.unwrap_err();
        assert_eq!(refused.code.name, "cursor_invalid");
        assert_eq!(node.sessions().await, sessions);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_operation_stopped_by_another_request_while_it_waits_does_not_begin() {
    local(async {
        let issuer = DevelopmentIssuer::ephemeral().unwrap();
        let mut node = Node::unready(&Log::new(), HubConfig::default(), &issuer).await;
        let opened = node.graphql(GraphqlFraming::SseSingle, None).await.unwrap();
        let subscribe = first(&node, "a", None).unwrap();
        let waits = node.order(&opened, Order::Subscribe(subscribe));
        let stops = async {
            node.settle().await;
            node.order(&opened, Order::Stop("a".to_owned())).await
        };
        let both = async { tokio::join!(waits, stops) };
        let (began, stopped) = timeout(Duration::from_secs(60), both).await.unwrap();
        assert_eq!((began, stopped), (Ok(false), Ok(true)));
        node.complete(&[0]).await;
        assert_eq!(node.order(&opened, Order::Stop("a".to_owned())).await, Ok(false));
    })
    .await;
}
