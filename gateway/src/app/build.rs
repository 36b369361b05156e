//! From the configuration to the parts, bound and wired.

use std::io;
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ::webhooks::store::{Store, StoreError};
use auth::clock::Clock;
use auth::control::{Control, Names};
use auth::dev::DevelopmentIssuer;
use auth::egress::EgressError;
use auth::quota::Quotas;
use auth::ticket::{BadKey, Tickets};
use auth::token::{Authenticator, BadIssuer};
use schemas::contract::Contract;
use schemas::cursor::Sealer;
use schemas::ids::BadName;
use subscriptions::graphql::{self, BadSchema, Persisted, Schema};
use subscriptions::hub::{Hub, HubConfig, Services};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Addresses, App, Doors, EMBEDDED_PARTITIONS, SharedSource};
use crate::config::Config;
use crate::config::graphql::Graphql;
use crate::config::issuers::Issuer;
use crate::config::kafka::Cluster;
use crate::http::control::{Desk, Write};
use crate::http::graphql::{Callbacks, Surface};
use crate::http::listener::{Listener, Tls, TlsError};
use crate::http::{self, BadOrigin, Gateway, IngestStatus, Operations, Origins, Page, PartitionLag};
use crate::kafka::embedded::{Broker, EmbeddedError};
use crate::kafka::{self, ControlTopic, KafkaSettings, Replay, Source};
use crate::telemetry;
use crate::webhooks::{self, Webhooks};

/// What an app is built from.
#[derive(Debug)]
pub struct Setup {
    /// The configuration.
    pub config: Config,
    /// Its contract.
    pub contract: Arc<Contract>,
    /// The demo's broker, where it is started already. It ends with the app.
    pub broker: Option<Broker>,
    /// The demo's page. With one, pages of the listener's own host may call.
    pub page: Option<Page>,
    /// What webhooks keep, where they are served: see [`open_store`].
    pub store: Option<Store>,
}

