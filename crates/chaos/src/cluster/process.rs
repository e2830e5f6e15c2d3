//! One process of the cluster: started, stopped, continued, killed. It dies with the runner's handle.

use std::fmt;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;
use tokio::time::timeout;

use crate::cluster::config;
use crate::error::ChaosError;
use crate::network::Network;
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
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// Writes its configuration; does not start it.
    pub(crate) fn new(
        network: &Network,
        folder: &Path,
        role: Role,
        zone: Zone,
    ) -> Result<Process, ChaosError> {
        let config = config::write(network, folder, role, zone)?;
        Ok(Process { role, zone, config, log: folder.join(format!("{role}-{zone}.log")), child: None })
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
        let mut command = network.command(self.zone, binary);
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
        let pid = self.child.as_ref().and_then(Child::id).and_then(|pid| Pid::from_raw(pid.cast_signed()));
        if let Some(pid) = pid {
            // Until it is waited for, the number is not given to another process.
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits until a killed process is gone.
    pub(crate) async fn gone(&mut self) -> Result<(), ChaosError> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        match timeout(DEATH, child.wait()).await {
            Ok(_) => Ok(()),
            Err(_) => Err(self.problem("does not end")),
        }
    }

    /// An error about it, with where to read on.
    pub(crate) fn problem(&self, problem: impl Into<String>) -> ChaosError {
        let process = format!("{}-{}", self.role, self.zone);
        ChaosError::Process { process, problem: problem.into(), log: self.log.clone() }
    }
}
