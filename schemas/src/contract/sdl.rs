//! The types of the contract's `*.graphql` files: federation v2 SDL, read for the shape of the data.
//!
//! Invariant: every type that a field names exists once. Directives of federation and of others are tolerated; of our own
//! only `@json(pointer:)` matters here, since it says where in the document a field is found. It does not know streams.

mod canonical;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use async_graphql_parser::types::{
    BaseType, ConstDirective, FieldDefinition, InputValueDefinition, SchemaDefinition, ServiceDocument, Type,
    TypeDefinition, TypeKind, TypeSystemDefinition,
};
use async_graphql_parser::{Pos, Positioned};
use async_graphql_value::ConstValue;

use crate::project::Pointer;

use super::finding::{Findings, Place};
use super::nearest::nearest;

pub(super) use walk::{End, Missing, written};

const BUILT_IN: [&str; 5] = ["String", "Int", "Float", "Boolean", "ID"];

/// The types of all files, extensions merged.
#[derive(Debug, Default)]
pub(super) struct Sdl {
    types: BTreeMap<String, TypeNode>,
    /// Names that `@link(import:)` brings in.
    imported: BTreeSet<String>,
}

#[derive(Debug)]
struct TypeNode {
    /// Where it is defined; `None` as long as only extensions were seen.
    defined: Option<Place>,
    shape: Shape,
    /// Directives as canonical text.
    directives: Vec<String>,
}

#[derive(Debug)]
enum Shape {
    Scalar,
    Enum {
        values: Vec<String>,
    },
    /// Objects and interfaces: what can be walked by field.
    Object {
        interface: bool,
        implements: Vec<String>,
        fields: Vec<Field>,
    },
    Union {
        members: Vec<(String, Place)>,
    },
    Input {
        fields: Vec<String>,
        types: Vec<(String, Place)>,
    },
}

