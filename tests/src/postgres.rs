//! PostgreSQL itself: a server from Debian's packages in a temporary folder, gone with the process that started it. It can
//! be stopped, killed and started again with its data, under whoever uses it.

mod cluster;

use std::path::PathBuf;
use std::process::Child;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

use crate::{leash, process, wait};
use cluster::Programs;

/// A server of one's own.
pub struct Postgres {
    programs: Programs,
    folder: PathBuf,
    child: Mutex<Option<Child>>,
    databases: AtomicU32,
}

impl Postgres {
    /// Makes a server and starts it.
    pub async fn start() -> Result<Self> {
        let programs = Programs::find().context("PostgreSQL is not installed (.ci/prerequisites test)")?;
        let folder = tempfile::Builder::new()
            .prefix("tidewire-postgres-")
            .tempdir()?
            .keep();
        leash::sweep(&folder);
        let postgres = Self {
            programs,
            folder,
            child: Mutex::new(None),
            databases: AtomicU32::new(0),
        };
        let (programs, folder) = (postgres.programs.clone(), postgres.folder.clone());
        tokio::task::spawn_blocking(move || programs.make(&folder)).await??;
        postgres.resume().await?;
        Ok(postgres)
    }

    /// The URL of a new, empty database.
    pub async fn database(&self) -> Result<String> {
        let name = format!("d{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.run("createdb", &[&name]).await?;
        Ok(cluster::url(&self.folder, &name))
    }

    /// Stops it as an operator would: sessions are ended, its data stays.
    pub async fn stop(&self) -> Result<()> {
        self.end("INT").await
    }

    /// Ends it as a crash would.
    pub async fn kill(&self) -> Result<()> {
        // All of its processes at once; alone the postmaster's end would be noticed by the others in their own time.
        self.end("QUIT").await
    }

    /// Starts it again and waits until it answers.
    pub async fn resume(&self) -> Result<()> {
        let child = self.programs.start(&self.folder)?;
        leash::hold(child.id());
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        wait::until("postgres to answer", || async {
            let asked = ["-d", "postgres", "-Atc", "SELECT 1"];
            self.run("psql", &asked).await.ok()
        })
        .await?;
        // Held by its own id too: where it runs under another user the child is only its parent.
        leash::hold(cluster::postmaster(&self.folder).context("it runs")?);
        Ok(())
    }

    /// What a query answers, one line for each row, its columns apart by `|`.
    pub async fn query(&self, database_url: &str, sql: &str) -> Result<String> {
        let (_, name) = database_url.split_once("localhost/").context("a URL of ours")?;
        let (name, _) = name.split_once('?').context("a URL of ours")?;
        self.run("psql", &["-d", name, "-Atc", sql]).await
    }

    async fn end(&self, signal: &str) -> Result<()> {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut child = child.context("it is not running")?;
        let pid = cluster::postmaster(&self.folder).context("it runs")?;
        process::signal(pid, signal)?;
        wait::until_true("postgres to end", || matches!(child.try_wait(), Ok(Some(_)))).await?;
        leash::release(pid);
        leash::release(child.id());
        Ok(())
    }

    async fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = self.programs.command(program);
        command
            .arg("-h")
            .arg(&self.folder)
            .args(["-U", "tidewire"])
            .args(arguments)
            .current_dir(&self.folder);
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{program}: {said}");
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let pid = cluster::postmaster(&self.folder);
            if let Some(pid) = pid {
                drop(process::signal(pid, "QUIT"));
                leash::release(pid);
            }
            let ended = child.wait();
            leash::release(child.id());
            let removed = std::fs::remove_dir_all(&self.folder);
            if ended.is_err() || removed.is_err() {
                eprintln!("postgres was not cleaned up: {ended:?} {removed:?}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_comes_back_with_its_data_after_a_stop_and_after_a_crash() -> Result<()> {
        let postgres = Postgres::start().await?;
        let database = postgres.database().await?;
        let make = "CREATE TABLE t (n int); INSERT INTO t VALUES (1)";
        postgres.query(&database, make).await?;
        for crash in [false, true] {
            if crash {
                postgres.kill().await?;
            } else {
                postgres.stop().await?;
            }
            ensure!(postgres.query(&database, "SELECT n FROM t").await.is_err());
            postgres.resume().await?;
            ensure!(postgres.query(&database, "SELECT n FROM t").await? == "1");
        }
        Ok(())
    }
}
