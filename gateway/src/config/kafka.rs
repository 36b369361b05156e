//! `[kafka]` and `[replay]`: where events come from, now and before.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use rdkafka::ClientConfig;
use schemas::contract::settings::{Place, Placed};
use secrecy::SecretString;

use super::section::Section;
use crate::kafka::{PROTECTED_PROPERTIES, ReplaySettings};

/// The longest name of a topic.
const TOPIC_NAME_MAX: usize = 249;

/// Kafka.
#[derive(Debug, Clone)]
pub struct Kafka {
    /// Where the section begins.
    pub place: Place,
    /// The cluster.
    pub cluster: Cluster,
    /// librdkafka's properties, as they stand in the file.
    pub properties: BTreeMap<String, SecretString>,
    /// Whether `security.protocol` asks for more than plain text.
    pub is_secured: bool,
    /// Where undecodable records go.
    pub dead_letter_topic: String,
    /// Where operators' revocations and denials are; `None`: nowhere.
    pub control_topic: Option<String>,
    /// Without news of it for so long nobody new is let in.
    pub control_staleness_max: Duration,
    /// How often topics, partitions and topic ids are asked for.
    pub metadata_interval: Duration,
    /// Kafka gone for so long is told to sessions as `stale`.
    pub stale_after: Duration,
    /// A stream's topics are read so long after the last reader.
    pub idle_after: Duration,
    /// Every topic is read all the time.
    pub reads_always: bool,
}

/// Which Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cluster {
    /// A broker inside of this process, which forgets everything at its end.
    Embedded,
    /// `host:port`, separated by commas.
    Servers(String),
}

/// The dead-letter topic where the file names none.
pub const DEAD_LETTER_TOPIC: &str = "tidewire.dead-letters";
/// The control topic where the file names none.
pub const CONTROL_TOPIC: &str = "tidewire.control";
/// `control_staleness_max_ms` where the file has none.
pub const CONTROL_STALENESS_MAX: Duration = Duration::from_secs(60);
/// `metadata_interval_ms` where the file has none.
pub const METADATA_INTERVAL: Duration = Duration::from_secs(5);
/// `stale_after_ms` where the file has none.
pub const STALE_AFTER: Duration = Duration::from_secs(10);
/// `idle_after_ms` where the file has none.
pub const IDLE_AFTER: Duration = Duration::from_secs(60);

pub(super) fn read(root: &Section) -> Option<Kafka> {
    let section = root.required_below("kafka")?;
    let cluster = read_cluster(&section);
    let dead_letter_topic =
        read_topic(&section, "dead_letter_topic", false).unwrap_or_else(|| DEAD_LETTER_TOPIC.to_owned());
    let control_topic =
        read_topic(&section, "control_topic", true).unwrap_or_else(|| CONTROL_TOPIC.to_owned());
    let control_staleness_max = section.millis(
        "control_staleness_max_ms",
        CONTROL_STALENESS_MAX,
        1_000..=3_600_000,
    );
    let metadata_interval = section.millis("metadata_interval_ms", METADATA_INTERVAL, 100..=3_600_000);
    let stale_after = section.millis("stale_after_ms", STALE_AFTER, 100..=3_600_000);
    let idle_after = section.millis("idle_after_ms", IDLE_AFTER, 1_000..=86_400_000);
    let reads_always = section.flag("read_always");
    let (properties, is_secured) = section
        .below("properties")
        .map(|below| read_properties(&below))
        .unwrap_or_default();
    section.table.finish();
    let defaults = Kafka::new(section.table.place().clone(), cluster?);
    Some(Kafka {
        properties,
        is_secured,
        dead_letter_topic,
        control_topic: (!control_topic.is_empty()).then_some(control_topic),
        control_staleness_max,
        metadata_interval,
        stale_after,
        idle_after,
        reads_always,
        ..defaults
    })
}

fn read_topic(section: &Section, name: &str, may_be_empty: bool) -> Option<String> {
    let topic = section.text(name)?;
    let is_fine = is_topic_name(&topic.value) || (may_be_empty && topic.value.is_empty());
    if !is_fine {
        let message = format!("`kafka.{name}` is no topic name: {:?}", topic.value);
        section.report(
            &topic.place,
            "invalid_topic",
            message,
            "write up to 249 letters, digits or . _ -",
        );
    }
    Some(topic.value)
}

fn read_cluster(section: &Section) -> Option<Cluster> {
    let is_embedded = section.flag("embedded");
    let servers = section.text("bootstrap_servers");
    if is_embedded {
        if let Some(servers) = servers {
            let message = "`kafka.bootstrap_servers` is given, and so is `kafka.embedded`".to_owned();
            section.report(&servers.place, "two_clusters", message, "keep one of the two");
        }
        return Some(Cluster::Embedded);
    }
    if !section.table.has("bootstrap_servers") {
        section
            .table
            .missing("bootstrap_servers", "a string such as \"127.0.0.1:9092\"");
        return None;
    }
    let servers = servers?;
    let is_valid = servers.value.split(',').all(|server| host_of(server).is_some());
    if !is_valid {
        let message = format!(
            "`kafka.bootstrap_servers` is no list of addresses: {:?}",
            servers.value
        );
        section.report(
            &servers.place,
            "invalid_address",
            message,
            "write host:port, separated by commas",
        );
        return None;
    }
    Some(Cluster::Servers(servers.value))
}

