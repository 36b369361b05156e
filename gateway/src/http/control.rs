//! `/admin/revocations` and `/admin/denials`: what operators say of readers, and what is known of it.
//!
//! Invariants: an answer of success means that it is durable and in force on this node; the others follow within a moment.
//! What is said is logged by kind, tenant and id, which is a digest: never by subject or value. Said again, it changes
//! nothing. Knows nothing of Kafka: it is given something that writes.

use std::sync::Arc;

use auth::clock::Clock;
use auth::control::{BadEntry, Control, Denial, Entry, EntryId, EntryKind, Names, Revocation, key_of};
use axum::extract::{Path, RawQuery, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use axum::{Json, Router};
use futures_util::future::BoxFuture;
use http::StatusCode;
use http::header::CACHE_CONTROL;
use schemas::ids::{AttributeName, TenantId};
use schemas::problem::Code;
use serde_json::{Map, Value, json};

use super::operations::Operations;
use super::problem::{Problem, method_not_allowed};
use super::{HttpLimits, body};

/// Revocations that there may be: with 300 bytes each, 300 MB on every node.
const REVOCATIONS_MAX: usize = 1_000_000;
/// Denials of one tenant's data. Each reader's grant has those that concern it.
const DENIALS_MAX: usize = 10_000;
/// Entries of one answer.
const PAGE: usize = 1_000;
/// How far ahead a time may lie that somebody writes: about a hundred years.
const TIME_AHEAD_MS_MAX: i64 = 100 * 366 * 24 * 3600 * 1000;

/// Writes a record of the control topic, or removes it; done when it is durable and applied here. What went wrong is logged
/// by whoever writes.
pub type Write = Arc<dyn Fn(String, Option<Vec<u8>>) -> BoxFuture<'static, Result<(), ()>> + Send + Sync>;

/// What the admin calls stand on.
pub struct Desk {
    /// What is known.
    pub control: Control,
    /// Makes ids.
    pub names: Names,
    /// The time of day.
    pub clock: Clock,
    /// How large a body may be, and how long it may take.
    pub limits: HttpLimits,
    /// `None`: there is no control topic.
    pub write: Option<Write>,
}

/// The routes, to be guarded by whoever merges them.
pub(super) fn routes() -> Router<Arc<Operations>> {
    let both = || async { method_not_allowed("GET, HEAD, POST") };
    let one = || async { method_not_allowed("DELETE") };
    Router::new()
        .route("/admin/revocations", get(revocations).post(revoke).fallback(both))
        .route("/admin/revocations/{id}", delete(unrevoke).fallback(one))
        .route("/admin/denials", get(denials).post(deny).fallback(both))
        .route("/admin/denials/{id}", delete(undeny).fallback(one))
}

impl Desk {
    fn write(&self) -> Result<&Write, Problem> {
        self.write
            .as_ref()
            .ok_or_else(|| Problem::new(Code::CONTROL_UNAVAILABLE, "`kafka.control_topic` names none"))
    }

    async fn put(&self, entry: Entry) -> Result<Response, Problem> {
        let write = self.write()?;
        // Whether it is new, and how many there are, is not known before.
        self.control.ready().map_err(Problem::from)?;
        let (id, kind) = (self.names.of(&entry), entry.kind());
        let (entry, is_new) = self.settle(&id, entry)?;
        if write(key_of(kind, &id), Some(entry.encode())).await.is_err() {
            return Err(unknown_outcome());
        }
        audit("put", &id, &entry);
        let status = if is_new {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        Ok((status, [(CACHE_CONTROL, "no-store")], Json(shown(&id, &entry))).into_response())
    }

    /// The entry as it is to be written, and whether it is new. One that is there already is never narrowed: who was revoked
    /// until some moment stays so.
    fn settle(&self, id: &EntryId, entry: Entry) -> Result<(Entry, bool), Problem> {
        self.control.read(|knowledge| match entry {
            Entry::Revocation(mut revocation) => {
                let before = knowledge.revocation(id);
                if let Some(before) = before {
                    revocation.issued_until_ms = revocation.issued_until_ms.max(before.issued_until_ms);
                } else if knowledge.count(EntryKind::Revocation) >= REVOCATIONS_MAX {
                    return Err(too_many(REVOCATIONS_MAX, "revocations"));
                }
                Ok((Entry::Revocation(revocation), before.is_none()))
            }
            Entry::Denial(denial) => {
                let is_new = knowledge.denial(id).is_none();
                if is_new && knowledge.denials_of(&denial.tenant) >= DENIALS_MAX {
                    return Err(too_many(DENIALS_MAX, "denials of this tenant"));
                }
                Ok((Entry::Denial(denial), is_new))
            }
        })
    }

    async fn remove(&self, kind: EntryKind, id: &str) -> Result<Response, Problem> {
        let write = self.write()?;
        let nothing = || Problem::new(Code::NOT_FOUND, "there is no such entry");
        let id = EntryId::parse(id).ok_or_else(nothing)?;
        let entry = self.control.read(|knowledge| match kind {
            EntryKind::Revocation => knowledge.revocation(&id).cloned().map(Entry::Revocation),
            EntryKind::Denial => knowledge.denial(&id).cloned().map(Entry::Denial),
        });
        let entry = entry.ok_or_else(nothing)?;
        if write(key_of(kind, &id), None).await.is_err() {
            return Err(unknown_outcome());
        }
        audit("remove", &id, &entry);
        Ok((StatusCode::NO_CONTENT, [(CACHE_CONTROL, "no-store")]).into_response())
    }

    fn list(&self, kind: EntryKind, query: Option<&str>) -> Result<Response, Problem> {
        let mut after = None;
        for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if name != "after" {
                return Err(Problem::new(
                    Code::UNKNOWN_PARAMETER,
                    "only `after` is known here",
                ));
            }
            let id = EntryId::parse(&value)
                .ok_or_else(|| Problem::new(Code::PARAMETER_INVALID, "after is the id of an entry"))?;
            after = Some(id);
        }
        let follows = |id: &EntryId| after.as_ref().is_none_or(|after| id > after);
        let page: Vec<(EntryId, Entry)> = self.control.read(|knowledge| match kind {
            EntryKind::Revocation => {
                let entries = knowledge.revocations().filter(|(id, _)| follows(id)).take(PAGE);
                entries
                    .map(|(id, entry)| (id.clone(), Entry::Revocation(entry.clone())))
                    .collect()
            }
            EntryKind::Denial => {
                let entries = knowledge.denials().filter(|(id, _)| follows(id)).take(PAGE);
                entries
                    .map(|(id, entry)| (id.clone(), Entry::Denial(entry.clone())))
                    .collect()
            }
        });
        let next = page
            .last()
            .filter(|_| page.len() == PAGE)
            .map(|(id, _)| id.as_str());
        let entries: Vec<Value> = page.iter().map(|(id, entry)| shown(id, entry)).collect();
        let name = match kind {
            EntryKind::Revocation => "revocations",
            EntryKind::Denial => "denials",
        };
        let body = json!({ name: entries, "next": next });
        Ok(([(CACHE_CONTROL, "no-store")], Json(body)).into_response())
    }
}

async fn revoke(State(operations): State<Arc<Operations>>, request: Request) -> Result<Response, Problem> {
    let desk = &operations.control;
    let members = body::object(request, &desk.limits).await?;
    desk.put(Entry::Revocation(revocation(members, desk.clock.now_ms())?))
        .await
}

async fn deny(State(operations): State<Arc<Operations>>, request: Request) -> Result<Response, Problem> {
    let desk = &operations.control;
    let members = body::object(request, &desk.limits).await?;
    desk.put(Entry::Denial(denial(members)?)).await
}

async fn unrevoke(
    State(operations): State<Arc<Operations>>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    operations.control.remove(EntryKind::Revocation, &id).await
}

async fn undeny(
    State(operations): State<Arc<Operations>>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    operations.control.remove(EntryKind::Denial, &id).await
}

async fn revocations(
    State(operations): State<Arc<Operations>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    operations.control.list(EntryKind::Revocation, query.as_deref())
}

async fn denials(
    State(operations): State<Arc<Operations>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    operations.control.list(EntryKind::Denial, query.as_deref())
}

/// Reads a revocation: whom it concerns, until when their tokens were issued (now), and when it may be forgotten (never).
fn revocation(mut members: Map<String, Value>, now_ms: i64) -> Result<Revocation, Problem> {
    let mut taken = Taken(&mut members);
    let revocation = Revocation {
        issuer: taken.name("issuer")?,
        tenant: taken.tenant()?,
        subject: taken.name("subject")?,
        token_id: taken.name("token_id")?,
        issued_until_ms: taken.time("issued_until", now_ms)?.unwrap_or(now_ms),
        expires_at_ms: taken.time("expires_at", now_ms)?,
        reason: taken.name("reason")?,
    };
    taken.finish()?;
    if revocation.is_over(now_ms) {
        return Err(field("expires_at", "a time that has come revokes nobody"));
    }
    revocation.check().map_err(bad_entry)?;
    Ok(revocation)
}

fn denial(mut members: Map<String, Value>) -> Result<Denial, Problem> {
    let mut taken = Taken(&mut members);
    let needed = |name: &'static str| move || field(name, "it is needed");
    let tenant = taken.tenant()?.ok_or_else(needed("tenant"))?;
    let attribute = taken.name("attribute")?.ok_or_else(needed("attribute"))?;
    let attribute =
        AttributeName::parse(&attribute).map_err(|_| field("attribute", "it is no attribute's name"))?;
    let value = taken.name("value")?.ok_or_else(needed("value"))?;
    let denial = Denial {
        subject: taken.name("subject")?,
        application: taken.name("application")?,
        issuer: taken.name("issuer")?,
        reason: taken.name("reason")?,
        ..Denial::new(tenant, attribute, &value)
    };
    taken.finish()?;
    denial.check().map_err(bad_entry)?;
    Ok(denial)
}

/// The members that nobody took yet.
struct Taken<'a>(&'a mut Map<String, Value>);

