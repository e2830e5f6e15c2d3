//! One process of the cluster: started, stopped, continued, killed. It dies with the runner's handle.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;
use tokio::time::timeout;

use crate::cluster::{Setting, config};
use crate::error::ChaosError;
use crate::network::Network;
use crate::storage::machines;
use crate::zone::Zone;

/// How long a killed process may take to be gone.
const DEATH: Duration = Duration::from_secs(10);

/// What a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Decides who leads.
    Controller,
    /// Holds partitions.
    Broker,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Controller => "controller",
            Role::Broker => "broker",
        })
    }
}

/// A process, running or not.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) role: Role,
    pub(crate) zone: Zone,
    config: PathBuf,
    data: PathBuf,
    /// Says in which boot of its machine it runs, where that is not this machine's.
    boot_id: Option<PathBuf>,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// Writes its configuration; does not start it.
    pub(crate) fn new(setting: &Setting<'_>, role: Role, zone: Zone) -> Result<Process, ChaosError> {
        let Setting { folder, homes, .. } = *setting;
        Ok(Process {
            role,
            zone,
            config: config::write(setting, role, zone)?,
            data: homes.data_dir(folder, role, zone),
            boot_id: homes.boot_id(folder, zone),
            log: folder.join(format!("{role}-{zone}.log")),
            child: None,
        })
    }

    /// Where it keeps what has to last.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Where its output goes.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// Its number, if it runs. Whatever it was started through has become the process itself.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Where it listens for whoever asks after its health.
    pub(crate) fn endpoint(&self, network: &Network) -> String {
        let endpoints = network.endpoints(self.zone);
        match self.role {
            Role::Controller => endpoints.controller,
            Role::Broker => endpoints.client,
        }
    }

    /// Starts it in its zone, unless it runs. Its output is added to its log.
    pub(crate) fn start(&mut self, network: &Network, binary: &Path) -> Result<(), ChaosError> {
        if self.child.is_some() {
            return Ok(());
        }
        let what = || format!("starting {}-{}", self.role, self.zone);
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.map_err(ChaosError::io(format!("opening {}", self.log.display())))?;
        let errors = log.try_clone().map_err(ChaosError::io(what()))?;
        let mut command = match &self.boot_id {
            Some(file) => machines::command(network, self.zone, file, binary),
            None => network.command(self.zone, binary),
        };
        command.arg(self.role.to_string()).arg("--config").arg(&self.config);
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        // Ctrl-C in a terminal reaches the runner only, which then ends its processes itself.
        command.process_group(0).kill_on_drop(true);
        self.child = Some(command.spawn().map_err(ChaosError::io(what()))?);
        Ok(())
    }

    /// Whether it ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(Some(_))))
    }

    /// Sends a signal, if it runs.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.pid().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        if let Some(pid) = pid {
            // Until it is waited for, the number is not given to another process.
            let _ = kill_process(pid, signal);
        }
    }

    /// Whether none of its threads does anything: what was under way in the kernel when it was stopped has ended, too.
    pub(crate) fn stands_still(&self) -> bool {
        let Some(pid) = self.pid() else { return true };
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
        threads.flatten().all(|thread| {
            // One that has ended stands still as well.
            fs::read_to_string(thread.path().join("stat")).map_or(true, |stat| is_still(&stat))
        })
    }

    /// Waits until a killed process is gone.
    pub(crate) async fn gone(&mut self) -> Result<(), ChaosError> {
        self.gone_within(DEATH).await
    }

    /// Waits until a process is gone that was asked to end.
    pub(crate) async fn gone_within(&mut self, limit: Duration) -> Result<(), ChaosError> {
        let Some(child) = &mut self.child else { return Ok(()) };
        let ended = timeout(limit, child.wait()).await.is_ok();
        if !ended {
            return Err(self.problem(format!("does not end within {limit:?}")));
        }
        self.child = None;
        Ok(())
    }

    /// An error about it, with where to read on.
    pub(crate) fn problem(&self, problem: impl Into<String>) -> ChaosError {
        let process = format!("{}-{}", self.role, self.zone);
        ChaosError::Process { process, problem: problem.into(), log: self.log.clone() }
    }
}

/// What the kernel says of a thread: its state stands behind its name, which ends at the last bracket.
fn is_still(stat: &str) -> bool {
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    matches!(state, Some('T' | 't' | 'Z' | 'X'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread may be called anything, also what looks like a state.
    #[test]
    fn threads_that_stand_still() {
        assert!(is_still("7 (flush-0) T 1 7 7"));
        assert!(is_still("7 (a) R b) T 1 7 7"));
        assert!(!is_still("7 (a) T b) D 1 7 7"));
        assert!(!is_still("7 (flush-0) S 1 7 7"));
        assert!(!is_still(""));
    }
}
