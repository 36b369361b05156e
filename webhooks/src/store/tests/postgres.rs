//! A PostgreSQL of the tests' own: Debian's packages, a temporary folder, a socket in it and no port.

#[path = "../../../../tests/src/postgres/cluster.rs"]
mod cluster;

use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use secrecy::SecretString;
use tempfile::TempDir;

use cluster::Programs;

/// A server that runs as long as a test holds it.
pub(super) struct Server {
    process: Child,
    folder: TempDir,
    databases: AtomicU32,
}

/// The server of this process, started by the first test that needs it. `None`, and a sentence, where PostgreSQL is not
/// installed.
pub(super) fn server() -> Option<Arc<Server>> {
    static SERVER: Mutex<Weak<Server>> = Mutex::new(Weak::new());
    let mut known = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(server) = known.upgrade() {
        return Some(server);
    }
    let Some(programs) = Programs::find() else {
        println!("skipped: PostgreSQL is not installed (Debian: apt-get install postgresql)");
        return None;
    };
    let server = Arc::new(Server::start(&programs));
    *known = Arc::downgrade(&server);
    Some(server)
}

impl Server {
    fn start(programs: &Programs) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("tidewire-pg-")
            .tempdir()
            .expect("a folder");
        programs.make(folder.path()).expect("initdb makes a cluster");
        let process = programs.start(folder.path()).expect("postgres starts");
        Self {
            process,
            folder,
            databases: AtomicU32::new(0),
        }
    }

    /// The URL of a new, empty database.
    pub(super) async fn database(&self) -> SecretString {
        use sqlx::Connection as _;
        let url = |name: &str| cluster::url(self.folder.path(), name);
        let mut tries = 0;
        let mut connection = loop {
            match sqlx::PgConnection::connect(&url("postgres")).await {
                Ok(connection) => break connection,
                Err(error) => {
                    tries += 1;
                    assert!(tries < 600, "PostgreSQL answers within a minute: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        };
        let name = format!("d{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let sql = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::query(sql)
            .execute(&mut connection)
            .await
            .expect("a database");
        SecretString::from(url(&name))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGINT to the postmaster is its fast shutdown.
        if let Some(number) = cluster::postmaster(self.folder.path()) {
            let _ = Command::new("kill").args(["-INT", &number.to_string()]).status();
        }
        let _ = self.process.wait();
    }
}
