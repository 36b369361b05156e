//! The receiver itself is tried first.

use std::time::Duration;

use anyhow::Result;
use reqwest::Method;

use super::*;
use crate::http::client;
use crate::wait;

/// The example of the standard, at another time.
fn signed(secret: &str, body: &str) -> (String, String) {
    use base64::Engine as _;
    let standard = base64::engine::general_purpose::STANDARD;
    let timestamp = crate::issuer::now_s().to_string();
    let key = standard
        .decode(secret.trim_start_matches("whsec_"))
        .expect("base64");
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &key);
    let tag = aws_lc_rs::hmac::sign(&key, format!("msg_1.{timestamp}.{body}").as_bytes());
    (timestamp, format!("v1a,AAAA v1,{}", standard.encode(tag)))
}

async fn post(hook: &Hook, secret: &str, body: &str) -> reqwest::Result<u16> {
    let (timestamp, signature) = signed(secret, body);
    let request = client()
        .request(Method::POST, &hook.url)
        .header("webhook-id", "msg_1")
        .header("webhook-timestamp", timestamp)
        .header("webhook-signature", signature)
        .header("tidewire-attempt", "3")
        .timeout(Duration::from_millis(500))
        .body(body.to_owned());
    Ok(request.send().await?.status().as_u16())
}

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[tokio::test(flavor = "multi_thread")]
async fn it_records_what_came_and_does_what_it_is_told() -> Result<()> {
    let receiver = Receiver::start().await?;
    let answers = vec![
        Answer::Status(500),
        Answer::Reset,
        Answer::Hang,
        Answer::RetryAfter(429, "7".to_owned()),
        Answer::Drip,
        Answer::Redirect("http://127.0.0.1:1/".to_owned()),
    ];
    let hook = receiver.hook("one", Behaviour::first(answers));
    hook.know(SECRET);
    hook.keep(1);
    let body = r#"{"specversion":"1.0","data":{"partition":2,"n":41}}"#;
    let mut statuses = Vec::new();
    for _ in 0..7 {
        statuses.push(post(&hook, SECRET, body).await.unwrap_or(0));
    }
    assert_eq!(statuses, [500, 0, 0, 429, 200, 307, 200]);
    let arrivals = hook.arrivals();
    assert!(
        arrivals
            .iter()
            .all(|one| one.event == Some(Event { partition: 2, n: 41 }) && one.number == 3)
    );
    assert_eq!(
        arrivals.iter().map(|one| one.accepted).collect::<Vec<_>>(),
        [false, false, false, false, true, false, true]
    );
    assert_eq!((hook.taken(), hook.count(), hook.faults().len()), (1, 7, 0));
    assert_eq!(hook.kept()[0].body, body.as_bytes());
    assert_eq!(post(&hook, "whsec_AAAA", body).await?, 200);
    assert_eq!(hook.faults().len(), 1);
    let before = receiver.strays();
    let stray = client()
        .request(Method::POST, format!("{}/two", hook.url))
        .send()
        .await?;
    assert_eq!((stray.status().as_u16(), receiver.strays() - before), (404, 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_through_to_one_that_never_accepts() -> Result<()> {
    let deaf = Deaf::start().await?;
    let asked = client()
        .request(Method::POST, deaf.url())
        .timeout(Duration::from_millis(300))
        .send()
        .await;
    assert!(asked.is_err_and(|error| error.is_timeout()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_as_long_as_it_says() -> Result<()> {
    let receiver = Receiver::start().await?;
    let hook = receiver.hook("flood", Behaviour::always(Answer::Flood(10_000_000)));
    let answer = wait::within("the flood", client().request(Method::POST, &hook.url).send()).await??;
    assert_eq!(answer.bytes().await?.len(), 10_000_000);
    Ok(())
}

#[test]
fn the_dice_fall_the_same_for_the_same_request_and_as_often_as_they_are_told() {
    let behaviour = Behaviour::failing(5, 20, 4, 6);
    let ask = |n: i64, nth: u32| {
        behaviour.decide(&answer::Asked {
            id: "x",
            number: 1,
            nth,
            count: 1,
            event: Some(Event { partition: 0, n }),
        })
    };
    let mut failures = 0;
    for n in 0..10_000 {
        assert_eq!(ask(n, 1), ask(n, 1));
        failures += usize::from(!ask(n, 1).accepts());
    }
    assert!((2_800..3_200).contains(&failures), "{failures}");
}
