//! Topic names and patterns over them.
//!
//! Invariant: a pattern never matches a topic that is Kafka's own (`_*`) or ours (`tidewire.*`), and a `{tenant}` capture
//! has exactly one reading. It does not know the dead-letter topic's configured name.

use std::sync::Arc;

use crate::ids::{BadName, TenantId};

/// What stands for the tenant in a pattern.
pub(super) const CAPTURE: &str = "{tenant}";

/// A topic name; `*` matches any run of characters, `{tenant}` captures the tenant. Patterns never match `_*`,
/// `tidewire.*` or a dead-letter topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TopicPattern {
    text: Arc<str>,
    /// It is a topic of ours, named by the gateway and not by a contract.
    is_ours: bool,
}

/// What a matching topic's name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicMatch {
    /// The captured tenant; `None` where the pattern captures none.
    pub tenant: Option<TenantId>,
}

impl TopicPattern {
    /// Parses a name or pattern: letters, digits, `.`, `_`, `-`; any number of `*`, or one `{tenant}`.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let bad = |rule| BadName {
            what: "topic",
            value: text.chars().take(64).collect(),
            rule,
        };
        let captures = text.matches(CAPTURE).count();
        let plain = text.replacen(CAPTURE, "", captures);
        if text.is_empty() {
            return Err(bad("it must not be empty"));
        }
        if !plain
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '*'))
        {
            return Err(bad(
                "letters, digits, `.`, `_` and `-`, and `*` or `{tenant}` in a pattern",
            ));
        }
        if captures > 1 {
            return Err(bad("`{tenant}` may stand once"));
        }
        if captures == 1 && plain.contains('*') {
            return Err(bad(
                "a `*` beside `{tenant}` would leave open where the tenant's name ends",
            ));
        }
        if plain.len() > 249 {
            return Err(bad("Kafka's topic names have at most 249 characters"));
        }
        if text == "." || text == ".." {
            return Err(bad("Kafka has no topics named `.` and `..`"));
        }
        if is_reserved(text) {
            return Err(bad("topics that start with `_` or `tidewire.` are never read"));
        }
        Ok(Self {
            text: Arc::from(text),
            is_ours: false,
        })
    }

    /// A topic that the gateway itself writes: a plain name, which may be one that no pattern matches.
    pub(super) fn ours(name: &str) -> Self {
        Self {
            text: Arc::from(name),
            is_ours: true,
        }
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is a plain name that matches one topic.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        !self.text.contains('*') && !self.has_capture()
    }

    /// Whether it captures the tenant.
    #[must_use]
    pub fn has_capture(&self) -> bool {
        self.text.contains(CAPTURE)
    }

    /// Whether the topic is one of these, and whose it is. A capture that is no acceptable tenant matches nothing.
    #[must_use]
    pub fn matches(&self, topic: &str) -> Option<TopicMatch> {
        if self.is_ours {
            return (*self.text == *topic).then_some(TopicMatch { tenant: None });
        }
        if is_reserved(topic) {
            return None;
        }
        if let Some((before, after)) = self.text.split_once(CAPTURE) {
            let tenant = topic.strip_prefix(before)?.strip_suffix(after)?;
            return Some(TopicMatch {
                tenant: Some(TenantId::parse(tenant).ok()?),
            });
        }
        matches_wildcards(&self.text, topic).then_some(TopicMatch { tenant: None })
    }

    /// Whether some topic could be read by both patterns as another tenant's: both capture, and neither prefix nor
    /// suffix keeps them apart.
    #[must_use]
    pub fn is_ambiguous_with(&self, other: &Self) -> bool {
        let (Some((before, after)), Some((other_before, other_after))) =
            (self.text.split_once(CAPTURE), other.text.split_once(CAPTURE))
        else {
            return false;
        };
        let prefixes_meet = before.starts_with(other_before) || other_before.starts_with(before);
        let suffixes_meet = after.ends_with(other_after) || other_after.ends_with(after);
        self.text != other.text && prefixes_meet && suffixes_meet
    }
}

