//! The log of attempts: what partners and operators look at. No bodies, no addresses.

use std::sync::Arc;
use std::time::Duration;

use schemas::ids::{Incarnation, StreamName, TenantId};
use sqlx::Row as _;
use ulid::Ulid;

use super::{Store, StoreError, on, reading};
use crate::delivery::{DeliveryId, EndpointId, Position};

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// A ULID: its order is that of time.
    pub id: String,
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
    pub outcome: String,
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
    /// Not before this time, in milliseconds since the Unix epoch.
    pub since_ms: Option<i64>,
    /// Before this time.
    pub until_ms: Option<i64>,
    /// Older than this attempt: the last one of the page before.
    pub before: Option<String>,
}

impl Attempt {
    /// An id for an attempt that began now.
    #[must_use]
    pub fn new_id() -> String {
        Ulid::generate().to_string()
    }
}

impl Store {
    /// Writes attempts down, all of them or none.
    pub async fn log(&self, attempts: &[Attempt]) -> Result<(), StoreError> {
        on!(self, pool => {
            let mut transaction = pool.begin().await?;
            for rows in batches(attempts) {
                let mut query = sqlx::query(insert(rows.len(), self.is_single()));
                for attempt in rows {
                    query = query
                    .bind(&attempt.id)
                    .bind(attempt.tenant.as_str())
                    .bind(attempt.endpoint.as_str())
                    .bind(attempt.delivery.as_str())
                    .bind(i64::from(attempt.number))
                    .bind(attempt.at_ms)
                    .bind(attempt.status.map(i64::from))
                    .bind(&attempt.outcome)
                    .bind(i64::from(attempt.latency_ms))
                    .bind(attempt.place.as_ref().map(|(stream, _)| stream.as_str()))
                    .bind(attempt.place.as_ref().map(|(_, position)| &*position.topic))
                    .bind(attempt.place.as_ref().map(|(_, position)| position.incarnation.0.cast_signed()))
                    .bind(attempt.place.as_ref().map(|(_, position)| i64::from(position.partition)))
                    .bind(attempt.place.as_ref().map(|(_, position)| position.offset));
                }
                query.execute(&mut *transaction).await?;
            }
            transaction.commit().await?;
        });
        Ok(())
    }

