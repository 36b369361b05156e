//! Whether an endpoint is called at all. Pure: a state, an event and a time in, a state out.
//!
//! One invariant: while it is open nobody is called, and when its time is over exactly one attempt is let through until
//! that one's outcome is known. Counts, too, since when nothing has succeeded, which is what disables an endpoint for good.
//! Knows nothing of why an attempt failed.

use std::time::Duration;

/// When to stop calling, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// This many failures in a row open the breaker. At least 1.
    pub failures: u32,
    /// How long it stays open the first time; twice as long after each probe that fails.
    pub open_min: Duration,
    /// The longest that it stays open, unless the receiver asks for more.
    pub open_max: Duration,
    /// An endpoint that has failed for this long, without one success, is to be disabled.
    pub disable_after: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            failures: 10,
            open_min: Duration::from_secs(5),
            open_max: Duration::from_secs(300),
            disable_after: Duration::from_secs(5 * 24 * 3600),
        }
    }
}

/// The state. What is remembered across nodes and restarts is [`Breaker::failing_since_ms`] and [`Breaker::open_until_ms`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Breaker {
    state: State,
    /// When the first failure after the last success was.
    failing_since_ms: Option<i64>,
    /// How often it opened since the last success.
    openings: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until_ms: i64 },
    Probing,
}

impl Default for State {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

/// Whether an attempt may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Yes, like any other.
    Yes,
    /// Yes, and until its outcome is told no other may.
    Probe,
    /// No, not before this time (in milliseconds since the Unix epoch); `None`: not before the probe has ended.
    No(Option<i64>),
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The receiver took it.
    Success,
    /// It did not.
    Failure,
    /// It asked for calm, for so long (nothing said: the policy's shortest time).
    Throttled {
        /// From now.
        retry_after_ms: Option<u64>,
    },
    /// It was called off before its outcome was known.
    Abandoned,
}

impl Breaker {
    /// What another node, or this one before it was started again, knew of the endpoint.
    #[must_use]
    pub fn resumed(failing_since_ms: Option<i64>, open_until_ms: Option<i64>) -> Self {
        Self {
            state: open_until_ms.map_or(State::default(), |until_ms| State::Open { until_ms }),
            failing_since_ms,
            openings: u32::from(open_until_ms.is_some()),
        }
    }

    /// Whether an attempt may start now. [`Admission::Probe`] is given once, and must be answered by [`Breaker::ended`].
    pub fn admit(&mut self, now_ms: i64) -> Admission {
        match self.state {
            State::Closed { .. } => Admission::Yes,
            State::Probing => Admission::No(None),
            State::Open { until_ms } if now_ms < until_ms => Admission::No(Some(until_ms)),
            State::Open { .. } => {
                self.state = State::Probing;
                Admission::Probe
            }
        }
    }

    /// Tells how an attempt ended. Attempts that started before the breaker opened count too, but cannot close it: only
    /// a success can, and that one is news whenever it was asked for.
    pub fn ended(&mut self, ended: Ended, now_ms: i64, policy: &Policy) {
        match ended {
            Ended::Success => *self = Self::default(),
            Ended::Failure => {
                self.failing_since_ms.get_or_insert(now_ms);
                match self.state {
                    State::Closed { failures } if failures + 1 < policy.failures => {
                        self.state = State::Closed {
                            failures: failures + 1,
                        };
                    }
                    State::Closed { .. } | State::Probing => self.open(0, now_ms, policy),
                    State::Open { .. } => {}
                }
            }
            Ended::Throttled { retry_after_ms } => {
                self.failing_since_ms.get_or_insert(now_ms);
                let asked_ms = retry_after_ms
                    .unwrap_or(0)
                    .min(millis(crate::retry::RETRY_AFTER_MAX));
                self.open(asked_ms, now_ms, policy);
            }
            Ended::Abandoned => {
                if self.state == State::Probing {
                    self.state = State::Open { until_ms: now_ms };
                }
            }
        }
    }

    /// Since when nothing has succeeded, if something failed.
    #[must_use]
    pub fn failing_since_ms(&self) -> Option<i64> {
        self.failing_since_ms
    }

    /// Until when nobody is called. `None` while calls are made.
    #[must_use]
    pub fn open_until_ms(&self) -> Option<i64> {
        match self.state {
            State::Open { until_ms } => Some(until_ms),
            State::Closed { .. } | State::Probing => None,
        }
    }

    /// Whether the endpoint has failed for too long.
    #[must_use]
    pub fn is_hopeless(&self, now_ms: i64, policy: &Policy) -> bool {
        let long_ms = i64::try_from(policy.disable_after.as_millis()).unwrap_or(i64::MAX);
        self.failing_since_ms
            .is_some_and(|since_ms| now_ms.saturating_sub(since_ms) >= long_ms)
    }

