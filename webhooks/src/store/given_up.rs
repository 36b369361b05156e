//! What was attempted and given up: neither delivered nor waiting any more.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;

use schemas::ids::{Incarnation, StreamName, TenantId};

use super::attempts::{Attempt, AttemptFilter};
use super::{Store, StoreError, reading};
use crate::delivery::{DeliveryId, EndpointId, Position};

/// What the outcome of a delivery that may not be sent any more begins with: it is not owed, and so was not given up.
const DROPPED: &str = "dropped_";

impl Store {
    /// Of each partition the first event whose delivery to an endpoint was given up, as far as the log of attempts goes back.
    /// What may not be sent any more was not given up: it is not owed.
    pub async fn given_up(
        &self,
        tenant: &TenantId,
        endpoint: &EndpointId,
    ) -> Result<Vec<(StreamName, Position)>, StoreError> {
        let filter = AttemptFilter {
            endpoint: Some(endpoint.clone()),
            ..AttemptFilter::default()
        };
        let is_over =
            |attempt: &Attempt| attempt.outcome == "delivered" || attempt.outcome.starts_with(DROPPED);
        let waiting = self.parked_of(endpoint).await?;
        // Twice, so that only what failed is held in memory.
        let mut failed: HashMap<DeliveryId, (StreamName, Position)> = HashMap::new();
        self.look_back(tenant, &filter, |_, attempts| {
            for attempt in attempts.into_iter().filter(|attempt| !is_over(attempt)) {
                if let Some(place) = attempt.place
                    && !waiting.contains(&attempt.delivery)
                {
                    failed.insert(attempt.delivery, place);
                }
            }
            ControlFlow::Continue(())
        })
        .await?;
        self.look_back(tenant, &filter, |_, attempts| {
            for attempt in attempts.iter().filter(|attempt| is_over(attempt)) {
                failed.remove(&attempt.delivery);
            }
            ControlFlow::Continue(())
        })
        .await?;
        let mut first: BTreeMap<(StreamName, _, Incarnation, i32), Position> = BTreeMap::new();
        for (stream, position) in failed.into_values() {
            let key = (
                stream,
                position.topic.clone(),
                position.incarnation,
                position.partition,
            );
            let known = first.entry(key).or_insert_with(|| position.clone());
            known.offset = known.offset.min(position.offset);
        }
        Ok(first
            .into_iter()
            .map(|((stream, ..), position)| (stream, position))
            .collect())
    }

    async fn parked_of(&self, endpoint: &EndpointId) -> Result<HashSet<DeliveryId>, StoreError> {
        let sql = "SELECT delivery FROM webhook_parked WHERE endpoint = $1";
        let ids: Vec<(String,)> = reading!(self, pool => {
            sqlx::query_as(sql).bind(endpoint.as_str()).fetch_all(pool).await
        })?;
        let parsed = |(id,): (String,)| {
            DeliveryId::parse(&id).map_err(|_| StoreError::Unreadable("a parked delivery"))
        };
        ids.into_iter().map(parsed).collect()
    }
}
