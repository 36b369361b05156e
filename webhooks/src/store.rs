//! What is kept: endpoints, parked deliveries, replays, the log of attempts, watermarks and what is
//! settled above them, and idempotency keys, in SQLite or PostgreSQL.
//!
//! Invariants: what a call has answered is durable. Payloads and endpoints are sealed with a key per tenant, bound to the
//! tenant and to what they are. Times are the database's, so that nodes with different clocks agree on leases. Knows nothing
//! of Kafka and of HTTP.
//!
//! The same statements run on both engines (`$1` works on both); what differs stands in [`Engine`] and in the migrations.

mod attempts;
mod bodies;
mod catch_ups;
mod endpoints;
mod figures;
mod given_up;
mod idempotency;
mod notes;
mod parked;
mod replays;
mod rows;
mod schema;
mod vault;
mod watermarks;

pub use attempts::{Attempt, AttemptFilter};
pub use bodies::{Bodies, Body};
pub use catch_ups::CatchUp;
pub use endpoints::{Created, Kept, Version};
pub use figures::Figures;
pub use idempotency::Idempotency;
pub use notes::Note;
pub use parked::{Backlog, Claimed, Parked, Settled};
pub use replays::{Kind, NewReplay, Reading, ReplayRow};

use std::str::FromStr as _;
use std::time::Duration;

use auth::seal::BadKey;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::Transaction;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use vault::Vault;

/// How long a statement waits for another process that writes to the same SQLite file.
const BUSY: Duration = Duration::from_secs(5);

/// How long a call waits for a connection.
const ACQUIRE: Duration = Duration::from_secs(5);

/// The store. Cheap to share by reference; one for each process.
pub struct Store {
    engine: Engine,
    vault: Vault,
}

enum Engine {
    /// One connection that writes and a few that read: SQLite has one writer at a time anyway.
    Sqlite {
        write: SqlitePool,
        read: SqlitePool,
    },
    Postgres(PgPool),
}

/// Why something is not there or not kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL is none of a store.
    #[error("the store's URL is neither sqlite: nor postgres:")]
    Url,
    /// The keys cannot seal.
    #[error("the store's keys are not acceptable")]
    Keys(#[source] BadKey),
    /// The database was made by a later version.
    #[error("the database has version {have}, this program knows {known}")]
    Later {
        /// Its version.
        have: i64,
        /// The latest that is known.
        known: i64,
    },
    /// The database cannot be reached, or refuses. Trying again may help.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// What is there cannot be opened or read: another key, or a hand in it.
    #[error("what is stored as {0} cannot be read")]
    Unreadable(&'static str),
}

/// Runs an expression with the pool that writes.
macro_rules! on {
    ($store:expr, $pool:ident => $body:expr) => {
        match &$store.engine {
            $crate::store::Engine::Sqlite { write: $pool, .. } => $body,
            $crate::store::Engine::Postgres($pool) => $body,
        }
    };
}

/// Runs an expression with a pool that reads.
macro_rules! reading {
    ($store:expr, $pool:ident => $body:expr) => {
        match &$store.engine {
            $crate::store::Engine::Sqlite { read: $pool, .. } => $body,
            $crate::store::Engine::Postgres($pool) => $body,
        }
    };
}

pub(crate) use {on, reading};

/// How a transaction that writes begins. SQLite's waits for its turn, as long as others are busy; one that has read first would be
/// refused at once if somebody else writes.
pub(crate) trait BeginWriting {
    /// Of a transaction.
    type Database: sqlx::Database;

    /// Begins it.
    async fn begin_writing(&self) -> sqlx::Result<Transaction<'static, Self::Database>>;
}

impl BeginWriting for SqlitePool {
    type Database = sqlx::Sqlite;

    async fn begin_writing(&self) -> sqlx::Result<Transaction<'static, Self::Database>> {
        self.begin_with("BEGIN IMMEDIATE").await
    }
}

impl BeginWriting for PgPool {
    type Database = sqlx::Postgres;

    async fn begin_writing(&self) -> sqlx::Result<Transaction<'static, Self::Database>> {
        self.begin().await
    }
}

