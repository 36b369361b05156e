//! The parts that are written in JavaScript, real ones from npm: reference clients, audits, graphql-js, a federation
//! router, verifiers of signatures. Each runs as a process that speaks JSON lines.
//!
//! The packages are those of a set's `package-lock.json`, installed once by `npm ci` into a cache folder.

use std::ffi::OsString;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::sync::{OnceCell, mpsc};

use crate::{leash, wait};

/// Lines that a program has said and nobody has heard yet; a program that says more waits.
const LINES_MAX: usize = 4096;

/// Scripts of ours and the packages that they need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Set {
    /// `tests/graphql`.
    Graphql,
    /// `tests/webhooks`.
    Webhooks,
}

impl Set {
    fn sources(self) -> PathBuf {
        // Seen from any crate of the workspace: the property of projections includes this file.
        let tests = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests"));
        tests.join(match self {
            Self::Graphql => "graphql",
            Self::Webhooks => "webhooks",
        })
    }

    /// Where the packages and our scripts are, for this process.
    async fn folder(self) -> Result<&'static Path> {
        static GRAPHQL: OnceCell<PathBuf> = OnceCell::const_new();
        static WEBHOOKS: OnceCell<PathBuf> = OnceCell::const_new();
        let folder = match self {
            Self::Graphql => &GRAPHQL,
            Self::Webhooks => &WEBHOOKS,
        };
        let folder = folder
            .get_or_try_init(|| async { tokio::task::spawn_blocking(move || prepare(self)).await? })
            .await?;
        Ok(folder)
    }
}

/// Where the packages and scripts for GraphQL are, for this process.
pub async fn folder() -> Result<&'static Path> {
    Set::Graphql.folder().await
}

/// The program `node`: `TIDEWIRE_NODE`, the one that `.ci/prerequisites` fetched, or that on the path.
#[must_use]
pub fn program() -> OsString {
    if let Some(named) = std::env::var_os("TIDEWIRE_NODE") {
        return named;
    }
    let fetched = cache().join("node/bin/node");
    if fetched.is_file() {
        fetched.into_os_string()
    } else {
        "node".into()
    }
}

/// A program that runs until it is dropped.
pub struct Node {
    child: Child,
    stdin: ChildStdin,
    lines: mpsc::Receiver<String>,
    name: String,
}

impl Node {
    /// Starts a script of `tests/graphql`.
    pub async fn start(script: &str, arguments: &[&str]) -> Result<Self> {
        Self::start_with(script, arguments, &[]).await
    }

    /// Starts a script, with more in its environment.
    pub async fn start_with(script: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Self> {
        let mut command = Self::command(Set::Graphql, script).await?;
        command.args(arguments).envs(environment.iter().copied());
        Self::spawn(&mut command, script)
    }

    /// Starts a script of another set.
    pub async fn start_of(set: Set, script: &str) -> Result<Self> {
        Self::spawn(&mut Self::command(set, script).await?, script)
    }

    async fn command(set: Set, script: &str) -> Result<Command> {
        let mut command = Command::new(program());
        command.current_dir(set.folder().await?).arg(script);
        Ok(command)
    }

    /// Starts any program that speaks JSON lines.
    pub fn spawn(command: &mut Command, name: &str) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .with_context(|| format!("{name} (.ci/prerequisites test says how to get what it runs on)"))?;
        leash::hold(child.id());
        let stdin = child.stdin.take().context("stdin is piped")?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let (said, lines) = mpsc::channel(LINES_MAX);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if said.blocking_send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            child,
            stdin,
            lines,
            name: name.to_owned(),
        })
    }

    /// Tells it something.
    pub fn say(&mut self, what: &Value) -> Result<()> {
        writeln!(self.stdin, "{what}").with_context(|| format!("{} has ended", self.name))
    }

    /// What it says next, as text. Cancel safe.
    pub async fn hear_text(&mut self) -> Result<String> {
        let line = wait::within(format!("{} to say something", self.name), self.lines.recv()).await?;
        line.with_context(|| format!("{} has ended", self.name))
    }

    /// What it says next. Cancel safe.
    pub async fn hear(&mut self) -> Result<Value> {
        let line = self.hear_text().await?;
        serde_json::from_str(&line).with_context(|| format!("{} said {line:?}", self.name))
    }

    /// What it says next, if it has said something already.
    pub fn heard(&mut self) -> Option<Value> {
        serde_json::from_str(&self.lines.try_recv().ok()?).ok()
    }

    /// The next thing that it says with this member; others are passed over.
    pub async fn until(&mut self, member: &str) -> Result<Value> {
        let mut passed = Vec::new();
        loop {
            let said = self
                .hear()
                .await
                .with_context(|| format!("waiting for {member} after {passed:?}"))?;
            if let Some(found) = said.get(member) {
                return Ok(found.clone());
            }
            passed.push(said);
        }
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        leash::release(self.child.id());
        if let Err(error) = killed {
            eprintln!("{} could not be ended: {error}", self.name);
        }
    }
}

