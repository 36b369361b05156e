//! What a document costs, before anything expensive looks at it: first its text, then its definitions with their
//! fragments spread.
//!
//! Invariant: the work is linear in the document, whatever its fragments multiply to: each fragment is measured once.

use std::collections::HashMap;

use async_graphql_parser::Pos;
use async_graphql_parser::types::{ExecutableDocument, Selection, SelectionSet};
use schemas::problem::Code;

use super::compile::invalid;
use super::error::Refused;
use super::limits::Limits;

/// The deepest nesting of brackets in a text: parsers recurse.
const BRACKETS_MAX: usize = 60;

/// The longest chain of selections and fragments.
const LEVELS_MAX: usize = 60;

/// How much more than one operation all definitions of a document may cost together.
const DEFINITIONS_FACTOR: usize = 8;

/// Checks the text's size without parsing it.
pub(super) fn check_text(text: &str, limits: &Limits) -> Result<(), Refused> {
    if text.len() > limits.document_bytes_max {
        return Err(over("document_bytes_max", limits.document_bytes_max));
    }
    let (mut tokens, mut depth) = (0_usize, 0_usize);
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let skipped = match byte {
            b' ' | b'\t' | b'\r' | b'\n' | b',' => {
                rest = behind;
                continue;
            }
            b'#' => {
                let end = behind.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
                rest = behind.get(end.unwrap_or(behind.len())..).unwrap_or_default();
                continue;
            }
            b'"' => string(behind),
            b'{' | b'[' | b'(' => {
                depth += 1;
                if depth > BRACKETS_MAX {
                    return Err(over("depth", BRACKETS_MAX));
                }
                0
            }
            b'}' | b']' | b')' => {
                depth = depth.saturating_sub(1);
                0
            }
            byte if is_word(byte) => behind.iter().take_while(|byte| is_word(**byte)).count(),
            _ => 0,
        };
        rest = behind.get(skipped..).unwrap_or_default();
        tokens += 1;
        if tokens > limits.tokens_max {
            return Err(over("tokens_max", limits.tokens_max));
        }
    }
    Ok(())
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'+') || byte >= 0x80
}

/// The length of a string's inside and its end; behind its first quote.
fn string(behind: &[u8]) -> usize {
    if behind.starts_with(b"\"\"") {
        let inside = behind.get(2..).unwrap_or_default();
        let mut at = 0;
        while let Some(here) = inside.get(at..)
            && !here.is_empty()
        {
            if here.starts_with(b"\"\"\"") {
                return at + 5;
            }
            at += if here.starts_with(b"\\\"\"\"") { 4 } else { 1 };
        }
        return behind.len();
    }
    let mut at = 0;
    while let Some(byte) = behind.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\n' | b'\r' => return at,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    behind.len()
}

/// What a selection costs with its fragments spread.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    depth: usize,
    levels: usize,
    fields: usize,
    aliases: usize,
    directives: usize,
}

impl Cost {
    fn add(&mut self, other: Self) {
        self.depth = self.depth.max(other.depth);
        self.levels = self.levels.max(other.levels);
        self.fields = self.fields.saturating_add(other.fields);
        self.aliases = self.aliases.saturating_add(other.aliases);
        self.directives = self.directives.saturating_add(other.directives);
    }
}

/// Checks every definition, used or not: validation looks at each of them.
pub(super) fn check(document: &ExecutableDocument, limits: &Limits) -> Result<(), Refused> {
    let mut measure = Measure {
        document,
        known: HashMap::new(),
    };
    let mut total = Cost::default();
    let mut all = |cost: Cost| {
        let parts = [
            ("depth_max", cost.depth, limits.depth_max),
            ("depth_max", cost.levels, LEVELS_MAX),
            ("complexity_max", cost.fields, limits.complexity_max),
            ("aliases_max", cost.aliases, limits.aliases_max),
            ("directives_max", cost.directives, limits.directives_max),
        ];
        for (name, have, most) in parts {
            if have > most {
                return Err(over(name, most));
            }
        }
        total.add(cost);
        let most = limits.complexity_max.saturating_mul(DEFINITIONS_FACTOR);
        if total.fields.saturating_add(total.directives) > most {
            return Err(over("complexity_max", most));
        }
        Ok(())
    };
    for (_, operation) in document.operations.iter() {
        let mut cost = measure.set(&operation.node.selection_set.node, 0)?;
        let variables = operation.node.variable_definitions.iter();
        cost.directives += operation.node.directives.len()
            + variables
                .map(|variable| variable.node.directives.len())
                .sum::<usize>();
        all(cost)?;
    }
    for name in document.fragments.keys() {
        let cost = measure.fragment(name, Pos::default(), 0)?;
        all(cost)?;
    }
    Ok(())
}

struct Measure<'d> {
    document: &'d ExecutableDocument,
    /// `None`: it is being measured, so that a spread of it is a cycle.
    known: HashMap<&'d str, Option<Cost>>,
}

impl<'d> Measure<'d> {
    fn set(&mut self, set: &'d SelectionSet, level: usize) -> Result<Cost, Refused> {
        if level > LEVELS_MAX {
            return Err(over("depth_max", LEVELS_MAX));
        }
        let mut cost = Cost::default();
        for item in &set.items {
            let mut one = match &item.node {
                Selection::Field(field) => {
                    let mut below = self.set(&field.node.selection_set.node, level + 1)?;
                    below.depth += 1;
                    below.fields = below.fields.saturating_add(1);
                    below.aliases = below
                        .aliases
                        .saturating_add(usize::from(field.node.alias.is_some()));
                    below
                }
                Selection::InlineFragment(fragment) => {
                    self.set(&fragment.node.selection_set.node, level + 1)?
                }
                Selection::FragmentSpread(spread) => {
                    let name = spread.node.fragment_name.node.as_str();
                    self.fragment(name, spread.pos, level + 1)?
                }
            };
            one.levels += 1;
            one.directives = one.directives.saturating_add(item.node.directives().len());
            cost.add(one);
        }
        Ok(cost)
    }

    fn fragment(&mut self, name: &str, place: Pos, level: usize) -> Result<Cost, Refused> {
        let Some((name, fragment)) = self.document.fragments.get_key_value(name) else {
            return Err(invalid(format!("unknown fragment {name:?}"), place));
        };
        match self.known.get(name.as_str()) {
            Some(Some(cost)) => return Ok(*cost),
            Some(None) => return Err(invalid(format!("fragment {name:?} spreads itself"), place)),
            None => {}
        }
        self.known.insert(name, None);
        let mut cost = self.set(&fragment.node.selection_set.node, level)?;
        cost.directives = cost.directives.saturating_add(fragment.node.directives.len());
        self.known.insert(name, Some(cost));
        Ok(cost)
    }
}

fn over(limit: &str, most: usize) -> Refused {
    Refused::ours(Code::OPERATION_TOO_LARGE, format!("more than {limit} = {most}"))
}
