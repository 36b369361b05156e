//! Issuers' algorithms and keys: what is verified, and how keys change.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tidewire_tests::contract;
use tidewire_tests::jws::Key;
use tidewire_tests::plan;
use tidewire_tests::reader::{Reader, Surface, Want};
use tidewire_tests::volume::{dice, say};
use tidewire_tests::wait;

use crate::support::World;

#[tokio::test(flavor = "multi_thread")]
async fn every_algorithm_of_the_list_is_verified() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("algorithms", 1).await?;
    let keys = [
        (
            Key::rsa("rsa"),
            vec!["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
        ),
        (Key::ec("p256", "P-256"), vec!["ES256"]),
        (Key::ec("p384", "P-384"), vec!["ES384"]),
        (Key::ec("p521", "P-521"), vec!["ES512"]),
        (Key::ed25519("ed"), vec!["EdDSA"]),
    ];
    for (key, _) in &keys {
        world.issuer.publish(key.jwk());
    }
    let gateway = world.setup(&[&topic]).start().await?;
    let claims = world.issuer.token("north").scopes(contract::USER).claims();
    for (key, algorithms) in &keys {
        for algorithm in algorithms {
            let token = key.sign_with(&json!({"alg": algorithm, "kid": key.kid}), &claims);
            let want = Want::new("observations", &token);
            Reader::open(Surface::Pull, gateway.address(), want)
                .await
                .with_context(|| (*algorithm).to_owned())?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_rotate_without_a_restart_and_unknown_ones_cannot_hammer_the_issuer() -> Result<()> {
    let mut world = World::new().await?;
    let topic = world.topic("rotation", 1).await?;
    let gateway = world.setup(&[&topic]).start().await?;
    let before = world.user("north");
    let mut open = Reader::open(
        Surface::WebSocket,
        gateway.address(),
        Want::new("observations", &before),
    )
    .await?;
    world.issuer.rotate(Key::ec("second", "P-256"), true);
    let after = world.user("north");
    // Refetching is rate-limited, so a new key may take a moment: that is a condition to wait for.
    wait::until("the new key to be known", || async {
        let opened = Reader::try_open(
            Surface::Pull,
            gateway.address(),
            Want::new("observations", &after),
        )
        .await;
        matches!(opened, Ok(Ok(_))).then_some(())
    })
    .await?;
    Reader::open(
        Surface::Pull,
        gateway.address(),
        Want::new("observations", &before),
    )
    .await?;

    let fetches = world.issuer.fetches();
    for n in 0..200 {
        let stranger = Key::ed25519(&format!("stranger-{n}")).sign(&world.issuer.token("north").claims());
        let opened = Reader::try_open(
            Surface::Pull,
            gateway.address(),
            Want::new("observations", &stranger),
        )
        .await?;
        ensure!(
            opened.err().as_deref() == Some("token_invalid"),
            "a stranger's key"
        );
    }
    let more = world.issuer.fetches() - fetches;
    ensure!(more <= 20, "200 unknown keys cost {more} fetches");

    // With the issuer gone, known keys serve on, and open sessions do not notice.
    world.issuer.fall_silent();
    Reader::open(
        Surface::Pull,
        gateway.address(),
        Want::new("observations", &after),
    )
    .await?;
    let plan = plan::plan(&mut dice("rotation"), 1, 10);
    world.producer.send_all(&plan::records(&plan, &topic)).await?;
    crate::delivery::take_all(
        &mut open,
        &mut plan::owed(&plan, |planned| planned.tenant == "north"),
    )
    .await?;
    say(&format!(
        "tokens: 200 unknown keys cost {more} fetches of the issuer's keys"
    ));
    Ok(())
}
