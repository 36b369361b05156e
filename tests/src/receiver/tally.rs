//! What an endpoint was owed against what arrived at it.
//!
//! A delivery that was taken and comes again is a duplicate. At least once allows it where something broke in between, and
//! only there: what has no such excuse is counted apart.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use anyhow::{Result, ensure};
use tokio::time::Instant;

use super::hook::{Arrival, Hook};
use super::request::Event;

/// Something that was broken, from when until it worked again.
#[derive(Debug, Clone)]
pub struct Trouble {
    /// In a word.
    pub what: &'static str,
    /// Just before.
    pub from: Instant,
    /// When it was over.
    pub to: Instant,
}

/// The reckoning of one endpoint, or of several.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events that it was owed; each was taken.
    pub owed: usize,
    /// Requests that came.
    pub requests: usize,
    /// Requests that came again after the delivery had been taken, by what explains them.
    pub duplicates: BTreeMap<&'static str, usize>,
    /// The same without an excuse.
    pub unexplained: usize,
    /// The first of these: when they were taken and came again, beside what was broken when.
    pub examples: Vec<String>,
}

/// How many examples are told of an endpoint.
const EXAMPLES_MAX: usize = 3;

impl Tally {
    /// Adds another one.
    pub fn add(&mut self, other: &Self) {
        self.owed += other.owed;
        self.requests += other.requests;
        self.unexplained += other.unexplained;
        self.examples.extend_from_slice(&other.examples);
        for (what, count) in &other.duplicates {
            *self.duplicates.entry(what).or_default() += count;
        }
    }
}

/// Judges an endpoint: an error where something is missing, foreign, badly signed, or has another id or body than before.
pub fn judge(hook: &Hook, owed: &BTreeSet<Event>, troubles: &[Trouble]) -> Result<Tally> {
    let (url, faults) = (&hook.url, hook.faults());
    ensure!(faults.is_empty(), "{url}: {faults:?}");
    judge_arrivals(url, &hook.arrivals(), owed, troubles)
}

fn judge_arrivals(
    url: &str,
    arrivals: &[Arrival],
    owed: &BTreeSet<Event>,
    troubles: &[Trouble],
) -> Result<Tally> {
    let mut tally = Tally {
        owed: owed.len(),
        requests: arrivals.len(),
        ..Tally::default()
    };
    let mut ids: HashMap<&Arc<str>, Event> = HashMap::new();
    let mut seen: BTreeMap<Event, (&Arrival, Option<Instant>)> = BTreeMap::new();
    for arrival in arrivals {
        let Some(event) = arrival.event else {
            anyhow::bail!("{url}: {arrival:?} is about nothing that was planned");
        };
        ensure!(owed.contains(&event), "{url}: {event:?} is not for it");
        let before = ids.insert(&arrival.id, event);
        ensure!(
            before.is_none_or(|before| before == event),
            "{url}: {} is {before:?} and {event:?}",
            arrival.id
        );
        let (first, taken) = seen.entry(event).or_insert((arrival, None));
        ensure!(
            first.id == arrival.id,
            "{url}: {event:?} came as {} and as {}",
            first.id,
            arrival.id
        );
        ensure!(
            first.digest == arrival.digest,
            "{url}: {event:?} came with two bodies"
        );
        if let Some(taken) = *taken {
            let excuse = troubles
                .iter()
                .find(|trouble| trouble.from <= arrival.at && trouble.to >= taken);
            match excuse {
                Some(trouble) => *tally.duplicates.entry(trouble.what).or_default() += 1,
                None => {
                    tally.unexplained += 1;
                    if tally.examples.len() < EXAMPLES_MAX {
                        tally.examples.push(example(arrivals, arrival, taken, troubles));
                    }
                }
            }
        }
        if arrival.accepted {
            *taken = Some(arrival.at);
        }
    }
    let missing: Vec<&Event> = owed
        .iter()
        .filter(|event| seen.get(event).is_none_or(|(_, taken)| taken.is_none()))
        .collect();
    ensure!(
        missing.is_empty(),
        "{url}: {} of {} are missing: {:?}...",
        missing.len(),
        owed.len(),
        missing.get(..missing.len().min(5))
    );
    Ok(tally)
}

