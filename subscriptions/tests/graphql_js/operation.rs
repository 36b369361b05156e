//! Random operations: aliases, fragments, type conditions, `@skip` and `@include`, and now and then a conflict.

use std::collections::BTreeSet;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Map, Value};

use crate::world::{Field, World};

/// An operation with its variables.
pub(crate) struct Operation {
    pub(crate) text: String,
    pub(crate) variables: Map<String, Value>,
}

const VARIABLES: [&str; 2] = ["v0", "v1"];

struct Writer<'a> {
    world: &'a World,
    dice: &'a mut StdRng,
    variables: BTreeSet<&'static str>,
    /// Names, conditions and bodies.
    fragments: Vec<(String, String, String)>,
    budget: usize,
}

impl Operation {
    pub(crate) fn random(world: &World, dice: &mut StdRng) -> Self {
        let mut writer = Writer {
            world,
            dice,
            variables: BTreeSet::new(),
            fragments: Vec::new(),
            budget: 60,
        };
        let data = writer.set("O0", 0);
        let around = *["kind cursor key time", "kind: key", "__typename c: cursor", ""]
            .choose(writer.dice)
            .unwrap();
        let again = if writer.dice.random_bool(0.3) {
            format!("... on TE {{ data {} }}", writer.set("O0", 0))
        } else {
            String::new()
        };
        let mut definitions: Vec<String> = Vec::new();
        let mut variables = Map::new();
        for name in writer.variables.clone() {
            if writer.dice.random_bool(0.3) {
                definitions.push(format!("${name}: Boolean = {}", writer.dice.random_bool(0.5)));
                if writer.dice.random_bool(0.5) {
                    continue;
                }
            } else {
                definitions.push(format!("${name}: Boolean!"));
            }
            variables.insert(name.to_owned(), Value::Bool(writer.dice.random_bool(0.5)));
        }
        let definitions = if definitions.is_empty() {
            String::new()
        } else {
            format!("({})", definitions.join(", "))
        };
        let mut text =
            format!("subscription X{definitions} {{ x: things {{ {around} data {data} {again} }} }}");
        for (name, condition, body) in &writer.fragments {
            text.push_str(&format!("\nfragment {name} on {condition} {body}"));
        }
        Self { text, variables }
    }
}

impl Writer<'_> {
    fn set(&mut self, ty: &str, depth: usize) -> String {
        let mut items = Vec::new();
        for _ in 0..self.dice.random_range(1..5) {
            let item = self.item(ty, depth);
            items.extend(item);
        }
        if items.is_empty() {
            items.push("__typename".to_owned());
        }
        format!("{{ {} }}", items.join(" "))
    }

    fn item(&mut self, ty: &str, depth: usize) -> Option<String> {
        self.budget = self.budget.checked_sub(1)?;
        match self.dice.random_range(0..20) {
            0 => Some(format!("{}__typename", self.alias("t"))),
            1..4 if depth < 6 => {
                let on = self.condition(ty);
                let written = if on == ty && self.dice.random_bool(0.3) {
                    String::new()
                } else {
                    format!("on {on}")
                };
                let directive = self.directive();
                Some(format!("... {written} {directive} {}", self.set(&on, depth + 1)))
            }
            4..6 if depth < 6 => {
                let known: Vec<(String, String)> = self
                    .fragments
                    .iter()
                    .map(|(name, on, _)| (name.clone(), on.clone()))
                    .filter(|(_, on)| self.overlaps(on, ty))
                    .collect();
                let name = if known.is_empty() || self.dice.random_bool(0.5) {
                    let on = self.condition(ty);
                    let body = self.set(&on, depth + 1);
                    let name = format!("F{}", self.fragments.len());
                    self.fragments.push((name.clone(), on, body));
                    name
                } else {
                    known.choose(self.dice)?.0.clone()
                };
                Some(format!("...{name} {}", self.directive()))
            }
            _ => {
                let fields: Vec<Field> = match ty {
                    "I" => self.world.shared.clone(),
                    "U" => return None,
                    name => self.world.possible(name).first()?.fields.clone(),
                };
                let field = fields.choose(self.dice)?.clone();
                let is_leaf = self.world.possible(&field.ty.name).is_empty();
                if !is_leaf && depth >= 6 {
                    return None;
                }
                let alias = self.alias(&field.name);
                let directive = self.directive();
                let below = if is_leaf {
                    String::new()
                } else {
                    self.set(&field.ty.name, depth + 1)
                };
                Some(format!("{alias}{} {directive} {below}", field.name))
            }
        }
    }

    /// A type that a fragment in a place of this type can name.
    fn condition(&mut self, ty: &str) -> String {
        let mut names: Vec<String> = self
            .world
            .objects
            .iter()
            .map(|object| object.name.clone())
            .collect();
        names.extend(["I".to_owned(), "U".to_owned()]);
        names.retain(|name| self.overlaps(name, ty));
        names
            .choose(self.dice)
            .map_or_else(|| ty.to_owned(), String::clone)
    }

    fn overlaps(&self, one: &str, other: &str) -> bool {
        let other = self.world.possible(other);
        self.world
            .possible(one)
            .iter()
            .any(|object| other.iter().any(|also| also.name == object.name))
    }

    fn alias(&mut self, field: &str) -> String {
        match self.dice.random_range(0..12) {
            0..3 => format!("a{}: ", self.dice.random_range(0..1000)),
            3 => format!("same_{field}: "),
            4 if self.dice.random_bool(0.1) => "conflict: ".to_owned(),
            _ => String::new(),
        }
    }

    fn directive(&mut self) -> String {
        if !self.dice.random_bool(0.15) {
            return String::new();
        }
        let name = if self.dice.random_bool(0.5) {
            "skip"
        } else {
            "include"
        };
        let condition = if self.dice.random_bool(0.6) {
            let variable = VARIABLES.choose(self.dice).unwrap();
            self.variables.insert(variable);
            format!("${variable}")
        } else {
            self.dice.random_bool(0.5).to_string()
        };
        format!("@{name}(if: {condition})")
    }
}
