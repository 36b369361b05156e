//! What is configured of Kafka, and the librdkafka properties that follow from it.
//!
//! Invariant: what exactness rests on (isolation, offset resets, commits) cannot be configured away. It does not know the
//! configuration file.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use secrecy::{ExposeSecret, SecretString};

/// Properties that `[kafka.properties]` may not set: each would break a promise, or has a setting of its own.
pub const PROTECTED_PROPERTIES: &[&str] = &[
    "allow.auto.create.topics",
    // The old name of `enable.auto.commit`.
    "auto.commit.enable",
    "auto.offset.reset",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "fetch.error.backoff.ms",
    "group.id",
    "group.instance.id",
    "heartbeat.interval.ms",
    "isolation.level",
    "max.poll.interval.ms",
    "metadata.broker.list",
    "partition.assignment.strategy",
    "plugin.library.paths",
    "session.timeout.ms",
    "test.mock.num.brokers",
    "transactional.id",
];

/// How Kafka is reached and read.
#[derive(Debug, Clone)]
pub struct KafkaSettings {
    /// `host:port`, comma-separated.
    pub bootstrap_servers: String,
    /// librdkafka properties; values may be secrets, so all are kept as such.
    pub properties: BTreeMap<String, SecretString>,
    /// Where records go that cannot be decoded. Never read as a stream's topic.
    pub dead_letter_topic: String,
    /// What operators know of readers. Never read as a stream's topic. `None`: nobody is revoked, no consent is withdrawn.
    pub control_topic: Option<String>,
    /// Kafka has not said for so long that nothing newer is in the control topic: nobody new is let in.
    pub control_staleness_max: Duration,
    /// How often topics and their ids are looked at.
    pub metadata_interval: Duration,
    /// Kafka has not answered for so long: streams are told that they are stale.
    pub stale_after: Duration,
    /// A stream that nobody has read for so long is not read from Kafka either. `None`: everything is read all the time.
    pub idle_after: Option<Duration>,
    /// How older events are read.
    pub replay: ReplaySettings,
    /// Keys the hash that is an event's default id.
    pub id_secret: SecretString,
    /// The broker is librdkafka's mock cluster in this process.
    pub embedded: bool,
}

/// How older events are read, and what that may cost.
#[derive(Debug, Clone)]
pub struct ReplaySettings {
    /// Consumers that read at the same time. Each costs threads and connections; beyond it passes wait in a queue.
    pub consumers_max: usize,
    /// Decoded events that are kept for other readers, in bytes; the longest unused go first.
    pub cache_bytes_max: usize,
    /// Readers whose positions are so near to each other in a partition share one pass, in bytes.
    pub nearby_bytes_max: u64,
    /// The size of a page, in bytes of records.
    pub page_bytes_max: usize,
    /// What librdkafka may fetch ahead for each consumer, in KiB (its own default is 64 MiB).
    pub queue_kbytes: usize,
}

impl Default for ReplaySettings {
    fn default() -> Self {
        Self {
            consumers_max: 4,
            cache_bytes_max: 64 << 20,
            nearby_bytes_max: 8 << 20,
            page_bytes_max: 256 << 10,
            queue_kbytes: 1024,
        }
    }
}

/// A property that cannot be used, without its value (which may be a secret).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kafka property {name:?}: {reason}")]
pub struct BadProperty {
    /// The property.
    pub name: String,
    /// Why.
    pub reason: String,
}

impl KafkaSettings {
    /// Settings with defaults for everything that has one.
    #[must_use]
    pub fn new(bootstrap_servers: impl Into<String>, id_secret: SecretString) -> Self {
        Self {
            bootstrap_servers: bootstrap_servers.into(),
            properties: BTreeMap::new(),
            dead_letter_topic: "tidewire.dead-letters".to_owned(),
            control_topic: None,
            control_staleness_max: Duration::from_secs(60),
            metadata_interval: Duration::from_secs(5),
            stale_after: Duration::from_secs(10),
            idle_after: Some(Duration::from_secs(60)),
            replay: ReplaySettings::default(),
            id_secret,
            embedded: false,
        }
    }

