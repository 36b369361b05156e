//! The deeds of the scheduler: attempts, parking, dead letters, and what other nodes are told.
//!
//! Invariants: before each attempt the event is judged under the grant of now; what may not be sent any more is dropped, and
//! that is on record. Nothing is settled here that the store or Kafka has not taken.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use auth::clock::Clock;
use schemas::decode::{Decoder, Record};
use schemas::ids::StreamName;
use schemas::project::Mask;
use tokio::time::Instant;
use ulid::Ulid;
use webhooks::attempt::{self, Answered, Outgoing};
use webhooks::breaker::Breaker;
use webhooks::delivery::{DeliveryId, EndpointId, Position};
use webhooks::endpoint::Disabled;
use webhooks::ledger::Receipt;
use webhooks::render::Prepared;
use webhooks::retry::{Death, Outcome};
use webhooks::scheduler::{Failed, Job, Parking, Verdict, World};
use webhooks::sign::MessageSigner;
use webhooks::store::{Attempt, Bodies, Body, Parked, Settled, Store, StoreError};

use super::Metrics;
use super::announcer::{self, Announcer, Notice};
use super::chores::Chores;
use super::clients::Clients;
use super::journal::Journal;
use super::positions::Positions;
use super::registry::{Entry, Registry, Ungranted};
use crate::kafka::group::Receipts;
use crate::kafka::letters::{Letter, Letters};

/// What the deeds are done with.
pub(crate) struct Courier {
    pub(crate) registry: Arc<Registry>,
    pub(crate) store: Arc<Store>,
    pub(crate) decoders: Arc<HashMap<StreamName, Decoder>>,
    pub(crate) clients: Arc<Clients>,
    pub(crate) signer: Arc<MessageSigner>,
    pub(crate) journal: Journal,
    pub(crate) announcer: Announcer,
    pub(crate) chores: Chores,
    pub(crate) letters: Letters,
    pub(crate) dead_letter_topic: Arc<str>,
    pub(crate) receipts: Arc<Receipts>,
    pub(crate) positions: Positions,
    /// How much of each body is kept with its attempt.
    pub(crate) body_bytes_max: usize,
    /// This node's name in leases.
    pub(crate) holder: Arc<str>,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
}

/// The endpoint, the event, and what hides a part of it.
type Judged = (Arc<Entry>, Arc<Prepared>, Arc<Mask>);

/// Why a delivery is not attempted.
enum Unsent {
    /// It is not to be sent any more, for this reason.
    Dropped(&'static str),
    /// Its endpoint is not called at the moment.
    Held,
    /// Nobody knows yet whether it may be.
    Unknown,
}

impl World for Courier {
    async fn attempt(&self, job: Arc<Job>, dead_lettered: Option<DeliveryId>) -> Verdict {
        let start = (Instant::now(), self.clock.now_ms());
        let (entry, event, mask) = match self.judge(&job) {
            Ok(judged) => judged,
            Err(Unsent::Dropped(word)) => {
                self.metrics.attempt("dropped", Duration::ZERO);
                self.log(&job, start.1, None, word, Duration::ZERO, None);
                return Verdict::Dropped;
            }
            Err(Unsent::Held) => return Verdict::Held,
            Err(Unsent::Unknown) => {
                return Verdict::Answered(Outcome::Throttled {
                    retry_after_ms: Some(1000),
                });
            }
        };
        let endpoint = &entry.kept.endpoint;
        let rendered = Arc::unwrap_or_clone(event.render(&mask, endpoint.spec.content));
        let sent = (self.body_bytes_max > 0).then(|| rendered.body.clone());
        let client = match self.clients.of(endpoint) {
            Ok(client) => client,
            Err(error) => return self.unsent(&job, start, error.class()),
        };
        let Ok(token) = self.clients.token(endpoint).await else {
            return self.unsent(&job, start, "credentials");
        };
        let position = event.position(|| self.positions.seal(&job.target.tenant, &job.stream, &job.record));
        let outgoing = Outgoing {
            endpoint,
            delivery: &job.delivery,
            number: job.attempts.saturating_add(1),
            rendered,
            position: Some(position),
            dead_lettered: dead_lettered.as_ref(),
            token: token.as_ref(),
        };
        let report = attempt::post(&client, outgoing, &self.signer, self.clock).await;
        if report.status == Some(401) && token.is_some() {
            self.clients.forget_token(&endpoint.id);
        }
        self.metrics.attempt(report.word, report.latency);
        if let (Outcome::Delivered, Ok(time_ms)) = (
            report.outcome,
            u64::try_from(self.clock.now_ms().saturating_sub(job.record.timestamp_ms)),
        ) && job.receipt.is_some()
        {
            self.metrics
                .age
                .observe(Duration::from_millis(time_ms).as_secs_f64());
        }
        let bodies = sent.map(|sent| self.bodies(&sent, report.answer));
        self.log(&job, start.1, report.status, report.word, report.latency, bodies);
        Verdict::Answered(report.outcome)
    }

