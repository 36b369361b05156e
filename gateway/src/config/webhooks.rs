//! `[store]` and `[webhooks]`: what is kept, and how it is delivered.

use std::path::Path;
use std::time::Duration;

use schemas::ids::TenantId;
use secrecy::SecretString;
use webhooks::breaker;
use webhooks::plan;
use webhooks::retry::Schedule;
use webhooks::scheduler;

use super::section::Section;

/// Webhooks.
#[derive(Debug, Clone)]
pub struct Webhooks {
    /// Whether they are served.
    pub enabled: bool,
    /// `sqlite:PATH` or `postgres://...`; may hold a password.
    pub store: SecretString,
    /// Whether the store is a file of this machine.
    pub store_is_local: bool,
    /// The consumer group that shares the work among nodes.
    pub consumer_group: String,
    /// A node that is gone is taken over after this time.
    pub session_timeout: Duration,
    /// Where deliveries go that were given up.
    pub dead_letter_topic: String,
    /// The topic of the stream `webhook_events`.
    pub events_topic: String,
    /// Receivers on this machine, by plain HTTP too: development only.
    pub allow_loopback: bool,
    /// Tenants whose receivers may be in private networks.
    pub private_networks: Vec<TenantId>,
    /// What our handshakes name as their origin (CloudEvents' abuse protection).
    pub origin: String,
    /// Endpoints of one tenant.
    pub endpoints_per_tenant_max: usize,
    /// Offsets of a partition above the first that is not settled.
    pub open_offsets_max: usize,
    /// What may wait on this node for a delivery to be over or parked, in bytes, over all partitions.
    pub open_bytes_max: usize,
    /// How often endpoints are looked at.
    pub registry_interval: Duration,
    /// When to try again, where an endpoint does not say.
    pub retry: Schedule,
    /// Queues, places, breakers, times.
    pub scheduler: scheduler::Bounds,
    /// How long a rotated secret goes on signing, where nobody says.
    pub secret_overlap: Duration,
    /// How long an endpoint of a person's token is authorized.
    pub personal_max: Duration,
    /// How long what is parked is kept.
    pub parked_age_max: Duration,
    /// How long attempts are kept in the log.
    pub attempts_kept: Duration,
    /// How much of each body, sent and answered, is kept with its attempt; 0: nothing.
    pub attempt_body_bytes_max: usize,
    /// Replays that are read at once on this node.
    pub replays_max: usize,
}

impl Default for Webhooks {
    fn default() -> Self {
        Self {
            enabled: false,
            store: SecretString::from("sqlite:tidewire.db"),
            store_is_local: true,
            consumer_group: "tidewire.webhooks".to_owned(),
            session_timeout: Duration::from_secs(10),
            dead_letter_topic: "tidewire.webhook-dead-letters".to_owned(),
            events_topic: "tidewire.webhook-events".to_owned(),
            allow_loopback: false,
            private_networks: Vec::new(),
            origin: "tidewire".to_owned(),
            endpoints_per_tenant_max: 100,
            open_offsets_max: 100_000,
            open_bytes_max: 64 << 20,
            registry_interval: Duration::from_secs(1),
            retry: Schedule::standard(),
            scheduler: scheduler::Bounds::default(),
            secret_overlap: Duration::from_secs(24 * 3600),
            personal_max: Duration::from_secs(30 * 24 * 3600),
            parked_age_max: Duration::from_secs(14 * 24 * 3600),
            attempts_kept: Duration::from_secs(7 * 24 * 3600),
            attempt_body_bytes_max: 0,
            replays_max: 2,
        }
    }
}

const DAY_MS: u64 = 86_400_000;
const YEAR_S: u64 = 365 * 86_400;