/// Times are seconds after the first arrival.
fn example(arrivals: &[Arrival], again: &Arrival, taken: Instant, troubles: &[Trouble]) -> String {
    let first = arrivals.first().map_or(taken, |first| first.at);
    let since = |at: Instant| format!("{:.2}", at.saturating_duration_since(first).as_secs_f64());
    let troubles: Vec<String> = troubles
        .iter()
        .map(|trouble| {
            format!(
                "{} {} to {}",
                trouble.what,
                since(trouble.from),
                since(trouble.to)
            )
        })
        .collect();
    format!(
        "{:?} number {} taken at {}, again at {} ({})",
        again.event,
        again.number,
        since(taken),
        since(again.at),
        troubles.join(", ")
    )
}

/// Judges order by keys: for each key its events in the order of their offsets. A later one may come first only when the
/// one before it was taken; repetitions of old ones are left aside.
pub fn in_order(hook: &Hook, keys: &HashMap<Event, String>) -> Result<usize> {
    let mut rows: HashMap<&str, Vec<Event>> = HashMap::new();
    for (event, key) in keys {
        rows.entry(key).or_default().push(*event);
    }
    let mut before: HashMap<Event, Event> = HashMap::new();
    for row in rows.values_mut() {
        row.sort();
        before.extend(row.windows(2).map(|pair| (pair[1], pair[0])));
    }
    let (mut came, mut taken): (BTreeSet<Event>, BTreeSet<Event>) = Default::default();
    for arrival in hook.arrivals() {
        let Some(event) = arrival.event else { continue };
        if came.insert(event)
            && let Some(earlier) = before.get(&event)
        {
            ensure!(
                taken.contains(earlier),
                "{}: {event:?} of {} came before {earlier:?} was taken",
                hook.url,
                keys[&event]
            );
        }
        if arrival.accepted {
            taken.insert(event);
        }
    }
    Ok(rows.len())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn event(n: i64) -> Event {
        Event { partition: 0, n }
    }

    fn arrival(n: i64, id: &str, at: Instant, accepted: bool) -> Arrival {
        Arrival {
            id: Arc::from(id),
            number: 1,
            event: Some(event(n)),
            at,
            accepted,
            digest: 7,
        }
    }

    #[tokio::test]
    async fn what_is_missing_foreign_or_named_anew_is_noticed_and_duplicates_need_an_excuse() {
        let start = Instant::now();
        let at = |second: u64| start + Duration::from_secs(second);
        let owed: BTreeSet<Event> = [event(0), event(1)].into();
        let judge =
            |arrivals: &[Arrival], troubles: &[Trouble]| judge_arrivals("x", arrivals, &owed, troubles);
        let good = [
            arrival(0, "a", at(0), false),
            arrival(1, "b", at(1), true),
            arrival(0, "a", at(2), true),
            arrival(0, "a", at(5), true),
        ];
        let tally = judge(&good, &[]).expect("nothing is missing");
        assert_eq!((tally.owed, tally.requests, tally.unexplained), (2, 4, 1));
        let killed = Trouble {
            what: "kill",
            from: at(3),
            to: at(4),
        };
        let tally = judge(&good, std::slice::from_ref(&killed)).expect("nothing is missing");
        assert_eq!((tally.unexplained, tally.duplicates["kill"]), (0, 1));
        let late = Trouble {
            what: "kill",
            from: at(6),
            to: at(7),
        };
        assert_eq!(judge(&good, &[late]).expect("nothing is missing").unexplained, 1);
        assert!(judge(&good[..2], &[]).is_err());
        assert!(judge(&[&good[..], &[arrival(2, "c", at(6), true)]].concat(), &[]).is_err());
        assert!(judge(&[&good[..], &[arrival(1, "c", at(6), true)]].concat(), &[]).is_err());
        assert!(judge(&[&good[..], &[arrival(1, "a", at(6), true)]].concat(), &[]).is_err());
    }
}
