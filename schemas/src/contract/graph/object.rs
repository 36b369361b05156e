//! The types of the data: objects, interfaces, unions, enums and scalars as they are served.
//!
//! Invariant: an interface or a union says where the document tells its objects apart, and no two of them are told by the
//! same value. Field by field it is what the SDL says. It does not know streams.

use std::collections::BTreeMap;

use super::super::finding::Place;
use super::super::sdl::{Directive, EnumValue, Field, Shape, TypeNode, base_name, directive};
use super::{Builder, beside, event, interface, key, scalar, type_ref};
use crate::graph::{self, Interface, Kind, Name, Object, Type, Union};
use crate::project::Pointer;

/// The types where operations begin.
const ROOTS: [&str; 3] = ["Query", "Mutation", "Subscription"];

/// Refuses the other roots: only subscriptions are served.
pub(super) fn check_roots(builder: &Builder<'_>) {
    for root in ["Query", "Mutation"] {
        let Some(node) = builder.sdl.types.get(root) else {
            continue;
        };
        let Shape::Object { fields, .. } = &node.shape else {
            continue;
        };
        // What a subgraph library prints into its SDL for routers; it says nothing of the data.
        let federations = |field: &Field| ["_service", "_entities"].contains(&field.name.as_str());
        if let Some(field) = fields.iter().find(|field| !federations(field)) {
            let message = format!(
                "`{root}.{}` cannot be served: this version has subscriptions only",
                field.name
            );
            let mend = format!("remove the type `{root}`");
            builder.report(&field.place, "sdl_root_not_served", message, mend);
        }
    }
    for (name, node) in &builder.sdl.types {
        event::check_provided(builder, name, node);
    }
}

/// Builds the type of that name, unless it is there already.
pub(super) fn resolve(builder: &mut Builder<'_>, name: &str, place: &Place) {
    if builder.types.contains_key(name) {
        return;
    }
    let Some(node) = builder.sdl.types.get(name) else {
        match event::provided(name) {
            Some(ty) => builder.add(ty),
            // What is not defined at all was told by the SDL itself.
            None if name.starts_with('_') || name.contains("__") => {
                let message = format!("`{name}` is a type of federation, and no data can have it");
                builder.report(
                    place,
                    "sdl_type_not_served",
                    message,
                    "write `String`, or a scalar of your own",
                );
            }
            None => {}
        }
        return;
    };
    if ROOTS.contains(&name) {
        let message = format!("`{name}` is where operations begin, and no data can have it");
        builder.report(place, "sdl_type_not_served", message, "name a type of data");
        return;
    }
    builder.check_name(name, &node.place);
    event::check_interfaces(builder, name, node);
    interface::check(builder, name, node);
    key::check(builder, name, node);
    let kind = match &node.shape {
        Shape::Scalar => Kind::Scalar(scalar(name)),
        Shape::Enum { values } => Kind::Enum(read_values(builder, name, node, values)),
        Shape::Object {
            interface: false,
            implements,
            fields,
        } => Kind::Object(Object {
            fields: read_fields(builder, name, node, fields),
            interfaces: implements
                .iter()
                .map(|name| Name::from(name.value.as_str()))
                .collect(),
            event: event::is_event(node),
            discriminator: discriminator_value(name, node),
        }),
        Shape::Object {
            implements, fields, ..
        } => Kind::Interface(Interface {
            fields: read_fields(builder, name, node, fields),
            interfaces: implements
                .iter()
                .map(|name| Name::from(name.value.as_str()))
                .collect(),
            objects: implementations(builder, name, node),
            discriminator: discriminator(builder, name, node),
        }),
        Shape::Union { members } => {
            let mut objects = Vec::new();
            for member in members {
                let found = builder.sdl.types.get(&member.value);
                let is_object = |node: &TypeNode| {
                    matches!(node.shape, Shape::Object { interface: false, .. }) && !event::is_event(node)
                };
                if found.is_some_and(|node| !is_object(node)) {
                    let message = format!(
                        "the union `{name}` has the member `{}`, which is no object type",
                        member.value
                    );
                    builder.report(&member.place, "sdl_union", message, "name object types of data");
                } else if objects.contains(&Name::from(member.value.as_str())) {
                    let message = format!("the union `{name}` has the member `{}` twice", member.value);
                    builder.report(&member.place, "sdl_union", message, "remove one of them");
                } else {
                    objects.push(Name::from(member.value.as_str()));
                    builder.want(&member.value, &member.place);
                }
            }
            check_apart(builder, name, node, &objects);
            Kind::Union(Union {
                objects,
                discriminator: discriminator(builder, name, node),
            })
        }
        Shape::Input { .. } => {
            let message = format!("`{name}` is an input type");
            builder.report(place, "sdl_input_as_output", message, "name a type of data");
            return;
        }
    };
    builder.add(Type {
        name: Name::from(name),
        description: node.description.clone(),
        kind,
        requires: beside::requires(&node.directives),
        directives: beside::handed_on(&node.directives),
    });
}

