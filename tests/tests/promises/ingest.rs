//! What comes from Kafka: formats, tenants from everywhere, and records that are no events.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Headers;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde_json::json;
use tidewire_tests::plan;
use tidewire_tests::producer::Record;
use tidewire_tests::reader::{Reader, Surface, Want};
use tidewire_tests::volume::dice;
use tidewire_tests::wait;

use crate::support::{World, unique};

/// The letters of a dead-letter topic: key and headers.
pub(crate) async fn letters(
    bootstrap: &str,
    topic: &str,
    count: usize,
) -> Result<Vec<(String, BTreeMap<String, String>)>> {
    let (bootstrap, topic) = (bootstrap.to_owned(), topic.to_owned());
    tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", "promises")
            .create()?;
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(&topic, 0, Offset::Beginning)?;
        consumer.assign(&from)?;
        let mut letters = Vec::new();
        while letters.len() < count {
            let message = consumer
                .poll(Duration::from_secs(20))
                .context("a dead letter")??;
            let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
            let headers = message.headers().context("headers")?;
            let headers = headers.iter().map(|header| {
                (
                    header.key.to_owned(),
                    String::from_utf8_lossy(header.value.unwrap_or_default()).into_owned(),
                )
            });
            letters.push((key, headers.collect()));
        }
        Ok(letters)
    })
    .await?
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_event_goes_to_the_dead_letters_and_the_stream_goes_on() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("rejected", 1).await?;
    let dead = world.topic("dead", 1).await?;
    let mut setup = world.setup(&[&topic]);
    setup.kafka = format!("dead_letter_topic = {dead:?}");
    let gateway = setup.start().await?;
    let mut reader = Reader::open(
        Surface::WebSocket,
        gateway.address(),
        Want::new("observations", &world.user("north")),
    )
    .await?;
    let body = json!({"partition": 0, "n": 0});
    let raw = |value: &str| {
        Record {
            topic: topic.clone(),
            value: Some(value.into()),
            ..Record::default()
        }
        .on(0)
    };
    let bad = [
        (Record::json(&topic, &body).on(0), "tenant_missing"),
        (
            Record::json(&topic, &body)
                .on(0)
                .header("tenant", "north")
                .header("tenant", "south"),
            "tenant_duplicate",
        ),
        (
            Record::json(&topic, &body).on(0).header("tenant", ""),
            "tenant_invalid",
        ),
        (
            Record::json(&topic, &body).on(0).header("tenant", "north/south"),
            "tenant_invalid",
        ),
        (raw("{\"a\":").header("tenant", "north"), "json_invalid"),
        (raw("").header("tenant", "north"), "json_invalid"),
        (
            raw("{\"a\":1,\"\\u0061\":2}").header("tenant", "north"),
            "json_duplicate_member",
        ),
    ];
    let mut wanted = Vec::new();
    for (record, reason) in &bad {
        let placed = world.producer.send(record).await?;
        wanted.push((format!("{topic}:0:{}", placed.offset), (*reason).to_owned()));
    }
    let good = json!({"partition": 0, "n": 1});
    world
        .producer
        .send(&Record::json(&topic, &good).on(0).header("tenant", "north"))
        .await?;
    let event = reader.event().await?;
    ensure!(event["data"]["n"] == 1, "{event}");
    let letters = letters(world.kafka.bootstrap(), &dead, bad.len()).await?;
    let told: Vec<(String, String)> = letters
        .iter()
        .map(|(key, headers)| {
            let ends = |name: &str| {
                headers
                    .iter()
                    .find(|(key, _)| key.ends_with(name))
                    .map(|(_, value)| value.clone())
            };
            (key.clone(), ends("reason").unwrap_or_default())
        })
        .collect();
    ensure!(told == wanted, "{told:?} instead of {wanted:?}");
    let (_, headers) = &letters[0];
    for (name, value) in [
        ("stream", "observations"),
        ("topic", topic.as_str()),
        ("partition", "0"),
        ("offset", "0"),
    ] {
        let found = headers
            .iter()
            .any(|(key, found)| key.ends_with(name) && found == value);
        ensure!(found, "{name} in {headers:?}");
    }
    ensure!(
        gateway.metric("source_rejected_total", &[]).await? >= 7.0,
        "they are counted"
    );
    // A replay passes over them, and writes no letters of its own.
    let want = Want::new("observations", &world.user("north")).after("earliest");
    let event = Reader::open(Surface::Pull, gateway.address(), want)
        .await?
        .event()
        .await?;
    ensure!(event["data"]["n"] == 1, "{event}");
    // One more bad record: its letter is the next one, so the replay has written none.
    let placed = world.producer.send(&bad[0].0).await?;
    let letters = self::letters(world.kafka.bootstrap(), &dead, bad.len() + 1).await?;
    ensure!(
        letters
            .last()
            .is_some_and(|(key, _)| *key == format!("{topic}:0:{}", placed.offset)),
        "{letters:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn cloudevents_come_binary_and_structured_and_cannot_override_what_is_declared() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("cloudevents", 1).await?;
    let mut setup = world.setup(&[&topic]);
    setup.streams = setup
        .streams
        .replace("format = \"json\"", "format = \"cloudevents\"");
    let gateway = setup.start().await?;
    let mut reader = Reader::open(
        Surface::WebSocket,
        gateway.address(),
        Want::new("observations", &world.user("north")),
    )
    .await?;
    let data = json!({"status": "final", "subject": {"reference": "Patient/1"}});
    let binary = Record::json(&topic, &data)
        .on(0)
        .header("tenant", "north")
        .header("content-type", "application/json")
        .header("ce_specversion", "1.0")
        .header("ce_id", "e1")
        .header("ce_source", "/hospital")
        .header("ce_type", "org.example.observed")
        .header("ce_time", "2026-01-02T03:04:05Z")
        .header("ce_ward", "seven")
        .header("ce_status", "forged");
    let structured = json!({
        "specversion": "1.0", "id": "e2", "source": "/hospital", "type": "org.example.observed",
        "time": "2026-01-02T03:04:05Z", "ward": "eight", "patient": "Patient/9", "data": data,
    });
    let structured = Record::json(&topic, &structured)
        .on(0)
        .header("tenant", "north")
        .header("content-type", "application/cloudevents+json; charset=utf-8");
    let broken = Record::json(&topic, &json!({"specversion": "0.3"}))
        .on(0)
        .header("tenant", "north")
        .header("content-type", "application/cloudevents+json");
    world.producer.send_all(&[binary, broken, structured]).await?;
    for (id, ward) in [("e1", "seven"), ("e2", "eight")] {
        let event = reader.event().await?;
        ensure!(event["id"] == id && event["source"] == "/hospital", "{event}");
        ensure!(
            event["time"]
                .as_str()
                .is_some_and(|time| time.starts_with("2026-01-02T03:04:05")),
            "{event}"
        );
        ensure!(event["ward"] == ward, "a producer's own attribute: {event}");
        ensure!(
            event["status"] == "final" && event["patient"] == "Patient/1",
            "declared ones come from the data: {event}"
        );
        ensure!(event["data"] == data && event["tenant"] == "north", "{event}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tenant_comes_from_the_topic_the_key_or_the_value_too() -> Result<()> {
    let world = World::new().await?;
    let family = unique("tenants");
    let kinds = [
        (
            "{ topic = \"{tenant}\" }",
            format!("{family}.{{tenant}}.topic"),
            format!("{family}.north.topic"),
        ),
        (
            "{ key = \"prefix\" }",
            format!("{family}-key"),
            format!("{family}-key"),
        ),
        (
            "{ pointer = \"/meta/tenant\" }",
            format!("{family}-value"),
            format!("{family}-value"),
        ),
    ];
    for (tenant, pattern, topic) in kinds {
        let mut setup = world.setup(&[&pattern]);
        setup.streams = setup.streams.replace("{ header = \"tenant\" }", tenant);
        world.topics.create(&topic, 2, &[]).await?;
        if tenant.contains("topic") {
            world
                .topics
                .create(&topic.replace("north", "south"), 2, &[])
                .await?;
        }
        let gateway = setup.start().await?;
        let mut open = Vec::new();
        for tenant in plan::TENANTS {
            for surface in Surface::ALL {
                let want = Want::new("observations", &world.user(tenant));
                open.push((
                    tenant,
                    surface,
                    Reader::open(surface, gateway.address(), want).await?,
                ));
            }
        }
        let plan = plan::plan(&mut dice("tenants"), 2, 60);
        let records = plan.iter().map(|planned| {
            let topic = topic.replace("north", planned.tenant);
            let value =
                json!({"partition": planned.partition, "n": planned.n, "meta": {"tenant": planned.tenant}});
            Record::json(&topic, &value)
                .on(planned.partition)
                .key(format!("{}:{}", planned.tenant, planned.n))
        });
        world.producer.send_all(&records.collect::<Vec<_>>()).await?;
        for (whose, surface, mut reader) in open {
            let mut owed = plan::owed(&plan, |planned| planned.tenant == whose);
            let read = crate::delivery::take_all(&mut reader, &mut owed).await;
            read.with_context(|| format!("{tenant}, {whose}, {surface:?}"))?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tombstone_with_its_tenant_in_headers_is_told_as_deleted() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("tombstones", 1).await?;
    let mut setup = world.setup(&[&topic]);
    setup.streams = setup
        .streams
        .replace("show_offsets", "deletes = \"headers\"\nshow_offsets");
    let gateway = setup.start().await?;
    let mut user = Reader::open(
        Surface::WebSocket,
        gateway.address(),
        Want::new("observations", &world.user("north")),
    )
    .await?;
    let want = Want::new("observations", &world.patient("north", "1"));
    let mut patient = Reader::open(Surface::Sse, gateway.address(), want).await?;
    let tombstone = |patient: &str| {
        let record = Record {
            topic: topic.clone(),
            ..Record::default()
        }
        .on(0)
        .key(format!("Observation/of-{patient}"));
        record
            .header("tenant", "north")
            .header("patient", format!("Patient/{patient}"))
    };
    let nobodys = Record {
        topic: topic.clone(),
        ..Record::default()
    }
    .on(0)
    .key("Observation/nobodys");
    world
        .producer
        .send_all(&[tombstone("2"), nobodys, tombstone("1")])
        .await?;
    for of in ["2", "1"] {
        let event = user.event().await?;
        ensure!(event["type"] == "tidewire.observations.deleted", "{event}");
        ensure!(
            event["subject"] == format!("Observation/of-{of}") && event.get("data").is_none(),
            "{event}"
        );
    }
    let event = patient.event().await?;
    ensure!(event["patient"] == "Patient/1", "{event}");
    wait::until("the tombstone of nobody to be counted", || async {
        (gateway.metric("source_rejected_total", &[]).await.ok()? >= 1.0).then_some(())
    })
    .await
}
