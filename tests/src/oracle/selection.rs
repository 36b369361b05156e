//! GraphQL selections by dice, and what they give of a document, slowly: the masked document first, then the plain
//! selection of it. Aliases, inline fragments and fragment spreads say the same thing in other words.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use rand::Rng;
use rand::seq::IndexedRandom;
use serde_json::{Map, Value, json};

/// The types of the random streams, all nullable, since anything may be hidden. Some fields reach into what other fields
/// give, or give it as a whole.
pub const SDL: &str = r#"scalar JSON
scalar DateTime

type Random {
  n: Int
  text: String
  kind: JSON
  ref: Ref
  list: [Item]
  deep: Deep
  owner: String
  wholeRef: JSON @json(pointer: "/ref")
  wholeList: JSON @json(pointer: "/list")
  wholeDeep: JSON @json(pointer: "/deep")
  refDisplay: String @json(pointer: "/ref/display")
  deepB: DeepB @json(pointer: "/deep/b")
  deepE: String @json(pointer: "/deep/b/e")
}

type Ref {
  reference: String
  display: String
}

type Item {
  code: String
  note: String
}

type Deep {
  b: DeepB
  f: DeepF
}

type DeepB {
  c: String
  d: Int
  e: String
}

type DeepF {
  d: String
}
"#;

/// A field: its name, its pointer, its type.
type Field = (&'static str, &'static str, Kind);

/// What a field gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Int,
    Any,
    Object(&'static str),
    List(&'static str),
}

const RANDOM: [Field; 13] = [
    ("n", "/n", Kind::Int),
    ("text", "/text", Kind::Text),
    ("kind", "/kind", Kind::Any),
    ("ref", "/ref", Kind::Object("Ref")),
    ("list", "/list", Kind::List("Item")),
    ("deep", "/deep", Kind::Object("Deep")),
    ("owner", "/owner", Kind::Text),
    ("wholeRef", "/ref", Kind::Any),
    ("wholeList", "/list", Kind::Any),
    ("wholeDeep", "/deep", Kind::Any),
    ("refDisplay", "/ref/display", Kind::Text),
    ("deepB", "/deep/b", Kind::Object("DeepB")),
    ("deepE", "/deep/b/e", Kind::Text),
];
const REF: [Field; 2] = [
    ("reference", "/reference", Kind::Text),
    ("display", "/display", Kind::Text),
];
const ITEM: [Field; 2] = [("code", "/code", Kind::Text), ("note", "/note", Kind::Text)];
const DEEP: [Field; 2] = [
    ("b", "/b", Kind::Object("DeepB")),
    ("f", "/f", Kind::Object("DeepF")),
];
const DEEP_B: [Field; 3] = [
    ("c", "/c", Kind::Text),
    ("d", "/d", Kind::Int),
    ("e", "/e", Kind::Text),
];
const DEEP_F: [Field; 1] = [("d", "/d", Kind::Text)];

fn fields(of: &str) -> &'static [Field] {
    match of {
        "Ref" => &REF,
        "Item" => &ITEM,
        "Deep" => &DEEP,
        "DeepB" => &DEEP_B,
        "DeepF" => &DEEP_F,
        _ => &RANDOM,
    }
}

/// What is selected of one object.
#[derive(Debug, Clone)]
pub struct Selection {
    of: &'static str,
    chosen: Vec<Chosen>,
}

#[derive(Debug, Clone)]
enum Chosen {
    Field(String, Field, Option<Selection>),
    Typename(String),
    /// More of the same object, in a fragment; a name where it is spread by one.
    Fragment(Option<String>, Vec<Chosen>),
}

impl Selection {
    /// Anything of the random streams' type.
    pub fn random(dice: &mut impl Rng) -> Self {
        let mut count = 0;
        Self::of("Random", dice, &mut count)
    }

    fn of(of: &'static str, dice: &mut impl Rng, count: &mut usize) -> Self {
        let mut used = BTreeSet::new();
        let how_many = dice.random_range(1..=fields(of).len().min(6));
        let chosen = choose(of, how_many, dice, count, &mut used);
        Self { of, chosen }
    }

    /// As GraphQL, with its braces; fragments that are spread by name are appended to `fragments`.
    #[must_use]
    pub fn text(&self, fragments: &mut String) -> String {
        format!("{{ {}}}", written(self.of, &self.chosen, fragments))
    }

    /// What it gives of a document that holds only what may be seen.
    #[must_use]
    pub fn of_masked(&self, document: &Value) -> Value {
        if !document.is_object() {
            return Value::Null;
        }
        let mut given = Map::new();
        give(self.of, &self.chosen, document, &mut given);
        Value::Object(given)
    }
}

