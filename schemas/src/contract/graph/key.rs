//! The fields of `@key`: what a router knows an entity by.
//!
//! Invariant: every field of a key exists, so that composition finds what it is promised. It does not resolve entities.

use async_graphql_parser::types::{DocumentOperations, Selection, SelectionSet};

use super::super::finding::Place;
use super::super::nearest::nearest;
use super::super::sdl::{Shape, TypeNode, base_name};
use super::Builder;

/// Checks the keys of a type.
pub(super) fn check(builder: &Builder<'_>, name: &str, node: &TypeNode) {
    for key in node.directives.iter().filter(|one| one.name == "key") {
        let (Some(text), Some(written)) = (key.text("fields"), key.argument("fields")) else {
            continue;
        };
        let parsed = async_graphql_parser::parse_query(format!("{{ {text} }}")).ok();
        let selection = parsed.and_then(|document| match document.operations {
            DocumentOperations::Single(operation) => Some(operation.node.selection_set.node),
            DocumentOperations::Multiple(_) => None,
        });
        match selection {
            Some(selection) => check_selection(builder, name, node, &selection, &written.place),
            None => {
                let message = format!("{text:?} is no list of fields");
                let mend = "name the fields with spaces between them: \"id\", \"system { code } value\"";
                builder.report(&written.place, "key_invalid", message, mend);
            }
        }
    }
}

fn check_selection(
    builder: &Builder<'_>,
    name: &str,
    node: &TypeNode,
    selection: &SelectionSet,
    place: &Place,
) {
    let Shape::Object { fields, .. } = &node.shape else {
        return;
    };
    for item in &selection.items {
        let Selection::Field(selected) = &item.node else {
            builder.report(place, "key_invalid", "a key has fields only", "name the fields");
            continue;
        };
        let wanted = selected.node.name.node.as_str();
        let Some(field) = fields.iter().find(|field| field.name == wanted) else {
            let message = format!("the key names `{wanted}`, which `{name}` does not have");
            let mend = match nearest(wanted, fields.iter().map(|field| field.name.as_str())) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("add the field to `{name}`, or name one that it has"),
            };
            builder.report(place, "key_field_unknown", message, mend);
            continue;
        };
        let base = base_name(&field.ty);
        if let Some(below) = builder.sdl.types.get(base) {
            check_selection(builder, base, below, &selected.node.selection_set.node, place);
        }
    }
}
