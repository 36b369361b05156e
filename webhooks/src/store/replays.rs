//! Parts of partitions that are to be read again for one endpoint: what a partner asks for, and what an endpoint missed
//! before every node knew of it.
//!
//! Invariants: a part is read by one node at a time, and how far it was read is kept together with what was parked of it. A
//! catch-up stays when it is over: it says that its endpoint is known where its partition is read.

use std::sync::Arc;
use std::time::Duration;

use schemas::ids::{Incarnation, StreamName, TenantId};
use sqlx::Row as _;

use super::parked::{insert_parked, millis};
use super::{BeginWriting, Parked, Store, StoreError, on, reading};
use crate::delivery::{EndpointId, Position};

/// Why something is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The endpoint was made, and the partition read on before its reader knew.
    CatchUp,
    /// Somebody asked for it.
    Replay,
    /// Somebody asked for one event.
    Resend,
}

impl Kind {
    /// As it is stored and shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CatchUp => "catch_up",
            Self::Replay => "replay",
            Self::Resend => "resend",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::CatchUp, Self::Replay, Self::Resend]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
}

/// A part of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewReplay {
    /// For whom.
    pub endpoint: EndpointId,
    /// Whose.
    pub tenant: TenantId,
    /// As which stream's records.
    pub stream: StreamName,
    /// The first offset.
    pub position: Position,
    /// The offset after the last one. At or below the first: nothing is to be read.
    pub until: i64,
}

/// How far a part is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayRow {
    /// Parts that were asked for together share it.
    pub id: String,
    /// Why.
    pub kind: Kind,
    /// As which stream's records.
    pub stream: StreamName,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The next offset to be read.
    pub next: i64,
    /// The offset after the last one.
    pub until: i64,
    /// Deliveries that were found.
    pub parked: i64,
    /// When it was asked for, in milliseconds since the Unix epoch.
    pub created_ms: i64,
}

/// Id, kind, stream, topic; partition, next, until, parked, created.
type Shown = (String, String, String, String, i64, i64, i64, i64, i64);

/// A part that is leased to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Its id.
    pub id: String,
    /// Why.
    pub kind: Kind,
    /// For whom.
    pub endpoint: EndpointId,
    /// Whose.
    pub tenant: TenantId,
    /// As which stream's records.
    pub stream: StreamName,
    /// The next offset to be read.
    pub position: Position,
    /// The offset after the last one.
    pub until: i64,
}

