//! The members of a small body: each with its rule, and all that is wrong told at once.

use ::webhooks::endpoint::Invalid;
use schemas::problem::Code;
use serde_json::{Map, Value};

use super::super::problem::Problem;
use crate::webhooks::desk::Refusal;

/// Members that are taken one by one; what is left at the end is not known.
pub(super) struct Fields {
    members: Map<String, Value>,
    problems: Vec<Invalid>,
}

impl Fields {
    pub(super) fn new(members: Map<String, Value>) -> Self {
        Self {
            members,
            problems: Vec::new(),
        }
    }

    /// A text that may be absent.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        match self.members.remove(name) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text),
            Some(_) => {
                self.refuse(name, "a string is wanted");
                None
            }
        }
    }

    /// A text that must be there.
    pub(super) fn needed(&mut self, name: &str) -> String {
        let had = self.problems.len();
        let text = self.text(name);
        if text.is_none() && self.problems.len() == had {
            self.refuse(name, "it is needed");
        }
        text.unwrap_or_default()
    }

    /// A whole number within bounds that may be absent.
    pub(super) fn number(&mut self, name: &str, min: u64, max: u64) -> Option<u64> {
        let value = self.members.remove(name).filter(|value| !value.is_null())?;
        let number = value.as_u64().filter(|number| (min..=max).contains(number));
        if number.is_none() {
            self.refuse(name, &format!("a whole number from {min} to {max} is wanted"));
        }
        number
    }

    /// Anything that must be there.
    pub(super) fn value(&mut self, name: &str) -> Value {
        self.members.remove(name).unwrap_or_else(|| {
            self.refuse(name, "it is needed");
            Value::Null
        })
    }

    /// Whether everything was right, and nothing is left.
    pub(super) fn finish(mut self) -> Result<(), Problem> {
        for name in self.members.keys() {
            self.problems.push(Invalid {
                code: Code::FIELD_UNKNOWN,
                pointer: pointer(name),
                detail: "no such field".to_owned(),
            });
        }
        if self.problems.is_empty() {
            Ok(())
        } else {
            Err(Refusal::from(self.problems).into())
        }
    }

    fn refuse(&mut self, name: &str, detail: &str) {
        self.problems.push(Invalid {
            code: Code::FIELD_INVALID,
            pointer: pointer(name),
            detail: detail.to_owned(),
        });
    }
}

/// RFC 6901, of a name that came from outside: cut, so that an answer stays small.
fn pointer(name: &str) -> String {
    let name: String = name.chars().take(64).collect();
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}