pub(super) fn read(root: &Section) -> Webhooks {
    let mut webhooks = Webhooks::default();
    if let Some(section) = root.below("store") {
        read_store(&section, &mut webhooks);
        section.table.finish();
    }
    let Some(section) = root.below("webhooks") else {
        return webhooks;
    };
    webhooks.enabled = section.switch("enabled", webhooks.enabled);
    for (key, text) in [
        ("consumer_group", &mut webhooks.consumer_group),
        ("dead_letter_topic", &mut webhooks.dead_letter_topic),
        ("events_topic", &mut webhooks.events_topic),
        ("origin", &mut webhooks.origin),
    ] {
        if let Some(given) = section.text(key) {
            if !super::kafka::is_topic_name(&given.value) {
                let message = format!("`webhooks.{key}` is no name: {:?}", given.value);
                let mend = "write up to 249 letters, digits or . _ -";
                section.report(&given.place, "invalid_name", message, mend);
            }
            *text = given.value;
        }
    }
    webhooks.allow_loopback = section.switch("allow_loopback", webhooks.allow_loopback);
    for tenant in section.texts("private_networks").unwrap_or_default() {
        match TenantId::parse(&tenant.value) {
            Ok(tenant) => webhooks.private_networks.push(tenant),
            Err(bad) => section.report(
                &tenant.place,
                "invalid_tenant",
                bad.to_string(),
                "write a tenant's name",
            ),
        }
    }
    webhooks.endpoints_per_tenant_max = section.size(
        "endpoints_per_tenant_max",
        webhooks.endpoints_per_tenant_max,
        1..=100_000,
    );
    webhooks.open_offsets_max = section.size("open_offsets_max", webhooks.open_offsets_max, 1..=1_000_000);
    webhooks.open_bytes_max = section.size("open_bytes_max", webhooks.open_bytes_max, 1 << 20..=64 << 30);
    webhooks.session_timeout = section.millis("session_timeout_ms", webhooks.session_timeout, 1000..=300_000);
    webhooks.registry_interval =
        section.millis("registry_interval_ms", webhooks.registry_interval, 50..=60_000);
    webhooks.replays_max = section.size("replays_max", webhooks.replays_max, 1..=64);
    webhooks.attempt_body_bytes_max = section.size(
        "attempt_body_bytes_max",
        webhooks.attempt_body_bytes_max,
        0..=65_536,
    );
    read_scheduler(&section, &mut webhooks.scheduler);
    if let Some(schedule) = read_schedule(&section) {
        webhooks.retry = schedule;
    }
    let seconds = |key: &str, default: Duration| {
        let given = section.table.unsigned(key, 1..=YEAR_S);
        given.map_or(default, |seconds| Duration::from_secs(seconds.value))
    };
    webhooks.secret_overlap = seconds("secret_overlap_seconds", webhooks.secret_overlap);
    webhooks.personal_max = seconds("personal_seconds_max", webhooks.personal_max);
    webhooks.parked_age_max = seconds("parked_age_seconds_max", webhooks.parked_age_max);
    webhooks.attempts_kept = seconds("attempts_kept_seconds", webhooks.attempts_kept);
    webhooks.scheduler.breaker.disable_after =
        seconds("disable_after_seconds", webhooks.scheduler.breaker.disable_after);
    section.table.finish();
    webhooks
}

fn read_store(section: &Section, webhooks: &mut Webhooks) {
    let Some(url) = section.text("url") else { return };
    if let Some(path) = url.value.strip_prefix("sqlite:") {
        // As everywhere in the file: relative paths begin at its folder.
        let path = section.around.path(path);
        webhooks.store = SecretString::from(format!("sqlite:{}", path.display()));
        if path == Path::new("") {
            section.report(
                &url.place,
                "invalid_store",
                "`store.url` names no file".to_owned(),
                "write sqlite:tidewire.db",
            );
        }
    } else if url.value.starts_with("postgres:") || url.value.starts_with("postgresql:") {
        webhooks.store = SecretString::from(url.value);
        webhooks.store_is_local = false;
    } else {
        section.report(
            &url.place,
            "invalid_store",
            "`store.url` is neither sqlite: nor postgres:".to_owned(),
            "write sqlite:tidewire.db, or postgres://user:password@host/database",
        );
    }
}

fn read_scheduler(section: &Section, bounds: &mut scheduler::Bounds) {
    bounds.slow_after = section.millis("slow_after_ms", bounds.slow_after, 100..=60_000);
    bounds.claim_every = section.millis("claim_every_ms", bounds.claim_every, 10..=60_000);
    // It has to last through the longest attempt, and a while in the queue.
    bounds.lease = section.millis("lease_ms", bounds.lease, 35_000..=3_600_000);
    let plan::Bounds {
        queue_max,
        tenant_max,
        node_max,
        slow_max,
    } = &mut bounds.plan;
    for (key, value) in [
        ("queue_max", queue_max),
        ("tenant_attempts_max", tenant_max),
        ("attempts_max", node_max),
        ("slow_attempts_max", slow_max),
    ] {
        *value = section.size(key, *value, 1..=100_000);
    }
    let breaker::Policy {
        failures,
        open_min,
        open_max,
        ..
    } = &mut bounds.breaker;
    if let Some(given) = section.table.unsigned("breaker_failures", 1..=1000) {
        *failures = u32::try_from(given.value).unwrap_or(u32::MAX);
    }
    *open_min = section.millis("breaker_open_min_ms", *open_min, 10..=DAY_MS);
    *open_max = section.millis("breaker_open_max_ms", *open_max, 10..=DAY_MS);
}

fn read_schedule(section: &Section) -> Option<Schedule> {
    let texts = section.table.numbers("retry_seconds")?;
    let delays = texts
        .value
        .iter()
        .map(|seconds| Duration::from_secs(*seconds))
        .collect();
    match Schedule::new(delays) {
        Ok(schedule) => Some(schedule),
        Err(bad) => {
            let message = format!("`webhooks.retry_seconds` is no schedule: {bad}");
            section.report(
                &texts.place,
                "invalid_schedule",
                message,
                "write at most 20 delays of 1 to 604800 seconds",
            );
            None
        }
    }
}
