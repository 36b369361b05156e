//! Topics: made, grown, deleted, and what is in them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::wait;

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(20);

/// An administrator of a cluster.
pub struct Topics {
    admin: AdminClient<DefaultClientContext>,
    eye: Arc<BaseConsumer>,
    config: ClientConfig,
}

impl Topics {
    /// An administrator of this cluster.
    pub fn new(bootstrap: &str) -> Result<Self> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap).set("log_level", "0");
        let admin = config.create()?;
        let eye = config.set("isolation.level", "read_committed").create()?;
        Ok(Self {
            admin,
            eye: Arc::new(eye),
            config,
        })
    }

    /// Makes a topic and waits until each partition has a leader.
    pub async fn create(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) -> Result<()> {
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        for (name, value) in settings {
            new = new.set(name, value);
        }
        for answer in self.admin.create_topics([&new], &options()).await? {
            if let Err((topic, code)) = answer {
                bail!("creating {topic}: {code}");
            }
        }
        self.wait_for(topic, Some(partitions)).await
    }

    /// Gives a topic more partitions.
    pub async fn grow(&self, topic: &str, partitions: i32) -> Result<()> {
        let count = usize::try_from(partitions)?;
        for answer in self
            .admin
            .create_partitions([&NewPartitions::new(topic, count)], &options())
            .await?
        {
            if let Err((topic, code)) = answer {
                bail!("growing {topic}: {code}");
            }
        }
        self.wait_for(topic, Some(partitions)).await
    }

    /// Deletes a topic and waits until it is gone.
    pub async fn delete(&self, topic: &str) -> Result<()> {
        for answer in self.admin.delete_topics(&[topic], &options()).await? {
            if let Err((topic, code)) = answer {
                bail!("deleting {topic}: {code}");
            }
        }
        self.wait_for(topic, None).await
    }

    /// Deletes what is before an offset, as retention would.
    pub async fn delete_records(&self, topic: &str, partition: i32, before: i64) -> Result<()> {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(topic, partition, Offset::Offset(before))?;
        for answer in self.admin.delete_records(&offsets, &options()).await?.elements() {
            answer.error()?;
        }
        let (start, _) = self.bounds(topic, partition).await?;
        ensure!(
            start == before,
            "{topic}/{partition} begins at {start}, not at {before}"
        );
        Ok(())
    }

    /// The first offset of a partition, and the one after the last that a `read_committed` reader sees.
    pub async fn bounds(&self, topic: &str, partition: i32) -> Result<(i64, i64)> {
        let (eye, topic) = (Arc::clone(&self.eye), topic.to_owned());
        Ok(tokio::task::spawn_blocking(move || eye.fetch_watermarks(&topic, partition, REQUEST)).await??)
    }

    /// The offsets of all records of a partition that exist now.
    pub async fn offsets(&self, topic: &str, partition: i32) -> Result<Vec<i64>> {
        let (_, end) = self.bounds(topic, partition).await?;
        let config = self.config.clone();
        let topic = topic.to_owned();
        tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = config
                .clone()
                .set("enable.partition.eof", "true")
                .set("group.id", "promises")
                .create()?;
            let mut from = TopicPartitionList::new();
            from.add_partition_offset(&topic, partition, Offset::Beginning)?;
            consumer.assign(&from)?;
            let mut offsets = Vec::new();
            loop {
                match consumer.poll(REQUEST) {
                    Some(Ok(message)) => {
                        offsets.push(message.offset());
                        if message.offset() + 1 >= end {
                            return Ok(offsets);
                        }
                    }
                    Some(Err(KafkaError::PartitionEOF(_))) => return Ok(offsets),
                    Some(Err(error)) => return Err(error.into()),
                    None => bail!("{topic}/{partition} was not read to its end"),
                }
            }
        })
        .await?
    }

    /// What a group has committed of a topic, summed over its partitions: how far it is.
    pub async fn committed(&self, group: &str, topic: &str, partitions: i32) -> Result<i64> {
        let config = self.config.clone();
        let (group, topic) = (group.to_owned(), topic.to_owned());
        tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = config.clone().set("group.id", group).create()?;
            let mut wanted = TopicPartitionList::new();
            wanted.add_partition_range(&topic, 0, partitions - 1);
            let committed = consumer.committed_offsets(wanted, REQUEST)?;
            let offsets = committed.elements();
            Ok(offsets
                .iter()
                .map(|element| element.offset().to_raw().unwrap_or(0).max(0))
                .sum())
        })
        .await?
    }

    /// Waits until a topic has so many partitions with leaders, or is gone.
    async fn wait_for(&self, topic: &str, partitions: Option<i32>) -> Result<()> {
        wait::until(format!("topic {topic} to have {partitions:?} partitions"), || {
            let (eye, topic) = (Arc::clone(&self.eye), topic.to_owned());
            async move {
                let metadata = tokio::task::spawn_blocking(move || {
                    eye.fetch_metadata(None, REQUEST).map(|all| {
                        all.topics().iter().find(|one| one.name() == topic).map(|one| {
                            one.partitions()
                                .iter()
                                .filter(|partition| partition.leader() >= 0)
                                .count()
                        })
                    })
                });
                let have = metadata.await.ok()?.ok()?;
                match (have, partitions) {
                    (None, None) => Some(()),
                    (Some(have), Some(want)) if usize::try_from(want) == Ok(have) => Some(()),
                    _ => None,
                }
            }
        })
        .await
    }
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(REQUEST))
        .operation_timeout(Some(REQUEST))
}
