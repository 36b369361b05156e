//! Which cores do what: the server that is measured has half of them, gateway and bare loop the same ones; readers, the
//! producer and a Kafka that the run starts have the others. Left to itself the scheduler puts a bare loop and its readers on one core and spreads a gateway,
//! whose cores Kafka wakes: then the table would compare two placements, not two servers.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

/// The two halves of the cores that this process may run on.
#[derive(Debug, Clone, Copy)]
pub struct Cores {
    server: CpuSet,
    others: CpuSet,
}

impl Cores {
    /// Takes the second half for the calling thread, and so for what it starts from now on; the first half is for servers.
    /// `None` on a single core: all share it then.
    pub fn divide() -> Result<Option<Self>> {
        let allowed = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let half = allowed.count() as usize / 2;
        if half == 0 {
            return Ok(None);
        }
        let server = set(cores.by_ref().take(half));
        let others = set(cores);
        sched_setaffinity(None, &others)?;
        Ok(Some(Self { server, others }))
    }

    /// How many a server has, and how many are left for everything else.
    #[must_use]
    pub fn counts(&self) -> (u32, u32) {
        (self.server.count(), self.others.count())
    }

    /// Moves a server to the cores that are for servers, with all its threads.
    pub fn give(&self, pid: u32) -> Result<()> {
        let threads = format!("/proc/{pid}/task");
        // A thread that is started meanwhile is where the one was that starts it: until a look finds nothing to move.
        while self.give_once(Path::new(&threads))? {}
        Ok(())
    }

    /// Whether any thread was elsewhere.
    fn give_once(&self, threads: &Path) -> Result<bool> {
        let mut moved = false;
        for thread in fs::read_dir(threads).with_context(|| format!("{}", threads.display()))? {
            let name = match thread {
                Ok(thread) => thread.file_name(),
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error.into()),
            };
            let id = name.to_string_lossy().parse().ok().and_then(Pid::from_raw);
            let id = id.context("a thread has a number")?;
            match sched_getaffinity(Some(id)) {
                Ok(set) if set == self.server => {}
                Ok(_) => {
                    moved = true;
                    ended(sched_setaffinity(Some(id), &self.server))?;
                }
                Err(error) => ended(Err(error))?,
            }
        }
        Ok(moved)
    }
}

/// A thread that has ended meanwhile needs no core.
fn ended(result: Result<(), Errno>) -> Result<()> {
    match result {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn set(cores: impl Iterator<Item = usize>) -> CpuSet {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(core);
    }
    set
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_server_has_cores_that_nothing_else_of_the_run_has() -> Result<()> {
        // On a thread of its own: a test binary's other threads stay where they are.
        std::thread::spawn(|| {
            let before = sched_getaffinity(None)?;
            let Some(cores) = Cores::divide()? else {
                return Ok(());
            };
            let mut child = Command::new("cat")
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()?;
            let started = sched_getaffinity(Pid::from_raw(child.id().try_into()?))?;
            let given = cores.give(child.id());
            let now = sched_getaffinity(Pid::from_raw(child.id().try_into()?))?;
            child.kill()?;
            child.wait()?;
            given?;
            assert_eq!(started, cores.others);
            assert_eq!(now, cores.server);
            for core in 0..CpuSet::MAX_CPU {
                assert!(!(cores.server.is_set(core) && cores.others.is_set(core)));
                assert_eq!(
                    cores.server.is_set(core) || cores.others.is_set(core),
                    before.is_set(core)
                );
            }
            Ok(())
        })
        .join()
        .map_err(|_| anyhow::anyhow!("the thread panicked"))?
    }
}
