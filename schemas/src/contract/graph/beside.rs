//! What stands beside types and fields: who may select them, why they should not be used, what composition reads.
//!
//! Invariant: a scope is never lost on the way: what cannot be read of `@requiresScopes` was refused before. It does not
//! know what it stands beside.

use async_graphql_value::ConstValue;

use super::super::sdl::{Directive, directive};
use crate::docs::sdl::quoted;
use crate::graph::Requires;

/// Federation's directives that are handed on to composition. `@key` has its own rule: no entity is resolved here.
const HANDED_ON: [&str; 7] = [
    "authenticated",
    "inaccessible",
    "key",
    "requiresScopes",
    "shareable",
    "specifiedBy",
    "tag",
];

/// Who may select what these stand beside.
pub(super) fn requires(directives: &[Directive]) -> Requires {
    let list = |value: &ConstValue| match value {
        ConstValue::List(values) => values.clone(),
        value => vec![value.clone()],
    };
    let text = |value: &ConstValue| match value {
        ConstValue::String(text) => Some(text.as_str().into()),
        _ => None,
    };
    let scopes = directive(directives, "requiresScopes").and_then(|one| one.argument("scopes"));
    Requires {
        authenticated: directive(directives, "authenticated").is_some(),
        scopes: scopes
            .map(|scopes| list(&scopes.value))
            .unwrap_or_default()
            .iter()
            .map(|all| list(all).iter().filter_map(text).collect())
            .collect(),
    }
}

/// Why what these stand beside should not be used any more.
pub(super) fn deprecated(directives: &[Directive]) -> Option<String> {
    let reason = directive(directives, "deprecated")?.text("reason");
    Some(reason.unwrap_or("No longer supported").to_owned())
}

/// What composition reads, as canonical text.
pub(super) fn handed_on(directives: &[Directive]) -> Vec<String> {
    let mut texts: Vec<String> = directives
        .iter()
        .filter(|one| HANDED_ON.contains(&one.name.as_str()))
        .map(write)
        .collect();
    texts.sort();
    texts.dedup();
    texts
}

/// The same beside an argument, which keeps its `@deprecated` as text.
pub(super) fn handed_on_of_argument(directives: &[Directive]) -> Vec<String> {
    let mut texts = handed_on(directives);
    if let Some(reason) = deprecated(directives) {
        texts.push(format!("@deprecated(reason: {})", quoted(&reason)));
    }
    texts
}

fn write(one: &Directive) -> String {
    let mut arguments: Vec<String> = one
        .arguments
        .iter()
        .filter(|(name, _)| name.value != "resolvable")
        .map(|(name, value)| format!("{}: {}", name.value, value_text(&value.value)))
        .collect();
    if one.name == "key" {
        arguments.push("resolvable: false".to_owned());
    }
    arguments.sort();
    if arguments.is_empty() {
        format!("@{}", one.name)
    } else {
        format!("@{}({})", one.name, arguments.join(", "))
    }
}

/// A value as GraphQL text.
pub(super) fn value_text(value: &ConstValue) -> String {
    match value {
        ConstValue::String(text) => quoted(text),
        ConstValue::List(values) => {
            let values: Vec<String> = values.iter().map(value_text).collect();
            format!("[{}]", values.join(", "))
        }
        value => value.to_string(),
    }
}
