//! SDL as canonical text: what is digested into the contract's revision.
//!
//! Invariant: white space, comments, descriptions and the order of definitions, of fields and of files leave the text as
//! it is; everything else changes it. It does not know what the text is for.

use std::fmt::Write;

use super::Sdl;
use super::node::{Directive, Field, Input, Shape};

impl Sdl {
    /// All types as canonical text.
    pub(in crate::contract) fn canonical(&self) -> String {
        let mut text = String::new();
        for (name, node) in &self.types {
            let mut parts: Vec<String> = node.directives.iter().map(directive).collect();
            let kind = match &node.shape {
                Shape::Scalar => "scalar",
                Shape::Enum { values } => {
                    let values = values.iter();
                    parts.extend(values.map(|value| with_directives(value.name.clone(), &value.directives)));
                    "enum"
                }
                Shape::Object {
                    interface,
                    implements,
                    fields,
                } => {
                    parts.extend(implements.iter().map(|name| format!("implements {}", name.value)));
                    parts.extend(fields.iter().map(field));
                    if *interface { "interface" } else { "type" }
                }
                Shape::Union { members } => {
                    parts.extend(members.iter().map(|name| name.value.clone()));
                    "union"
                }
                Shape::Input { fields } => {
                    parts.extend(fields.iter().map(input));
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

/// A field: `name(arguments):Type @directives`.
fn field(field: &Field) -> String {
    let mut arguments: Vec<String> = field.arguments.iter().map(input).collect();
    arguments.sort();
    with_directives(
        format!("{}({}):{}", field.name, arguments.join(","), field.ty),
        &field.directives,
    )
}

/// An argument or input field.
fn input(input: &Input) -> String {
    let default = input
        .default
        .as_ref()
        .map(|value| format!("={}", value.value))
        .unwrap_or_default();
    with_directives(
        format!("{}:{}{default}", input.name, input.ty.value),
        &input.directives,
    )
}

/// One directive with its arguments.
fn directive(directive: &Directive) -> String {
    let mut arguments: Vec<String> = directive
        .arguments
        .iter()
        .map(|(name, value)| format!("{}:{}", name.value, value.value))
        .collect();
    arguments.sort();
    format!("@{}({})", directive.name, arguments.join(","))
}

/// The text, followed by the directives.
fn with_directives(mut text: String, directives: &[Directive]) -> String {
    let mut all: Vec<String> = directives.iter().map(directive).collect();
    all.sort();
    for one in all {
        text.push(' ');
        text.push_str(&one);
    }
    text
}
