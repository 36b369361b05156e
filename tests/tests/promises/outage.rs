//! Kafka goes and comes back under live sessions.

use anyhow::{Context, Result, bail, ensure};
use tidewire_tests::contract;
use tidewire_tests::gateway::Setup;
use tidewire_tests::issuer::Issuer;
use tidewire_tests::kafka::Kafka;
use tidewire_tests::plan;
use tidewire_tests::producer::Producer;
use tidewire_tests::reader::{Item, Reader, Surface, Want};
use tidewire_tests::topics::Topics;
use tidewire_tests::volume::{dice, say, volume};
use tidewire_tests::wait;
use tokio::task::JoinSet;

use crate::support::beside;

#[tokio::test(flavor = "multi_thread")]
async fn kafka_stopped_and_started_loses_nothing_and_no_session() -> Result<()> {
    let _turn = beside().await;
    let kafka = Kafka::start().await?;
    let issuer = Issuer::start().await?;
    Topics::new(kafka.bootstrap())?
        .create("observations", 3, &[])
        .await?;
    let producer = Producer::new(kafka.bootstrap())?;
    let mut setup = Setup::new(
        kafka.bootstrap(),
        &issuer,
        contract::observations(&["observations"]),
    );
    setup.kafka = "stale_after_ms = 1000".to_owned();
    let gateway = setup.start().await?;

    let outages = volume(2, 5);
    let plan = plan::plan(&mut dice("outage"), 3, outages * 400);
    let token = issuer.token("north").scopes(contract::USER).sign();
    let mut reading = JoinSet::new();
    let (stale_told, mut stale) = tokio::sync::mpsc::channel(64);
    for surface in [Surface::WebSocket, Surface::Sse] {
        let mut reader = Reader::open(surface, gateway.address(), Want::new("observations", &token)).await?;
        let mut owed = plan::owed(&plan, |planned| planned.tenant == "north");
        let stale_told = stale_told.clone();
        reading.spawn(async move {
            while !owed.is_done() {
                match reader
                    .next()
                    .await
                    .with_context(|| format!("{surface:?}, {} owed", owed.left()))?
                {
                    Item::Event(event) => owed.take(&event)?,
                    Item::Live | Item::Quiet => {}
                    Item::Other(kind, _) if kind == "stale" => stale_told.send(surface).await?,
                    other => bail!("{surface:?}: {other:?}"),
                }
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    let sessions_before = gateway.sessions().await?.len();
    for part in plan.chunks(400) {
        let (before, after) = part.split_at(200);
        producer.send_all(&plan::records(before, "observations")).await?;
        kafka.stop().await?;
        // Both are told that what they see is no longer fresh; neither is closed.
        let mut told = Vec::new();
        while told.len() < 2 {
            tokio::select! {
                surface = wait::within("stale to be told", stale.recv()) => {
                    let surface = surface?.context("the readers go on")?;
                    if !told.contains(&surface) {
                        told.push(surface);
                    }
                }
                Some(ended) = reading.join_next() => bail!("a session ended in the outage: {ended:?}"),
            }
        }
        ensure!(
            gateway.sessions().await?.len() == sessions_before,
            "sessions stay"
        );
        kafka.resume().await?;
        producer.send_all(&plan::records(after, "observations")).await?;
        // Until the gateway knows that Kafka is back, another outage would be the same one to it.
        wait::until("the gateway to find kafka again", || async {
            (gateway.metric("source_reachable", &[]).await.ok()? >= 1.0).then_some(())
        })
        .await?;
    }
    while let Some(reader) = reading.join_next().await {
        reader??;
    }
    say(&format!(
        "outage: {outages} times, {} events, 2 sessions stayed, nothing lost",
        plan.len()
    ));
    Ok(())
}