    /// Topics that are ours: no stream reads them.
    pub(super) fn own_topics(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.dead_letter_topic.as_str()).chain(self.control_topic.as_deref())
    }

    /// Every property that librdkafka would refuse or that is protected; no connection is made.
    #[must_use]
    pub fn bad_properties(&self) -> Vec<BadProperty> {
        self.properties
            .iter()
            .filter_map(|(name, value)| bad_property(name, value))
            .collect()
    }

    /// For the one consumer of the live path.
    pub(super) fn live_consumer(&self) -> ClientConfig {
        let mut config = self.consumer();
        config
            .set_default("queued.max.messages.kbytes", "16384")
            .set_default("fetch.wait.max.ms", "100")
            // What tells two lives of a topic apart rests on it: see `witness`.
            .set("fetch.error.backoff.ms", "100");
        config.into()
    }

    /// For a consumer of the replay pool.
    pub(super) fn replay_consumer(&self) -> ClientConfig {
        let mut config = self.consumer();
        let queue_kbytes = self.replay.queue_kbytes.clamp(64, 2_097_151).to_string();
        let fetch_bytes = (self.replay.queue_kbytes.clamp(64, 65_536) * 1024).to_string();
        config
            .set("queued.max.messages.kbytes", &queue_kbytes)
            .set("fetch.wait.max.ms", "10")
            .set("fetch.error.backoff.ms", "100")
            .set("fetch.queue.backoff.ms", "5")
            .set_default("max.partition.fetch.bytes", &fetch_bytes);
        config.into()
    }

    /// For the consumer that shares its partitions with other nodes (webhooks). Offsets are committed by hand, when what they
    /// stand for is settled; a node that is gone is taken over after its session.
    pub(super) fn group_consumer(&self, group: &str, session_timeout: Duration) -> ClientConfig {
        let session_ms = session_timeout.as_millis();
        let mut config = self.consumer();
        config
            .set("group.id", group)
            .set("session.timeout.ms", &session_ms.to_string())
            .set("heartbeat.interval.ms", &(session_ms / 3).to_string())
            .set("max.poll.interval.ms", "300000")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("enable.partition.eof", "false")
            .set_default("queued.max.messages.kbytes", "16384")
            .set_default("fetch.wait.max.ms", "100")
            .set("fetch.error.backoff.ms", "100");
        config.into()
    }

    /// For the control topic: small, and read at once. The broker answers a waiting fetch as soon as something comes.
    pub(super) fn control_consumer(&self) -> ClientConfig {
        let mut config = self.consumer();
        config
            .set("queued.max.messages.kbytes", "1024")
            .set("fetch.wait.max.ms", "100")
            .set("fetch.error.backoff.ms", "50");
        config.into()
    }

    /// For look-ups: no group, no assignment.
    pub(super) fn lookup_client(&self) -> ClientConfig {
        self.reader().into()
    }

    /// For dead letters and the control topic.
    pub(super) fn producer(&self) -> ClientConfig {
        let mut config = self.common();
        config
            .set("enable.idempotence", "true")
            .set_default("message.timeout.ms", "60000")
            .set_default("queue.buffering.max.messages", "10000")
            .set_default("queue.buffering.max.kbytes", "32768");
        config.into()
    }

    fn consumer(&self) -> Config {
        let mut config = self.reader();
        config
            // Librdkafka assigns partitions only to a consumer with a group's name. No group is ever joined.
            .set("group.id", "tidewire")
            .set("auto.offset.reset", "error")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("max.poll.interval.ms", "86400000")
            .set("session.timeout.ms", "45000");
        config
    }

    fn reader(&self) -> Config {
        let mut config = self.common();
        config
            // Offsets looked up for a reader, too, must be what a `read_committed` reader may see.
            .set("isolation.level", "read_committed")
            .set("allow.auto.create.topics", "false");
        config
    }

    fn common(&self) -> Config {
        let mut config = Config(ClientConfig::new());
        // Whoever sets `debug` wants to see it.
        let verbose = self.properties.contains_key("debug");
        config.0.set_log_level(if verbose {
            RDKafkaLogLevel::Debug
        } else {
            RDKafkaLogLevel::Info
        });
        for (name, value) in &self.properties {
            if !is_protected(name) {
                config.0.set(name, value.expose_secret());
            }
        }
        config
            .set("bootstrap.servers", &self.bootstrap_servers)
            .set_default("client.id", "tidewire")
            .set_default("topic.metadata.refresh.interval.ms", "10000")
            .set_default("reconnect.backoff.ms", "50")
            .set_default("reconnect.backoff.max.ms", "2000")
            .set_default("log.connection.close", "false")
            .set_default("socket.keepalive.enable", "true")
            .set_default("socket.nagle.disable", "true");
        config
    }
}

