//! The ways out, one for each reach: tests and handshakes go the way that deliveries go.
//!
//! Invariant: every client has the guard of [`auth::egress`]. A client certificate is used by its endpoint's requests only.

use std::sync::{Mutex, PoisonError};

use auth::egress::{Client, EgressError, Identity, Reach};
use webhooks::endpoint::Credentials;

/// Clients that were made already.
#[derive(Default)]
pub(crate) struct Clients {
    by_reach: Mutex<Vec<(Reach, Client)>>,
}

impl Clients {
    /// The client for an endpoint's credentials.
    pub(super) fn client(&self, reach: Reach, credentials: &Credentials) -> Result<Client, EgressError> {
        if let Credentials::Mtls { certificate, key } = credentials {
            return Client::for_deliveries(reach, Some(&Identity::new(certificate, key)));
        }
        let mut clients = self.by_reach.lock().unwrap_or_else(PoisonError::into_inner);
        // There are eight of them at most.
        if let Some((_, client)) = clients.iter().find(|(have, _)| *have == reach) {
            return Ok(client.clone());
        }
        let client = Client::for_deliveries(reach, None)?;
        clients.push((reach, client.clone()));
        Ok(client)
    }
}