    /// A tenant's attempts, the latest first.
    pub async fn attempts(
        &self,
        tenant: &TenantId,
        filter: &AttemptFilter,
        limit: i64,
    ) -> Result<Vec<Attempt>, StoreError> {
        // The casts tell PostgreSQL the type of what is only compared with NULL.
        let sql = "SELECT id, endpoint, delivery, number, at_ms, status, outcome, latency_ms,
               stream, topic, incarnation, partition_no, record_offset FROM webhook_attempts
             WHERE tenant = $1
               AND (CAST($2 AS TEXT) IS NULL OR endpoint = $2) AND (CAST($3 AS TEXT) IS NULL OR delivery = $3)
               AND (CAST($4 AS TEXT) IS NULL OR outcome = $4)
               AND (CAST($5 AS BIGINT) IS NULL OR at_ms >= $5) AND (CAST($6 AS BIGINT) IS NULL OR at_ms < $6)
               AND (CAST($7 AS TEXT) IS NULL OR id < $7)
             ORDER BY id DESC LIMIT $8";
        reading!(self, pool => {
            let rows = sqlx::query(sql)
                .bind(tenant.as_str())
                .bind(filter.endpoint.as_ref().map(EndpointId::as_str))
                .bind(filter.delivery.as_ref().map(DeliveryId::as_str))
                .bind(filter.outcome.as_deref())
                .bind(filter.since_ms)
                .bind(filter.until_ms)
                .bind(filter.before.as_deref())
                .bind(limit)
                .fetch_all(pool)
                .await?;
            rows.into_iter()
                .map(|row| {
                    let unreadable = || StoreError::Unreadable("an attempt");
                    let endpoint: String = row.try_get("endpoint")?;
                    let delivery: String = row.try_get("delivery")?;
                    let status: Option<i64> = row.try_get("status")?;
                    Ok(Attempt {
                        id: row.try_get("id")?,
                        tenant: tenant.clone(),
                        endpoint: EndpointId::parse(&endpoint).map_err(|_| unreadable())?,
                        delivery: DeliveryId::parse(&delivery).map_err(|_| unreadable())?,
                        number: u32::try_from(row.try_get::<i64, _>("number")?).map_err(|_| unreadable())?,
                        at_ms: row.try_get("at_ms")?,
                        status: status.map(u16::try_from).transpose().map_err(|_| unreadable())?,
                        outcome: row.try_get("outcome")?,
                        latency_ms: u32::try_from(row.try_get::<i64, _>("latency_ms")?).map_err(|_| unreadable())?,
                        place: place(
                            row.try_get("stream")?,
                            row.try_get("topic")?,
                            row.try_get("incarnation")?,
                            row.try_get("partition_no")?,
                            row.try_get("record_offset")?,
                        )?,
                    })
                })
                .collect()
        })
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

    /// Forgets attempts that are older than this. Answers how many.
    pub async fn expire_attempts(&self, age: Duration) -> Result<u64, StoreError> {
        let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let sql = self.sql("DELETE FROM webhook_attempts WHERE at_ms <= {now} - $1");
        let deleted = on!(self, pool => {
            sqlx::query(sql).bind(age_ms).execute(pool).await.map(|done| done.rows_affected())
        })?;
        Ok(deleted)
    }
}

/// Rows of one statement: each statement is a round trip to the engine. Few sizes, so that few statements are prepared.
const ROWS: [usize; 3] = [64, 8, 1];

const COLUMNS: usize = 14;

/// A statement for so many attempts. To SQLite `$1` is a name, which is looked for among all of them: many are better without.
fn insert(rows: usize, is_sqlite: bool) -> sqlx::AssertSqlSafe<String> {
    let mut text = "INSERT INTO webhook_attempts (id, tenant, endpoint, delivery, number, at_ms, status, outcome, latency_ms,
           stream, topic, incarnation, partition_no, record_offset) VALUES "
        .to_owned();
    for row in 0..rows {
        text.push_str(if row == 0 { "(" } else { ", (" });
        for column in 1..=COLUMNS {
            let comma = if column == 1 { "" } else { ", " };
            text.push_str(comma);
            if is_sqlite {
                text.push('?');
            } else {
                text.push_str(&format!("${}", row * COLUMNS + column));
            }
        }
        text.push(')');
    }
    text.push_str(" ON CONFLICT (id) DO NOTHING");
    sqlx::AssertSqlSafe(text)
}

/// Cuts them into pieces of these sizes.
fn batches(mut attempts: &[Attempt]) -> impl Iterator<Item = &[Attempt]> {
    std::iter::from_fn(move || {
        let size = ROWS.into_iter().find(|size| *size <= attempts.len())?;
        let (batch, rest) = attempts.split_at(size);
        attempts = rest;
        Some(batch)
    })
}

/// All of it or none: attempts that were logged before positions were have none.
fn place(
    stream: Option<String>,
    topic: Option<String>,
    incarnation: Option<i64>,
    partition: Option<i64>,
    offset: Option<i64>,
) -> Result<Option<(StreamName, Position)>, StoreError> {
    let (Some(stream), Some(topic), Some(incarnation), Some(partition), Some(offset)) =
        (stream, topic, incarnation, partition, offset)
    else {
        return Ok(None);
    };
    let unreadable = || StoreError::Unreadable("an attempt");
    let position = Position {
        topic: Arc::from(topic),
        incarnation: Incarnation(incarnation.cast_unsigned()),
        partition: i32::try_from(partition).map_err(|_| unreadable())?,
        offset,
    };
    Ok(Some((
        StreamName::parse(&stream).map_err(|_| unreadable())?,
        position,
    )))
}
