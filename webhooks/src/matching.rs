//! Which endpoints an event is owed to. Pure.
//!
//! One invariant: an event is owed only where the owner's grant shows it, the filter and the types ask for it, and the
//! endpoint was there when it came. The same [`Interest::judge`] decides before every attempt, with a grant compiled anew.
//! Knows nothing of Kafka and of what was delivered.

use std::collections::BTreeMap;
use std::sync::Arc;

use ahash::AHashMap;
use auth::access::{Grant, Selection};
use auth::token::Principal;
use schemas::contract::Stream;
use schemas::event::Event;
use schemas::filter::BadFilter;
use schemas::ids::{Incarnation, StreamName, TenantId};
use schemas::problem::Code;
use schemas::project::Mask;

use crate::delivery::{DeliveryId, DeliveryIds, EndpointId, Position};
use crate::filter::{Compiled, Filter};

/// What an endpoint wants of its streams.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Event types, whole; none: all of them.
    pub types: Vec<String>,
    /// The filter.
    pub filter: Filter,
}

/// The offsets from which on an endpoint is owed events: the ends of the partitions when it was created or enabled.
/// A partition that is not named came later, and is owed from its beginning.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Start {
    offsets: BTreeMap<(Arc<str>, Incarnation, i32), i64>,
}

/// One endpoint's interest in one stream, compiled.
#[derive(Debug, Clone)]
pub struct Interest {
    /// Whose.
    pub endpoint: EndpointId,
    /// Until when its owner may have anything, in milliseconds since the Unix epoch.
    pub expires_at_ms: i64,
    stream: StreamName,
    selection: Selection,
    filter: Compiled,
    types: Vec<String>,
    start: Start,
}

/// Why an endpoint gets nothing of a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", code.name)]
pub struct Unentitled {
    /// What a client is told.
    pub code: Code,
    /// More, for people, without data.
    pub detail: String,
}

/// One event owed to one endpoint.
#[derive(Debug, Clone)]
pub struct Owed {
    /// The interest that it meets.
    pub interest: Arc<Interest>,
    /// The id of the delivery.
    pub id: DeliveryId,
}

/// All interests of a node, by stream and tenant.
#[derive(Debug, Default)]
pub struct Index {
    by_stream: AHashMap<StreamName, AHashMap<TenantId, Vec<Arc<Interest>>>>,
}

impl Start {
    /// Sets where one partition begins.
    pub fn set(&mut self, topic: Arc<str>, incarnation: Incarnation, partition: i32, offset: i64) {
        self.offsets.insert((topic, incarnation, partition), offset);
    }

    /// Sets where partitions begin that have no beginning yet. One that has keeps it: what is owed of it stays owed.
    pub fn extend(&mut self, positions: impl IntoIterator<Item = Position>) {
        for position in positions {
            let key = (position.topic, position.incarnation, position.partition);
            self.offsets.entry(key).or_insert(position.offset);
        }
    }

    /// Forgets the topics that are not wanted any more: if they are wanted again, they begin then.
    pub fn retain(&mut self, is_wanted: impl Fn(&str) -> bool) {
        self.offsets.retain(|(topic, ..), _| is_wanted(topic));
    }

    /// Whether a record is one of those that are owed.
    #[must_use]
    pub fn covers(&self, position: &Position) -> bool {
        let key = (
            Arc::clone(&position.topic),
            position.incarnation,
            position.partition,
        );
        self.offsets
            .get(&key)
            .is_none_or(|start| position.offset >= *start)
    }

    /// The first offset of a partition that is owed.
    #[must_use]
    pub fn of(&self, topic: &Arc<str>, incarnation: Incarnation, partition: i32) -> i64 {
        let key = (Arc::clone(topic), incarnation, partition);
        self.offsets.get(&key).copied().unwrap_or(0)
    }

    /// Topic, incarnation, partition and the first offset of it that is owed.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, Incarnation, i32, i64)> {
        self.offsets
            .iter()
            .map(|((topic, incarnation, partition), offset)| (topic, *incarnation, *partition, *offset))
    }
}

impl Interest {
    /// Compiles what an endpoint wants of one stream, under the grant of its owner. Refused where the owner may not have
    /// the stream, or the filter asks for what the owner may not filter by.
    pub fn compile(
        endpoint: &EndpointId,
        wanted: &Wanted,
        start: Start,
        stream: &Stream,
        owner: &Principal,
    ) -> Result<Self, Unentitled> {
        let grant = Grant::compile(stream, owner)?;
        let filter = wanted.filter.compile(stream, &grant.filterable(stream))?;
        let selection = grant.showing(stream, filter.attributes())?;
        Ok(Self {
            endpoint: endpoint.clone(),
            expires_at_ms: grant.expires_at_ms,
            stream: stream.name.clone(),
            selection,
            filter,
            types: wanted.types.clone(),
            start,
        })
    }

