//! A filter, compiled for one stream: names have become places in its declaration.

use std::sync::Arc;

use schemas::attributes::{self, Attributes};
use schemas::contract::Stream;
use schemas::event::Event;
use schemas::filter::BadFilter;
use schemas::ids::AttributeId;
use schemas::problem::Code;

use super::{Compare, Expression, Filter, Subject};

/// A filter for the events of one stream.
#[derive(Debug, Clone, Default)]
pub struct Compiled {
    all: Vec<Node>,
    /// Sorted and distinct.
    attributes: Vec<AttributeId>,
}

#[derive(Debug, Clone)]
enum Node {
    Compare(Compare, Place, Arc<str>),
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Type,
    Attribute(AttributeId),
}

impl Filter {
    /// Compiles the filter for a stream. `filterable` says by which attributes its owner may filter there
    /// (`auth::access::Grant::filterable`); the others are refused as if they did not exist.
    pub fn compile(&self, stream: &Stream, filterable: &[AttributeId]) -> Result<Compiled, BadFilter> {
        let mut compiled = Compiled::default();
        for expression in &self.all {
            let node = node(expression, stream, filterable, &mut compiled.attributes)?;
            compiled.all.push(node);
        }
        compiled.attributes.sort_unstable();
        compiled.attributes.dedup();
        Ok(compiled)
    }
}

impl Compiled {
    /// Whether the event matches. Whose it is, and what of it may be seen, is not asked here.
    #[must_use]
    pub fn matches(&self, event: &Event) -> bool {
        self.matches_parts(&event.kind, &event.attributes)
    }

    /// The attributes that are asked for. A clause that hides one of them must not decide with this filter.
    #[must_use]
    pub fn attributes(&self) -> &[AttributeId] {
        &self.attributes
    }

    pub(super) fn matches_parts(&self, kind: &str, attributes: &Attributes) -> bool {
        self.all.iter().all(|node| node.holds(kind, attributes))
    }
}

impl Node {
    fn holds(&self, kind: &str, attributes: &Attributes) -> bool {
        match self {
            Self::Compare(compare, place, wanted) => {
                let equal = |value: &str| match compare {
                    Compare::Exact => value == &**wanted,
                    Compare::Prefix => value.starts_with(&**wanted),
                    Compare::Suffix => value.ends_with(&**wanted),
                };
                match place {
                    Place::Type => equal(kind),
                    Place::Attribute(id) => attributes.get(*id).any(|value| equal(value)),
                }
            }
            Self::All(all) => all.iter().all(|node| node.holds(kind, attributes)),
            Self::Any(any) => any.iter().any(|node| node.holds(kind, attributes)),
            Self::Not(not) => !not.holds(kind, attributes),
        }
    }
}

fn node(
    expression: &Expression,
    stream: &Stream,
    filterable: &[AttributeId],
    used: &mut Vec<AttributeId>,
) -> Result<Node, BadFilter> {
    let mut several = |list: &[Expression]| {
        list.iter()
            .map(|expression| node(expression, stream, filterable, used))
            .collect::<Result<Vec<_>, _>>()
    };
    match expression {
        Expression::All(all) => several(all).map(Node::All),
        Expression::Any(any) => several(any).map(Node::Any),
        Expression::Not(not) => node(not, stream, filterable, used).map(|not| Node::Not(Box::new(not))),
        Expression::Compare(compare, pairs) => {
            let mut all = Vec::with_capacity(pairs.len());
            for (subject, text) in pairs {
                let (place, wanted) = match subject {
                    Subject::Type => (Place::Type, text.as_str()),
                    Subject::Attribute(name) => {
                        let id = stream
                            .attribute(name.as_str())
                            .filter(|id| filterable.contains(id))
                            .ok_or_else(|| BadFilter {
                                code: Code::UNKNOWN_PARAMETER,
                                detail: format!("{:?} is no attribute of {}", name.as_str(), stream.name),
                            })?;
                        used.push(id);
                        (Place::Attribute(id), normal(stream, id, *compare, text))
                    }
                };
                all.push(Node::Compare(*compare, place, Arc::from(wanted)));
            }
            Ok(Node::All(all))
        }
    }
}

/// A whole reference is compared in the form that events have it in. The beginning or the end of one is no reference.
fn normal<'a>(stream: &Stream, id: AttributeId, compare: Compare, text: &'a str) -> &'a str {
    match stream.attributes.get(usize::from(id.0)) {
        Some(attribute) if attribute.reference && compare == Compare::Exact => attributes::reference(text),
        _ => text,
    }
}
