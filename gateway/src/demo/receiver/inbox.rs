//! What a receiver remembers: the last deliveries for people, and more of their ids, so that what comes again is known. Pure.
//!
//! Invariant: what is remembered is bounded, whatever comes, and what is refused cannot push out the ids of what was taken.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use schemas::ids::TenantId;
use serde::Serialize;

use super::verify::{Refused, Verified};

/// Deliveries that are shown.
pub const SHOWN_MAX: usize = 100;
/// Ids of deliveries that were taken: 10,000 x 40 bytes, twice, is less than a megabyte.
const IDS_MAX: usize = 10_000;

/// Where a delivery came to: an endpoint, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Destination {
    /// Whose endpoint it is.
    #[serde(serialize_with = "as_text")]
    pub tenant: TenantId,
    /// What its deliveries hold: `thin` or `structured`.
    pub content: &'static str,
}

fn as_text<S: serde::Serializer>(tenant: &TenantId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(tenant.as_str())
}

/// A verified delivery that came.
#[derive(Debug)]
pub struct Arrival {
    /// Where.
    pub to: Destination,
    /// What.
    pub verified: Verified,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: i64,
}

/// How often what happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// Deliveries that were taken, each once.
    pub taken: u64,
    /// Those that came again after they were taken.
    pub repeated: u64,
    /// Attempts that were answered 500.
    pub failed: u64,
    /// Requests that were refused.
    pub refused: u64,
}

/// What came last, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Where it came to.
    #[serde(flatten)]
    pub to: Destination,
    /// When it came last, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// The status that it was answered with.
    pub answer: u16,
    /// What is known of it.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// What the signature says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// It is good.
    Verified {
        /// The delivery (`webhook-id`).
        delivery: Arc<str>,
        /// The event's id.
        event: String,
        /// The event's type.
        #[serde(rename = "type")]
        kind: String,
        /// Which attempt it was.
        attempt: Option<u32>,
        /// From the production of the event until it was taken.
        took_ms: Option<i64>,
        /// How often it came again after it was taken.
        repeated: u32,
    },
    /// It is not: nothing of it is believed.
    Refused {
        /// Why.
        reason: Refused,
    },
}

/// What a receiver remembers.
#[derive(Debug, Default)]
pub struct Inbox {
    /// The latest first.
    rows: VecDeque<Row>,
    taken: HashSet<Arc<str>>,
    /// The same ids, the oldest first.
    order: VecDeque<Arc<str>>,
    counts: Counts,
}

impl Inbox {
    /// Remembers a verified delivery. Whether it is taken: not while the receiver fails.
    pub fn take(&mut self, arrival: Arrival, is_failing: bool) -> bool {
        let Arrival { to, verified, at_ms } = arrival;
        let before = self.remove(&verified.id);
        let (mut took_ms, mut repeated) = before.unwrap_or_default();
        let id: Arc<str> = Arc::from(verified.id);
        if is_failing {
            self.counts.failed += 1;
        } else if self.remember(&id) {
            self.counts.taken += 1;
            took_ms = verified
                .produced_ms
                .map(|produced_ms| at_ms.saturating_sub(produced_ms).max(0));
        } else {
            self.counts.repeated += 1;
            repeated += 1;
        }
        self.show(Row {
            to,
            at_ms,
            answer: if is_failing { 500 } else { 204 },
            verdict: Verdict::Verified {
                delivery: id,
                event: verified.event,
                kind: verified.kind,
                attempt: verified.attempt,
                took_ms,
                repeated,
            },
        });
        !is_failing
    }

    /// Remembers that something was refused.
    pub fn refuse(&mut self, to: Destination, reason: Refused, at_ms: i64) {
        self.counts.refused += 1;
        self.show(Row {
            to,
            at_ms,
            answer: 401,
            verdict: Verdict::Refused { reason },
        });
    }

    /// What came last, the latest first.
    #[must_use]
    pub fn rows(&self) -> &VecDeque<Row> {
        &self.rows
    }

    /// How often what happened.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Remembers an id of what is taken. Whether it is new.
    fn remember(&mut self, id: &Arc<str>) -> bool {
        if !self.taken.insert(Arc::clone(id)) {
            return false;
        }
        self.order.push_back(Arc::clone(id));
        if self.order.len() > IDS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.taken.remove(&oldest);
        }
        true
    }

    /// Takes a delivery's row out: how long it took until it was taken, and how often it came again.
    fn remove(&mut self, id: &str) -> Option<(Option<i64>, u32)> {
        let is_it =
            |row: &Row| matches!(&row.verdict, Verdict::Verified { delivery, .. } if **delivery == *id);
        let place = self.rows.iter().position(is_it)?;
        match self.rows.remove(place)?.verdict {
            Verdict::Verified {
                took_ms, repeated, ..
            } => Some((took_ms, repeated)),
            Verdict::Refused { .. } => None,
        }
    }

    fn show(&mut self, row: Row) {
        self.rows.push_front(row);
        self.rows.truncate(SHOWN_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to() -> Destination {
        Destination {
            tenant: TenantId::parse("north").expect("a tenant"),
            content: "thin",
        }
    }

    fn arrival(id: usize, at_ms: i64) -> Arrival {
        Arrival {
            to: to(),
            verified: Verified {
                id: format!("msg_{id}"),
                attempt: Some(1),
                event: "e".to_owned(),
                kind: "t".to_owned(),
                produced_ms: Some(1000),
            },
            at_ms,
        }
    }

    #[test]
    fn a_delivery_that_failed_is_taken_when_it_comes_again_and_is_repeated_after_that() {
        let mut inbox = Inbox::default();
        assert!(!inbox.take(arrival(1, 1010), true));
        assert!(inbox.take(arrival(1, 1500), false));
        assert!(inbox.take(arrival(1, 1900), false));
        let counts = Counts {
            taken: 1,
            repeated: 1,
            failed: 1,
            refused: 0,
        };
        assert_eq!(inbox.counts(), counts);
        let row = &inbox.rows()[0];
        let Verdict::Verified {
            took_ms, repeated, ..
        } = row.verdict
        else {
            panic!("{row:?}")
        };
        assert_eq!(
            (inbox.rows().len(), row.answer, took_ms, repeated),
            (1, 204, Some(500), 1)
        );
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_refused_makes_nothing_forgotten() {
        let mut inbox = Inbox::default();
        inbox.take(arrival(0, 1000), false);
        for _ in 0..2 * SHOWN_MAX {
            inbox.refuse(to(), Refused::Forged, 2000);
        }
        assert_eq!(inbox.rows().len(), SHOWN_MAX);
        inbox.take(arrival(0, 3000), false);
        assert_eq!(inbox.counts().repeated, 1);
        for id in 1..=IDS_MAX {
            inbox.take(arrival(id, 4000), false);
        }
        assert_eq!((inbox.taken.len(), inbox.order.len()), (IDS_MAX, IDS_MAX));
        inbox.take(arrival(0, 5000), false);
        assert_eq!(inbox.counts().repeated, 1, "it is too long ago");
    }
}
