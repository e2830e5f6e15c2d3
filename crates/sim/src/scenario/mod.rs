//! Schedules written down by hand: the counterexamples of docs/protocol.md §7, run against the real code.
//!
//! Random seeds find the short ones; these are the long ones, which chance would need years for. Each is the schedule
//! that broke the protocol with the named rule left out; with the rule in place the oracle must stay silent, and the
//! end must be as the test says. They are tests, and with the feature `mutants` a proof that has to notice broken rules.

// A schedule that does not go as written is a failure, and a panic says where.
#![allow(clippy::unwrap_used)]

mod change;
mod compaction;
mod following;
mod register;
mod restart;
mod stage;
mod storage;
mod takeover;
mod trimming;
mod unclean;

/// A name, and what panics if a promise is broken.
pub(crate) type Schedule = (&'static str, fn());

/// Names all schedules of a file, so that none is left out where they are called by hand.
macro_rules! schedules {
    ($($name:ident,)+) => {
        #[cfg_attr(test, allow(dead_code, reason = "tests are found by their attribute"))]
        pub(super) const ALL: &[super::Schedule] = &[$((stringify!($name), $name),)+];
    };
}
use schedules;

/// Every schedule.
#[cfg(feature = "mutants")]
pub(crate) fn all() -> impl Iterator<Item = Schedule> {
    let first = [takeover::ALL, restart::ALL, following::ALL, change::ALL, register::ALL, storage::ALL];
    first.into_iter().chain([unclean::ALL, trimming::ALL, compaction::ALL]).flatten().copied()
}
