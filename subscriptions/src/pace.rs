//! How fast a client may speak. Pure: the time is given.
//!
//! Each message costs a share of a second, paid for by waiting; a burst may be owed. What is too fast is not refused: it is read
//! later, and until then it waits in the client's own socket.

use std::time::Duration;

use tokio::time::Instant;

/// What may be said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Speed {
    /// What each message costs.
    pub(crate) each: Duration,
    /// What may be owed.
    pub(crate) burst: Duration,
}

impl Speed {
    /// So many messages a second, and so many at once.
    pub(crate) fn new(per_second: u32, at_once: u32) -> Self {
        let each = Duration::from_secs(1) / per_second.max(1);
        Self {
            each,
            burst: each.saturating_mul(at_once.max(1)),
        }
    }
}

/// What one client has said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// When everything that was said is paid for.
    paid_at: Instant,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Self {
        Self { paid_at: now }
    }

    /// Until when nothing more is to be heard; `None`: there is room for a message.
    pub(crate) fn wait(&self, now: Instant, speed: Speed) -> Option<Instant> {
        let owed = self.paid_at.saturating_duration_since(now) + speed.each;
        let too_much = owed.checked_sub(speed.burst)?;
        (!too_much.is_zero()).then(|| now + too_much)
    }

    /// A message was heard.
    pub(crate) fn heard(&mut self, now: Instant, speed: Speed) {
        self.paid_at = self.paid_at.max(now) + speed.each;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says as much as is allowed at this instant.
    fn at_once(pace: &mut Pace, now: Instant, speed: Speed) -> u32 {
        let mut count = 0;
        while pace.wait(now, speed).is_none() {
            pace.heard(now, speed);
            count += 1;
        }
        count
    }

    #[test]
    fn a_burst_is_heard_at_once_and_the_rest_at_its_speed() {
        let speed = Speed::new(100, 256);
        let begin = Instant::now();
        let mut pace = Pace::new(begin);
        assert_eq!(at_once(&mut pace, begin, speed), 256);
        assert_eq!(pace.wait(begin, speed), Some(begin + Duration::from_millis(10)));
        let mut heard = 0;
        for millisecond in 1..=10_000 {
            let now = begin + Duration::from_millis(millisecond);
            heard += at_once(&mut pace, now, speed);
        }
        assert_eq!(heard, 1000, "a hundred a second for ten seconds");
    }

    #[test]
    fn whoever_was_quiet_has_a_burst_again_and_no_more() {
        let speed = Speed::new(10, 20);
        let begin = Instant::now();
        let mut pace = Pace::new(begin);
        assert_eq!(at_once(&mut pace, begin, speed), 20);
        assert_eq!(at_once(&mut pace, begin + Duration::from_secs(1), speed), 10);
        assert_eq!(at_once(&mut pace, begin + Duration::from_secs(3600), speed), 20);
    }
}
