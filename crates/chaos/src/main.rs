//! `holdfast-chaos`: faults on real processes, measured by clients and judged by the checker.
//!
//! ```text
//!  args ─► run: one row a fault ─► stage: cluster + load ─► faults: inject, heal ─► measure: gaps
//!             │                        │         │                                     │
//!             └─► report               │         └─► history ─► judge (checker) ◄──────┘
//!                                      └─► network: namespaces, cuts
//! ```
//! Whatever a run makes is undone when its value is dropped: processes end with the stage, namespaces with the network,
//! on success, error, panic and signals alike. What a run that was killed left behind, the next one removes.

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
mod zone;

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

use args::{Arguments, Format, Inside, RunArgs};
use error::{ChaosError, chain};
use faults::Fault;
use lock::RunLock;
use measure::row::Row;
use network::Network;
use run::Task;

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
    let _lock = RunLock::take()?;
    network::leftovers::end_processes();
    network::namespaces::remove_leftovers()?;
    let work = run::make_work_folder(arguments)?;
    logging::to_file(&work.join("runner.log"))?;
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
    if rows.iter().all(|row| row.broken.is_empty()) && !arguments.keep {
        std::fs::remove_dir_all(&work).map_err(ChaosError::io(format!("removing {}", work.display())))?;
    }
    finish(arguments, &rows)
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
    match arguments.format {
        Format::Text => println!("{}", report::text(rows)),
        Format::Json => println!("{}", report::json(rows)),
    }
    if let Some(file) = &arguments.report {
        report::update(file, rows)?;
    }
    let failed = rows.iter().filter(|row| !row.broken.is_empty()).count();
    let closing = format!("holdfast-chaos: {} passed, {failed} failed", rows.len() - failed);
    match arguments.format {
        Format::Text => println!("{closing}"),
        Format::Json => eprintln!("{closing}"),
    }
    Ok(ExitCode::from(if failed == 0 { 0 } else { BROKEN }))
}
