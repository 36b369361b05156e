//! Whose operation it is, where a router asks for one of its users: `extensions.authorization`, as on a socket.
//!
//! One invariant: an operation that names somebody is theirs or is refused. It never runs as the one who sent it, who may
//! see more.

use std::sync::Arc;

use schemas::problem::Code;
use subscriptions::graphql;
use subscriptions::protocol::graphql_ws::Operation;

use crate::http::Gateway;
use crate::http::credentials::Reader;
use crate::http::problem::Problem;

/// The member of `extensions` with the token of the one who is spoken for.
const AUTHORIZATION: &str = "authorization";
/// The scope of who may speak for others.
const SCOPE: &str = "tidewire:delegate";

/// Whether the request is for somebody else than its sender.
pub(super) fn is_for_another(request: &graphql::Request) -> bool {
    request.extensions.contains_key(AUTHORIZATION)
}

/// Refused for who is named, or for who named them.
pub(super) fn refused(detail: &'static str) -> Problem {
    Problem::new(Code::UNAUTHENTICATED, detail)
}

impl Gateway {
    /// Who the request is for: whom it names, if the sender may speak for them, else the sender.
    pub(super) async fn spoken_for(
        &self,
        request: &graphql::Request,
        sender: Option<Reader>,
    ) -> Result<Option<Reader>, Problem> {
        if !is_for_another(request) {
            return Ok(sender);
        }
        let sender = sender
            .filter(|sender| sender.principal.scopes.iter().any(|scope| scope == SCOPE))
            .ok_or_else(|| refused("the sender may not speak for others (scope tidewire:delegate)"))?;
        let operation = Operation {
            id: String::new(),
            request: request.clone(),
        };
        let token = operation
            .authorization()
            .ok_or_else(|| refused("extensions.authorization is no bearer token"))?;
        let mut whose = self.authenticator.verify(&token.0, self.clock.now_ms()).await?;
        // Who speaks for others does so no longer than their own token lets them.
        if sender.principal.expires_at_ms < whose.expires_at_ms {
            Arc::make_mut(&mut whose).expires_at_ms = sender.principal.expires_at_ms;
        }
        // What the sender's ticket is restricted to, it is for everybody whom they speak for.
        Ok(Some(Reader {
            principal: whose,
            ..sender
        }))
    }
}
