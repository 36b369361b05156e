//! Names to addresses, all of which are allowed.
//!
//! Invariant: the addresses that are looked at here are those that are connected to: there is no second look-up in which a
//! name could have another answer.

use std::net::SocketAddr;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::Reach;

/// A name has an address that is not allowed: what the resolver tells through the client's layers.
#[derive(Debug, thiserror::Error)]
#[error("the name has an address that is not allowed")]
pub(super) struct Forbidden;

/// A name has no address.
#[derive(Debug, thiserror::Error)]
#[error("the name cannot be resolved")]
pub(super) struct Unresolved;

/// The resolver of our clients.
#[derive(Debug)]
pub(super) struct Guard {
    reach: Reach,
    names: Names,
}

#[derive(Debug, Clone)]
enum Names {
    System,
    /// The answers that a test gives, one for each look-up.
    #[cfg(test)]
    Scripted(Script),
}

#[cfg(test)]
pub(super) type Script = std::sync::Arc<std::sync::Mutex<std::collections::VecDeque<Vec<std::net::IpAddr>>>>;

impl Guard {
    pub(super) fn system(reach: Reach) -> Self {
        Self {
            reach,
            names: Names::System,
        }
    }

    #[cfg(test)]
    pub(super) fn scripted(reach: Reach, script: Script) -> Self {
        Self {
            reach,
            names: Names::Scripted(script),
        }
    }
}

impl Names {
    async fn look_up(&self, name: &str) -> Result<Vec<SocketAddr>, Unresolved> {
        match self {
            Self::System => tokio::net::lookup_host((name, 0))
                .await
                .map(Iterator::collect)
                .map_err(|_| Unresolved),
            #[cfg(test)]
            Self::Scripted(script) => {
                let mut script = script.lock().expect("no test panics with it");
                let answer = script.pop_front().ok_or(Unresolved)?;
                Ok(answer
                    .into_iter()
                    .map(|address| SocketAddr::new(address, 0))
                    .collect())
            }
        }
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let (reach, names) = (self.reach, self.names.clone());
        Box::pin(async move {
            let addresses = names.look_up(name.as_str()).await?;
            // One forbidden address among good ones is how a rebinding name looks: none of them is used.
            if addresses.iter().any(|address| !reach.allows(address.ip())) {
                return Err(Forbidden.into());
            }
            if addresses.is_empty() {
                return Err(Unresolved.into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}
