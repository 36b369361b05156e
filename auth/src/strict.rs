//! JSON and base64 as tokens must have them: nothing is said twice, nothing has two spellings.
//!
//! One invariant: a value that comes out of here has no object with the same member twice, so two readers of one token
//! cannot see different claims. Knows nothing of what the members mean.

use std::cell::Cell;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserializer as _;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Why text is no acceptable JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadObject {
    /// No JSON, or no object.
    Syntax,
    /// An object has the same member twice.
    Duplicate,
}

/// One JSON object and nothing behind it.
pub(crate) fn object(bytes: &[u8]) -> Result<Map<String, Value>, BadObject> {
    let duplicate = Cell::new(false);
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = reader.deserialize_any(Strict {
        duplicate: &duplicate,
    });
    match value {
        Ok(Value::Object(members)) if reader.end().is_ok() => Ok(members),
        _ if duplicate.get() => Err(BadObject::Duplicate),
        _ => Err(BadObject::Syntax),
    }
}

/// URL-safe base64 without padding, in its one canonical spelling.
pub(crate) fn base64(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[derive(Clone, Copy)]
struct Strict<'a> {
    duplicate: &'a Cell<bool>,
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = from.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = from.next_key::<String>()? {
            if members.contains_key(&name) {
                self.duplicate.set(true);
                return Err(A::Error::custom("a member is there twice"));
            }
            members.insert(name, from.next_value_seed(self)?);
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_is_there_twice_is_refused_at_any_depth_and_in_any_spelling() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"x":[{"b":{"c":1,"c":2}}]}"#,
        ] {
            assert_eq!(object(text.as_bytes()), Err(BadObject::Duplicate), "{text}");
        }
    }

    #[test]
    fn only_one_whole_object_is_accepted() {
        for text in [
            "",
            "1",
            "[]",
            "null",
            "{",
            r#"{"a":1}x"#,
            r#"{"a":1}{"b":2}"#,
            "{'a':1}",
            "\u{feff}{}",
        ] {
            assert_eq!(object(text.as_bytes()), Err(BadObject::Syntax), "{text}");
        }
        assert_eq!(object(b"{\"a\":\"\xff\"}"), Err(BadObject::Syntax));
        assert_eq!(
            object(format!("{{\"a\":{}}}", "[".repeat(100_000)).as_bytes()),
            Err(BadObject::Syntax)
        );
        let members = object(br#" {"a":[1,-2,0.5,"x",true,null,{"b":{}}]} "#).expect("an object");
        assert_eq!(
            Value::Object(members),
            serde_json::json!({"a":[1,-2,0.5,"x",true,null,{"b":{}}]})
        );
    }

    #[test]
    fn base64_has_one_spelling() {
        assert_eq!(base64("AQI"), Some(vec![1, 2]));
        for text in ["AQI=", "AQJ", "AQ I", "A+I", "A", "AQI\n"] {
            assert_eq!(base64(text), None, "{text}");
        }
    }
}
