//! The log of attempts: what partners and operators look at. No bodies, no addresses.
//!
//! Invariants: attempts are kept many in a row (a segment: one endpoint's, of one batch), so that one costs a fraction of a
//! row; whoever looks goes through segments from the latest to the oldest and stops as soon as it can. The order is that of the
//! attempts' ids, which is that of time, also where the segments of several nodes overlap.

mod segment;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use schemas::ids::{StreamName, TenantId};
use ulid::Ulid;

use super::bodies::{Bodies, insert_bodies};
use super::{BeginWriting, Store, StoreError, on, reading};
use crate::delivery::{DeliveryId, EndpointId, Position};

/// Attempts of one segment.
const SEGMENT_MAX: usize = 1024;

/// Segments that are read at once.
const READ: i64 = 8;

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Its order is that of time.
    pub id: Ulid,
    /// Whose.
    pub tenant: TenantId,
    /// To whom.
    pub endpoint: EndpointId,
    /// Of what.
    pub delivery: DeliveryId,
    /// The how-manieth of its delivery, from 1.
    pub number: u32,
    /// When it began, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
    /// `delivered`, or a stable word for what went wrong.
    pub outcome: Cow<'static, str>,
    /// How long it took.
    pub latency_ms: u32,
    /// Which event it was; a test has none.
    pub place: Option<(StreamName, Position)>,
}

/// Which attempts are asked for. What is `None` is not asked.
#[derive(Debug, Clone, Default)]
pub struct AttemptFilter {
    /// To this endpoint.
    pub endpoint: Option<EndpointId>,
    /// Of this delivery.
    pub delivery: Option<DeliveryId>,
    /// With this outcome.
    pub outcome: Option<String>,
    /// With this status of the answer.
    pub status: Option<u16>,
    /// Not before this time, in milliseconds since the Unix epoch.
    pub since_ms: Option<i64>,
    /// Before this time.
    pub until_ms: Option<i64>,
    /// Older than this attempt: the last one of the page before.
    pub before: Option<Ulid>,
}

impl AttemptFilter {
    fn takes(&self, attempt: &Attempt) -> bool {
        self.endpoint.as_ref().is_none_or(|one| *one == attempt.endpoint)
            && self.delivery.as_ref().is_none_or(|one| *one == attempt.delivery)
            && self.outcome.as_ref().is_none_or(|one| *one == attempt.outcome)
            && self.status.is_none_or(|status| attempt.status == Some(status))
            && self.since_ms.is_none_or(|since_ms| attempt.at_ms >= since_ms)
            && self.until_ms.is_none_or(|until_ms| attempt.at_ms < until_ms)
            && self.before.is_none_or(|before| attempt.id < before)
    }
}

/// A row.
type Row = (String, String, Vec<u8>);

impl Store {
    /// Writes attempts down, and the bodies of those of which they are kept: all of them or none. Writing the same ones
    /// again changes nothing.
    pub async fn log(&self, attempts: &[Attempt], bodies: &[Bodies]) -> Result<(), StoreError> {
        let sealed = self.seal_bodies(bodies).await?;
        let mut of: BTreeMap<(&TenantId, &EndpointId), Vec<&Attempt>> = BTreeMap::new();
        for attempt in attempts {
            of.entry((&attempt.tenant, &attempt.endpoint))
                .or_default()
                .push(attempt);
        }
        let sql = "INSERT INTO webhook_log (tenant, last_id, endpoint, first_id, since_ms, until_ms, entries)
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (tenant, last_id) DO NOTHING";
        on!(self, pool => {
            let mut transaction = pool.begin_writing().await?;
            for ((tenant, endpoint), attempts) in &mut of {
                attempts.sort_unstable_by_key(|attempt| attempt.id);
                for attempts in attempts.chunks(SEGMENT_MAX) {
                    let (Some(first), Some(last)) = (attempts.first(), attempts.last()) else {
                        continue;
                    };
                    let times = || attempts.iter().map(|attempt| attempt.at_ms);
                    sqlx::query(sql)
                        .bind(tenant.as_str())
                        .bind(last.id.to_string())
                        .bind(endpoint.as_str())
                        .bind(first.id.to_string())
                        .bind(times().min().unwrap_or_default())
                        .bind(times().max().unwrap_or_default())
                        .bind(segment::write(attempts))
                        .execute(&mut *transaction)
                        .await?;
                }
            }
            insert_bodies!(transaction, bodies, sealed);
            transaction.commit().await?;
        });
        Ok(())
    }

