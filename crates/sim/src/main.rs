//! `holdfast-sim`: runs seeds of the simulation. Exit code 1 if any fails.

use std::process::ExitCode;

use clap::Parser;
use holdfast_sim::runner::{Batch, Failure, run_seed, run_seed_twice, run_seeds};
use holdfast_sim::world::Outcome;

/// Simulates clusters with faults, one per seed, and checks what they promise.
#[derive(Debug, Parser)]
#[command(name = "holdfast-sim")]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Run this seed only.
    #[arg(long)]
    seed: Option<u64>,
    /// Run every seed twice and compare the two histories.
    #[arg(long)]
    twice: bool,
    /// Stop at the first failure.
    #[arg(long)]
    until_failure: bool,
    /// Print everything that happens; with --seed only.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // A panic of the code under test is caught and printed as the failure of its seed.
    std::panic::set_hook(Box::new(|_| {}));
    let results = match arguments.seed {
        Some(seed) => {
            let result = if arguments.twice { run_seed_twice(seed) } else { run_seed(seed, arguments.trace) };
            if let Ok(outcome) = &result {
                println!("{outcome:#?}");
            }
            vec![(seed, result)]
        }
        None => run_seeds(Batch {
            from: arguments.from,
            count: arguments.seeds,
            threads: arguments.threads,
            twice: arguments.twice,
            until_failure: arguments.until_failure,
        }),
    };
    report(&results)
}

fn report(results: &[(u64, Result<Outcome, Failure>)]) -> ExitCode {
    for failure in results.iter().filter_map(|(_, result)| result.as_ref().err()) {
        println!("{failure}");
    }
    let failed = results.iter().filter(|(_, result)| result.is_err()).count();
    println!("{} passed, {failed} failed", results.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
