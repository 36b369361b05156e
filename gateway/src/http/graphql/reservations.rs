//! Reservations of single connection mode: a token stands for one event stream, which is opened with it once.
//!
//! Invariants: a token is its principal's: to everybody else it is as unknown as one that never was; a stream is opened at
//! most once a token at a time, and its operations are judged by the credentials that opened it; whatever is reserved holds a place of the quotas, so that there are never more reservations
//! than connections, and loses it when it is not used in time. Knows nothing of HTTP.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use auth::quota::Permit;
use auth::token::Principal;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subscriptions::hub::GraphqlHandle;
use tokio::time::Instant;

use crate::http::credentials::Reader;
use crate::http::origin::Caller;

/// How long a token waits for its stream.
pub(super) const UNOPENED_MAX: Duration = Duration::from_secs(60);

/// The tokens of this node.
#[derive(Default)]
pub(crate) struct Reservations {
    entries: Mutex<HashMap<String, Reservation>>,
}

struct Reservation {
    reader: Reader,
    /// Who asked: a stream may be opened by a token alone, from the same page only.
    caller: Caller,
    state: State,
}

enum State {
    /// Not opened. `None` while it is being opened.
    Reserved(Option<Permit>, Instant),
    /// Open, as far as is known.
    Open(GraphqlHandle),
}

/// Why a token does not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unusable {
    /// There is none, it is over, or it is somebody else's.
    Unknown,
    /// Its stream is open already.
    Opened,
    /// Its stream is not open yet.
    NotOpened,
}

impl std::fmt::Debug for Reservations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reservations")
            .field("count", &self.entries().len())
            .finish()
    }
}

impl Reservations {
    /// A new token, 256 bits at random.
    pub(super) fn reserve(&self, reader: Reader, caller: Caller, permit: Permit) -> String {
        let token = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        let reservation = Reservation {
            reader,
            caller,
            state: State::Reserved(Some(permit), Instant::now() + UNOPENED_MAX),
        };
        self.entries().insert(token.clone(), reservation);
        token
    }

    /// Takes the place that was reserved, to open the stream. `reader` is the one who asks, where the request says who;
    /// `caller` the page that does.
    pub(super) fn begin(
        &self,
        token: &str,
        reader: Option<&Reader>,
        caller: &Caller,
    ) -> Result<(Permit, Reader), Unusable> {
        let mut entries = self.entries();
        let reservation = entries.get_mut(token).ok_or(Unusable::Unknown)?;
        let is_theirs = match reader {
            Some(reader) => same(&reader.principal, &reservation.reader.principal),
            None => reservation.caller == *caller,
        };
        if !is_theirs {
            return Err(Unusable::Unknown);
        }
        match &mut reservation.state {
            State::Reserved(_, until) if *until <= Instant::now() => Err(Unusable::Unknown),
            State::Reserved(permit, _) => {
                let permit = permit.take().ok_or(Unusable::Opened)?;
                // The stream is theirs from here on: their token decides what its operations may ask for.
                if let Some(reader) = reader {
                    reservation.reader = reader.clone();
                }
                Ok((permit, reservation.reader.clone()))
            }
            State::Open(_) => Err(Unusable::Opened),
        }
    }

    /// The stream is open.
    pub(super) fn opened(&self, token: &str, handle: GraphqlHandle) {
        if let Some(reservation) = self.entries().get_mut(token) {
            reservation.state = State::Open(handle);
        }
    }

    /// The open stream of a token, and whose it is.
    pub(super) fn find(
        &self,
        token: &str,
        principal: &Principal,
    ) -> Result<(GraphqlHandle, Reader), Unusable> {
        let entries = self.entries();
        let reservation = entries.get(token).ok_or(Unusable::Unknown)?;
        if !same(principal, &reservation.reader.principal) {
            return Err(Unusable::Unknown);
        }
        match &reservation.state {
            State::Reserved(_, until) if *until <= Instant::now() => Err(Unusable::Unknown),
            State::Reserved(..) => Err(Unusable::NotOpened),
            State::Open(handle) => Ok((handle.clone(), reservation.reader.clone())),
        }
    }

    /// Forgets a token.
    pub(super) fn forget(&self, token: &str) {
        self.entries().remove(token);
    }

    /// Forgets a token whose time is over and whose stream was not opened.
    pub(super) fn expire(&self, token: &str) {
        let mut entries = self.entries();
        let is_idle = entries
            .get(token)
            .is_some_and(|reservation| matches!(reservation.state, State::Reserved(Some(_), _)));
        if is_idle {
            entries.remove(token);
        }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Reservation>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A renewed token names the same principal.
fn same(one: &Principal, other: &Principal) -> bool {
    one.issuer == other.issuer && one.tenant == other.tenant && one.subject == other.subject
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use auth::quota::{Limits, Quotas};
    use schemas::ids::TenantId;

    use super::*;

    fn reader(scope: &str) -> Reader {
        let principal = Principal {
            issuer: "issuer".into(),
            subject: "somebody".into(),
            tenant: TenantId::parse("north").expect("tenant"),
            scopes: vec![scope.to_owned()],
            claims: BTreeMap::new(),
            token_id: None,
            issued_at_ms: None,
            expires_at_ms: i64::MAX,
            application: None,
            denials: Arc::default(),
        };
        Reader {
            principal: Arc::new(principal),
            stream: None,
            filter: None,
        }
    }

    #[tokio::test]
    async fn operations_are_judged_by_the_token_that_opened_the_stream() {
        let (wide, narrow) = (reader("phi:read"), reader("read"));
        for (opens, wanted) in [(Some(&narrow), "read"), (None, "phi:read")] {
            let reservations = Reservations::default();
            let permit = Quotas::new(Limits::default()).admit(&wide.principal);
            let permit = permit.expect("a place");
            let token = reservations.reserve(wide.clone(), Caller::NoPage, permit);
            let (_permit, begun) = reservations.begin(&token, opens, &Caller::NoPage).expect("begun");
            assert_eq!(begun.principal.scopes, [wanted]);
            let entries = reservations.entries();
            let kept = entries.get(&token).expect("kept");
            assert_eq!(kept.reader.principal.scopes, [wanted]);
        }
    }
}
