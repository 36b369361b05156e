//! What follows a failure: another attempt and not too soon, calm, the end of calls, the dead letters; and how a partner
//! gets what was missed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tidewire_tests::gateway::{Gateway, Webhooks};
use tidewire_tests::partner::{Made, Partner};
use tidewire_tests::plan::Planned;
use tidewire_tests::receiver::{Answer, Arrival, Behaviour, Event, Hook, Receiver};
use tidewire_tests::volume::say;
use tidewire_tests::wait;
use tokio::time::Instant;

use crate::ingest::letters;
use crate::support::World;

/// One endpoint of one tenant, and events for it on one partition.
pub(crate) struct Line {
    pub(crate) world: World,
    pub(crate) topic: String,
    pub(crate) webhooks: Webhooks,
    pub(crate) gateway: Gateway,
    pub(crate) partner: Partner,
    pub(crate) receiver: Receiver,
    pub(crate) hook: Arc<Hook>,
    pub(crate) made: Made,
    next: i64,
}

impl Line {
    /// The endpoint answers like this; `more` is merged into its request, `settings` into those of the gateway.
    pub(crate) async fn new(
        name: &str,
        behaviour: Behaviour,
        more: Value,
        settings: &[(&'static str, u64)],
    ) -> Result<Self> {
        let world = World::new().await?;
        let topic = world.topic(name, 1).await?;
        let mut webhooks = world.webhooks().await?;
        for (name, value) in settings {
            webhooks = webhooks.with(name, *value);
        }
        let gateway = world.setup(&[&topic]).webhooks(&webhooks).start().await?;
        let partner = world.partner(&gateway, "north");
        let receiver = Receiver::start().await?;
        let hook = receiver.hook("line", behaviour);
        let mut body = json!({"content": "raw", "timeout_ms": 2000});
        body.as_object_mut()
            .context("an object")?
            .extend(more.as_object().context("an object")?.clone());
        let made = partner.hook(&hook, &["observations"], body).await?;
        Ok(Self {
            world,
            topic,
            webhooks,
            gateway,
            partner,
            receiver,
            hook,
            made,
            next: 0,
        })
    }

    /// Produces the next events.
    pub(crate) async fn produce(&mut self, count: i64) -> Result<()> {
        let mut records = Vec::new();
        for n in self.next..self.next + count {
            let planned = Planned {
                tenant: "north",
                patient: 1 + u32::try_from(n % 2)?,
                status: "final",
                partition: 0,
                n,
                padding: 0,
            };
            records.push(planned.record(&self.topic));
        }
        self.next += count;
        self.world.producer.send_all(&records).await?;
        Ok(())
    }

    /// Waits until so many requests came.
    pub(crate) async fn count(&self, count: usize) -> Result<Vec<Arrival>> {
        wait::until_count("requests", count, || self.hook.count())
            .await
            .with_context(|| self.gateway.log_tail())?;
        Ok(self.hook.arrivals())
    }

    /// Waits until so many deliveries were taken.
    pub(crate) async fn taken(&self, count: usize) -> Result<()> {
        wait::until_count("deliveries", count, || self.hook.taken())
            .await
            .with_context(|| self.gateway.log_tail())
    }

    /// Waits until everything that was produced is settled or parked: its offset is committed.
    pub(crate) async fn committed(&self) -> Result<()> {
        let (group, topic) = (&self.webhooks.group, &self.topic);
        wait::until("everything to be settled or parked", || async {
            let committed = self.world.topics.committed(group, topic, 1).await.ok()?;
            (committed >= self.next).then_some(())
        })
        .await
        .with_context(|| self.gateway.log_tail())
    }

    /// Waits until the endpoint shows this.
    pub(crate) async fn shows(&self, pointer: &str, value: &Value) -> Result<Value> {
        let shown = wait::until(format!("{pointer} to be {value}"), || async {
            let shown = self.partner.read(&self.made.id, "").await.ok()?;
            (shown.pointer(pointer) == Some(value)).then_some(shown)
        })
        .await;
        shown.with_context(|| self.gateway.log_tail())
    }

    /// The attempts on record, once there are so many.
    pub(crate) async fn attempts(&self, count: usize) -> Result<Vec<Value>> {
        wait::until(format!("{count} attempts on record"), || async {
            let attempts = self
                .partner
                .attempts(&format!("endpoint={}", self.made.id))
                .await
                .ok()?;
            (attempts.len() >= count).then_some(attempts)
        })
        .await
        .with_context(|| self.gateway.log_tail())
    }

    /// Whether an event was taken.
    pub(crate) fn took(&self, n: i64) -> bool {
        let is_it = |arrival: &Arrival| arrival.accepted && arrival.event.is_some_and(|event| event.n == n);
        self.hook.arrivals().iter().any(is_it)
    }

    /// Each event once, by its number.
    pub(crate) fn numbers(&self) -> BTreeSet<i64> {
        let arrivals = self.hook.arrivals();
        arrivals
            .iter()
            .filter_map(|arrival| arrival.event.map(|Event { n, .. }| n))
            .collect()
    }
}

fn gap(arrivals: &[Arrival], place: usize) -> Duration {
    arrivals[place + 1].at.duration_since(arrivals[place].at)
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_is_honoured_in_seconds_and_as_a_date() -> Result<()> {
    let date = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(9);
    let date = date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let until = Instant::now() + Duration::from_secs(8);
    let answers = vec![
        Answer::RetryAfter(429, "2".to_owned()),
        Answer::RetryAfter(503, date),
        Answer::Status(500),
    ];
    let mut line = Line::new(
        "retry-after",
        Behaviour::first(answers),
        json!({"retry_seconds": [1, 1, 1]}),
        &[],
    )
    .await?;
    line.produce(1).await?;
    let arrivals = line.count(4).await?;
    ensure!(gap(&arrivals, 0) >= Duration::from_secs(2), "{arrivals:?}");
    ensure!(arrivals[2].at >= until, "{arrivals:?}");
    ensure!(gap(&arrivals, 2) >= Duration::from_secs(1), "{arrivals:?}");
    let numbers: Vec<u32> = arrivals.iter().map(|arrival| arrival.number).collect();
    ensure!(numbers == [1, 2, 3, 4], "{numbers:?}");
    ensure!(arrivals.iter().all(|arrival| arrival.id == arrivals[0].id));
    let attempts = line.attempts(4).await?;
    let mut statuses: Vec<u64> = attempts
        .iter()
        .filter_map(|attempt| attempt["status"].as_u64())
        .collect();
    statuses.sort_unstable();
    ensure!(statuses == [200, 429, 500, 503], "{attempts:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_gone_is_not_called_any_more_and_gets_what_was_parked_when_it_is_back() -> Result<()> {
    let answers = vec![Answer::Status(410)];
    let mut line = Line::new("gone", Behaviour::first(answers), json!({}), &[]).await?;
    line.produce(1).await?;
    let shown = line.shows("/status", &json!("disabled")).await?;
    ensure!(shown["disabled"]["reason"] == "gone", "{shown}");
    line.produce(30).await?;
    line.committed().await?;
    ensure!(line.hook.count() == 1, "it was called all the same");
    line.partner.tell(&line.made.id, "resume", None).await?;
    line.taken(31).await?;
    ensure!(line.numbers() == (0..31).collect(), "{:?}", line.numbers());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_fails_again_and_again_is_left_alone_and_then_asked_once() -> Result<()> {
    let answers = vec![Answer::Status(500); 4];
    let settings = [
        ("breaker_failures", 3),
        ("breaker_open_min_ms", 1_500),
        ("breaker_open_max_ms", 60_000),
    ];
    let more = json!({"concurrency": 1, "retry_seconds": [1, 1, 1, 1, 1, 1]});
    let mut line = Line::new("breaker", Behaviour::first(answers), more, &settings).await?;
    line.produce(20).await?;
    line.taken(20).await?;
    let arrivals = line.hook.arrivals();
    // Three failures; the probe, which fails too; twice as long; the probe that is answered.
    let (first, second) = (gap(&arrivals, 2), gap(&arrivals, 3));
    ensure!(first >= Duration::from_millis(1_450), "{first:?}");
    ensure!(second >= Duration::from_millis(2_950), "{second:?}");
    ensure!(line.numbers() == (0..20).collect(), "{:?}", line.numbers());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_fails_for_too_long_is_disabled_and_loses_nothing() -> Result<()> {
    let behaviour = Behaviour::always(Answer::Status(503));
    let settings = [("disable_after_seconds", 3)];
    let more = json!({"retry_seconds": vec![1; 20]});
    let mut line = Line::new("hopeless", behaviour, more, &settings).await?;
    line.produce(10).await?;
    let shown = line.shows("/status", &json!("disabled")).await?;
    ensure!(shown["disabled"]["reason"] == "failing", "{shown}");
    let before = line.hook.count();
    line.produce(10).await?;
    line.committed().await?;
    ensure!(line.hook.count() == before, "it was called all the same");
    line.hook.behave(Behaviour::good());
    line.partner.tell(&line.made.id, "resume", None).await?;
    line.taken(20).await?;
    ensure!(line.numbers() == (0..20).collect(), "{:?}", line.numbers());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_while_an_endpoint_is_paused_waits_for_it_through_a_crash() -> Result<()> {
    let mut line = Line::new("paused", Behaviour::good(), json!({}), &[]).await?;
    line.produce(5).await?;
    line.taken(5).await?;
    line.partner.tell(&line.made.id, "pause", None).await?;
    line.shows("/status", &json!("disabled")).await?;
    line.produce(50).await?;
    line.committed().await?;
    ensure!(line.hook.count() == 5, "it was called: {:?}", line.numbers());
    line.gateway.kill()?;
    line.gateway.resume().await?;
    line.gateway.ready().await?;
    let numbers = line.numbers();
    ensure!(line.hook.count() == 5, "it was called all the same: {numbers:?}");
    line.partner.tell(&line.made.id, "resume", None).await?;
    line.taken(55).await?;
    ensure!(line.numbers() == (0..55).collect(), "{:?}", line.numbers());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_goes_to_the_dead_letters_and_the_next_one_says_so() -> Result<()> {
    let behaviour = Behaviour::by(|asked| match asked.event {
        Some(Event { n: 0, .. }) => Answer::Status(400),
        _ => Answer::Status(200),
    });
    let more = json!({"retry_seconds": [1], "ordering": "key"});
    let mut line = Line::new("given-up", behaviour, more, &[]).await?;
    line.hook.keep(10);
    line.produce(1).await?;
    let arrivals = line.count(2).await?;
    let id = arrivals[0].id.to_string();
    let letters = letters(line.world.kafka.bootstrap(), &line.webhooks.dead_letters, 1)
        .await
        .with_context(|| line.gateway.log_tail())?;
    let text = format!("{letters:?}");
    ensure!(text.contains(&id) && text.contains("retries_exhausted"), "{text}");
    line.produce(1).await?;
    line.taken(1).await?;
    let next = line.hook.kept().pop().context("the next one")?;
    ensure!(next.header("tidewire-dead-lettered") == id, "{:?}", next.headers);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_gives_again_what_was_missed_and_holds_nothing_new_back() -> Result<()> {
    let mut line = Line::new("replayed", Behaviour::good(), json!({}), &[]).await?;
    line.produce(1).await?;
    line.taken(1).await?;
    let middle = jiff::Timestamp::now();
    line.produce(200).await?;
    line.taken(201).await?;
    let ids = |arrivals: &[Arrival]| -> BTreeSet<(i64, Arc<str>)> {
        let with_n = |arrival: &Arrival| Some((arrival.event?.n, Arc::clone(&arrival.id)));
        arrivals.iter().filter_map(with_n).collect()
    };
    let before = ids(&line.hook.arrivals());
    line.hook.clear();
    let from = json!({"from": middle.to_string(), "stream": "observations"});
    let started = line.partner.tell(&line.made.id, "replay", Some(&from)).await?;
    ensure!(started["id"].is_string(), "{started}");
    // New ones come while it runs.
    let mut slowest = Duration::ZERO;
    for n in 201..221 {
        let sent = Instant::now();
        line.produce(1).await?;
        wait::until_true("the new one", || line.numbers().contains(&n)).await?;
        slowest = slowest.max(sent.elapsed());
    }
    line.taken(220).await?;
    let again = ids(&line.hook.arrivals());
    let old: BTreeSet<_> = again.iter().filter(|(n, _)| *n <= 200).cloned().collect();
    let missed: BTreeSet<_> = before.iter().filter(|(n, _)| *n >= 1).cloned().collect();
    ensure!(
        old == missed,
        "{} were replayed for {}, or under other ids",
        old.len(),
        missed.len()
    );
    say(&format!(
        "webhooks replayed: 200 of 200 under their ids; the slowest of 20 new ones meanwhile took {:.0} ms",
        slowest.as_secs_f64() * 1000.0
    ));
    wait::until("the replay to be over", || async {
        let shown = line.partner.read(&line.made.id, "/replays").await.ok()?;
        let is_done = |replay: &Value| replay["partitions_done"] == replay["partitions"];
        shown["replays"].as_array()?.iter().all(is_done).then_some(())
    })
    .await?;

    // Since it failed: all that was not taken, though it was given up.
    line.hook.clear();
    line.hook.behave(Behaviour::always(Answer::Status(500)));
    line.partner
        .change(&line.made.id, &json!({"retry_seconds": []}))
        .await?;
    line.produce(5).await?;
    line.count(5).await?;
    wait::until("the failures to be on record", || async {
        let failed = line.partner.attempts("outcome=status").await.ok()?;
        (failed.len() >= 5).then_some(())
    })
    .await?;
    line.hook.behave(Behaviour::good());
    let failed = json!({"from": "failed"});
    line.partner.tell(&line.made.id, "replay", Some(&failed)).await?;
    let missed = || (221..226).all(|n| line.took(n));
    wait::until_true("what was given up", missed).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_delivery_is_sent_again_and_a_test_is_sent_at_all() -> Result<()> {
    let mut line = Line::new("again", Behaviour::good(), json!({}), &[]).await?;
    line.produce(3).await?;
    line.taken(3).await?;
    line.attempts(3).await?;
    let arrivals = line.hook.arrivals();
    let path = format!("/v1/webhooks/deliveries/{}/resend", arrivals[1].id);
    let answer = line.partner.ask(Method::POST, &path, &[], None).await?;
    ensure!(
        (200..300).contains(&answer.status),
        "{} {}",
        answer.status,
        answer.text()
    );
    let arrivals = line.count(4).await?;
    ensure!(arrivals[3].id == arrivals[1].id && arrivals[3].digest == arrivals[1].digest);

    line.hook.keep(1);
    line.partner.tell(&line.made.id, "test", None).await?;
    let arrivals = line.count(5).await?;
    ensure!(arrivals[4].id.starts_with("msg_test_"), "{:?}", arrivals[4]);
    ensure!(line.hook.faults().is_empty(), "{:?}", line.hook.faults());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_would_be_sent_and_sends_nothing() -> Result<()> {
    let more = json!({"content": "structured", "filter": {"exact": {"patient": "Patient/2"}}});
    let mut line = Line::new("dry", Behaviour::good(), more, &[]).await?;
    line.produce(10).await?;
    line.taken(5).await?;
    line.hook.clear();
    let ask = json!({"stream": "observations", "events": 10});
    let said = line.partner.tell(&line.made.id, "dry-run", Some(&ask)).await?;
    ensure!(said["events"] == 10 && said["matched"] == 5, "{said}");
    let deliveries = said["deliveries"].as_array().context("deliveries")?;
    ensure!(deliveries.len() == 5, "{said}");
    for delivery in deliveries {
        let body: Value = serde_json::from_str(delivery["body"].as_str().context("a body")?)?;
        ensure!(body["patient"] == "Patient/2", "{body}");
    }
    ensure!(line.hook.count() == 0, "something was sent");
    Ok(())
}
