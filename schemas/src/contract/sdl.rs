//! The types of the contract's `*.graphql` files: federation v2 SDL, all files together.
//!
//! Invariant: every type that a field names exists once. Directives are kept as they are written; what they mean is read
//! elsewhere. It does not know streams.

mod canonical;
mod node;
mod walk;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use async_graphql_parser::Pos;
use async_graphql_parser::types::{
    BaseType, ConstDirective, SchemaDefinition, ServiceDocument, Type, TypeDefinition, TypeSystemDefinition,
};
use async_graphql_value::ConstValue;

use super::finding::{Findings, Place};
use super::nearest::nearest;

use node::Reader;
pub(super) use node::{Directive, EnumValue, Field, Input, Shape, TypeNode, directive};
pub(super) use walk::{End, Missing, written};

/// GraphQL's own scalars.
pub(super) const BUILT_IN: [&str; 5] = ["String", "Int", "Float", "Boolean", "ID"];

/// What is there without being defined. `Emit` is the type of an argument of `@stream` and of nothing else.
pub(super) const PROVIDED: [&str; 5] = ["ChangeKind", "DateTime", "Emit", "JSON", "Long"];

/// The types of all files, extensions merged.
#[derive(Debug, Default)]
pub(super) struct Sdl {
    pub(super) types: BTreeMap<String, TypeNode>,
    /// Names that `@link(import:)` brings in.
    imported: BTreeSet<String>,
    /// What federation's directives are called here by renamed imports: their own names by those.
    renamed: BTreeMap<String, String>,
    /// What stands before federation's names that are not imported (`@link(as:)`).
    prefixes: BTreeSet<String>,
    /// Directives that are defined here.
    directives: BTreeSet<String>,
}

impl Sdl {
    /// Adds the types of one file.
    pub(super) fn read(&mut self, file: &Path, text: &str, findings: &Findings) {
        let is_empty = text
            .lines()
            .map(str::trim)
            .all(|line| line.is_empty() || line.starts_with('#'));
        if is_empty {
            return;
        }
        let reader = Reader { file, findings };
        match async_graphql_parser::parse_schema(text) {
            Ok(document) => self.add(document, &reader),
            Err(error) => {
                let at = error.positions().next().unwrap_or(Pos { line: 1, column: 1 });
                let message = error.to_string();
                let short = message.rsplit("= ").next().unwrap_or(&message).trim();
                let mend = "write it as GraphQL type definitions (https://spec.graphql.org, section 3)";
                let message = format!("not valid SDL: {short}");
                findings.report(&reader.place(at), "sdl_syntax", message, mend);
            }
        }
    }

    fn add(&mut self, document: ServiceDocument, reader: &Reader<'_>) {
        for definition in document.definitions {
            match definition {
                TypeSystemDefinition::Schema(schema) => self.add_schema(&schema.node, reader),
                TypeSystemDefinition::Type(ty) => self.add_type(ty.node, reader),
                TypeSystemDefinition::Directive(directive) => {
                    self.directives.insert(directive.node.name.node.to_string());
                }
            }
        }
    }

    fn add_schema(&mut self, schema: &SchemaDefinition, reader: &Reader<'_>) {
        for directive in &schema.directives {
            if directive.node.name.node == "link" {
                self.link(&directive.node);
            }
        }
        let roots = [
            ("Query", &schema.query),
            ("Mutation", &schema.mutation),
            ("Subscription", &schema.subscription),
        ];
        for (usual, root) in roots {
            let Some(name) = root.as_ref().filter(|name| name.node != usual) else {
                continue;
            };
            let message = format!("`{}` stands for `{usual}`", name.node);
            let mend = format!("call the type `{usual}`");
            reader
                .findings
                .report(&reader.place(name.pos), "sdl_root_renamed", message, mend);
        }
    }

    /// Remembers the names that `@link(url:, import: [...])` brings in: they are defined elsewhere.
    fn link(&mut self, link: &ConstDirective) {
        let text = |name: &str| match link.get_argument(name).map(|value| &value.node) {
            Some(ConstValue::String(text)) => Some(text.clone()),
            _ => None,
        };
        let is_federation = text("url").is_some_and(|url| url.contains("/federation/"));
        if let (true, Some(prefix)) = (is_federation, text("as")) {
            self.prefixes.insert(format!("{prefix}__"));
        }
        let Some(ConstValue::List(names)) = link.get_argument("import").map(|value| &value.node) else {
            return;
        };
        for name in names {
            match name {
                ConstValue::String(name) => {
                    self.imported.insert(name.clone());
                }
                ConstValue::Object(renamed) => {
                    let member = |name: &str| match renamed.get(name) {
                        Some(ConstValue::String(name)) => Some(name.clone()),
                        _ => None,
                    };
                    let Some(own) = member("name") else { continue };
                    let here = member("as").unwrap_or_else(|| own.clone());
                    if let (true, Some(own), Some(here)) =
                        (is_federation, own.strip_prefix('@'), here.strip_prefix('@'))
                    {
                        self.renamed.insert(here.to_owned(), own.to_owned());
                    }
                    self.imported.insert(here);
                }
                _ => {}
            }
        }
    }

