//! Deliveries that wait: sealed records, when they are due, and who works on them.
//!
//! Invariants: parking what is parked changes nothing. A delivery is leased to one holder at a time; a lease ends by itself.
//! Of deliveries with one order key only the first one is ever given out. What was delivered is gone, whoever's lease it was.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use schemas::decode::Record;
use schemas::ids::{Incarnation, StreamName, TenantId};
use sqlx::Row as _;

use super::rows::{Rows, batches};
use super::vault::purpose;
use super::{BeginWriting, Store, StoreError, on, reading};
use crate::delivery::{DeliveryId, EndpointId, Position};
use crate::payload;

/// A delivery to be parked.
#[derive(Debug, Clone)]
pub struct Parked {
    /// Its id.
    pub delivery: DeliveryId,
    /// To whom.
    pub endpoint: EndpointId,
    /// Whose.
    pub tenant: TenantId,
    /// Of which stream.
    pub stream: StreamName,
    /// The record, to be decoded again at each attempt.
    pub record: Arc<Record>,
    /// What deliveries that must keep their order share: a keyed hash of the record's key, never the key.
    pub order_key: Option<Vec<u8>>,
    /// Attempts so far.
    pub attempts: u32,
    /// How long ago the first one was.
    pub age: Duration,
    /// From now.
    pub due_in: Duration,
    /// Who works on it already, and for how long at most.
    pub lease: Option<(Arc<str>, Duration)>,
}

/// A delivery that is due and leased to the caller.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// Its id.
    pub delivery: DeliveryId,
    /// Of which stream.
    pub stream: StreamName,
    /// The record.
    pub record: Record,
    /// What it keeps its order with.
    pub order_key: Option<Vec<u8>>,
    /// Attempts so far.
    pub attempts: u32,
    /// How long ago the first one was.
    pub age: Duration,
}

/// What became of a parked delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// It is over: delivered, dead-lettered or dropped.
    Over(DeliveryId),
    /// It is to be tried again.
    Again {
        /// Which one.
        delivery: DeliveryId,
        /// From now.
        due_in: Duration,
        /// Attempts so far.
        attempts: u32,
    },
    /// The holder does not work on it any more, and nothing was tried.
    Released(DeliveryId),
}

/// What waits for one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// How many.
    pub count: i64,
    /// When the next one is due, in milliseconds since the Unix epoch.
    pub next_ms: Option<i64>,
}

struct Row {
    delivery: String,
    stream: String,
    order_key: Option<Vec<u8>>,
    attempts: i64,
    age_ms: i64,
    due_ms: i64,
    offset: i64,
    payload: Vec<u8>,
}

/// Inserts deliveries, sealed before, in a transaction of either engine.
macro_rules! insert_parked {
    ($store:expr, $transaction:ident, $deliveries:expr, $sealed:expr) => {
        let sealed: Vec<_> = $deliveries.iter().zip(&$sealed).collect();
        for rows in $crate::store::rows::batches(&sealed) {
            let mut query = sqlx::query($store.rows($crate::store::parked::INSERT, rows.len()));
            for (parked, sealed) in rows {
                let record = &parked.record;
                let (holder, lease_ms) = match &parked.lease {
                    Some((holder, lease)) => (Some(&**holder), $crate::store::parked::millis(*lease)),
                    None => (None, 0),
                };
                query = query
                    .bind(parked.delivery.as_str())
                    .bind(parked.endpoint.as_str())
                    .bind(parked.tenant.as_str())
                    .bind(parked.stream.as_str())
                    .bind(&*record.topic)
                    .bind(record.incarnation.0.cast_signed())
                    .bind(i64::from(record.partition))
                    .bind(record.offset)
                    .bind(parked.order_key.as_deref())
                    .bind(i64::from(parked.attempts))
                    .bind($crate::store::parked::millis(parked.age))
                    .bind($crate::store::parked::millis(parked.due_in))
                    .bind(holder)
                    .bind(lease_ms)
                    .bind(lease_ms)
                    .bind(sealed.as_slice());
            }
            query.execute(&mut *$transaction).await?;
        }
    };
}

pub(super) use insert_parked;

