//! What one principal may get of one stream. Default deny.
//!
//! The same [`Grant`] decides on every path: live, replay, pull. Readers share work when their compiled
//! [`Selection`]s are equal, never because some claims are equal. Knows nothing of tokens beyond the [`Principal`].

use std::sync::Arc;

use schemas::attributes::Atom;
use schemas::contract::{
    AccessRule, Attribute, AttributeSource, Contract, Rows, Stream, Template, TemplatePart,
};
use schemas::event::Event;
use schemas::filter::{BadFilter, Predicate};
use schemas::ids::{AttributeId, TenantId};
use schemas::problem::Code;
use schemas::project::Mask;
use smallvec::{SmallVec, smallvec};

use crate::scope::{self, Held, Parameter, Scope};
use crate::token::Principal;

/// The most clauses that a grant may have: their matches are one byte of bits.
pub const CLAUSES_MAX: usize = 8;

/// The most clauses that are looked at before those that others contain are left out: comparing them is quadratic.
const CANDIDATES_MAX: usize = 256;

/// Rows, and what of them is shown.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Clause {
    /// Which rows of the tenant.
    pub rows: Predicate,
    /// Which fields of them.
    pub mask: Arc<Mask>,
}

/// What one principal may get of one stream. Clauses are sorted and distinct, and none is contained in another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Always ANDed; no rule can take it away.
    pub tenant: TenantId,
    /// At least one.
    pub clauses: SmallVec<[Clause; 1]>,
    /// Rows that no clause gives: those for which consent was withdrawn.
    pub exceptions: Exceptions,
    /// Until when, in milliseconds since the Unix epoch.
    pub expires_at_ms: i64,
}

/// A grant narrowed by a filter: what decides, event by event. The key by which readers share a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Selection {
    /// Always ANDed.
    pub tenant: TenantId,
    /// At least one, sorted and distinct. Where the filter leaves no row at all there is exactly one, which never matches.
    pub clauses: SmallVec<[Clause; 1]>,
    /// Rows that no clause gives. Readers with other exceptions share no group.
    pub exceptions: Exceptions,
}

/// Values of attributes whose events are not given, sorted and distinct. Of an attribute with several values in one event,
/// one of them is enough.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Exceptions(Arc<[(AttributeId, Atom)]>);

/// A stream that a principal may know, and how far.
#[derive(Debug, Clone)]
pub struct Granted {
    /// The stream.
    pub stream: Arc<Stream>,
    /// What of it.
    pub grant: Grant,
    /// The attributes by which it may be filtered under this grant, as they are declared.
    pub filterable: Vec<AttributeId>,
}

/// Why there is no grant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", code.name)]
pub struct Denied {
    /// What the client is told.
    pub code: Code,
    /// More, without data.
    pub detail: String,
}

/// The streams of a contract that a principal may know: those of which it has a grant.
#[must_use]
pub fn granted(contract: &Contract, principal: &Principal) -> Vec<Granted> {
    let mut known = Vec::new();
    for stream in &contract.streams {
        if let Ok(grant) = Grant::compile(stream, principal) {
            let filterable = grant.filterable(stream);
            known.push(Granted {
                stream: Arc::clone(stream),
                grant,
                filterable,
            });
        }
    }
    known
}

impl Grant {
    /// Compiles the stream's rules for a principal: every rule of which a scope is held gives a clause, or one for each
    /// restriction under which it is held.
    pub fn compile(stream: &Stream, principal: &Principal) -> Result<Self, Denied> {
        let scopes: Vec<Scope> = principal.scopes.iter().map(|text| Scope::parse(text)).collect();
        let mut clauses: SmallVec<[Clause; 1]> = SmallVec::new();
        for rule in &stream.access {
            let held = scope::held(&rule.scopes, &scopes);
            if held == Held::No {
                continue;
            }
            let Some(rows) = rule_rows(stream, rule, principal) else {
                continue;
            };
            let mut add = |rows| {
                clauses.push(Clause {
                    rows,
                    mask: Arc::clone(&rule.mask),
                })
            };
            match held {
                Held::No => {}
                Held::Whole => add(rows),
                Held::Restricted(alternatives) => alternatives
                    .into_iter()
                    .filter_map(|restriction| restrict(stream, &rows, restriction))
                    .for_each(add),
            }
        }
        let too_wide = |count: usize| Denied {
            code: Code::GRANT_TOO_WIDE,
            detail: format!(
                "{count} access clauses apply to {}, at most {CLAUSES_MAX} may",
                stream.name
            ),
        };
        if clauses.len() > CANDIDATES_MAX {
            return Err(too_wide(clauses.len()));
        }
        let clauses = canonical(clauses);
        if clauses.is_empty() {
            return Err(Denied {
                code: Code::STREAM_FORBIDDEN,
                detail: format!("{} does not exist or is not granted", stream.name),
            });
        }
        if clauses.len() > CLAUSES_MAX {
            return Err(too_wide(clauses.len()));
        }
        Ok(Self {
            tenant: principal.tenant.clone(),
            clauses,
            exceptions: Exceptions::compile(stream, principal),
            expires_at_ms: principal.expires_at_ms,
        })
    }

