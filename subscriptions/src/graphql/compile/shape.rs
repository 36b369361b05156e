//! One response key means one shape, whichever type the value has (specification, section 5.3.2, `SameResponseShape`).

use std::collections::HashMap;

use async_graphql_parser::Pos;
use schemas::graph;

use super::{Leaf, Refused, Selection, Shape, Source, Top, TopSource, Type, invalid};

impl Selection {
    /// Response keys and the types of what they show.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&str, Option<&Type>)> {
        self.fields.iter().map(|field| {
            let ty = match &field.source {
                Source::TypeName => None,
                Source::Itself(ty) | Source::Member { ty, .. } => Some(ty),
            };
            (field.key.name(), ty)
        })
    }
}

impl Top {
    pub(super) fn keys(&self) -> impl Iterator<Item = (&str, Option<&Type>)> {
        self.fields.iter().map(|field| {
            let ty = match &field.source {
                TopSource::TypeName => None,
                TopSource::Part { part, .. } => Some(&part.plan().ty),
            };
            (field.key.name(), ty)
        })
    }
}

/// Refuses keys that mean several shapes.
pub(super) fn same_shapes<'k>(
    keys: impl Iterator<Item = (&'k str, Option<&'k Type>)>,
    place: Pos,
) -> Result<(), Refused> {
    let mut seen: HashMap<&str, Option<&Type>> = HashMap::new();
    for (key, ty) in keys {
        let first = *seen.entry(key).or_insert(ty);
        if !same_shape(first, ty) {
            return Err(invalid(
                format!("fields {key:?} conflict: they have different types"),
                place,
            ));
        }
    }
    Ok(())
}

/// `None` is `__typename`'s.
fn same_shape(one: Option<&Type>, other: Option<&Type>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => same_type(one, other),
        // `__typename` is a string that is not null.
        (None, Some(ty)) | (Some(ty), None) => {
            let string = Leaf::Scalar(graph::Scalar::String);
            !ty.nullable && matches!(&ty.shape, Shape::Leaf { leaf, .. } if *leaf == string)
        }
    }
}

fn same_type(one: &Type, other: &Type) -> bool {
    one.nullable == other.nullable
        && match (&one.shape, &other.shape) {
            (Shape::Leaf { leaf: one, .. }, Shape::Leaf { leaf: other, .. }) => one == other,
            (Shape::List(one), Shape::List(other)) => same_type(one, other),
            (Shape::Object(_) | Shape::OneOf { .. }, Shape::Object(_) | Shape::OneOf { .. }) => true,
            _ => false,
        }
}
