//! The directives that mean something here: where they may stand, and what they take.
//!
//! Invariant: what is read of a directive elsewhere has the right type, or was refused here; a directive of federation
//! that this subgraph could not keep its word on is refused too. It does not know what directives bind to.

use std::collections::BTreeSet;

use async_graphql_value::ConstValue;

use super::super::finding::Findings;
use super::super::nearest::nearest;
use super::super::settings::Placed;
use super::Sdl;
use super::node::{Directive, Shape, TypeNode};

/// A directive that means something here.
struct Word {
    name: &'static str,
    /// Where it may stand.
    at: &'static [At],
    takes: &'static [Argument],
    repeatable: bool,
}

struct Argument {
    name: &'static str,
    is: Is,
    required: bool,
}

/// A place for a directive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Scalar,
    Enum,
    EnumValue,
    Object,
    Interface,
    Union,
    Input,
    /// A field of an object or an interface.
    Field,
    /// An argument, or a field of an input type.
    Argument,
}

/// What an argument is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    Text,
    /// A JSON pointer, which [`super::node`] reads.
    FieldPointer,
    /// A JSON pointer to a value that says something.
    Pointer,
    /// `EVENT` or `ENTITY`.
    Emit,
    /// Kinds of events, which are read with their field.
    Kinds,
    /// `[["a", "b"], ["c"]]`.
    Scopes,
    Boolean,
}

const fn takes(name: &'static str, is: Is, required: bool) -> Argument {
    Argument { name, is, required }
}

const fn word(name: &'static str, at: &'static [At], takes: &'static [Argument]) -> Word {
    Word {
        name,
        at,
        takes,
        repeatable: false,
    }
}

const WITH_ACCESS: &[At] = &[At::Scalar, At::Enum, At::Object, At::Interface, At::Field];

/// The words that are understood: ours, and those of federation and GraphQL that are read or handed on.
const WORDS: [Word; 12] = [
    word(
        "stream",
        &[At::Field],
        &[
            takes("name", Is::Text, true),
            takes("emit", Is::Emit, false),
            takes("kinds", Is::Kinds, false),
        ],
    ),
    word("event", &[At::Object], &[]),
    word(
        "attribute",
        &[At::Argument],
        &[takes("name", Is::Text, true), takes("prefix", Is::Text, false)],
    ),
    word(
        "json",
        &[At::Field],
        &[
            takes("pointer", Is::FieldPointer, true),
            takes("stripPrefix", Is::Text, false),
        ],
    ),
    word("jsonValue", &[At::EnumValue], &[takes("is", Is::Text, true)]),
    word(
        "discriminator",
        &[At::Interface, At::Union],
        &[takes("pointer", Is::Pointer, true)],
    ),
    word(
        "discriminatorValue",
        &[At::Object],
        &[takes("is", Is::Text, true)],
    ),
    word("authenticated", WITH_ACCESS, &[]),
    word(
        "requiresScopes",
        WITH_ACCESS,
        &[takes("scopes", Is::Scopes, true)],
    ),
    word(
        "deprecated",
        &[At::Field, At::Argument, At::EnumValue],
        &[takes("reason", Is::Text, false)],
    ),
    Word {
        name: "key",
        at: &[At::Object, At::Interface],
        takes: &[
            takes("fields", Is::Text, true),
            takes("resolvable", Is::Boolean, false),
        ],
        repeatable: true,
    },
    word("shareable", &[At::Object, At::Field], &[]),
];

/// What is handed on, or read by others, and not looked into.
const LEFT_ALONE: [&str; 5] = ["inaccessible", "link", "oneOf", "specifiedBy", "tag"];

/// Words of federation with which this subgraph would promise what it cannot do, and why.
const NOT_SERVED: [(&str, &str); 10] = [
    ("composeDirective", "directives of your own are not handed on"),
    ("context", "no entity is resolved here"),
    ("cost", "it is no part of federation v2.5"),
    ("external", "every field is read from the event"),
    ("fromContext", "no entity is resolved here"),
    ("interfaceObject", "no entity is resolved here"),
    ("listSize", "it is no part of federation v2.5"),
    ("override", "no entity is resolved here"),
    (
        "policy",
        "policies are not evaluated here: what it guards would be open",
    ),
    ("provides", "every field is read from the event"),
];