    /// Narrows the grant by a reader's filter. A clause that hides an attribute cannot be filtered by it: it is dropped,
    /// and if none is left the answer is a refusal, the same as for an attribute that does not exist.
    pub fn select(&self, stream: &Stream, filter: &Predicate) -> Result<Selection, Denied> {
        let mut clauses: SmallVec<[Clause; 1]> = SmallVec::new();
        for clause in &self.clauses {
            if filter.terms().any(|(id, _)| hides(stream, &clause.mask, id)) {
                continue;
            }
            let rows = narrow(stream, &clause.rows, filter).ok_or_else(|| inexact("grant"))?;
            clauses.push(Clause {
                rows,
                mask: Arc::clone(&clause.mask),
            });
        }
        let Some(never) = clauses.first().cloned() else {
            let hidden = filter
                .terms()
                .find(|(id, _)| self.clauses.iter().all(|clause| hides(stream, &clause.mask, *id)))
                .or_else(|| filter.terms().next())
                .and_then(|(id, _)| stream.attributes.get(usize::from(id.0)));
            return Err(unknown(stream, hidden));
        };
        let mut clauses = canonical(clauses);
        if clauses.is_empty() {
            // The filter asks for rows that the grant does not give. That is no error: it would tell what is not granted.
            clauses = smallvec![never];
        }
        Ok(Selection {
            tenant: self.tenant.clone(),
            clauses,
            exceptions: self.exceptions.clone(),
        })
    }

    /// The grant without the clauses that hide one of these attributes: what may decide together with a filter that no
    /// [`Predicate`] can say. If no clause is left the answer is a refusal, the same as for an attribute that does not exist.
    pub fn showing(&self, stream: &Stream, attributes: &[AttributeId]) -> Result<Selection, Denied> {
        let hidden_by = |clause: &Clause| attributes.iter().find(|id| hides(stream, &clause.mask, **id));
        let clauses: SmallVec<[Clause; 1]> = self
            .clauses
            .iter()
            .filter(|clause| hidden_by(clause).is_none())
            .cloned()
            .collect();
        if clauses.is_empty() {
            let hidden = self
                .clauses
                .first()
                .and_then(hidden_by)
                .and_then(|id| stream.attributes.get(usize::from(id.0)));
            return Err(unknown(stream, hidden));
        }
        Ok(Selection {
            tenant: self.tenant.clone(),
            clauses,
            exceptions: self.exceptions.clone(),
        })
    }

    /// Whether whoever has this grant may see everything that another one shows: the tenant is the same, and each clause of
    /// the other is contained in one of this, and what this leaves out, the other leaves out as well. Times are not compared.
    #[must_use]
    pub fn includes(&self, other: &Self) -> bool {
        let is_contained = |clause: &Clause| self.clauses.iter().any(|mine| mine.contains(clause));
        let is_excepted = |exception| other.exceptions.0.contains(exception);
        self.tenant == other.tenant
            && self.exceptions.0.iter().all(is_excepted)
            && other.clauses.iter().all(is_contained)
    }

    /// The attributes by which at least one clause may be filtered.
    #[must_use]
    pub fn filterable(&self, stream: &Stream) -> Vec<AttributeId> {
        (0..stream.attributes.len())
            .filter_map(|place| u16::try_from(place).ok().map(AttributeId))
            .filter(|id| self.may_filter(stream, *id))
            .collect()
    }

    /// Reads a reader's filter from a query string. An attribute by which no clause may be filtered is unknown, before
    /// anything else is said of its values.
    pub fn filter_from_query<'a>(
        &self,
        stream: &Stream,
        pairs: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<Predicate, BadFilter> {
        Predicate::from_query_within(stream, &|id| self.may_filter(stream, id), pairs)
    }