    fn add_type(&mut self, ty: TypeDefinition, reader: &Reader<'_>) {
        let name = ty.name.node.to_string();
        let node = reader.node(ty);
        let Some(known) = self.types.get_mut(&name) else {
            self.types.insert(name, node);
            return;
        };
        if let Some(at) = node.defined {
            if let Some(first) = &known.defined {
                let message = format!("type `{name}` is defined twice; first at {first}");
                let mend = format!("write `extend type {name}`, or rename it");
                reader.findings.report(&at, "sdl_duplicate", message, mend);
                return;
            }
            known.defined = Some(at);
            known.description = node.description;
        }
        known.directives.extend(node.directives);
        if !known.shape.merge(node.shape) {
            let message = format!("`{name}` is extended as another kind of type");
            let mend = "extend it as the kind that it is";
            reader
                .findings
                .report(&node.place, "sdl_extension", message, mend);
        }
    }

    /// Calls federation's directives by their own names, whatever the files import them as. Once all files are read.
    pub(super) fn settle(&mut self) {
        let (renamed, prefixes) = (&self.renamed, &self.prefixes);
        let own = |name: &str| {
            let plain = || name.strip_prefix("federation__");
            let prefixed = || {
                prefixes
                    .iter()
                    .find_map(|prefix| name.strip_prefix(prefix.as_str()))
            };
            let unprefixed = || plain().or_else(prefixed).map(str::to_owned);
            renamed.get(name).cloned().or_else(unprefixed)
        };
        for directive in self.types.values_mut().flat_map(TypeNode::directives_mut) {
            if let Some(own) = own(&directive.name) {
                directive.name = own;
            }
        }
    }

    /// What can only be told once all files are read: names that do not exist, fields that exist twice.
    pub(super) fn check(&self, findings: &Findings) {
        for node in self.types.values() {
            match &node.shape {
                Shape::Scalar | Shape::Enum { .. } => {}
                Shape::Union { members } => {
                    for member in members {
                        self.check_name(&member.value, &member.place, findings);
                    }
                }
                Shape::Input { fields } => self.check_inputs(fields, findings),
                Shape::Object {
                    implements, fields, ..
                } => {
                    for interface in implements {
                        self.check_name(&interface.value, &interface.place, findings);
                    }
                    let mut seen = BTreeSet::new();
                    for field in fields {
                        if !seen.insert(&field.name) {
                            let message = format!("field `{}` is defined twice", field.name);
                            findings.report(&field.place, "sdl_duplicate", message, "remove one of them");
                        }
                        self.check_name(base_name(&field.ty), &field.place, findings);
                        self.check_inputs(&field.arguments, findings);
                    }
                }
            }
        }
    }

    fn check_inputs(&self, inputs: &[Input], findings: &Findings) {
        for input in inputs {
            self.check_name(base_name(&input.ty.value), &input.ty.place, findings);
        }
    }

    fn check_name(&self, name: &str, at: &Place, findings: &Findings) {
        let federations_own = name.starts_with('_') || name.contains("__") || self.imported.contains(name);
        let is_known = self.types.contains_key(name) || BUILT_IN.contains(&name) || PROVIDED.contains(&name);
        if is_known || federations_own {
            return;
        }
        let known = self.types.keys().map(String::as_str).chain(BUILT_IN);
        let mend = match nearest(name, known) {
            Some(known) => format!("did you mean `{known}`?"),
            None => format!("define it: `type {name} {{ ... }}`, or `scalar {name}`"),
        };
        findings.report(
            at,
            "sdl_type_unknown",
            format!("type `{name}` is not defined"),
            mend,
        );
    }

    /// Whether events can have data of this type; else how to mend it.
    pub(super) fn data_type(&self, name: &str) -> Result<(), String> {
        let walkable = |node: &TypeNode| matches!(node.shape, Shape::Object { .. } | Shape::Union { .. });
        if matches!(name, "Query" | "Mutation" | "Subscription") {
            return Err("name a type of data: operations begin there".to_owned());
        }
        if self
            .types
            .get(name)
            .is_some_and(|node| directive(&node.directives, "event").is_some())
        {
            return Err("name the type of its `data`: this one is an event".to_owned());
        }
        match self.types.get(name) {
            Some(node) if walkable(node) => Ok(()),
            Some(_) => Err("name an object type, an interface or a union".to_owned()),
            None => {
                let known = self
                    .types
                    .iter()
                    .filter(|(_, node)| walkable(node))
                    .map(|(name, _)| name.as_str());
                match nearest(name, known) {
                    Some(known) => Err(format!("did you mean \"{known}\"?")),
                    None => Err(format!(
                        "define `type {name} {{ ... }}` in a .graphql file of the folder"
                    )),
                }
            }
        }
    }
}

/// The name inside all lists.
pub(super) fn base_name(ty: &Type) -> &str {
    match &ty.base {
        BaseType::Named(name) => name.as_str(),
        BaseType::List(inner) => base_name(inner),
    }
}
