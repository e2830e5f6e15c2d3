//! One row: a cluster of its own, one fault again and again, the final phase, the verdict.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::timeout;

use crate::args::RunArgs;
use crate::clock::Micros;
use crate::cluster::Setting;
use crate::cluster::homes::Homes;
use crate::error::{ChaosError, chain};
use crate::faults::{Fault, Lengths, Limits, Struck};
use crate::judge::{Verdict, judge};
use crate::ledger;
use crate::measure::row::{Cost, Row, Spread};
use crate::network::Network;
use crate::network::leftovers::FOLDER_PREFIX;
use crate::stage::{HISTORY, Stage};

/// How long an injection may take, healing included, beside its own length.
const INJECTION_LIMIT: Duration = Duration::from_secs(300);

/// Injections a row, unless told otherwise.
const ROUNDS: u32 = 20;

/// One row to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Task {
    pub(crate) fault: Fault,
    pub(crate) loopback: bool,
    pub(crate) seed: u64,
}

impl Task {
    /// The line that does it again.
    pub(crate) fn replay(&self, arguments: &RunArgs) -> String {
        let loopback = if self.loopback { " --loopback" } else { "" };
        let length = match self.fault {
            Fault::Stop => format!(" --stop-seconds {}", arguments.stop_seconds.as_secs()),
            Fault::Quiet => format!(" --quiet-minutes {}", arguments.quiet_minutes.as_secs() / 60),
            _ => String::new(),
        };
        format!(
            "cargo run --release -p holdfast-chaos -- --fault {} --rounds {} --seed {}{loopback}{length}",
            self.fault.name(),
            self.rounds(arguments),
            self.seed
        )
    }

    /// Full load is put on once.
    fn rounds(&self, arguments: &RunArgs) -> u32 {
        if self.fault == Fault::Quiet { 1 } else { arguments.rounds.unwrap_or(ROUNDS) }
    }
}

/// Makes a row. What breaks off a row is part of it: it fails, and the next one is made.
pub(crate) async fn make_row(
    task: Task,
    network: &Network,
    arguments: &RunArgs,
    work: &Path,
) -> Result<Row, ChaosError> {
    let folder = make_folder(work, &format!("{}.{}", task.fault.name(), network.name()))?;
    let mut row = match strike(task, network, arguments, &folder).await {
        Ok(row) => row,
        Err(error) => broken_off(task, &error),
    };
    row.fault = task.fault.name();
    row.setting = network.name();
    row.seed = task.seed;
    if row.broken.is_empty() && !arguments.keep {
        let removed = fs::remove_dir_all(&folder);
        removed.map_err(ChaosError::io(format!("removing {}", folder.display())))?;
    } else {
        eprintln!("  logs and history: {}", folder.display());
        eprintln!("  again: {}", task.replay(arguments));
    }
    Ok(row)
}

/// The folder of a whole run: known by its name, also after a crash.
pub(crate) fn make_work_folder(arguments: &RunArgs) -> Result<PathBuf, ChaosError> {
    make_folder(&arguments.dir, &format!("{FOLDER_PREFIX}{}", std::process::id()))
}

/// A folder in it.
pub(crate) fn make_folder(parent: &Path, name: &str) -> Result<PathBuf, ChaosError> {
    let folder = parent.join(name);
    let made = fs::create_dir_all(&folder).and_then(|()| folder.canonicalize());
    made.map_err(ChaosError::io(format!("creating {}", folder.display())))
}

fn broken_off(task: Task, error: &ChaosError) -> Row {
    let broken = vec![format!("broke off: {}", chain(error))];
    eprintln!("  {}", broken[0]);
    Row { broken, ..Row::empty(task.fault.limits()) }
}

