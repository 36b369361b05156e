//! Whether objects keep the word of the interfaces that they implement (GraphQL, section 3.7).
//!
//! Invariant: a field that is selected through an interface exists on every object that may be found, has a type that
//! fits, is read from the same place, and asks as much of its reader. It does not know which of the types are served.

use async_graphql_parser::types::{BaseType, Type};

use super::super::sdl::{Field, Sdl, Shape, TypeNode, directive};
use super::{Builder, beside};
use crate::graph::Requires;

/// Checks one type against the interfaces that it names.
pub(super) fn check(builder: &Builder<'_>, name: &str, node: &TypeNode) {
    let Shape::Object {
        implements, fields, ..
    } = &node.shape
    else {
        return;
    };
    for (place, named) in implements.iter().enumerate() {
        let own =
            |message: String, mend: String| builder.report(&named.place, "sdl_interface", message, mend);
        let interface = &named.value;
        if implements
            .iter()
            .take(place)
            .any(|other| other.value == *interface)
        {
            own(
                format!("`{name}` implements `{interface}` twice"),
                "remove one of them".to_owned(),
            );
            continue;
        }
        let shape = builder.sdl.types.get(interface).map(|node| &node.shape);
        let Some(Shape::Object {
            interface: true,
            implements: further,
            fields: promised,
        }) = shape
        else {
            if shape.is_some() {
                own(
                    format!("`{interface}` is no interface"),
                    "name an interface".to_owned(),
                );
            }
            continue;
        };
        if interface == name {
            own(format!("`{name}` implements itself"), "remove it".to_owned());
            continue;
        }
        for one in further {
            if one.value != name && !implements.iter().any(|other| other.value == one.value) {
                own(
                    format!(
                        "`{name}` implements `{interface}`, and not its interface `{}`",
                        one.value
                    ),
                    format!("add `& {}`", one.value),
                );
            }
        }
        for promise in promised {
            match fields.iter().find(|field| field.name == promise.name) {
                Some(field) => check_field(builder, name, interface, field, promise),
                None => own(
                    format!(
                        "`{name}` has no field `{}`, as `{interface}` promises",
                        promise.name
                    ),
                    format!("add `{}: {}`", promise.name, promise.ty),
                ),
            }
        }
    }
}

fn check_field(builder: &Builder<'_>, name: &str, interface: &str, field: &Field, promise: &Field) {
    if !fits(builder.sdl, &field.ty, &promise.ty) {
        let message = format!(
            "`{name}.{}` is `{}`, and `{interface}` promises `{}`",
            field.name, field.ty, promise.ty
        );
        let mend = format!("write `{}: {}`", field.name, promise.ty);
        builder.report(&field.place, "sdl_interface", message, mend);
    }
    let prefix = |field: &Field| {
        let json = directive(&field.directives, "json")?;
        json.text("stripPrefix").map(str::to_owned)
    };
    if field.pointer != promise.pointer || prefix(field) != prefix(promise) {
        let message = format!(
            "`{name}.{}` is read otherwise than `{interface}.{}`",
            field.name, promise.name
        );
        builder.report(
            &field.place,
            "sdl_interface",
            message,
            "give both the same `@json`",
        );
    }
    let (own, promised) = (
        beside::requires(&field.directives),
        beside::requires(&promise.directives),
    );
    if !asks_as_much(&own, &promised) {
        let message = format!(
            "`{interface}.{}` may be selected by fewer readers than `{name}.{}`, which is what they are given",
            promise.name, field.name
        );
        builder.report(
            &field.place,
            "sdl_interface",
            message,
            "repeat its `@requiresScopes` or `@authenticated` here",
        );
    }
}

/// Whether everybody who may select what needs the one may select what needs the other: a selection through an interface
/// is judged by the fields of the objects that are found.
fn asks_as_much(own: &Requires, promised: &Requires) -> bool {
    let needs_nothing = *own == Requires::default();
    let all_of = |own: &Vec<_>| {
        let mut ways = promised.scopes.iter();
        ways.any(|promised| promised.iter().all(|scope| own.contains(scope)))
    };
    (!promised.authenticated || !needs_nothing)
        && (promised.scopes.is_empty() || (!own.scopes.is_empty() && own.scopes.iter().all(all_of)))
}

/// Whether a field may have this type where its interface promises that one.
fn fits(sdl: &Sdl, own: &Type, promised: &Type) -> bool {
    if own.nullable && !promised.nullable {
        return false;
    }
    match (&own.base, &promised.base) {
        (BaseType::List(own), BaseType::List(promised)) => fits(sdl, own, promised),
        (BaseType::Named(own), BaseType::Named(promised)) => {
            own == promised || is_one_of(sdl, own.as_str(), promised.as_str())
        }
        _ => false,
    }
}

/// Whether a type implements an interface, or is a member of a union.
fn is_one_of(sdl: &Sdl, own: &str, promised: &str) -> bool {
    let implements = match sdl.types.get(own).map(|node| &node.shape) {
        Some(Shape::Object { implements, .. }) => implements.iter().any(|one| one.value == promised),
        _ => false,
    };
    let is_member = match sdl.types.get(promised).map(|node| &node.shape) {
        Some(Shape::Union { members }) => members.iter().any(|one| one.value == own),
        _ => false,
    };
    implements || is_member
}
