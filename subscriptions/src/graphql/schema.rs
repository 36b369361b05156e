//! The contract as GraphQL serves it: the front door of this module.

use std::fmt;
use std::sync::Arc;

use async_graphql_parser::types::{ExecutableDocument, OperationType};
use auth::scope::{self, Held, Scope};
use auth::token::Principal;
use schemas::contract::Contract;
use schemas::graph::Requires;
use schemas::problem::Code;
use serde_json::{Map, Value};

use super::cache::Cache;
use super::error::{GraphqlError, Refused};
use super::interner::Interner;
use super::limits::{Limits, Options};
use super::measure;
use super::operation::{self, Operation};
use super::persisted::{Document, Documents, Hash};
use super::request::{OperationKind, Prepared, Request};
use super::validator::Validator;

/// How many refusals are kept, and how many bytes of them, roughly.
const REFUSALS_MAX: usize = 1_000;
const REFUSALS_BYTES_MAX: usize = 1 << 20;

/// The contract as GraphQL serves it. One per node.
pub struct Schema {
    contract: Arc<Contract>,
    limits: Limits,
    documents: Documents,
    validator: Validator,
    operations: Cache<Key, Arc<Operation>>,
    /// What operations have in common.
    interner: Interner,
    /// Why documents are not valid: who sends one again and again does not keep others waiting.
    refusals: Cache<Key, Refused>,
}

/// A document, and which of its operations.
type Key = (Hash, Option<Box<str>>);

/// A document whose operation may run, as far as the document says.
enum Validated {
    /// Not looked at any further.
    Query(ExecutableDocument),
    Subscription(Arc<Operation>),
}

/// The contract's types cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the contract cannot be served as GraphQL: {0}")]
pub struct BadSchema(pub String);

impl Schema {
    /// The schema of a contract.
    pub fn new(contract: &Arc<Contract>, options: Options) -> Result<Self, BadSchema> {
        let Options {
            introspection,
            limits,
            persisted,
        } = options;
        Ok(Self {
            validator: Validator::new(&contract.graph, introspection).map_err(BadSchema)?,
            contract: Arc::clone(contract),
            documents: Documents::new(persisted, &limits),
            operations: Cache::new(limits.cached_operations_max, limits.cached_bytes_max),
            interner: Interner::new(),
            refusals: Cache::new(REFUSALS_MAX, REFUSALS_BYTES_MAX),
            limits,
        })
    }

    /// Parses, validates, compiles and binds an operation; what can be is kept for the next request that brings the same
    /// document. Never blocks, and does no I/O. Scopes are those of `principal`.
    pub fn prepare(&self, request: &Request, principal: Option<&Principal>) -> Result<Prepared, Refused> {
        self.check_size(request)?;
        let document = self.documents.of(request)?;
        let name = request.operation_name.as_deref().filter(|name| !name.is_empty());
        let key = (document.hash, name.map(Box::from));
        let operation = match self.operations.get(&key) {
            Some(operation) => operation,
            None => match self.known_or_validated(&document, name, &key)? {
                Validated::Query(parsed) => {
                    let found = operation::find(&parsed, name)?.node.clone();
                    let answer = self.validator.answer(parsed, &found, name, &request.variables)?;
                    self.documents.register(&document);
                    return Ok(Prepared::Answer(answer));
                }
                Validated::Subscription(operation) => operation,
            },
        };
        let allowed = |requires: &Requires| allowed(requires, principal);
        let bound = operation.bind(&self.contract, &self.interner, request, &allowed);
        // Kept also where it is not for this reader or not with these variables: it is valid, and asked for again.
        let bytes = operation.memory(document.text.len());
        self.operations.insert(key, operation, bytes);
        let bound = bound?;
        self.documents.register(&document);
        Ok(Prepared::Subscription(Box::new(bound)))
    }

    fn known_or_validated(
        &self,
        document: &Document,
        name: Option<&str>,
        key: &Key,
    ) -> Result<Validated, Refused> {
        if let Some(refused) = self.refusals.get(key) {
            return Err(refused);
        }
        self.validated(document, name).inspect_err(|refused| {
            if refused.code != Code::INTERNAL {
                let bytes = refused.memory() + name.map_or(0, str::len);
                self.refusals.insert(key.clone(), refused.clone(), bytes);
            }
        })
    }

    /// What can be said of a document without variables and whoever sends it.
    fn validated(&self, document: &Document, name: Option<&str>) -> Result<Validated, Refused> {
        let parsed = self.parse(document)?;
        measure::check(&parsed, &self.limits)?;
        if operation::find(&parsed, name)?.node.ty != OperationType::Subscription {
            return Ok(Validated::Query(parsed));
        }
        self.validator.check(parsed.clone(), name)?;
        let operation = Operation::new(
            &self.contract.graph,
            parsed,
            name.map(str::to_owned),
            self.limits.payload_bytes_max,
        )?;
        Ok(Validated::Subscription(Arc::new(operation)))
    }

