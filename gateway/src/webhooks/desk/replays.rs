//! Replays: what is sent again from Kafka, by time, by cursor or since it failed; and one delivery, resent.
//!
//! Invariants: a replay ends where the logs ended when it was asked for, or before. It tells no offsets: they would tell the
//! traffic of others. A cursor that points beyond the end is refused, never clamped.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use schemas::contract::Stream;
use schemas::cursor::{BadCursor, Cursor, Position as At, topic_digest};
use schemas::ids::{StreamName, TenantId};
use schemas::problem::Code;
use serde_json::{Value, json};
use webhooks::delivery::{DeliveryId, EndpointId, Position};
use webhooks::endpoint::{Endpoint, Status};
use webhooks::store::{Kept, Kind, NewReplay, ReplayRow};

use super::{Desk, Refusal, time};

/// The most replays of one endpoint that are under way.
const REPLAYS_MAX: usize = 8;

/// How far before the time that is known of the first failure a replay begins: events are older than their attempts.
const FAILED_SLACK_MS: i64 = 5 * 60_000;

/// How far back from a cursor's time a topic is read that it does not name: clocks differ, and the topic may have been made
/// just before.
const ISSUED_AT_SLACK_MS: i64 = 60_000;

/// What is to be sent again.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    /// An RFC 3339 time, a cursor or `failed`.
    pub(crate) from: String,
    /// An RFC 3339 time or a cursor; without it, to the ends of the logs.
    pub(crate) until: Option<String>,
    /// One of the endpoint's streams; without it, all of them.
    pub(crate) stream: Option<String>,
}

/// A place in a stream.
#[derive(Debug)]
enum Mark {
    Time(i64),
    Cursor(Box<Cursor>),
}

/// Where a cursor stands in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spot {
    At(i64),
    Since(i64),
    Start,
}

impl Desk {
    /// Begins a replay; answers its id.
    pub(crate) async fn replay(
        &self,
        tenant: &TenantId,
        id: &EndpointId,
        wish: &Wish,
    ) -> Result<String, Refusal> {
        let kept = self.find(tenant, id).await?;
        let endpoint = &kept.endpoint;
        let streams = match &wish.stream {
            Some(name) => vec![self.stream_of(endpoint, name, "/stream")?],
            None => {
                let known = endpoint.spec.streams.iter();
                let known = known.filter_map(|name| self.contract.stream(name.as_str()));
                known.cloned().collect()
            }
        };
        let is_cursor = |text: &str| text != "failed" && !text.contains(':');
        if streams.len() != 1 && (is_cursor(&wish.from) || wish.until.as_deref().is_some_and(is_cursor)) {
            let detail = "a cursor is of one stream, and the endpoint has several: one has to be named";
            return Err(Refusal::field(Code::FIELD_INVALID, "/stream", detail));
        }
        self.admit_replay(tenant, id).await?;
        let given_up = self.given_up(&kept, wish).await?;
        let mut parts = Vec::new();
        for stream in &streams {
            let until = wish.until.as_deref();
            let until = until
                .map(|text| self.mark(text, stream, tenant, "/until"))
                .transpose()?;
            let ends = self.logs.ends(stream, tenant).await?;
            let first = if wish.from == "failed" {
                self.failed(&kept, &given_up, stream, &ends).await?
            } else {
                let from = self.mark(&wish.from, stream, tenant, "/from")?;
                self.offsets(&from, stream, tenant, &ends, "/from").await?
            };
            let last = match &until {
                Some(until) => self.offsets(until, stream, tenant, &ends, "/until").await?,
                None => ends.iter().map(|end| end.offset).collect(),
            };
            parts.extend(parts_of(endpoint, stream, ends, &first, &last));
        }
        self.begin(tenant, id, Kind::Replay, &parts).await
    }

    /// Sends one delivery again: a replay of one offset.
    pub(crate) async fn resend(&self, tenant: &TenantId, delivery: &DeliveryId) -> Result<String, Refusal> {
        let found = self.store.position_of(tenant, delivery).await?;
        let (id, stream, position) = found.ok_or_else(|| Refusal::new(Code::NOT_FOUND, ""))?;
        self.find(tenant, &id).await?;
        self.admit_replay(tenant, &id).await?;
        let part = NewReplay {
            endpoint: id.clone(),
            tenant: tenant.clone(),
            stream,
            until: position.offset + 1,
            position,
        };
        self.begin(tenant, &id, Kind::Resend, &[part]).await
    }