/// Runs a script to its end: what it wrote to stdout. Its stderr is the error where it failed.
pub async fn run(script: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(program());
    command.current_dir(folder().await?).arg(script).args(arguments);
    let script = script.to_owned();
    let output = wait::within(
        format!("{script} to end"),
        tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output()),
    )
    .await???;
    if !output.status.success() {
        bail!("{script}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// A folder with our scripts beside the packages: scripts find packages from where they lie themselves.
fn prepare(set: Set) -> Result<PathBuf> {
    let packages = packages(set)?;
    let folder = tempfile::Builder::new()
        .prefix("tidewire-node-")
        .tempdir()?
        .keep();
    leash::sweep(&folder);
    for entry in std::fs::read_dir(set.sources())? {
        let path = entry?.path();
        let name = path.file_name().context("a file has a name")?;
        if path.is_file() {
            std::fs::copy(&path, folder.join(name))?;
        }
    }
    std::os::unix::fs::symlink(packages, folder.join("node_modules"))?;
    Ok(folder)
}

/// The folder `node_modules`; made by npm the first time, one process at a time.
fn packages(set: Set) -> Result<PathBuf> {
    static HERE: Mutex<()> = Mutex::new(());
    let _here = HERE.lock().unwrap_or_else(PoisonError::into_inner);
    let lock_file = set.sources().join("package-lock.json");
    let mut hasher = DefaultHasher::new();
    std::fs::read_to_string(&lock_file)?.hash(&mut hasher);
    let cache = cache();
    let folder = cache.join(format!("npm-{:016x}", hasher.finish()));
    std::fs::create_dir_all(&cache)?;
    let lock = File::create(cache.join("npm.lock"))?;
    lock.lock()?;
    if !folder.is_dir() {
        let fresh = tempfile::Builder::new().prefix("npm-").tempdir_in(&cache)?;
        std::fs::copy(&lock_file, fresh.path().join("package-lock.json"))?;
        std::fs::copy(
            set.sources().join("package.json"),
            fresh.path().join("package.json"),
        )?;
        let installed = Command::new("npm")
            // No package may run anything while it is installed.
            .args([
                "ci",
                "--ignore-scripts",
                "--no-audit",
                "--no-fund",
                "--loglevel=error",
            ])
            .current_dir(fresh.path())
            .output()
            .context("npm")?;
        ensure!(
            installed.status.success(),
            "npm ci: {}",
            String::from_utf8_lossy(&installed.stderr)
        );
        std::fs::rename(fresh.keep(), &folder)?;
    }
    Ok(folder.join("node_modules"))
}

/// Where what was fetched stays.
#[must_use]
pub fn cache() -> PathBuf {
    let cache = match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
        (Some(cache), _) => PathBuf::from(cache),
        (None, Some(home)) => PathBuf::from(home).join(".cache"),
        (None, None) => std::env::temp_dir(),
    };
    cache.join("tidewire")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_script_says_and_hears_lines() -> Result<()> {
        let mut people = Node::start("people.mjs", &[]).await?;
        assert!(people.until("listen").await?.is_u64());
        people.say(&json!({}))?;
        assert!(run("people.mjs", &["sdl"]).await?.contains("type Patient @key"));
        let refused = run("compose.mjs", &["people=http://nowhere=missing.graphql"]).await;
        assert!(refused.is_err_and(|error| error.to_string().contains("ENOENT")));
        Ok(())
    }
}