impl Sdl {
    /// Checks the directives of all types.
    pub(in crate::contract) fn check_words(&self, findings: &Findings) {
        for node in self.types.values() {
            let at = match &node.shape {
                Shape::Scalar => At::Scalar,
                Shape::Enum { .. } => At::Enum,
                Shape::Object { interface: false, .. } => At::Object,
                Shape::Object { .. } => At::Interface,
                Shape::Union { .. } => At::Union,
                Shape::Input { .. } => At::Input,
            };
            self.check_list(&node.directives, at, findings);
            self.check_parts(node, findings);
        }
    }

    fn check_parts(&self, node: &TypeNode, findings: &Findings) {
        match &node.shape {
            Shape::Scalar | Shape::Union { .. } => {}
            Shape::Enum { values } => {
                for value in values {
                    self.check_list(&value.directives, At::EnumValue, findings);
                }
            }
            Shape::Object { fields, .. } => {
                for field in fields {
                    self.check_list(&field.directives, At::Field, findings);
                    for argument in &field.arguments {
                        self.check_list(&argument.directives, At::Argument, findings);
                    }
                }
            }
            Shape::Input { fields } => {
                for field in fields {
                    self.check_list(&field.directives, At::Argument, findings);
                }
            }
        }
    }

    fn check_list(&self, directives: &[Directive], at: At, findings: &Findings) {
        let mut seen = BTreeSet::new();
        for directive in directives {
            let Some(word) = WORDS.iter().find(|word| word.name == directive.name) else {
                self.check_other(directive, findings);
                continue;
            };
            if !word.at.contains(&at) {
                let message = format!("`@{}` does not stand here", word.name);
                let mend = format!("it stands beside {}", spoken(word.at));
                findings.report(&directive.place, "directive_misplaced", message, mend);
            }
            if !seen.insert(word.name) && !word.repeatable {
                let message = format!("`@{}` stands here twice", word.name);
                findings.report(
                    &directive.place,
                    "directive_repeated",
                    message,
                    "keep one of them",
                );
            }
            check_arguments(directive, word, findings);
        }
    }

    /// A directive that means nothing here: one of federation that cannot be served, one of somebody else, or a slip.
    fn check_other(&self, directive: &Directive, findings: &Findings) {
        let name = directive.name.as_str();
        let requires = ("requires", "every field is read from the event");
        let not_served = NOT_SERVED
            .iter()
            .chain([&requires])
            .find(|(word, _)| *word == name);
        if let Some((_, why)) = not_served {
            let message = format!("`@{name}` cannot be served: {why}");
            findings.report(&directive.place, "directive_not_served", message, "remove it");
            return;
        }
        let is_imported = self.imported.contains(&format!("@{name}")) || name.contains("__");
        if LEFT_ALONE.contains(&name) || self.directives.contains(name) || is_imported {
            return;
        }
        let known = WORDS.iter().map(|word| word.name).chain(LEFT_ALONE);
        let mend = match nearest(name, known) {
            Some(known) => format!("did you mean `@{known}`?"),
            None => format!("remove it, or define it: `directive @{name} on ...`"),
        };
        findings.report(
            &directive.place,
            "directive_unknown",
            format!("`@{name}` is not known"),
            mend,
        );
    }
}

