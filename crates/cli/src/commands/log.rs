//! `holdfast log`: the data folder of a broker that does not run. Reads, never writes; memory for one batch at a time.

mod dump;
mod problem;
mod stats;
mod text;
mod verify;

use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;

use holdfast_broker::DataDirError;
use holdfast_broker::inspect::{LogFolder, StoppedBroker};
use holdfast_log::LogError;

use crate::args::{Global, LogCommand};
use crate::config::chain;
use crate::exit::{self, CliError};
use crate::output::write_failed;

pub(crate) fn run(global: &Global, command: &LogCommand) -> Result<ExitCode, CliError> {
    match command {
        LogCommand::Stats(args) => stats::run(global, &Folder::open(&args.dir)?),
        LogCommand::Verify(args) => verify::run(global, &Folder::open(&args.dir)?),
        LogCommand::Dump(args) => dump::run(global, &Folder::open(&args.dir)?, args),
    }
}

/// What a command looks at: all logs of a broker, or one of them.
struct Folder {
    broker: StoppedBroker,
    logs: Vec<LogFolder>,
    /// Whether a single log was asked for by its folder.
    single: bool,
}

impl Folder {
    fn open(dir: &Path) -> Result<Folder, CliError> {
        let what = || format!("looking into {}", dir.display());
        let next = "name a broker's data folder, or the folder of one partition in it";
        let path = dir
            .canonicalize()
            .map_err(|error| CliError::new(exit::CANNOT_CREATE, what(), error.to_string(), next))?;
        // <data-dir>/partitions/<partition>
        let above = path.parent().and_then(Path::parent);
        let above =
            above.filter(|above| !path.join("broker.json").exists() && above.join("broker.json").exists());
        let refused = |error: DataDirError| refused(what(), &error);
        let broker = StoppedBroker::open(above.unwrap_or(&path)).map_err(refused)?;
        let mut logs = broker.logs().map_err(refused)?;
        if above.is_some() {
            logs.retain(|log| log.path == path);
        }
        if above.is_some() && logs.is_empty() {
            return Err(CliError::new(exit::DATA, what(), "it is not a partition's folder", next));
        }
        Ok(Folder { broker, logs, single: above.is_some() })
    }

    /// How people know the log.
    fn name(&self, log: &LogFolder) -> String {
        match (self.broker.topic_name(log.partition), log.quarantine) {
            (Some(topic), None) => format!("{topic}/{}", log.partition.index),
            (Some(topic), Some(number)) => format!("{topic}/{} (put aside, {number})", log.partition.index),
            (None, _) => log.to_string(),
        }
    }
}

fn refused(what: String, error: &DataDirError) -> CliError {
    let (exit, next) = match error {
        DataDirError::InUse { .. } => {
            (exit::CANNOT_CREATE, "stop the broker, or look at a copy of the folder")
        }
        DataDirError::Io { .. } => (exit::CANNOT_CREATE, "name a folder that can be read"),
        _ => (exit::DATA, "name a broker's data folder, or the folder of one partition in it"),
    };
    CliError::new(exit, what, chain(error), next)
}

/// Why a walk through a log ended before its end.
#[derive(Debug)]
enum Stopped {
    Log(LogError),
    Write(io::Error),
}

impl From<LogError> for Stopped {
    fn from(error: LogError) -> Stopped {
        Stopped::Log(error)
    }
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Stopped {
        Stopped::Write(error)
    }
}

/// Every step of a walk either fails or says whether it goes on.
type Told = Result<ControlFlow<()>, Stopped>;

/// How a command ends that wrote line by line.
fn ended(outcome: io::Result<bool>) -> Result<ExitCode, CliError> {
    match outcome {
        Ok(true) => Ok(ExitCode::from(exit::OK)),
        Ok(false) => Ok(ExitCode::from(exit::WARNING)),
        // Whoever read us has what it wanted.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(write_failed(&error)),
    }
}