    /// The kind of the operation that would run, without running it.
    pub fn kind(&self, request: &Request) -> Result<OperationKind, Refused> {
        self.check_size(request)?;
        let document = self.documents.of(request)?;
        let name = request.operation_name.as_deref().filter(|name| !name.is_empty());
        if self
            .operations
            .get(&(document.hash, name.map(Box::from)))
            .is_some()
        {
            return Ok(OperationKind::Subscription);
        }
        let parsed = self.parse(&document)?;
        Ok(match operation::find(&parsed, name)?.node.ty {
            OperationType::Query => OperationKind::Query,
            OperationType::Mutation => OperationKind::Mutation,
            OperationType::Subscription => OperationKind::Subscription,
        })
    }

    /// The subgraph's SDL, as it is given to composition.
    #[must_use]
    pub fn sdl(&self) -> &str {
        &self.contract.graph.sdl
    }

    /// How many operations and how many refusals are kept.
    #[cfg(test)]
    pub(super) fn kept(&self) -> (usize, usize) {
        (self.operations.held().0, self.refusals.held().0)
    }

    /// Before anything is hashed or parsed.
    fn check_size(&self, request: &Request) -> Result<(), Refused> {
        let most = self.limits.document_bytes_max;
        if request.query.as_ref().is_some_and(|text| text.len() > most) {
            return Err(Refused::ours(
                Code::OPERATION_TOO_LARGE,
                format!("more than document_bytes_max = {most}"),
            ));
        }
        let most = self.limits.variables_bytes_max;
        let mut left = most;
        if !fits_members(&request.variables, &mut left) {
            return Err(Refused::ours(
                Code::OPERATION_TOO_LARGE,
                format!("more than variables_bytes_max = {most}"),
            ));
        }
        Ok(())
    }

    fn parse(&self, document: &Document) -> Result<ExecutableDocument, Refused> {
        measure::check_text(&document.text, &self.limits)?;
        async_graphql_parser::parse_query(&document.text).map_err(|error| {
            // Their messages quote the document.
            let message = match &error {
                async_graphql_parser::Error::Syntax { .. } => "the document is not GraphQL".to_owned(),
                other => other.to_string(),
            };
            let error = error.positions().fold(
                GraphqlError::new("GRAPHQL_PARSE_FAILED", message),
                GraphqlError::at,
            );
            Refused::new(Code::OPERATION_INVALID, error)
        })
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schema").finish_non_exhaustive()
    }
}

/// Takes what a value needs as JSON from what is left; `false` if that is not enough.
fn fits(value: &Value, left: &mut usize) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => take(left, 4),
        Value::String(text) => take(left, text.len() + 2),
        Value::Array(values) => take(left, 2) && values.iter().all(|value| fits(value, left)),
        Value::Object(members) => fits_members(members, left),
    }
}

fn fits_members(members: &Map<String, Value>, left: &mut usize) -> bool {
    take(left, 2)
        && members
            .iter()
            .all(|(name, value)| take(left, name.len() + 4) && fits(value, left))
}

fn take(left: &mut usize, bytes: usize) -> bool {
    match left.checked_sub(bytes) {
        Some(rest) => {
            *left = rest;
            true
        }
        None => false,
    }
}

/// Whether somebody may select what needs all of these.
pub(crate) fn check_requires(requires: &[Requires], principal: &Principal) -> Result<(), Refused> {
    requires
        .iter()
        .try_for_each(|requires| allowed(requires, Some(principal)))
}

/// Whether somebody may select what needs this.
fn allowed(requires: &Requires, principal: Option<&Principal>) -> Result<(), Refused> {
    let Some(principal) = principal else {
        return Err(Refused::ours(
            Code::UNAUTHENTICATED,
            "a selected field needs credentials",
        ));
    };
    if requires.scopes.is_empty() {
        return Ok(());
    }
    let held: Vec<Scope> = principal.scopes.iter().map(|text| Scope::parse(text)).collect();
    // A scope that holds for a part of the data only opens no field: fields are the same for all of it.
    let has = |wanted: &Arc<str>| scope::held(&[wanted.to_string()], &held) == Held::Whole;
    if requires.scopes.iter().any(|all| all.iter().all(has)) {
        return Ok(());
    }
    Err(Refused::ours(Code::FIELD_FORBIDDEN, Code::FIELD_FORBIDDEN.title))
}