fn check_arguments(directive: &Directive, word: &Word, findings: &Findings) {
    let mut seen = BTreeSet::new();
    for (name, value) in &directive.arguments {
        let Some(argument) = word.takes.iter().find(|argument| argument.name == name.value) else {
            let known = word.takes.iter().map(|argument| argument.name);
            let mend = match nearest(&name.value, known.clone()) {
                Some(known) => format!("did you mean `{known}`?"),
                None if word.takes.is_empty() => "remove it: there are none".to_owned(),
                None => format!("it has {}", known.collect::<Vec<_>>().join(", ")),
            };
            let message = format!("`@{}` has no argument `{}`", word.name, name.value);
            findings.report(&name.place, "directive_argument_unknown", message, mend);
            continue;
        };
        if !seen.insert(argument.name) {
            let message = format!("`{}` is given twice", name.value);
            findings.report(
                &name.place,
                "directive_argument_repeated",
                message,
                "keep one of them",
            );
        }
        check_value(word, argument, value, findings);
    }
    for argument in word.takes {
        if argument.required && !seen.contains(argument.name) {
            let message = format!("`@{}` needs `{}`", word.name, argument.name);
            let mend = format!(
                "write `@{}({}: {})`",
                word.name,
                argument.name,
                argument.is.example()
            );
            findings.report(&directive.place, "directive_argument_missing", message, mend);
        }
    }
}

fn check_value(word: &Word, argument: &Argument, value: &Placed<ConstValue>, findings: &Findings) {
    let fits = match (argument.is, &value.value) {
        (_, ConstValue::Null) => !argument.required,
        (Is::FieldPointer | Is::Kinds, _) => true,
        (Is::Text, value) => matches!(value, ConstValue::String(_)),
        (Is::Boolean, value) => matches!(value, ConstValue::Boolean(_)),
        (Is::Emit, value) => matches!(value, ConstValue::Enum(word) if word == "EVENT" || word == "ENTITY"),
        (Is::Scopes, value) => is_scopes(value),
        (Is::Pointer, ConstValue::String(text)) => {
            check_pointer(word, text, value, findings);
            true
        }
        (Is::Pointer, _) => false,
    };
    if !fits {
        let message = format!(
            "`{}` of `@{}` cannot be {}",
            argument.name, word.name, value.value
        );
        let mend = format!("write `{}: {}`", argument.name, argument.is.example());
        findings.report(&value.place, "directive_argument_type", message, mend);
    }
}

fn check_pointer(word: &Word, text: &str, value: &Placed<ConstValue>, findings: &Findings) {
    let bad = match crate::project::Pointer::parse(text) {
        Ok(pointer) if pointer.has_wildcard() => format!("{text:?} could find several values"),
        Ok(pointer) if pointer.depth() == 0 => "an empty pointer is the whole object".to_owned(),
        Ok(_) => return,
        Err(bad) => bad.to_string(),
    };
    let mend = format!(
        "write `@{}(pointer: \"/type\")`: the place of one string",
        word.name
    );
    findings.report(&value.place, "pointer_invalid", bad, mend);
}

/// Lists in lists of strings, none of them empty: an empty one would say that nothing is needed.
fn is_scopes(value: &ConstValue) -> bool {
    let list_of = |value: &ConstValue, each: &dyn Fn(&ConstValue) -> bool| match value {
        ConstValue::List(values) => !values.is_empty() && values.iter().all(each),
        _ => false,
    };
    let scope = |value: &ConstValue| matches!(value, ConstValue::String(text) if !text.is_empty());
    list_of(value, &|all| list_of(all, &scope))
}

impl Is {
    fn example(self) -> &'static str {
        match self {
            Self::Text => "\"...\"",
            Self::FieldPointer | Self::Pointer => "\"/a/b\"",
            Self::Emit => "ENTITY",
            Self::Kinds => "[CREATED, UPDATED]",
            Self::Scopes => "[[\"read\"]]",
            Self::Boolean => "false",
        }
    }
}

fn spoken(places: &[At]) -> String {
    let names: Vec<&str> = places
        .iter()
        .map(|at| match at {
            At::Scalar => "scalars",
            At::Enum => "enums",
            At::EnumValue => "values of enums",
            At::Object => "object types",
            At::Interface => "interfaces",
            At::Union => "unions",
            At::Input => "input types",
            At::Field => "fields",
            At::Argument => "arguments",
        })
        .collect();
    names.join(", ")
}
