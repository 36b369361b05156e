//! A PostgreSQL of the tests' own: Debian's packages, a temporary folder, a socket in it and no port.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use secrecy::SecretString;
use tempfile::TempDir;

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
    let Some(programs) = programs() else {
        println!("skipped: PostgreSQL is not installed (Debian: apt-get install postgresql)");
        return None;
    };
    let server = Arc::new(Server::start(&programs));
    *known = Arc::downgrade(&server);
    Some(server)
}

/// The folder with `initdb` and `postgres`: on the path, or where Debian puts them.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let debian = std::fs::read_dir("/usr/lib/postgresql").ok();
    let debian = debian
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin"));
    let mut folders: Vec<PathBuf> = debian.collect();
    folders.sort();
    folders.reverse();
    folders.extend(std::env::split_paths(&path));
    let has_both = |folder: &PathBuf| folder.join("initdb").exists() && folder.join("postgres").exists();
    folders.into_iter().find(has_both)
}

impl Server {
    fn start(programs: &Path) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("tidewire-pg-")
            .tempdir()
            .expect("a folder");
        let data = folder.path().join("data");
        std::fs::create_dir(&data).expect("a folder");
        // PostgreSQL refuses to run as root.
        let is_root =
            std::fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0);
        if is_root {
            let given = Command::new("chown")
                .arg("-R")
                .arg("postgres")
                .arg(folder.path())
                .status();
            assert!(
                given.expect("chown").success(),
                "the package makes the user postgres"
            );
        }
        let command = |name: &str| {
            let program = programs.join(name);
            if is_root {
                let mut command = Command::new("runuser");
                command.args(["-u", "postgres", "--"]).arg(program);
                command
            } else {
                Command::new(program)
            }
        };
        let made = command("initdb")
            .args([
                "-A",
                "trust",
                "-U",
                "tidewire",
                "-E",
                "UTF8",
                "--locale=C",
                "--no-sync",
                "-D",
            ])
            .arg(&data)
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .status();
        assert!(made.expect("initdb").success(), "initdb makes a cluster");
        let process = command("postgres")
            .arg("-D")
            .arg(&data)
            .args([
                "-c",
                "listen_addresses=",
                "-c",
                "fsync=off",
                "-c",
                "max_connections=200",
                "-k",
            ])
            .arg(folder.path())
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("postgres starts");
        Self {
            process,
            folder,
            databases: AtomicU32::new(0),
        }
    }

    /// The URL of a new, empty database.
    pub(super) async fn database(&self) -> SecretString {
        use sqlx::Connection as _;
        let url = |name: &str| {
            format!(
                "postgres://tidewire@localhost/{name}?host={}",
                self.folder.path().display()
            )
        };
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
        // SIGINT to the postmaster is its fast shutdown; its number is the first line of this file. Where it runs under
        // another user the child is only its parent.
        let file = self.folder.path().join("data/postmaster.pid");
        if let Some(number) = std::fs::read_to_string(file)
            .ok()
            .as_deref()
            .and_then(|text| text.lines().next())
        {
            let _ = Command::new("kill").args(["-INT", number]).status();
        }
        let _ = self.process.wait();
    }
}
