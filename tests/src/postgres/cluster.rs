//! The programs of Debian's packages, run on a folder: no port, a socket in the folder, no password.
//!
//! It knows nothing of this crate, so that the store's own tests include this file too.

use std::io::{Error, Result};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Where the programs are, and as whom they run.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    folder: PathBuf,
    /// PostgreSQL refuses to run as root: then the user of its package runs it.
    is_root: bool,
}

impl Programs {
    /// Found on the path, or where Debian puts them: the latest version.
    pub(super) fn find() -> Option<Self> {
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
        Some(Self {
            folder: folders.into_iter().find(has_both)?,
            is_root: std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0),
        })
    }

    /// A program of theirs.
    pub(super) fn command(&self, name: &str) -> Command {
        let program = self.folder.join(name);
        if self.is_root {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        }
    }

    /// Makes a cluster below a folder, which then belongs to whoever runs it.
    pub(super) fn make(&self, folder: &Path) -> Result<()> {
        let data = folder.join("data");
        std::fs::create_dir(&data)?;
        if self.is_root {
            done(Command::new("chown").args(["-R", "postgres"]).arg(folder))?;
        }
        let mut initdb = self.command("initdb");
        initdb.args(["-A", "trust", "-U", "tidewire", "-E", "UTF8", "--locale=C"]);
        done(initdb.args(["--no-sync", "-D"]).arg(&data).current_dir(folder))
    }

    /// Starts the server of a folder.
    pub(super) fn start(&self, folder: &Path) -> Result<Child> {
        // What a killed process wrote is in the kernel's memory: only a machine that stops would need fsync.
        let settings = ["listen_addresses=", "fsync=off", "max_connections=200"];
        let mut server = self.command("postgres");
        server.arg("-D").arg(folder.join("data"));
        for setting in settings {
            server.args(["-c", setting]);
        }
        server
            .arg("-k")
            .arg(folder)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
    }
}

/// The server's own process, while it runs. Under another user the child that was started is only its parent.
pub(super) fn postmaster(folder: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(folder.join("data/postmaster.pid")).ok()?;
    text.lines().next()?.trim().parse().ok()
}

/// The URL of a database.
pub(super) fn url(folder: &Path, database: &str) -> String {
    format!(
        "postgres://tidewire@localhost/{database}?host={}",
        folder.display()
    )
}

fn done(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        Ok(())
    } else {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(Error::other(format!("{command:?}: {said}")))
    }
}
