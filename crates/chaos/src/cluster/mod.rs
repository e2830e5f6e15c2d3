//! Three controllers and three brokers as processes, and what can be done to those of a zone.

mod config;
mod health;
pub(crate) mod homes;
pub(crate) mod process;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::error::ChaosError;
use crate::network::Network;
use crate::zone::Zone;
use homes::Homes;
use process::{Process, Role};

/// How long a process may take until it serves.
const START: Duration = Duration::from_secs(30);
/// Pause between two questions whether it does.
const ASK_AGAIN: Duration = Duration::from_millis(10);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(1);

/// How long a stopped process may take until nothing of it is under way in the kernel.
const STANDSTILL: Duration = Duration::from_secs(5);
/// How long a process may take to end in order.
const ORDERLY_END: Duration = Duration::from_secs(30);

/// What a cluster is made of, and where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting<'a> {
    pub(crate) network: &'a Network,
    /// The binary under test.
    pub(crate) binary: &'a Path,
    /// For logs, configurations and the history.
    pub(crate) folder: &'a Path,
    pub(crate) homes: Homes,
}

/// The six processes.
#[derive(Debug)]
pub(crate) struct Cluster {
    binary: PathBuf,
    processes: Vec<Process>,
}

impl Cluster {
    /// Writes all configurations; starts nothing.
    pub(crate) fn new(setting: &Setting<'_>) -> Result<Cluster, ChaosError> {
        let mut processes = Vec::new();
        for role in [Role::Controller, Role::Broker] {
            for zone in Zone::ALL {
                processes.push(Process::new(setting, role, zone)?);
            }
        }
        Ok(Cluster { binary: setting.binary.to_owned(), processes })
    }

    /// The binary under test.
    pub(crate) fn binary(&self) -> &Path {
        &self.binary
    }

    /// Starts what does not run of these processes, and waits until each serves.
    pub(crate) async fn start(&mut self, network: &Network, which: Which<'_>) -> Result<(), ChaosError> {
        let binary = self.binary.clone();
        for process in self.those(which) {
            process.start(network, &binary)?;
        }
        for process in self.those(which) {
            await_serving(process, network).await?;
        }
        Ok(())
    }

    /// SIGKILL to all of them at once; returns when they are gone.
    pub(crate) async fn kill(&mut self, which: Which<'_>) -> Result<(), ChaosError> {
        self.those(which).for_each(|process| process.signal(Signal::KILL));
        for process in self.those(which) {
            process.gone().await?;
        }
        Ok(())
    }

    /// SIGSTOP: they keep their sockets and do nothing.
    pub(crate) fn stop(&mut self, which: Which<'_>) {
        self.those(which).for_each(|process| process.signal(Signal::STOP));
    }

    /// SIGSTOP, and returns once nothing of them is under way in the kernel any more: no write, no flush.
    pub(crate) async fn freeze(&mut self, which: Which<'_>) -> Result<(), ChaosError> {
        self.stop(which);
        let deadline = Instant::now() + STANDSTILL;
        for process in self.those(which) {
            while !process.stands_still() {
                if Instant::now() >= deadline {
                    return Err(process.problem("does not stand still"));
                }
                sleep(ASK_AGAIN).await;
            }
        }
        Ok(())
    }

    /// SIGTERM: they end in order.
    pub(crate) async fn end_in_order(&mut self, which: Which<'_>) -> Result<(), ChaosError> {
        self.those(which).for_each(|process| process.signal(Signal::TERM));
        for process in self.those(which) {
            process.gone_within(ORDERLY_END).await?;
        }
        Ok(())
    }

    /// One of them.
    pub(crate) fn process(&mut self, role: Role, zone: Zone) -> Option<&mut Process> {
        self.processes.iter_mut().find(|process| (process.role, process.zone) == (role, zone))
    }

    /// SIGCONT: they go on where they were.
    pub(crate) fn go_on(&mut self, which: Which<'_>) {
        self.those(which).for_each(|process| process.signal(Signal::CONT));
    }

    /// Ends everything, stopped processes too.
    pub(crate) async fn end(&mut self) {
        self.go_on(Which::ALL);
        for process in &mut self.processes {
            process.signal(Signal::KILL);
        }
        for process in &mut self.processes {
            // What cannot be ended is found by the next run.
            let _ = process.gone().await;
        }
    }

    /// A process that ended although nobody killed it: a broken promise of its own.
    pub(crate) fn fallen(&mut self) -> Option<ChaosError> {
        let fallen = self.processes.iter_mut().find_map(|process| process.has_ended().then_some(process));
        fallen.map(|process| process.problem("ended by itself"))
    }

    fn those(&mut self, which: Which<'_>) -> impl Iterator<Item = &mut Process> {
        self.processes.iter_mut().filter(move |process| which.names(process))
    }
}

/// Some of the six processes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Which<'a> {
    roles: &'a [Role],
    zones: &'a [Zone],
}

impl<'a> Which<'a> {
    /// All six.
    pub(crate) const ALL: Which<'static> =
        Which { roles: &[Role::Controller, Role::Broker], zones: &Zone::ALL };

    /// Both processes of each of the zones.
    pub(crate) fn zones(zones: &'a [Zone]) -> Which<'a> {
        Which { zones, ..Which::ALL }
    }

    /// The controllers of the zones.
    pub(crate) fn controllers(zones: &'a [Zone]) -> Which<'a> {
        Which { roles: &[Role::Controller], zones }
    }

    /// The brokers of the zones.
    pub(crate) fn brokers(zones: &'a [Zone]) -> Which<'a> {
        Which { roles: &[Role::Broker], zones }
    }

    fn names(&self, process: &Process) -> bool {
        self.roles.contains(&process.role) && self.zones.contains(&process.zone)
    }
}

async fn await_serving(process: &mut Process, network: &Network) -> Result<(), ChaosError> {
    let endpoint = process.endpoint(network);
    let deadline = Instant::now() + START;
    while !health::serves(&endpoint, ANSWER).await {
        if process.has_ended() {
            return Err(process.problem("ended while it started"));
        }
        if Instant::now() >= deadline {
            return Err(process.problem(format!("does not serve on {endpoint} after {START:?}")));
        }
        sleep(ASK_AGAIN).await;
    }
    Ok(())
}
