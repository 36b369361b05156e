//! Webhooks, put together: the consumer group and the resolver beside it, the scheduler with its courier, replays, and what
//! keeps the store tidy.
//!
//! One invariant: every task and thread has its owner here, and [`Webhooks::drain`] ends all of them in the order in which
//! nothing is lost: what is under way, then what it settles, then the group, then the logs.

pub(crate) mod announcer;
pub(crate) mod chores;
pub(crate) mod clients;
pub(crate) mod courier;
pub(crate) mod desk;
pub(crate) mod journal;
mod metrics;
pub(crate) mod planner;
pub(crate) mod positions;
pub(crate) mod registry;
pub(crate) mod replays;
mod upkeep;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use auth::clock::Clock;
use auth::control::Control;
use auth::egress::EgressError;
use auth::seal::BadKey;
use aws_lc_rs::hkdf;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prometheus_client::registry::Registry as Counted;
use rdkafka::error::KafkaError;
use schemas::contract::Contract;
use schemas::cursor::Sealer;
use schemas::decode::Decoder;
use schemas::ids::TenantId;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use ulid::Ulid;
use webhooks::delivery::{DeliveryIds, EndpointId};
use webhooks::scheduler::Scheduler;
use webhooks::sign::{Ed25519, Held, MessageSigner};
use webhooks::store::Store;

use crate::config;
use crate::kafka::group::resolver::Resolver;
use crate::kafka::group::{Group, Parts, Receipts};
use crate::kafka::letters::{Letters, create_topics};
use crate::kafka::{DeadLetters, KafkaSettings, Logs, group_consumer};
use announcer::{Announcer, Notice};
use chores::{Chores, Teller};
use clients::{Clients, Reaches};
use courier::Courier;
use desk::{Announce, Desk, DeskSettings, Paces};
use journal::Journal;
pub(crate) use metrics::Metrics;
use planner::{OrderKeys, Planner};
use positions::Positions;
use registry::Registry;
use replays::Replays;
use upkeep::Upkeep;

/// Jobs on their way from the group's thread to the scheduler.
const JOBS_MAX: usize = 4096;
/// Questions on their way from the group's thread to the resolver.
const ASKS_MAX: usize = 1024;

/// What webhooks are built from.
pub(crate) struct Setup<'a> {
    pub(crate) config: &'a config::webhooks::Webhooks,
    pub(crate) keys: &'a config::keys::Keys,
    pub(crate) kafka: &'a KafkaSettings,
    pub(crate) contract: &'a Arc<Contract>,
    pub(crate) store: Arc<Store>,
    pub(crate) dead_letters: Arc<DeadLetters>,
    pub(crate) control: Control,
    pub(crate) sealer: Sealer,
    pub(crate) clock: Clock,
    pub(crate) drain_timeout: Duration,
}

