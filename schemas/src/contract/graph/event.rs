//! Event types: what a subscription field gives that does not give bare data.
//!
//! Invariant: an event type's fields are among `kind`, `cursor`, `key`, `time` and `data`, with the types that they have
//! here and no others. It does not know which stream the events are of.

use super::super::sdl::{BUILT_IN, Directive, Shape, TypeNode, directive};
use super::{Builder, named, plain, type_ref};
use crate::graph::{EnumValue, Field, Kind, Kinds, Name, Object, Requires, Scalar, Type, TypeRef};
use crate::project::Pointer;

/// The enum of the kinds of events.
pub(super) const CHANGE_KIND: &str = "ChangeKind";

/// The fields of an event but `data`: name, type, what it is.
const FIELDS: [(&str, &str, bool, &str); 4] = [
    ("kind", CHANGE_KIND, false, "What happened."),
    (
        "cursor",
        "String",
        false,
        "Where the reader stands after this event: `after` continues behind it, on any node.",
    ),
    (
        "key",
        "String",
        true,
        "The key of the record, where it is text and may be shown.",
    ),
    ("time", "DateTime", false, "When it happened (RFC 3339)."),
];

/// What each kind means.
const KINDS: [&str; 8] = [
    "A thing is new.",
    "A thing has another value.",
    "A thing moved out of the reader's filter: there is no data.",
    "A thing is gone: there is no data.",
    "A thing is as it is now: part of a snapshot.",
    "A thing was written; whether it is new is not known.",
    "There was nothing for this reader, and the cursor moved. Only for fields that ask for it.",
    "Something could not be given any more; events go on at the cursor.",
];

/// Whether this type presents an event.
pub(super) fn is_event(node: &TypeNode) -> bool {
    directive(&node.directives, "event").is_some()
}

/// The type that `data` has: the nullable type of the stream's data, or any JSON.
pub(super) fn data_type(schema: Option<&str>) -> TypeRef {
    named(schema.unwrap_or("JSON"), true)
}

/// The event type that is generated for a stream.
pub(super) fn generated(name: &str, stream: &str, schema: Option<&str>) -> Type {
    let mut fields: Vec<Field> = FIELDS
        .iter()
        .filter_map(|(name, ty, nullable, description)| field(name, named(ty, *nullable), description))
        .collect();
    let data = "What it is about; null where there is none.";
    fields.extend(field("data", data_type(schema), data));
    let description = format!("An event of `{stream}`.");
    let object = Object {
        fields,
        interfaces: Vec::new(),
        event: true,
        discriminator: Name::from(name),
    };
    plain(name, Some(&description), Kind::Object(object))
}

fn field(name: &str, ty: TypeRef, description: &str) -> Option<Field> {
    Some(Field {
        name: Name::from(name),
        description: Some(description.to_owned()),
        ty,
        pointer: Pointer::parse(&format!("/{name}")).ok()?,
        strip_prefix: None,
        requires: Requires::default(),
        deprecated: None,
        directives: Vec::new(),
    })
}

/// A type that the SDL need not define.
pub(super) fn provided(name: &str) -> Option<Type> {
    let scalar = |scalar, description| Some(plain(name, Some(description), Kind::Scalar(scalar)));
    match name {
        CHANGE_KIND => {
            let value = |((_, name), description): (&(Kinds, &'static str), &str)| EnumValue {
                name: Name::from(*name),
                json: Name::from(*name),
                description: Some(description.to_owned()),
                deprecated: None,
                directives: Vec::new(),
            };
            let values = Kinds::NAMES.iter().zip(KINDS).map(value).collect();
            Some(plain(name, Some("What happened."), Kind::Enum(values)))
        }
        "DateTime" => scalar(Scalar::DateTime, "A moment in time (RFC 3339)."),
        "JSON" => scalar(Scalar::Any, "Any JSON value."),
        "Long" => scalar(Scalar::Long, "A whole number of any size."),
        _ => None,
    }
}

/// Checks that what the SDL defines under a provided name is the same thing.
pub(super) fn check_provided(builder: &Builder<'_>, name: &str, node: &TypeNode) {
    let fits = match (name, &node.shape) {
        (CHANGE_KIND, Shape::Enum { values }) => {
            let same = |known: &str| values.iter().any(|value| value.name == known);
            let renamed = |one: &Directive| one.name == "jsonValue";
            values.len() == Kinds::NAMES.len()
                && Kinds::NAMES.iter().all(|(_, known)| same(known))
                && !values.iter().any(|value| value.directives.iter().any(renamed))
        }
        ("DateTime" | "JSON" | "Long", Shape::Scalar) => true,
        (CHANGE_KIND | "DateTime" | "JSON" | "Long", _) => false,
        (name, shape) => !BUILT_IN.contains(&name) || matches!(shape, Shape::Scalar),
    };
    if !fits {
        let names: Vec<&str> = Kinds::NAMES.iter().map(|(_, name)| *name).collect();
        let mend = if name == CHANGE_KIND {
            format!("remove it, or write `enum ChangeKind {{ {} }}`", names.join(" "))
        } else {
            format!("remove it, or write `scalar {name}`")
        };
        let message = format!("`{name}` is defined as something else than what it is here");
        builder.report(&node.place, "sdl_provided", message, mend);
    }
}

/// Refuses interfaces of an event type: what is selected through one must be data, which says what it is.
pub(super) fn check_interfaces(builder: &Builder<'_>, name: &str, node: &TypeNode) {
    if let (true, Shape::Object { implements, .. }) = (is_event(node), &node.shape)
        && let Some(interface) = implements.first()
    {
        let message = format!("the event type `{name}` implements `{}`", interface.value);
        let mend = "remove it: only types of data implement interfaces";
        builder.report(&interface.place, "event_interface", message, mend);
    }
}

/// Checks an event type, whose `data` must have the type given.
pub(super) fn check(builder: &Builder<'_>, name: &str, node: &TypeNode, data: &TypeRef) {
    let Shape::Object { fields, .. } = &node.shape else {
        return;
    };
    for field in fields {
        let known = FIELDS.iter().find(|(known, ..)| *known == field.name);
        let right = match known {
            Some((_, ty, nullable, _)) => named(ty, *nullable),
            None if field.name == "data" => data.clone(),
            None => {
                let message = format!("an event has no `{}`", field.name);
                let names = FIELDS.iter().map(|(name, ..)| *name).chain(["data"]);
                let mend = match super::super::nearest::nearest(&field.name, names) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => "keep some of `kind cursor key time data`; what the event is about is in `data`"
                        .to_owned(),
                };
                builder.report(&field.place, "event_field_unknown", message, mend);
                continue;
            }
        };
        if type_ref(&field.ty) != right {
            let message = format!("`{name}.{}` is `{}`, and must be `{right}`", field.name, field.ty);
            builder.report(
                &field.place,
                "event_field_type",
                message,
                format!("write `{}: {right}`", field.name),
            );
        }
        let bound = |one: &&Directive| ["json", "stream"].contains(&one.name.as_str());
        if let Some(one) = field.directives.iter().find(bound) {
            let message = format!("`{name}.{}` is not read from the document", field.name);
            builder.report(
                &one.place,
                "event_field_directive",
                message,
                format!("remove `@{}`", one.name),
            );
        }
    }
}
