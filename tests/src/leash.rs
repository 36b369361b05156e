//! Children end with the process that started them, however it ends, and their folders with them.
//!
//! A shell holds the other end of a pipe from us; when we are gone it reads the end of the file and sweeps up. That
//! needs no `unsafe`, and unlike a parent-death signal it does not depend on the thread that spawned.

use std::io::Write;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

const SWEEPER: &str = r#"
trap '' INT TERM HUP
pids=''; folders=''
while read -r verb what; do
  case $verb in
    hold) pids="$pids $what" ;;
    release) kept=''; for pid in $pids; do [ "$pid" = "$what" ] || kept="$kept $pid"; done; pids=$kept ;;
    sweep) folders="$folders $what" ;;
  esac
done
for pid in $pids; do kill -9 "$pid" 2>/dev/null; done
for folder in $folders; do rm -rf "$folder" || { sleep 1; rm -rf "$folder"; }; done
"#;

#[allow(clippy::zombie_processes, reason = "it outlives us: that is what it is for")]
fn tell(line: &str) {
    static PIPE: OnceLock<Mutex<ChildStdin>> = OnceLock::new();
    let pipe = PIPE.get_or_init(|| {
        let mut child = Command::new("sh")
            .args(["-c", SWEEPER])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("leash: a POSIX shell is there");
        Mutex::new(child.stdin.take().expect("leash: stdin is piped"))
    });
    let mut pipe = pipe.lock().unwrap_or_else(PoisonError::into_inner);
    writeln!(pipe, "{line}").expect("leash: the sweeper lives as long as we do");
}

/// The child with this id is killed when we end.
pub fn hold(pid: u32) {
    tell(&format!("hold {pid}"));
}

/// The child with this id has ended.
pub fn release(pid: u32) {
    tell(&format!("release {pid}"));
}

/// The folder is removed when we end.
pub fn sweep(folder: &Path) {
    tell(&format!("sweep {}", folder.display()));
}