    /// Reads a reader's filter from JSON, as [`Grant::filter_from_query`] does.
    pub fn filter_from_json(
        &self,
        stream: &Stream,
        filter: &serde_json::Value,
    ) -> Result<Predicate, BadFilter> {
        Predicate::from_json_within(stream, &|id| self.may_filter(stream, id), filter)
    }

    fn may_filter(&self, stream: &Stream, id: AttributeId) -> bool {
        self.clauses.iter().any(|clause| !hides(stream, &clause.mask, id))
    }
}

impl Selection {
    /// The clauses that this event matches, one bit each. Zero: the reader does not get it.
    #[must_use]
    pub fn matching(&self, event: &Event) -> u8 {
        if event.tenant != self.tenant || self.exceptions.cover(event) {
            return 0;
        }
        self.clauses
            .iter()
            .enumerate()
            .filter(|(_, clause)| clause.rows.matches(&event.attributes))
            .fold(0, |bits, (place, _)| bits | (1 << place))
    }

    /// What is shown of an event that matches these clauses: hidden is what all of them hide. With no clause, nothing is.
    #[must_use]
    pub fn mask(&self, bits: u8) -> Arc<Mask> {
        let mut matching = (0_u8..)
            .zip(&self.clauses)
            .filter(|(place, _)| bits & (1 << place) != 0);
        let Some((_, first)) = matching.next() else {
            return Arc::new(Mask::Show(Arc::from([])));
        };
        let rest: SmallVec<[&Arc<Mask>; CLAUSES_MAX]> = matching.map(|(_, clause)| &clause.mask).collect();
        if rest.iter().all(|mask| **mask == first.mask) {
            return Arc::clone(&first.mask);
        }
        Arc::new(Mask::any_of(
            std::iter::once(&first.mask).chain(rest).map(|mask| &**mask),
        ))
    }
}

impl Exceptions {
    /// The denials of a principal, as far as the stream declares what they name. (It is the caller's to have filled them in.)
    fn compile(stream: &Stream, principal: &Principal) -> Self {
        let mut excepted: Vec<(AttributeId, Atom)> = principal
            .denials
            .iter()
            .filter(|denial| denial.tenant == principal.tenant)
            .filter_map(|denial| {
                let id = stream.attribute(denial.attribute.as_str())?;
                Some((id, normal(stream, id, Arc::clone(&denial.value))))
            })
            .collect();
        excepted.sort_unstable();
        excepted.dedup();
        if excepted.is_empty() {
            return Self::default();
        }
        Self(excepted.into())
    }

