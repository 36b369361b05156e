//! What nearly every promise begins with: Kafka, an issuer, a topic of its own.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;
use tidewire_tests::contract;
use tidewire_tests::gateway::Setup;
use tidewire_tests::graphql;
use tidewire_tests::issuer::Issuer;
use tidewire_tests::kafka::Kafka;
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
    }

    /// The same, as GraphQL clients see it.
    pub(crate) fn graphql(&self, topics: &[&str]) -> Setup {
        let mut setup = self.setup(topics);
        setup.sdl = Some(graphql::SDL.to_owned());
        graphql::SETTINGS.clone_into(&mut setup.more);
        setup
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
