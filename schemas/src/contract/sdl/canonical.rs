//! SDL as canonical text: what is digested into the contract's revision.
//!
//! Invariant: white space, comments, descriptions and the order of definitions, of fields and of files leave the text as
//! it is; everything else changes it. It does not know what the text is for.

use std::fmt::Write;

use async_graphql_parser::Positioned;
use async_graphql_parser::types::{ConstDirective, FieldDefinition, InputValueDefinition};

use super::{Sdl, Shape};

impl Sdl {
    /// All types as canonical text.
    pub(in crate::contract) fn canonical(&self) -> String {
        let mut text = String::new();
        for (name, node) in &self.types {
            let mut parts: Vec<String> = node.directives.clone();
            let kind = match &node.shape {
                Shape::Scalar => "scalar",
                Shape::Enum { values } => {
                    parts.extend(values.iter().cloned());
                    "enum"
                }
                Shape::Object {
                    interface,
                    implements,
                    fields,
                } => {
                    parts.extend(implements.iter().map(|name| format!("implements {name}")));
                    parts.extend(
                        fields
                            .iter()
                            .map(|field| format!("{}{}", field.name, field.canonical)),
                    );
                    if *interface { "interface" } else { "type" }
                }
                Shape::Union { members } => {
                    parts.extend(members.iter().map(|(name, _)| name.clone()));
                    "union"
                }
                Shape::Input { fields, .. } => {
                    parts.extend(fields.iter().cloned());
                    "input"
                }
            };
            parts.sort();
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{kind} {name} {{{}}}", parts.join(";"));
        }
        text
    }
}

/// A field without its name: `(arguments):Type @directives`.
pub(super) fn field(field: &FieldDefinition) -> String {
    let mut arguments: Vec<String> = field
        .arguments
        .iter()
        .map(|argument| input(&argument.node))
        .collect();
    arguments.sort();
    with_directives(
        format!("({}):{}", arguments.join(","), field.ty.node),
        &field.directives,
    )
}

/// An argument or input field.
pub(super) fn input(input: &InputValueDefinition) -> String {
    let default = input
        .default_value
        .as_ref()
        .map(|value| format!("={}", value.node))
        .unwrap_or_default();
    with_directives(
        format!("{}:{}{default}", input.name.node, input.ty.node),
        &input.directives,
    )
}

/// One directive with its arguments.
pub(super) fn directive(directive: &ConstDirective) -> String {
    let mut arguments: Vec<String> = directive
        .arguments
        .iter()
        .map(|(name, value)| format!("{}:{}", name.node, value.node))
        .collect();
    arguments.sort();
    format!("@{}({})", directive.name.node, arguments.join(","))
}

/// The text, followed by the directives.
pub(super) fn with_directives(mut text: String, directives: &[Positioned<ConstDirective>]) -> String {
    let mut all: Vec<String> = directives.iter().map(|one| directive(&one.node)).collect();
    all.sort();
    for one in all {
        text.push(' ');
        text.push_str(&one);
    }
    text
}
