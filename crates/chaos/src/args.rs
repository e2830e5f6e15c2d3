//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::faults::Fault;
use crate::storage::StorageFault;

/// What --help says at its end.
const HELP: &str = "\
An injection takes about 10 s (kill, kill-leader, rolling), 15 s (no-controllers), 20 s (black-hole, one-way, two-zones), \
25 s (stop, bridge). `--table --rounds 20`, which is `make chaos-failover`, takes about 50 minutes; `--storage`, which is \
`make chaos-storage`, about 10.\n\
Exit codes: 0 all passed, 1 a promise was broken, 2 the run could not be made, 64 usage.";

/// Breaks a cluster of six real processes again and again, measures what clients see, and judges their history.
#[derive(Debug, Parser)]
#[command(name = "holdfast-chaos", version, after_help = HELP, args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) run: RunArgs,
    #[command(subcommand)]
    pub(crate) inside: Option<Inside>,
}

/// A run.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Faults, one row each.
    #[arg(long, value_delimiter = ',', required_unless_present_any = ["table", "storage"])]
    pub(crate) fault: Vec<Fault>,
    /// All rows of docs/reliability.md: in namespaces, and the first two on 127.0.0.1 too.
    #[arg(long, conflicts_with_all = ["fault", "loopback"])]
    pub(crate) table: bool,
    /// Faults of disks and of the power, one row each; without names all of them. Mounts file systems: needs root.
    #[arg(long, value_delimiter = ',', num_args = 0.., conflicts_with_all = ["fault", "table"])]
    pub(crate) storage: Option<Vec<StorageFault>>,
    /// With --storage: does what no protocol survives beside the fault, to see that it is noticed (docs/testing.md). A
    /// run that passes with it has judged nothing.
    #[arg(long, requires = "storage", conflicts_with_all = ["fault", "table"])]
    pub(crate) spoil: bool,
    /// Injections a row. Without it: 20, with --storage 3.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: Option<u32>,
    /// Decides what is struck and when; printed, so that a failure can be run again. Without it: by the clock.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Six processes on 127.0.0.1, without namespaces and without faults of the network.
    #[arg(long)]
    pub(crate) loopback: bool,
    /// With --loopback: added to the ports 7070 to 7272.
    #[arg(long, default_value_t = 6000, value_parser = clap::value_parser!(u16).range(0..58_000))]
    pub(crate) port_shift: u16,
    /// How long fault stop stops a zone: whole seconds.
    #[arg(long, default_value = "15", value_parser = seconds)]
    pub(crate) stop_seconds: Duration,
    /// How long fault quiet puts full load on the machine: whole minutes.
    #[arg(long, default_value = "60", value_parser = minutes)]
    pub(crate) quiet_minutes: Duration,
    /// The binary under test.
    #[arg(long, env = "HOLDFAST_BIN", default_value = "target/release/holdfast")]
    pub(crate) binary: PathBuf,
    /// Where folders of runs are made; that of a failed row stays.
    #[arg(long, default_value = "run")]
    pub(crate) dir: PathBuf,
    /// Keeps the folders of rows that passed, too.
    #[arg(long)]
    pub(crate) keep: bool,
    /// How the table is printed.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
    /// A Markdown file whose table of failovers, or of storage faults, is replaced by this run's; made where it is not
    /// there.
    #[arg(long)]
    pub(crate) report: Option<PathBuf>,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table.
    Text,
    /// One JSON object.
    Json,
}

/// What this program runs of itself inside a zone.
#[derive(Debug, Subcommand)]
pub(crate) enum Inside {
    /// Sends probes and prints their history.
    #[command(hide = true)]
    Probe(ProbeArgs),
    /// Whether an address answers: exit code 0 or 1.
    #[command(hide = true)]
    Reach {
        /// host:port.
        endpoint: String,
    },
}

/// A probe inside a zone.
#[derive(Debug, Args)]
pub(crate) struct ProbeArgs {
    /// Brokers to begin with.
    #[arg(long, value_delimiter = ',', required = true)]
    pub(crate) bootstrap: Vec<String>,
    /// The topic.
    #[arg(long)]
    pub(crate) topic: String,
    /// The zone that it is in.
    #[arg(long)]
    pub(crate) zone: String,
    /// Processes up to this number are others.
    #[arg(long)]
    pub(crate) after_process: u64,
    /// Values up to this number are others'.
    #[arg(long)]
    pub(crate) after_value: u64,
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse().map(Duration::from_secs).map_err(|error| format!("{error}"))
}

fn minutes(text: &str) -> Result<Duration, String> {
    let minutes = text.parse::<u64>().map_err(|error| format!("{error}"))?;
    Ok(Duration::from_secs(minutes.saturating_mul(60)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines that the Makefile and the documents use are understood, and what contradicts itself is not.
    #[test]
    fn command_lines() {
        let parse = |line: &str| Arguments::try_parse_from(line.split_whitespace());
        for line in [
            "holdfast-chaos --table --rounds 20 --report docs/reliability.md",
            "holdfast-chaos --fault kill,kill-leader --loopback --rounds 3 --seed 7",
            "holdfast-chaos --fault stop --stop-seconds 60",
            "holdfast-chaos --fault quiet --quiet-minutes 60",
            "holdfast-chaos --storage --report docs/reliability.md",
            "holdfast-chaos --storage power-zone,bit-flips --rounds 1 --seed 7 --loopback --spoil",
            "holdfast-chaos reach 10.77.0.1:9",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).err());
        }
        for line in [
            "holdfast-chaos",
            "holdfast-chaos --table --loopback",
            "holdfast-chaos --fault kill --rounds 0",
            "holdfast-chaos --storage --table",
            "holdfast-chaos --storage kill",
            "holdfast-chaos --fault kill --spoil",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