/// Why they cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// librdkafka refuses.
    #[error("librdkafka refuses to start")]
    Kafka(#[from] KafkaError),
    /// No client for deliveries.
    #[error("receivers cannot be called")]
    Client(#[from] EgressError),
    /// The store's keys cannot be used.
    #[error("the store's keys are refused")]
    Keys(#[from] BadKey),
    /// The signing keys cannot be used.
    #[error("the signing keys are refused")]
    Signing(#[from] webhooks::sign::BadSecret),
}

/// Running webhooks.
pub(crate) struct Webhooks {
    group: Group,
    scheduler: JoinSet<()>,
    stop_scheduler: CancellationToken,
    /// What does not end by itself.
    tasks: JoinSet<&'static str>,
    stop: CancellationToken,
    desk: Arc<Desk>,
    /// What ends when everything is written.
    writers: JoinSet<()>,
    store: Arc<Store>,
    holder: Arc<str>,
}

impl Webhooks {
    /// Starts everything. Call it inside a tokio runtime.
    pub(crate) fn start(setup: Setup<'_>, counted: &mut Counted) -> Result<Self, StartError> {
        let Setup {
            config,
            keys,
            kafka,
            contract,
            store,
            dead_letters,
            control,
            sealer,
            clock,
            drain_timeout,
        } = setup;
        let metrics = Metrics::register(counted);
        if config.attempt_body_bytes_max > 0 {
            tracing::warn!(
                bytes = config.attempt_body_bytes_max,
                "bodies of webhooks are kept with the log of attempts, what receivers answer too"
            );
        }
        let holder: Arc<str> = Arc::from(format!("node_{}", Ulid::generate()));
        let logs = Arc::new(Logs::new(kafka, contract, metrics.readers_busy.clone())?);
        let letters = Letters::new(kafka)?;
        let decoders: HashMap<_, _> = contract
            .streams
            .iter()
            .map(|stream| {
                (
                    stream.name.clone(),
                    Decoder::new(Arc::clone(stream), &kafka.id_secret),
                )
            })
            .collect();
        let decoders = Arc::new(decoders);
        let ids = Arc::new(DeliveryIds::new(&keys.event_id));
        let order_keys = OrderKeys::new(&keys.event_id);
        let clients = Arc::new(Clients::new(Reaches {
            loopback: config.allow_loopback,
            private: config.private_networks.clone(),
        })?);
        let signer = Arc::new(MessageSigner::new(signing_keys(keys.signing())?));
        let registry = Arc::new(Registry::new(
            Arc::clone(&store),
            Arc::clone(contract),
            control.clone(),
            Arc::clone(&logs),
            config.retry.clone(),
            Arc::clone(&holder),
            // Its partitions are others' after one session. What it has leased may be under way: a node that is only slow must
            // not have it taken away.
            config.session_timeout * 2,
        ));
        let (changed, poked) = watch::channel(0);
        let (announcer, notices) =
            Announcer::new(&config.events_topic, letters.clone(), clock, metrics.clone());
        let tell = announcer.clone();
        let announce = move |tenant: &TenantId, endpoint: &EndpointId, event, detail| {
            let mut notice = Notice::new(event, endpoint);
            notice.detail = detail;
            tell.tell(tenant, &notice);
        };
        let desk = Arc::new(Desk {
            store: Arc::clone(&store),
            contract: Arc::clone(contract),
            logs: Arc::clone(&logs),
            signer: Arc::clone(&signer),
            clients: Arc::clone(&clients),
            control: control.clone(),
            ids: Arc::clone(&ids),
            sealer,
            clock,
            settings: DeskSettings {
                endpoints_per_tenant_max: i64::try_from(config.endpoints_per_tenant_max).unwrap_or(i64::MAX),
                secret_overlap: config.secret_overlap,
                personal_max_ms: i64::try_from(config.personal_max.as_millis()).unwrap_or(i64::MAX),
                origin: config.origin.clone(),
                attempt_body_bytes_max: config.attempt_body_bytes_max,
                consumer: config.consumer_group.clone(),
            },
            changed: changed.clone(),
            registry: Some(Arc::clone(&registry)),
            announce: Announce {
                tell: Some(Box::new(announce)),
            },
            paces: Paces::default(),
        });
        let (journal, attempts) = Journal::new(Arc::clone(&store), metrics.clone());
        let receipts = Arc::new(Receipts::default());
        let (jobs, inbox) = mpsc::channel(JOBS_MAX);
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        let consumer = Arc::new(group_consumer(
            kafka,
            &config.consumer_group,
            config.session_timeout,
        )?);

        let group = Group::start(Parts {
            consumer: Arc::clone(&consumer),
            planner: Planner::new(
                Arc::clone(&registry),
                dead_letters,
                Arc::clone(&logs),
                Arc::clone(&decoders),
                Arc::clone(&ids),
                order_keys.clone(),
                clock,
            ),
            scheduler: jobs,
            asks,
            receipts: Arc::clone(&receipts),
            open_offsets_max: config.open_offsets_max,
            open_bytes_max: config.open_bytes_max,
            metrics: metrics.clone(),
        })?;

        let (stop, stop_scheduler) = (CancellationToken::new(), CancellationToken::new());
        let chores = Chores::default();
        let courier = Courier {
            registry: Arc::clone(&registry),
            store: Arc::clone(&store),
            decoders: Arc::clone(&decoders),
            clients: Arc::clone(&clients),
            signer,
            journal,
            announcer: announcer.clone(),
            chores: chores.clone(),
            letters,
            dead_letter_topic: Arc::from(config.dead_letter_topic.as_str()),
            receipts,
            positions: Positions::new(&keys.store)?,
            body_bytes_max: config.attempt_body_bytes_max,
            holder: Arc::clone(&holder),
            clock,
            metrics: metrics.clone(),
        };
        let mut bounds = config.scheduler;
        bounds.drain = bounds.drain.min(drain_timeout / 2);
        let scheduling = Scheduler::new(Arc::new(courier), clock, bounds);
        let mut scheduler = JoinSet::new();
        scheduler.spawn(scheduling.run(inbox, stop_scheduler.clone()));

        let mut writers = JoinSet::new();
        writers.spawn(notices.run(stop.clone()));
        writers.spawn(attempts.run(stop.clone()));

        let mut tasks = JoinSet::new();
        let resolver = Resolver {
            consumer,
            group: config.consumer_group.clone(),
            store: Arc::clone(&store),
            logs: Arc::clone(&logs),
            registry: Arc::clone(&registry),
            announcer: announcer.clone(),
            commands: group.commands(),
            metrics: metrics.clone(),
            interval: kafka.metadata_interval,
        };
        let topics = (
            kafka.clone(),
            config.dead_letter_topic.clone(),
            config.events_topic.clone(),
        );
        let (seen, interval, ended) = (Arc::clone(&registry), config.registry_interval, stop.clone());
        tasks.spawn(async move {
            seen.run(interval, poked, ended).await;
            "the registry of endpoints"
        });
        let ended = stop.clone();
        tasks.spawn(async move {
            let (settings, dead_letters, events) = topics;
            create_topics(&settings, &[&dead_letters, &events]).await;
            // Who is revoked has to be known before anything is sent.
            while !control.is_read() {
                let mut changes = control.changes();
                tokio::select! {
                    () = ended.cancelled() => return "the resolver of partitions",
                    _ = changes.changed() => {}
                    () = tokio::time::sleep(Duration::from_millis(100)) => {}
                }
            }
            resolver.run(asked, ended).await;
            "the resolver of partitions"
        });
        let teller = Teller {
            chores,
            store: Arc::clone(&store),
            registry: Arc::clone(&registry),
            announcer: announcer.clone(),
            changed,
            clock,
        };
        let ended = stop.clone();
        tasks.spawn(async move {
            teller.run(ended).await;
            "the teller of endpoints' health"
        });
        let replays = Arc::new(Replays {
            settings: kafka.clone(),
            store: Arc::clone(&store),
            logs,
            registry: Arc::clone(&registry),
            decoders,
            ids,
            order_keys,
            holder: Arc::clone(&holder),
            clock,
            metrics: metrics.clone(),
            busy: Mutex::default(),
        });
        for _ in 0..config.replays_max {
            let (replays, ended) = (Arc::clone(&replays), stop.clone());
            tasks.spawn(async move {
                replays.run(ended).await;
                "a reader of replays"
            });
        }
        let upkeep = Upkeep {
            store: Arc::clone(&store),
            registry,
            clients,
            announcer,
            parked_age_max: config.parked_age_max,
            attempts_kept: config.attempts_kept,
            metrics,
        };
        let ended = stop.clone();
        tasks.spawn(async move {
            upkeep.run(ended).await;
            "the upkeep of the store"
        });
        Ok(Self {
            group,
            scheduler,
            stop_scheduler,
            tasks,
            stop,
            desk,
            writers,
            store,
            holder,
        })
    }

    /// What the REST API asks.
    pub(crate) fn desk(&self) -> Arc<Desk> {
        Arc::clone(&self.desk)
    }

    /// Waits until a part ends that should not. Cancel safe.
    pub(crate) async fn failed(&mut self) -> &'static str {
        tokio::select! {
            Some(ended) = self.tasks.join_next() => ended.unwrap_or("a task of webhooks that panicked"),
            Some(_) = self.scheduler.join_next() => "the scheduler of webhooks",
            Some(_) = self.writers.join_next() => "a writer of webhooks",
            else => std::future::pending().await,
        }
    }

    /// Ends: what is under way may end, what it settles is committed, the rest is given back.
    pub(crate) async fn drain(mut self) {
        self.stop_scheduler.cancel();
        while self.scheduler.join_next().await.is_some() {}
        let Self { group, stop, .. } = &mut self;
        group.stop().await;
        stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        while self.writers.join_next().await.is_some() {}
        if let Err(error) = self.leave().await {
            tracing::warn!(%error, "what this node had leased is taken over when its leases end");
        }
        self.store.close().await;
    }

    async fn leave(&self) -> Result<(), webhooks::store::StoreError> {
        self.store.release(&self.holder).await?;
        self.store.leave(&self.holder).await
    }
}

#[cfg(test)]
impl Webhooks {
    /// Ends as a process that is killed does: nothing is settled, committed or given back.
    fn abandon(mut self) {
        self.scheduler.abort_all();
        self.tasks.abort_all();
        self.writers.abort_all();
        self.group.abandon();
    }
}

/// The Ed25519 keys of RFC 9421, derived from secrets as they stand in the configuration: the same on all nodes.
fn signing_keys(secrets: &[SecretString]) -> Result<Vec<Held<Ed25519>>, webhooks::sign::BadSecret> {
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"tidewire webhook signing keys, version 1");
    let mut keys = Vec::with_capacity(secrets.len());
    for secret in secrets {
        let mut seed = secrecy::zeroize::Zeroizing::new([0_u8; 32]);
        salt.extract(secret.expose_secret().as_bytes())
            .expand(&[b"ed25519"], hkdf::HKDF_SHA256)
            .and_then(|key| key.fill(seed.as_mut_slice()))
            .map_err(|_| webhooks::sign::BadSecret::Random)?;
        let text = SecretString::from(format!("whsk_{}", STANDARD.encode(seed.as_slice())));
        keys.push(Held {
            key: Ed25519::parse(&text)?,
            until_ms: None,
        });
    }
    Ok(keys)
}

#[cfg(test)]
mod tests;