fn choose(
    of: &'static str,
    how_many: usize,
    dice: &mut impl Rng,
    count: &mut usize,
    used: &mut BTreeSet<String>,
) -> Vec<Chosen> {
    let mut chosen = Vec::new();
    for _ in 0..how_many {
        *count += 1;
        let fresh = format!("x{count}");
        match dice.random_range(0..10) {
            0 => chosen.push(Chosen::Typename(fresh)),
            1 | 2 => {
                let name = dice.random_bool(0.5).then(|| format!("f{count}"));
                let inner = choose(of, dice.random_range(1..=3), dice, count, used);
                chosen.push(Chosen::Fragment(name, inner));
            }
            _ => {
                let Some(field) = fields(of).choose(dice).copied() else {
                    continue;
                };
                let plain = dice.random_bool(0.5) && used.insert(field.0.to_owned());
                let key = if plain { field.0.to_owned() } else { fresh };
                let inner = match field.2 {
                    Kind::Object(inner) | Kind::List(inner) => Some(Selection::of(inner, dice, count)),
                    Kind::Text | Kind::Int | Kind::Any => None,
                };
                chosen.push(Chosen::Field(key, field, inner));
            }
        }
    }
    chosen
}

fn written(of: &str, chosen: &[Chosen], fragments: &mut String) -> String {
    let mut text = String::new();
    for one in chosen {
        let piece = match one {
            Chosen::Typename(key) => format!("{key}: __typename "),
            Chosen::Field(key, (name, ..), inner) => {
                let inner = inner
                    .as_ref()
                    .map(|inner| inner.text(fragments))
                    .unwrap_or_default();
                let alias = if key == name {
                    String::new()
                } else {
                    format!("{key}: ")
                };
                format!("{alias}{name} {inner} ")
            }
            Chosen::Fragment(None, inner) => format!("... on {of} {{ {}}} ", written(of, inner, fragments)),
            Chosen::Fragment(Some(name), inner) => {
                let inner = written(of, inner, fragments);
                let said = write!(fragments, " fragment {name} on {of} {{ {inner}}}");
                said.expect("text can be written");
                format!("...{name} ")
            }
        };
        text.push_str(&piece);
    }
    text
}

fn give(of: &'static str, chosen: &[Chosen], document: &Value, given: &mut Map<String, Value>) {
    for one in chosen {
        match one {
            Chosen::Typename(key) => {
                given.insert(key.clone(), json!(of));
            }
            Chosen::Fragment(_, inner) => give(of, inner, document, given),
            Chosen::Field(key, (_, pointer, kind), inner) => {
                let value = document.pointer(pointer).unwrap_or(&Value::Null);
                let value = match (kind, inner) {
                    (Kind::Any, _) => value.clone(),
                    (Kind::Int, _) => value.as_i64().map_or(Value::Null, |number| json!(number)),
                    (Kind::Text, _) => match value {
                        Value::String(_) => value.clone(),
                        Value::Number(number) => json!(number.to_string()),
                        Value::Bool(flag) => json!(flag.to_string()),
                        _ => Value::Null,
                    },
                    (Kind::Object(_), Some(inner)) => inner.of_masked(value),
                    (Kind::List(_), Some(inner)) => value.as_array().map_or(Value::Null, |list| {
                        list.iter().map(|element| inner.of_masked(element)).collect()
                    }),
                    (Kind::Object(_) | Kind::List(_), None) => Value::Null,
                };
                given.insert(key.clone(), value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn a_selection_gives_what_it_names_and_nothing_else() {
        let selection = Selection {
            of: "Random",
            chosen: vec![
                Chosen::Field("x1".to_owned(), RANDOM[1], None),
                Chosen::Fragment(
                    Some("f1".to_owned()),
                    vec![Chosen::Field(
                        "list".to_owned(),
                        RANDOM[4],
                        Some(Selection {
                            of: "Item",
                            chosen: vec![Chosen::Field("code".to_owned(), ITEM[0], None)],
                        }),
                    )],
                ),
            ],
        };
        let mut fragments = String::new();
        assert_eq!(selection.text(&mut fragments), "{ x1: text  ...f1 }");
        assert_eq!(fragments, " fragment f1 on Random { list { code  } }");
        let given = selection.of_masked(&json!({"text": "a", "list": [{"code": "b", "note": "c"}, {}]}));
        assert_eq!(given, json!({"x1": "a", "list": [{"code": "b"}, {"code": null}]}));
        let mut dice = StdRng::seed_from_u64(1);
        for _ in 0..100 {
            let selection = Selection::random(&mut dice);
            assert!(selection.of_masked(&json!({})).is_object());
        }
    }
}
