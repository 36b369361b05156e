//! What a route is: its method and path, who may call it, what it takes and what it answers.

use super::ROUTES;
use crate::problem::Code;

/// What can be asked of the API. Each has one route and one handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each one's summary stands in its route")]
pub enum Operation {
    ListStreams,
    ReadStream,
    ReadStreamByPost,
    IssueTicket,
    OpenSocket,
    ReadOpenApi,
    ReadWebhookKeys,
    ListEndpoints,
    CreateEndpoint,
    ReadEndpoint,
    ChangeEndpoint,
    DeleteEndpoint,
    RotateSecrets,
    PauseEndpoint,
    ResumeEndpoint,
    TestEndpoint,
    AskEndpoint,
    ReadHealth,
    ReadCursor,
    DryRunEndpoint,
    DryRunSpecification,
    BeginReplay,
    ListReplays,
    CancelReplay,
    ListAttempts,
    ReadAttempt,
    ResendDelivery,
}

/// Who may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Public,
    /// A bearer token, a ticket or the cookie.
    Reader,
    /// A bearer token.
    Bearer,
    /// A bearer token with this scope.
    Scope(&'static str),
}

/// Where a parameter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the query string.
    Query,
    /// In a header.
    Header,
}

/// What a parameter is.
#[derive(Debug, Clone, Copy)]
pub enum Of {
    /// A text.
    Text,
    /// An RFC 3339 time.
    Time,
    /// A whole number from, to, and without it.
    Number(u32, u32, u32),
}

/// A parameter that is not in the path.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// Where it stands.
    pub place: Place,
    /// Whether it must be there.
    pub required: bool,
    /// What it is.
    pub of: Of,
    /// For people.
    pub description: &'static str,
}

/// A request's body.
#[derive(Debug, Clone, Copy)]
pub struct Body {
    /// Media types, any of which is understood.
    pub media_types: &'static [&'static str],
    /// The component that describes it.
    pub schema: &'static str,
    /// Whether it must be there.
    pub required: bool,
}

/// What is answered when nothing is wrong.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// For people.
    pub description: &'static str,
    /// Media types, with the component that describes each.
    pub content: &'static [(&'static str, &'static str)],
    /// Headers that matter.
    pub headers: &'static [&'static str],
}

/// One route.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// What is asked.
    pub operation: Operation,
    /// `get`, `post`, `patch` or `delete`.
    pub method: &'static str,
    /// The path, with parameters in braces.
    pub path: &'static str,
    /// `operationId`.
    pub id: &'static str,
    /// Which part of the API: `streams`, `webhooks` or `documents`.
    pub tag: &'static str,
    /// A sentence for people.
    pub summary: &'static str,
    /// Who may call.
    pub access: Access,
    /// Parameters in the query string and in headers.
    pub parameters: &'static [Parameter],
    /// The body.
    pub body: Option<Body>,
    /// Good answers.
    pub answers: &'static [Answer],
    /// Codes of refusals, besides those that follow from the rest.
    pub codes: &'static [Code],
}

impl Operation {
    /// Its route.
    ///
    /// # Panics
    ///
    /// Never: a test looks for each one.
    #[must_use]
    pub fn route(self) -> &'static Route {
        let found = ROUTES.iter().find(|route| route.operation == self);
        found.expect("operations: each one has a route")
    }
}

impl Route {
    /// Whether it is there only where webhooks are.
    #[must_use]
    pub fn is_of_webhooks(&self) -> bool {
        self.tag == "webhooks"
    }

    /// The names of the path's parameters.
    pub fn path_parameters(&self) -> impl Iterator<Item = &'static str> {
        let segments = self.path.split('/');
        segments.filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
    }

    /// Every code that a refusal may have, those that follow from who may call and what is taken included.
    #[must_use]
    pub fn all_codes(&self) -> Vec<Code> {
        let mut codes = self.codes.to_vec();
        if self.access != Access::Public {
            codes.extend([
                Code::UNAUTHENTICATED,
                Code::TOKEN_INVALID,
                Code::TOKEN_EXPIRED,
                Code::KEYS_UNAVAILABLE,
            ]);
        }
        if self.access == Access::Reader {
            codes.extend([Code::TICKET_INVALID, Code::ORIGIN_FORBIDDEN]);
        }
        if let Access::Scope(_) = self.access {
            codes.extend([Code::SCOPE_MISSING, Code::STORE_UNAVAILABLE, Code::DRAINING]);
        }
        if self.access == Access::Scope(super::WRITE_SCOPE) {
            codes.push(Code::RATE_LIMITED);
        }
        codes.push(Code::UNKNOWN_PARAMETER);
        if self
            .parameters
            .iter()
            .any(|parameter| parameter.place == Place::Query)
        {
            codes.push(Code::PARAMETER_INVALID);
        }
        if self.is_of_webhooks() && self.path_parameters().next().is_some() {
            codes.push(Code::NOT_FOUND);
        }
        if self.body.is_some() {
            codes.extend([
                Code::BODY_INVALID,
                Code::BODY_TOO_LARGE,
                Code::UNSUPPORTED_MEDIA_TYPE,
            ]);
        }
        codes.push(Code::INTERNAL);
        codes.sort_by_key(|code| (code.status, code.name));
        codes.dedup();
        codes
    }
}
