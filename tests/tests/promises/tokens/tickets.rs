//! What browsers bring instead of a token: tickets and the cookie.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tidewire_tests::contract;
use tidewire_tests::http::{self, bearer};
use tidewire_tests::plan;
use tidewire_tests::sse::{Ask, Sse};
use tidewire_tests::volume::dice;
use tidewire_tests::wait;
use tidewire_tests::ws::{Dial, Ws};

use crate::support::World;

#[tokio::test(flavor = "multi_thread")]
async fn tickets_are_good_once_and_for_what_they_name() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("tickets", 1).await?;
    let mut setup = world.setup(&[&topic]);
    setup.more = "[origins]\nallow = [\"https://app.example\"]\n".to_owned();
    let gateway = setup.start().await?;
    let authorization = bearer(&world.user("north"));
    let ticket = |body: Value, origin: Option<&'static str>| {
        let mut headers = vec![("authorization", authorization.as_str())];
        headers.extend(origin.map(|origin| ("origin", origin)));
        let address = gateway.address();
        async move {
            let answer = http::post(address, "/v1/tickets", &headers, &body).await?;
            ensure!(answer.status == 201, "{} {}", answer.status, answer.text());
            Ok(answer.json()?["ticket"].as_str().context("a ticket")?.to_owned())
        }
    };
    let ask =
        |text: &str, query: Vec<(&'static str, &'static str)>, headers: Vec<(&'static str, &'static str)>| {
            let (address, text) = (gateway.address(), text.to_owned());
            async move {
                let mut pairs = vec![("ticket", text.as_str())];
                pairs.extend(query);
                let ask = Ask {
                    query: pairs,
                    headers,
                    ..Ask::default()
                };
                anyhow::Ok(
                    Sse::ask(address, "observations", &ask)
                        .await?
                        .map_err(|answer| answer.code()),
                )
            }
        };
    // Once.
    let one = ticket(json!({}), None).await?;
    ensure!(
        ask(&one, vec![], vec![]).await?.is_ok(),
        "a ticket opens a stream"
    );
    ensure!(
        ask(&one, vec![], vec![]).await?.err().as_deref() == Some("ticket_invalid"),
        "a ticket opens one stream"
    );
    // On a page's WebSocket, once; who has no origin can send the header.
    let origin = "https://app.example";
    let one = ticket(json!({"stream": "observations"}), Some(origin)).await?;
    let mut dial = Dial {
        query: http::query(&[("ticket", &one)]),
        ..Dial::default()
    };
    let refused = Ws::dial(gateway.address(), &dial)
        .await?
        .err()
        .context("a WebSocket without an origin needs the header")?;
    ensure!(
        (refused.status, refused.code.as_str()) == (401, "unauthenticated"),
        "{refused:?}"
    );
    dial.headers = vec![("origin".to_owned(), origin.to_owned())];
    let opened = Ws::dial(gateway.address(), &dial).await?;
    let mut ws = opened.map_err(|refused| anyhow::anyhow!("a page's ticket: {refused:?}"))?;
    let answer = ws
        .subscribe(&json!({"id": "s", "stream": "observations"}))
        .await?;
    ensure!(answer["type"] == "subscribed", "{answer}");
    let refused = Ws::dial(gateway.address(), &dial)
        .await?
        .err()
        .context("a ticket is good once")?;
    ensure!(
        (refused.status, refused.code.as_str()) == (401, "ticket_invalid"),
        "{refused:?}"
    );
    // Bound to the origin that bought it.
    let page = ticket(json!({}), Some("https://app.example")).await?;
    ensure!(
        ask(&page, vec![], vec![]).await?.err().as_deref() == Some("ticket_invalid"),
        "without its origin"
    );
    let page = ticket(json!({}), Some("https://app.example")).await?;
    ensure!(
        ask(&page, vec![], vec![("origin", "https://app.example")])
            .await?
            .is_ok(),
        "with its origin"
    );
    // Narrowed by its filter, which cannot be widened.
    let narrow = ticket(
        json!({"stream": "observations", "where": {"patient": "Patient/1"}}),
        None,
    )
    .await?;
    let mut sse = ask(&narrow, vec![("after", "earliest"), ("status", "final")], vec![])
        .await?
        .map_err(anyhow::Error::msg)?;
    let mut plan = plan::plan(&mut dice("tickets"), 1, 60);
    plan.iter_mut().for_each(|planned| planned.tenant = "north");
    world.producer.send_all(&plan::records(&plan, &topic)).await?;
    let mut owed = plan::owed(&plan, |planned| planned.patient == 1 && planned.status == "final");
    while !owed.is_done() {
        owed.take(&sse.until("message").await?.json()?)?;
    }
    // Not by guessing, not by changing one.
    let spoilt = ticket(json!({}), None).await?;
    let spoilt: String = spoilt.chars().rev().collect();
    ensure!(
        ask(&spoilt, vec![], vec![]).await?.err().as_deref() == Some("ticket_invalid"),
        "a spoilt ticket"
    );
    // A ticket buys no ticket, and neither a stream nor a filter that is not granted can be bought.
    let again = http::post(gateway.address(), "/v1/tickets", &[], &json!({})).await?;
    ensure!(
        (again.status, again.code().as_str()) == (401, "unauthenticated"),
        "{}",
        again.text()
    );
    for (body, code) in [
        (json!({"stream": "nothing"}), "stream_forbidden"),
        (
            json!({"stream": "observations", "where": {"nothing": "1"}}),
            "unknown_parameter",
        ),
        (json!({"where": {"patient": "1"}}), "body_invalid"),
        (json!({"unknown": 1}), "unknown_parameter"),
    ] {
        let headers = [("authorization", authorization.as_str())];
        let answer = http::post(gateway.address(), "/v1/tickets", &headers, &body).await?;
        ensure!(answer.code() == code, "{body}: {}", answer.text());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cookie_serves_event_source_until_the_token_expires() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("cookie", 1).await?;
    let mut setup = world.setup(&[&topic]);
    setup.more = "[origins]\nallow = [\"https://app.example\"]\n".to_owned();
    let gateway = setup.start().await?;
    let token = world
        .issuer
        .token("north")
        .scopes(contract::USER)
        .good_for(6)
        .sign();
    let authorization = bearer(&token);
    let headers = [
        ("authorization", authorization.as_str()),
        ("origin", "https://app.example"),
    ];
    let answer = http::post(
        gateway.address(),
        "/v1/tickets",
        &headers,
        &json!({"as": "cookie"}),
    )
    .await?;
    ensure!(answer.status == 201, "{}", answer.text());
    let set = answer.header("set-cookie");
    for part in ["__Host-", "Secure", "HttpOnly", "SameSite=Strict", "Path=/"] {
        ensure!(set.contains(part), "{part} in {set}");
    }
    ensure!(!set.to_lowercase().contains("domain"), "{set}");
    let cookie = set.split(';').next().unwrap_or_default();
    let ask = |headers: Vec<(&'static str, String)>| {
        let address = gateway.address();
        async move {
            let headers = headers
                .iter()
                .map(|(name, value)| (*name, value.as_str()))
                .collect();
            let ask = Ask {
                headers,
                ..Ask::default()
            };
            anyhow::Ok(
                Sse::ask(address, "observations", &ask)
                    .await?
                    .map_err(|answer| answer.code()),
            )
        }
    };
    let page = |origin: &str| vec![("cookie", cookie.to_owned()), ("origin", origin.to_owned())];
    // Again and again, as EventSource reconnects; never from elsewhere.
    for _ in 0..3 {
        ensure!(
            ask(page("https://app.example")).await?.is_ok(),
            "the cookie serves again"
        );
    }
    ensure!(
        ask(page("https://evil.example")).await?.err().as_deref() == Some("origin_forbidden"),
        "from elsewhere"
    );
    ensure!(
        ask(page("null")).await?.err().as_deref() == Some("origin_forbidden"),
        "from nowhere"
    );
    wait::until("the cookie to expire with its token", || async {
        let refused = ask(page("https://app.example")).await.ok()?.err()?;
        (refused == "token_expired" || refused == "ticket_invalid").then_some(())
    })
    .await
}
