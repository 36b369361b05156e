//! How far endpoints have caught up with what was read before their readers knew of them.
//!
//! Invariant: a catch-up that is there says that its endpoint is known where the partition is read; one that was forgotten is
//! made anew when the endpoint wants the stream again.

use std::sync::Arc;

use schemas::ids::{Incarnation, StreamName};

use super::{Store, StoreError, on, reading};
use crate::delivery::{EndpointId, Position};

/// How far one partition was caught up with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatchUp {
    /// What comes next.
    pub next: Position,
    /// The offset after the last one; at or above it, it is over.
    pub until: i64,
}

impl Store {
    /// How far an endpoint has caught up with a stream.
    pub async fn catch_ups(
        &self,
        endpoint: &EndpointId,
        stream: &StreamName,
    ) -> Result<Vec<CatchUp>, StoreError> {
        let sql = "SELECT topic, incarnation, partition_no, next_offset, until_offset FROM webhook_replays
             WHERE kind = 'catch_up' AND endpoint = $1 AND stream = $2 ORDER BY topic, partition_no";
        let rows: Vec<(String, i64, i64, i64, i64)> = reading!(self, pool => {
            sqlx::query_as(sql).bind(endpoint.as_str()).bind(stream.as_str()).fetch_all(pool).await
        })?;
        let part = |(topic, incarnation, partition, offset, until): (String, i64, i64, i64, i64)| {
            Ok(CatchUp {
                next: Position {
                    topic: Arc::from(topic),
                    incarnation: Incarnation(incarnation.cast_unsigned()),
                    partition: i32::try_from(partition).map_err(|_| StoreError::Unreadable("a catch-up"))?,
                    offset,
                },
                until,
            })
        };
        rows.into_iter().map(part).collect()
    }

    /// Forgets how far an endpoint had caught up with a stream that it does not want any more.
    pub async fn forget_catch_ups(
        &self,
        endpoint: &EndpointId,
        stream: &StreamName,
    ) -> Result<(), StoreError> {
        let sql = "DELETE FROM webhook_replays WHERE kind = 'catch_up' AND endpoint = $1 AND stream = $2";
        on!(self, pool => {
            let query = sqlx::query(sql).bind(endpoint.as_str()).bind(stream.as_str());
            query.execute(pool).await.map(drop)
        })?;
        Ok(())
    }
}
