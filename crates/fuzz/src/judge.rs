//! One input for one target, and what became of it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::time::{Duration, Instant};

use crate::MEMORY;
use crate::corpus::Input;
use crate::mutate::mutate;
use crate::random::Random;
use crate::target::Target;

/// A decoder that takes longer has no bound that matters. Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(10);

thread_local! {
    /// Whether a target runs on this thread.
    static JUDGING: Cell<bool> = const { Cell::new(false) };
    /// What its panic said, and where.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A decoder failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Failure {
    /// Which.
    pub target: &'static str,
    /// By which input.
    pub seed: u64,
    /// How.
    pub what: String,
}

impl fmt::Display for Failure {
    /// One line, which replays it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { target, seed, what } = self;
        write!(f, "FAILED {target}: {what}; replay: {}", replay(target, *seed))
    }
}

/// The command that gives the target that input again.
pub fn replay(target: &str, seed: u64) -> String {
    format!("cargo run -p holdfast-fuzz -- --target {target} --seed {seed}")
}

/// The input of a seed. 0 and what follows, as far as there are any, are the corpus itself.
pub fn input(target: &Target, corpus: &[(String, Input)], seed: u64) -> Input {
    let whole = usize::try_from(seed).ok().and_then(|number| corpus.get(number));
    if let Some((_, input)) = whole {
        return input.clone();
    }
    let mut random = Random::new(target.name, seed);
    let inputs: Vec<&Input> = corpus.iter().map(|(_, input)| input).collect();
    let empty = Input::default();
    let picked = random.pick(&inputs).copied().unwrap_or(&empty);
    let other = random.pick(&inputs).copied().unwrap_or(&empty);
    mutate(picked, other, &mut random)
}

/// Gives the target the input of a seed. Whether it was accepted.
///
/// # Errors
/// A [`Failure`] that replays.
pub fn try_seed(target: &Target, corpus: &[(String, Input)], seed: u64) -> Result<bool, Failure> {
    let failure = |what| Failure { target: target.name, seed, what };
    examine(target, &input(target, corpus, seed)).map_err(failure)
}

/// Gives the target an input. Whether it was accepted; otherwise how the target failed.
pub fn examine(target: &Target, input: &Input) -> Result<bool, String> {
    catch_messages();
    let allowed = target.memory.fixed + target.memory.per_byte * input.len();
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let started = Instant::now();
    JUDGING.set(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    JUDGING.set(false);
    let (took, used) = (started.elapsed(), MEMORY.peak_usage().saturating_sub(before));
    let Ok(accepted) = outcome else {
        let said = PANIC.with(RefCell::take).unwrap_or_default();
        return Err(format!("panicked: {said}"));
    };
    if used > allowed {
        return Err(format!("{used} bytes allocated for an input of {}, {allowed} are allowed", input.len()));
    }
    if took > PATIENCE {
        return Err(format!("took {took:.1?} for an input of {} bytes", input.len()));
    }
    Ok(accepted)
}

/// What a target's panic says is kept for the line that reports it. Other panics are none of our business.
fn catch_messages() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !JUDGING.get() {
                return before(info);
            }
            let message = info.payload_as_str().unwrap_or("(no message)").replace('\n', " ");
            let place = info.location().map_or_else(String::new, |at| format!(" at {at}"));
            PANIC.with(|last| *last.borrow_mut() = Some(format!("{message}{place}")));
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Memory;

    fn target(run: fn(&Input) -> bool) -> Target {
        let memory = Memory { fixed: 1 << 20, per_byte: 0 };
        Target { name: "test", about: "", memory, written: || vec![Input::of("x", *b"valid")], run }
    }

    /// What the fuzzer is for, it notices.
    #[test]
    fn panics_and_greed_are_failures_with_a_line_that_replays() {
        let corpus = [("one".to_owned(), Input::of("x", *b"valid"))];
        let greedy = target(|input| Vec::<u8>::with_capacity(4 << 20).is_empty() && !input.is_empty());
        let failure = try_seed(&greedy, &corpus, 0).unwrap_err();
        assert!(failure.what.contains("bytes allocated"), "{failure}");
        let careless = target(|input| input.bytes()[1000] == 0);
        let failure = try_seed(&careless, &corpus, 77).unwrap_err();
        assert!(failure.what.contains("out of bounds") && failure.what.contains("judge.rs"), "{failure}");
        assert!(failure.to_string().ends_with("-- --target test --seed 77"), "{failure}");
        assert!(!failure.to_string().contains('\n'));
        let good = target(|input| input.bytes() == b"valid");
        assert_eq!(try_seed(&good, &corpus, 0), Ok(true), "the first seeds are the corpus");
        assert_eq!(input(&good, &corpus, 9), input(&good, &corpus, 9));
    }
}
