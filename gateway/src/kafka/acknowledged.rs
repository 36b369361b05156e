//! A producer that tells of each record where it lies, once all replicas that are in sync have it.
//!
//! Invariant: its thread sleeps while nothing is under way. (`ThreadedProducer` polls ten times a second, and spins through
//! the last millisecond of each poll: a hundredth of a core for nothing.)

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::{ClientConfig, ClientContext};
use tokio::sync::oneshot;

use super::client::Context;

/// How often a producer without records under way is looked after: errors to be logged, tokens to be refreshed.
const IDLE: Duration = Duration::from_secs(1);
/// How long one poll takes while records are under way; what is acknowledged meanwhile is told at once.
const POLL: Duration = Duration::from_millis(100);

/// Where a record lies: partition and offset; or why it was not written.
pub(super) type Acknowledgement = Result<(i32, i64), KafkaError>;

/// See the module. Dropping it gives up what is under way: whoever waits learns that nobody knows.
pub(super) struct Acknowledged {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    producer: BaseProducer<Delivery>,
    stops: Mutex<bool>,
    wake: Condvar,
}

impl Acknowledged {
    /// A producer with this configuration, and its thread.
    pub(super) fn new(config: &ClientConfig) -> KafkaResult<Self> {
        let shared = Arc::new(Shared {
            producer: config.create_with_context(Delivery)?,
            stops: Mutex::new(false),
            wake: Condvar::new(),
        });
        let polled = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("kafka-producer".to_owned())
            .spawn(move || polled.run())
            .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Hands over a record; no value is a tombstone. What is given tells when it is written; dropped, nobody is told.
    pub(super) fn send(
        &self,
        topic: &str,
        key: &[u8],
        value: Option<&[u8]>,
        headers: Option<OwnedHeaders>,
    ) -> KafkaResult<oneshot::Receiver<Acknowledgement>> {
        let (told, acknowledged) = oneshot::channel();
        let mut record = BaseRecord::with_opaque_to(topic, Box::new(told)).key(key);
        record.payload = value;
        record.headers = headers;
        self.shared.producer.send(record).map_err(|(error, _)| error)?;
        drop(self.shared.lock());
        self.shared.wake.notify_one();
        Ok(acknowledged)
    }

    /// Connects to who has the topic. Blocks for a second at most.
    pub(super) fn connect(&self, topic: &str) -> KafkaResult<()> {
        let client = self.shared.producer.client();
        client
            .fetch_metadata(Some(topic), Duration::from_secs(1))
            .map(drop)
    }

    /// Whether it has failed for good, as an idempotent producer can: another one is needed.
    pub(super) fn has_failed(&self) -> bool {
        self.shared.producer.client().fatal_error().is_some()
    }
}

impl Drop for Acknowledged {
    fn drop(&mut self) {
        *self.shared.lock() = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Shared {
    fn run(&self) {
        loop {
            let stops = self.lock();
            let idle = |stops: &mut bool| !*stops && self.producer.in_flight_count() == 0;
            let (stops, _) = self
                .wake
                .wait_timeout_while(stops, IDLE, idle)
                .unwrap_or_else(PoisonError::into_inner);
            if *stops {
                return;
            }
            drop(stops);
            let is_busy = self.producer.in_flight_count() > 0;
            self.producer.poll(if is_busy { POLL } else { Duration::ZERO });
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, bool> {
        self.stops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells whoever waits.
struct Delivery;

impl ClientContext for Delivery {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Context.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Context.error(error, reason);
    }
}

impl ProducerContext for Delivery {
    type DeliveryOpaque = Box<oneshot::Sender<Acknowledgement>>;

    fn delivery(&self, result: &DeliveryResult<'_>, told: Self::DeliveryOpaque) {
        // Whoever waited may be gone.
        drop(told.send(match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(error.clone()),
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::super::embedded::Broker;
    use super::super::testing::settings;
    use super::*;

    #[tokio::test]
    async fn each_record_is_told_of_with_its_place_also_after_a_silence() {
        let broker = Broker::start(["a"], 1).expect("a broker");
        let producer = Acknowledged::new(&settings(&broker).producer()).expect("a producer");
        producer.connect("a").expect("connected");
        for offset in 0..3 {
            let told = producer.send("a", b"key", Some(b"value"), None).expect("taken");
            let told = tokio::time::timeout(Duration::from_secs(20), told).await;
            assert_eq!(told.expect("in time").expect("told"), Ok((0, offset)));
            // It sleeps meanwhile.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(!producer.has_failed());
    }

    #[tokio::test]
    async fn whoever_waits_when_it_ends_learns_that_nobody_knows() {
        let broker = Broker::start(["a"], 1).expect("a broker");
        let mut config = settings(&broker).producer();
        config
            .set("linger.ms", "60000")
            .set("message.timeout.ms", "120000");
        let producer = Acknowledged::new(&config).expect("a producer");
        let told = producer.send("a", b"key", None, None).expect("taken");
        drop(producer);
        let told = tokio::time::timeout(Duration::from_secs(20), told)
            .await
            .expect("in time");
        assert!(!matches!(told, Ok(Ok(_))), "{told:?}");
    }
}