    /// The replays of an endpoint, the latest first.
    pub(crate) async fn replays(&self, tenant: &TenantId, id: &EndpointId) -> Result<Value, Refusal> {
        self.find(tenant, id).await?;
        let rows = self.store.replays(tenant, id).await?;
        Ok(json!({ "replays": shown(&rows) }))
    }

    /// Ends a replay; what it has parked already is sent all the same.
    pub(crate) async fn cancel_replay(
        &self,
        tenant: &TenantId,
        id: &EndpointId,
        replay: &str,
    ) -> Result<(), Refusal> {
        self.find(tenant, id).await?;
        if !self.store.cancel_replay(tenant, id, replay).await? {
            return Err(Refusal::new(Code::NOT_FOUND, ""));
        }
        self.record("replay_cancelled", tenant, id).await;
        Ok(())
    }

    async fn admit_replay(&self, tenant: &TenantId, id: &EndpointId) -> Result<(), Refusal> {
        let rows = self.store.replays(tenant, id).await?;
        let open: std::collections::BTreeSet<&str> = rows
            .iter()
            .filter(|row| row.next < row.until)
            .map(|row| row.id.as_str())
            .collect();
        if open.len() < REPLAYS_MAX {
            Ok(())
        } else {
            let detail = format!("{REPLAYS_MAX} replays of the endpoint are under way");
            Err(Refusal::new(Code::REPLAY_LIMITED, detail))
        }
    }

    async fn begin(
        &self,
        tenant: &TenantId,
        id: &EndpointId,
        kind: Kind,
        parts: &[NewReplay],
    ) -> Result<String, Refusal> {
        let replay = format!("rp_{}", ulid::Ulid::generate());
        if !parts.is_empty() {
            self.store.add_replays(&replay, kind, parts).await?;
        }
        self.record("replayed", tenant, id).await;
        Ok(replay)
    }

    /// What was given up of an endpoint, where that is asked for. An endpoint of which nothing was, and that does not fail,
    /// has nothing to be sent again.
    async fn given_up(&self, kept: &Kept, wish: &Wish) -> Result<Vec<(StreamName, Position)>, Refusal> {
        if wish.from != "failed" {
            return Ok(Vec::new());
        }
        let endpoint = &kept.endpoint;
        let given_up = self.store.given_up(&endpoint.tenant, &endpoint.id).await?;
        if given_up.is_empty() && failed_since(kept).is_none() {
            let detail = "it does not fail, and nothing of it was given up: a time or a cursor is wanted";
            return Err(Refusal::field(Code::FIELD_INVALID, "/from", detail));
        }
        Ok(given_up)
    }

    /// The first offset of each partition since an endpoint failed: of what was given up, and of what came since it fails.
    async fn failed(
        &self,
        kept: &Kept,
        given_up: &[(StreamName, Position)],
        stream: &Arc<Stream>,
        ends: &[Position],
    ) -> Result<Vec<i64>, Refusal> {
        let tenant = &kept.endpoint.tenant;
        let since = match failed_since(kept) {
            None => ends.iter().map(|end| end.offset).collect(),
            Some(since_ms) => {
                let since = Mark::Time(since_ms.saturating_sub(FAILED_SLACK_MS));
                self.offsets(&since, stream, tenant, ends, "/from").await?
            }
        };
        let its = given_up.iter().filter(|(name, _)| *name == stream.name);
        let its: Vec<Position> = its.map(|(_, position)| position.clone()).collect();
        let first = |(end, since): (&Position, i64)| same(&its, end).map_or(since, |lost| lost.min(since));
        Ok(ends.iter().zip(since).map(first).collect())
    }

