//! The rules, said again as plainly as can be, over data that is spelled out.

use super::*;

/// Fields of a body, and by which pointer they are seen.
pub(super) const FIELDS: [(&str, &str); 5] = [
    ("patient", "/subject/reference"),
    ("status", "/status"),
    ("code", "/code/coding/*/code"),
    ("note", "/note"),
    ("performer", "/performer"),
];

/// Masks, and what they hide.
pub(super) fn masks() -> Vec<(Mask, BTreeSet<&'static str>)> {
    vec![
        (Mask::nothing_hidden(), BTreeSet::new()),
        (
            hide(&["/performer", "/note"]),
            BTreeSet::from(["performer", "note"]),
        ),
        (hide(&["/status"]), BTreeSet::from(["status"])),
        (
            hide(&["/code/coding/*/code", "/note"]),
            BTreeSet::from(["code", "note"]),
        ),
        (hide(&["/subject"]), BTreeSet::from(["patient"])),
        (
            show(&["/status", "/subject"]),
            BTreeSet::from(["code", "note", "performer"]),
        ),
    ]
}

/// Scopes that a rule may name.
pub(super) const RULE_SCOPES: [&str; 5] = [
    "user/Observation.rs",
    "patient/Observation.rs",
    "system/Observation.cruds",
    "user/*.r",
    "admin",
];

/// Scopes that a token may hold, the places of the rule scopes that they satisfy, and their restrictions.
pub(super) type HeldScope = (
    &'static str,
    &'static [usize],
    &'static [(&'static str, &'static [&'static str])],
);
pub(super) const HELD_SCOPES: [HeldScope; 14] = [
    ("user/Observation.rs", &[0], &[]),
    ("user/*.cruds", &[0, 3], &[]),
    ("user/Observation.r", &[], &[]),
    ("user/*.rs?status=final", &[0, 3], &[("status", &["final"])]),
    ("user/Observation.read?code=a,b", &[0], &[("code", &["a", "b"])]),
    ("patient/*.read", &[1], &[]),
    (
        "patient/Observation.crs?status=final,amended&code=c",
        &[1],
        &[("status", &["final", "amended"]), ("code", &["c"])],
    ),
    (
        "patient/Observation.rs?patient=https://x/Patient/2",
        &[1],
        &[("patient", &["Patient/2"])],
    ),
    ("patient/Encounter.rs", &[], &[]),
    ("system/*.*", &[2], &[]),
    ("system/Observation.rs", &[], &[]),
    ("admin", &[4], &[]),
    ("openid", &[], &[]),
    ("user/Observation.rs?unknown=1", &[0], &[("unknown", &["1"])]),
];

/// Rows, as (attribute, template).
pub(super) const ROWS: [&[(&str, &str)]; 5] = [
    &[],
    &[("patient", "Patient/{claims.patient}")],
    &[("status", "final")],
    &[("patient", "Patient/{claims.patient}"), ("status", "amended")],
    &[("recordkey", "{subject}")],
];

#[derive(Debug, Clone)]
pub(super) struct World {
    /// (places in `RULE_SCOPES`, place in `ROWS`, place in `masks()`)
    pub(super) rules: Vec<(Vec<usize>, usize, usize)>,
    pub(super) held: Vec<usize>,
    pub(super) patient: Option<&'static str>,
    pub(super) filter: Vec<(&'static str, Vec<&'static str>)>,
    pub(super) events: Vec<(&'static str, Vec<(&'static str, &'static str)>)>,
}

/// What is hidden of an event that this reader gets; `None`: it gets nothing of it.
pub(super) fn hidden(world: &World, event: usize) -> Option<BTreeSet<&'static str>> {
    let (of, values) = &world.events[event];
    if *of != "north" {
        return None;
    }
    let has = |name: &str, value: &str| values.iter().any(|(have, is)| *have == name && *is == value);
    let mut hidden: Option<BTreeSet<&'static str>> = None;
    for (scopes, rows, mask) in &world.rules {
        let (_, hides) = &masks()[*mask];
        for held in &world.held {
            let (_, satisfies, restriction) = HELD_SCOPES[*held];
            let held = scopes.iter().any(|scope| satisfies.contains(scope));
            let known = restriction.iter().all(|(name, _)| *name != "unknown");
            let restricted = restriction
                .iter()
                .all(|(name, any)| any.iter().any(|value| has(name, value)));
            let in_rows = ROWS[*rows].iter().all(|(name, template)| {
                let value = match world.patient {
                    Some(patient) if !patient.is_empty() => template.replace("{claims.patient}", patient),
                    _ if template.contains("{claims") => return false,
                    _ => (*template).to_owned(),
                };
                has(name, &value.replace("{subject}", "ann"))
            });
            let declared_hidden = ["patient", "status", "code"]
                .iter()
                .any(|name| hides.contains(name));
            let filterable = world
                .filter
                .iter()
                .all(|(name, _)| !hides.contains(name) && (*name != "recordkey" || !declared_hidden));
            let asked = world
                .filter
                .iter()
                .all(|(name, any)| any.iter().any(|value| has(name, value)));
            if held && known && restricted && in_rows && filterable && asked {
                hidden = Some(match hidden {
                    None => hides.clone(),
                    Some(before) => before.intersection(hides).copied().collect(),
                });
            }
        }
    }
    hidden
}
