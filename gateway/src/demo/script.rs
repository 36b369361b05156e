//! Which sample events come, in which order: real Synthea resources, each made to happen now.
//!
//! A patient belongs to one hospital for good, and everything about the patient with it. The first time round a resource
//! has its own id; later rounds make new observations and prescriptions, and new versions of encounters and patients. About
//! every sixth event is an update of something recent. The same seed gives the same order. Knows no Kafka.

use std::collections::VecDeque;

use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use schemas::ids::TenantId;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The resources, as they are shipped; `web-demo/data/README.md` names their source and licence.
const DATA: &str = include_str!("../../../web-demo/data/synthea.ndjson");

/// The two hospitals.
pub const TENANTS: [&str; 2] = ["north", "south"];

/// How many recent resources of a hospital may be updated.
const RECENT_MAX: usize = 64;

/// An event for Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The topic.
    pub topic: String,
    /// The hospital.
    pub tenant: TenantId,
    /// `<ResourceType>/<id>`.
    pub key: String,
    /// The resource as JSON.
    pub value: String,
}

/// A patient of a hospital, as the page shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patient {
    /// The hospital.
    pub tenant: TenantId,
    /// The resource's id.
    pub id: String,
    /// Given and family name.
    pub name: String,
    /// How many of the sample resources are about the patient.
    pub resources: usize,
}

#[derive(Debug, Clone, Deserialize)]
struct Line {
    topic: String,
    key: String,
    resource: Map<String, Value>,
}

#[derive(Debug)]
struct Hospital {
    tenant: TenantId,
    lines: Vec<Line>,
    next: usize,
    round: u32,
    recent: VecDeque<Line>,
}

/// Gives one event after the other, without end.
#[derive(Debug)]
pub struct Script {
    hospitals: Vec<Hospital>,
    turn: usize,
    random: StdRng,
}

impl Script {
    /// A script. The seed decides what is updated when, and the ids of what is new.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut hospitals: Vec<Hospital> = TENANTS
            .iter()
            .map(|name| Hospital {
                tenant: TenantId::parse(name).expect("demo: a tenant's name is valid"),
                lines: Vec::new(),
                next: 0,
                round: 0,
                recent: VecDeque::new(),
            })
            .collect();
        let lines = lines();
        let order = patients_in_order(&lines);
        for line in lines {
            let place = order.iter().position(|patient| *patient == patient_of(&line));
            let hospital = place.unwrap_or_default() % hospitals.len();
            hospitals[hospital].lines.push(line);
        }
        for hospital in &mut hospitals {
            hospital.mix();
        }
        Self {
            hospitals,
            turn: 0,
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// The next event, happening now.
    pub fn next(&mut self, now: Timestamp) -> Sample {
        let count = self.hospitals.len();
        let hospital = &mut self.hospitals[self.turn % count];
        self.turn += 1;
        // The first ones fill the page; later on about every sixth is an update.
        let is_update = hospital.recent.len() > 8 && self.random.random_ratio(1, 6);
        let line = if is_update {
            hospital.update(&mut self.random)
        } else {
            hospital.fresh(&mut self.random)
        };
        let (line, tenant) = (dated(line, now), hospital.tenant.clone());
        hospital.remember(line.clone());
        Sample {
            topic: line.topic,
            tenant,
            key: line.key,
            value: Value::Object(line.resource).to_string(),
        }
    }
}

impl Hospital {
    /// Patients come first; then the others in an order in which each kind is spread evenly.
    fn mix(&mut self) {
        let mut totals = std::collections::HashMap::<String, u32>::new();
        for line in &self.lines {
            *totals.entry(line.topic.clone()).or_default() += 1;
        }
        let mut seen = std::collections::HashMap::<String, u32>::new();
        let mut placed: Vec<(f64, Line)> = Vec::with_capacity(self.lines.len());
        for line in self.lines.drain(..) {
            let count = seen.entry(line.topic.clone()).or_default();
            *count += 1;
            let share = f64::from(*count) / f64::from(totals[&line.topic]);
            let place = if line.topic == "fhir.patient" { 0.0 } else { share };
            placed.push((place, line));
        }
        placed.sort_by(|a, b| a.0.total_cmp(&b.0));
        self.lines = placed.into_iter().map(|(_, line)| line).collect();
    }

