//! Everything that `tidewire demo` adds to a gateway, and nothing else uses: a broker, an issuer, a contract, real sample
//! data, a partner with a receiver of webhooks, and a page.
//!
//! The secrets that seal cursors are kept between two runs. So a gateway that is started again on a real Kafka goes on
//! where its readers were, and one on the embedded broker, whose topics are new ones then, tells them that their history
//! is gone.

pub mod endpoints;
pub(crate) mod partner;
pub mod producer;
pub mod receiver;
pub mod script;
pub mod state;
pub mod ttl;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use auth::dev::{AUDIENCE, DevelopmentIssuer, ISSUER};
use auth::token::{Issuer as Trusted, KeySource, Tenants};
use rdkafka::error::KafkaError;
use schemas::contract::settings::{Finding, Place};
use schemas::contract::{Contract, Stream, WEBHOOK_EVENTS, clinical_with};
use secrecy::SecretString;
use webhooks::{breaker, scheduler};

use self::endpoints::Kafka as KafkaSeen;
use self::producer::Producer;
use self::receiver::Receiver;
use self::script::Script;
use crate::app::{self, EMBEDDED_PARTITIONS, Setup, StartError};
use crate::config::graphql::Graphql;
use crate::config::issuers::Issuer;
use crate::config::kafka::{Cluster, Kafka, is_production};
use crate::config::keys::Keys;
use crate::config::limits::Limits;
use crate::config::listen::Listen;
use crate::config::webhooks::Webhooks;
use crate::config::{Config, Environment};
use crate::http::Page;
use crate::kafka::ReplaySettings;
use crate::kafka::embedded::{Broker, EmbeddedError};
use crate::telemetry::Logs;

/// How long the receiver is left alone after it failed, at first and at most: whoever mends it is watching.
const BREAKER_OPEN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// What may be chosen.
#[derive(Debug, Clone)]
pub struct Options {
    /// The public listener.
    pub listen: SocketAddr,
    /// The operations listener.
    pub admin: SocketAddr,
    /// Events each second; zero: none.
    pub events_per_second: f64,
    /// A real Kafka instead of the embedded broker.
    pub kafka: Option<String>,
    /// Another contract than the clinical one.
    pub contracts: Option<PathBuf>,
    /// Where the demo's keys are kept.
    pub state: PathBuf,
}

/// A demo that can be built.
pub struct Demo {
    /// For [`crate::app::build`].
    pub setup: Setup,
    /// Writes the sample events, where there are any.
    pub producer: Option<Producer>,
    /// The partner's, at work already.
    pub receiver: Receiver,
}