    /// A tenant's attempts, the latest first.
    pub async fn attempts(
        &self,
        tenant: &TenantId,
        filter: &AttemptFilter,
        limit: usize,
    ) -> Result<Vec<Attempt>, StoreError> {
        let mut found: BTreeMap<Ulid, Attempt> = BTreeMap::new();
        self.look_back(tenant, filter, |last, attempts| {
            // What follows is older than the last of this segment.
            if found.len() >= limit && found.first_key_value().is_some_and(|(oldest, _)| *oldest > last) {
                return ControlFlow::Break(());
            }
            found.extend(attempts.into_iter().map(|attempt| (attempt.id, attempt)));
            while found.len() > limit {
                found.pop_first();
            }
            ControlFlow::Continue(())
        })
        .await?;
        Ok(found.into_values().rev().collect())
    }

    /// Goes through the segments of a tenant, from the one with the latest end to the oldest, and gives what the filter takes
    /// of each, with the id of its last attempt.
    pub(super) async fn look_back(
        &self,
        tenant: &TenantId,
        filter: &AttemptFilter,
        mut look: impl FnMut(Ulid, Vec<Attempt>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut sql = "SELECT last_id, endpoint, entries FROM webhook_log
             WHERE tenant = $1 AND last_id < $2 AND first_id < $3 AND until_ms >= $4 AND since_ms < $5"
            .to_owned();
        // A condition of its own, so that the index of endpoints is used.
        if filter.endpoint.is_some() {
            sql.push_str(" AND endpoint = $7");
        }
        sql.push_str(" ORDER BY last_id DESC LIMIT $6");
        // Above every id, as text.
        let end = || "~".to_owned();
        let (mut next, before) = (end(), filter.before.map_or_else(end, |before| before.to_string()));
        let unreadable = || StoreError::Unreadable("the log of attempts");
        loop {
            let rows: Vec<Row> = reading!(self, pool => {
                let mut query = sqlx::query_as(sqlx::AssertSqlSafe(sql.as_str()))
                    .bind(tenant.as_str())
                    .bind(&next)
                    .bind(&before)
                    .bind(filter.since_ms.unwrap_or(i64::MIN))
                    .bind(filter.until_ms.unwrap_or(i64::MAX))
                    .bind(READ);
                if let Some(endpoint) = &filter.endpoint {
                    query = query.bind(endpoint.as_str());
                }
                query.fetch_all(pool).await
            })?;
            let Some((last, ..)) = rows.last() else {
                return Ok(());
            };
            next.clone_from(last);
            for (last, endpoint, entries) in rows {
                let last = Ulid::from_string(&last).map_err(|_| unreadable())?;
                let endpoint = EndpointId::parse(&endpoint).map_err(|_| unreadable())?;
                let mut attempts = segment::read(tenant, &endpoint, entries).map_err(|_| unreadable())?;
                attempts.retain(|attempt| filter.takes(attempt));
                if look(last, attempts).is_break() {
                    return Ok(());
                }
            }
        }
    }

    /// One attempt.
    pub async fn attempt(&self, tenant: &TenantId, id: Ulid) -> Result<Option<Attempt>, StoreError> {
        let sql = "SELECT endpoint, entries FROM webhook_log
             WHERE tenant = $1 AND last_id >= $2 AND last_id < $3 AND first_id <= $2";
        // A segment is what came within a moment, or what waited while the store was gone: never a day.
        let latest = Ulid::from_parts(id.timestamp_ms().saturating_add(86_400_000), u128::MAX);
        let rows: Vec<(String, Vec<u8>)> = reading!(self, pool => {
            let query = sqlx::query_as(sql).bind(tenant.as_str()).bind(id.to_string());
            query.bind(latest.to_string()).fetch_all(pool).await
        })?;
        let unreadable = || StoreError::Unreadable("the log of attempts");
        for (endpoint, entries) in rows {
            let endpoint = EndpointId::parse(&endpoint).map_err(|_| unreadable())?;
            let attempts = segment::read(tenant, &endpoint, entries).map_err(|_| unreadable())?;
            if let Some(found) = attempts.into_iter().find(|attempt| attempt.id == id) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// To whom a delivery was attempted and which event it is, as far as the log goes back.
    pub async fn position_of(
        &self,
        tenant: &TenantId,
        delivery: &DeliveryId,
    ) -> Result<Option<(EndpointId, StreamName, Position)>, StoreError> {
        let filter = AttemptFilter {
            delivery: Some(delivery.clone()),
            ..AttemptFilter::default()
        };
        let latest = self.attempts(tenant, &filter, 1).await?.pop();
        Ok(latest.and_then(|attempt| {
            let (stream, position) = attempt.place?;
            Some((attempt.endpoint, stream, position))
        }))
    }

    /// Forgets segments of which all is older than this, and bodies that are.
    pub async fn expire_attempts(&self, age: Duration) -> Result<(), StoreError> {
        let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let sql = self.sql("DELETE FROM webhook_log WHERE until_ms <= {now} - $1");
        on!(self, pool => sqlx::query(sql).bind(age_ms).execute(pool).await.map(drop))?;
        self.expire_bodies(age_ms).await
    }
}
