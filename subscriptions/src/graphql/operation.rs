//! One subscription of a document, compiled as far as it can be without variables.
//!
//! Invariant: the document was validated. What is compiled for one set of conditions (`@skip`, `@include`) is kept, so that
//! requests that differ in other variables share one projection.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_graphql_parser::types::{
    Directive, ExecutableDocument, Field, OperationDefinition, Selection, SelectionSet,
};
use async_graphql_parser::{Pos, Positioned};
use async_graphql_value::{Name, Value as Literal};
use schemas::contract::Contract;
use schemas::filter::{VALUE_BYTES_MAX, VALUES_MAX};
use schemas::graph::{Graph, Requires, Role, RootField};
use schemas::problem::Code;
use serde_json::{Map, Value};

use super::compile::{self, invalid};
use super::error::Refused;
use super::interner::Interner;
use super::projection::Projection;
use super::request::{Bound, Request};
use super::validator::constant;
use super::variables::{self, Input, Variables, bad_input};

/// How many sets of conditions of one operation are kept compiled; another one takes the place of the oldest.
const VARIANTS_MAX: usize = 8;

/// A validated subscription.
pub(super) struct Operation {
    document: ExecutableDocument,
    name: Option<String>,
    /// The variables that conditions ask for, sorted.
    conditions: Vec<String>,
    payload_bytes_max: usize,
    /// The oldest first.
    variants: Mutex<Vec<Variant>>,
}

/// What is compiled for one set of conditions.
#[derive(Clone)]
struct Variant {
    values: Vec<bool>,
    compiled: Result<Shown, Refused>,
}

/// What is shown, and who may select it.
#[derive(Clone)]
struct Shown {
    projection: Arc<Projection>,
    requires: Arc<[Requires]>,
}

impl Operation {
    /// Checks what is particular to subscriptions: exactly one field, no condition on it (specification, 5.2.3.1).
    pub(super) fn new(
        graph: &Graph,
        document: ExecutableDocument,
        name: Option<String>,
        payload_bytes_max: usize,
    ) -> Result<Self, Refused> {
        let mut conditions = BTreeSet::new();
        for (_, operation) in document.operations.iter() {
            find_conditions(&operation.node.selection_set.node, &mut conditions);
        }
        for fragment in document.fragments.values() {
            find_conditions(&fragment.node.selection_set.node, &mut conditions);
        }
        let operation = Self {
            document,
            name,
            conditions: conditions.into_iter().collect(),
            payload_bytes_max,
            variants: Mutex::new(Vec::new()),
        };
        let (root, nodes) = operation.root(graph)?;
        let definitions = &operation.definition()?.variable_definitions;
        for node in nodes {
            for declared in &root.arguments {
                if let Some(given) = node.node.get_argument(&declared.argument.name) {
                    variables::check_position(&declared.argument, given, definitions)?;
                }
            }
        }
        Ok(operation)
    }

    /// Binds a request's variables. `allowed` says whether somebody may select what needs this.
    pub(super) fn bind(
        &self,
        contract: &Contract,
        interner: &Interner,
        request: &Request,
        allowed: &dyn Fn(&Requires) -> Result<(), Refused>,
    ) -> Result<Bound, Refused> {
        let graph = &contract.graph;
        let (root, nodes) = self.root(graph)?;
        let definition = self.definition()?;
        let variables = variables::variables(graph, &definition.variable_definitions, &request.variables)?;
        let shown = self.shown(graph, interner, root, &nodes, &variables)?;
        shown.requires.iter().try_for_each(allowed)?;
        let node = *nodes.first().ok_or_else(one_field)?;
        let arguments = Arguments::read(contract, root, node, &variables)?;
        // What a client moves on while it reads goes before what it once wrote into its operation, as `Last-Event-ID` does.
        let after = match request.extensions.get("after") {
            None | Some(Value::Null) => arguments.after,
            Some(Value::String(after)) => Some(after.clone()),
            Some(_) => return Err(bad_input("extensions.after must be a string", node.pos)),
        };
        Ok(Bound {
            stream: root.stream.clone(),
            filter: arguments.filter,
            after,
            projection: shown.projection,
            requires: shown.requires,
        })
    }

    /// What it holds in memory, roughly, for a document of this size.
    pub(super) fn memory(&self, document_bytes: usize) -> usize {
        let compiled = |variant: &Variant| match &variant.compiled {
            Ok(shown) => shown.projection.memory(),
            Err(refused) => refused.memory(),
        };
        let compiled: usize = self.variants().iter().map(compiled).sum();
        // A token of a document is some five bytes, and a node of the tree some two hundred.
        size_of::<Self>() + document_bytes * 40 + compiled
    }

    fn definition(&self) -> Result<&OperationDefinition, Refused> {
        find(&self.document, self.name.as_deref()).map(|found| &found.node)
    }

