//! Nobody is called who may not be: by no spelling of a URL, by no name, by no redirect.

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tidewire_tests::partner::ENDPOINTS;
use tidewire_tests::plan::Planned;
use tidewire_tests::receiver::{Answer, Behaviour, Receiver};
use tidewire_tests::volume::say;
use tidewire_tests::wait;

use crate::support::World;

/// Hosts that stand for places that are not the internet, each as a client could spell it.
const HOSTS: [&str; 62] = [
    // This machine.
    "127.0.0.1",
    "127.8.9.10",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0x7f.0x0.0x0.0x1",
    "0177.0.0.1",
    "017700000001",
    "127.0.0.1.",
    "%31%32%37.0.0.1",
    "127。0。0。1",
    "①②⑦.0.0.1",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "[fe80::5efe:127.0.0.1]",
    "0.0.0.0",
    "0",
    "0x0",
    "[::]",
    // Metadata of clouds, link-local.
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "169.254.43518",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:a9fe:a9fe::1]",
    "[fd00:ec2::254]",
    "[fe80::1]",
    "168.63.129.16",
    "100.100.100.200",
    // Private networks.
    "10.0.0.1",
    "10.1",
    "012.0.0.1",
    "0xa.0.0.1",
    "167772161",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "192.168.257",
    "3232235521",
    "[::ffff:10.0.0.1]",
    "[fc00::1]",
    "[fec0::1]",
    // Shared, reserved, documentation, multicast, broadcast.
    "100.64.0.1",
    "192.0.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "255.255.255.255",
    "[ff02::1]",
];

/// URLs that are none to call, whatever they name.
const URLS: [&str; 16] = [
    "http://partner.example/plain",
    "ftp://partner.example/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:6379/_PING",
    "unix:/var/run/docker.sock",
    "data:text/plain,hello",
    "javascript:alert(1)",
    "https://user:password@partner.example/",
    "https://user@partner.example/",
    "https://127.0.0.1@partner.example/",
    "https://",
    "https://:443/",
    "//partner.example/",
    "/path",
    "https://partner.example/#fragment",
    "https://partner.example/\r\nhost: 127.0.0.1",
];

/// How many tenants ask.
const TENANTS: usize = 12;

#[tokio::test(flavor = "multi_thread")]
async fn hostile_urls_are_refused_before_a_connection_is_made() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("guarded", 1).await?;
    let mut webhooks = world.webhooks().await?;
    webhooks.allow_loopback = false;
    let gateway = world.setup(&[&topic]).webhooks(&webhooks).start().await?;
    // Several tenants: of each only so many changes a second are taken.
    let mut partners = Vec::new();
    for place in 0..TENANTS {
        let partner = world.partner(&gateway, &format!("tenant{place}"));
        let good = json!({"url": "https://partner.example/", "streams": ["observations"], "enabled": false});
        let made = partner.make(&good).await.context("a URL that may be called")?;
        partners.push((partner, made));
    }
    // Whoever is reached all the same is reached here.
    let victim = Receiver::start().await?;
    let port = victim.address().port();
    let mut urls: Vec<(String, &[&str])> = Vec::new();
    for host in HOSTS {
        urls.push((
            format!("https://{host}:{port}/"),
            &["url_forbidden", "url_invalid"],
        ));
    }
    for url in URLS {
        urls.push((url.to_owned(), &["url_invalid"]));
    }
    // Plain HTTP to them is wrong twice.
    for host in ["127.0.0.1", "localhost", "[::1]", "2130706433"] {
        urls.push((
            format!("http://{host}:{port}/"),
            &["url_forbidden", "url_invalid"],
        ));
    }
    for ((url, codes), (partner, good)) in urls.iter().zip(partners.iter().cycle()) {
        let body = json!({"url": url, "streams": ["observations"]});
        let answer = partner.post(&body).await?;
        let code = answer.code();
        ensure!(
            answer.status == 400 && codes.contains(&code.as_str()),
            "{url}: {} {}",
            answer.status,
            answer.text()
        );
        // The same where it comes in by a change, and where a token is to be fetched.
        let path = format!("{ENDPOINTS}/{}", good.id);
        let tag = [("if-match", good.etag.as_str())];
        let patch = json!({"url": url});
        let answer = partner.ask(Method::PATCH, &path, &tag, Some(&patch)).await?;
        ensure!(
            answer.status == 400 && answer.code() == code,
            "{url}: {} {}",
            answer.status,
            answer.text()
        );
        let token = json!({
            "url": "https://partner.example/", "streams": ["observations"],
            "credentials": {"type": "oauth2", "token_url": url, "client_id": "a", "client_secret": "b"},
        });
        let answer = partner.post(&token).await?;
        ensure!(
            answer.status == 400 && answer.code() == code,
            "token_url {url}: {} {}",
            answer.status,
            answer.text()
        );
    }
    let (partner, _) = &partners[0];
    // A name is looked at when it is connected to, whatever asks for it: a delivery, a test, a handshake.
    for host in ["localhost", "localhost.", "LOCALHOST", "ip6-localhost"] {
        let url = format!("https://{host}:{port}/");
        let body = json!({"url": url, "streams": ["observations"]});
        let answer = partner.post(&body).await?;
        if answer.status == 400 {
            ensure!(answer.code() == "url_forbidden", "{url}: {}", answer.text());
            continue;
        }
        ensure!(answer.status == 201, "{url}: {} {}", answer.status, answer.text());
        let id = answer.json()?["id"].as_str().context("an id")?.to_owned();
        let said = partner.tell(&id, "test", None).await?;
        let outcome = said["outcome"].as_str().unwrap_or_default();
        ensure!(
            ["address", "dns"].contains(&outcome) && said["status"].is_null(),
            "{url}: {said}"
        );
    }
    ensure!(
        victim.connections() == 0,
        "{} connections were made",
        victim.connections()
    );
    say(&format!(
        "webhooks guarded: {} hostile URLs as url, as a change and as token_url, each refused, 0 connections",
        urls.len()
    ));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_failures_and_are_never_followed() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("redirected", 1).await?;
    let gateway = world
        .setup(&[&topic])
        .webhooks(&world.webhooks().await?)
        .start()
        .await?;
    let receiver = Receiver::start().await?;
    let victim = Receiver::start().await?;
    let treasure = victim.hook("treasure", Behaviour::good());
    let to = treasure.url.clone();
    let answers = vec![Answer::Redirect(to.clone()), Answer::Redirect(to)];
    let hook = receiver.hook("redirecting", Behaviour::first(answers));
    let partner = world.partner(&gateway, "north");
    let made = partner
        .hook(
            &hook,
            &["observations"],
            json!({"content": "raw", "retry_seconds": [1, 1, 1]}),
        )
        .await?;
    let planned = Planned {
        tenant: "north",
        patient: 1,
        status: "final",
        partition: 0,
        n: 0,
        padding: 0,
    };
    world.producer.send(&planned.record(&topic)).await?;
    wait::until_true("the third attempt", || hook.taken() == 1)
        .await
        .with_context(|| gateway.log_tail())?;
    let attempts = wait::until("the attempts on record", || async {
        let attempts = partner.attempts(&format!("endpoint={}", made.id)).await.ok()?;
        (attempts.len() == 3).then_some(attempts)
    })
    .await?;
    let redirected = |attempt: &&Value| attempt["status"] == 307;
    ensure!(attempts.iter().filter(redirected).count() == 2, "{attempts:?}");
    ensure!(
        victim.connections() == 0 && treasure.count() == 0,
        "a redirect was followed"
    );
    Ok(())
}
