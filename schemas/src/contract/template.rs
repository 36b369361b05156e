//! Text with `{claims.NAME}` and `{subject}` in it: what a reader's token says, put into a row constraint.
//!
//! Invariant: a claim that is missing leaves nothing to compare with, never an empty text. It does not know tokens.

use crate::attributes::Atom;

use super::nearest::nearest;

/// Text with `{claims.NAME}` and `{subject}` in it; `{{` and `}}` stand for braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// In order.
    pub parts: Vec<TemplatePart>,
}

/// A piece of a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplatePart {
    /// As it stands.
    Text(String),
    /// The claim of that name; a claim that is missing or no string makes the clause false.
    Claim(String),
    /// The token's subject.
    Subject,
}

/// Why text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTemplate {
    /// Nothing is in it: no row could ever equal it.
    #[error("the template is empty")]
    Empty,
    /// `{` without its `}`.
    #[error("a `{{` is never closed")]
    Unclosed,
    /// `}` without its `{`.
    #[error("a `}}` was never opened")]
    Unopened,
    /// `{}` or `{claims.}`.
    #[error("`{{{0}}}` names nothing")]
    Nameless(String),
    /// Another name than `claims.NAME` and `subject`.
    #[error("`{{{0}}}` is not known")]
    Unknown(String),
}

impl BadTemplate {
    /// The stable code of the finding.
    pub(super) fn code(&self) -> &'static str {
        if matches!(self, Self::Unknown(_)) {
            "template_variable_unknown"
        } else {
            "template_syntax"
        }
    }

    /// How to mend it.
    pub(super) fn mend(&self) -> String {
        match self {
            Self::Empty => "write a value, such as \"Patient/{claims.patient}\"".to_owned(),
            Self::Unclosed => "close it: {claims.NAME} or {subject}; a brace itself is written {{".to_owned(),
            Self::Unopened => "remove it; a brace itself is written }}".to_owned(),
            Self::Nameless(_) => "write {claims.NAME} or {subject}".to_owned(),
            Self::Unknown(name) if name == "tenant" => {
                "remove it: the tenant is compared always, no rule needs to say so".to_owned()
            }
            Self::Unknown(name) => match name.split_once('.') {
                Some((head, claim)) if nearest(head, ["claims"]).is_some() => {
                    format!("did you mean {{claims.{claim}}}?")
                }
                _ if nearest(name, ["subject"]).is_some() => "did you mean {subject}?".to_owned(),
                _ => format!("write {{claims.{name}}} for the claim of that name, or {{subject}}"),
            },
        }
    }
}

impl Template {
    /// Parses a template.
    pub fn parse(text: &str) -> Result<Self, BadTemplate> {
        if text.is_empty() {
            return Err(BadTemplate::Empty);
        }
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            match c {
                '{' if rest.next_if_eq(&'{').is_some() => plain.push('{'),
                '}' if rest.next_if_eq(&'}').is_some() => plain.push('}'),
                '}' => return Err(BadTemplate::Unopened),
                '{' => {
                    let mut name = String::new();
                    loop {
                        match rest.next() {
                            Some('}') => break,
                            Some('{') | None => return Err(BadTemplate::Unclosed),
                            Some(c) => name.push(c),
                        }
                    }
                    if !plain.is_empty() {
                        parts.push(TemplatePart::Text(std::mem::take(&mut plain)));
                    }
                    parts.push(variable(name)?);
                }
                c => plain.push(c),
            }
        }
        if !plain.is_empty() {
            parts.push(TemplatePart::Text(plain));
        }
        Ok(Self { parts })
    }

    /// Fills the template in. `None` where a claim is missing.
    pub fn fill(&self, claim: impl Fn(&str) -> Option<Atom>, subject: &str) -> Option<Atom> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                TemplatePart::Text(piece) => text.push_str(piece),
                TemplatePart::Claim(name) => text.push_str(&claim(name)?),
                TemplatePart::Subject => text.push_str(subject),
            }
        }
        Some(Atom::from(text))
    }

    /// The claims that it reads.
    pub fn claims(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            TemplatePart::Claim(name) => Some(name.as_str()),
            TemplatePart::Text(_) | TemplatePart::Subject => None,
        })
    }
}

fn variable(name: String) -> Result<TemplatePart, BadTemplate> {
    match name.strip_prefix("claims.") {
        _ if name == "subject" => Ok(TemplatePart::Subject),
        Some("") => Err(BadTemplate::Nameless(name)),
        Some(claim) if claim.chars().all(|c| !c.is_whitespace() && !c.is_control()) => {
            Ok(TemplatePart::Claim(claim.to_owned()))
        }
        _ if name.trim().is_empty() => Err(BadTemplate::Nameless(name)),
        _ => Err(BadTemplate::Unknown(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(text: &str) -> Option<String> {
        let claim = |name: &str| (name == "patient").then(|| Atom::from("1"));
        let template = Template::parse(text).expect("a good template");
        template.fill(claim, "dr-who").map(|atom| atom.to_string())
    }

    #[test]
    fn claims_and_the_subject_are_filled_in() {
        assert_eq!(fill("Patient/{claims.patient}").as_deref(), Some("Patient/1"));
        assert_eq!(fill("{subject}:{claims.patient}").as_deref(), Some("dr-who:1"));
        assert_eq!(fill("{{x}}").as_deref(), Some("{x}"));
        assert_eq!(fill("plain").as_deref(), Some("plain"));
    }

    #[test]
    fn a_missing_claim_leaves_nothing() {
        assert_eq!(fill("Patient/{claims.nobody}"), None);
    }

    #[test]
    fn what_is_no_template_says_why() {
        let bad = |text| Template::parse(text).expect_err("not a template");
        assert_eq!(bad(""), BadTemplate::Empty);
        assert_eq!(bad("Patient/{claims.patient"), BadTemplate::Unclosed);
        assert_eq!(bad("{a{b}"), BadTemplate::Unclosed);
        assert_eq!(bad("a}"), BadTemplate::Unopened);
        assert_eq!(bad("{}"), BadTemplate::Nameless(String::new()));
        assert_eq!(bad("{claims.}"), BadTemplate::Nameless("claims.".to_owned()));
        assert_eq!(bad("{claim.patient}").mend(), "did you mean {claims.patient}?");
        assert_eq!(bad("{sub ject}").mend(), "did you mean {subject}?");
        assert!(bad("{tenant}").mend().contains("always"));
    }
}