    /// The one field, and every place of the document that selects it.
    fn root<'d, 'g>(
        &'d self,
        graph: &'g Graph,
    ) -> Result<(&'g RootField, Vec<&'d Positioned<Field>>), Refused> {
        let mut nodes = Vec::new();
        self.root_fields(&self.definition()?.selection_set.node, &mut nodes)?;
        let first = *nodes.first().ok_or_else(one_field)?;
        let other = nodes.iter().find(|node| {
            node.node.response_key().node != first.node.response_key().node
                || node.node.name.node != first.node.name.node
                || !same_arguments(&node.node, &first.node)
        });
        if let Some(other) = other {
            return Err(invalid("a subscription selects exactly one field", other.pos));
        }
        let name = first.node.name.node.as_str();
        if name.starts_with("__") {
            return Err(invalid(
                "a subscription selects a field of Subscription",
                first.pos,
            ));
        }
        let root = graph.fields.get(name);
        let root = root.ok_or_else(|| invalid(format!("unknown field {name:?}"), first.pos))?;
        Ok((root, nodes))
    }

    fn root_fields<'d>(
        &'d self,
        set: &'d SelectionSet,
        nodes: &mut Vec<&'d Positioned<Field>>,
    ) -> Result<(), Refused> {
        for item in &set.items {
            if let Some(directive) = item
                .node
                .directives()
                .iter()
                .find(|directive| is_condition(directive))
            {
                return Err(invalid(
                    "the field of a subscription has no @skip or @include",
                    directive.pos,
                ));
            }
            match &item.node {
                Selection::Field(field) => nodes.push(field),
                Selection::InlineFragment(fragment) => {
                    self.root_fields(&fragment.node.selection_set.node, nodes)?;
                }
                Selection::FragmentSpread(spread) => {
                    if let Some(fragment) = self.document.fragments.get(&spread.node.fragment_name.node) {
                        self.root_fields(&fragment.node.selection_set.node, nodes)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// What is compiled for the conditions that these variables make true.
    fn shown(
        &self,
        graph: &Graph,
        interner: &Interner,
        root: &RootField,
        nodes: &[&Positioned<Field>],
        variables: &Variables,
    ) -> Result<Shown, Refused> {
        let is_true = |name: &str| matches!(variables.get(name), Some(Input::Boolean(true)));
        let values: Vec<bool> = self.conditions.iter().map(|name| is_true(name)).collect();
        let known = |variants: &[Variant]| {
            let mut variants = variants.iter();
            variants.find(|variant| variant.values == values).cloned()
        };
        if let Some(variant) = known(&self.variants()) {
            return variant.compiled;
        }
        // Not under the lock: others bind the same document meanwhile.
        let compiled = compile::compile(
            graph,
            interner,
            &self.document,
            root,
            nodes,
            &is_true,
            self.payload_bytes_max,
        )
        .map(|compiled| Shown {
            projection: Arc::new(compiled.projection),
            requires: compiled.requires.into(),
        });
        let mut variants = self.variants();
        if let Some(variant) = known(&variants) {
            return variant.compiled;
        }
        if variants.len() >= VARIANTS_MAX {
            variants.remove(0);
        }
        variants.push(Variant {
            values,
            compiled: compiled.clone(),
        });
        compiled
    }

    fn variants(&self) -> MutexGuard<'_, Vec<Variant>> {
        self.variants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The operation that would run.
pub(super) fn find<'d>(
    document: &'d ExecutableDocument,
    name: Option<&str>,
) -> Result<&'d Positioned<OperationDefinition>, Refused> {
    let mut operations = document.operations.iter();
    let found = match name {
        Some(name) => operations.find(|(have, _)| have.is_some_and(|have| have.as_str() == name)),
        None if operations.len() == 1 => operations.next(),
        None => return Err(unresolved("operationName must say which operation is meant")),
    };
    found
        .map(|(_, operation)| operation)
        .ok_or_else(|| unresolved("the document has no operation of this operationName"))
}

fn unresolved(message: &str) -> Refused {
    let mut refused = super::persisted::bad_request(message);
    for error in &mut refused.errors {
        error.extensions.code = "OPERATION_RESOLUTION_FAILURE".into();
    }
    refused
}

fn same_arguments(one: &Field, other: &Field) -> bool {
    let is_in = |(name, value): &(Positioned<Name>, Positioned<Literal>)| {
        other
            .get_argument(&name.node)
            .is_some_and(|have| have.node == value.node)
    };
    one.arguments.len() == other.arguments.len() && one.arguments.iter().all(is_in)
}

fn one_field() -> Refused {
    invalid("a subscription selects exactly one field", Pos::default())
}

fn is_condition(directive: &Positioned<Directive>) -> bool {
    matches!(directive.node.name.node.as_str(), "skip" | "include")
}

fn find_conditions(set: &SelectionSet, found: &mut BTreeSet<String>) {
    for item in &set.items {
        for directive in item
            .node
            .directives()
            .iter()
            .filter(|directive| is_condition(directive))
        {
            if let Some(Literal::Variable(name)) = directive.node.get_argument("if").map(|value| &value.node)
            {
                found.insert(name.to_string());
            }
        }
        match &item.node {
            Selection::Field(field) => find_conditions(&field.node.selection_set.node, found),
            Selection::InlineFragment(fragment) => find_conditions(&fragment.node.selection_set.node, found),
            Selection::FragmentSpread(_) => {}
        }
    }
}

/// What the arguments of the field say.
struct Arguments {
    filter: Map<String, Value>,
    after: Option<String>,
}

impl Arguments {
    fn read(
        contract: &Contract,
        root: &RootField,
        node: &Positioned<Field>,
        variables: &Variables,
    ) -> Result<Self, Refused> {
        let mut arguments = Self {
            filter: Map::new(),
            after: None,
        };
        for declared in &root.arguments {
            let argument = &declared.argument;
            let given = node.node.get_argument(&argument.name);
            let default = argument
                .default
                .as_deref()
                .and_then(constant)
                .map(async_graphql_value::ConstValue::into_value);
            let input = variables::argument(
                &contract.graph,
                argument,
                given,
                default.as_ref(),
                variables,
                node.pos,
            )?;
            let place = given.map_or(node.pos, |given| given.pos);
            match input {
                None | Some(Input::Null) => {}
                Some(input) => arguments.add(contract, root, &declared.role, &argument.name, input, place)?,
            }
        }
        Ok(arguments)
    }

    fn add(
        &mut self,
        contract: &Contract,
        root: &RootField,
        role: &Role,
        name: &str,
        input: Input,
        place: Pos,
    ) -> Result<(), Refused> {
        let unsupported = |what: &str| {
            let mut refused = Refused::ours(Code::UNSUPPORTED, format!("{what} is not part of this version"));
            refused.errors = refused.errors.into_iter().map(|error| error.at(place)).collect();
            refused
        };
        match (role, input) {
            (Role::Attribute { id, prefix }, input) => {
                let attribute = contract
                    .stream(root.stream.as_str())
                    .and_then(|stream| stream.attributes.get(usize::from(id.0)));
                let attribute = attribute
                    .ok_or_else(|| Refused::ours(Code::INTERNAL, Code::INTERNAL.title))?
                    .name
                    .to_string();
                let mut values = Vec::new();
                texts(&input, prefix.as_deref(), &mut values).map_err(|unfit| match unfit {
                    Unfit::Null => {
                        bad_input(format!("argument {name}: null is no value to filter by"), place)
                    }
                    Unfit::TooMany => {
                        filter(format!("argument {name}: more than {VALUES_MAX} values"), place)
                    }
                    Unfit::TooLong => filter(
                        format!("argument {name}: a value has more than {VALUE_BYTES_MAX} bytes"),
                        place,
                    ),
                })?;
                if values.is_empty() {
                    return Err(filter(
                        format!("argument {name}: an empty list matches nothing"),
                        place,
                    ));
                }
                let values = Value::Array(values.into_iter().map(Value::String).collect());
                if self.filter.insert(attribute, values).is_some() {
                    return Err(filter(
                        format!("argument {name}: another argument filters by the same attribute"),
                        place,
                    ));
                }
            }
            (Role::After, Input::Text(after)) => self.after = Some(after.to_string()),
            (Role::After, _) => return Err(bad_input(format!("argument {name} must be a string"), place)),
            (Role::Snapshot, Input::Boolean(false)) => {}
            (Role::Snapshot, _) => return Err(unsupported("snapshot")),
            (Role::Overflow, Input::Text(text)) if text.eq_ignore_ascii_case("close") => {}
            (Role::Overflow, _) => return Err(unsupported("overflow other than close")),
            (Role::Rate, _) => return Err(unsupported("rate")),
        }
        Ok(())
    }
}

fn filter(message: String, place: Pos) -> Refused {
    let mut refused = Refused::ours(Code::FILTER_INVALID, message);
    refused.errors = refused.errors.into_iter().map(|error| error.at(place)).collect();
    refused
}

/// Why an input is no set of values to filter by.
enum Unfit {
    Null,
    TooMany,
    TooLong,
}

/// Adds the values that are wanted, as attributes have them. What no filter takes is refused before it is copied: one
/// variable may stand in a list in thousands of places.
fn texts(input: &Input, prefix: Option<&str>, found: &mut Vec<String>) -> Result<(), Unfit> {
    let text = match input {
        Input::Text(text) => &**text,
        Input::Boolean(true) => "true",
        Input::Boolean(false) => "false",
        Input::List(inputs) => return inputs.iter().try_for_each(|input| texts(input, prefix, found)),
        Input::Null | Input::Other => return Err(Unfit::Null),
    };
    let prefix = prefix
        .filter(|prefix| !text.starts_with(prefix))
        .unwrap_or_default();
    if found.len() == VALUES_MAX {
        return Err(Unfit::TooMany);
    }
    if prefix.len() + text.len() > VALUE_BYTES_MAX {
        return Err(Unfit::TooLong);
    }
    found.push(format!("{prefix}{text}"));
    Ok(())
}