    fn fresh(&mut self, random: &mut StdRng) -> Line {
        let mut line = self.lines[self.next].clone();
        self.next += 1;
        if self.next == self.lines.len() {
            self.next = 0;
            self.round += 1;
        }
        let is_repeated = matches!(
            line.topic.as_str(),
            "fhir.observation" | "fhir.medication_request"
        );
        if self.round > 0 && is_repeated {
            let id = uuid(random);
            let kind = line.key.split('/').next().unwrap_or_default().to_owned();
            line.key = format!("{kind}/{id}");
            line.resource.insert("id".to_owned(), Value::String(id));
        }
        match line.topic.as_str() {
            "fhir.encounter" => begin_encounter(&mut line.resource),
            "fhir.medication_request" => set(&mut line.resource, "status", "active"),
            _ => {}
        }
        line
    }

    fn update(&mut self, random: &mut StdRng) -> Line {
        let place = random.random_range(0..self.recent.len());
        let mut line = self.recent.remove(place).unwrap_or_else(|| self.lines[0].clone());
        match line.topic.as_str() {
            "fhir.observation" => {
                let is_amended = line.resource.get("status").and_then(Value::as_str) == Some("amended");
                set(
                    &mut line.resource,
                    "status",
                    if is_amended { "corrected" } else { "amended" },
                );
            }
            "fhir.encounter" => set(&mut line.resource, "status", "finished"),
            "fhir.medication_request" => set(&mut line.resource, "status", "completed"),
            _ => {}
        }
        line
    }

    fn remember(&mut self, line: Line) {
        self.recent.retain(|recent| recent.key != line.key);
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(line);
    }
}

/// The patients of all hospitals, those with the most resources first.
#[must_use]
pub fn patients() -> Vec<Patient> {
    let lines = lines();
    let order = patients_in_order(&lines);
    let patient = |(place, id): (usize, &String)| Patient {
        tenant: TenantId::parse(TENANTS[place % TENANTS.len()]).expect("demo: a tenant's name is valid"),
        id: id.clone(),
        name: lines
            .iter()
            .find(|line| line.key == format!("Patient/{id}"))
            .map(name_of)
            .unwrap_or_default(),
        resources: lines.iter().filter(|line| patient_of(line) == *id).count(),
    };
    let mut patients: Vec<Patient> = order.iter().enumerate().map(patient).collect();
    patients.sort_by(|a, b| b.resources.cmp(&a.resources).then_with(|| a.id.cmp(&b.id)));
    patients
}

fn lines() -> Vec<Line> {
    let lines = DATA.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_str(line).expect("demo: the sample data is valid"))
        .collect()
}

/// By first appearance: a patient's place decides the hospital.
fn patients_in_order(lines: &[Line]) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    for id in lines.iter().map(patient_of) {
        if !order.contains(&id) {
            order.push(id);
        }
    }
    order
}

fn patient_of(line: &Line) -> String {
    let reference = line
        .resource
        .get("subject")
        .and_then(|subject| subject.get("reference"))
        .and_then(Value::as_str);
    let reference = reference.unwrap_or(&line.key);
    reference.rsplit('/').next().unwrap_or_default().to_owned()
}

fn name_of(line: &Line) -> String {
    let name = line.resource.get("name").and_then(|names| names.get(0));
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let given = text(
        name.and_then(|name| name.get("given"))
            .and_then(|given| given.get(0)),
    );
    let family = text(name.and_then(|name| name.get("family")));
    format!("{given} {family}").trim().to_owned()
}

fn set(resource: &mut Map<String, Value>, member: &str, value: &str) {
    resource.insert(member.to_owned(), Value::from(value));
}

/// It goes on: an update will end it.
fn begin_encounter(resource: &mut Map<String, Value>) {
    set(resource, "status", "in-progress");
    if let Some(Value::Object(period)) = resource.get_mut("period") {
        period.remove("end");
    }
}