impl Taken<'_> {
    fn name(&mut self, name: &'static str) -> Result<Option<Arc<str>>, Problem> {
        match self.0.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(Arc::from(text))),
            Some(_) => Err(field(name, "a string is wanted")),
        }
    }

    fn tenant(&mut self) -> Result<Option<TenantId>, Problem> {
        let tenant = self.name("tenant")?;
        let parsed = tenant.map(|text| TenantId::parse(&text)).transpose();
        parsed.map_err(|_| field("tenant", "it is no tenant's name"))
    }

    fn time(&mut self, name: &'static str, now_ms: i64) -> Result<Option<i64>, Problem> {
        let Some(text) = self.name(name)? else {
            return Ok(None);
        };
        let time: jiff::Timestamp = text
            .parse()
            .map_err(|_| field(name, "an RFC 3339 time is wanted"))?;
        let ms = time.as_millisecond();
        if (0..=now_ms.saturating_add(TIME_AHEAD_MS_MAX)).contains(&ms) {
            Ok(Some(ms))
        } else {
            Err(field(
                name,
                "a time between 1970 and a hundred years from now is wanted",
            ))
        }
    }

    fn finish(self) -> Result<(), Problem> {
        match self.0.keys().next() {
            None => Ok(()),
            // The name came from outside: cut, so that an answer stays small.
            Some(name) => Err(Problem::new(
                Code::FIELD_UNKNOWN,
                name.chars().take(32).collect::<String>(),
            )),
        }
    }
}