/// A configuration in which some values yield to what the user wrote.
struct Config(ClientConfig);

impl Config {
    fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.0.set(name, value);
        self
    }

    fn set_default(&mut self, name: &str, value: &str) -> &mut Self {
        if self.0.get(name).is_none() {
            self.0.set(name, value);
        }
        self
    }
}

impl From<Config> for ClientConfig {
    fn from(config: Config) -> Self {
        config.0
    }
}

fn is_protected(name: &str) -> bool {
    PROTECTED_PROPERTIES.contains(&name)
}

fn bad_property(name: &str, value: &SecretString) -> Option<BadProperty> {
    let bad = |reason: &str| {
        Some(BadProperty {
            name: name.to_owned(),
            reason: reason.to_owned(),
        })
    };
    if is_protected(name) {
        return bad("it is protected: exactness depends on it, or it has a setting of its own");
    }
    let mut config = ClientConfig::new();
    config.set(name, value.expose_secret());
    match config.create_native_config() {
        Ok(_) => None,
        Err(KafkaError::ClientConfig(rdkafka::types::RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)) => {
            bad("librdkafka has no such property")
        }
        Err(_) => bad("librdkafka does not accept this value"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(properties: &[(&str, &str)]) -> KafkaSettings {
        let mut settings = KafkaSettings::new("127.0.0.1:1", SecretString::from("event ids"));
        settings.properties = properties
            .iter()
            .map(|(name, value)| ((*name).to_owned(), SecretString::from(*value)))
            .collect();
        settings
    }

    #[test]
    fn protected_properties_cannot_be_overridden() {
        let settings = settings(&[
            ("isolation.level", "read_uncommitted"),
            ("auto.offset.reset", "latest"),
            ("auto.commit.enable", "true"),
        ]);
        assert_eq!(
            settings.live_consumer().get("isolation.level"),
            Some("read_committed")
        );
        assert_eq!(settings.live_consumer().get("auto.offset.reset"), Some("error"));
        assert_eq!(
            settings.lookup_client().get("isolation.level"),
            Some("read_committed")
        );
        assert_eq!(settings.bad_properties().len(), 3);
    }

    #[test]
    fn tls_and_sasl_properties_reach_librdkafka() {
        let settings = settings(&[
            ("security.protocol", "SASL_SSL"),
            ("sasl.mechanism", "OAUTHBEARER"),
            ("sasl.oauthbearer.method", "oidc"),
            ("sasl.oauthbearer.client.id", "gateway"),
            ("sasl.oauthbearer.client.secret", "hush"),
            ("sasl.oauthbearer.token.endpoint.url", "https://id.example/token"),
        ]);
        assert_eq!(settings.bad_properties(), []);
        for config in [
            settings.live_consumer(),
            settings.replay_consumer(),
            settings.control_consumer(),
            settings.lookup_client(),
            settings.producer(),
        ] {
            assert_eq!(config.get("sasl.mechanism"), Some("OAUTHBEARER"));
            assert!(config.create_native_config().is_ok());
        }
        assert!(!format!("{settings:?}").contains("hush"));
    }

    #[test]
    fn unknown_properties_and_values_are_told_without_their_value() {
        let settings = settings(&[("sasl.pasword", "hush"), ("security.protocol", "hush")]);
        let problems = settings.bad_properties();
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(
            problems
                .iter()
                .all(|problem| !problem.to_string().contains("hush"))
        );
    }
}
