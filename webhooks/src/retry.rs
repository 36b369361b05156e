//! What follows an attempt: nothing, another one and when, or the end. Pure.
//!
//! One invariant: a delivery is attempted at most `schedule + 1` times and never after its horizon, and never sooner than
//! the schedule and the receiver's `Retry-After` say. Knows neither clocks nor receivers: time and luck are arguments.

mod after;

pub use after::retry_after_ms;

use std::time::Duration;

/// The longest that `Retry-After` may put a delivery off: a receiver cannot keep us waiting for a year.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// The most delays of a schedule.
pub const DELAYS_MAX: usize = 20;

/// The longest single delay.
pub const DELAY_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Part of a delay that luck adds, so that what failed together does not come back together: 1/5.
const JITTER_DIVISOR: u64 = 5;

/// How long to wait before each attempt but the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    delays: Vec<Duration>,
}

/// A schedule that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSchedule {
    /// Too many delays.
    #[error("more than {DELAYS_MAX} delays")]
    Long,
    /// A delay of zero, or one that is longer than a week.
    #[error("delay {0} is not between 1 ms and 7 days")]
    Delay(usize),
}

/// What came of one attempt, as far as it matters for what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A 2xx.
    Delivered,
    /// 410: the receiver wants nothing any more.
    Gone,
    /// 429, 502 or 504, or anything with a `Retry-After`: come back later, and slower.
    Throttled {
        /// From now, as the receiver said it.
        retry_after_ms: Option<u64>,
    },
    /// Anything else: another status, or no answer.
    Failed,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It is settled.
    Settled,
    /// Another attempt, no sooner than this.
    Retry {
        /// In milliseconds since the Unix epoch.
        at_ms: i64,
    },
    /// The endpoint is to be disabled; the delivery stays parked until somebody enables it again.
    Disable,
    /// It is over: the dead-letter topic.
    Dead(Death),
}

/// Why a delivery is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// The schedule has no delay left.
    Exhausted,
    /// The next attempt would come after the horizon.
    Late,
}

impl Death {
    /// A stable word for logs, headers and events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exhausted => "retries_exhausted",
            Self::Late => "horizon_passed",
        }
    }
}

/// One delivery's past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Past {
    /// How many attempts there were, the last one included. At least 1.
    pub attempts: u32,
    /// When the first one was, in milliseconds since the Unix epoch.
    pub first_ms: i64,
}

impl Schedule {
    /// 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h.
    #[must_use]
    pub fn standard() -> Self {
        let minutes = [5, 30, 120, 300, 600, 840, 1200, 1440];
        let delays = std::iter::once(Duration::from_secs(5))
            .chain(minutes.map(|minutes| Duration::from_secs(minutes * 60)))
            .collect();
        Self { delays }
    }

    /// A schedule of these delays. None at all is right too: one attempt, then the dead-letter topic.
    pub fn new(delays: Vec<Duration>) -> Result<Self, BadSchedule> {
        if delays.len() > DELAYS_MAX {
            return Err(BadSchedule::Long);
        }
        let allowed = Duration::from_millis(1)..=DELAY_MAX;
        match delays.iter().position(|delay| !allowed.contains(delay)) {
            Some(place) => Err(BadSchedule::Delay(place)),
            None => Ok(Self { delays }),
        }
    }

    /// The delays, in order.
    #[must_use]
    pub fn delays(&self) -> &[Duration] {
        &self.delays
    }

    /// From the first attempt until the last possible one, if no receiver asks for more: what bounds the age of a delivery.
    #[must_use]
    pub fn horizon(&self) -> Duration {
        let longest = |delay: &Duration| *delay + *delay / u32::try_from(JITTER_DIVISOR).unwrap_or(1);
        self.delays.iter().map(longest).sum::<Duration>() + RETRY_AFTER_MAX
    }

    /// What follows an attempt that ended at `now_ms`. `luck` is any number that differs between deliveries and attempts.
    #[must_use]
    pub fn next(&self, past: Past, outcome: Outcome, now_ms: i64, luck: u64) -> Next {
        let asked_ms = match outcome {
            Outcome::Delivered => return Next::Settled,
            Outcome::Gone => return Next::Disable,
            Outcome::Throttled { retry_after_ms } => retry_after_ms.unwrap_or(0).min(millis(RETRY_AFTER_MAX)),
            Outcome::Failed => 0,
        };
        let tried = usize::try_from(past.attempts).unwrap_or(usize::MAX);
        let Some(delay) = tried.checked_sub(1).and_then(|place| self.delays.get(place)) else {
            return Next::Dead(Death::Exhausted);
        };
        let delay_ms = millis(*delay);
        // Luck only adds: nobody is called sooner than was said.
        let wait_ms = delay_ms.max(asked_ms);
        let spread_ms = delay_ms / JITTER_DIVISOR;
        let wait_ms = wait_ms.saturating_add(if spread_ms == 0 { 0 } else { luck % (spread_ms + 1) });
        let at_ms = now_ms.saturating_add(i64::try_from(wait_ms).unwrap_or(i64::MAX));
        let last_ms = past
            .first_ms
            .saturating_add(i64::try_from(millis(self.horizon())).unwrap_or(i64::MAX));
        if at_ms > last_ms {
            Next::Dead(Death::Late)
        } else {
            Next::Retry { at_ms }
        }
    }
}

