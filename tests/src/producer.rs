//! A producer that knows where each record came to lie.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::Message;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use tokio::sync::oneshot;

use crate::wait;

/// A record to be produced.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// The topic.
    pub topic: String,
    /// The partition; chosen by the key where it is not given.
    pub partition: Option<i32>,
    /// The key.
    pub key: Option<String>,
    /// The headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// The value; none is a tombstone.
    pub value: Option<Vec<u8>>,
}

/// Where a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Placed {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

impl Record {
    /// A JSON value on a topic.
    #[must_use]
    pub fn json(topic: &str, value: &serde_json::Value) -> Self {
        Self {
            topic: topic.to_owned(),
            value: Some(value.to_string().into_bytes()),
            ..Self::default()
        }
    }

    /// On this partition.
    #[must_use]
    pub fn on(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// With this key.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers
            .push((name.to_owned(), Some(value.as_ref().to_vec())));
        self
    }
}

struct Placing;

impl ClientContext for Placing {}

type Answer = oneshot::Sender<Result<Placed>>;

impl ProducerContext for Placing {
    type DeliveryOpaque = Box<Answer>;

    fn delivery(&self, result: &DeliveryResult<'_>, answer: Box<Answer>) {
        let placed = match result {
            Ok(message) => Ok(Placed {
                partition: message.partition(),
                offset: message.offset(),
            }),
            Err((error, _)) => Err(anyhow!("{error}")),
        };
        // Nobody waits for a record that was sent and forgotten.
        drop(answer.send(placed));
    }
}

/// A producer. Cheap to clone.
#[derive(Clone)]
pub struct Producer {
    inner: Arc<ThreadedProducer<Placing>>,
}

impl Producer {
    /// An idempotent producer.
    pub fn new(bootstrap: &str) -> Result<Self> {
        Self::with(bootstrap, &[])
    }

    /// A producer with properties of its own.
    pub fn with(bootstrap: &str, properties: &[(&str, &str)]) -> Result<Self> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", bootstrap)
            .set("log_level", "0")
            .set("enable.idempotence", "true")
            .set("linger.ms", "0")
            .set("socket.nagle.disable", "true");
        for (name, value) in properties {
            config.set(*name, *value);
        }
        Ok(Self {
            inner: Arc::new(config.create_with_context(Placing)?),
        })
    }

    /// A producer for transactions.
    pub async fn transactional(bootstrap: &str, id: &str) -> Result<Self> {
        let producer = Self::with(bootstrap, &[("transactional.id", id)])?;
        producer
            .blocking(|inner| inner.init_transactions(wait::DEADLINE))
            .await?;
        Ok(producer)
    }

    /// Begins a transaction.
    pub fn begin(&self) -> Result<()> {
        Ok(self.inner.begin_transaction()?)
    }

    /// Commits the transaction.
    pub async fn commit(&self) -> Result<()> {
        self.blocking(|inner| inner.commit_transaction(wait::DEADLINE))
            .await
    }

    /// Aborts the transaction.
    pub async fn abort(&self) -> Result<()> {
        self.blocking(|inner| inner.abort_transaction(wait::DEADLINE))
            .await
    }

    /// Hands a record to the client; the answer comes when Kafka has it.
    pub async fn hand_over(&self, record: &Record) -> Result<oneshot::Receiver<Result<Placed>>> {
        let (sender, receiver) = oneshot::channel();
        let mut opaque = Box::new(sender);
        loop {
            let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
            for (key, value) in &record.headers {
                headers = headers.insert(Header {
                    key,
                    value: value.as_deref(),
                });
            }
            let mut base: BaseRecord<'_, str, [u8], _> =
                BaseRecord::with_opaque_to(&record.topic, opaque).headers(headers);
            base.partition = record.partition;
            base.key = record.key.as_deref();
            base.payload = record.value.as_deref();
            match self.inner.send(base) {
                Ok(()) => return Ok(receiver),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), base)) => {
                    opaque = base.delivery_opaque;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }

    /// Produces one record.
    pub async fn send(&self, record: &Record) -> Result<Placed> {
        let answer = self.hand_over(record).await?;
        wait::within("a record to be produced", answer)
            .await?
            .context("the producer is gone")?
    }

    /// Produces records and waits until Kafka has all of them.
    pub async fn send_all(&self, records: &[Record]) -> Result<Vec<Placed>> {
        let mut answers = Vec::with_capacity(records.len());
        for record in records {
            answers.push(self.hand_over(record).await?);
        }
        let mut placed = Vec::with_capacity(records.len());
        for answer in answers {
            placed.push(
                wait::within("a record to be produced", answer)
                    .await?
                    .context("the producer is gone")??,
            );
        }
        Ok(placed)
    }

    async fn blocking(
        &self,
        work: impl FnOnce(&ThreadedProducer<Placing>) -> Result<(), KafkaError> + Send + 'static,
    ) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        Ok(tokio::task::spawn_blocking(move || work(&inner)).await??)
    }
}