/// The host of `host:port` or `protocol://host:port`.
fn host_of(server: &str) -> Option<&str> {
    let server = server.trim();
    let server = server.split_once("://").map_or(server, |(_, server)| server);
    let (host, port) = server.rsplit_once(':').unwrap_or((server, "9092"));
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    (!host.is_empty()
        && port.parse::<u16>().is_ok_and(|port| port != 0)
        && !host.contains(char::is_whitespace))
    .then_some(host)
}

impl Kafka {
    /// A cluster with the defaults.
    #[must_use]
    pub fn new(place: Place, cluster: Cluster) -> Self {
        Self {
            place,
            cluster,
            properties: BTreeMap::new(),
            is_secured: false,
            dead_letter_topic: DEAD_LETTER_TOPIC.to_owned(),
            control_topic: Some(CONTROL_TOPIC.to_owned()),
            control_staleness_max: CONTROL_STALENESS_MAX,
            metadata_interval: METADATA_INTERVAL,
            stale_after: STALE_AFTER,
            idle_after: IDLE_AFTER,
            reads_always: false,
        }
    }

    /// Whether this may be somebody's real Kafka: reached over the network, or protected.
    #[must_use]
    pub fn is_production(&self) -> bool {
        let is_remote = match &self.cluster {
            Cluster::Embedded => false,
            Cluster::Servers(servers) => is_production(servers),
        };
        is_remote || self.is_secured
    }
}

/// Whether one of these servers is not on a loopback address.
#[must_use]
pub fn is_production(bootstrap_servers: &str) -> bool {
    !bootstrap_servers
        .split(',')
        .all(|server| host_of(server).is_some_and(is_loopback))
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

pub(super) fn is_topic_name(name: &str) -> bool {
    (1..=TOPIC_NAME_MAX).contains(&name.len())
        && name != "."
        && name != ".."
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

fn read_properties(section: &Section) -> (BTreeMap<String, SecretString>, bool) {
    let mut properties = BTreeMap::new();
    let mut is_secured = false;
    for (name, value) in section.table.texts() {
        if PROTECTED_PROPERTIES.contains(&name.value.as_str()) {
            let message = format!(
                "the Kafka property `{}` is protected: exact resuming depends on it",
                name.value
            );
            section.report(&name.place, "protected_property", message, "remove it");
            continue;
        }
        if matches!(name.value.as_str(), "bootstrap.servers" | "metadata.broker.list") {
            let message = format!("the Kafka property `{}` has a setting of its own", name.value);
            section.report(
                &name.place,
                "protected_property",
                message,
                "write it as `kafka.bootstrap_servers`",
            );
            continue;
        }
        let Some(value) = section.expand(value) else {
            continue;
        };
        if check_property(section, &name, &value) {
            if name.value == "security.protocol" && !value.value.eq_ignore_ascii_case("plaintext") {
                is_secured = true;
            }
            properties.insert(name.value, SecretString::from(value.value));
        }
    }
    (properties, is_secured)
}

/// Asks librdkafka whether it knows the property and takes the value. Its answer may repeat the value, which may be a
/// secret: so it is not passed on.
fn check_property(section: &Section, name: &Placed<String>, value: &Placed<String>) -> bool {
    let takes = |value: &str| {
        ClientConfig::new()
            .set(name.value.as_str(), value)
            .create_native_config()
    };
    let Err(error) = takes(&value.value) else {
        return true;
    };
    if error.to_string().contains("No such configuration property") {
        let message = format!("librdkafka knows no property `{}`", name.value);
        section.report(
            &name.place,
            "unknown_property",
            message,
            "see librdkafka's CONFIGURATION.md",
        );
    } else {
        let message = format!("librdkafka does not take this value of `{}`", name.value);
        section.report(
            &value.place,
            "invalid_property",
            message,
            "see librdkafka's CONFIGURATION.md for its values",
        );
    }
    false
}

pub(super) fn read_replay(root: &Section) -> ReplaySettings {
    let mut replay = ReplaySettings::default();
    let Some(section) = root.below("replay") else {
        return replay;
    };
    replay.consumers_max = section.size("consumers_max", replay.consumers_max, 1..=1024);
    replay.cache_bytes_max = section.size("cache_bytes_max", replay.cache_bytes_max, 1 << 20..=64 << 30);
    if let Some(bytes) = section.table.unsigned("nearby_bytes_max", 0..=1 << 30) {
        replay.nearby_bytes_max = bytes.value;
    }
    replay.page_bytes_max = section.size("page_bytes_max", replay.page_bytes_max, 4096..=64 << 20);
    replay.queue_kbytes = section.size("queue_kbytes", replay.queue_kbytes, 64..=65_536);
    section.table.finish();
    replay
}