impl Outcome {
    /// What an HTTP status means (Standard Webhooks; CloudEvents webhooks, section 2.2). Redirects are failures: they are
    /// never followed.
    #[must_use]
    pub fn of_status(status: u16, retry_after_ms: Option<u64>) -> Self {
        match status {
            200..=299 => Self::Delivered,
            410 => Self::Gone,
            429 | 502 | 504 => Self::Throttled { retry_after_ms },
            _ if retry_after_ms.is_some() => Self::Throttled { retry_after_ms },
            _ => Self::Failed,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START_MS: i64 = 1_700_000_000_000;

    fn past(attempts: u32) -> Past {
        Past {
            attempts,
            first_ms: START_MS,
        }
    }

    #[test]
    fn the_standard_schedule_is_the_documented_one() {
        let seconds: Vec<u64> = Schedule::standard()
            .delays()
            .iter()
            .map(Duration::as_secs)
            .collect();
        assert_eq!(
            seconds,
            [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]
        );
    }

    #[test]
    fn each_failure_waits_for_its_delay_and_after_the_last_one_comes_the_dead_letter() {
        let schedule = Schedule::standard();
        for (attempts, delay) in (1..).zip(schedule.delays()) {
            let wait_ms = i64::try_from(delay.as_millis()).expect("a delay");
            let next = schedule.next(past(attempts), Outcome::Failed, START_MS, 0);
            assert_eq!(
                next,
                Next::Retry {
                    at_ms: START_MS + wait_ms
                }
            );
        }
        let next = schedule.next(past(10), Outcome::Failed, START_MS, 0);
        assert_eq!(next, Next::Dead(Death::Exhausted));
        let none = Schedule::new(Vec::new()).expect("a schedule");
        assert_eq!(
            none.next(past(1), Outcome::Failed, START_MS, 0),
            Next::Dead(Death::Exhausted)
        );
    }

    #[test]
    fn retry_after_is_honoured_up_to_a_day() {
        let schedule = Schedule::standard();
        let at = |seconds: u64| {
            let outcome = Outcome::of_status(503, Some(seconds * 1000));
            schedule.next(past(1), outcome, START_MS, 0)
        };
        // Sooner than the schedule is not asked for anything.
        assert_eq!(
            at(1),
            Next::Retry {
                at_ms: START_MS + 5_000
            }
        );
        assert_eq!(
            at(90),
            Next::Retry {
                at_ms: START_MS + 90_000
            }
        );
        assert_eq!(
            at(10_000_000),
            Next::Retry {
                at_ms: START_MS + 86_400_000
            }
        );
    }

    #[test]
    fn statuses_mean_what_the_specification_says() {
        for status in [200, 202, 204, 299] {
            assert_eq!(Outcome::of_status(status, None), Outcome::Delivered, "{status}");
        }
        for status in [199, 301, 302, 307, 308, 400, 401, 404, 415, 500, 503] {
            assert_eq!(Outcome::of_status(status, None), Outcome::Failed, "{status}");
        }
        for status in [429, 502, 504] {
            let throttled = Outcome::Throttled { retry_after_ms: None };
            assert_eq!(Outcome::of_status(status, None), throttled, "{status}");
        }
        assert_eq!(Outcome::of_status(410, Some(1)), Outcome::Gone);
    }

    #[test]
    fn schedules_out_of_range_are_refused() {
        let of = |delays: &[u64]| Schedule::new(delays.iter().map(|ms| Duration::from_millis(*ms)).collect());
        assert_eq!(of(&[1; 21]), Err(BadSchedule::Long));
        assert_eq!(of(&[5, 0]), Err(BadSchedule::Delay(1)));
        assert_eq!(of(&[8 * 24 * 3_600_000]), Err(BadSchedule::Delay(0)));
        assert!(of(&[1; 20]).is_ok());
    }

    proptest! {
        #[test]
        fn a_retry_is_never_too_soon_never_beyond_the_horizon_and_attempts_end(
            delays in prop::collection::vec(1_u64..1_000_000, 0..12),
            asked in prop::collection::vec(prop::option::of(0_u64..200_000_000), 0..40),
            luck in any::<u64>(),
        ) {
            let schedule = Schedule::new(delays.iter().map(|ms| Duration::from_millis(*ms)).collect()).expect("a schedule");
            let horizon_ms = i64::try_from(schedule.horizon().as_millis()).expect("a horizon");
            let mut now_ms = START_MS;
            let mut attempts = 0;
            for retry_after_ms in asked.into_iter().chain(std::iter::repeat(None)) {
                attempts += 1;
                prop_assert!(attempts as usize <= delays.len() + 1);
                let outcome = Outcome::Throttled { retry_after_ms };
                match schedule.next(past(attempts), outcome, now_ms, luck) {
                    Next::Retry { at_ms } => {
                        let wait_ms = delays[attempts as usize - 1].max(retry_after_ms.unwrap_or(0).min(86_400_000));
                        prop_assert!(at_ms >= now_ms + i64::try_from(wait_ms).expect("a wait"));
                        prop_assert!(at_ms <= START_MS + horizon_ms);
                        now_ms = at_ms;
                    }
                    next => {
                        prop_assert!(matches!(next, Next::Dead(_)));
                        break;
                    }
                }
            }
        }
    }
}
