//! `holdfast-sim`: runs seeds of the simulation, or with `--model` every schedule of a few small clusters. Exit code 1
//! if any fails.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use holdfast_sim::coverage::Coverage;
use holdfast_sim::model;
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
    /// Search every schedule of a few small clusters instead, on one thread.
    #[arg(long, conflicts_with_all = ["seed", "twice", "trace"])]
    model: bool,
    /// Only the small cluster of this name; with --model only.
    #[arg(long, requires = "model")]
    only: Option<String>,
    /// Search up to so many states in each, instead of what suits a minute; with --model only.
    #[arg(long, requires = "model")]
    states: Option<usize>,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // A panic of the code under test is caught and printed as the failure of its seed.
    std::panic::set_hook(Box::new(|_| {}));
    if arguments.model {
        return search_all(arguments.only.as_deref(), arguments.states);
    }
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

fn search_all(only: Option<&str>, states: Option<usize>) -> ExitCode {
    let (mut passed, mut failed) = (0, 0);
    for mut bounds in model::configurations() {
        if only.is_some_and(|name| name != bounds.name) {
            continue;
        }
        bounds.states = states.unwrap_or(bounds.states);
        let begun = Instant::now();
        let report = model::search(&bounds);
        println!("{}: {report}; {:.1} s", bounds.name, begun.elapsed().as_secs_f64());
        match report.counterexample {
            Some(counterexample) => {
                failed += 1;
                println!("{counterexample}");
            }
            None => passed += 1,
        }
    }
    println!("{passed} passed, {failed} failed");
    // A name that fits nothing must not look like success.
    if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn report(results: &[(u64, Result<Outcome, Failure>)]) -> ExitCode {
    for failure in results.iter().filter_map(|(_, result)| result.as_ref().err()) {
        println!("{failure}");
    }
    let outcomes: Vec<&Outcome> = results.iter().filter_map(|(_, result)| result.as_ref().ok()).collect();
    if let Some(slowest) = outcomes.iter().map(|outcome| outcome.settled_after).max() {
        let mut coverage = Coverage::default();
        outcomes.iter().for_each(|outcome| coverage.add(&outcome.coverage));
        println!("came across, how often:\n{coverage}");
        println!(
            "whole again after the faults: {:.1} s of virtual time at the latest",
            slowest.as_secs_f64()
        );
    }
    let failed = results.iter().filter(|(_, result)| result.is_err()).count();
    println!("{} passed, {failed} failed", results.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
