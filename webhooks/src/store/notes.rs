//! Deliveries that are settled above a watermark: whoever reads a partition again need not send them again.
//!
//! Invariants: a note is written after what it tells is settled, so that believing it loses nothing; one that is missing costs
//! a repetition and nothing else. Notes below a watermark that is kept are gone, and those of a topic's former life too.

use schemas::ids::Incarnation;
use ulid::Ulid;

use super::{BeginWriting, Store, StoreError, on, reading};
use crate::delivery::{DeliveryId, Position};
use crate::ledger::Partition;

/// Deliveries in one row: some 300 kB.
const ROW_MAX: usize = 10_000;

/// What is settled of a partition, although something before it is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The partition.
    pub partition: Partition,
    /// The life of its topic.
    pub incarnation: Incarnation,
    /// Offset and delivery; in any order.
    pub settled: Vec<(i64, DeliveryId)>,
}

impl Store {
    /// Keeps notes, all of them or none.
    pub async fn note(&self, consumer: &str, notes: &[Note]) -> Result<(), StoreError> {
        let sql = "INSERT INTO webhook_notes (consumer, topic, partition_no, incarnation, note, last_offset, deliveries)
             VALUES ($1, $2, $3, $4, $5, $6, $7)";
        on!(self, pool => {
            let mut transaction = pool.begin_writing().await?;
            for note in notes {
                for settled in note.settled.chunks(ROW_MAX) {
                    let last = settled.iter().map(|(offset, _)| *offset).max().unwrap_or(0);
                    let ids: Vec<&str> = settled.iter().map(|(_, delivery)| delivery.as_str()).collect();
                    sqlx::query(sql)
                        .bind(consumer)
                        .bind(&*note.partition.topic)
                        .bind(i64::from(note.partition.number))
                        .bind(note.incarnation.0.cast_signed())
                        .bind(Ulid::generate().to_string())
                        .bind(last)
                        .bind(ids.join("\n"))
                        .execute(&mut *transaction)
                        .await?;
                }
            }
            transaction.commit().await?;
        });
        Ok(())
    }

    /// What is noted of a partition from an offset on. A note is given whole, also where some of it lies before the offset.
    pub async fn noted_from(&self, consumer: &str, from: &Position) -> Result<Vec<DeliveryId>, StoreError> {
        let sql = "SELECT deliveries FROM webhook_notes
             WHERE consumer = $1 AND topic = $2 AND partition_no = $3 AND incarnation = $4 AND last_offset >= $5";
        let rows: Vec<(String,)> = reading!(self, pool => {
            sqlx::query_as(sql)
                .bind(consumer)
                .bind(&*from.topic)
                .bind(i64::from(from.partition))
                .bind(from.incarnation.0.cast_signed())
                .bind(from.offset)
                .fetch_all(pool)
                .await
        })?;
        rows.iter()
            .flat_map(|(ids,)| ids.split('\n'))
            .map(|id| DeliveryId::parse(id).map_err(|_| StoreError::Unreadable("a note")))
            .collect()
    }
}
