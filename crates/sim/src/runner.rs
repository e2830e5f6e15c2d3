//! Runs seeds, on several threads, and says which failed and how to see it again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::world::{Outcome, World};

/// A seed that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub seed: u64,
    /// The invariant's id and what happened.
    pub reason: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cargo run --release -p holdfast-sim -- --seed {}   # {}", self.seed, self.reason)
    }
}

/// Runs one seed; a panic of the code under test is a failure like any other.
pub fn run_seed(seed: u64, trace: bool) -> Result<Outcome, Failure> {
    let run = || {
        let world = World::of_seed(seed);
        let mut world = if trace { world.with_trace() } else { world };
        world.run()
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(outcome) => outcome.map_err(|violation| Failure { seed, reason: violation.to_string() }),
        Err(panic) => Err(Failure { seed, reason: panic_text(&*panic) }),
    }
}

/// Runs one seed twice and expects the same history.
pub fn run_seed_twice(seed: u64) -> Result<Outcome, Failure> {
    let (first, second) = (run_seed(seed, false)?, run_seed(seed, false)?);
    if first == second {
        return Ok(first);
    }
    let reason = format!("two runs differ: digests {:016x} and {:016x}", first.digest, second.digest);
    Err(Failure { seed, reason })
}

pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panic");
    text.chars().take(300).collect()
}

/// Which seeds to run, and how.
#[derive(Debug, Clone, Copy)]
pub struct Batch {
    /// The first seed.
    pub from: u64,
    /// How many.
    pub count: u64,
    /// Threads.
    pub threads: usize,
    /// Whether each is run twice and the two histories are compared.
    pub twice: bool,
    /// Whether to stop at the first failure.
    pub until_failure: bool,
}

/// Runs seeds on several threads. Gives the results in order of the seeds.
pub fn run_seeds(batch: Batch) -> Vec<(u64, Result<Outcome, Failure>)> {
    let Batch { from, count, threads, twice, until_failure } = batch;
    let next = AtomicU64::new(from);
    let work = || {
        let mut results = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from + count {
                return results;
            }
            let result = if twice { run_seed_twice(seed) } else { run_seed(seed, false) };
            if until_failure && result.is_err() {
                next.store(from + count, Ordering::Relaxed);
            }
            results.push((seed, result));
        }
    };
    let mut results: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    });
    results.sort_by_key(|&(seed, _)| seed);
    results
}
