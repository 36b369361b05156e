//! Records that we write ourselves and wait for: dead letters of deliveries, operational events.
//!
//! Invariant: what [`Letters::send`] has answered with `Ok` is in Kafka, acknowledged by all replicas that are in sync.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};

use super::acknowledged::Acknowledged;
use super::client::Context;
use super::settings::KafkaSettings;

/// A record.
#[derive(Debug, Clone)]
pub(crate) struct Letter {
    pub(crate) topic: Arc<str>,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
}

/// It was not written. Trying again may help.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the record was not written")]
pub(crate) struct Unwritten;

/// A producer. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Letters {
    producer: Arc<Acknowledged>,
}

impl Letters {
    pub(crate) fn new(settings: &KafkaSettings) -> KafkaResult<Self> {
        Ok(Self {
            producer: Arc::new(Acknowledged::new(&settings.producer())?),
        })
    }

    /// Writes a record and waits until it is there. Dropped while it waits, it may be written all the same.
    pub(crate) async fn send(&self, letter: Letter) -> Result<(), Unwritten> {
        let mut headers = OwnedHeaders::new_with_capacity(letter.headers.len());
        for (name, value) in &letter.headers {
            headers = headers.insert(Header {
                key: name,
                value: Some(value),
            });
        }
        let unwritten = |error: KafkaError| {
            tracing::debug!(%error, topic = &*letter.topic, "a record was not written");
            Unwritten
        };
        let acknowledged = self
            .producer
            .send(&letter.topic, &letter.key, Some(&letter.value), Some(headers))
            .map_err(unwritten)?;
        match acknowledged.await {
            Ok(written) => written.map(drop).map_err(unwritten),
            Err(_) => Err(Unwritten),
        }
    }
}

/// Makes topics that are missing, as well as can be: an existing one is left as it is, and a cluster that does not let us
/// is told of in the log. The embedded broker makes topics at the first record.
pub(crate) async fn create_topics(settings: &KafkaSettings, topics: &[&str]) {
    if settings.embedded {
        return;
    }
    let created = async {
        let admin: AdminClient<Context> = settings.producer().create_with_context(Context)?;
        let topics: Vec<NewTopic<'_>> = topics
            .iter()
            .map(|topic| NewTopic::new(topic, 1, TopicReplication::Fixed(-1)))
            .collect();
        let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(5)));
        for result in admin.create_topics(&topics, &options).await? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => tracing::warn!(topic, %code, "a topic of webhooks was not made"),
            }
        }
        Ok::<_, KafkaError>(())
    };
    if let Err(error) = created.await {
        tracing::warn!(%error, "the topics of webhooks were not made");
    }
}
