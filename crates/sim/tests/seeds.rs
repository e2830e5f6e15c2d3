//! A few hundred seeds with every build; `holdfast-sim` runs as many as one likes.

use holdfast_sim::coverage::{Coverage, Sight};
use holdfast_sim::runner::{Batch, run_seed_twice, run_seeds};

/// Every invariant holds in every step of a few hundred runs, everything is written everywhere when the faults are over,
/// and the runs come across what the rules are for: a simulation in which nothing happens proves nothing.
#[test]
fn seeds_hold_every_invariant_settle_and_reach_what_the_rules_are_for() {
    let batch = Batch { from: 1, count: 300, threads: 2, twice: false, until_failure: false };
    let (mut coverage, mut failures) = (Coverage::default(), Vec::new());
    for (_, result) in run_seeds(batch) {
        match result {
            Ok(outcome) => coverage.add(&outcome.coverage),
            Err(failure) => failures.push(failure.to_string()),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(coverage.missing(), Vec::<Sight>::new(), "never seen in 300 seeds:\n{coverage}");
}

/// One seed is one history, byte for byte.
#[test]
fn a_seed_is_one_history() {
    for seed in 1..=10 {
        run_seed_twice(seed).unwrap_or_else(|failure| panic!("{failure}"));
    }
}
