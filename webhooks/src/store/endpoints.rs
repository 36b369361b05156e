//! Endpoints, sealed whole; beside them, in the clear, what is asked for in statements.

use schemas::ids::TenantId;
use sqlx::Row as _;

use super::vault::purpose;
use super::{BeginWriting, Idempotency, Store, StoreError, on, reading};
use crate::delivery::EndpointId;
use crate::endpoint::{Endpoint, Status};

/// An endpoint as it is kept.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// Grows by one with each change.
    pub revision: i64,
    /// Since when nothing has succeeded, as far as any node knows.
    pub failing_since_ms: Option<i64>,
    /// Until when nobody calls it, on any node.
    pub open_until_ms: Option<i64>,
}

/// What of an endpoint changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Which.
    pub id: EndpointId,
    /// Whose.
    pub tenant: TenantId,
    /// Grows by one with each change that somebody makes.
    pub revision: i64,
    /// Since when nothing has succeeded, as far as any node knows.
    pub failing_since_ms: Option<i64>,
    /// Until when nobody calls it, on any node.
    pub open_until_ms: Option<i64>,
}

/// Id, tenant, revision, failing since, open until.
type VersionRow = (String, String, i64, Option<i64>, Option<i64>);

/// What became of a creation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// It is there.
    New,
    /// The same request made this one before.
    Before(EndpointId),
    /// The key was used with another request.
    KeyReused,
    /// The tenant has as many as it may.
    TooMany,
}

const COLUMNS: &str = "id, tenant, revision, failing_since_ms, open_until_ms, sealed";

struct Row {
    id: String,
    tenant: String,
    revision: i64,
    failing_since_ms: Option<i64>,
    open_until_ms: Option<i64>,
    sealed: Vec<u8>,
}

/// Rows of the two engines are different types with the same methods.
macro_rules! row {
    ($row:expr) => {{
        let row = $row;
        Ok::<_, StoreError>(Row {
            id: row.try_get("id")?,
            tenant: row.try_get("tenant")?,
            revision: row.try_get("revision")?,
            failing_since_ms: row.try_get("failing_since_ms")?,
            open_until_ms: row.try_get("open_until_ms")?,
            sealed: row.try_get("sealed")?,
        })
    }};
}

impl Store {
    /// Keeps a new endpoint. With an idempotency key the same request makes one endpoint, on whichever node it comes again.
    pub async fn create_endpoint(
        &self,
        endpoint: &Endpoint,
        endpoints_max: i64,
        idempotency: Option<&Idempotency>,
    ) -> Result<Created, StoreError> {
        let sealed = self.seal_endpoint(endpoint).await?;
        let claim = self.sql(
            "INSERT INTO webhook_idempotency (tenant, key_hash, request_hash, endpoint, created_ms)
             VALUES ($1, $2, $3, $4, {now}) ON CONFLICT (tenant, key_hash) DO NOTHING",
        );
        on!(self, pool => {
            let mut transaction = pool.begin_writing().await?;
            if let Some(idempotency) = idempotency {
                let claimed = sqlx::query(claim)
                    .bind(endpoint.tenant.as_str())
                    .bind(&idempotency.key_hash)
                    .bind(&idempotency.request_hash)
                    .bind(endpoint.id.as_str())
                    .execute(&mut *transaction)
                    .await?;
                if claimed.rows_affected() == 0 {
                    let row = sqlx::query(
                        "SELECT request_hash, endpoint FROM webhook_idempotency WHERE tenant = $1 AND key_hash = $2",
                    )
                    .bind(endpoint.tenant.as_str())
                    .bind(&idempotency.key_hash)
                    .fetch_one(&mut *transaction)
                    .await?;
                    let (request, before): (Vec<u8>, String) = (row.try_get("request_hash")?, row.try_get("endpoint")?);
                    if request != idempotency.request_hash {
                        return Ok(Created::KeyReused);
                    }
                    return EndpointId::parse(&before)
                        .map(Created::Before)
                        .map_err(|_| StoreError::Unreadable("an idempotency key"));
                }
            }
            let row = sqlx::query("SELECT COUNT(*) AS count FROM webhook_endpoints WHERE tenant = $1")
                .bind(endpoint.tenant.as_str())
                .fetch_one(&mut *transaction)
                .await?;
            if row.try_get::<i64, _>("count")? >= endpoints_max {
                return Ok(Created::TooMany);
            }
            sqlx::query(
                "INSERT INTO webhook_endpoints (id, tenant, revision, callable, sealed) VALUES ($1, $2, 1, $3, $4)",
            )
            .bind(endpoint.id.as_str())
            .bind(endpoint.tenant.as_str())
            .bind(callable(endpoint))
            .bind(&sealed)
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
        });
        Ok(Created::New)
    }