/// Moves a resource to now: its version, and the times that say when it happened.
fn dated(mut line: Line, now: Timestamp) -> Line {
    let now = now.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
    let is_finished = line.resource.get("status").and_then(Value::as_str) == Some("finished");
    let is_update = line
        .resource
        .get("meta")
        .is_some_and(|meta| meta.get("versionId").is_some());
    for member in ["effectiveDateTime", "issued", "authoredOn"] {
        // When it was found stays; what was found may be amended.
        if let Some(time) = line.resource.get_mut(member)
            && (!is_update || member == "issued")
        {
            *time = Value::from(now.as_str());
        }
    }
    if let Some(Value::Object(period)) = line.resource.get_mut("period") {
        if !is_update {
            set(period, "start", &now);
        } else if is_finished && !period.contains_key("end") {
            set(period, "end", &now);
        }
    }
    let meta = line.resource.entry("meta").or_insert_with(|| json!({}));
    if let Value::Object(meta) = meta {
        let version = meta
            .get("versionId")
            .and_then(Value::as_str)
            .and_then(|text| text.parse::<u32>().ok());
        set(
            meta,
            "versionId",
            &version.map_or(1, |version| version.saturating_add(1)).to_string(),
        );
        set(meta, "lastUpdated", &now);
    }
    line
}

/// A random UUID (RFC 9562, version 4).
fn uuid(random: &mut StdRng) -> String {
    let bits = (random.random::<u128>() & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!(
        "{}-{}-{}-{}-{}",
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32)
    )
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    fn played(seed: u64, count: usize) -> Vec<Sample> {
        let mut script = Script::new(seed);
        let now = Timestamp::from_second(1_700_000_000).expect("a time");
        (0..count).map(|_| script.next(now)).collect()
    }

    fn resource(sample: &Sample) -> Value {
        serde_json::from_str(&sample.value).expect("JSON")
    }

    #[test]
    fn the_same_seed_gives_the_same_events() {
        assert_eq!(played(7, 600), played(7, 600));
        assert_ne!(played(7, 600), played(8, 600));
    }

    #[test]
    fn a_patient_belongs_to_one_hospital_and_so_does_everything_about_it() {
        let mut hospitals = HashMap::new();
        for sample in played(1, 2000) {
            let json = resource(&sample);
            let reference = json["subject"]["reference"]
                .as_str()
                .unwrap_or(&sample.key)
                .to_owned();
            assert!(reference.starts_with("Patient/"), "{reference}");
            let tenant = hospitals
                .entry(reference)
                .or_insert_with(|| sample.tenant.clone());
            assert_eq!(*tenant, sample.tenant);
        }
        let both: HashSet<_> = hospitals.values().collect();
        assert_eq!(both.len(), 2);
    }

    #[test]
    fn key_topic_and_resource_agree_and_all_topics_appear() {
        let mut topics = HashSet::new();
        for sample in played(2, 2000) {
            let json = resource(&sample);
            let kind = json["resourceType"].as_str().expect("a type");
            assert_eq!(
                sample.key,
                format!("{kind}/{}", json["id"].as_str().expect("an id"))
            );
            assert_eq!(json["meta"]["lastUpdated"], "2023-11-14T22:13:20.000Z");
            topics.insert(sample.topic);
        }
        assert_eq!(topics.len(), 4);
    }

    #[test]
    fn some_events_are_updates_with_the_next_version() {
        let mut versions = HashMap::<String, u32>::new();
        let mut updates = 0;
        for sample in played(3, 400) {
            let version = resource(&sample)["meta"]["versionId"]
                .as_str()
                .and_then(|text| text.parse().ok());
            let version = version.expect("a version");
            if let Some(before) = versions.insert(sample.key, version) {
                assert_eq!(version, before + 1);
                updates += 1;
            }
        }
        assert!((20..200).contains(&updates), "{updates}");
    }

    #[test]
    fn both_hospitals_have_patients_with_names() {
        for tenant in TENANTS {
            let patients = patients();
            let patient = patients
                .iter()
                .find(|patient| patient.tenant.as_str() == tenant)
                .expect("a patient");
            assert!(!patient.name.is_empty() && patient.resources > 10, "{patient:?}");
        }
    }
}
