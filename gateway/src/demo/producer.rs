//! Writes the script's events to Kafka, at a rate. Knows nothing of readers.

use std::time::Duration;

use jiff::Timestamp;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::script::Script;

/// How often events are written; at high rates several at a time.
const TICK: Duration = Duration::from_millis(20);
/// How long Kafka may take to make the topics.
const CREATE_TIMEOUT: Duration = Duration::from_secs(10);
/// Partitions of a topic that the demo makes.
const PARTITIONS: i32 = 4;

/// Writes events.
pub struct Producer {
    kafka: ThreadedProducer<Context>,
    script: Script,
    events_per_second: f64,
}

/// Tells of events that Kafka did not take.
#[derive(Debug, Clone, Copy)]
struct Context;

impl rdkafka::ClientContext for Context {
    fn error(&self, error: KafkaError, _reason: &str) {
        tracing::debug!(%error, "the demo's producer");
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result {
            tracing::warn!(%error, topic = message.topic(), "an event was not written");
        }
    }
}

impl Producer {
    /// A producer to this Kafka.
    ///
    /// # Errors
    ///
    /// librdkafka refuses.
    pub fn new(bootstrap_servers: &str, script: Script, events_per_second: f64) -> Result<Self, KafkaError> {
        let kafka = ClientConfig::new()
            .set("bootstrap.servers", bootstrap_servers)
            .set("client.id", "tidewire-demo")
            .set("linger.ms", "0")
            .set("message.timeout.ms", "30000")
            .set("queue.buffering.max.messages", "10000")
            .set("log.connection.close", "false")
            .create_with_context(Context)?;
        Ok(Self {
            kafka,
            script,
            events_per_second,
        })
    }

    /// Writes events at the rate, without end. What Kafka could not take meanwhile is left out, not made up for.
    pub async fn run(mut self) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = ticks.tick().await;
        // The first event comes at once.
        let mut owed = 1.0;
        loop {
            while owed >= 1.0 {
                owed -= 1.0;
                self.write();
            }
            let now = ticks.tick().await;
            owed += pace(last, now, self.events_per_second);
            last = now;
        }
    }

    fn write(&mut self) {
        let sample = self.script.next(Timestamp::now());
        let headers = OwnedHeaders::new().insert(Header {
            key: "tenant",
            value: Some(sample.tenant.as_str()),
        });
        let record = BaseRecord::to(&sample.topic)
            .key(&sample.key)
            .payload(&sample.value)
            .headers(headers);
        if let Err((error, _)) = self.kafka.send(record) {
            tracing::debug!(%error, topic = sample.topic, "an event was left out");
        }
    }
}

/// How many events are due between two instants; at most a second's worth, however long it was.
fn pace(last: Instant, now: Instant, events_per_second: f64) -> f64 {
    now.duration_since(last).min(Duration::from_secs(1)).as_secs_f64() * events_per_second
}

impl Drop for Producer {
    fn drop(&mut self) {
        // Whoever ends the demo does not wait for its last events.
        self.kafka
            .purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
    }
}

/// Makes the topics that are missing. A topic that exists stays as it is.
///
/// # Errors
///
/// Kafka does not answer in time, or refuses.
pub async fn create_topics(
    bootstrap_servers: &str,
    topics: &[&str],
    compacted: &str,
) -> Result<(), KafkaError> {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap_servers)
        .set("client.id", "tidewire-demo")
        .create()?;
    let mut wanted: Vec<NewTopic<'_>> = topics
        .iter()
        .map(|topic| NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(-1)))
        .collect();
    wanted.push(NewTopic::new(compacted, 1, TopicReplication::Fixed(-1)).set("cleanup.policy", "compact"));
    let options = AdminOptions::new()
        .request_timeout(Some(CREATE_TIMEOUT))
        .operation_timeout(Some(CREATE_TIMEOUT));
    for result in admin.create_topics(&wanted, &options).await? {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(KafkaError::AdminOp(code)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_kept_and_a_pause_is_not_made_up_for() {
        let start = Instant::now();
        let due = |millis| pace(start, start + Duration::from_millis(millis), 50.0);
        assert!((due(20) - 1.0).abs() < 1e-9);
        assert!((due(1000) - 50.0).abs() < 1e-9);
        assert!((due(60_000) - 50.0).abs() < 1e-9);
    }
}
