//! The tables, and how they came to be.
//!
//! Invariant: a migration that was released is never changed; the next one follows it.

use sqlx::{Executor as _, Row as _};

use super::{Engine, Store, StoreError};

/// Every migration, in order. `{bytes}` is the engine's type for bytes.
const MIGRATIONS: &[&str] = &["
CREATE TABLE webhook_tenant_keys (
  tenant TEXT NOT NULL PRIMARY KEY,
  wrapped {bytes} NOT NULL,
  created_ms BIGINT NOT NULL
);
CREATE TABLE webhook_endpoints (
  id TEXT NOT NULL PRIMARY KEY,
  tenant TEXT NOT NULL,
  revision BIGINT NOT NULL,
  callable BIGINT NOT NULL,
  failing_since_ms BIGINT,
  open_until_ms BIGINT,
  sealed {bytes} NOT NULL
);
CREATE INDEX webhook_endpoints_tenant ON webhook_endpoints (tenant, id);
CREATE TABLE webhook_parked (
  delivery TEXT NOT NULL PRIMARY KEY,
  endpoint TEXT NOT NULL,
  tenant TEXT NOT NULL,
  stream TEXT NOT NULL,
  topic TEXT NOT NULL,
  incarnation BIGINT NOT NULL,
  partition_no BIGINT NOT NULL,
  record_offset BIGINT NOT NULL,
  order_key {bytes},
  attempts BIGINT NOT NULL,
  first_ms BIGINT NOT NULL,
  parked_ms BIGINT NOT NULL,
  due_ms BIGINT NOT NULL,
  lease_holder TEXT,
  lease_until_ms BIGINT NOT NULL,
  payload {bytes} NOT NULL
);
CREATE INDEX webhook_parked_due ON webhook_parked (endpoint, due_ms);
CREATE INDEX webhook_parked_key ON webhook_parked (endpoint, order_key, topic, incarnation, partition_no, record_offset)
  WHERE order_key IS NOT NULL;
CREATE TABLE webhook_attempts (
  id TEXT NOT NULL PRIMARY KEY,
  tenant TEXT NOT NULL,
  endpoint TEXT NOT NULL,
  delivery TEXT NOT NULL,
  number BIGINT NOT NULL,
  at_ms BIGINT NOT NULL,
  status BIGINT,
  outcome TEXT NOT NULL,
  latency_ms BIGINT NOT NULL
);
CREATE INDEX webhook_attempts_tenant ON webhook_attempts (tenant, id);
CREATE INDEX webhook_attempts_endpoint ON webhook_attempts (endpoint, id);
CREATE INDEX webhook_attempts_delivery ON webhook_attempts (delivery);
CREATE TABLE webhook_watermarks (
  consumer TEXT NOT NULL,
  topic TEXT NOT NULL,
  partition_no BIGINT NOT NULL,
  incarnation BIGINT NOT NULL,
  next_offset BIGINT NOT NULL,
  PRIMARY KEY (consumer, topic, partition_no)
);
CREATE TABLE webhook_idempotency (
  tenant TEXT NOT NULL,
  key_hash {bytes} NOT NULL,
  request_hash {bytes} NOT NULL,
  endpoint TEXT NOT NULL,
  created_ms BIGINT NOT NULL,
  PRIMARY KEY (tenant, key_hash)
);
", "
ALTER TABLE webhook_attempts ADD COLUMN stream TEXT;
ALTER TABLE webhook_attempts ADD COLUMN topic TEXT;
ALTER TABLE webhook_attempts ADD COLUMN incarnation BIGINT;
ALTER TABLE webhook_attempts ADD COLUMN partition_no BIGINT;
ALTER TABLE webhook_attempts ADD COLUMN record_offset BIGINT;
CREATE TABLE webhook_replays (
  id TEXT NOT NULL,
  kind TEXT NOT NULL,
  endpoint TEXT NOT NULL,
  tenant TEXT NOT NULL,
  stream TEXT NOT NULL,
  topic TEXT NOT NULL,
  incarnation BIGINT NOT NULL,
  partition_no BIGINT NOT NULL,
  next_offset BIGINT NOT NULL,
  until_offset BIGINT NOT NULL,
  parked BIGINT NOT NULL,
  created_ms BIGINT NOT NULL,
  lease_holder TEXT,
  lease_until_ms BIGINT NOT NULL,
  PRIMARY KEY (id, topic, incarnation, partition_no)
);
CREATE INDEX webhook_parked_place ON webhook_parked (topic, partition_no, incarnation, record_offset);
CREATE INDEX webhook_parked_holder ON webhook_parked (lease_holder) WHERE lease_holder IS NOT NULL;
CREATE TABLE webhook_nodes (
  holder TEXT NOT NULL PRIMARY KEY,
  seen_ms BIGINT NOT NULL
);
CREATE INDEX webhook_replays_endpoint ON webhook_replays (endpoint, id);
CREATE INDEX webhook_replays_place ON webhook_replays (topic, partition_no, incarnation) WHERE kind = 'catch_up';
CREATE INDEX webhook_replays_open ON webhook_replays (lease_until_ms, created_ms) WHERE next_offset < until_offset;
", "
CREATE TABLE webhook_notes (
  consumer TEXT NOT NULL,
  topic TEXT NOT NULL,
  partition_no BIGINT NOT NULL,
  incarnation BIGINT NOT NULL,
  note TEXT NOT NULL,
  last_offset BIGINT NOT NULL,
  deliveries TEXT NOT NULL,
  PRIMARY KEY (consumer, topic, partition_no, incarnation, note)
);
", "
-- The log begins anew: what it had was kept for days at most, and one attempt a row was too dear.
DROP TABLE webhook_attempts;
CREATE TABLE webhook_log (
  tenant TEXT NOT NULL,
  last_id TEXT NOT NULL,
  endpoint TEXT NOT NULL,
  first_id TEXT NOT NULL,
  since_ms BIGINT NOT NULL,
  until_ms BIGINT NOT NULL,
  entries {bytes} NOT NULL,
  PRIMARY KEY (tenant, last_id)
);
CREATE INDEX webhook_log_endpoint ON webhook_log (endpoint, last_id);
CREATE INDEX webhook_log_until ON webhook_log (until_ms);
", "
CREATE TABLE webhook_bodies (
  tenant TEXT NOT NULL,
  attempt TEXT NOT NULL,
  at_ms BIGINT NOT NULL,
  sealed {bytes} NOT NULL,
  PRIMARY KEY (tenant, attempt)
);
CREATE INDEX webhook_bodies_at ON webhook_bodies (at_ms);
"];

/// What keeps two nodes from migrating at once (PostgreSQL): any number that nobody else uses.
const LOCK: i64 = 7_465_231_104_551;

/// Applies what has not been applied, each migration as a whole or not at all.
pub(super) async fn migrate(store: &Store) -> Result<(), StoreError> {
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let bytes = match &store.engine {
        Engine::Sqlite { .. } => "BLOB",
        Engine::Postgres(_) => "BYTEA",
    };
    // The lock is the transaction's: it goes with it, however this ends.
    macro_rules! migrate {
        ($transaction:ident) => {{
            $transaction
                .execute("CREATE TABLE IF NOT EXISTS webhook_schema (version BIGINT NOT NULL)")
                .await?;
            let row = sqlx::query("SELECT COALESCE(MAX(version), 0) AS version FROM webhook_schema")
                .fetch_one(&mut *$transaction)
                .await?;
            let have: i64 = row.try_get("version")?;
            if have > known {
                return Err(StoreError::Later { have, known });
            }
            for (version, text) in (1_i64..).zip(MIGRATIONS) {
                if version > have {
                    let text = sqlx::AssertSqlSafe(text.replace("{bytes}", bytes));
                    $transaction.execute(sqlx::raw_sql(text)).await?;
                    sqlx::query("INSERT INTO webhook_schema (version) VALUES ($1)")
                        .bind(version)
                        .execute(&mut *$transaction)
                        .await?;
                }
            }
            $transaction.commit().await?;
        }};
    }
    match &store.engine {
        Engine::Sqlite { write, .. } => {
            let mut transaction = write.begin_with("BEGIN IMMEDIATE").await?;
            migrate!(transaction);
        }
        Engine::Postgres(pool) => {
            let mut transaction = pool.begin().await?;
            sqlx::query("SELECT pg_advisory_xact_lock($1)")
                .bind(LOCK)
                .execute(&mut *transaction)
                .await?;
            migrate!(transaction);
        }
    }
    Ok(())
}
