//! A few hundred seeds with every build; `holdfast-sim` runs as many as one likes.

use holdfast_sim::runner::{Batch, run_seed_twice, run_seeds};

#[test]
fn seeds_hold_every_invariant_and_settle() {
    let batch = Batch { from: 1, count: 300, threads: 2, twice: false, until_failure: false };
    let failures: Vec<String> = run_seeds(batch)
        .into_iter()
        .filter_map(|(_, result)| result.err())
        .map(|failure| failure.to_string())
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_seed_is_one_history() {
    for seed in 1..=10 {
        run_seed_twice(seed).unwrap_or_else(|failure| panic!("{failure}"));
    }
}