/// Parks deliveries, those that are not parked already.
pub(super) const INSERT: Rows = Rows {
    head: "INSERT INTO webhook_parked (delivery, endpoint, tenant, stream, topic, incarnation, partition_no, record_offset,
       order_key, attempts, first_ms, parked_ms, due_ms, lease_holder, lease_until_ms, payload) VALUES ",
    row: "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, {now} - ?, {now}, {now} + ?, ?, CASE WHEN ? = 0 THEN 0 ELSE {now} + ? END, ?)",
    tail: " ON CONFLICT (delivery) DO NOTHING",
};

/// Forgets deliveries.
const DELETE: Rows = Rows {
    head: "DELETE FROM webhook_parked WHERE delivery IN (",
    row: "?",
    tail: ")",
};

impl Settled {
    fn over(&self) -> Option<&DeliveryId> {
        match self {
            Self::Over(delivery) => Some(delivery),
            Self::Again { .. } | Self::Released(_) => None,
        }
    }
}

impl Store {
    /// Parks deliveries, all of them or none. Those that are parked already stay as they are.
    pub async fn park(&self, deliveries: &[Parked]) -> Result<(), StoreError> {
        let sealed = self.seal_parked(deliveries).await?;
        on!(self, pool => {
            let mut transaction = pool.begin_writing().await?;
            insert_parked!(self, transaction, deliveries, sealed);
            transaction.commit().await?;
        });
        Ok(())
    }

