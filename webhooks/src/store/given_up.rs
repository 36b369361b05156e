//! What was attempted and given up: neither delivered nor waiting any more.

use std::sync::Arc;

use schemas::ids::{Incarnation, StreamName, TenantId};

use super::{Store, StoreError, reading};
use crate::delivery::{EndpointId, Position};

impl Store {
    /// Of each partition the first event whose delivery to an endpoint was given up, as far as the log of attempts goes back.
    /// What may not be sent any more was not given up: it is not owed.
    pub async fn given_up(
        &self,
        tenant: &TenantId,
        endpoint: &EndpointId,
    ) -> Result<Vec<(StreamName, Position)>, StoreError> {
        let sql = "SELECT a.stream, a.topic, a.incarnation, a.partition_no, MIN(a.record_offset) FROM webhook_attempts a
             WHERE a.tenant = $1 AND a.endpoint = $2 AND a.record_offset IS NOT NULL
               AND a.outcome NOT IN ('delivered', 'not_granted', 'stream_gone', 'undecodable')
               AND NOT EXISTS (
                 SELECT 1 FROM webhook_attempts b WHERE b.delivery = a.delivery AND b.outcome = 'delivered')
               AND NOT EXISTS (SELECT 1 FROM webhook_parked p WHERE p.delivery = a.delivery)
             GROUP BY a.stream, a.topic, a.incarnation, a.partition_no ORDER BY a.topic, a.partition_no";
        let rows: Vec<(String, String, i64, i64, i64)> = reading!(self, pool => {
            sqlx::query_as(sql).bind(tenant.as_str()).bind(endpoint.as_str()).fetch_all(pool).await
        })?;
        let unreadable = || StoreError::Unreadable("an attempt");
        let place = |(stream, topic, incarnation, partition, offset): (String, String, i64, i64, i64)| {
            let position = Position {
                topic: Arc::from(topic),
                incarnation: Incarnation(incarnation.cast_unsigned()),
                partition: i32::try_from(partition).map_err(|_| unreadable())?,
                offset,
            };
            Ok((StreamName::parse(&stream).map_err(|_| unreadable())?, position))
        };
        rows.into_iter().map(place).collect()
    }
}
