//! The arguments of the SDL's subscription fields: which attribute each compares, or what else it says.
//!
//! Invariant: an argument that filters names an attribute of its stream, and no two of a field name the same one. Its
//! values are scalars, enums, or lists of them. It does not know what operations give.

use std::collections::BTreeMap;

use async_graphql_parser::types::{BaseType, Type};
use async_graphql_value::ConstValue;

use super::super::Stream;
use super::super::nearest::nearest;
use super::super::sdl::{BUILT_IN, Field, Input, Shape, base_name, directive};
use super::super::stream::Declared;
use super::{Builder, beside, scalar, type_ref};
use crate::graph::{Argument, Name, Role, RootArgument, Scalar};
use crate::ids::AttributeId;

/// Arguments that say something else than an attribute's value.
const RESERVED: [&str; 4] = ["after", "overflow", "rate", "snapshot"];

/// Reads the arguments of a field that is bound to a stream.
pub(super) fn read(builder: &mut Builder<'_>, field: &Field, declared: &Declared) -> Vec<RootArgument> {
    let mut by_name: BTreeMap<&str, &Input> = BTreeMap::new();
    let mut by_attribute: BTreeMap<AttributeId, &Input> = BTreeMap::new();
    let mut arguments = Vec::new();
    for input in &field.arguments {
        if by_name.insert(&input.name, input).is_some() {
            let message = format!("the argument `{}` is defined twice", input.name);
            builder.report(&input.place, "sdl_duplicate", message, "remove one of them");
            continue;
        }
        // Of a stream that could not be read, the attributes are not known.
        let Some(stream) = &declared.stream else { continue };
        let Some(role) = role(builder, input, stream) else {
            continue;
        };
        if let Role::Attribute { id, .. } = &role
            && let Some(other) = by_attribute.insert(*id, input)
        {
            let message = format!(
                "`{}` and `{}` filter by the same attribute",
                other.name, input.name
            );
            builder.report(&input.place, "argument_duplicate", message, "remove one of them");
        }
        builder.check_name(&input.name, &input.place);
        check_type(builder, input, &role);
        check_default(builder, input);
        arguments.push(RootArgument {
            argument: Argument {
                name: Name::from(input.name.as_str()),
                description: input.description.clone(),
                ty: type_ref(&input.ty.value),
                default: input
                    .default
                    .as_ref()
                    .map(|value| beside::value_text(&value.value)),
                directives: beside::handed_on_of_argument(&input.directives),
            },
            role,
        });
    }
    arguments
}

fn role(builder: &Builder<'_>, input: &Input, stream: &Stream) -> Option<Role> {
    let binding = directive(&input.directives, "attribute");
    let written = binding.and_then(|one| one.argument("name"));
    let (name, place) = match (binding, written.map(|name| (&name.value, &name.place))) {
        (Some(_), Some((ConstValue::String(name), place))) => (name.as_str(), place),
        // A name that is missing or no string was told by the directives' own check.
        (Some(_), _) => return None,
        (None, _) => (input.name.as_str(), &input.place),
    };
    match (binding, name) {
        (None, "after") => return Some(Role::After),
        (None, "overflow") => return Some(Role::Overflow),
        (None, "rate") => return Some(Role::Rate),
        (None, "snapshot") => return Some(Role::Snapshot),
        _ => {}
    }
    if let Some(id) = stream.attribute(name) {
        let prefix = binding.and_then(|one| one.text("prefix"));
        return Some(Role::Attribute {
            id,
            prefix: prefix.map(Into::into),
        });
    }
    let attributes: Vec<&str> = stream.attributes.iter().map(|one| one.name.as_str()).collect();
    let reserved = RESERVED.iter().copied().filter(|_| binding.is_none());
    let mend = match nearest(name, attributes.iter().copied().chain(reserved)) {
        Some(known) if binding.is_some() || RESERVED.contains(&known) => format!("did you mean `{known}`?"),
        Some(known) => format!("did you mean `{known}`? Another name needs `@attribute(name: {known:?})`"),
        None if attributes.is_empty() => "declare it as an attribute of the stream".to_owned(),
        None => format!(
            "write `@attribute(name: ...)` with one of {}, or declare the attribute",
            attributes.join(", ")
        ),
    };
    let message = format!("`{name}` is no attribute of `{}`", stream.name);
    builder.report(place, "argument_unknown", message, mend);
    None
}

