//! A few hundred inputs for every target, and that the corpus is what it should be: valid.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Mutex, PoisonError};

use holdfast_fuzz::judge::{examine, try_seed};
use holdfast_fuzz::target::Target;

/// Seeds per target; `make fuzz` tries many more.
const SEEDS: u64 = 300;

/// Memory is counted for the whole process, so tests take turns.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn every_decoder_takes_a_few_hundred_damaged_inputs() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut failures = Vec::new();
    for target in Target::all() {
        let corpus = target.corpus().unwrap();
        let tried: Result<Vec<bool>, _> = (0..SEEDS).map(|seed| try_seed(&target, &corpus, seed)).collect();
        match tried {
            // Damage that is never accepted, or always, does not get anywhere.
            Ok(accepted) => {
                let count = accepted.iter().filter(|accepted| **accepted).count();
                assert!(count > 0, "{}: nothing was accepted", target.name);
                assert!(count < accepted.len(), "{}: everything was accepted", target.name);
            }
            Err(failure) => failures.push(failure.to_string()),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// What was committed can still be read: formats on disk outlive versions.
#[test]
fn the_corpus_is_accepted() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for target in Target::all() {
        let corpus = target.corpus().unwrap();
        assert!(!corpus.is_empty(), "{} has no corpus", target.name);
        // What once made a decoder fail is kept for that, and need not be valid.
        for (name, input) in corpus.iter().filter(|(name, _)| !name.starts_with("failed-")) {
            assert_eq!(examine(&target, input), Ok(true), "{} of {}", name, target.name);
        }
    }
}
