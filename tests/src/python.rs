//! The parts that are written in Python, real ones from PyPI. Each runs as a process that speaks JSON lines.
//!
//! The packages are those of `tests/webhooks/requirements.txt`, by their hashes, installed once into a virtual environment in
//! the cache folder.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::node::{Node, cache};

/// Starts a script of `tests/webhooks`.
pub async fn start(script: &str) -> Result<Node> {
    let python = tokio::task::spawn_blocking(python).await??;
    Node::spawn(Command::new(python).arg(sources().join(script)), script)
}

/// The interpreter beside the packages; made the first time, one process at a time.
fn python() -> Result<PathBuf> {
    let wanted = sources().join("requirements.txt");
    let mut hasher = DefaultHasher::new();
    std::fs::read_to_string(&wanted)?.hash(&mut hasher);
    let cache = cache();
    let folder = cache.join(format!("python-{:016x}", hasher.finish()));
    let whole = folder.join("whole");
    std::fs::create_dir_all(&cache)?;
    let lock = File::create(cache.join("python.lock"))?;
    lock.lock()?;
    let python = folder.join("bin/python");
    // A virtual environment knows its own path: it is made where it stays, and marked when it is whole.
    if !whole.is_file() {
        run(Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&folder))?;
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        // Nothing that was not looked at, and nothing that runs while it is installed.
        pip.args(["--require-hashes", "--only-binary=:all:", "-r"]);
        run(pip.arg(&wanted))?;
        File::create(whole)?;
    }
    Ok(python)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .context("python3 (.ci/prerequisites test says how to get it)")?;
    ensure!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("webhooks")
}