    fn mark(&self, text: &str, stream: &Stream, tenant: &TenantId, pointer: &str) -> Result<Mark, Refusal> {
        // No cursor has a colon, and every time has.
        if text.contains(':') {
            let time: Result<jiff::Timestamp, _> = text.parse();
            let bad = || Refusal::field(Code::FIELD_INVALID, pointer, "that is no RFC 3339 time");
            return time
                .map(|time| Mark::Time(time.as_millisecond()))
                .map_err(|_| bad());
        }
        let bad = |bad: BadCursor| {
            let code = match bad {
                BadCursor::Invalid => Code::CURSOR_INVALID,
                BadCursor::Foreign => Code::CURSOR_FOREIGN,
            };
            Refusal::field(code, pointer, bad.to_string())
        };
        let cursor = self.sealer.open(&stream.name, tenant, text).map_err(bad)?;
        Ok(Mark::Cursor(Box::new(cursor)))
    }

    /// The offset of a mark in each of these partitions.
    async fn offsets(
        &self,
        mark: &Mark,
        stream: &Arc<Stream>,
        tenant: &TenantId,
        ends: &[Position],
        pointer: &str,
    ) -> Result<Vec<i64>, Refusal> {
        let spots: Vec<Spot> = match mark {
            Mark::Time(ms) => vec![Spot::Since(*ms); ends.len()],
            Mark::Cursor(cursor) => ends.iter().map(|end| spot(cursor, end)).collect(),
        };
        let mut times: BTreeMap<i64, Vec<Position>> = BTreeMap::new();
        let mut starts: Option<Vec<Position>> = None;
        let mut offsets = Vec::with_capacity(ends.len());
        for (spot, end) in spots.into_iter().zip(ends) {
            let offset = match spot {
                Spot::At(offset) if offset > end.offset => {
                    return Err(Refusal::field(Code::CURSOR_AHEAD, pointer, ""));
                }
                Spot::At(offset) => offset,
                Spot::Since(ms) => {
                    let found = match times.entry(ms) {
                        Entry::Occupied(known) => known.into_mut(),
                        Entry::Vacant(place) => place.insert(self.logs.at_time(stream, tenant, ms).await?),
                    };
                    same(found, end).unwrap_or(end.offset)
                }
                Spot::Start => {
                    if starts.is_none() {
                        starts = Some(self.logs.starts(stream, tenant).await?);
                    }
                    starts.as_deref().and_then(|found| same(found, end)).unwrap_or(0)
                }
            };
            offsets.push(offset);
        }
        Ok(offsets)
    }
}

/// Since when nothing succeeds, or since when it is disabled.
fn failed_since(kept: &Kept) -> Option<i64> {
    let disabled_ms = match kept.endpoint.status {
        Status::Disabled { since_ms, .. } => Some(since_ms),
        Status::Active | Status::Pending => None,
    };
    kept.failing_since_ms.into_iter().chain(disabled_ms).min()
}

/// The offset of the same partition.
fn same(positions: &[Position], end: &Position) -> Option<i64> {
    let is_same = |have: &&Position| {
        have.topic == end.topic && have.incarnation == end.incarnation && have.partition == end.partition
    };
    positions.iter().find(is_same).map(|have| have.offset)
}

/// Where a cursor stands in a partition, by the rules that live readers resume by.
fn spot(cursor: &Cursor, end: &Position) -> Spot {
    let digest = topic_digest(&end.topic);
    let mut named = cursor
        .topics
        .iter()
        .filter(|topic| topic.topic == digest)
        .peekable();
    if named.peek().is_none() {
        return Spot::Since(cursor.issued_at_ms.saturating_sub(ISSUED_AT_SLACK_MS));
    }
    // A topic that was made again, and a partition that was made since, are read from their beginnings.
    let Some(topic) = named.find(|topic| topic.incarnation == end.incarnation) else {
        return Spot::At(0);
    };
    let number = usize::try_from(end.partition).unwrap_or(usize::MAX);
    match topic.partitions.get(number) {
        None => Spot::At(0),
        Some(At::At(offset)) => Spot::At(*offset),
        Some(At::Since(ms)) => Spot::Since(*ms),
        Some(At::Start) => Spot::Start,
    }
}

