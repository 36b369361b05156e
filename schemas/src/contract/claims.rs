//! The claims that a contract's rules read.
//!
//! Invariant: every claim of every row template is listed, with the place of its rule. It does not know issuers: the
//! gateway compares this with the claims that its issuers pass on, and refuses a rule that could never match.

use crate::ids::StreamName;

use super::finding::Place;
use super::{Contract, Rows};

/// The claims that one rule cannot do without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimsUsed {
    /// The stream.
    pub stream: StreamName,
    /// Where the rule was declared.
    pub place: Place,
    /// The claims' names, sorted and distinct; never empty.
    pub claims: Vec<String>,
}

impl Contract {
    /// The rules that read claims. A rule matches nothing for a principal that lacks one of its claims.
    #[must_use]
    pub fn claims_used(&self) -> Vec<ClaimsUsed> {
        let mut used = Vec::new();
        for stream in &self.streams {
            for rule in &stream.access {
                let Rows::Match(terms) = &rule.rows else { continue };
                let mut claims: Vec<String> = terms
                    .iter()
                    .flat_map(|(_, template)| template.claims())
                    .map(str::to_owned)
                    .collect();
                claims.sort();
                claims.dedup();
                if !claims.is_empty() {
                    used.push(ClaimsUsed {
                        stream: stream.name.clone(),
                        place: rule.place.clone(),
                        claims,
                    });
                }
            }
        }
        used
    }
}
