//! Filters of endpoints: the dialects of the CloudEvents Subscriptions specification over declared attributes and `type`.
//!
//! One invariant: a filter that is compiled for a stream asks only for attributes that its owner may filter by there. Others
//! look as if they did not exist; a filter that cannot be compiled matches nothing, `not` or no `not`. Absent never equals.

mod compiled;

pub use compiled::Compiled;

use schemas::filter::{BadFilter, VALUE_BYTES_MAX};
use schemas::ids::AttributeName;
use schemas::problem::Code;
use serde_json::{Map, Value, json};

/// The most dialect objects of one filter, nested ones included.
pub const EXPRESSIONS_MAX: usize = 64;

/// How deep `all`, `any` and `not` may nest.
pub const DEPTH_MAX: usize = 8;

/// The context attribute that every event has and that nobody needs to declare.
const TYPE: &str = "type";

/// A filter as it was written: all of its expressions must hold. Of none, everything matches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    all: Vec<Expression>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Expression {
    /// Each pair must hold.
    Compare(Compare, Vec<(Subject, String)>),
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compare {
    Exact,
    Prefix,
    Suffix,
}

/// What is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    Type,
    Attribute(AttributeName),
}

impl Compare {
    fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Prefix => "prefix",
            Self::Suffix => "suffix",
        }
    }
}

impl Subject {
    fn as_str(&self) -> &str {
        match self {
            Self::Type => TYPE,
            Self::Attribute(name) => name.as_str(),
        }
    }
}

impl Filter {
    /// Reads a dialect object, or an array of them that must all hold (CloudEvents Subscriptions, section 3.2.4).
    pub fn parse(value: &Value) -> Result<Self, BadFilter> {
        let mut left = EXPRESSIONS_MAX;
        let all = match value {
            Value::Array(list) => list
                .iter()
                .map(|value| expression(value, 1, &mut left))
                .collect::<Result<_, _>>()?,
            value => vec![expression(value, 1, &mut left)?],
        };
        Ok(Self { all })
    }

    /// What [`Filter::parse`] reads back as this filter.
    #[must_use]
    pub fn to_json(&self) -> Value {
        Value::Array(self.all.iter().map(Expression::to_json).collect())
    }

    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

impl Expression {
    fn to_json(&self) -> Value {
        let list = |list: &[Self]| Value::Array(list.iter().map(Self::to_json).collect());
        match self {
            Self::Compare(compare, pairs) => {
                let pairs: Map<String, Value> = pairs
                    .iter()
                    .map(|(subject, text)| (subject.as_str().to_owned(), Value::from(text.as_str())))
                    .collect();
                json!({ compare.as_str(): pairs })
            }
            Self::All(all) => json!({ "all": list(all) }),
            Self::Any(any) => json!({ "any": list(any) }),
            Self::Not(not) => json!({ "not": not.to_json() }),
        }
    }
}

fn expression(value: &Value, depth: usize, left: &mut usize) -> Result<Expression, BadFilter> {
    *left = left
        .checked_sub(1)
        .ok_or_else(|| invalid(format!("more than {EXPRESSIONS_MAX} expressions")))?;
    if depth > DEPTH_MAX {
        return Err(invalid(format!("nested deeper than {DEPTH_MAX}")));
    }
    let object = value
        .as_object()
        .ok_or_else(|| invalid("an expression is an object".to_owned()))?;
    let mut members = object.iter();
    let (Some((dialect, value)), None) = (members.next(), members.next()) else {
        return Err(invalid("an expression has exactly one dialect".to_owned()));
    };
    let mut several = || match value.as_array() {
        Some(list) if !list.is_empty() => list
            .iter()
            .map(|value| expression(value, depth + 1, left))
            .collect::<Result<Vec<_>, _>>(),
        _ => Err(invalid(
            "`all` and `any` have a list that is not empty".to_owned(),
        )),
    };
    match dialect.as_str() {
        "exact" => pairs(Compare::Exact, value),
        "prefix" => pairs(Compare::Prefix, value),
        "suffix" => pairs(Compare::Suffix, value),
        "all" => several().map(Expression::All),
        "any" => several().map(Expression::Any),
        "not" => expression(value, depth + 1, left).map(|not| Expression::Not(Box::new(not))),
        _ => Err(invalid(
            "the dialects are exact, prefix, suffix, all, any and not".to_owned(),
        )),
    }
}

fn pairs(compare: Compare, value: &Value) -> Result<Expression, BadFilter> {
    let dialect = compare.as_str();
    let Some(members) = value.as_object().filter(|members| !members.is_empty()) else {
        return Err(invalid(format!("`{dialect}` has an object that is not empty")));
    };
    let mut pairs = Vec::with_capacity(members.len());
    for (name, value) in members {
        let subject = if name == TYPE {
            Subject::Type
        } else {
            // What cannot be declared is as unknown as what is not.
            Subject::Attribute(AttributeName::parse(name).map_err(|_| unknown(name))?)
        };
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Bool(value) => value.to_string(),
            Value::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
            _ => return Err(invalid(format!("{}: a string is wanted", subject.as_str()))),
        };
        if text.is_empty() || text.len() > VALUE_BYTES_MAX {
            return Err(invalid(format!(
                "{}: a value has 1 to {VALUE_BYTES_MAX} bytes",
                subject.as_str()
            )));
        }
        pairs.push((subject, text));
    }
    if pairs.len() > EXPRESSIONS_MAX {
        return Err(invalid(format!("more than {EXPRESSIONS_MAX} attributes")));
    }
    Ok(Expression::Compare(compare, pairs))
}

fn unknown(name: &str) -> BadFilter {
    BadFilter {
        code: Code::UNKNOWN_PARAMETER,
        // The name came from outside: cut, so that an answer stays small.
        detail: format!(
            "{:?} is no declared attribute",
            name.chars().take(32).collect::<String>()
        ),
    }
}

fn invalid(detail: String) -> BadFilter {
    BadFilter {
        code: Code::FILTER_INVALID,
        detail,
    }
}

#[cfg(test)]
mod tests;