fn is_reserved(topic: &str) -> bool {
    topic.starts_with('_') || topic.starts_with("tidewire.")
}

/// Greedy from both ends: the first piece is a prefix, the last a suffix, the others follow in order.
fn matches_wildcards(pattern: &str, topic: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == topic;
    };
    let Some(mut topic) = topic.strip_prefix(first) else {
        return false;
    };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(without_last) = topic.strip_suffix(last) else {
        return false;
    };
    topic = without_last;
    for piece in middle.split('*').filter(|piece| !piece.is_empty()) {
        let Some((_, after)) = topic.split_once(piece) else {
            return false;
        };
        topic = after;
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> TopicPattern {
        TopicPattern::parse(text).expect("a good pattern")
    }

    #[test]
    fn a_name_matches_itself_only() {
        let topic = pattern("fhir.observation");
        assert!(topic.is_literal());
        assert_eq!(
            topic.matches("fhir.observation"),
            Some(TopicMatch { tenant: None })
        );
        assert_eq!(topic.matches("fhir.observations"), None);
        assert_eq!(topic.matches("fhir_observation"), None);
    }

    #[test]
    fn a_star_matches_any_run() {
        let topic = pattern("fhir.*.v*");
        assert!(!topic.is_literal());
        assert!(topic.matches("fhir..v").is_some());
        assert!(topic.matches("fhir.patient.v2").is_some());
        assert!(topic.matches("fhir.patient").is_none());
        assert!(pattern("a*a").matches("a").is_none(), "the ends do not overlap");
    }

    #[test]
    fn the_tenant_is_captured() {
        let topic = pattern("north.{tenant}.events");
        let found = topic.matches("north.st-mary.events").expect("matches");
        assert_eq!(found.tenant, Some(TenantId::parse("st-mary").expect("a tenant")));
        assert_eq!(
            topic.matches("north..events"),
            None,
            "an empty capture is no tenant"
        );
        assert_eq!(topic.matches("north.events"), None);
    }

    #[test]
    fn reserved_topics_are_never_matched() {
        for reserved in [
            "_schemas",
            "__consumer_offsets",
            "tidewire.control",
            "tidewire.dead-letters",
        ] {
            assert_eq!(pattern("*").matches(reserved), None);
            assert_eq!(pattern("{tenant}").matches(reserved), None);
            assert!(TopicPattern::parse(reserved).is_err());
        }
        assert!(pattern("*").matches("tidewire").is_some());
    }

    #[test]
    fn what_leaves_the_tenant_open_is_refused() {
        for bad in [
            "*.{tenant}",
            "{tenant}{tenant}",
            "{tenant}.{tenant}",
            "{claims.x}",
            "",
            ".",
            "a b",
            "é",
        ] {
            assert!(TopicPattern::parse(bad).is_err(), "{bad}");
        }
        assert!(pattern("a.{tenant}").is_ambiguous_with(&pattern("a.b.{tenant}")));
        assert!(pattern("{tenant}.x").is_ambiguous_with(&pattern("a.{tenant}")));
        assert!(!pattern("a.{tenant}").is_ambiguous_with(&pattern("b.{tenant}")));
        assert!(!pattern("a.{tenant}").is_ambiguous_with(&pattern("a.b.*")));
    }

    /// The obvious recursive reading of a pattern.
    fn naive(pattern: &[u8], topic: &[u8]) -> bool {
        match pattern.split_first() {
            None => topic.is_empty(),
            Some((b'*', rest)) => (0..=topic.len()).any(|at| naive(rest, &topic[at..])),
            Some((byte, rest)) => topic.first() == Some(byte) && naive(rest, &topic[1..]),
        }
    }

    proptest! {
        #[test]
        fn wildcards_match_as_the_naive_reading_does(text in "[ab.*]{1,8}", topic in "[ab.]{0,10}") {
            prop_assume!(TopicPattern::parse(&text).is_ok());
            prop_assert_eq!(pattern(&text).matches(&topic).is_some(), naive(text.as_bytes(), topic.as_bytes()));
        }
    }
}
