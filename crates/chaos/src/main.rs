//! `holdfast-chaos`: faults on real processes, measured by clients and judged by the checker.
//!
//! ```text
//!  args ─► run: one row a fault ─► stage: cluster + load ─► faults: inject, heal ─► measure: gaps
//!             │                        │         │                                     │
//!             └─► report               │         └─► history ─► judge (checker) ◄──────┘
//!                                      └─► network: namespaces, cuts
//! ```
//! `storage` does the same with disks and the power. Whatever a run makes is undone when its value is dropped: processes end
//! with the stage, mounts with the machines, namespaces with the network, on success, error, panic and signals alike. What
//! a run that was killed left behind, the next one removes.

mod args;
mod clock;
mod cluster;
mod error;
mod faults;
mod history;
mod judge;
mod ledger;
mod load;
mod lock;
mod logging;
mod measure;
mod network;
mod observe;
mod record;
mod report;
mod run;
mod stage;
mod storage;
mod zone;

use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Parser as _, ValueEnum as _};
use tokio::signal::unix::{SignalKind, signal};

use args::{Arguments, Format, Inside, RunArgs};
use error::{ChaosError, chain};
use faults::Fault;
use lock::RunLock;
use measure::row::Row;
use network::Network;
use report::Marks;
use run::Task;
use storage::StorageFault;

/// A promise was broken.
const BROKEN: u8 = 1;
/// The run could not be made.
const IMPOSSIBLE: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match &arguments.inside {
        Some(Inside::Probe(probe)) => load::inside::run(probe).await.map(|()| ExitCode::SUCCESS),
        Some(Inside::Reach { endpoint }) => {
            Ok(ExitCode::from(u8::from(!network::injector::reached(endpoint))))
        }
        None => interruptible(&arguments.run).await,
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("holdfast-chaos: {}", chain(&error));
        ExitCode::from(IMPOSSIBLE)
    })
}

/// Runs until the end or a signal. In both cases all that was made is dropped, and thereby undone.
async fn interruptible(arguments: &RunArgs) -> Result<ExitCode, ChaosError> {
    let handler = |kind| signal(kind).map_err(ChaosError::io("listening for signals"));
    let (mut interrupt, mut terminate) =
        (handler(SignalKind::interrupt())?, handler(SignalKind::terminate())?);
    tokio::select! {
        outcome = run_all(arguments) => outcome,
        _ = interrupt.recv() => Err(ChaosError::Interrupted),
        _ = terminate.recv() => Err(ChaosError::Interrupted),
    }
}

async fn run_all(arguments: &RunArgs) -> Result<ExitCode, ChaosError> {
    if arguments.storage.is_some() {
        storage::tools::require()?;
    }
    let _lock = RunLock::take()?;
    network::leftovers::end_processes();
    storage::mounts::remove_leftovers()?;
    network::namespaces::remove_leftovers()?;
    let work = run::make_work_folder(arguments)?;
    logging::to_file(&work.join("runner.log"))?;
    if let Some(faults) = &arguments.storage {
        return run_storage(faults, arguments, &work).await;
    }
    let mut rows = Vec::new();
    for loopback in [false, true] {
        let tasks: Vec<Task> =
            tasks(arguments).into_iter().filter(|task| task.loopback == loopback).collect();
        if tasks.is_empty() {
            continue;
        }
        let network = make_network(loopback, arguments)?;
        for task in &tasks {
            supported(task.fault, &network)?;
        }
        for task in tasks {
            rows.push(run::make_row(task, &network, arguments, &work).await?);
        }
        network.remove()?;
    }
    let passed = rows.iter().all(|row| row.broken.is_empty());
    remove_unless_needed(&work, passed, arguments)?;
    finish(arguments, &rows)
}

