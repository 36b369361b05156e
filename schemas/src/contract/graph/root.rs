//! The fields of the SDL's `Subscription`, each bound to a stream by `@stream`.
//!
//! Invariant: a field gives either an event type or, with `emit: ENTITY`, the nullable type of its stream's data. Where
//! the SDL has a `Subscription`, only its fields are served. It does not know how operations are run.

use async_graphql_parser::types::BaseType;
use async_graphql_value::ConstValue;

use super::super::nearest::nearest;
use super::super::sdl::{Directive, Field, Shape, TypeNode, base_name, directive};
use super::super::settings::Placed;
use super::super::stream::Declared;
use super::{Builder, argument, beside, event, type_ref};
use crate::graph::{Emit, Kinds, Name, RootField};

/// Reads the fields of `Subscription`.
pub(super) fn read(builder: &mut Builder<'_>, node: &TypeNode) {
    let Shape::Object {
        interface: false,
        fields,
        ..
    } = &node.shape
    else {
        builder.report(
            &node.place,
            "sdl_root",
            "`Subscription` is no object type",
            "write `type Subscription { ... }`",
        );
        return;
    };
    if fields.is_empty() {
        let mend = "give it a field, or remove it: then each stream has one";
        builder.report(&node.place, "sdl_empty", "`Subscription` has no fields", mend);
    }
    for one in &node.directives {
        let message = format!("`@{}` does not stand beside `Subscription`", one.name);
        let mend = "write it beside its fields";
        builder.report(&one.place, "directive_misplaced", message, mend);
    }
    for field in fields {
        read_field(builder, field);
    }
}

fn read_field(builder: &mut Builder<'_>, field: &Field) {
    let base = base_name(&field.ty);
    builder.want(base, &field.place);
    builder.check_name(&field.name, &field.place);
    if let Some(one) = directive(&field.directives, "json") {
        let message = "`@json` does not stand here: the data is that of the stream";
        builder.report(&one.place, "directive_misplaced", message, "remove it");
    }
    let Some((binding, declared)) = stream(builder, field) else {
        return;
    };
    let emit = emit(binding);
    let kinds = kinds(builder, binding);
    if emit == Emit::Entity && kinds.has(Kinds::PROGRESS) {
        let message = "quiet progress has no entity, so that `emit: ENTITY` cannot give it";
        builder.report(
            &binding.place,
            "stream_kinds",
            message,
            "remove PROGRESS, or give events",
        );
    }
    check_type(builder, field, declared, emit);
    let arguments = argument::read(builder, field, declared);
    let Some(stream) = &declared.stream else { return };
    let root = RootField {
        name: Name::from(field.name.as_str()),
        description: field.description.clone(),
        stream: stream.name.clone(),
        emit,
        kinds,
        ty: type_ref(&field.ty),
        arguments,
        requires: beside::requires(&field.directives),
        deprecated: beside::deprecated(&field.directives),
        directives: beside::handed_on(&field.directives),
    };
    builder.fields.insert(root.name.clone(), root);
}

/// The stream that a field is bound to.
fn stream<'c, 'f>(builder: &Builder<'c>, field: &'f Field) -> Option<(&'f Directive, &'c Declared)> {
    let Some(binding) = directive(&field.directives, "stream") else {
        let message = format!("`Subscription.{}` is bound to no stream", field.name);
        let known = builder.streams.keys().copied();
        let name = nearest(&field.name, known).or_else(|| builder.streams.keys().next().copied());
        let mend = format!(
            "write `@stream(name: {:?})` after its type",
            name.unwrap_or("NAME")
        );
        builder.report(&field.place, "stream_binding_missing", message, mend);
        return None;
    };
    let name = binding.argument("name")?;
    let ConstValue::String(text) = &name.value else {
        return None;
    };
    if let Some(declared) = builder.streams.get(text.as_str()) {
        return Some((binding, declared));
    }
    let known: Vec<&str> = builder.streams.keys().copied().collect();
    let mend = match nearest(text, known.iter().copied()) {
        Some(known) => format!("did you mean {known:?}?"),
        None => format!("name one of the streams: {}", known.join(", ")),
    };
    builder.report(
        &name.place,
        "stream_unknown",
        format!("there is no stream {text:?}"),
        mend,
    );
    None
}

