//! The harness itself is tried first: a Kafka that starts, stops and comes back, and an issuer whose tokens verify.

use anyhow::Result;
use serde_json::json;
use tidewire_tests::kafka::Kafka;
use tidewire_tests::producer::{Producer, Record};
use tidewire_tests::topics::Topics;
use tidewire_tests::wait;

use crate::support::beside;

#[tokio::test(flavor = "multi_thread")]
async fn kafka_comes_back_with_its_data_on_its_port() -> Result<()> {
    let _turn = beside().await;
    let kafka = Kafka::start().await?;
    let topics = Topics::new(kafka.bootstrap())?;
    topics.create("t", 2, &[]).await?;
    let producer = Producer::new(kafka.bootstrap())?;
    let record = Record::json("t", &json!({"n": 1}))
        .on(1)
        .key("k")
        .header("tenant", "north");
    assert_eq!(producer.send(&record).await?.offset, 0);
    kafka.stop().await?;
    kafka.resume().await?;
    assert_eq!(topics.bounds("t", 1).await?, (0, 1));
    assert_eq!(producer.send(&record).await?.offset, 1);

    topics.delete_records("t", 1, 1).await?;
    assert_eq!(topics.bounds("t", 1).await?, (1, 2));
    topics.grow("t", 3).await?;
    topics.delete("t").await?;

    topics.create("transactions", 1, &[]).await?;
    let transactional = Producer::transactional(kafka.bootstrap(), "promises").await?;
    transactional.begin()?;
    let record = Record::json("transactions", &json!({"n": 1})).on(0);
    transactional.send(&record).await?;
    transactional.abort().await?;
    transactional.begin()?;
    transactional.send(&record).await?;
    transactional.commit().await?;
    wait::until("two records and two markers", || async {
        (topics.bounds("transactions", 0).await.ok()? == (0, 4)).then_some(())
    })
    .await
}