    fn open(&mut self, asked_ms: u64, now_ms: i64, policy: &Policy) {
        let shortest_ms = millis(policy.open_min);
        let own_ms = shortest_ms
            .saturating_mul(1_u64.checked_shl(self.openings.min(20)).unwrap_or(1))
            .min(millis(policy.open_max).max(shortest_ms));
        let open_ms = i64::try_from(own_ms.max(asked_ms)).unwrap_or(i64::MAX);
        let until_ms = now_ms.saturating_add(open_ms);
        // Several answers of one moment may each ask for calm: the longest wish counts, and they are one opening.
        let until_ms = match self.state {
            State::Open { until_ms: have_ms } => have_ms.max(until_ms),
            State::Closed { .. } | State::Probing => {
                self.openings = self.openings.saturating_add(1);
                until_ms
            }
        };
        self.state = State::Open { until_ms };
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: Policy = Policy {
        failures: 3,
        open_min: Duration::from_millis(100),
        open_max: Duration::from_millis(1000),
        disable_after: Duration::from_millis(50_000),
    };

    #[test]
    fn failures_in_a_row_open_it_and_one_success_closes_it() {
        let mut breaker = Breaker::default();
        for now_ms in [10, 20] {
            breaker.ended(Ended::Failure, now_ms, &POLICY);
            assert_eq!(breaker.admit(now_ms), Admission::Yes);
        }
        breaker.ended(Ended::Success, 25, &POLICY);
        for now_ms in [30, 40, 50] {
            assert_eq!(breaker.admit(now_ms), Admission::Yes);
            breaker.ended(Ended::Failure, now_ms, &POLICY);
        }
        assert_eq!(breaker.admit(51), Admission::No(Some(150)));
        assert_eq!(breaker.admit(150), Admission::Probe);
        assert_eq!(breaker.admit(151), Admission::No(None));
        breaker.ended(Ended::Success, 160, &POLICY);
        assert_eq!(
            (breaker.admit(160), breaker.failing_since_ms()),
            (Admission::Yes, None)
        );
    }

    #[test]
    fn each_probe_that_fails_doubles_the_time_up_to_its_limit() {
        let mut breaker = Breaker::default();
        for _ in 0..3 {
            breaker.ended(Ended::Failure, 0, &POLICY);
        }
        let mut now_ms = 0;
        for open_ms in [100, 200, 400, 800, 1000, 1000] {
            assert_eq!(breaker.open_until_ms(), Some(now_ms + open_ms));
            now_ms += open_ms;
            assert_eq!(breaker.admit(now_ms), Admission::Probe);
            breaker.ended(Ended::Failure, now_ms, &POLICY);
        }
    }

    #[test]
    fn a_receiver_that_asks_for_calm_gets_it_at_once() {
        let mut breaker = Breaker::default();
        let calm = |retry_after_ms| Ended::Throttled { retry_after_ms };
        breaker.ended(calm(Some(5_000)), 0, &POLICY);
        breaker.ended(calm(None), 1, &POLICY);
        assert_eq!(breaker.admit(4_999), Admission::No(Some(5_000)));
        breaker.ended(calm(Some(u64::MAX)), 2, &POLICY);
        assert_eq!(breaker.open_until_ms(), Some(2 + 86_400_000));
    }

    #[test]
    fn a_probe_that_was_called_off_is_followed_by_another() {
        let mut breaker = Breaker::resumed(Some(0), Some(70));
        assert_eq!(breaker.admit(69), Admission::No(Some(70)));
        assert_eq!(breaker.admit(70), Admission::Probe);
        breaker.ended(Ended::Abandoned, 71, &POLICY);
        assert_eq!(breaker.admit(71), Admission::Probe);
    }

    #[test]
    fn an_endpoint_that_never_succeeds_becomes_hopeless_after_its_time() {
        let mut breaker = Breaker::default();
        breaker.ended(Ended::Failure, 1_000, &POLICY);
        breaker.ended(Ended::Failure, 30_000, &POLICY);
        assert!(!breaker.is_hopeless(50_999, &POLICY));
        assert!(breaker.is_hopeless(51_000, &POLICY));
        let again = Breaker::resumed(breaker.failing_since_ms(), breaker.open_until_ms());
        assert!(again.is_hopeless(51_000, &POLICY));
        breaker.ended(Ended::Success, 51_000, &POLICY);
        assert!(!breaker.is_hopeless(100_000, &POLICY));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Wait(i64),
        Try,
        End(Ended),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0_i64..500).prop_map(Step::Wait),
            Just(Step::Try),
            Just(Step::End(Ended::Success)),
            Just(Step::End(Ended::Failure)),
            prop::option::of(0_u64..3000)
                .prop_map(|retry_after_ms| Step::End(Ended::Throttled { retry_after_ms })),
            Just(Step::End(Ended::Abandoned)),
        ]
    }

    proptest! {
        #[test]
        fn while_it_is_open_nobody_is_called_and_it_never_stays_shut_for_good(steps in prop::collection::vec(step(), 0..200)) {
            let mut breaker = Breaker::default();
            let (mut now_ms, mut running, mut probing) = (0_i64, 0_u32, false);
            for step in steps {
                match step {
                    Step::Wait(ms) => now_ms += ms,
                    Step::Try => {
                        let until_ms = breaker.open_until_ms();
                        match breaker.admit(now_ms) {
                            Admission::Yes => running += 1,
                            Admission::Probe => {
                                prop_assert!(!probing);
                                prop_assert!(until_ms.is_some_and(|until_ms| until_ms <= now_ms));
                                running += 1;
                                probing = true;
                            }
                            Admission::No(Some(until_ms)) => prop_assert!(until_ms > now_ms),
                            // Somebody is out who will tell.
                            Admission::No(None) => prop_assert!(running > 0),
                        }
                    }
                    Step::End(ended) => {
                        if running > 0 {
                            running -= 1;
                            probing = false;
                            breaker.ended(ended, now_ms, &POLICY);
                        }
                    }
                }
            }
        }
    }
}
