//! What a GraphQL socket does with what its client says: the handshake first, then operations. Both protocols have the
//! same steps; only their words differ.

use std::sync::Arc;

use auth::token::Principal;
use schemas::problem::Code;
use smallvec::smallvec;

use super::{Effect, Effects, Session, Tongue};
use crate::close::Close;
use crate::hub::Failure;
use crate::protocol::graphql_ws::{self, ClientMessage, Dialect, Operation};

/// The scope with which one connection may speak for several people, each named by a token of their own.
const DELEGATE_SCOPE: &str = "tidewire:delegate";

/// How far the handshake is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handshake {
    /// `connection_init` has not come.
    Awaited,
    /// Its token is being verified.
    Judged,
    /// It was acknowledged.
    Done,
}

impl Session {
    /// Whether a handshake is not over.
    pub(super) fn is_awaited(&self) -> bool {
        matches!(
            self.tongue,
            Tongue::Graphql(_, Handshake::Awaited | Handshake::Judged)
        )
    }

    pub(super) fn graphql(&mut self, dialect: Dialect, handshake: Handshake, text: &str) -> Effects {
        let Ok(message) = graphql_ws::parse(dialect, text) else {
            return smallvec![Effect::Close(Close::INVALID_MESSAGE)];
        };
        match message {
            ClientMessage::Init(payload) => {
                if handshake != Handshake::Awaited {
                    return smallvec![Effect::Close(Close::INIT_TWICE)];
                }
                // What the upgrade said comes first.
                if self.principal.is_some() {
                    self.tongue = Tongue::Graphql(dialect, Handshake::Done);
                    return smallvec![Effect::Acknowledge];
                }
                let Some(token) = graphql_ws::credentials(&payload) else {
                    let failure = Failure::new(Code::UNAUTHENTICATED, "connection_init brings no token");
                    return smallvec![Effect::Refuse(None, failure), Effect::Close(Close::FORBIDDEN)];
                };
                self.tongue = Tongue::Graphql(dialect, Handshake::Judged);
                self.verifying = true;
                smallvec![Effect::Verify(token)]
            }
            ClientMessage::Subscribe(operation) => match &self.principal {
                Some(principal) if handshake == Handshake::Done => {
                    let principal = Arc::clone(principal);
                    operate(operation, principal)
                }
                _ => smallvec![Effect::Close(Close::TOO_EARLY)],
            },
            ClientMessage::Complete { id } => smallvec![Effect::Complete(id)],
            ClientMessage::Ping {
                token: Some(token), ..
            } => match handshake {
                Handshake::Done if !self.verifying => {
                    self.verifying = true;
                    smallvec![Effect::Verify(token)]
                }
                // `pong` says that a token was accepted: it waits for the verdict.
                Handshake::Done => {
                    self.next_token = Some(token);
                    smallvec![]
                }
                // `connection_init` brings the first one.
                Handshake::Awaited | Handshake::Judged => smallvec![],
            },
            ClientMessage::Ping { payload, .. } => smallvec![Effect::Pong(payload)],
            ClientMessage::Pong => smallvec![],
            ClientMessage::Terminate => smallvec![Effect::Close(Close::CLIENT)],
        }
    }
}

/// Whether a connection may speak for others.
pub(crate) fn may_delegate(principal: &Principal) -> bool {
    principal.scopes.iter().any(|scope| scope == DELEGATE_SCOPE)
}

/// An operation that names somebody is theirs, if the connection may speak for others. One that may not is refused: it
/// would be given what the connection may see.
fn operate(operation: Box<Operation>, principal: Arc<Principal>) -> Effects {
    if !operation.request.extensions.contains_key("authorization") {
        return smallvec![Effect::Operate(operation, principal)];
    }
    let may = may_delegate(&principal);
    match operation.authorization() {
        Some(token) if may => smallvec![Effect::OperateFor(operation, token)],
        _ => {
            let detail = if may {
                "extensions.authorization is no bearer token"
            } else {
                "this connection may not speak for others (scope tidewire:delegate)"
            };
            let failure = Failure::new(Code::UNAUTHENTICATED, detail);
            smallvec![Effect::Refuse(Some(operation.id), failure)]
        }
    }
}
