//! What a session does with what it is told: a pure function of its state, the input and the time. Deeds (bytes,
//! verification, subscriptions) are its effects, done by the worker.

mod graphql;

pub(crate) use graphql::may_delegate;

use std::sync::Arc;

use auth::token::{BadToken, Principal};
use schemas::problem::Code;
use smallvec::{SmallVec, smallvec};

use crate::close::Close;
use crate::hub::{Failure, Restriction};
use crate::protocol::graphql_ws::{Dialect, Operation, Token};
use crate::protocol::v1::{self, ClientMessage, Subscribe};
use graphql::Handshake;

/// One session's state.
#[derive(Debug)]
pub(crate) struct Session {
    /// `ses_...`.
    pub(crate) id: String,
    /// Who; none before `auth`.
    pub(crate) principal: Option<Arc<Principal>>,
    /// What a ticket restricts it to.
    pub(crate) restriction: Option<Restriction>,
    /// When it began, in milliseconds since the Unix epoch.
    pub(crate) opened_at_ms: i64,
    warned: bool,
    verifying: bool,
    /// A token that came while another was being verified: the last of them counts.
    next_token: Option<Token>,
    tongue: Tongue,
}

/// What a session's client speaks.
#[derive(Debug)]
pub(crate) enum Tongue {
    /// `tidewire.v1`.
    V1 {
        /// What came behind the first token while it was being verified.
        held: Vec<ClientMessage>,
    },
    /// One of GraphQL's WebSocket protocols.
    Graphql(Dialect, Handshake),
    /// Nothing: a response's body.
    Mute,
}

impl Tongue {
    /// `tidewire.v1`.
    pub(crate) fn v1() -> Self {
        Self::V1 { held: Vec::new() }
    }

    /// A GraphQL protocol, before its `connection_init`.
    pub(crate) fn graphql(dialect: Dialect) -> Self {
        Self::Graphql(dialect, Handshake::Awaited)
    }
}

/// How many messages may wait behind the first token.
const HELD_MAX: usize = 64;

/// Times that decide, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) auth_timeout_ms: i64,
    pub(crate) auth_warning_ms: i64,
}

/// What a session is told.
#[derive(Debug)]
pub(crate) enum Input<'a> {
    /// A text message came.
    Text(&'a str),
    /// A token was verified.
    Verified(Result<Arc<Principal>, BadToken>),
    /// The principal was revoked.
    Revoked,
    /// Time passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub(crate) enum Effect {
    /// Verify this token, then tell [`Input::Verified`].
    Verify(Token),
    /// The session has a principal for the first time.
    Opened(Arc<Principal>),
    /// The session has another token: compile its grants anew.
    Renewed(Arc<Principal>),
    /// Begin a subscription.
    Subscribe(Box<Subscribe>, Arc<Principal>),
    /// End one.
    Unsubscribe(String),
    /// GraphQL: operations may begin.
    Acknowledge,
    /// GraphQL: begin an operation.
    Operate(Box<Operation>, Arc<Principal>),
    /// GraphQL: begin an operation for whom this token names.
    OperateFor(Box<Operation>, Token),
    /// GraphQL: end an operation, without a word.
    Complete(String),
    /// Say `pong`, with what the ping brought.
    Pong(Option<Box<str>>),
    /// Say that credentials are needed by then.
    AuthRequired(i64),
    /// Refuse something.
    Refuse(Option<String>, Failure),
    /// End the session.
    Close(Close),
}

type Effects = SmallVec<[Effect; 2]>;

impl Session {
    pub(crate) fn new(
        id: String,
        principal: Option<Arc<Principal>>,
        restriction: Option<Restriction>,
        tongue: Tongue,
        now_ms: i64,
    ) -> Self {
        Self {
            id,
            principal,
            restriction,
            opened_at_ms: now_ms,
            warned: false,
            verifying: false,
            next_token: None,
            tongue,
        }
    }

    /// The one step.
    pub(crate) fn step(&mut self, input: Input<'_>, now_ms: i64, times: Times) -> Effects {
        match input {
            Input::Text(text) => match self.tongue {
                Tongue::V1 { .. } => self.message(text),
                Tongue::Graphql(dialect, handshake) => self.graphql(dialect, handshake, text),
                Tongue::Mute => smallvec![],
            },
            Input::Verified(result) => self.verified(result, now_ms),
            Input::Revoked => smallvec![
                Effect::Refuse(None, Failure::new(Code::TOKEN_REVOKED, "")),
                Effect::Close(Close::REVOKED)
            ],
            Input::Tick => self.tick(now_ms, times),
        }
    }

    /// When a tick is next needed, in milliseconds since the Unix epoch.
    pub(crate) fn due_ms(&self, times: Times) -> i64 {
        match &self.principal {
            _ if self.is_awaited() => self.opened_at_ms.saturating_add(times.auth_timeout_ms),
            None => self.opened_at_ms.saturating_add(times.auth_timeout_ms),
            Some(principal) if self.warned => principal.expires_at_ms,
            Some(principal) => principal.expires_at_ms.saturating_sub(times.auth_warning_ms),
        }
    }

