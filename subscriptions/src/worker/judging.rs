//! What a worker does when operators know more: it judges its sessions anew.
//!
//! One invariant: of what waits unsent for somebody who is revoked, nothing is begun any more. What had begun (the rest of
//! one frame, chunks that the HTTP server was handed) has a moment to go out, so that the reader can be told why it ends;
//! what is not out by then is cut off with the connection.

use std::sync::Arc;
use std::time::Duration;

use auth::control::Denial;
use auth::token::Principal;
use tokio::time::{Instant, sleep};

use super::state::State;
use crate::close::Close;
use crate::hub::Failure;
use crate::session::Input;

/// How long what has begun may take to go out, and how often it is looked at. A reader that keeps up needs a few
/// milliseconds; one that does not must not get more of it in small portions.
const GRACE: Duration = Duration::from_millis(100);
const LOOK: Duration = Duration::from_millis(10);

impl State {
    /// The principal as it is judged now, with the denials of now.
    pub(crate) fn admit(&self, principal: &Arc<Principal>) -> Result<Arc<Principal>, Failure> {
        let control = self.services.authenticator.control();
        let denials = control
            .judge(principal)
            .map_err(|bad| Failure::new(bad.code, ""))?;
        Ok(with_denials(principal, denials).unwrap_or_else(|| Arc::clone(principal)))
    }

    /// Judges every session: those that are over end, those that may have less or more than before are selected anew.
    pub(super) fn judge(&mut self) {
        let places: Vec<usize> = self.connections.iter().map(|(place, _)| place).collect();
        for place in places {
            self.judge_session(place);
            self.judge_delegates(place);
        }
    }

    fn judge_session(&mut self, place: usize) {
        let Some(connection) = self.connections.get(place) else {
            return;
        };
        let Some(principal) = connection.session.principal.clone() else {
            return;
        };
        match self.services.authenticator.control().judge(&principal) {
            // Nothing was read: whoever is here was let in by what is known now.
            Err(bad) if bad.code.retry => {}
            Err(_) => self.revoke(place),
            Ok(denials) => {
                let is_closing = self.connections[place].closing.is_some();
                if let (Some(principal), false) = (with_denials(&principal, denials), is_closing) {
                    self.connections[place].session.principal = Some(Arc::clone(&principal));
                    self.reselect(place, &principal);
                }
            }
        }
    }

    fn judge_delegates(&mut self, place: usize) {
        let Some(connection) = self.connections.get(place) else {
            return;
        };
        if connection.closing.is_some() {
            return;
        }
        for subscription in 0..connection.subscriptions.len() {
            let Some(delegate) = self.connections.get(place).and_then(|connection| {
                let reader = connection.subscriptions.get(subscription)?.as_ref()?;
                reader.delegate.clone()
            }) else {
                continue;
            };
            match self.services.authenticator.control().judge(&delegate) {
                Err(bad) if bad.code.retry => {}
                Err(bad) => self.complete(place, subscription, &Failure::new(bad.code, "")),
                Ok(denials) => {
                    let Some(delegate) = with_denials(&delegate, denials) else {
                        continue;
                    };
                    if let Some(Some(reader)) = self.connections[place].subscriptions.get_mut(subscription) {
                        reader.delegate = Some(Arc::clone(&delegate));
                    }
                    self.reselect_one(place, subscription, &delegate);
                }
            }
        }
    }

    fn revoke(&mut self, place: usize) {
        let Some(connection) = self.connections.get_mut(place) else {
            return;
        };
        if !connection.is_behind() {
            // One that is being closed has said its last word.
            return self.tell(place, Input::Revoked);
        }
        if std::mem::replace(&mut connection.is_revoked, true) {
            return;
        }
        let serial = connection.serial;
        connection.waiting.clear();
        for subscription in 0..connection.subscriptions.len() {
            self.end_subscription(place, subscription);
        }
        let Some(worker) = self.this.upgrade() else { return };
        self.tasks.spawn_local(async move {
            let end = Instant::now() + GRACE;
            loop {
                sleep(LOOK).await;
                if worker
                    .state
                    .borrow_mut()
                    .is_off(place, serial, Instant::now() >= end)
                {
                    return;
                }
            }
        });
    }

    /// Ends a revoked session when what had begun is out, or is not out in time.
    fn is_off(&mut self, place: usize, serial: u64, is_late: bool) -> bool {
        let Some(connection) = self.connection(place, serial) else {
            return true;
        };
        if !connection.is_behind() {
            self.tell(place, Input::Revoked);
            return true;
        }
        if is_late {
            let was_open = connection.closing.is_none();
            connection.outlet.cut();
            if was_open {
                self.metrics.closed(Close::REVOKED.reason);
            }
            self.end(place);
        }
        is_late
    }
}

/// The principal with these denials; `None` where it has them already.
fn with_denials(principal: &Arc<Principal>, denials: Arc<[Denial]>) -> Option<Arc<Principal>> {
    if Arc::ptr_eq(&principal.denials, &denials) || principal.denials == denials {
        return None;
    }
    Some(Arc::new(Principal {
        denials,
        ..(**principal).clone()
    }))
}