async fn strike(
    task: Task,
    network: &Network,
    arguments: &RunArgs,
    folder: &Path,
) -> Result<Row, ChaosError> {
    let fault = task.fault;
    let setting = Setting { network, binary: &arguments.binary, folder, homes: Homes::Folders };
    let mut stage = Stage::set(setting, fault.pace(), task.seed).await?;
    let lengths = Lengths { stop: arguments.stop_seconds, quiet: arguments.quiet_minutes };
    let rounds = task.rounds(arguments);
    let mut costs = Vec::new();
    let mut checks = Vec::new();
    let mut accounts = Vec::new();
    for round in 1..=rounds {
        stage.quiet_time().await;
        let struck = inject(fault, &mut stage, round, lengths).await?;
        let zone = struck.zone.map(|zone| format!(" zone {zone}")).unwrap_or_default();
        let cost = Cost::of(struck, &stage.load);
        eprintln!("{} {round}/{rounds}{zone}: {}", fault.name(), summary(&cost));
        let account = explain(&cost, &stage, &arguments.binary, fault.limits(), round).await?;
        accounts.extend(account.into_iter().map(|line| format!("{} {round}: {line}", fault.name())));
        checks.extend(cost.checks.iter().cloned());
        costs.push(cost);
    }
    checks.extend(fault.afterwards(&stage).await);
    let short = stage.close().await?;
    let verdict = judge_beside(folder.join(HISTORY)).await?;
    let mut row = Row::of(&costs, &stage.load, verdict, fault.limits());
    if !short.is_empty() {
        row.broken.push(format!("partitions not readable to their end: {short:?}"));
    }
    checks.push(stage.load.unchanged());
    row.accounts = accounts;
    row.judge(&checks);
    stage.cluster.end().await;
    Ok(row)
}

/// One injection, which ends by itself or is given up; the network is mended in both cases.
async fn inject(
    fault: Fault,
    stage: &mut Stage<'_>,
    round: u32,
    lengths: Lengths,
) -> Result<Struck, ChaosError> {
    let limit = INJECTION_LIMIT + lengths.of(fault);
    let struck = timeout(limit, fault.inject(stage, round, lengths)).await;
    let network = stage.network;
    network.mend().await?;
    struck.unwrap_or_else(|_| {
        let (what, seen) = (format!("the end of fault {}", fault.name()), "it goes on".to_owned());
        Err(ChaosError::Late { what, limit, seen })
    })
}

/// Judging takes seconds of processor: not on the threads of the runtime.
pub(crate) async fn judge_beside(history: PathBuf) -> Result<Verdict, ChaosError> {
    let judged = tokio::task::spawn_blocking(move || judge(&history)).await;
    judged.map_err(|error| ChaosError::client("judging the history", &error))?
}

fn summary(cost: &Cost) -> String {
    let moved = Spread::of(cost.moved.clone());
    let ms = |duration: Duration| duration.as_millis();
    let mut line = format!(
        "moved n={} p50={} max={} ms; elsewhere max={} ms; healing max={} ms",
        moved.len(),
        ms(moved.at(0.5)),
        ms(moved.max()),
        ms(cost.elsewhere),
        ms(cost.heal)
    );
    if !cost.late.is_zero() {
        line.push_str(&format!("; the runner itself was {} ms late", ms(cost.late)));
    }
    for check in cost.checks.iter().filter(|check| !check.holds) {
        line.push_str(&format!("; BROKEN {}: {}", check.name, check.seen));
    }
    line
}

/// Asks the controllers for their account of an injection that took longer than it may: where the time went.
async fn explain(
    cost: &Cost,
    stage: &Stage<'_>,
    binary: &Path,
    limits: Limits,
    round: u32,
) -> Result<Vec<String>, ChaosError> {
    let slow = limits.recovery_p99.is_some_and(|limit| cost.moved.iter().any(|gap| *gap >= limit))
        || limits.elsewhere_max.is_some_and(|limit| cost.elsewhere >= limit);
    if !slow {
        return Ok(Vec::new());
    }
    let file = stage.folder.join(format!("events-{round}.json"));
    let age = Micros::now().since(cost.window.from);
    let since = SystemTime::now() - age;
    let since_ms = since.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let since_ms = i64::try_from(since_ms).unwrap_or_default();
    let account = ledger::ask(binary, &stage.network.bootstrap(), since_ms, file).await?;
    let Some(account) = account else {
        eprintln!("  over the limit; the controllers give no account of it");
        return Ok(Vec::new());
    };
    eprintln!("  over the limit; the controllers' account: {}", account.file.display());
    account.lines.iter().for_each(|line| eprintln!("    {line}"));
    Ok(account.lines)
}