/// Leaves out the interfaces that no field has as its type: nothing could be selected through them.
pub(super) fn finish(builder: &mut Builder<'_>) {
    let served: Vec<Name> = builder
        .types
        .values()
        .filter(|ty| matches!(ty.kind, Kind::Interface(_)))
        .map(|ty| ty.name.clone())
        .collect();
    for ty in builder.types.values_mut() {
        match &mut ty.kind {
            Kind::Object(Object { interfaces, .. }) | Kind::Interface(Interface { interfaces, .. }) => {
                interfaces.retain(|name| served.contains(name));
                interfaces.sort();
            }
            Kind::Scalar(_) | Kind::Enum(_) | Kind::Union(_) | Kind::Input(_) => {}
        }
    }
}

fn read_fields(
    builder: &mut Builder<'_>,
    owner: &str,
    node: &TypeNode,
    fields: &[Field],
) -> Vec<graph::Field> {
    if fields.is_empty() {
        let message = format!("`{owner}` has no fields");
        builder.report(
            &node.place,
            "sdl_empty",
            message,
            "give it a field, or use the scalar `JSON`",
        );
    }
    let in_event = event::is_event(node);
    let mut read = Vec::new();
    for field in fields {
        if let Some(argument) = field.arguments.first() {
            let message = format!(
                "`{owner}.{}` has arguments, and data is given as it is",
                field.name
            );
            builder.report(&argument.place, "field_argument", message, "remove them");
        }
        builder.check_name(&field.name, &field.place);
        if let Some(one) = directive(&field.directives, "stream") {
            let message = "`@stream` does not stand here";
            builder.report(
                &one.place,
                "directive_misplaced",
                message,
                "it stands beside fields of `Subscription`",
            );
        }
        let base = base_name(&field.ty);
        let is_nested_event = builder.sdl.types.get(base).is_some_and(event::is_event);
        if is_nested_event {
            let message = format!("`{owner}.{}` is an event inside of data", field.name);
            builder.report(
                &field.place,
                "event_nested",
                message,
                "name a type without `@event`",
            );
        }
        builder.want(base, &field.place);
        let json = directive(&field.directives, "json");
        let strip_prefix = json.and_then(|json| json.text("stripPrefix"));
        if let (Some(_), Some(json)) = (strip_prefix, json) {
            check_prefix(builder, owner, field, json);
        }
        read.push(graph::Field {
            name: Name::from(field.name.as_str()),
            description: field.description.clone(),
            ty: type_ref(&field.ty),
            pointer: field.pointer.clone(),
            strip_prefix: strip_prefix.filter(|_| !in_event).map(Into::into),
            requires: beside::requires(&field.directives),
            deprecated: beside::deprecated(&field.directives),
            directives: beside::handed_on(&field.directives),
        });
    }
    read
}

/// Only what is a string in GraphQL too has a prefix to cut.
fn check_prefix(builder: &Builder<'_>, owner: &str, field: &Field, json: &Directive) {
    let base = base_name(&field.ty);
    let is_text = match builder.sdl.types.get(base) {
        Some(node) => matches!(node.shape, Shape::Scalar),
        None => !["Int", "Float", "Boolean", "Long", event::CHANGE_KIND].contains(&base),
    };
    if !is_text {
        let message = format!(
            "`{owner}.{}` is `{}`, from which no prefix can be cut",
            field.name, field.ty
        );
        builder.report(
            &json.place,
            "json_prefix_type",
            message,
            "remove `stripPrefix`, or let it be a `String` or `ID`",
        );
    }
}

