//! How far each partition is settled, beside what Kafka keeps: group offsets expire, and topics are made again. What was noted
//! above a watermark goes when the watermark has passed it.

use std::sync::Arc;

use schemas::ids::Incarnation;

use super::{BeginWriting, Store, StoreError, on, reading};
use crate::ledger::{Commit, Partition};

impl Store {
    /// Keeps how far partitions are settled. Within one life of a topic a watermark never goes back.
    pub async fn keep_watermarks(&self, consumer: &str, commits: &[Commit]) -> Result<(), StoreError> {
        let sql = "INSERT INTO webhook_watermarks (consumer, topic, partition_no, incarnation, next_offset)
             VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (consumer, topic, partition_no)
             DO UPDATE SET incarnation = excluded.incarnation, next_offset = excluded.next_offset
             WHERE webhook_watermarks.incarnation <> excluded.incarnation
                OR webhook_watermarks.next_offset < excluded.next_offset";
        let passed = "DELETE FROM webhook_notes WHERE consumer = $1 AND topic = $2 AND partition_no = $3
               AND (incarnation <> $4 OR last_offset < $5)";
        on!(self, pool => {
            let mut transaction = pool.begin_writing().await?;
            for commit in commits {
                for sql in [sql, passed] {
                    sqlx::query(sql)
                        .bind(consumer)
                        .bind(&*commit.partition.topic)
                        .bind(i64::from(commit.partition.number))
                        .bind(commit.incarnation.0.cast_signed())
                        .bind(commit.offset)
                        .execute(&mut *transaction)
                        .await?;
                }
            }
            transaction.commit().await?;
        });
        Ok(())
    }

    /// How far the partitions of a topic are settled.
    pub async fn watermarks(&self, consumer: &str, topic: &str) -> Result<Vec<Commit>, StoreError> {
        let sql = "SELECT partition_no, incarnation, next_offset FROM webhook_watermarks
             WHERE consumer = $1 AND topic = $2 ORDER BY partition_no";
        let rows: Vec<(i64, i64, i64)> = reading!(self, pool => {
            sqlx::query_as(sql).bind(consumer).bind(topic).fetch_all(pool).await
        })?;
        let topic: Arc<str> = Arc::from(topic);
        let commit = |(number, incarnation, offset): (i64, i64, i64)| {
            Ok(Commit {
                partition: Partition {
                    topic: Arc::clone(&topic),
                    number: i32::try_from(number).map_err(|_| StoreError::Unreadable("a watermark"))?,
                },
                incarnation: Incarnation(incarnation.cast_unsigned()),
                offset,
            })
        };
        rows.into_iter().map(commit).collect()
    }
}
