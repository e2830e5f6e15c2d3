//! `holdfast-mutants`: leaves out the rules of the protocol one at a time, and prints which proof notices. Exit code 1 if
//! a mutant lives, or if something is noticed where nothing is broken.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use holdfast_core::mutants::{Mutant, plant};
use holdfast_sim::mutants::{Case, Hunt, Notice, RollCall, cases, hunt, quick_cases, roll_call};
use holdfast_sim::runner::run_seed;

/// Breaks the rules of the protocol one at a time, and looks for the proof that notices.
#[derive(Debug, Parser)]
#[command(name = "holdfast-mutants")]
struct Arguments {
    /// Seconds that seeds are run in each case, and models searched.
    #[arg(long, default_value_t = 6)]
    budget: u64,
    /// Cases at once.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// A few mutants, and directed schedules alone.
    #[arg(long)]
    quick: bool,
    /// Only these mutants, by name, each alone.
    #[arg(long, value_delimiter = ',', value_parser = mutant_named)]
    only: Vec<Mutant>,
    /// Plant these mutants in this very process, joined by '+', and say who notices.
    #[arg(long)]
    hunt: Option<String>,
    /// This seed alone, with everything that happens; with --hunt only.
    #[arg(long, requires = "hunt")]
    seed: Option<u64>,
    /// The ids of broken invariants alone; with --hunt only.
    #[arg(long, requires = "hunt")]
    terse: bool,
    /// Print the mutants and what each leaves out.
    #[arg(long)]
    list: bool,
}

fn mutant_named(name: &str) -> Result<Mutant, String> {
    let known = Mutant::ALL.iter().copied().find(|mutant| format!("{mutant:?}") == name);
    known.ok_or_else(|| format!("there is no mutant {name:?}; --list names them"))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        for mutant in Mutant::ALL {
            println!("{:<8} {:<26} {}", mutant.rule(), format!("{mutant:?}"), mutant.description());
        }
        return ExitCode::SUCCESS;
    }
    let how = Hunt { budget: Duration::from_secs(arguments.budget), schedules_only: arguments.quick };
    match &arguments.hunt {
        Some(names) => hunt_here(names, arguments.seed, arguments.terse, how),
        None => call_the_roll(arguments, how),
    }
}

fn hunt_here(names: &str, seed: Option<u64>, terse: bool, how: Hunt) -> ExitCode {
    let sound = Case::sound().name();
    let names = names.split('+').filter(|&name| name != sound);
    let mutants: Result<Vec<Mutant>, String> = names.map(mutant_named).collect();
    match mutants {
        Ok(mutants) => plant(mutants),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    }
    // A panic of the code under test is how a schedule notices; it is told below.
    std::panic::set_hook(Box::new(|_| {}));
    if let Some(seed) = seed {
        println!("{:?}", run_seed(seed, true));
        return ExitCode::SUCCESS;
    }
    let notices = hunt(how);
    for Notice { by, broken } in &notices {
        println!("caught {by} ({})", in_a_line(broken, terse));
    }
    if notices.is_empty() {
        println!("silent");
    }
    ExitCode::SUCCESS
}

/// In a table the invariant's id is enough; where there is none, what was expected.
fn in_a_line(broken: &str, terse: bool) -> String {
    let words: Vec<&str> = broken.split_whitespace().collect();
    let is_id = |word: &&&str| word.split_once('-').is_some_and(|(_, number)| number.parse::<u8>().is_ok());
    match words.first().filter(is_id) {
        Some(id) if terse => (*id).to_owned(),
        _ => words.join(" ").chars().take(if terse { 60 } else { 400 }).collect(),
    }
}

fn call_the_roll(arguments: Arguments, how: Hunt) -> ExitCode {
    let mut cases = if arguments.quick { quick_cases() } else { cases() };
    if !arguments.only.is_empty() {
        cases.retain(|case| matches!(&case.mutants[..], [mutant] if arguments.only.contains(mutant)));
    }
    let (count, begun) = (cases.len(), Instant::now());
    let wrong = roll_call(RollCall { cases, hunt: how, threads: arguments.threads });
    let seconds = begun.elapsed().as_secs_f64();
    println!("{count} cases, {} as expected, {seconds:.0} s", count - wrong.len());
    if !wrong.is_empty() {
        println!("not as expected: {}", wrong.join(", "));
    }
    // No case at all must not look like success.
    if wrong.is_empty() && count > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