    pub(super) async fn seal_parked(&self, deliveries: &[Parked]) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut sealed = Vec::with_capacity(deliveries.len());
        for parked in deliveries {
            let seal = self.tenant_seal(&parked.tenant).await?;
            sealed.push(seal.seal_bytes(
                &payload_purpose(&parked.tenant, &parked.endpoint, &parked.delivery),
                &payload::write(&parked.record),
            ));
        }
        Ok(sealed)
    }

    /// Leases up to `limit` deliveries of one endpoint that are due and that nobody works on, the longest due first.
    pub async fn claim(
        &self,
        tenant: &TenantId,
        endpoint: &EndpointId,
        holder: &str,
        lease: Duration,
        limit: i64,
    ) -> Result<Vec<Claimed>, StoreError> {
        let sql = self.sql(
            // Materialized: what is locked is chosen once, and not more of it than is asked for.
            "WITH next AS MATERIALIZED (
               SELECT p.delivery FROM webhook_parked p
               WHERE p.endpoint = $3 AND p.due_ms <= {now} AND p.lease_until_ms <= {now}
                 AND (p.order_key IS NULL OR NOT EXISTS (
                   SELECT 1 FROM webhook_parked q
                   WHERE q.endpoint = p.endpoint AND q.order_key = p.order_key AND q.topic = p.topic
                     AND q.incarnation = p.incarnation AND q.partition_no = p.partition_no
                     AND q.record_offset < p.record_offset))
               ORDER BY p.due_ms, p.record_offset LIMIT $4 {skip})
             UPDATE webhook_parked SET lease_holder = $1, lease_until_ms = {now} + $2
             WHERE delivery IN (SELECT delivery FROM next)
             RETURNING delivery, stream, order_key, attempts, {now} - first_ms AS age_ms, due_ms, record_offset,
               payload",
        );
        let mut rows: Vec<Row> = on!(self, pool => {
            let rows = sqlx::query(sql)
                .bind(holder)
                .bind(millis(lease))
                .bind(endpoint.as_str())
                .bind(limit)
                .fetch_all(pool)
                .await?;
            rows.into_iter()
                .map(|row| {
                    Ok::<_, StoreError>(Row {
                        delivery: row.try_get("delivery")?,
                        stream: row.try_get("stream")?,
                        order_key: row.try_get("order_key")?,
                        attempts: row.try_get("attempts")?,
                        age_ms: row.try_get("age_ms")?,
                        due_ms: row.try_get("due_ms")?,
                        offset: row.try_get("record_offset")?,
                        payload: row.try_get("payload")?,
                    })
                })
                .collect::<Result<_, _>>()?
        });
        rows.sort_by_key(|row| (row.due_ms, row.offset));
        let seal = self.tenant_seal(tenant).await?;
        let unreadable = || StoreError::Unreadable("a parked delivery");
        let mut claimed = Vec::with_capacity(rows.len());
        for row in rows {
            let delivery = DeliveryId::parse(&row.delivery).map_err(|_| unreadable())?;
            let payload = seal
                .open_bytes(&payload_purpose(tenant, endpoint, &delivery), &row.payload)
                .ok_or_else(unreadable)?;
            claimed.push(Claimed {
                delivery,
                stream: StreamName::parse(&row.stream).map_err(|_| unreadable())?,
                record: payload::read(&Bytes::from(payload)).map_err(|_| unreadable())?,
                order_key: row.order_key,
                attempts: u32::try_from(row.attempts).unwrap_or(u32::MAX),
                age: Duration::from_millis(u64::try_from(row.age_ms).unwrap_or(0)),
            });
        }
        Ok(claimed)
    }

    /// Tells what became of deliveries that the holder has leased. What another holder has by now is left to it, but for
    /// what is over: that is over for everybody.
    pub async fn settle(&self, holder: &str, settled: &[Settled]) -> Result<(), StoreError> {
        let again = "UPDATE webhook_parked SET attempts = $1, due_ms = {now} + $2, lease_holder = NULL, lease_until_ms = 0
             WHERE delivery = $3 AND lease_holder = $4";
        let released = "UPDATE webhook_parked SET lease_holder = NULL, lease_until_ms = 0
             WHERE delivery = $1 AND lease_holder = $2";
        on!(self, pool => {
            let mut transaction = pool.begin_writing().await?;
            let mut rest = settled;
            loop {
                // In order: what is over in a row goes at once.
                let over: Vec<&DeliveryId> = rest.iter().map_while(Settled::over).collect();
                for over in batches(&over) {
                    let mut query = sqlx::query(self.rows(DELETE, over.len()));
                    for delivery in over {
                        query = query.bind(delivery.as_str());
                    }
                    query.execute(&mut *transaction).await?;
                }
                let Some((settled, later)) = rest.get(over.len()..).and_then(<[Settled]>::split_first) else {
                    break;
                };
                rest = later;
                let query = match settled {
                    Settled::Over(_) => continue,
                    Settled::Again { delivery, due_in, attempts } => sqlx::query(self.sql(again))
                        .bind(i64::from(*attempts))
                        .bind(millis(*due_in))
                        .bind(delivery.as_str())
                        .bind(holder),
                    Settled::Released(delivery) => {
                        sqlx::query(released).bind(delivery.as_str()).bind(holder)
                    }
                };
                query.execute(&mut *transaction).await?;
            }
            transaction.commit().await?;
        });
        Ok(())
    }

    /// The endpoints that are called and have something due that nobody works on.
    pub async fn due(&self) -> Result<Vec<EndpointId>, StoreError> {
        let sql = self.sql(
            "SELECT e.id FROM webhook_endpoints e WHERE e.callable = 1 AND EXISTS (
               SELECT 1 FROM webhook_parked p
               WHERE p.endpoint = e.id AND p.due_ms <= {now} AND p.lease_until_ms <= {now})
             ORDER BY e.id",
        );
        let ids: Vec<(String,)> = reading!(self, pool => sqlx::query_as(sql).fetch_all(pool).await)?;
        let parsed =
            |(id,): (String,)| EndpointId::parse(&id).map_err(|_| StoreError::Unreadable("an endpoint"));
        ids.into_iter().map(parsed).collect()
    }

    /// What waits for an endpoint.
    pub async fn backlog(&self, endpoint: &EndpointId) -> Result<Backlog, StoreError> {
        let sql = "SELECT COUNT(*), MIN(due_ms) FROM webhook_parked WHERE endpoint = $1";
        let (count, next_ms): (i64, Option<i64>) = reading!(self, pool => {
            sqlx::query_as(sql).bind(endpoint.as_str()).fetch_one(pool).await
        })?;
        Ok(Backlog { count, next_ms })
    }

    /// How many deliveries wait, for whomever.
    pub async fn waiting(&self) -> Result<i64, StoreError> {
        let count = reading!(self, pool => {
            sqlx::query_scalar("SELECT COUNT(*) FROM webhook_parked").fetch_one(pool).await
        })?;
        Ok(count)
    }

    /// The order keys of an endpoint that have something parked: what comes for them has to wait.
    pub async fn blocked_keys(&self, endpoint: &EndpointId) -> Result<Vec<Vec<u8>>, StoreError> {
        let sql =
            "SELECT DISTINCT order_key FROM webhook_parked WHERE endpoint = $1 AND order_key IS NOT NULL";
        let keys: Vec<(Vec<u8>,)> = reading!(self, pool => {
            sqlx::query_as(sql).bind(endpoint.as_str()).fetch_all(pool).await
        })?;
        Ok(keys.into_iter().map(|(key,)| key).collect())
    }

    /// What is parked of a partition from an offset on, for whichever endpoint: whoever reads the partition again need not
    /// deliver it.
    pub async fn parked_from(&self, from: &Position) -> Result<Vec<DeliveryId>, StoreError> {
        let sql = "SELECT delivery FROM webhook_parked
             WHERE topic = $1 AND partition_no = $2 AND incarnation = $3 AND record_offset >= $4";
        let ids: Vec<(String,)> = reading!(self, pool => {
            sqlx::query_as(sql)
                .bind(&*from.topic)
                .bind(i64::from(from.partition))
                .bind(from.incarnation.0.cast_signed())
                .bind(from.offset)
                .fetch_all(pool)
                .await
        })?;
        let parsed = |(id,): (String,)| {
            DeliveryId::parse(&id).map_err(|_| StoreError::Unreadable("a parked delivery"))
        };
        ids.into_iter().map(parsed).collect()
    }

    /// The positions of what is parked for an endpoint: from the lowest of each partition on, everything that is unsettled
    /// follows.
    pub async fn unsettled(&self, endpoint: &EndpointId) -> Result<Vec<Position>, StoreError> {
        let sql = "SELECT topic, incarnation, partition_no, MIN(record_offset) FROM webhook_parked
             WHERE endpoint = $1 GROUP BY topic, incarnation, partition_no";
        let rows: Vec<(String, i64, i64, i64)> = reading!(self, pool => {
            sqlx::query_as(sql).bind(endpoint.as_str()).fetch_all(pool).await
        })?;
        let position = |(topic, incarnation, partition, offset): (String, i64, i64, i64)| {
            Ok(Position {
                topic: Arc::from(topic),
                incarnation: Incarnation(incarnation.cast_unsigned()),
                partition: i32::try_from(partition).map_err(|_| StoreError::Unreadable("a position"))?,
                offset,
            })
        };
        rows.into_iter().map(position).collect()
    }

    /// Drops what has been parked for an endpoint for longer than this. Answers how many, so that it is on record.
    pub async fn expire_parked(&self, endpoint: &EndpointId, age: Duration) -> Result<u64, StoreError> {
        let sql = self.sql(
            "DELETE FROM webhook_parked WHERE endpoint = $1 AND parked_ms <= {now} - $2 AND lease_until_ms <= {now}",
        );
        let dropped = on!(self, pool => {
            let query = sqlx::query(sql).bind(endpoint.as_str()).bind(millis(age));
            query.execute(pool).await.map(|done| done.rows_affected())
        })?;
        Ok(dropped)
    }

    /// Gives up everything that a holder has: a drain, so that others need not wait for its leases to end.
    pub async fn release(&self, holder: &str) -> Result<u64, StoreError> {
        let sql = "UPDATE webhook_parked SET lease_holder = NULL, lease_until_ms = 0 WHERE lease_holder = $1";
        let released = on!(self, pool => {
            sqlx::query(sql).bind(holder).execute(pool).await.map(|done| done.rows_affected())
        })?;
        Ok(released)
    }
}

fn payload_purpose(tenant: &TenantId, endpoint: &EndpointId, delivery: &DeliveryId) -> Vec<u8> {
    purpose("parked", &[tenant.as_str(), endpoint.as_str(), delivery.as_str()])
}

pub(super) fn millis(duration: Duration) -> i64 {
    // Far beyond every limit, and still no overflow when a time of day is added.
    i64::try_from(duration.as_millis())
        .unwrap_or(i64::MAX)
        .min(1 << 52)
}