    /// Whether the event is one of those that are not given. What it costs grows with the event's values, and hardly with
    /// the exceptions.
    fn cover(&self, event: &Event) -> bool {
        !self.0.is_empty()
            && event
                .attributes
                .iter()
                .any(|value| self.0.binary_search(value).is_ok())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Clause {
    /// Whether every event that `other` gives is given by this clause too, with at least the same fields: every term here
    /// is on an attribute that `other` constrains as much or more.
    fn contains(&self, other: &Self) -> bool {
        let fields = self.mask.hides_nothing() || self.mask == other.mask;
        fields
            && self.rows.terms().all(|(id, wanted)| {
                other
                    .rows
                    .terms()
                    .any(|(have, values)| have == id && is_subset(values, wanted))
            })
    }
}

/// Sorted, distinct, without clauses that never match and without those that another one contains. Contained clauses
/// change nothing: where they match, the other matches too and hides no more. Equal grants become equal as data.
fn canonical(mut clauses: SmallVec<[Clause; 1]>) -> SmallVec<[Clause; 1]> {
    clauses.retain(|clause| !clause.rows.is_never());
    clauses.sort();
    clauses.dedup();
    let all = clauses.clone();
    // Two distinct clauses cannot contain each other: they would have the same terms and the same mask, or both hide
    // nothing in two spellings; of those the first stays.
    let mut place = 0;
    clauses.retain(|clause| {
        let mine = place;
        place += 1;
        !all.iter().enumerate().any(|(other, candidate)| {
            other != mine && candidate.contains(clause) && (!clause.contains(candidate) || other < mine)
        })
    });
    clauses
}

/// A reader's filter within the one that its ticket is sealed with: an event must match both.
pub fn within_ticket(stream: &Stream, ticket: &Predicate, filter: &Predicate) -> Result<Predicate, Denied> {
    narrow(stream, ticket, filter).ok_or_else(|| inexact("ticket"))
}

/// What is said of an attribute that is hidden: what is said of one that does not exist.
fn unknown(stream: &Stream, attribute: Option<&Attribute>) -> Denied {
    Denied {
        code: Code::UNKNOWN_PARAMETER,
        detail: attribute.map_or_else(String::new, |attribute| {
            format!("{:?} is no attribute of {}", attribute.name.as_str(), stream.name)
        }),
    }
}

/// Two restrictions that no single predicate can say.
fn inexact(by: &str) -> Denied {
    Denied {
        code: Code::FILTER_INVALID,
        detail: format!(
            "an attribute with several values is restricted by the {by}: only values that the {by} names can be asked for"
        ),
    }
}

/// The rows that a rule gives to this principal; `None` where a claim that it needs is missing or empty.
fn rule_rows(stream: &Stream, rule: &AccessRule, principal: &Principal) -> Option<Predicate> {
    let mut rows = Predicate::default();
    if let Rows::Match(templates) = &rule.rows {
        for (id, template) in templates {
            let claim = |name: &str| {
                principal
                    .claims
                    .get(name)
                    .filter(|value| !value.is_empty())
                    .cloned()
            };
            let value = template.fill(claim, &principal.subject)?;
            // `Patient/{claims.patient}` is compared as it stands: normalising it would let a claim with a `/` in it
            // choose the type. A claim that is the whole reference is normalised like the event's.
            let value = if is_whole_claim(template) {
                normal(stream, *id, value)
            } else {
                value
            };
            rows.require(*id, [value]);
        }
    }
    Some(rows)
}

fn is_whole_claim(template: &Template) -> bool {
    matches!(
        template.parts.as_slice(),
        [TemplatePart::Claim(_) | TemplatePart::Subject]
    )
}

/// Adds a scope's restriction to a rule's rows. `None` where it names something that is no declared attribute, or cannot
/// be expressed exactly: denied.
fn restrict(stream: &Stream, rows: &Predicate, restriction: &[Parameter]) -> Option<Predicate> {
    let mut rows = rows.clone();
    for parameter in restriction {
        let id = stream.attribute(&parameter.name)?;
        let mut more = Predicate::default();
        more.require(
            id,
            parameter
                .values
                .iter()
                .map(|value| normal(stream, id, Atom::from(value.as_str()))),
        );
        rows = narrow(stream, &rows, &more)?;
    }
    Some(rows)
}

/// Both predicates as one. `None` where one cannot say it: an attribute with several values may satisfy two sets that
/// overlap without having a value in both, so the result is exact only where one set contains the other.
fn narrow(stream: &Stream, rows: &Predicate, more: &Predicate) -> Option<Predicate> {
    let mut both = rows.clone();
    for (id, values) in more.terms() {
        if is_multiple(stream, id) {
            let overlap = rows
                .terms()
                .any(|(have, wanted)| have == id && !is_subset(values, wanted) && !is_subset(wanted, values));
            if overlap {
                return None;
            }
        }
        both.require(id, values.iter().cloned());
    }
    Some(both)
}

/// Both are sorted.
fn is_subset(small: &[Atom], large: &[Atom]) -> bool {
    small.iter().all(|value| large.binary_search(value).is_ok())
}

fn is_multiple(stream: &Stream, id: AttributeId) -> bool {
    stream.attributes.get(usize::from(id.0)).is_none_or(
        |attribute| matches!(&attribute.source, AttributeSource::Pointer(pointer) if pointer.has_wildcard()),
    )
}

/// Whether a mask hides what the attribute is read from. An attribute that is not declared is hidden. One from the key or
/// a header is, where the mask hides another that is declared: the key may hold its value ([`Event::encode`] leaves it
/// out then), and a filter by it would tell that value by trial.
fn hides(stream: &Stream, mask: &Mask, id: AttributeId) -> bool {
    let hidden =
        |source: &AttributeSource| matches!(source, AttributeSource::Pointer(pointer) if mask.hides(pointer));
    stream
        .attributes
        .get(usize::from(id.0))
        .is_none_or(|attribute| match &attribute.source {
            AttributeSource::Pointer(_) => hidden(&attribute.source),
            AttributeSource::Key | AttributeSource::Header(_) => {
                stream.attributes.iter().any(|other| hidden(&other.source))
            }
        })
}

fn normal(stream: &Stream, id: AttributeId, value: Atom) -> Atom {
    match stream.attributes.get(usize::from(id.0)) {
        Some(attribute) if attribute.reference => Atom::from(schemas::attributes::reference(&value)),
        _ => value,
    }
}

#[cfg(test)]
mod tests;
