//! What operators know about readers that no token says: who is revoked, and whose consent was withdrawn.
//!
//! One invariant: nothing is decided by knowledge that was never read. Until it was, nobody is admitted; what was read once
//! stays in force until something newer takes its place. Knows nothing of where it comes from: somebody reads the control
//! topic and tells [`Control::apply`].

mod entry;
mod knowledge;
mod record;

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::reason;
use crate::token::{BadToken, Principal};

pub use entry::{BadEntry, Denial, Entry, Revocation};
pub use knowledge::Knowledge;
pub use record::{Change, EntryId, EntryKind, Names, Passed, key_of};

/// The knowledge of a node, as it is now. Cheap to clone; clones share it.
#[derive(Debug, Clone)]
pub struct Control {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Changed in place: a copy for each change would cost as much as all that is known.
    knowledge: RwLock<Knowledge>,
    /// Grows with each change; bounded by what a `watch` keeps: the newest.
    epoch: watch::Sender<u64>,
    /// `None`: nobody keeps knowledge, and there is none to wait for.
    standing: Option<Mutex<Standing>>,
}

#[derive(Debug)]
struct Standing {
    is_read: bool,
    /// When it was last known to be all that there is.
    current_at: Instant,
    staleness_max: Duration,
}

impl Control {
    /// For a gateway without a control topic, and for tests: nobody is revoked, nothing is denied, unless it is told.
    #[must_use]
    pub fn none() -> Self {
        Self::with(None)
    }

    /// Knowledge that somebody will read. Nobody is admitted before [`Control::has_read`]; nobody new once it has not been
    /// current for this time.
    #[must_use]
    pub fn unread(staleness_max: Duration) -> Self {
        Self::with(Some(Mutex::new(Standing {
            is_read: false,
            current_at: Instant::now(),
            staleness_max,
        })))
    }

    fn with(standing: Option<Mutex<Standing>>) -> Self {
        let inner = Inner {
            knowledge: RwLock::default(),
            epoch: watch::Sender::new(0),
            standing,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Whether somebody who is not here yet may be let in: the knowledge was read, and is not too old.
    ///
    /// # Errors
    ///
    /// [`reason::CONTROL_STALE`], which may be retried. What is open goes on.
    pub fn ready(&self) -> Result<(), BadToken> {
        let stale = self.with_standing(|standing| {
            !standing.is_read || standing.current_at.elapsed() > standing.staleness_max
        });
        match stale {
            Some(true) => Err(reason::CONTROL_STALE),
            Some(false) | None => Ok(()),
        }
    }

    /// Whether the knowledge was read to its end at least once, or there is none to read.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.with_standing(|standing| standing.is_read).unwrap_or(true)
    }

    /// How long it has not been known that nothing newer is there. `None` where no knowledge is kept.
    #[must_use]
    pub fn staleness(&self) -> Option<Duration> {
        self.with_standing(|standing| standing.current_at.elapsed())
    }

    /// Judges a principal by what is known now, however old that is: an open session, a delivery. The answer has the denials
    /// that concern it.
    ///
    /// # Errors
    ///
    /// [`reason::REVOKED`]: it is over with this principal. [`reason::CONTROL_STALE`] (its code may be retried): nothing was
    /// read yet, so nothing is known; ask again, and drop nothing.
    pub fn admit(&self, principal: &Principal) -> Result<Principal, BadToken> {
        let denials = self.judge(principal)?;
        Ok(Principal {
            denials,
            ..principal.clone()
        })
    }

    /// The same without a copy: the denials that concern the principal.
    ///
    /// # Errors
    ///
    /// As [`Control::admit`].
    pub fn judge(&self, principal: &Principal) -> Result<Arc<[Denial]>, BadToken> {
        if !self.is_read() {
            return Err(reason::CONTROL_STALE);
        }
        self.read(|knowledge| {
            if knowledge.is_revoked(principal) {
                Err(reason::REVOKED)
            } else {
                Ok(knowledge.denials_for(principal))
            }
        })
    }

    /// Whether the principal is revoked.
    #[must_use]
    pub fn is_revoked(&self, principal: &Principal) -> bool {
        self.read(|knowledge| knowledge.is_revoked(principal))
    }

    /// The denials that concern the principal. Those who are concerned by the same ones share them.
    #[must_use]
    pub fn denials_for(&self, principal: &Principal) -> Arc<[Denial]> {
        self.read(|knowledge| knowledge.denials_for(principal))
    }

    /// Grows with each change.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        *self.inner.epoch.borrow()
    }

    /// Tells each change to whoever waits; several may be told as one.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.epoch.subscribe()
    }

    /// Looks at what is known. Keep it short: changes wait meanwhile.
    pub fn read<T>(&self, look: impl FnOnce(&Knowledge) -> T) -> T {
        look(
            &self
                .inner
                .knowledge
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Takes changes, in their order. Whoever waits is told once, and only where something is other than before.
    pub fn apply(&self, changes: impl IntoIterator<Item = Change>) -> bool {
        let mut changed = false;
        {
            let mut knowledge = self
                .inner
                .knowledge
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            for change in changes {
                changed |= knowledge.apply(change);
            }
        }
        self.tell(changed)
    }

    /// Takes the place of all that was known: it was read anew from the beginning.
    pub fn replace(&self, knowledge: Knowledge) {
        *self
            .inner
            .knowledge
            .write()
            .unwrap_or_else(PoisonError::into_inner) = knowledge;
        self.tell(true);
    }

    /// Forgets what is over by now.
    pub fn forget(&self, now_ms: i64) -> bool {
        let changed = self
            .inner
            .knowledge
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .forget(now_ms);
        self.tell(changed)
    }

    /// All that there was at this moment has been applied. The first time is a change: what was judged before was judged
    /// without knowing anything.
    pub fn has_read(&self, at: Instant) {
        let is_first = self.with_standing(|standing| {
            standing.current_at = if standing.is_read {
                standing.current_at.max(at)
            } else {
                at
            };
            !std::mem::replace(&mut standing.is_read, true)
        });
        self.tell(is_first.unwrap_or(false));
    }

    fn tell(&self, changed: bool) -> bool {
        if changed {
            self.inner.epoch.send_modify(|epoch| *epoch += 1);
        }
        changed
    }

    fn with_standing<T>(&self, look: impl FnOnce(&mut Standing) -> T) -> Option<T> {
        let standing = self.inner.standing.as_ref()?;
        Some(look(&mut standing.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Default for Control {
    fn default() -> Self {
        Self::none()
    }
}

#[cfg(test)]
mod tests;
