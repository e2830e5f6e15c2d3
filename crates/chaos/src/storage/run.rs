//! One row: machines, a cluster on them, one fault again and again, the final phase, and all judgements.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;

use crate::args::RunArgs;
use crate::cluster::homes::Homes;
use crate::cluster::{Setting, Which};
use crate::error::{ChaosError, chain};
use crate::faults::Check;
use crate::network::Network;
use crate::run::{judge_beside, make_folder};
use crate::stage::{HISTORY, Stage};
use crate::storage::machines::Machines;
use crate::storage::row::{Cost, Row, Struck};
use crate::storage::{Scene, StorageFault, replicas, tools};
use crate::zone::Zone;

/// Injections a row, unless told otherwise.
const ROUNDS: u32 = 3;
/// How long an injection may take, healing included.
const INJECTION_LIMIT: Duration = Duration::from_secs(300);

/// All rows asked for. What needs an injector that does not work here is not run, and says so.
pub(crate) async fn rows(
    faults: &[StorageFault],
    seed: u64,
    network: &Network,
    arguments: &RunArgs,
    work: &Path,
) -> Result<Vec<Row>, ChaosError> {
    let traced = faults.iter().any(|fault| fault.needs_tracer());
    let no_tracer = if traced { tools::no_tracer(work).await } else { None };
    let mut rows = Vec::new();
    for fault in faults {
        let row = Row::empty(fault.name(), seed, fault.limits());
        rows.push(match no_tracer.clone().filter(|_| fault.needs_tracer()) {
            Some(why) => {
                eprintln!("{} NOT RUN: {why}", fault.name());
                Row { not_run: Some(why), ..row }
            }
            None => make_row(*fault, row, network, arguments, work).await?,
        });
    }
    Ok(rows)
}

/// Makes a row. What breaks off a row is part of it: it fails, and the next one is made.
async fn make_row(
    fault: StorageFault,
    row: Row,
    network: &Network,
    arguments: &RunArgs,
    work: &Path,
) -> Result<Row, ChaosError> {
    let folder = make_folder(work, fault.name())?;
    let (name, seed, limits) = (row.fault, row.seed, row.limits);
    let row = match strike(fault, row, network, arguments, &folder).await {
        Ok(row) => row,
        Err(error) => {
            let broken = format!("broke off: {}", chain(&error));
            eprintln!("  {broken}");
            Row { broken: vec![broken], ..Row::empty(name, seed, limits) }
        }
    };
    if row.broken.is_empty() && !arguments.keep {
        let removed = fs::remove_dir_all(&folder);
        removed.map_err(ChaosError::io(format!("removing {}", folder.display())))?;
    } else {
        eprintln!("  logs, history and images of the disks: {}", folder.display());
        eprintln!("  again: {}", replay(fault, seed, arguments));
    }
    Ok(row)
}

async fn strike(
    fault: StorageFault,
    row: Row,
    network: &Network,
    arguments: &RunArgs,
    folder: &Path,
) -> Result<Row, ChaosError> {
    let machines = Machines::make(folder, fault.disks()).await?;
    let setting = Setting { network, binary: &arguments.binary, folder, homes: Homes::Machines };
    let stage = Stage::set(setting, fault.pace(), row.seed).await?;
    let mut scene = Scene { stage, machines, spoil: arguments.spoil };
    let rounds = rounds(arguments);
    let mut costs = Vec::new();
    for round in 1..=rounds {
        scene.stage.quiet_time().await;
        let cost = Cost::of(inject(fault, &mut scene, round).await?, &scene.stage.load);
        let zone = cost.zone.map(|zone| format!(" zone {zone}")).unwrap_or_default();
        eprintln!("{} {round}/{rounds}{zone}: {}", fault.name(), cost.summary());
        costs.push(cost);
    }
    let mut checks: Vec<Check> = costs.iter().flat_map(|cost| cost.checks.clone()).collect();
    let short = scene.stage.close().await?;
    checks.push(Check::of(
        "every partition is readable to its end",
        short.is_empty(),
        format!("{short:?} are not"),
    ));
    checks.push(scene.stage.load.unchanged());
    let (judged, put_aside) = judge_folders(&mut scene).await?;
    checks.extend(judged);
    let verdict = judge_beside(folder.join(HISTORY)).await?;
    let mut row = row.with(&costs, scene.stage.load.acks.count(), verdict);
    if put_aside > 0 {
        row.told.push(format!("{put_aside} logs put aside"));
    }
    row.judge(&checks);
    scene.stage.cluster.end().await;
    Ok(row)
}

/// One injection, which ends by itself or is given up; the network is mended in both cases.
async fn inject(fault: StorageFault, scene: &mut Scene<'_>, round: u32) -> Result<Struck, ChaosError> {
    let struck = timeout(INJECTION_LIMIT, fault.inject(scene, round)).await;
    scene.stage.network.mend().await?;
    struck.unwrap_or_else(|_| {
        let (what, seen) = (format!("the end of fault {}", fault.name()), "it goes on".to_owned());
        Err(ChaosError::Late { what, limit: INJECTION_LIMIT, seen })
    })
}

/// Once all replicas have everything, the brokers are killed at one moment, and their folders looked at. They are whole
/// then: what a killed process wrote, the kernel has.
async fn judge_folders(scene: &mut Scene<'_>) -> Result<(Vec<Check>, u64), ChaosError> {
    scene.stage.healed().await?;
    scene.stage.cluster.kill(Which::brokers(&Zone::ALL)).await?;
    let folders = Zone::ALL.map(|zone| scene.broker_data(zone));
    let folders = folders.into_iter().collect::<Result<Vec<PathBuf>, _>>()?;
    let binary = scene.stage.cluster.binary().to_owned();
    let (sound, put_aside) = replicas::sound(&binary, &folders).await?;
    let alike = replicas::alike(folders).await?;
    Ok((vec![sound, alike], put_aside))
}

fn rounds(arguments: &RunArgs) -> u32 {
    arguments.rounds.unwrap_or(ROUNDS)
}

/// The line that does it again.
fn replay(fault: StorageFault, seed: u64, arguments: &RunArgs) -> String {
    let loopback = if arguments.loopback { " --loopback" } else { "" };
    let spoil = if arguments.spoil { " --spoil" } else { "" };
    format!(
        "cargo run --release -p holdfast-chaos -- --storage {} --rounds {} --seed {seed}{loopback}{spoil}",
        fault.name(),
        rounds(arguments),
    )
}