    async fn park(&self, parked: &[Parking]) -> Result<(), Failed> {
        let now_ms = self.clock.now_ms();
        let rows: Vec<Parked> = parked
            .iter()
            .map(|parking| self.parked(parking, now_ms))
            .collect();
        self.told(self.store.park(&rows).await)?;
        self.metrics.parked.inc_by(parked.len() as u64);
        Ok(())
    }

    async fn settle(&self, settled: &[Settled]) -> Result<(), Failed> {
        self.told(self.store.settle(&self.holder, settled).await)
    }

    async fn dead_letter(&self, job: &Job, death: Death) -> Result<(), Failed> {
        let endpoint = &job.target.endpoint;
        let text = |name: &str, value: String| (name.to_owned(), value.into_bytes());
        let mut headers = vec![
            text("delivery", job.delivery.to_string()),
            text("endpoint", endpoint.to_string()),
            text("tenant", job.target.tenant.to_string()),
            text("stream", job.stream.to_string()),
            text("topic", job.record.topic.to_string()),
            text("partition", job.record.partition.to_string()),
            text("offset", job.record.offset.to_string()),
            text("attempts", job.attempts.saturating_add(1).to_string()),
            text("reason", death.as_str().to_owned()),
        ];
        if job.record.value.is_none() {
            headers.push(text("record.tombstone", "true".to_owned()));
        }
        for (name, value) in &job.record.headers {
            headers.push((
                format!("record.header.{name}"),
                value.as_deref().unwrap_or_default().to_vec(),
            ));
        }
        if let Some(key) = &job.record.key {
            headers.push(("record.key".to_owned(), key.to_vec()));
        }
        let letter = Letter {
            topic: Arc::clone(&self.dead_letter_topic),
            key: job.delivery.as_str().as_bytes().to_vec(),
            value: job.record.value.as_deref().unwrap_or_default().to_vec(),
            headers,
        };
        self.letters.send(letter).await.map_err(|_| Failed)?;
        self.metrics.dead_letters.inc();
        if job.stream.as_str() != announcer::STREAM {
            let mut notice = Notice::new("delivery.dead_lettered", endpoint);
            notice.detail = serde_json::json!({
                "delivery": job.delivery.as_str(), "stream": job.stream.as_str(), "reason": death.as_str(),
            });
            self.announcer.tell(&job.target.tenant, &notice);
        }
        Ok(())
    }

    async fn due(&self) -> Result<Vec<EndpointId>, Failed> {
        if !self.registry.may_lease() {
            return Ok(Vec::new());
        }
        self.told(self.store.due().await)
    }

    async fn claim(&self, endpoint: &EndpointId, limit: usize, lease: Duration) -> Result<Vec<Job>, Failed> {
        // What the store says is called may be news here.
        let mut entry = self.registry.snapshot().entry(endpoint).cloned();
        if entry.as_ref().is_none_or(|entry| !entry.target.callable) {
            self.told(self.registry.look().await)?;
            entry = self.registry.snapshot().entry(endpoint).cloned();
        }
        let Some(entry) = entry else {
            return Ok(Vec::new());
        };
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let (now, now_ms) = (Instant::now(), self.clock.now_ms());
        let tenant = &entry.target.tenant;
        let claimed = self
            .store
            .claim(tenant, endpoint, &self.holder, lease, limit)
            .await;
        let job = |claimed: webhooks::store::Claimed| Job {
            target: Arc::clone(&entry.target),
            delivery: claimed.delivery,
            stream: claimed.stream,
            record: Arc::new(claimed.record),
            event: None,
            order_key: claimed.order_key,
            attempts: claimed.attempts,
            first_ms: (claimed.attempts > 0)
                .then(|| now_ms.saturating_sub(i64::try_from(claimed.age.as_millis()).unwrap_or(0))),
            receipt: None,
            arrived: now,
            leased_until: Some(now + lease),
        };
        Ok(self.told(claimed)?.into_iter().map(job).collect())
    }

    async fn blocked(&self, endpoint: &EndpointId) -> Result<HashSet<Vec<u8>>, Failed> {
        let keys = self.told(self.store.blocked_keys(endpoint).await)?;
        Ok(keys.into_iter().collect())
    }

