//! One scalar of a document, written as its GraphQL type wants it.

use std::borrow::Cow;

use schemas::event::json;
use schemas::graph::Scalar;
use schemas::project::{Seen, Shape};

use super::plan::Leaf;

/// What became of a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// It was appended.
    Value,
    /// It is null; nothing was appended.
    Null,
    /// The document's value is none of this type; nothing was appended.
    Mismatch,
}

/// Longer numbers are looked at before they are given as `Float`: they may be beyond what one can be.
const DIGITS_PLAIN: usize = 300;

/// Appends a leaf.
pub(super) fn write(leaf: &Leaf, strip_prefix: Option<&str>, seen: &Seen<'_>, out: &mut Vec<u8>) -> Written {
    let shape = seen.shape();
    if shape == Shape::Null {
        return Written::Null;
    }
    let Some(token) = seen.token() else {
        if matches!(leaf, Leaf::Scalar(Scalar::Any)) {
            seen.write(out);
            return Written::Value;
        }
        return Written::Mismatch;
    };
    let text = match strip_prefix {
        None => None,
        // Only a string begins with something.
        Some(prefix) => match stripped(seen, shape, prefix) {
            Some(text) => Some(text),
            None => return Written::Null,
        },
    };
    match leaf {
        Leaf::Enum(values) => {
            if shape != Shape::String {
                return Written::Mismatch;
            }
            let Some(text) = text.or_else(|| seen.text()) else {
                return Written::Mismatch;
            };
            let found = values.binary_search_by(|(json, _)| (**json).cmp(&*text));
            let Some((_, name)) = found.ok().and_then(|at| values.get(at)) else {
                return Written::Mismatch;
            };
            out.push(b'"');
            out.extend_from_slice(name.as_bytes());
            out.push(b'"');
        }
        Leaf::Scalar(scalar) if !suits(*scalar, shape, token) => return Written::Mismatch,
        Leaf::Scalar(scalar) => match (text, shape) {
            (Some(text), _) => json::string(&text, out),
            (None, Shape::Number) if *scalar == Scalar::Int => {
                // `5.0` and `5e0` are whole numbers too; they are given as one is written.
                let Some(whole) = whole(token) else {
                    return Written::Mismatch;
                };
                out.extend_from_slice(whole.to_string().as_bytes());
            }
            (None, Shape::Number | Shape::Boolean) if matches!(scalar, Scalar::String | Scalar::Id) => {
                out.push(b'"');
                out.extend_from_slice(token);
                out.push(b'"');
            }
            (None, _) => out.extend_from_slice(token),
        },
    }
    Written::Value
}

fn suits(scalar: Scalar, shape: Shape, token: &[u8]) -> bool {
    match scalar {
        Scalar::Any => true,
        Scalar::String => matches!(shape, Shape::String | Shape::Number | Shape::Boolean),
        Scalar::DateTime => shape == Shape::String,
        Scalar::Id => shape == Shape::String || shape == Shape::Number && is_digits(token),
        Scalar::Boolean => shape == Shape::Boolean,
        Scalar::Int => shape == Shape::Number,
        Scalar::Long => shape == Shape::Number && is_digits(token),
        Scalar::Float => shape == Shape::Number && is_finite(token),
    }
}

fn stripped<'a>(seen: &Seen<'a>, shape: Shape, prefix: &str) -> Option<Cow<'a, str>> {
    if shape != Shape::String {
        return None;
    }
    match seen.text()? {
        Cow::Borrowed(text) => text.strip_prefix(prefix).map(Cow::Borrowed),
        Cow::Owned(text) => text.strip_prefix(prefix).map(|rest| Cow::Owned(rest.to_owned())),
    }
}

/// A JSON number without a fraction or an exponent.
fn is_digits(token: &[u8]) -> bool {
    let digits = token.strip_prefix(b"-").unwrap_or(token);
    digits.iter().all(u8::is_ascii_digit)
}

fn is_finite(token: &[u8]) -> bool {
    if token.len() < DIGITS_PLAIN && !token.iter().any(|byte| matches!(byte, b'e' | b'E')) {
        return true;
    }
    number(token).is_some_and(f64::is_finite)
}

fn whole(token: &[u8]) -> Option<i32> {
    if is_digits(token) {
        return std::str::from_utf8(token).ok()?.parse().ok();
    }
    let number = number(token).filter(|number| number.fract() == 0.0)?;
    let in_range = (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number);
    // A whole number in range is written without a fraction.
    in_range.then(|| format!("{number:.0}").parse().ok()).flatten()
}

fn number(token: &[u8]) -> Option<f64> {
    std::str::from_utf8(token).ok()?.parse().ok()
}