    /// Whether the event is owed to this endpoint, and if so what of it is shown.
    #[must_use]
    pub fn judge(&self, event: &Event, position: &Position, now_ms: i64) -> Option<Arc<Mask>> {
        if self.start.covers(position) {
            self.shows(event, now_ms)
        } else {
            None
        }
    }

    /// Whether the event may be sent to this endpoint, whenever it came, and if so what of it is shown: what decides before
    /// an attempt, also of what somebody asked to be sent again.
    #[must_use]
    pub fn shows(&self, event: &Event, now_ms: i64) -> Option<Arc<Mask>> {
        if now_ms >= self.expires_at_ms || event.stream.name != self.stream {
            return None;
        }
        if !self.types.is_empty() && !self.types.iter().any(|kind| **kind == *event.kind) {
            return None;
        }
        let bits = self.selection.matching(event);
        // The grant first: nothing of an event that it does not show is looked at.
        (bits != 0 && self.filter.matches(event)).then(|| self.selection.mask(bits))
    }
}

impl Interest {
    /// The stream.
    #[must_use]
    pub fn stream(&self) -> &StreamName {
        &self.stream
    }

    /// From where on events are owed.
    #[must_use]
    pub fn start(&self) -> &Start {
        &self.start
    }

    /// Whose events.
    #[must_use]
    pub fn tenant(&self) -> &TenantId {
        &self.selection.tenant
    }
}

impl Index {
    /// An index of these interests.
    pub fn new(interests: impl IntoIterator<Item = Arc<Interest>>) -> Self {
        let mut index = Self::default();
        for interest in interests {
            let tenants = index.by_stream.entry(interest.stream.clone()).or_default();
            let here = tenants.entry(interest.selection.tenant.clone()).or_default();
            here.push(interest);
        }
        index
    }

    /// To whom the event is owed.
    #[must_use]
    pub fn deliveries(
        &self,
        event: &Event,
        position: &Position,
        ids: &DeliveryIds,
        now_ms: i64,
    ) -> Vec<Owed> {
        let interests = self
            .by_stream
            .get(&event.stream.name)
            .and_then(|tenants| tenants.get(&event.tenant));
        let owed = |interest: &Arc<Interest>| {
            interest.judge(event, position, now_ms)?;
            Some(Owed {
                id: ids.of(&interest.endpoint, &event.stream.name, position),
                interest: Arc::clone(interest),
            })
        };
        interests.into_iter().flatten().filter_map(owed).collect()
    }

    /// Everybody's interests in a stream.
    pub fn interests(&self, stream: &StreamName) -> impl Iterator<Item = &Arc<Interest>> {
        let tenants = self.by_stream.get(stream);
        tenants.into_iter().flat_map(|tenants| tenants.values()).flatten()
    }

    /// Whether nobody wants anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_stream.is_empty()
    }

    /// The streams that somebody wants.
    #[must_use]
    pub fn streams(&self) -> std::collections::BTreeSet<StreamName> {
        self.by_stream.keys().cloned().collect()
    }
}

impl From<auth::access::Denied> for Unentitled {
    fn from(denied: auth::access::Denied) -> Self {
        Self {
            code: denied.code,
            detail: denied.detail,
        }
    }
}

