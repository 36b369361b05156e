//! The fields of `Subscription` where the SDL has none: one for each stream, with its event type.
//!
//! Invariant: a field is called like its stream, and has an argument for each of the stream's attributes. It does not
//! know what else the SDL says.

use std::collections::{BTreeMap, BTreeSet};

use super::super::Stream;
use super::{Builder, event, named};
use crate::graph::{Argument, Emit, Kinds, Name, Requires, Role, RootArgument, RootField, TypeRef};
use crate::ids::AttributeId;

/// Generates a field for each stream that was read.
pub(super) fn fields(builder: &mut Builder<'_>) {
    let mut readers: BTreeMap<&str, usize> = BTreeMap::new();
    let streams: Vec<_> = builder.streams.values().copied().collect();
    for declared in &streams {
        if let Some(schema) = &declared.schema {
            *readers.entry(schema.value.as_str()).or_default() += 1;
        }
    }
    let mut taken = BTreeSet::new();
    for declared in streams {
        let Some(stream) = &declared.stream else { continue };
        let schema = stream.schema.as_deref();
        let own = pascal(stream.name.as_str());
        let name = match schema {
            Some(schema) if readers.get(schema) == Some(&1) => format!("{schema}Event"),
            Some(schema) => format!("{own}{schema}Event"),
            None => format!("{own}Event"),
        };
        if let Some(node) = builder.sdl.types.get(&name) {
            let message = format!("`{name}` is the name of the event type of `{}`", stream.name);
            let mend = "rename it, or write the fields of `Subscription` yourself";
            builder.report(&node.place, "sdl_name_taken", message, mend);
        }
        if !taken.insert(name.clone()) {
            let message = format!("two streams would have the event type `{name}`");
            let mend = "rename one of the streams, or write the fields of `Subscription` yourself";
            builder.report(&declared.name.place, "sdl_name_taken", message, mend);
        }
        builder.add(event::generated(&name, stream.name.as_str(), schema));
        for part in [event::CHANGE_KIND, "DateTime", schema.unwrap_or("JSON")] {
            builder.want(part, &declared.name.place);
        }
        let field = field(stream, &name);
        builder.fields.insert(field.name.clone(), field);
    }
}

fn field(stream: &Stream, event: &str) -> RootField {
    let attributes = stream.attributes.iter().zip(0_u16..);
    let attributes = attributes.map(|(attribute, id)| {
        let name = attribute.name.as_str();
        RootArgument {
            argument: Argument {
                name: Name::from(name),
                description: Some(format!("Only events whose `{name}` is one of these.")),
                ty: TypeRef::List {
                    of: Box::new(named("String", false)),
                    nullable: true,
                },
                default: None,
                directives: Vec::new(),
            },
            role: Role::Attribute {
                id: AttributeId(id),
                prefix: None,
            },
        }
    });
    let after = RootArgument {
        argument: Argument {
            name: Name::from("after"),
            description: Some(
                "From where: the cursor of the last event that was seen, `earliest`, `latest` or an RFC 3339 time."
                    .to_owned(),
            ),
            ty: named("String", true),
            default: None,
            directives: Vec::new(),
        },
        role: Role::After,
    };
    RootField {
        name: Name::from(stream.name.as_str()),
        description: stream.description.clone(),
        stream: stream.name.clone(),
        emit: Emit::Event,
        kinds: Kinds::USUAL,
        ty: named(event, false),
        arguments: attributes.chain([after]).collect(),
        requires: Requires::default(),
        deprecated: None,
        directives: Vec::new(),
    }
}

/// `medication_requests` as `MedicationRequests`.
fn pascal(name: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        let first = letters.next().map(|c| c.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    };
    name.split('_').map(word).collect()
}