fn read_values(
    builder: &Builder<'_>,
    name: &str,
    node: &TypeNode,
    values: &[EnumValue],
) -> Vec<graph::EnumValue> {
    if values.is_empty() {
        let message = format!("`{name}` has no values");
        builder.report(&node.place, "sdl_empty", message, "give it a value");
    }
    let mut known: BTreeMap<&str, &str> = BTreeMap::new();
    let mut read = Vec::new();
    for value in values {
        builder.check_name(&value.name, &value.place);
        let json = directive(&value.directives, "jsonValue").and_then(|one| one.text("is"));
        let json = json.unwrap_or(&value.name);
        if read
            .iter()
            .any(|known: &graph::EnumValue| *known.name == *value.name)
        {
            let message = format!("the value `{}` is defined twice", value.name);
            builder.report(&value.place, "sdl_duplicate", message, "remove one of them");
        } else if let Some(other) = known.insert(json, &value.name) {
            let message = format!("{json:?} in the document could be `{other}` and `{}`", value.name);
            builder.report(
                &value.place,
                "json_value_ambiguous",
                message,
                "give each value a `@jsonValue` of its own",
            );
        }
        read.push(graph::EnumValue {
            name: Name::from(value.name.as_str()),
            json: json.into(),
            description: value.description.clone(),
            deprecated: beside::deprecated(&value.directives),
            directives: beside::handed_on(&value.directives),
        });
    }
    read
}

/// The objects that implement an interface; they are wanted, since any of them may be what is found.
fn implementations(builder: &mut Builder<'_>, name: &str, node: &TypeNode) -> Vec<Name> {
    let mut objects = Vec::new();
    let sdl = builder.sdl;
    for (other, candidate) in &sdl.types {
        let Shape::Object {
            interface: false,
            implements,
            ..
        } = &candidate.shape
        else {
            continue;
        };
        if let Some(named) = implements.iter().find(|one| one.value == name) {
            objects.push(Name::from(other.as_str()));
            builder.want(other, &named.place);
        }
    }
    if objects.is_empty() {
        let message = format!("no object type implements `{name}`");
        let mend = format!("write `type ... implements {name}`, or let it be an object type");
        builder.report(&node.place, "sdl_interface", message, mend);
    }
    check_apart(builder, name, node, &objects);
    objects
}

/// Where the document says which object it is.
fn discriminator(builder: &Builder<'_>, name: &str, node: &TypeNode) -> Pointer {
    let nowhere = || Pointer::parse("").expect("pointer: the empty one is valid");
    let Some(one) = directive(&node.directives, "discriminator") else {
        let message = format!("nothing tells the objects of `{name}` apart");
        let mend = format!(
            "write `{name} @discriminator(pointer: \"/type\")`, with the place of a string that says it"
        );
        builder.report(&node.place, "discriminator_missing", message, mend);
        return nowhere();
    };
    // A pointer that is missing or cannot be read was told by the directives' own check.
    match one.text("pointer").map(Pointer::parse) {
        Some(Ok(pointer)) => pointer,
        _ => nowhere(),
    }
}

/// What the discriminator says for an object.
fn discriminator_value(name: &str, node: &TypeNode) -> Name {
    let value = directive(&node.directives, "discriminatorValue").and_then(|one| one.text("is"));
    Name::from(value.unwrap_or(name))
}

/// No two objects may be told by one value.
fn check_apart(builder: &Builder<'_>, name: &str, node: &TypeNode, objects: &[Name]) {
    let mut known: BTreeMap<Name, &Name> = BTreeMap::new();
    for object in objects {
        let Some(one) = builder.sdl.types.get(&**object) else {
            continue;
        };
        let value = discriminator_value(object, one);
        if let Some(other) = known.insert(value.clone(), object) {
            let message = format!("{:?} could be `{other}` and `{object}` of `{name}`", &*value);
            let place =
                directive(&one.directives, "discriminatorValue").map_or(&node.place, |one| &one.place);
            builder.report(
                place,
                "discriminator_ambiguous",
                message,
                "give each object a `@discriminatorValue` of its own",
            );
        }
    }
}
