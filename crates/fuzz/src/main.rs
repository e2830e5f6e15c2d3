//! `holdfast-fuzz`: damaged bytes for every decoder, for a while, or one input again.
//!
//! Each target runs in a process of its own: an allocation that fails, a stack that overflows or a loop without end takes
//! that process along, and is tracked down to its input by running the last ones again, each announced.

mod worker;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use holdfast_fuzz::judge;
use holdfast_fuzz::target::Target;
use worker::Worker;

/// Feeds damaged bytes to everything that reads what came from a disk or a network.
#[derive(Debug, Parser)]
struct Arguments {
    /// How long, over all targets.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    seconds: u64,
    /// Only this target; may be said several times.
    #[arg(long, value_name = "NAME")]
    target: Vec<String>,
    /// Where seeds begin. The first ones are the corpus as it is.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// The one input of this seed, with all that is to be said about it.
    #[arg(long, requires = "target", conflicts_with = "from")]
    seed: Option<u64>,
    /// Write the files of that input into this folder.
    #[arg(long, requires = "seed", value_name = "DIR")]
    write: Option<PathBuf>,
    /// List the targets.
    #[arg(long)]
    list: bool,
    /// Run seeds in this process until told to stop; for the process that has started it.
    #[arg(long, hide = true, value_name = "COUNT")]
    work: Option<u64>,
    /// Announce every one of them.
    #[arg(long, hide = true)]
    trace: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> std::io::Result<ExitCode> {
    let mut targets = Target::all();
    if let Some(unknown) =
        arguments.target.iter().find(|name| targets.iter().all(|target| target.name != **name))
    {
        let names: Vec<&str> = targets.iter().map(|target| target.name).collect();
        return Err(std::io::Error::other(format!("no target {unknown:?}; there are {}", names.join(", "))));
    }
    targets.retain(|target| {
        arguments.target.is_empty() || arguments.target.iter().any(|name| name == target.name)
    });
    if arguments.list {
        targets.iter().for_each(|target| println!("{:16} {}", target.name, target.about));
        return Ok(ExitCode::SUCCESS);
    }
    match (arguments.seed, arguments.work, targets.first()) {
        (Some(seed), _, Some(target)) => replay(target, seed, arguments),
        (_, Some(count), Some(target)) => worker::work(target, arguments.from, count, arguments.trace),
        _ => search(&targets, arguments),
    }
}

/// One input, in this process.
fn replay(target: &Target, seed: u64, arguments: &Arguments) -> std::io::Result<ExitCode> {
    let corpus = target.corpus()?;
    let input = judge::input(target, &corpus, seed);
    for (name, bytes) in &input.files {
        println!("{name}: {} bytes", bytes.len());
    }
    if let Some(folder) = &arguments.write {
        input.write(folder)?;
    }
    Ok(match judge::try_seed(target, &corpus, seed) {
        Ok(accepted) => {
            println!("{}", if accepted { "accepted" } else { "refused" });
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    })
}

/// All targets one after the other, each for its share of the time.
fn search(targets: &[Target], arguments: &Arguments) -> std::io::Result<ExitCode> {
    let share = Duration::from_secs(arguments.seconds) / u32::try_from(targets.len()).unwrap_or(1).max(1);
    let mut failures = 0;
    for target in targets {
        let until = Instant::now() + share;
        let found = Worker::search(target.name, arguments.from, until)?;
        println!("{:16} {} inputs, {} accepted", target.name, found.inputs, found.accepted);
        if let Some(failure) = found.failure {
            println!("{failure}");
            failures += 1;
        }
    }
    println!(
        "{}",
        if failures == 0 { "no failure".to_owned() } else { format!("{failures} targets FAILED") }
    );
    Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