impl Store {
    /// Opens `sqlite:PATH` (made if it is not there) or `postgres://...`, and brings its tables up to date. `keys` seal the
    /// tenants' own keys: the first one seals, all of them open.
    pub async fn open(url: &SecretString, keys: &[SecretString]) -> Result<Self, StoreError> {
        let text = url.expose_secret();
        let engine = if text.starts_with("sqlite:") {
            let options = SqliteConnectOptions::from_str(text)?
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                // What was answered has to be there after a power cut as well.
                .synchronous(SqliteSynchronous::Full)
                // Each attempt touches a few places of large indexes: they are written once and not in each batch.
                .pragma("cache_size", "-32768")
                .pragma("wal_autocheckpoint", "16000")
                .foreign_keys(true)
                .busy_timeout(BUSY);
            let pool = |connections| {
                SqlitePoolOptions::new()
                    .max_connections(connections)
                    .acquire_timeout(ACQUIRE)
            };
            // The writer first: it makes the file.
            let write = pool(1).connect_with(options.clone()).await?;
            let read = pool(4).connect_with(options.read_only(true)).await?;
            Engine::Sqlite { write, read }
        } else if text.starts_with("postgres:") || text.starts_with("postgresql:") {
            let pool = PgPoolOptions::new().max_connections(16).acquire_timeout(ACQUIRE);
            Engine::Postgres(pool.connect_with(PgConnectOptions::from_str(text)?).await?)
        } else {
            return Err(StoreError::Url);
        };
        let store = Self {
            engine,
            vault: Vault::new(keys).map_err(StoreError::Keys)?,
        };
        schema::migrate(&store).await?;
        Ok(store)
    }

    /// Closes every connection; what is under way is waited for.
    pub async fn close(&self) {
        match &self.engine {
            Engine::Sqlite { write, read } => {
                read.close().await;
                write.close().await;
            }
            Engine::Postgres(pool) => pool.close().await,
        }
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        on!(self, pool => sqlx::query("SELECT 1").execute(pool).await.map(drop))?;
        Ok(())
    }

    /// Says that this node shares the work, and answers how many do; those that were silent for this time are forgotten,
    /// and what they had leased is everybody's again.
    pub async fn beat(&self, holder: &str, age: Duration) -> Result<u64, StoreError> {
        let here = self.sql(
            "INSERT INTO webhook_nodes (holder, seen_ms) VALUES ($1, {now})
             ON CONFLICT (holder) DO UPDATE SET seen_ms = excluded.seen_ms",
        );
        let gone = self.sql("DELETE FROM webhook_nodes WHERE seen_ms <= {now} - $1");
        let free = "UPDATE webhook_parked SET lease_holder = NULL, lease_until_ms = 0
             WHERE lease_holder IS NOT NULL AND lease_holder NOT IN (SELECT holder FROM webhook_nodes)";
        let free_replays = "UPDATE webhook_replays SET lease_holder = NULL, lease_until_ms = 0
             WHERE lease_holder IS NOT NULL AND lease_holder NOT IN (SELECT holder FROM webhook_nodes)";
        let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let count: i64 = on!(self, pool => {
            sqlx::query(here).bind(holder).execute(pool).await?;
            let gone = sqlx::query(gone).bind(age_ms).execute(pool).await?.rows_affected();
            // All of what is parked is looked at for it: only when somebody has left.
            if gone > 0 {
                sqlx::query(free).execute(pool).await?;
                sqlx::query(free_replays).execute(pool).await?;
            }
            sqlx::query_scalar("SELECT COUNT(*) FROM webhook_nodes").fetch_one(pool).await?
        });
        Ok(u64::try_from(count).unwrap_or(1))
    }

    /// Whether only one node can use the store at a time: a file.
    #[must_use]
    pub fn is_single(&self) -> bool {
        matches!(self.engine, Engine::Sqlite { .. })
    }

    /// Says that this node does not share the work any more. What it had leased is everybody's.
    pub async fn leave(&self, holder: &str) -> Result<(), StoreError> {
        on!(self, pool => {
            for sql in [
                "DELETE FROM webhook_nodes WHERE holder = $1",
                "UPDATE webhook_parked SET lease_holder = NULL, lease_until_ms = 0 WHERE lease_holder = $1",
                "UPDATE webhook_replays SET lease_holder = NULL, lease_until_ms = 0 WHERE lease_holder = $1",
            ] {
                sqlx::query(sql).bind(holder).execute(pool).await?;
            }
        });
        Ok(())
    }

    /// A statement with `{now}`, the database's time in milliseconds, and `{skip}`, where rows that another node works on
    /// are to be passed over. Nothing of these texts comes from outside.
    fn sql(&self, text: &str) -> sqlx::AssertSqlSafe<String> {
        let (now, skip) = match &self.engine {
            Engine::Sqlite { .. } => ("CAST(unixepoch('subsec') * 1000 AS INTEGER)", ""),
            Engine::Postgres(_) => (
                "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)",
                "FOR UPDATE SKIP LOCKED",
            ),
        };
        sqlx::AssertSqlSafe(text.replace("{now}", now).replace("{skip}", skip))
    }
}

/// Which engine and nothing else: a URL may hold a password.
impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match &self.engine {
            Engine::Sqlite { .. } => "Store(SQLite)",
            Engine::Postgres(_) => "Store(PostgreSQL)",
        })
    }
}

#[cfg(test)]
mod tests;
