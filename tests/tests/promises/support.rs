//! What nearly every promise begins with: Kafka, an issuer, a topic of its own.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;
use tidewire_tests::contract;
use tidewire_tests::gateway::{Gateway, Setup, Webhooks};
use tidewire_tests::graphql;
use tidewire_tests::issuer::Issuer;
use tidewire_tests::kafka::Kafka;
use tidewire_tests::partner::{self, Partner};
use tidewire_tests::producer::Producer;
use tidewire_tests::topics::Topics;

/// Kafka and an issuer.
pub(crate) struct World {
    pub(crate) kafka: &'static Kafka,
    pub(crate) issuer: Issuer,
    pub(crate) topics: Topics,
    pub(crate) producer: Producer,
    _turn: Option<tokio::sync::RwLockReadGuard<'static, ()>>,
}

impl World {
    /// For a promise that may run beside others.
    pub(crate) async fn new() -> Result<Self> {
        Self::build(Some(beside().await)).await
    }

    /// For a promise that already is alone.
    pub(crate) async fn alone() -> Result<Self> {
        Self::build(None).await
    }

    async fn build(turn: Option<tokio::sync::RwLockReadGuard<'static, ()>>) -> Result<Self> {
        let kafka = Kafka::shared().await;
        Ok(Self {
            kafka,
            issuer: Issuer::start().await?,
            topics: Topics::new(kafka.bootstrap())?,
            producer: Producer::new(kafka.bootstrap())?,
            _turn: turn,
        })
    }

    /// A new topic that nobody else uses.
    pub(crate) async fn topic(&self, name: &str, partitions: i32) -> Result<String> {
        self.topic_with(name, partitions, &[]).await
    }

    /// A new topic with settings.
    pub(crate) async fn topic_with(
        &self,
        name: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> Result<String> {
        let topic = unique(name);
        self.topics.create(&topic, partitions, settings).await?;
        Ok(topic)
    }

    /// A gateway of one stream, `observations`, over these topics.
    pub(crate) fn setup(&self, topics: &[&str]) -> Setup {
        Setup::new(
            self.kafka.bootstrap(),
            &self.issuer,
            contract::observations(topics),
        )
        // More than one, on whatever machine.
        .limit("workers", 2)
    }

    /// The same, as GraphQL clients see it.
    pub(crate) fn graphql(&self, topics: &[&str]) -> Setup {
        let mut setup = self.setup(topics);
        setup.sdl = Some(graphql::SDL.to_owned());
        graphql::SETTINGS.clone_into(&mut setup.more);
        setup
    }

    /// What webhooks need: a group and topics that nobody else uses, times that are short. The store is a file of SQLite.
    pub(crate) async fn webhooks(&self) -> Result<Webhooks> {
        webhooks(&self.topics).await
    }

    /// A partner of a tenant, who gets its rows as a system.
    pub(crate) fn partner(&self, gateway: &Gateway, tenant: &str) -> Partner {
        let scopes = format!("system/Observation.rs {}", partner::SCOPES);
        let token = self.issuer.token(tenant).scopes(&scopes).good_for(7200).sign();
        Partner::new(gateway.address(), &token)
    }

    /// A token that gives the tenant's rows.
    pub(crate) fn user(&self, tenant: &str) -> String {
        self.issuer.token(tenant).scopes(contract::USER).sign()
    }

    /// A token that gives one patient's rows.
    pub(crate) fn patient(&self, tenant: &str, patient: &str) -> String {
        self.issuer
            .token(tenant)
            .scopes(contract::PATIENT)
            .claim("patient", patient)
            .sign()
    }
}

/// The same on any cluster.
pub(crate) async fn webhooks(topics: &Topics) -> Result<Webhooks> {
    let (dead_letters, events) = (unique("dead-letters"), unique("webhook-events"));
    topics.create(&dead_letters, 1, &[]).await?;
    topics.create(&events, 1, &[]).await?;
    let settings = vec![
        ("claim_every_ms", 100),
        ("lease_ms", 35_000),
        ("slow_after_ms", 500),
        ("session_timeout_ms", 3_000),
        ("registry_interval_ms", 100),
        ("breaker_open_min_ms", 200),
        ("breaker_open_max_ms", 1_000),
    ];
    Ok(Webhooks {
        store: "sqlite:webhooks.db".to_owned(),
        group: unique("webhooks"),
        dead_letters,
        events,
        control: unique("control"),
        allow_loopback: true,
        settings,
    })
}

/// A name that was not used before, in this run or another.
pub(crate) fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{name}-{:08x}-{count}", rand::random::<u32>())
}

/// Promises run beside each other, but for those that measure: these wait until they are alone.
static TURN: tokio::sync::RwLock<()> = tokio::sync::RwLock::const_new(());

/// Waits until no other promise runs, and keeps them waiting.
pub(crate) async fn alone() -> tokio::sync::RwLockWriteGuard<'static, ()> {
    TURN.write().await
}

/// Waits until nobody has to be alone, and keeps whoever has to be waiting.
pub(crate) async fn beside() -> tokio::sync::RwLockReadGuard<'static, ()> {
    TURN.read().await
}
