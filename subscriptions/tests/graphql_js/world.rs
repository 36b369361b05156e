//! Random contracts and documents that fit them, mostly.

use std::fmt::Write;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Map, Value, json};

/// A contract's types.
pub(crate) struct World {
    pub(crate) sdl: String,
    /// `O0` and so on.
    pub(crate) objects: Vec<Object>,
    /// What is common to those that implement `I`.
    pub(crate) shared: Vec<Field>,
}

/// An object type.
pub(crate) struct Object {
    pub(crate) name: String,
    pub(crate) fields: Vec<Field>,
    pub(crate) implements: bool,
    pub(crate) of_union: bool,
    discriminator: String,
}

/// A field.
#[derive(Clone)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) ty: Type,
    pointer: String,
    strip_prefix: bool,
}

/// A type: a name in lists, and whether null may stand for each.
#[derive(Clone)]
pub(crate) struct Type {
    pub(crate) name: String,
    /// From the outside: of each list, and of the name.
    nullable: Vec<bool>,
}

const LEAVES: [&str; 9] = [
    "ID", "Int", "Float", "String", "Boolean", "DateTime", "Long", "JSON", "E",
];
const PREFIX: &str = "P/";
const ENUM: [&str; 3] = ["A", "b-b", "C"];

impl Type {
    fn random(name: &str, dice: &mut StdRng) -> Self {
        let lists = *[0, 0, 0, 1, 1, 2].choose(dice).unwrap();
        Self {
            name: name.to_owned(),
            nullable: (0..=lists).map(|_| dice.random_bool(0.7)).collect(),
        }
    }

    fn text(&self) -> String {
        let mut text = self.name.clone();
        for (place, nullable) in self.nullable.iter().rev().enumerate() {
            if place > 0 {
                text = format!("[{text}]");
            }
            if !nullable {
                text.push('!');
            }
        }
        text
    }
}

impl World {
    pub(crate) fn random(dice: &mut StdRng) -> Self {
        let count = dice.random_range(3..6);
        let names: Vec<String> = (0..count).map(|number| format!("O{number}")).collect();
        let field = |owner: usize, number: usize, dice: &mut StdRng| {
            let name = match dice.random_range(0..10) {
                0..5 => (*LEAVES.choose(dice).unwrap()).to_owned(),
                5..7 => names.choose(dice).unwrap().clone(),
                7..9 => "I".to_owned(),
                _ => "U".to_owned(),
            };
            let mut ty = Type::random(&name, dice);
            let own = format!("f{number}");
            let is_leaf = LEAVES.contains(&name.as_str());
            let pointer = match dice.random_range(0..10) {
                0 => format!("/p{number}/q"),
                1 => format!("/l{number}/0"),
                2 => format!("/l{number}/1/x~1y"),
                // Another view of the same value, without an end to it: of a type that comes later.
                3 if names
                    .iter()
                    .position(|have| *have == name)
                    .is_some_and(|place| place > owner) =>
                {
                    ty.nullable = vec![true];
                    String::new()
                }
                _ => format!("/{own}"),
            };
            Field {
                name: own,
                strip_prefix: is_leaf && matches!(name.as_str(), "ID" | "String") && dice.random_bool(0.3),
                ty,
                pointer,
            }
        };
        let shared: Vec<Field> = (0..2).map(|number| field(usize::MAX, number, dice)).collect();
        let mut objects: Vec<Object> = names
            .iter()
            .enumerate()
            .map(|(number, name)| Object {
                name: name.clone(),
                fields: (2..dice.random_range(4..8))
                    .map(|place| field(number, place, dice))
                    .collect(),
                implements: number == 1 || dice.random_bool(0.4),
                of_union: number == 2 || dice.random_bool(0.4),
                discriminator: if dice.random_bool(0.5) {
                    name.clone()
                } else {
                    format!("is-{name}")
                },
            })
            .collect();
        // Only what can be reached is served.
        let reached = names.iter().map(String::as_str).chain(["I", "U"]);
        objects[0]
            .fields
            .extend(reached.enumerate().map(|(number, name)| Field {
                name: format!("r{number}"),
                ty: Type {
                    name: name.to_owned(),
                    nullable: vec![true],
                },
                pointer: format!("/r{number}"),
                strip_prefix: false,
            }));
        for object in objects.iter_mut().filter(|object| object.implements) {
            // Where it is may differ; what it is may not.
            object.fields.extend(shared.iter().cloned());
        }
        let mut world = Self {
            sdl: String::new(),
            objects,
            shared,
        };
        world.sdl = world.write();
        world
    }

    fn write(&self) -> String {
        let mut sdl = "scalar DateTime\nscalar Long\nscalar JSON\n\
            enum E { A B @jsonValue(is: \"b-b\") C }\n\
            type Subscription { things: TE! @stream(name: \"things\") }\n\
            type TE @event { kind: ChangeKind! cursor: String! key: String time: DateTime! data: O0 }\n"
            .to_owned();
        let fields = |fields: &[Field]| {
            let mut text = String::new();
            for field in fields {
                let strip = if field.strip_prefix {
                    format!(", stripPrefix: {PREFIX:?}")
                } else {
                    String::new()
                };
                write!(
                    text,
                    " {}: {} @json(pointer: {:?}{strip})",
                    field.name,
                    field.ty.text(),
                    field.pointer
                )
                .unwrap();
            }
            text
        };
        for object in &self.objects {
            let implements = if object.implements { " implements I" } else { "" };
            writeln!(
                sdl,
                "type {}{implements} @discriminatorValue(is: {:?}) {{{} }}",
                object.name,
                object.discriminator,
                fields(&object.fields)
            )
            .unwrap();
        }
        writeln!(
            sdl,
            "interface I @discriminator(pointer: \"/is\") {{{} }}",
            fields(&self.shared)
        )
        .unwrap();
        let members: Vec<&str> = self
            .objects
            .iter()
            .filter(|object| object.of_union)
            .map(|object| object.name.as_str())
            .collect();
        writeln!(
            sdl,
            "union U @discriminator(pointer: \"/u/0\") = {}",
            members.join(" | ")
        )
        .unwrap();
        sdl
    }