    fn settled(&self, receipt: &Receipt, delivery: &DeliveryId) {
        self.receipts.give_back(receipt, delivery);
    }

    fn health(&self, endpoint: &EndpointId, breaker: &Breaker) {
        self.chores.health(endpoint, breaker);
    }

    fn disable(&self, endpoint: &EndpointId, reason: Disabled) {
        self.chores.disable(endpoint, reason);
    }
}

impl Courier {
    /// Whether the event may be sent now, to whom, and what of it is shown.
    fn judge(&self, job: &Job) -> Result<Judged, Unsent> {
        let snapshot = self.registry.snapshot();
        let entry = snapshot
            .entry(&job.target.endpoint)
            .ok_or(Unsent::Dropped("dropped_endpoint_gone"))?;
        if !entry.target.callable {
            return Err(Unsent::Held);
        }
        let interest = entry
            .interest(&job.stream, &self.registry)
            .map_err(|ungranted| match ungranted {
                Ungranted::Denied => Unsent::Dropped("dropped_not_granted"),
                Ungranted::Unknown => Unsent::Unknown,
            })?;
        let event = match &job.event {
            Some(event) => Arc::clone(event),
            None => {
                let decoder = self
                    .decoders
                    .get(&job.stream)
                    .ok_or(Unsent::Dropped("dropped_stream_gone"))?;
                let decoded = decoder.decode(Record::clone(&job.record)).ok().flatten();
                Arc::new(Prepared::alone(
                    decoded.ok_or(Unsent::Dropped("dropped_undecodable"))?,
                ))
            }
        };
        let mask = interest
            .shows(event.event(), self.clock.now_ms())
            .ok_or(Unsent::Dropped("dropped_not_granted"))?;
        Ok((Arc::clone(entry), event, mask))
    }

    /// It could not even be begun.
    fn unsent(&self, job: &Job, start: (Instant, i64), word: &'static str) -> Verdict {
        let latency = start.0.elapsed();
        self.metrics.attempt(word, latency);
        self.log(job, start.1, None, word, latency, None);
        Verdict::Answered(Outcome::Failed)
    }

    fn parked(&self, parking: &Parking, now_ms: i64) -> Parked {
        let job = &parking.job;
        let age_ms = job.first_ms.map_or(0, |first_ms| now_ms.saturating_sub(first_ms));
        Parked {
            delivery: job.delivery.clone(),
            endpoint: job.target.endpoint.clone(),
            tenant: job.target.tenant.clone(),
            stream: job.stream.clone(),
            record: Arc::clone(&job.record),
            order_key: job.order_key.clone(),
            attempts: job.attempts,
            age: Duration::from_millis(u64::try_from(age_ms).unwrap_or(0)),
            due_in: parking.due_in,
            lease: parking.lease.map(|lease| (Arc::clone(&self.holder), lease)),
        }
    }

    fn told<T>(&self, result: Result<T, StoreError>) -> Result<T, Failed> {
        result.map_err(|error| {
            self.metrics.store_errors.inc();
            tracing::debug!(%error, "the store of webhooks did not take or give something");
            Failed
        })
    }

    /// What is kept of what was sent and of what was answered.
    fn bodies(&self, sent: &[u8], answer: Option<Answered>) -> (Body, Option<Body>) {
        let answer = answer.map(|answer| Body {
            bytes: answer.bytes,
            ..Body::beginning(&answer.body, self.body_bytes_max)
        });
        (Body::beginning(sent, self.body_bytes_max), answer)
    }

    fn log(
        &self,
        job: &Job,
        at_ms: i64,
        status: Option<u16>,
        word: &'static str,
        latency: Duration,
        bodies: Option<(Body, Option<Body>)>,
    ) {
        let position = Position {
            topic: Arc::clone(&job.record.topic),
            incarnation: job.record.incarnation,
            partition: job.record.partition,
            offset: job.record.offset,
        };
        let id = Ulid::generate();
        let bodies = bodies.map(|(request, answer)| Bodies {
            attempt: id,
            tenant: job.target.tenant.clone(),
            endpoint: job.target.endpoint.clone(),
            at_ms,
            request,
            answer,
        });
        let attempt = Attempt {
            id,
            tenant: job.target.tenant.clone(),
            endpoint: job.target.endpoint.clone(),
            delivery: job.delivery.clone(),
            number: job.attempts.saturating_add(1),
            at_ms,
            status,
            outcome: word.into(),
            latency_ms: u32::try_from(latency.as_millis()).unwrap_or(u32::MAX),
            place: Some((job.stream.clone(), position)),
        };
        self.journal.write(attempt, bodies);
    }
}
