//! Processes as the operating system sees them: signals, resident memory, CPU time.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Clock ticks a second in `/proc/PID/stat`: 100 on every Linux that is in use (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Sends a signal by its short name (`TERM`, `KILL`, `STOP`, `CONT`).
pub fn signal(pid: u32, name: &str) -> Result<()> {
    let status = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(pid.to_string())
        .status()?;
    ensure!(status.success(), "kill -{name} {pid}: {status}");
    Ok(())
}

/// Resident memory in bytes.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .context("no VmRSS")?;
    let kib: u64 = line
        .split_whitespace()
        .nth(1)
        .context("VmRSS without a number")?
        .parse()?;
    Ok(kib * 1024)
}

/// User and system time so far, in seconds.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name (second field) may hold spaces; it ends with the last parenthesis.
    let Some((_, rest)) = stat.rsplit_once(") ") else {
        bail!("/proc/{pid}/stat is not understood")
    };
    let mut fields = rest.split_whitespace().skip(11);
    let mut ticks = || -> Result<f64> { Ok(fields.next().context("short stat")?.parse::<f64>()?) };
    Ok((ticks()? + ticks()?) / TICKS_PER_SECOND)
}