impl From<BadFilter> for Unentitled {
    fn from(bad: BadFilter) -> Self {
        Self {
            code: bad.code,
            detail: bad.detail,
        }
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;
    use serde_json::{Value, json};

    use super::*;
    use crate::fixture;

    fn wanted(filter: &Value, types: &[&str]) -> Wanted {
        Wanted {
            types: types.iter().map(|kind| (*kind).to_owned()).collect(),
            filter: Filter::parse(filter).expect("a filter"),
        }
    }

    fn interest(tenant: &str, scopes: &[&str], wanted: &Wanted) -> Result<Interest, Unentitled> {
        let owner = fixture::principal(tenant, scopes);
        let start = Start::default();
        Interest::compile(&EndpointId::generate(), wanted, start, &fixture::stream(), &owner)
    }

    fn is_owed(interest: &Interest, event: &Event) -> bool {
        interest.judge(event, &fixture::position(3, 42), 0).is_some()
    }

    #[test]
    fn an_event_is_owed_to_its_own_tenant_under_the_owners_grant_only() {
        let everything = Wanted::default();
        let lund = interest("lund", &["system/Observation.rs"], &everything).expect("granted");
        let patient = interest("lund", &["patient/Observation.rs"], &everything).expect("granted");
        let one = fixture::observation("lund", "1", "final");
        let two = fixture::observation("lund", "2", "final");
        let other = fixture::observation("oslo", "1", "final");
        assert!(is_owed(&lund, &one) && is_owed(&lund, &two) && !is_owed(&lund, &other));
        assert!(is_owed(&patient, &one) && !is_owed(&patient, &two) && !is_owed(&patient, &other));
        let denied = interest("lund", &["system/Patient.rs"], &everything).expect_err("no rule");
        assert_eq!(denied.code, Code::STREAM_FORBIDDEN);
    }

    #[test]
    fn what_is_hidden_cannot_be_learnt_by_filtering_for_it() {
        let by_patient = json!({"exact": {"patient": "Patient/1"}});
        let not_patient = json!({"not": by_patient});
        for filter in [&by_patient, &not_patient] {
            let denied = interest("lund", &["observations.blind"], &wanted(filter, &[])).expect_err("hidden");
            assert_eq!(denied.code, Code::UNKNOWN_PARAMETER);
        }
        // With a second rule that shows the patient, only that rule's rows are left, whatever the filter says.
        let both = ["observations.blind", "patient/Observation.rs"];
        let interest = interest("lund", &both, &wanted(&not_patient, &[])).expect("granted");
        assert!(!is_owed(&interest, &fixture::observation("lund", "1", "final")));
        assert!(!is_owed(&interest, &fixture::observation("lund", "2", "final")));
    }

    #[test]
    fn types_the_start_and_the_end_of_the_authorization_limit_what_is_owed() {
        let event = fixture::observation("lund", "1", "final");
        let of = |types: &[&str]| {
            interest("lund", &["system/Observation.rs"], &wanted(&json!([]), types)).expect("granted")
        };
        assert!(is_owed(&of(&["tidewire.observations.changed"]), &event));
        assert!(!is_owed(&of(&["tidewire.observations.deleted"]), &event));

        let mut owner = fixture::principal("lund", &["system/Observation.rs"]);
        owner.expires_at_ms = 1_000;
        let mut start = Start::default();
        start.set(Arc::from("fhir.observation"), Incarnation(99), 3, 42);
        let endpoint = EndpointId::generate();
        let interest = Interest::compile(&endpoint, &Wanted::default(), start, &fixture::stream(), &owner);
        let interest = interest.expect("granted");
        let owed =
            |partition, offset, now_ms| interest.judge(&event, &fixture::position(partition, offset), now_ms);
        assert!(owed(3, 42, 999).is_some());
        assert!(owed(3, 41, 999).is_none());
        assert!(owed(4, 0, 999).is_some());
        assert!(owed(3, 42, 1_000).is_none());
    }

    #[test]
    fn a_start_that_is_extended_moves_nothing_that_is_owed() {
        let mut start = Start::default();
        let at = |topic: &str, offset| Position {
            topic: Arc::from(topic),
            incarnation: Incarnation(1),
            partition: 0,
            offset,
        };
        start.extend([at("a", 100), at("b", 7)]);
        start.extend([at("a", 500), at("c", 1)]);
        let offsets = |start: &Start| -> Vec<(String, i64)> {
            start
                .iter()
                .map(|(topic, _, _, offset)| (topic.to_string(), offset))
                .collect()
        };
        let named = |pairs: &[(&str, i64)]| -> Vec<(String, i64)> {
            pairs
                .iter()
                .map(|(topic, offset)| ((*topic).to_owned(), *offset))
                .collect()
        };
        assert_eq!(offsets(&start), named(&[("a", 100), ("b", 7), ("c", 1)]));
        start.retain(|topic| topic != "a");
        start.extend([at("a", 900)]);
        assert_eq!(offsets(&start), named(&[("a", 900), ("b", 7), ("c", 1)]));
    }

    #[test]
    fn the_index_gives_exactly_those_who_want_it_with_their_own_ids() {
        let system = ["system/Observation.rs"];
        let amended = wanted(&json!({"exact": {"status": "amended"}}), &[]);
        let interests = [
            interest("lund", &system, &Wanted::default()).expect("granted"),
            interest("lund", &system, &amended).expect("granted"),
            interest("oslo", &system, &Wanted::default()).expect("granted"),
        ];
        let endpoints: Vec<EndpointId> = interests
            .iter()
            .map(|interest| interest.endpoint.clone())
            .collect();
        let index = Index::new(interests.into_iter().map(Arc::new));
        let ids = DeliveryIds::new(&SecretString::from("a secret of the tests, long enough"));
        let to = |tenant: &str, status: &str| {
            let event = fixture::observation(tenant, "1", status);
            let owed = index.deliveries(&event, &fixture::position(3, 42), &ids, 0);
            let distinct: std::collections::BTreeSet<_> = owed.iter().map(|owed| owed.id.clone()).collect();
            assert_eq!(distinct.len(), owed.len());
            owed.iter()
                .map(|owed| owed.interest.endpoint.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(to("lund", "final"), endpoints[..1]);
        assert_eq!(to("lund", "amended"), endpoints[..2]);
        assert_eq!(to("oslo", "final"), endpoints[2..]);
        assert!(to("turku", "final").is_empty());
    }
}