#[derive(Debug)]
struct Field {
    name: String,
    place: Place,
    ty: Type,
    /// Where it is found in its object's JSON: its name, or `@json(pointer:)`.
    path: Vec<String>,
    /// The names of its arguments' types.
    argument_types: Vec<(String, Place)>,
    /// Arguments and directives as canonical text.
    canonical: String,
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
        let place = |pos: Pos| Place {
            file: file.to_path_buf(),
            line: pos.line,
            column: pos.column,
        };
        match async_graphql_parser::parse_schema(text) {
            Ok(document) => self.add(document, &place, findings),
            Err(error) => {
                let at = error.positions().next().unwrap_or(Pos { line: 1, column: 1 });
                let message = error.to_string();
                let short = message.rsplit("= ").next().unwrap_or(&message).trim();
                let mend = "write it as GraphQL type definitions (https://spec.graphql.org, section 3)";
                findings.report(&place(at), "sdl_syntax", format!("not valid SDL: {short}"), mend);
            }
        }
    }

    fn add(&mut self, document: ServiceDocument, place: &dyn Fn(Pos) -> Place, findings: &Findings) {
        for definition in document.definitions {
            match definition {
                TypeSystemDefinition::Schema(schema) => self.link(&schema.node),
                TypeSystemDefinition::Type(ty) => self.add_type(ty.node, place, findings),
                TypeSystemDefinition::Directive(_) => {}
            }
        }
    }

    /// Remembers the names that `@link(url:, import: [...])` brings in: they are defined elsewhere.
    fn link(&mut self, schema: &SchemaDefinition) {
        let links = schema
            .directives
            .iter()
            .filter(|directive| directive.node.name.node == "link");
        for link in links {
            let Some(ConstValue::List(names)) = link.node.get_argument("import").map(|value| &value.node)
            else {
                continue;
            };
            for name in names {
                match name {
                    ConstValue::String(name) => self.imported.insert(name.clone()),
                    ConstValue::Object(renamed) => {
                        let name = renamed.get("as").or_else(|| renamed.get("name"));
                        let Some(ConstValue::String(name)) = name else {
                            continue;
                        };
                        self.imported.insert(name.clone())
                    }
                    _ => false,
                };
            }
        }
    }

    fn add_type(&mut self, ty: TypeDefinition, place: &dyn Fn(Pos) -> Place, findings: &Findings) {
        let at = place(ty.name.pos);
        let name = ty.name.node.to_string();
        let shape = shape(ty.kind, place, findings);
        let directives: Vec<String> = ty
            .directives
            .iter()
            .map(|d| canonical::directive(&d.node))
            .collect();
        let Some(known) = self.types.get_mut(&name) else {
            let defined = (!ty.extend).then_some(at);
            self.types.insert(
                name,
                TypeNode {
                    defined,
                    shape,
                    directives,
                },
            );
            return;
        };
        if !ty.extend {
            if let Some(first) = &known.defined {
                let message = format!("type `{name}` is defined twice; first at {first}");
                findings.report(
                    &at,
                    "sdl_duplicate",
                    message,
                    format!("write `extend type {name}`, or rename it"),
                );
                return;
            }
            known.defined = Some(at.clone());
        }
        known.directives.extend(directives);
        if !known.shape.merge(shape) {
            let message = format!("`{name}` is extended as another kind of type");
            findings.report(&at, "sdl_extension", message, "extend it as the kind that it is");
        }
    }

    /// What can only be told once all files are read: names that do not exist, fields that exist twice.
    pub(super) fn check(&self, findings: &Findings) {
        for node in self.types.values() {
            match &node.shape {
                Shape::Scalar | Shape::Enum { .. } => {}
                Shape::Union { members } => {
                    members
                        .iter()
                        .for_each(|(name, at)| self.check_name(name, at, findings));
                }
                Shape::Input { types, .. } => {
                    types
                        .iter()
                        .for_each(|(name, at)| self.check_name(name, at, findings));
                }
                Shape::Object { fields, .. } => {
                    let mut seen = BTreeSet::new();
                    for field in fields {
                        if !seen.insert(&field.name) {
                            let message = format!("field `{}` is defined twice", field.name);
                            findings.report(&field.place, "sdl_duplicate", message, "remove one of them");
                        }
                        self.check_name(base_name(&field.ty), &field.place, findings);
                        for (name, at) in &field.argument_types {
                            self.check_name(name, at, findings);
                        }
                    }
                }
            }
        }
    }

    fn check_name(&self, name: &str, at: &Place, findings: &Findings) {
        let federations_own = name.starts_with('_') || name.contains("__") || self.imported.contains(name);
        if self.types.contains_key(name) || BUILT_IN.contains(&name) || federations_own {
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

impl Shape {
    /// Adds an extension's parts; false if it is of another kind.
    fn merge(&mut self, other: Self) -> bool {
        match (self, other) {
            (Self::Scalar, Self::Scalar) => {}
            (Self::Enum { values }, Self::Enum { values: more }) => values.extend(more),
            (Self::Union { members }, Self::Union { members: more }) => members.extend(more),
            (
                Self::Input { fields, types },
                Self::Input {
                    fields: more,
                    types: more_types,
                },
            ) => {
                fields.extend(more);
                types.extend(more_types);
            }
            (
                Self::Object {
                    interface,
                    implements,
                    fields,
                },
                Self::Object {
                    interface: other,
                    implements: more,
                    fields: more_fields,
                },
            ) if *interface == other => {
                implements.extend(more);
                fields.extend(more_fields);
            }
            _ => return false,
        }
        true
    }
}

fn shape(kind: TypeKind, place: &dyn Fn(Pos) -> Place, findings: &Findings) -> Shape {
    let names = |names: Vec<Positioned<async_graphql_value::Name>>| {
        names
            .into_iter()
            .map(|name| name.node.to_string())
            .collect::<Vec<_>>()
    };
    let fields = |fields: Vec<Positioned<FieldDefinition>>| {
        fields
            .into_iter()
            .map(|field| read_field(field.node, place, findings))
            .collect::<Vec<_>>()
    };
    match kind {
        TypeKind::Scalar => Shape::Scalar,
        TypeKind::Enum(ty) => {
            let value = |value: &Positioned<async_graphql_parser::types::EnumValueDefinition>| {
                canonical::with_directives(value.node.value.node.to_string(), &value.node.directives)
            };
            Shape::Enum {
                values: ty.values.iter().map(value).collect(),
            }
        }
        TypeKind::Object(ty) => Shape::Object {
            interface: false,
            implements: names(ty.implements),
            fields: fields(ty.fields),
        },
        TypeKind::Interface(ty) => Shape::Object {
            interface: true,
            implements: names(ty.implements),
            fields: fields(ty.fields),
        },
        TypeKind::Union(ty) => {
            let member =
                |name: Positioned<async_graphql_value::Name>| (name.node.to_string(), place(name.pos));
            Shape::Union {
                members: ty.members.into_iter().map(member).collect(),
            }
        }
        TypeKind::InputObject(ty) => Shape::Input {
            fields: ty
                .fields
                .iter()
                .map(|field| canonical::input(&field.node))
                .collect(),
            types: ty
                .fields
                .iter()
                .map(|field| input_type(&field.node, place))
                .collect(),
        },
    }
}

fn read_field(field: FieldDefinition, place: &dyn Fn(Pos) -> Place, findings: &Findings) -> Field {
    let path = json_path(&field.directives, place, findings);
    Field {
        path: path.unwrap_or_else(|| vec![field.name.node.to_string()]),
        argument_types: field
            .arguments
            .iter()
            .map(|argument| input_type(&argument.node, place))
            .collect(),
        canonical: canonical::field(&field),
        name: field.name.node.to_string(),
        place: place(field.name.pos),
        ty: field.ty.node,
    }
}

/// The path that `@json(pointer:)` gives, if there is one that can be read.
fn json_path(
    directives: &[Positioned<ConstDirective>],
    place: &dyn Fn(Pos) -> Place,
    findings: &Findings,
) -> Option<Vec<String>> {
    let json = directives
        .iter()
        .find(|directive| directive.node.name.node == "json")?;
    let written = json.node.get_argument("pointer")?;
    let parsed = match &written.node {
        ConstValue::String(text) => Pointer::parse(text).map_err(|error| error.to_string()),
        _ => Err("`pointer` is no string".to_owned()),
    };
    match parsed {
        Ok(pointer) => Some(pointer.segments().map(str::to_owned).collect()),
        Err(message) => {
            findings.report(
                &place(written.pos),
                "pointer_invalid",
                message,
                "write a JSON pointer: \"/a/b\"",
            );
            None
        }
    }
}

fn input_type(input: &InputValueDefinition, place: &dyn Fn(Pos) -> Place) -> (String, Place) {
    (base_name(&input.ty.node).to_owned(), place(input.ty.pos))
}

/// The name inside all lists.
fn base_name(ty: &Type) -> &str {
    match &ty.base {
        BaseType::Named(name) => name.as_str(),
        BaseType::List(inner) => base_name(inner),
    }
}
