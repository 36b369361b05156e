//! The contract as GraphQL serves it.

use std::sync::Arc;

use auth::token::Principal;
use schemas::contract::Contract;
use schemas::problem::Code;

use super::error::Refused;
use super::limits::Options;
use super::request::{OperationKind, Prepared, Request};

/// The contract as GraphQL serves it. One per node.
pub struct Schema {
    contract: Arc<Contract>,
}

/// The contract's types cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the contract cannot be served as GraphQL: {0}")]
pub struct BadSchema(pub String);

impl Schema {
    /// The schema of a contract.
    pub fn new(contract: &Arc<Contract>, options: Options) -> Result<Self, BadSchema> {
        drop(options);
        Ok(Self {
            contract: Arc::clone(contract),
        })
    }

    /// Parses, validates, compiles and binds an operation. Never blocks, and does no I/O.
    pub fn prepare(&self, request: &Request, principal: Option<&Principal>) -> Result<Prepared, Refused> {
        let _ = (request, principal);
        Err(Refused::ours(Code::UNSUPPORTED, "not yet"))
    }

    /// The kind of the operation that would run, without running it.
    pub fn kind(&self, request: &Request) -> Result<OperationKind, Refused> {
        let _ = request;
        Err(Refused::ours(Code::UNSUPPORTED, "not yet"))
    }

    /// The subgraph's SDL, as it is given to composition.
    #[must_use]
    pub fn sdl(&self) -> &str {
        &self.contract.graph.sdl
    }
}
