//! Schedules written down by hand: the counterexamples of docs/protocol.md §7, run against the real code.
//!
//! Random seeds find the short ones; these are the long ones, which chance would need years for. Each is the schedule
//! that broke the protocol with the named rule left out; with the rule in place the oracle must stay silent, and the
//! end must be as the test says.

mod restart;
mod stage;
mod takeover;
