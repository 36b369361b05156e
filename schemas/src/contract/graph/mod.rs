//! What GraphQL clients see of a contract, built from its SDL and its streams.
//!
//! Invariant: only what can be reached from a field of `Subscription` is looked at; of that, everything that could not be
//! served is a finding. It does not know operations.

mod argument;
mod beside;
mod event;
mod generate;
mod interface;
mod key;
mod object;
mod root;

use std::collections::BTreeMap;

use super::finding::{Findings, Place};
use super::sdl::{BUILT_IN, Sdl};
use super::stream::Declared;
use crate::docs;
use crate::graph::{Graph, Kind, Name, Requires, RootField, Scalar, Type, TypeRef};

/// Builds the graph. What is wrong is reported, and the graph then of no use.
pub(super) fn build(sdl: &Sdl, streams: &[Declared], findings: &Findings) -> Graph {
    let mut builder = Builder {
        sdl,
        streams: streams
            .iter()
            .map(|stream| (stream.name.value.as_str(), stream))
            .collect(),
        findings,
        types: BTreeMap::new(),
        fields: BTreeMap::new(),
        wanted: Vec::new(),
    };
    for name in BUILT_IN {
        builder.add(plain(name, None, Kind::Scalar(scalar(name))));
    }
    object::check_roots(&builder);
    match sdl.types.get("Subscription") {
        Some(node) => root::read(&mut builder, node),
        None => generate::fields(&mut builder),
    }
    while let Some((name, place)) = builder.wanted.pop() {
        object::resolve(&mut builder, &name, &place);
    }
    object::finish(&mut builder);
    let mut graph = Graph {
        types: builder.types,
        fields: builder.fields,
        sdl: String::new(),
    };
    graph.sdl = docs::sdl::subgraph(&graph);
    graph
}

/// A graph that grows from the fields of `Subscription` downwards.
struct Builder<'c> {
    sdl: &'c Sdl,
    streams: BTreeMap<&'c str, &'c Declared>,
    findings: &'c Findings,
    types: BTreeMap<Name, Type>,
    fields: BTreeMap<Name, RootField>,
    /// Types that are named and not built yet, with the place where they are named.
    wanted: Vec<(String, Place)>,
}

impl Builder<'_> {
    fn add(&mut self, ty: Type) {
        self.types.insert(ty.name.clone(), ty);
    }

    fn want(&mut self, name: &str, place: &Place) {
        if !self.types.contains_key(name) {
            self.wanted.push((name.to_owned(), place.clone()));
        }
    }

    /// Refuses a name that GraphQL keeps for itself (section 2.1.9).
    fn check_name(&self, name: &str, place: &Place) {
        if name.starts_with("__") {
            let message = format!("`{name}` begins with two underscores, which GraphQL keeps for itself");
            self.report(place, "name_reserved", message, "choose another name");
        }
    }

    fn report(&self, place: &Place, code: &'static str, message: impl Into<String>, mend: impl Into<String>) {
        self.findings.report(place, code, message, mend);
    }
}

/// A type with nothing beside it.
fn plain(name: &str, description: Option<&str>, kind: Kind) -> Type {
    Type {
        name: Name::from(name),
        description: description.map(str::to_owned),
        kind,
        requires: Requires::default(),
        directives: Vec::new(),
    }
}

/// How JSON becomes a value of the scalar of that name.
fn scalar(name: &str) -> Scalar {
    match name {
        "Int" => Scalar::Int,
        "Float" => Scalar::Float,
        "String" => Scalar::String,
        "Boolean" => Scalar::Boolean,
        "ID" => Scalar::Id,
        "DateTime" => Scalar::DateTime,
        "Long" => Scalar::Long,
        _ => Scalar::Any,
    }
}

fn named(name: &str, nullable: bool) -> TypeRef {
    TypeRef::Named {
        name: Name::from(name),
        nullable,
    }
}

/// A type as the SDL names it.
fn type_ref(ty: &async_graphql_parser::types::Type) -> TypeRef {
    use async_graphql_parser::types::BaseType;
    match &ty.base {
        BaseType::Named(name) => named(name, ty.nullable),
        BaseType::List(of) => TypeRef::List {
            of: Box::new(type_ref(of)),
            nullable: ty.nullable,
        },
    }
}