async fn run_storage(
    faults: &[StorageFault],
    arguments: &RunArgs,
    work: &Path,
) -> Result<ExitCode, ChaosError> {
    let all = StorageFault::value_variants();
    let faults = if faults.is_empty() { all } else { faults };
    let seed = arguments.seed.unwrap_or_else(seed_by_clock);
    let network = make_network(arguments.loopback, arguments)?;
    let rows = storage::run::rows(faults, seed, &network, arguments, work).await?;
    network.remove()?;
    let (passed, failed, not_run) = storage::report::counts(&rows);
    remove_unless_needed(work, failed == 0, arguments)?;
    let told = Told {
        text: storage::report::text(&rows),
        json: storage::report::json(&rows),
        marks: storage::report::MARKS,
        markdown: storage::report::markdown(&rows),
        closing: format!("{passed} passed, {failed} failed, {not_run} not run"),
    };
    told.tell(arguments)?;
    Ok(ExitCode::from(if failed == 0 { 0 } else { BROKEN }))
}

/// The folder of a run that failed is evidence.
fn remove_unless_needed(work: &Path, passed: bool, arguments: &RunArgs) -> Result<(), ChaosError> {
    if !passed || arguments.keep {
        return Ok(());
    }
    std::fs::remove_dir_all(work).map_err(ChaosError::io(format!("removing {}", work.display())))
}

/// All rows asked for.
fn tasks(arguments: &RunArgs) -> Vec<Task> {
    let seed = arguments.seed.unwrap_or_else(seed_by_clock);
    let task = |fault, loopback| Task { fault, loopback, seed };
    if !arguments.table {
        return arguments.fault.iter().map(|fault| task(*fault, arguments.loopback)).collect();
    }
    let table = [
        Fault::Kill,
        Fault::KillLeader,
        Fault::BlackHole,
        Fault::Stop,
        Fault::NoControllers,
        Fault::Rolling,
        Fault::TwoZones,
    ];
    let on_loopback = [Fault::Kill, Fault::KillLeader].map(|fault| task(fault, true));
    table.map(|fault| task(fault, false)).into_iter().chain(on_loopback).collect()
}

fn seed_by_clock() -> u64 {
    // Short enough to be typed.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::from(since.subsec_micros())
}

fn make_network(loopback: bool, arguments: &RunArgs) -> Result<Network, ChaosError> {
    if loopback {
        return Ok(Network::loopback(arguments.port_shift));
    }
    let runner = std::env::current_exe().map_err(ChaosError::io("finding this program"))?;
    Network::namespaces(&runner)
}

fn supported(fault: Fault, network: &Network) -> Result<(), ChaosError> {
    match fault.cut() {
        Some(cut) if !network.can(cut) => Err(ChaosError::Unsupported {
            fault: fault.name(),
            needs: "network namespaces, and netfilter in the kernel",
        }),
        _ => Ok(()),
    }
}

fn finish(arguments: &RunArgs, rows: &[Row]) -> Result<ExitCode, ChaosError> {
    let failed = rows.iter().filter(|row| !row.broken.is_empty()).count();
    let told = Told {
        text: report::text(rows),
        json: report::json(rows),
        marks: report::MARKS,
        markdown: report::markdown(rows),
        closing: format!("{} passed, {failed} failed", rows.len() - failed),
    };
    told.tell(arguments)?;
    Ok(ExitCode::from(if failed == 0 { 0 } else { BROKEN }))
}

/// A table, for everybody who wants it.
struct Told {
    text: String,
    json: serde_json::Value,
    marks: Marks,
    markdown: String,
    closing: String,
}

impl Told {
    fn tell(&self, arguments: &RunArgs) -> Result<(), ChaosError> {
        let closing = format!("holdfast-chaos: {}", self.closing);
        if let Some(file) = &arguments.report {
            report::update(file, self.marks, &self.markdown)?;
        }
        match arguments.format {
            Format::Text => println!("{}\n{closing}", self.text),
            Format::Json => {
                println!("{}", self.json);
                eprintln!("{closing}");
            }
        }
        Ok(())
    }
}