/// Why there is no demo.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The contract is not good.
    #[error("the contract has {} problems", .0.len())]
    Contract(Vec<Finding>),
    /// The Kafka may be somebody's real one.
    #[error("the demo's tokens are for anybody, so its Kafka must be on a loopback address, not {0}")]
    ProductionKafka(String),
    /// The folder with the demo's keys cannot be used.
    #[error("the demo's keys cannot be kept in {folder:?} (choose another one with TIDEWIRE_STATE_DIR)")]
    State {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The store of webhooks cannot be opened.
    #[error(transparent)]
    Store(#[from] Box<StartError>),
    /// The receiver of webhooks has no port.
    #[error("the receiver of webhooks has no port")]
    Receiver(#[source] io::Error),
    /// The embedded broker does not start.
    #[error("the embedded broker does not start")]
    Broker(#[from] EmbeddedError),
    /// Kafka cannot be used.
    #[error("kafka at {bootstrap_servers} cannot be used")]
    Kafka {
        /// Which one.
        bootstrap_servers: String,
        /// Why.
        source: KafkaError,
    },
}

impl DemoError {
    /// Whether the arguments are to blame, and not what was found around them.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Contract(_) | Self::ProductionKafka(_))
    }
}

/// Makes what is missing: keys, a broker or the topics.
///
/// # Errors
///
/// Something of it cannot be had.
pub async fn prepare(options: Options) -> Result<Demo, DemoError> {
    if let Some(servers) = options.kafka.as_deref().filter(|servers| is_production(servers)) {
        return Err(DemoError::ProductionKafka(servers.to_owned()));
    }
    let webhooks = webhooks(&options);
    let events = Some(webhooks.events_topic.as_str());
    let contract = match &options.contracts {
        Some(folder) => Contract::load_with(folder, events).map_err(DemoError::Contract)?,
        None => clinical_with(events),
    };
    let contract = Arc::new(contract);
    let (keys, issuer) = open_state(&options.state).map_err(|source| DemoError::State {
        folder: options.state.clone(),
        source,
    })?;
    let config = config(&options, &contract, keys, webhooks);

    let named = contract.streams.iter().flat_map(|stream| &stream.topics);
    let topics: Vec<&str> = named
        .filter(|topic| topic.is_literal())
        .map(|topic| topic.as_str())
        .collect();
    let dead_letters = config.kafka.dead_letter_topic.as_str();
    let store = app::open_store(&config).await.map_err(Box::new)?;
    let (broker, bootstrap_servers) = match &options.kafka {
        None => {
            let ours = [dead_letters]
                .into_iter()
                .chain(config.kafka.control_topic.as_deref());
            let broker = Broker::start(topics.into_iter().chain(ours), EMBEDDED_PARTITIONS)?;
            let servers = broker.bootstrap_servers().to_owned();
            (Some(broker), servers)
        }
        Some(servers) => {
            let failed = |source| DemoError::Kafka {
                bootstrap_servers: servers.clone(),
                source,
            };
            producer::create_topics(servers, &topics, dead_letters)
                .await
                .map_err(failed)?;
            (None, servers.clone())
        }
    };
    let has_events = options.events_per_second > 0.0;
    let producer = has_events
        .then(|| {
            Producer::new(
                &bootstrap_servers,
                Script::new(rand::random()),
                options.events_per_second,
            )
        })
        .transpose()
        .map_err(|source| DemoError::Kafka {
            bootstrap_servers: bootstrap_servers.clone(),
            source,
        })?;
    let seen = KafkaSeen {
        embedded: broker.is_some(),
        bootstrap_servers,
    };
    let receiver = Receiver::start().map_err(DemoError::Receiver)?;
    let endpoints = endpoints::router(issuer, &contract, seen, options.events_per_second);
    let page = Page {
        endpoints: endpoints.merge(receiver::page::router(receiver.reception())),
        hosts: Vec::new(),
    };
    Ok(Demo {
        setup: Setup {
            config,
            contract,
            broker,
            page: Some(page),
            store,
        },
        producer,
        receiver,
    })
}

/// The stream that examples are about: observations, where there are some.
#[must_use]
pub fn sample_stream(contract: &Contract) -> Option<&Arc<Stream>> {
    let observations = contract.stream("observations");
    let not_ours = |stream: &&Arc<Stream>| stream.name.as_str() != WEBHOOK_EVENTS;
    observations.or_else(|| contract.streams.iter().find(not_ours))
}

fn open_state(folder: &std::path::Path) -> io::Result<(Keys, DevelopmentIssuer)> {
    let keys = Keys {
        cursor: vec![state::secret(folder, "cursor.key")?],
        ticket: vec![state::secret(folder, "ticket.key")?],
        event_id: state::secret(folder, "event-id.key")?,
        store: vec![state::secret(folder, "store.key")?],
        signing: Vec::new(),
    };
    let issuer = DevelopmentIssuer::open(&folder.join(state::DEVELOPMENT_KEY))?;
    Ok((keys, issuer))
}

/// Endpoints and what is parked are kept beside the keys; receivers are on this machine.
fn webhooks(options: &Options) -> Webhooks {
    let breaker = breaker::Policy {
        open_min: BREAKER_OPEN.0,
        open_max: BREAKER_OPEN.1,
        ..breaker::Policy::default()
    };
    let defaults = Webhooks::default();
    Webhooks {
        // The embedded broker forgets everything: what was owed of its former topics is no loss to tell of.
        consumer_group: match &options.kafka {
            Some(_) => defaults.consumer_group.clone(),
            None => format!("{}.{}", defaults.consumer_group, ulid::Ulid::generate()),
        },
        scheduler: scheduler::Bounds {
            breaker,
            ..scheduler::Bounds::default()
        },
        enabled: true,
        store: SecretString::from(format!("sqlite:{}", options.state.join("webhooks.db").display())),
        allow_loopback: true,
        ..defaults
    }
}

/// The configuration that a file would have given.
fn config(options: &Options, contract: &Contract, keys: Keys, webhooks: Webhooks) -> Config {
    let mut claims: Vec<String> = contract
        .claims_used()
        .into_iter()
        .flat_map(|used| used.claims)
        .collect();
    claims.push("patient".to_owned());
    claims.sort();
    claims.dedup();
    let mut trusted = Trusted::new(ISSUER, KeySource::Jwks(String::new()), vec![AUDIENCE.to_owned()]);
    trusted.tenants = Tenants::Any;
    trusted.claims = claims;
    let place = Place {
        file: PathBuf::from("demo"),
        line: 1,
        column: 1,
    };
    let cluster = options.kafka.clone().map_or(Cluster::Embedded, Cluster::Servers);
    Config {
        contracts: options.contracts.clone().unwrap_or_default(),
        environment: Environment::Development,
        listen: Listen {
            address: options.listen,
            admin: options.admin,
            ..Listen::default()
        },
        kafka: Kafka::new(place.clone(), cluster),
        replay: ReplaySettings::default(),
        issuers: vec![Issuer {
            place,
            trusted,
            development: Some(options.state.join(state::DEVELOPMENT_KEY)),
            jwks_file: None,
        }],
        keys,
        origins: Vec::new(),
        limits: Limits::default(),
        graphql: Graphql {
            introspection: true,
            graphiql: true,
            ..Graphql::default()
        },
        webhooks,
        logs: Logs::default(),
    }
}
