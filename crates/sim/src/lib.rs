//! Deterministic simulation of Holdfast: the production state machines in a world of made-up time, network and disks.
//!
//! A seed fixes everything: cluster, load, faults and their order. `World::run` lets faults happen while the oracle
//! judges every step, then heals, and expects everything to be written everywhere. A failing seed is one line to paste:
//! `cargo run --release -p holdfast-sim -- --seed 8841`.
//!
//! Invariant: nothing here reads a clock, draws from another source than `random`, or iterates in hash order.

mod clients;
mod compaction;
mod controller;
pub mod coverage;
mod digest;
mod disk;
mod driver;
mod event_queue;
mod faults;
pub mod model;
#[cfg(feature = "mutants")]
pub mod mutants;
mod network;
mod node;
pub mod oracle;
pub mod plan;
mod process;
pub mod random;
pub mod runner;
#[cfg(any(test, feature = "mutants"))]
mod scenario;
mod witness;
mod workload;
pub mod world;
