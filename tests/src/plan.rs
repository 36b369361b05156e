//! Events planned ahead: by dice, over partitions, tenants and patients, so that what each reader is owed is known
//! before anything is produced.

use rand::Rng;
use rand::seq::IndexedRandom;
use serde_json::json;

use crate::exact::Exact;
use crate::producer::Record;

/// An event to come.
#[derive(Debug, Clone)]
pub struct Planned {
    /// Whose.
    pub tenant: &'static str,
    /// About whom: the number in `Patient/<number>`.
    pub patient: u32,
    /// `final` or `preliminary`.
    pub status: &'static str,
    /// Where.
    pub partition: i32,
    /// Its number within the partition, from 0: its offset, if the topic was empty.
    pub n: i64,
    /// More text in it, to make it longer.
    pub padding: usize,
}

/// The two tenants of most promises.
pub const TENANTS: [&str; 2] = ["north", "south"];

/// Plans so many events over so many partitions.
pub fn plan(dice: &mut impl Rng, partitions: i32, count: usize) -> Vec<Planned> {
    let mut next = vec![0; usize::try_from(partitions).unwrap_or(1)];
    (0..count)
        .map(|_| {
            let place = dice.random_range(0..next.len());
            let n = next[place];
            next[place] += 1;
            Planned {
                tenant: TENANTS.choose(dice).copied().unwrap_or("north"),
                patient: dice.random_range(1..=4),
                status: ["final", "preliminary"].choose(dice).copied().unwrap_or("final"),
                partition: i32::try_from(place).unwrap_or(0),
                n,
                padding: 0,
            }
        })
        .collect()
}

impl Planned {
    /// The record to produce.
    #[must_use]
    pub fn record(&self, topic: &str) -> Record {
        let patient = format!("Patient/{}", self.patient);
        let mut value = json!({
            "resourceType": "Observation",
            "id": format!("{}-{}", self.partition, self.n),
            "status": self.status,
            "subject": {"reference": patient},
            "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
            "performer": [{"reference": "Practitioner/9"}],
            "note": [{"text": "for the ward only"}],
            "partition": self.partition,
            "n": self.n,
        });
        if self.padding > 0 {
            value["padding"] = json!("x".repeat(self.padding));
        }
        Record::json(topic, &value)
            .on(self.partition)
            .key(format!("Observation/{}-{}", self.partition, self.n))
            .header("tenant", self.tenant)
    }
}

/// The records of a plan.
#[must_use]
pub fn records(plan: &[Planned], topic: &str) -> Vec<Record> {
    plan.iter().map(|planned| planned.record(topic)).collect()
}

/// What a reader is owed of a plan.
#[must_use]
pub fn owed(plan: &[Planned], wants: impl Fn(&Planned) -> bool) -> Exact {
    let mut exact = Exact::default();
    for planned in plan.iter().filter(|planned| wants(planned)) {
        exact.owe(i64::from(planned.partition), planned.n);
    }
    exact
}