/// What the field gives. Other words were refused by the directives' own check.
fn emit(binding: &Directive) -> Emit {
    match binding.argument("emit").map(|word| &word.value) {
        Some(ConstValue::Enum(word)) if word == "ENTITY" => Emit::Entity,
        _ => Emit::Event,
    }
}

fn kinds(builder: &Builder<'_>, binding: &Directive) -> Kinds {
    let Some(written) = binding.argument("kinds") else {
        return Kinds::USUAL;
    };
    let words = match &written.value {
        ConstValue::List(words) => words.as_slice(),
        ConstValue::Null => return Kinds::USUAL,
        one => std::slice::from_ref(one),
    };
    let report =
        |message: String, mend: String| builder.report(&written.place, "stream_kinds", message, mend);
    let mut kinds = Kinds(0);
    for word in words {
        let text = match word {
            ConstValue::Enum(word) => word.to_string(),
            other => other.to_string(),
        };
        let known = Kinds::NAMES.iter().find(|(_, name)| *name == text);
        if let Some((kind, _)) = known.filter(|_| matches!(word, ConstValue::Enum(_))) {
            kinds = Kinds(kinds.0 | kind.0);
            continue;
        }
        let names = Kinds::NAMES.map(|(_, name)| name);
        let mend = match nearest(text.trim_matches('"'), names) {
            Some(known) => format!("did you mean {known}?"),
            None => format!("write some of {}", names.join(" ")),
        };
        report(format!("`{text}` is no kind of event"), mend);
        return Kinds::USUAL;
    }
    if kinds == Kinds(0) {
        let mend = "name a kind, or leave `kinds` out".to_owned();
        report(
            "no kind is named, so that the field never gives anything".to_owned(),
            mend,
        );
    }
    kinds
}

fn check_type(builder: &Builder<'_>, field: &Field, declared: &Declared, emit: Emit) {
    let schema = declared
        .schema
        .as_ref()
        .map(|schema: &Placed<String>| schema.value.as_str());
    let data = event::data_type(schema);
    let name = &field.name;
    let (BaseType::Named(base), nullable) = (&field.ty.base, field.ty.nullable) else {
        let message = format!("`Subscription.{name}` is a list, and events come one by one");
        builder.report(&field.place, "stream_field_type", message, "remove the brackets");
        return;
    };
    let node = builder.sdl.types.get(base.as_str());
    let event_type = node.filter(|node| event::is_event(node));
    let report = |code, message: String, mend: String| builder.report(&field.place, code, message, mend);
    match (emit, event_type) {
        (Emit::Event, Some(node)) => event::check(builder, base, node, &data),
        (Emit::Event, None) if base.as_str() == &**data.name() => report(
            "stream_field_type",
            format!("`Subscription.{name}` gives events, and `{base}` is data"),
            format!(
                "write `@stream(..., emit: ENTITY)`, or an event type: `type {base}Event @event {{ kind: ChangeKind! cursor: String! data: {data} }}`"
            ),
        ),
        (Emit::Event, None) => report(
            "stream_field_type",
            format!("`{base}` is no event type"),
            format!(
                "write `type {base} @event {{ kind: ChangeKind! cursor: String! key: String time: DateTime! data: {data} }}`"
            ),
        ),
        (Emit::Entity, _) if base.as_str() != &**data.name() => report(
            "stream_field_type",
            format!(
                "`Subscription.{name}` gives the data of `{}`, which is no `{base}`",
                declared.name.value
            ),
            format!("write `{name}: {data}`"),
        ),
        (Emit::Entity, _) if !nullable => report(
            "stream_field_non_null",
            format!("`Subscription.{name}` is null where something was deleted, and its type is non-null"),
            format!("drop the `!`: `{name}: {data}`"),
        ),
        (Emit::Entity, _) => {}
    }
}
