//! What storage faults need of this machine, tried before the first one.

use std::path::Path;

use crate::error::{ChaosError, chain};
use crate::network::system::install;
use crate::storage::tracer::{Bend, Tracer};

/// Programs without which there is no disk to break.
const PROGRAMS: [&str; 5] = ["mkfs.ext4", "e2fsck", "mount", "umount", "unshare"];

/// Refuses where disks cannot be made.
pub(crate) fn require() -> Result<(), ChaosError> {
    if !rustix::process::geteuid().is_root() {
        return Err(ChaosError::MountingNeedsRoot);
    }
    match PROGRAMS.into_iter().find(|program| !is_installed(program)) {
        Some(program) => Err(ChaosError::MissingStorageTool { program, install: install(program) }),
        None => Ok(()),
    }
}

/// Why the calls of a running process cannot be made to fail here, if they cannot: tried on a process of our own.
pub(crate) async fn no_tracer(folder: &Path) -> Option<String> {
    if !is_installed("strace") {
        return Some(format!("strace is not installed: install it with `{}`", install("strace")));
    }
    let why = |error: ChaosError| {
        format!("strace cannot attach to a process here ({}): allow ptrace(2)", chain(&error))
    };
    let mut victim = match tokio::process::Command::new("sleep").arg("60").kill_on_drop(true).spawn() {
        Ok(victim) => victim,
        Err(error) => return Some(why(ChaosError::io("starting a process to try it on")(error))),
    };
    let bend = Bend { calls: "fdatasync", how: "error=EIO" };
    let pid = victim.id().unwrap_or_default();
    let tried = match Tracer::attach(pid, bend, &folder.join("strace.trial")).await {
        Ok(tracer) => tracer.detach().await.err(),
        Err(error) => Some(error),
    };
    // One that has ended already is as gone as it should be.
    let _ = victim.kill().await;
    tried.map(why)
}

fn is_installed(program: &str) -> bool {
    let Some(path) = std::env::var_os("PATH") else { return false };
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