    /// One endpoint of a tenant.
    pub async fn endpoint(&self, tenant: &TenantId, id: &EndpointId) -> Result<Option<Kept>, StoreError> {
        let sql = sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM webhook_endpoints WHERE tenant = $1 AND id = $2"
        ));
        let row = reading!(self, pool => {
            let row = sqlx::query(sql).bind(tenant.as_str()).bind(id.as_str()).fetch_optional(pool).await?;
            row.map(|row| row!(row)).transpose()?
        });
        match row {
            Some(row) => self.open_endpoint(&row).await.map(Some),
            None => Ok(None),
        }
    }

    /// A tenant's endpoints after this one, oldest first.
    pub async fn endpoints(
        &self,
        tenant: &TenantId,
        after: Option<&EndpointId>,
        limit: i64,
    ) -> Result<Vec<Kept>, StoreError> {
        let sql = sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM webhook_endpoints WHERE tenant = $1 AND id > $2 ORDER BY id LIMIT $3"
        ));
        let after = after.map_or("", EndpointId::as_str);
        let rows: Vec<Row> = reading!(self, pool => {
            let rows = sqlx::query(sql).bind(tenant.as_str()).bind(after).bind(limit).fetch_all(pool).await?;
            rows.into_iter().map(|row| row!(row)).collect::<Result<_, _>>()?
        });
        let mut endpoints = Vec::with_capacity(rows.len());
        for row in rows {
            endpoints.push(self.open_endpoint(&row).await?);
        }
        Ok(endpoints)
    }

    /// What of every endpoint changes: what a node compares with what it has.
    pub async fn endpoint_versions(&self) -> Result<Vec<Version>, StoreError> {
        let sql =
            "SELECT id, tenant, revision, failing_since_ms, open_until_ms FROM webhook_endpoints ORDER BY id";
        let rows: Vec<VersionRow> = reading!(self, pool => sqlx::query_as(sql).fetch_all(pool).await)?;
        let parsed = |(id, tenant, revision, failing_since_ms, open_until_ms): (String, String, _, _, _)| {
            let names = EndpointId::parse(&id).ok().zip(TenantId::parse(&tenant).ok());
            let (id, tenant) = names.ok_or(StoreError::Unreadable("an endpoint"))?;
            Ok(Version {
                id,
                tenant,
                revision,
                failing_since_ms,
                open_until_ms,
            })
        };
        rows.into_iter().map(parsed).collect()
    }

    /// Keeps a changed endpoint, if nobody changed it since that revision. `None`: somebody did, or it is gone.
    pub async fn update_endpoint(
        &self,
        endpoint: &Endpoint,
        revision: i64,
    ) -> Result<Option<i64>, StoreError> {
        let sealed = self.seal_endpoint(endpoint).await?;
        let sql = "UPDATE webhook_endpoints SET revision = $1, callable = $2, sealed = $3 WHERE id = $4 AND revision = $5";
        let updated = on!(self, pool => {
            sqlx::query(sql)
                .bind(revision + 1)
                .bind(callable(endpoint))
                .bind(sealed)
                .bind(endpoint.id.as_str())
                .bind(revision)
                .execute(pool)
                .await
                .map(|done| done.rows_affected())
        })?;
        Ok((updated == 1).then_some(revision + 1))
    }

    /// Tells the other nodes how an endpoint does. That is no change of the endpoint.
    pub async fn report_health(
        &self,
        id: &EndpointId,
        failing_since_ms: Option<i64>,
        open_until_ms: Option<i64>,
    ) -> Result<(), StoreError> {
        let sql = "UPDATE webhook_endpoints SET failing_since_ms = $1, open_until_ms = $2 WHERE id = $3";
        on!(self, pool => {
            let query = sqlx::query(sql).bind(failing_since_ms).bind(open_until_ms).bind(id.as_str());
            query.execute(pool).await.map(drop)
        })?;
        Ok(())
    }

    /// Removes an endpoint, what is parked for it and its replays. Answers whether it was there.
    pub async fn delete_endpoint(&self, tenant: &TenantId, id: &EndpointId) -> Result<bool, StoreError> {
        let deleted = on!(self, pool => {
            let mut transaction = pool.begin_writing().await?;
            let done = sqlx::query("DELETE FROM webhook_endpoints WHERE tenant = $1 AND id = $2")
                .bind(tenant.as_str())
                .bind(id.as_str())
                .execute(&mut *transaction)
                .await?;
            for sql in [
                "DELETE FROM webhook_parked WHERE tenant = $1 AND endpoint = $2",
                "DELETE FROM webhook_replays WHERE tenant = $1 AND endpoint = $2",
            ] {
                sqlx::query(sql)
                    .bind(tenant.as_str())
                    .bind(id.as_str())
                    .execute(&mut *transaction)
                    .await?;
            }
            transaction.commit().await?;
            done.rows_affected()
        });
        Ok(deleted == 1)
    }

    async fn seal_endpoint(&self, endpoint: &Endpoint) -> Result<Vec<u8>, StoreError> {
        let seal = self.tenant_seal(&endpoint.tenant).await?;
        let names = [endpoint.tenant.as_str(), endpoint.id.as_str()];
        Ok(seal.seal_bytes(&purpose("endpoint", &names), &endpoint.to_stored()))
    }

    async fn open_endpoint(&self, row: &Row) -> Result<Kept, StoreError> {
        let unreadable = || StoreError::Unreadable("an endpoint");
        let tenant = TenantId::parse(&row.tenant).map_err(|_| unreadable())?;
        let seal = self.tenant_seal(&tenant).await?;
        let names = [row.tenant.as_str(), row.id.as_str()];
        let text = seal
            .open_bytes(&purpose("endpoint", &names), &row.sealed)
            .ok_or_else(unreadable)?;
        let text = secrecy::zeroize::Zeroizing::new(text);
        Ok(Kept {
            endpoint: Endpoint::from_stored(&text).map_err(|_| unreadable())?,
            revision: row.revision,
            failing_since_ms: row.failing_since_ms,
            open_until_ms: row.open_until_ms,
        })
    }
}

fn callable(endpoint: &Endpoint) -> i64 {
    i64::from(endpoint.status == Status::Active)
}