fn field(name: &str, rule: &str) -> Problem {
    Problem::new(Code::FIELD_INVALID, format!("{name}: {rule}"))
}

fn bad_entry(bad: BadEntry) -> Problem {
    match bad.member {
        "" => Problem::new(Code::FIELD_INVALID, bad.rule),
        member => field(member, bad.rule),
    }
}

fn too_many(most: usize, what: &str) -> Problem {
    Problem::new(Code::CONTROL_ENTRIES, format!("at most {most} {what} are kept"))
}

/// It may be written, and it may not.
fn unknown_outcome() -> Problem {
    Problem::new(
        Code::CONTROL_UNAVAILABLE,
        "it is not known whether it was written: say it again",
    )
}

fn audit(action: &'static str, id: &EntryId, entry: &Entry) {
    let tenant = match entry {
        Entry::Revocation(revocation) => revocation.tenant.as_ref(),
        Entry::Denial(denial) => Some(&denial.tenant),
    };
    tracing::info!(
        action,
        kind = entry.kind().as_str(),
        tenant = tenant.map_or("", TenantId::as_str),
        id = id.as_str(),
        "an operator changed what is known of readers"
    );
}

/// An entry, for operators.
fn shown(id: &EntryId, entry: &Entry) -> Value {
    let mut members = Map::new();
    let mut add = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            members.insert(name.to_owned(), value.into());
        }
    };
    add("id", Some(id.as_str()));
    match entry {
        Entry::Revocation(revocation) => {
            add("issuer", revocation.issuer.as_deref());
            add("tenant", revocation.tenant.as_ref().map(TenantId::as_str));
            add("subject", revocation.subject.as_deref());
            add("token_id", revocation.token_id.as_deref());
            add("issued_until", Some(&rfc3339(revocation.issued_until_ms)));
            add("expires_at", revocation.expires_at_ms.map(rfc3339).as_deref());
            add("reason", revocation.reason.as_deref());
        }
        Entry::Denial(denial) => {
            add("tenant", Some(denial.tenant.as_str()));
            add("attribute", Some(denial.attribute.as_str()));
            add("value", Some(&denial.value));
            add("subject", denial.subject.as_deref());
            add("application", denial.application.as_deref());
            add("issuer", denial.issuer.as_deref());
            add("reason", denial.reason.as_deref());
        }
    }
    Value::Object(members)
}