/// The partitions of which anything is to be sent.
fn parts_of(
    endpoint: &Endpoint,
    stream: &Stream,
    ends: Vec<Position>,
    first: &[i64],
    last: &[i64],
) -> Vec<NewReplay> {
    let ranges = ends.into_iter().zip(first.iter().zip(last));
    ranges
        .filter(|(end, (first, last))| **first < (**last).min(end.offset))
        .map(|(end, (first, last))| NewReplay {
            endpoint: endpoint.id.clone(),
            tenant: endpoint.tenant.clone(),
            stream: stream.name.clone(),
            until: (*last).min(end.offset),
            position: Position {
                offset: *first,
                ..end
            },
        })
        .collect()
}

/// Replays as they are shown: how many partitions are through, and how many deliveries came of it; no offsets.
fn shown(rows: &[ReplayRow]) -> Vec<Value> {
    let mut replays: BTreeMap<&str, Vec<&ReplayRow>> = BTreeMap::new();
    for row in rows {
        replays.entry(&row.id).or_default().push(row);
    }
    // Ids are ordered by time.
    let mut shown: Vec<Value> = replays
        .into_iter()
        .filter_map(|(id, rows)| {
            let first = rows.first()?;
            let mut streams: Vec<&str> = rows.iter().map(|row| row.stream.as_str()).collect();
            streams.sort_unstable();
            streams.dedup();
            let done = rows.iter().filter(|row| row.next >= row.until).count();
            Some(json!({
                "id": id,
                "kind": first.kind.as_str(),
                "streams": streams,
                "created_at": time(first.created_ms),
                "partitions": rows.len(),
                "partitions_done": done,
                "deliveries": rows.iter().map(|row| row.parked).sum::<i64>(),
            }))
        })
        .collect();
    shown.reverse();
    shown
}

#[cfg(test)]
mod tests {
    use schemas::cursor::TopicPositions;
    use schemas::ids::Incarnation;

    use super::*;

    fn end(topic: &str, incarnation: u64, partition: i32) -> Position {
        Position {
            topic: Arc::from(topic),
            incarnation: Incarnation(incarnation),
            partition,
            offset: 100,
        }
    }

    #[test]
    fn a_cursor_stands_where_live_readers_would_resume() {
        let cursor = Cursor {
            revision: 1,
            issued_at_ms: 90_000,
            topics: vec![TopicPositions {
                topic: topic_digest("a"),
                incarnation: Incarnation(1),
                partitions: vec![At::At(7), At::Since(5_000), At::Start],
            }],
        };
        let stands = |topic: &str, incarnation, partition| spot(&cursor, &end(topic, incarnation, partition));
        assert_eq!(stands("a", 1, 0), Spot::At(7));
        assert_eq!(stands("a", 1, 1), Spot::Since(5_000));
        assert_eq!(stands("a", 1, 2), Spot::Start);
        assert_eq!(stands("a", 1, 3), Spot::At(0), "a partition that came since");
        assert_eq!(stands("a", 2, 0), Spot::At(0), "a topic that was made again");
        assert_eq!(
            stands("b", 1, 0),
            Spot::Since(30_000),
            "a topic that it does not name"
        );
    }

    #[test]
    fn what_is_shown_of_replays_has_no_offsets() {
        let row = |id: &str, partition, next| ReplayRow {
            id: id.to_owned(),
            kind: Kind::Replay,
            stream: StreamName::parse("observations").expect("a name"),
            topic: "secret-topic".to_owned(),
            partition,
            next,
            until: 777_777,
            parked: 2,
            created_ms: 0,
        };
        let rows = [
            row("rp_1", 0, 777_777),
            row("rp_1", 1, 555_555),
            row("rp_2", 0, 555_555),
        ];
        let shown = shown(&rows);
        assert_eq!(
            (&shown[0]["id"], &shown[1]["id"]),
            (&json!("rp_2"), &json!("rp_1"))
        );
        assert_eq!(
            (
                &shown[1]["partitions"],
                &shown[1]["partitions_done"],
                &shown[1]["deliveries"]
            ),
            (&json!(2), &json!(1), &json!(4))
        );
        let text = json!(shown).to_string();
        for secret in ["777777", "555555", "secret-topic"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}