/// Why an app cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port cannot be had.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which one.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Kafka's side does not start.
    #[error("kafka cannot be read")]
    Kafka(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// There is no embedded broker.
    #[error("the embedded broker does not start")]
    Broker(#[from] EmbeddedError),
    /// The engine does not start.
    #[error("the engine does not start")]
    Engine(#[source] io::Error),
    /// The development issuer's key cannot be had.
    #[error("the development issuer's key file {file:?} cannot be used")]
    DevelopmentKey {
        /// Which file.
        file: std::path::PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An issuer cannot be trusted as it is configured.
    #[error("the configuration is refused")]
    Issuer(#[from] BadIssuer),
    /// A ticket key cannot be used.
    #[error("the ticket keys are refused")]
    TicketKey(#[from] BadKey),
    /// A cursor key cannot be used.
    #[error("the cursor keys are refused")]
    CursorKey(#[from] BadName),
    /// An origin is none.
    #[error("the origins are refused")]
    Origin(#[from] BadOrigin),
    /// The certificate cannot be used.
    #[error("the certificate is refused")]
    Tls(#[from] TlsError),
    /// The contract cannot be served as GraphQL.
    #[error("the contract is refused")]
    Graphql(#[from] BadSchema),
    /// The client that posts to routers cannot be had.
    #[error("callbacks cannot be posted")]
    Callbacks(#[from] EgressError),
    /// The store of webhooks cannot be had.
    #[error("the store of webhooks cannot be opened")]
    Store(#[from] StoreError),
    /// Webhooks do not start.
    #[error("webhooks do not start")]
    Webhooks(#[from] webhooks::StartError),
}

impl StartError {
    /// Whether the configuration is to blame, and not what was found around it.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::Issuer(_)
                | Self::TicketKey(_)
                | Self::CursorKey(_)
                | Self::Origin(_)
                | Self::Tls(_)
                | Self::Graphql(_)
        )
    }
}

/// Opens the store of webhooks, where they are served, and brings its tables up to date.
///
/// # Errors
///
/// It cannot be reached, or is a later version's.
pub async fn open_store(config: &Config) -> Result<Option<Store>, StartError> {
    if !config.webhooks.enabled {
        return Ok(None);
    }
    let store = Store::open(&config.webhooks.store, &config.keys.store).await?;
    Ok(Some(store))
}

/// Binds the ports and starts everything that reads. Nobody is let in before [`App::serve`]. Call it inside a tokio runtime.
///
/// # Errors
///
/// Something that is needed cannot be had; nothing stays behind.
pub fn build(setup: Setup) -> Result<App, StartError> {
    let Setup {
        config,
        contract,
        broker,
        page,
        store,
    } = setup;
    let mut registry = telemetry::registry();
    let ours = telemetry::ours(&mut registry);
    let metrics = http::Metrics::new(ours);

    let tls = config
        .listen
        .tls
        .as_ref()
        .map(|files| Tls::load(&files.certificate, &files.key))
        .transpose()?;
    let bind = |address, tls, name| {
        Listener::bind(address, tls, name, &config.limits.http, &metrics)
            .map_err(|source| StartError::Listen { address, source })
    };
    let public = bind(config.listen.address, tls, "public")?;
    let operations = bind(config.listen.admin, None, "operations")?;

    let issuers = config.issuers.iter().map(trusted).collect::<Result<_, _>>()?;
    let control = match &config.kafka.control_topic {
        Some(_) => Control::unread(config.kafka.control_staleness_max),
        None => Control::none(),
    };
    let known = control.clone();
    let authenticator = Authenticator::new(issuers)?.with_control(control.clone());
    let sealer = Sealer::new(&config.keys.cursor)?;
    let tickets = Tickets::new(&config.keys.ticket)?;
    let mut origins = Origins::parse(&config.origins)?;
    if page.is_some() {
        origins = origins.with_own_host();
    }

    let broker = match (broker, &config.kafka.cluster) {
        (None, Cluster::Embedded) => Some(Broker::start(topics(&contract, &config), EMBEDDED_PARTITIONS)?),
        (broker, _) => broker,
    };
    let settings = kafka_settings(&config, broker.as_ref());
    let kafka = |error: kafka::StartError| StartError::Kafka(Box::new(error));
    let older =
        Replay::new(&settings, &contract, ours).map_err(|error| StartError::Kafka(Box::new(error)))?;
    let clock = Clock::System;
    let control_topic = config
        .kafka
        .control_topic
        .as_deref()
        .map(|topic| ControlTopic::start(&settings, topic, &control, clock, ours))
        .transpose()
        .map_err(kafka)?;
    let schema = graphql_schema(&config.graphql, &contract)?;
    let services = Services {
        older,
        sealer: sealer.clone(),
        authenticator: authenticator.clone(),
        clock,
        graphql: schema.clone(),
    };
    let hub_config = HubConfig {
        graphql_sse_heartbeat: config.graphql.sse_keep_alive,
        graphql_multipart_heartbeat: config.graphql.multipart_keep_alive,
        ..config.limits.hub.clone()
    };
    let hub = Hub::start(hub_config, Arc::clone(&contract), services, ours).map_err(StartError::Engine)?;
    let source = Source::start(
        &settings,
        &contract,
        |stream| hub.input(stream),
        hub.needs(),
        ours,
    )
    .map_err(kafka)?;
    let dead_letters = source.dead_letters();
    let source: SharedSource = Arc::new(Mutex::new(Some(source)));

    let running = store
        .map(|store| {
            let setup = webhooks::Setup {
                config: &config.webhooks,
                keys: &config.keys,
                kafka: &settings,
                contract: &contract,
                store: Arc::new(store),
                dead_letters,
                control: control.clone(),
                sealer: sealer.clone(),
                clock,
                drain_timeout: config.limits.drain_timeout,
            };
            Webhooks::start(setup, ours)
        })
        .transpose()?;

    let addresses = Addresses {
        public: public.local_address(),
        is_tls: public.is_tls(),
        operations: operations.local_address(),
        kafka: settings.bootstrap_servers,
    };
    let draining = CancellationToken::new();
    let upgrades = TaskTracker::new();
    let callbacks = TaskTracker::new();
    let surface = match schema {
        Some(schema) => {
            let posts = Callbacks::new(
                config.graphql.callback.clone(),
                metrics.clone(),
                callbacks.clone(),
                draining.clone(),
            )?;
            let (introspection, graphiql) = (config.graphql.introspection, config.graphql.graphiql);
            Some(Arc::new(Surface::new(schema, introspection, graphiql, posts)))
        }
        None => None,
    };
    let gateway = Gateway {
        hub: hub.clone(),
        authenticator: authenticator.clone(),
        tickets,
        quotas: Quotas::new(config.limits.connections),
        sealer,
        clock,
        origins,
        limits: config.limits.http.clone(),
        metrics: metrics.clone(),
        drain: draining.clone(),
        upgrades: upgrades.clone(),
        page,
        graphql: surface,
        webhooks: running.as_ref().map(Webhooks::desk),
    };
    let looked_at = Arc::clone(&source);
    let inside = Operations {
        hub: hub.clone(),
        authenticator: authenticator.clone(),
        registry: Arc::new(registry),
        metrics,
        token: config.listen.admin_token,
        drain: draining.clone(),
        ingest: Arc::new(move || ingest_status(&looked_at)),
        control: Desk {
            names: Names::new(&config.keys.event_id),
            control,
            clock,
            limits: config.limits.http.clone(),
            write: control_topic.as_ref().map(control_writer),
        },
        partitions_max: config.limits.partitions_per_stream_max,
    };
    let doors = Doors {
        public: (public, http::public_router(Arc::new(gateway))),
        operations: (operations, http::operations_router(Arc::new(inside))),
    };
    Ok(App {
        hub,
        source,
        control: control_topic,
        authenticator,
        doors: Some(doors),
        addresses,
        parts: JoinSet::new(),
        listeners: TaskTracker::new(),
        upgrades,
        callbacks,
        draining,
        stop_public: CancellationToken::new(),
        stop_operations: CancellationToken::new(),
        partitions_max: config.limits.partitions_per_stream_max,
        drain_timeout: config.limits.drain_timeout,
        drain_spread: config.limits.drain_spread,
        webhooks: running,
        known,
        _broker: ManuallyDrop::new(broker),
    })
}

/// The embedded broker's topics: those that the contract names, the dead letters' and the control topic.
fn topics<'a>(contract: &'a Contract, config: &'a Config) -> impl Iterator<Item = &'a str> {
    let named = contract.streams.iter().flat_map(|stream| &stream.topics);
    let mut topics: Vec<&str> = named
        .filter(|topic| topic.is_literal())
        .map(|topic| topic.as_str())
        .collect();
    topics.push(&config.kafka.dead_letter_topic);
    if config.webhooks.enabled {
        topics.push(&config.webhooks.dead_letter_topic);
    }
    topics.extend(config.kafka.control_topic.as_deref());
    topics.sort_unstable();
    topics.dedup();
    topics.into_iter()
}

/// The contract as GraphQL serves it, where it does.
fn graphql_schema(settings: &Graphql, contract: &Arc<Contract>) -> Result<Option<Arc<Schema>>, BadSchema> {
    if !settings.enabled {
        return Ok(None);
    }
    let trusted = settings.trusted_documents.iter();
    let options = graphql::Options {
        introspection: settings.introspection,
        limits: settings.limits.clone(),
        persisted: Persisted {
            automatic: settings.apq,
            trusted: Arc::new(
                trusted
                    .map(|(hash, document)| (hash.clone(), Arc::from(document.as_str())))
                    .collect(),
            ),
            only_trusted: settings.trusted_only,
        },
    };
    Schema::new(contract, options).map(|schema| Some(Arc::new(schema)))
}

/// What an admin call writes with.
fn control_writer(topic: &ControlTopic) -> Write {
    let writer = topic.writer();
    Arc::new(move |key, value| {
        let writer = writer.clone();
        Box::pin(async move {
            let written = writer.write(&key, value.as_deref()).await;
            written.map_err(|error| tracing::error!(%error, "an admin call was not carried out"))
        })
    })
}

fn kafka_settings(config: &Config, broker: Option<&Broker>) -> KafkaSettings {
    let bootstrap_servers = match (broker, &config.kafka.cluster) {
        (Some(broker), _) => broker.bootstrap_servers().to_owned(),
        (None, Cluster::Servers(servers)) => servers.clone(),
        (None, Cluster::Embedded) => String::new(),
    };
    KafkaSettings {
        bootstrap_servers,
        properties: config.kafka.properties.clone(),
        dead_letter_topic: config.kafka.dead_letter_topic.clone(),
        control_topic: config.kafka.control_topic.clone(),
        control_staleness_max: config.kafka.control_staleness_max,
        metadata_interval: config.kafka.metadata_interval,
        stale_after: config.kafka.stale_after,
        idle_after: (!config.kafka.reads_always).then_some(config.kafka.idle_after),
        replay: config.replay.clone(),
        id_secret: config.keys.event_id.clone(),
        embedded: broker.is_some(),
    }
}

/// The issuer as the authenticator wants it; a development issuer's key is read, or made.
fn trusted(issuer: &Issuer) -> Result<auth::token::Issuer, StartError> {
    let Some(file) = &issuer.development else {
        return Ok(issuer.trusted.clone());
    };
    let key = DevelopmentIssuer::open(file).map_err(|source| StartError::DevelopmentKey {
        file: file.clone(),
        source,
    })?;
    let claims: Vec<&str> = issuer.trusted.claims.iter().map(String::as_str).collect();
    let mut trusted = key.trusted(&claims);
    trusted.tenants = issuer.trusted.tenants.clone();
    trusted.audiences = issuer.trusted.audiences.clone();
    trusted.leeway = issuer.trusted.leeway;
    Ok(trusted)
}

fn ingest_status(source: &SharedSource) -> IngestStatus {
    let source = source.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(status) = source.as_ref().map(Source::status) else {
        return IngestStatus::default();
    };
    let partition = |partition: kafka::PartitionStatus| PartitionLag {
        topic: partition.topic.to_string(),
        partition: partition.partition,
        position: partition.position,
        end: partition.end,
        lag: partition.lag,
    };
    IngestStatus {
        partitions: status.partitions.into_iter().map(partition).collect(),
        missing_topics: status.missing_topics.iter().map(ToString::to_string).collect(),
    }
}