impl Store {
    /// Keeps what is to be read, all of it or none. What is kept already under this id stays as it is.
    pub async fn add_replays(&self, id: &str, kind: Kind, parts: &[NewReplay]) -> Result<(), StoreError> {
        let sql = "INSERT INTO webhook_replays (id, kind, endpoint, tenant, stream, topic, incarnation, partition_no,
               next_offset, until_offset, parked, created_ms, lease_until_ms)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0, {now}, 0)
             ON CONFLICT (id, topic, incarnation, partition_no) DO NOTHING";
        on!(self, pool => {
            let mut transaction = pool.begin_writing().await?;
            for part in parts {
                sqlx::query(self.sql(sql))
                    .bind(id)
                    .bind(kind.as_str())
                    .bind(part.endpoint.as_str())
                    .bind(part.tenant.as_str())
                    .bind(part.stream.as_str())
                    .bind(&*part.position.topic)
                    .bind(part.position.incarnation.0.cast_signed())
                    .bind(i64::from(part.position.partition))
                    .bind(part.position.offset)
                    .bind(part.until)
                    .execute(&mut *transaction)
                    .await?;
            }
            transaction.commit().await?;
        });
        Ok(())
    }

    /// Leases the part that waits longest, if there is any. Those of `busy` endpoints are left.
    pub async fn claim_replay(
        &self,
        holder: &str,
        lease: Duration,
        busy: &[EndpointId],
    ) -> Result<Option<Reading>, StoreError> {
        // Few at a time are looked at; of them the first that is for no busy endpoint.
        let candidates = "SELECT id, endpoint, topic, incarnation, partition_no FROM webhook_replays
             WHERE next_offset < until_offset AND lease_until_ms <= {now} ORDER BY created_ms, id, partition_no LIMIT 64";
        let rows: Vec<(String, String, String, i64, i64)> = reading!(self, pool => {
            sqlx::query_as(self.sql(candidates)).fetch_all(pool).await
        })?;
        let free = |endpoint: &str| !busy.iter().any(|busy| busy.as_str() == endpoint);
        let take = "UPDATE webhook_replays SET lease_holder = $1, lease_until_ms = {now} + $2
             WHERE id = $3 AND topic = $4 AND incarnation = $5 AND partition_no = $6 AND lease_until_ms <= {now}
               AND next_offset < until_offset
             RETURNING kind, tenant, stream, next_offset, until_offset";
        for (id, endpoint, topic, incarnation, partition) in rows.into_iter().filter(|row| free(&row.1)) {
            let taken: Option<(String, String, String, i64, i64)> = on!(self, pool => {
                let row = sqlx::query(self.sql(take))
                    .bind(holder)
                    .bind(millis(lease))
                    .bind(&id)
                    .bind(&topic)
                    .bind(incarnation)
                    .bind(partition)
                    .fetch_optional(pool)
                    .await?;
                row.map(|row| Ok::<_, StoreError>((
                    row.try_get("kind")?,
                    row.try_get("tenant")?,
                    row.try_get("stream")?,
                    row.try_get("next_offset")?,
                    row.try_get("until_offset")?,
                )))
                .transpose()?
            });
            // Another node was faster.
            let Some((kind, tenant, stream, next, until)) = taken else {
                continue;
            };
            let unreadable = || StoreError::Unreadable("a replay");
            return Ok(Some(Reading {
                id,
                kind: Kind::parse(&kind).ok_or_else(unreadable)?,
                endpoint: EndpointId::parse(&endpoint).map_err(|_| unreadable())?,
                tenant: TenantId::parse(&tenant).map_err(|_| unreadable())?,
                stream: StreamName::parse(&stream).map_err(|_| unreadable())?,
                position: Position {
                    topic: Arc::from(topic),
                    incarnation: Incarnation(incarnation.cast_unsigned()),
                    partition: i32::try_from(partition).map_err(|_| unreadable())?,
                    offset: next,
                },
                until,
            }));
        }
        Ok(None)
    }

    /// Parks what was found and keeps that the part is read up to here, both or neither; the lease goes on for so long
    /// (zero: it is given back). `false`: the part is somebody else's by now, or gone, and nothing was done.
    pub async fn advance_replay(
        &self,
        reading: &Reading,
        holder: &str,
        next: i64,
        found: &[Parked],
        lease: Duration,
    ) -> Result<bool, StoreError> {
        let sealed = self.seal_parked(found).await?;
        let sql = "UPDATE webhook_replays SET next_offset = $1, parked = parked + $2,
               lease_until_ms = CASE WHEN $3 = 0 THEN 0 ELSE {now} + $3 END
             WHERE id = $4 AND topic = $5 AND incarnation = $6 AND partition_no = $7 AND lease_holder = $8";
        let position = &reading.position;
        on!(self, pool => {
            let mut transaction = pool.begin_writing().await?;
            let done = sqlx::query(self.sql(sql))
                .bind(next)
                .bind(i64::try_from(found.len()).unwrap_or(i64::MAX))
                .bind(millis(lease))
                .bind(&reading.id)
                .bind(&*position.topic)
                .bind(position.incarnation.0.cast_signed())
                .bind(i64::from(position.partition))
                .bind(holder)
                .execute(&mut *transaction)
                .await?;
            if done.rows_affected() == 0 {
                return Ok(false);
            }
            insert_parked!(self, transaction, found, sealed);
            transaction.commit().await?;
        });
        Ok(true)
    }

    /// The endpoints, each with a stream, that are known where this partition is read, and whether they have caught up.
    pub async fn caught_up(
        &self,
        topic: &str,
        incarnation: Incarnation,
        partition: i32,
    ) -> Result<Vec<(EndpointId, StreamName, bool)>, StoreError> {
        let sql = "SELECT endpoint, stream, CASE WHEN next_offset >= until_offset THEN 1 ELSE 0 END FROM webhook_replays
             WHERE kind = 'catch_up' AND topic = $1 AND partition_no = $2 AND incarnation = $3";
        let rows: Vec<(String, String, i32)> = reading!(self, pool => {
            sqlx::query_as(sql)
                .bind(topic)
                .bind(i64::from(partition))
                .bind(incarnation.0.cast_signed())
                .fetch_all(pool)
                .await
        })?;
        let parsed = |(endpoint, stream, done): (String, String, i32)| {
            let names = EndpointId::parse(&endpoint)
                .ok()
                .zip(StreamName::parse(&stream).ok());
            let (endpoint, stream) = names.ok_or(StoreError::Unreadable("a replay"))?;
            Ok((endpoint, stream, done == 1))
        };
        rows.into_iter().map(parsed).collect()
    }

    /// What was asked for an endpoint, the latest first.
    pub async fn replays(
        &self,
        tenant: &TenantId,
        endpoint: &EndpointId,
    ) -> Result<Vec<ReplayRow>, StoreError> {
        let sql =
            "SELECT id, kind, stream, topic, partition_no, next_offset, until_offset, parked, created_ms
             FROM webhook_replays WHERE tenant = $1 AND endpoint = $2 AND kind <> 'catch_up'
             ORDER BY id DESC, topic, partition_no LIMIT 1000";
        let rows: Vec<Shown> = reading!(self, pool => {
            sqlx::query_as(sql).bind(tenant.as_str()).bind(endpoint.as_str()).fetch_all(pool).await
        })?;
        let unreadable = || StoreError::Unreadable("a replay");
        let mut parsed = Vec::with_capacity(rows.len());
        for (id, kind, stream, topic, partition, next, until, parked, created_ms) in rows {
            parsed.push(ReplayRow {
                id,
                kind: Kind::parse(&kind).ok_or_else(unreadable)?,
                stream: StreamName::parse(&stream).map_err(|_| unreadable())?,
                topic,
                partition: i32::try_from(partition).map_err(|_| unreadable())?,
                next,
                until,
                parked,
                created_ms,
            });
        }
        Ok(parsed)
    }

    /// Ends what somebody asked for. What was parked of it stays. Answers whether there was any.
    pub async fn cancel_replay(
        &self,
        tenant: &TenantId,
        endpoint: &EndpointId,
        id: &str,
    ) -> Result<bool, StoreError> {
        let sql = "DELETE FROM webhook_replays WHERE tenant = $1 AND endpoint = $2 AND id = $3 AND kind <> 'catch_up'";
        let deleted = on!(self, pool => {
            let query = sqlx::query(sql).bind(tenant.as_str()).bind(endpoint.as_str()).bind(id);
            query.execute(pool).await.map(|done| done.rows_affected())
        })?;
        Ok(deleted > 0)
    }

    /// Forgets replays that ended and were asked for longer ago than this. Answers how many parts.
    pub async fn expire_replays(&self, age: Duration) -> Result<u64, StoreError> {
        let sql = self.sql(
            "DELETE FROM webhook_replays WHERE kind <> 'catch_up' AND next_offset >= until_offset AND created_ms <= {now} - $1",
        );
        let deleted = on!(self, pool => {
            sqlx::query(sql).bind(millis(age)).execute(pool).await.map(|done| done.rows_affected())
        })?;
        Ok(deleted)
    }
}