    fn message(&mut self, text: &str) -> Effects {
        let message = match v1::parse(text) {
            Ok(message) => message,
            Err(detail) => {
                return smallvec![Effect::Refuse(None, Failure::new(Code::MESSAGE_INVALID, detail))];
            }
        };
        if self.principal.is_none()
            && self.verifying
            && !matches!(message, ClientMessage::Ping | ClientMessage::Auth(_))
        {
            if let Tongue::V1 { held } = &mut self.tongue
                && held.len() < HELD_MAX
            {
                held.push(message);
                return smallvec![];
            }
            let failure = Failure::new(
                Code::MESSAGE_INVALID,
                "too many messages before the token is verified",
            );
            return smallvec![
                Effect::Refuse(None, failure),
                Effect::Close(Close::UNAUTHENTICATED)
            ];
        }
        self.understood(message)
    }

    fn understood(&mut self, message: ClientMessage) -> Effects {
        match message {
            ClientMessage::Ping => smallvec![Effect::Pong(None)],
            ClientMessage::Auth(_) if self.verifying => {
                let failure = Failure::new(Code::MESSAGE_INVALID, "the token before is still being verified");
                smallvec![Effect::Refuse(None, failure)]
            }
            ClientMessage::Auth(credentials) => {
                self.verifying = true;
                smallvec![Effect::Verify(Token(credentials.token))]
            }
            ClientMessage::Subscribe(subscribe) => match &self.principal {
                Some(principal) => smallvec![Effect::Subscribe(subscribe, Arc::clone(principal))],
                None => self.unauthenticated(Some(subscribe.id)),
            },
            ClientMessage::Unsubscribe { id } => match &self.principal {
                Some(_) => smallvec![Effect::Unsubscribe(id)],
                None => self.unauthenticated(Some(id)),
            },
        }
    }

    fn unauthenticated(&self, id: Option<String>) -> Effects {
        let failure = Failure::new(Code::UNAUTHENTICATED, "the first message must be auth");
        smallvec![Effect::Refuse(id, failure), Effect::Close(Close::UNAUTHENTICATED)]
    }

    fn verified(&mut self, result: Result<Arc<Principal>, BadToken>, now_ms: i64) -> Effects {
        self.verifying = false;
        let principal = match result {
            Ok(principal) => principal,
            Err(bad) => {
                let failure = Failure::new(bad.code, bad.detail);
                let close = match bad.code {
                    Code::TOKEN_EXPIRED => Close::EXPIRED,
                    Code::TOKEN_REVOKED => Close::REVOKED,
                    _ => Close::UNAUTHENTICATED,
                };
                // Keys that cannot be fetched now are not the client's fault: an open session goes on until its own end.
                if bad.code.retry && self.principal.is_some() {
                    return smallvec![Effect::Refuse(None, failure)];
                }
                let close = if bad.code.retry { Close::LIMITED } else { close };
                return smallvec![Effect::Refuse(None, failure), Effect::Close(close)];
            }
        };
        if principal.expires_at_ms <= now_ms {
            return smallvec![
                Effect::Refuse(None, Failure::new(Code::TOKEN_EXPIRED, "")),
                Effect::Close(Close::EXPIRED)
            ];
        }
        let Some(before) = &self.principal else {
            self.principal = Some(Arc::clone(&principal));
            let mut effects: Effects = smallvec![Effect::Opened(principal)];
            let held = match &mut self.tongue {
                Tongue::V1 { held } => std::mem::take(held),
                Tongue::Graphql(_, handshake) => {
                    *handshake = Handshake::Done;
                    effects.push(Effect::Acknowledge);
                    Vec::new()
                }
                Tongue::Mute => Vec::new(),
            };
            for message in held {
                effects.extend(self.understood(message));
            }
            return effects;
        };
        let same = before.issuer == principal.issuer
            && before.subject == principal.subject
            && before.tenant == principal.tenant;
        if !same {
            return smallvec![
                Effect::Refuse(None, Failure::new(Code::PRINCIPAL_CHANGED, "")),
                Effect::Close(Close::PRINCIPAL_CHANGED)
            ];
        }
        self.principal = Some(Arc::clone(&principal));
        self.warned = false;
        let mut effects: Effects = smallvec![Effect::Renewed(principal)];
        if matches!(self.tongue, Tongue::Graphql(..)) {
            match self.next_token.take() {
                Some(token) => {
                    self.verifying = true;
                    effects.push(Effect::Verify(token));
                }
                None => effects.push(Effect::Pong(None)),
            }
        }
        effects
    }

    fn tick(&mut self, now_ms: i64, times: Times) -> Effects {
        if self.is_awaited() && now_ms >= self.opened_at_ms.saturating_add(times.auth_timeout_ms) {
            return smallvec![Effect::Close(Close::INIT_TIMEOUT)];
        }
        let Some(principal) = &self.principal else {
            if now_ms >= self.opened_at_ms.saturating_add(times.auth_timeout_ms) {
                let failure = Failure::new(Code::UNAUTHENTICATED, "no auth message came in time");
                return smallvec![
                    Effect::Refuse(None, failure),
                    Effect::Close(Close::UNAUTHENTICATED)
                ];
            }
            return smallvec![];
        };
        if now_ms >= principal.expires_at_ms {
            return smallvec![
                Effect::Refuse(None, Failure::new(Code::TOKEN_EXPIRED, "")),
                Effect::Close(Close::EXPIRED)
            ];
        }
        if !self.warned && now_ms >= principal.expires_at_ms.saturating_sub(times.auth_warning_ms) {
            self.warned = true;
            return smallvec![Effect::AuthRequired(principal.expires_at_ms)];
        }
        smallvec![]
    }
}

/// A time for people and programs: RFC 3339 in UTC, with milliseconds.
pub(crate) fn rfc3339(time_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(time_ms)
        .map_or_else(|_| "unknown".to_owned(), |time| format!("{time:.3}"))
}
