//! What is remembered of one endpoint while it is of use: breaker, rate, and whether it is held. Pure.

use std::time::Duration;

use tokio::time::Instant;

use super::Target;
use crate::breaker::{Admission, Breaker, Ended, Policy};
use crate::delivery::DeliveryId;

/// One endpoint's state on this node.
#[derive(Debug)]
pub(super) struct Lane {
    revision: i64,
    breaker: Breaker,
    is_disabled: bool,
    rate_per_second: Option<u32>,
    /// Attempts that may start now; at most a second's worth.
    tokens: f64,
    refilled: Instant,
    is_held: bool,
    is_probing: bool,
    pub(super) under_way: usize,
    /// Attempts that delivered since the store was asked last: who takes much is claimed much for.
    taken: usize,
    /// A delivery that was given up and of which the next one tells.
    pub(super) dead_lettered: Option<DeliveryId>,
}

impl Lane {
    pub(super) fn new(target: &Target) -> Self {
        Self {
            revision: target.revision,
            breaker: Breaker::resumed(target.failing_since_ms, target.open_until_ms),
            is_disabled: !target.callable,
            rate_per_second: target.rate_per_second,
            tokens: f64::from(target.rate_per_second.unwrap_or(1)),
            refilled: Instant::now(),
            is_held: false,
            is_probing: false,
            under_way: 0,
            taken: 0,
            dead_lettered: None,
        }
    }

    /// Takes what a later version of the endpoint says. One that is called again starts afresh.
    pub(super) fn update(&mut self, target: &Target) {
        if target.revision <= self.revision {
            return;
        }
        self.revision = target.revision;
        self.rate_per_second = target.rate_per_second;
        if self.is_disabled && target.callable {
            self.breaker = Breaker::default();
        }
        self.is_disabled = !target.callable;
    }

    pub(super) fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    pub(super) fn is_disabled(&self) -> bool {
        self.is_disabled
    }

    pub(super) fn disable(&mut self) {
        self.is_disabled = true;
    }

    /// Whether nothing may even wait, and for how long.
    pub(super) fn refuses(&self, now_ms: i64) -> Option<Duration> {
        if self.is_disabled {
            return Some(Duration::ZERO);
        }
        let until_ms = self.breaker.open_until_ms()?;
        let left_ms = u64::try_from(until_ms.saturating_sub(now_ms)).unwrap_or(0);
        (left_ms > 0).then(|| Duration::from_millis(left_ms))
    }

    /// Whether the next attempt is a probe, or one is out.
    pub(super) fn is_on_trial(&self) -> bool {
        self.is_probing || self.breaker.open_until_ms().is_some()
    }

    pub(super) fn is_held(&self) -> bool {
        self.is_held
    }

    pub(super) fn hold(&mut self) {
        self.is_held = true;
    }

    /// How many to claim at once: so many at least, and twice what was taken since this was asked last.
    pub(super) fn claims(&mut self, least: usize) -> usize {
        (2 * std::mem::take(&mut self.taken)).max(least)
    }

    pub(super) fn admit(&mut self, now_ms: i64) -> Admission {
        let admission = self.breaker.admit(now_ms);
        self.is_probing |= admission == Admission::Probe;
        admission
    }

    /// Takes a place under the rate. `false`: it was the last one for now.
    pub(super) fn take_token(&mut self, now: Instant) -> bool {
        self.refill(now);
        if self.rate_per_second.is_some() {
            self.tokens -= 1.0;
        }
        self.tokens >= 1.0
    }

    /// Tells the breaker; answers whether what other nodes should know has changed.
    pub(super) fn ended(&mut self, ended: Ended, is_probe: bool, now_ms: i64, policy: &Policy) -> bool {
        let told = |breaker: &Breaker| (breaker.failing_since_ms(), breaker.open_until_ms());
        let before = told(&self.breaker);
        self.taken += usize::from(ended == Ended::Success);
        if is_probe {
            self.is_probing = false;
        }
        if is_probe || ended != Ended::Abandoned {
            self.breaker.ended(ended, now_ms, policy);
        }
        told(&self.breaker) != before
    }

    /// Whether it was held and may go on now.
    pub(super) fn awakes(&mut self, now: Instant, now_ms: i64) -> bool {
        if !self.is_held || self.is_probing || self.refuses(now_ms).is_some() {
            return false;
        }
        self.refill(now);
        if self.tokens < 1.0 {
            return false;
        }
        self.is_held = false;
        true
    }

    /// When it may go on, if that is known.
    pub(super) fn wakes(&self, now: Instant, now_ms: i64) -> Option<Instant> {
        if !self.is_held || self.is_probing || self.is_disabled {
            return None;
        }
        let open = self.refuses(now_ms).map(|left| now + left);
        let rate = self.rate_per_second.filter(|_| self.tokens < 1.0).map(|rate| {
            let missing_s = (1.0 - self.tokens) / f64::from(rate.max(1));
            self.refilled + Duration::from_secs_f64(missing_s) + Duration::from_millis(1)
        });
        open.into_iter().chain(rate).max().or(Some(now))
    }

    /// Whether there is nothing to remember.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        let is_full = self.rate_per_second.is_none() || now >= self.refilled + Duration::from_secs(1);
        let is_plain = self.breaker == Breaker::default() && !self.is_disabled && !self.is_held;
        is_plain && is_full && self.under_way == 0 && self.dead_lettered.is_none()
    }

    fn refill(&mut self, now: Instant) {
        let Some(rate) = self.rate_per_second else {
            self.tokens = 1.0;
            return;
        };
        let elapsed = now.saturating_duration_since(self.refilled);
        let rate = f64::from(rate);
        self.tokens = (self.tokens + elapsed.as_secs_f64() * rate).min(rate);
        self.refilled = now;
    }
}