fn check_type(builder: &mut Builder<'_>, input: &Input, role: &Role) {
    let base = base_name(&input.ty.value);
    let is_list = matches!(input.ty.value.base, BaseType::List(_));
    let shape = builder.sdl.types.get(base).map(|node| &node.shape);
    let is_enum = matches!(shape, Some(Shape::Enum { .. }));
    let wrong = match role {
        Role::Attribute { .. } => {
            let nested =
                matches!(&input.ty.value.base, BaseType::List(of) if matches!(of.base, BaseType::List(_)));
            let is_value =
                is_enum || matches!(shape, Some(Shape::Scalar)) || (shape.is_none() && base != "JSON");
            (nested || !is_value || (base == "JSON"))
                .then_some("a scalar, an enum, or a list of them: `[String!]`")
        }
        Role::After => (is_list || !["String", "ID"].contains(&base)).then_some("`String`"),
        Role::Snapshot => (is_list || base != "Boolean").then_some("`Boolean`"),
        Role::Overflow => (is_list || (base != "String" && !is_enum)).then_some("`String` or an enum"),
        Role::Rate => (is_list || !["Int", "Float"].contains(&base)).then_some("`Int`"),
    };
    if let Some(right) = wrong {
        let message = format!("the argument `{}` is `{}`", input.name, input.ty.value);
        builder.report(
            &input.ty.place,
            "argument_type",
            message,
            format!("let it be {right}"),
        );
        return;
    }
    builder.want(base, &input.ty.place);
}

fn check_default(builder: &Builder<'_>, input: &Input) {
    let Some(default) = &input.default else { return };
    if !fits(builder, &default.value, &input.ty.value) {
        let message = format!("the default {} is no `{}`", default.value, input.ty.value);
        builder.report(
            &default.place,
            "argument_default",
            message,
            "write a value of that type, or none",
        );
    }
}

/// Whether a value can stand for a type, as GraphQL coerces literals (sections 3.5, 3.9, 3.11).
fn fits(builder: &Builder<'_>, value: &ConstValue, ty: &Type) -> bool {
    match (&ty.base, value) {
        (_, ConstValue::Null) => ty.nullable,
        (BaseType::List(of), ConstValue::List(values)) => values.iter().all(|value| fits(builder, value, of)),
        (BaseType::List(of), value) => fits(builder, value, of),
        (BaseType::Named(name), value) => {
            match builder.sdl.types.get(name.as_str()).map(|node| &node.shape) {
                Some(Shape::Enum { values }) => {
                    matches!(value, ConstValue::Enum(word) if values.iter().any(|known| known.name == word.as_str()))
                }
                _ => fits_scalar(name, value),
            }
        }
    }
}

fn fits_scalar(name: &str, value: &ConstValue) -> bool {
    match (scalar(name), value) {
        (_, ConstValue::List(_) | ConstValue::Object(_) | ConstValue::Enum(_)) => false,
        (Scalar::Int, ConstValue::Number(number)) => {
            number.as_i64().is_some_and(|n| i32::try_from(n).is_ok())
        }
        (Scalar::Long, ConstValue::Number(number)) => number.is_i64() || number.is_u64(),
        (Scalar::Id, ConstValue::Number(number)) => number.is_i64() || number.is_u64(),
        (Scalar::Float, ConstValue::Number(_)) => true,
        (Scalar::Boolean, value) => matches!(value, ConstValue::Boolean(_)),
        (Scalar::String | Scalar::Id | Scalar::DateTime, value) => matches!(value, ConstValue::String(_)),
        (Scalar::Any, _) => !BUILT_IN.contains(&name),
        (Scalar::Int | Scalar::Float | Scalar::Long, _) => false,
    }
}