    /// The objects that a value of this type can be; none for leaves.
    pub(crate) fn possible(&self, name: &str) -> Vec<&Object> {
        let is = |object: &&Object| match name {
            "I" => object.implements,
            "U" => object.of_union,
            name => object.name == name,
        };
        self.objects.iter().filter(is).collect()
    }

    /// A document of the stream.
    pub(crate) fn document(&self, dice: &mut StdRng) -> Value {
        self.object(&self.objects[0], dice, 0)
    }

    /// Where something may be.
    pub(crate) fn pointer(&self, dice: &mut StdRng) -> String {
        let mut text = String::new();
        for _ in 0..dice.random_range(1..5) {
            let segment = match dice.random_range(0..8) {
                0 => "*".to_owned(),
                1 => dice.random_range(0..3).to_string(),
                2 => "is".to_owned(),
                3 => format!("l{}", dice.random_range(0..8)),
                _ => format!("f{}", dice.random_range(0..8)),
            };
            text.push('/');
            text.push_str(&segment);
        }
        text
    }

    fn object(&self, object: &Object, dice: &mut StdRng, depth: usize) -> Value {
        let mut value = Value::Object(Map::new());
        if dice.random_bool(0.95) {
            put(&mut value, "/is", json!(object.discriminator));
            put(&mut value, "/u/0", json!(object.discriminator));
        }
        for field in &object.fields {
            // Sparser with depth, so that documents stay small.
            let gone = [0.1, 0.4, 0.6, 0.8, 0.9, 1.0].get(depth).copied().unwrap_or(1.0);
            if field.pointer.is_empty() || dice.random_bool(gone) {
                continue;
            }
            let member = self.value(field, &field.ty.nullable, dice, depth);
            put(&mut value, &field.pointer, member);
        }
        value
    }

    fn value(&self, field: &Field, nullable: &[bool], dice: &mut StdRng, depth: usize) -> Value {
        match dice.random_range(0..100) {
            0..4 => return Value::Null,
            4..6 => return odd(dice),
            _ => {}
        }
        if nullable.len() > 1 {
            let count = dice.random_range(0..4);
            return (0..count)
                .map(|_| self.value(field, &nullable[1..], dice, depth))
                .collect();
        }
        if let Some(object) = self.possible(&field.ty.name).choose(dice) {
            return if depth > 4 {
                Value::Null
            } else {
                self.object(object, dice, depth + 1)
            };
        }
        leaf(&field.ty.name, field.strip_prefix, dice)
    }
}

fn leaf(name: &str, strip_prefix: bool, dice: &mut StdRng) -> Value {
    let text = *["a", "Bé", "c\"d\\e", "\u{1F30A}\n", ""].choose(dice).unwrap();
    match name {
        "Int" | "Long" => json!(dice.random_range(-100..100)),
        "Float" => json!(f64::from(dice.random_range(-9..9)) / 2.0),
        "Boolean" => json!(dice.random_bool(0.5)),
        "DateTime" => json!("2026-11-23T00:00:00Z"),
        "JSON" => json!({"a": [1, {"f1": text}], "f2": null}),
        "E" => json!(ENUM.choose(dice).unwrap()),
        "ID" if dice.random_bool(0.2) => json!(17),
        "String" if dice.random_bool(0.2) => json!(true),
        _ if strip_prefix && dice.random_bool(0.9) => json!(format!("{PREFIX}{text}")),
        _ => json!(text),
    }
}

/// What may stand anywhere by mistake.
fn odd(dice: &mut StdRng) -> Value {
    let odd = [
        json!(7),
        json!(1.5),
        json!("x"),
        json!("P/y"),
        json!(true),
        json!([]),
        json!({}),
        json!([null]),
        json!(3_000_000_000_i64),
    ];
    odd.choose(dice).unwrap().clone()
}

/// Puts a value where a pointer says, if what is on the way lets it.
fn put(root: &mut Value, pointer: &str, value: Value) {
    let mut here = root;
    for segment in pointer
        .split('/')
        .skip(1)
        .map(|segment| segment.replace("~1", "/"))
    {
        if let Ok(index) = segment.parse::<usize>() {
            if here.is_null() {
                *here = json!([]);
            }
            let Some(values) = here.as_array_mut() else { return };
            while values.len() <= index {
                values.push(Value::Null);
            }
            here = &mut values[index];
        } else {
            if here.is_null() {
                *here = json!({});
            }
            let Some(members) = here.as_object_mut() else {
                return;
            };
            here = members.entry(segment).or_insert(Value::Null);
        }
    }
    *here = value;
}