fn rfc3339(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| format!("{time:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_800_000_000_000;

    fn members(value: Value) -> Map<String, Value> {
        let Value::Object(members) = value else {
            panic!("an object")
        };
        members
    }

    #[test]
    fn a_revocation_is_of_now_unless_it_says_otherwise() {
        let read = |value| revocation(members(value), NOW_MS).expect("a revocation");
        let now = read(json!({"subject": "ann", "tenant": "north", "issuer": "https://id.example"}));
        assert_eq!((now.issued_until_ms, now.expires_at_ms), (NOW_MS, None));
        let said = read(json!({
            "token_id": "t1", "issued_until": "2027-01-15T09:00:00Z", "expires_at": "2027-02-01T00:00:00Z", "reason": "lost"
        }));
        assert_eq!(said.issued_until_ms, 1_800_003_600_000);
        assert_eq!(said.expires_at_ms, Some(1_801_440_000_000));
    }

    #[test]
    fn what_revokes_or_denies_nobody_in_particular_is_refused_by_its_code() {
        let long = "x".repeat(1025);
        for value in [
            json!({}),
            json!({"reason": "none"}),
            json!({"subject": ""}),
            json!({"subject": long}),
            json!({"subject": 7}),
            json!({"subject": null}),
            json!({"tenant": "a b"}),
            json!({"tenant": "north", "issued_until": "yesterday"}),
            json!({"tenant": "north", "issued_until": "1960-01-01T00:00:00Z"}),
            json!({"tenant": "north", "expires_at": "2020-01-01T00:00:00Z"}),
            json!({"tenant": "north", "expires_at": "9999-01-01T00:00:00Z"}),
        ] {
            let refused = revocation(members(value.clone()), NOW_MS).expect_err("refused");
            assert_eq!(refused.code, Code::FIELD_INVALID, "{value}");
        }
        let refused = revocation(members(json!({"subject": "a", "subjet": "b"})), NOW_MS);
        assert_eq!(refused.expect_err("a slip").code, Code::FIELD_UNKNOWN);
        for value in [
            json!({}),
            json!({"tenant": "north", "attribute": "patient"}),
            json!({"tenant": "north", "value": "Patient/1"}),
            json!({"attribute": "patient", "value": "Patient/1"}),
            json!({"tenant": "north", "attribute": "Patient", "value": "Patient/1"}),
            json!({"tenant": "north", "attribute": "patient", "value": ""}),
            json!({"tenant": "north", "attribute": "patient", "value": ["Patient/1"]}),
            json!({"tenant": "north", "attribute": "patient", "value": "Patient/1", "subject": ""}),
        ] {
            let refused = denial(members(value.clone())).expect_err("refused");
            assert_eq!(refused.code, Code::FIELD_INVALID, "{value}");
        }
    }
}
