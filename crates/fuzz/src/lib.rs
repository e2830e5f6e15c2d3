//! Damaged bytes for everything that reads what a disk or a network gave it.
//!
//! ```text
//!  corpus (files, or made by the writers) ──► mutate (bytes, or a part with its checksum mended) ──► target ──► judge
//!                                             a function of target and seed                         one decoder
//! ```
//! A decoder may refuse or accept. It fails if it panics, takes more memory than its input can ask for, takes too long,
//! or accepts what it would not write the same way again.
//!
//! Invariant: an input is a function of the corpus, the target and the seed, so one line replays a failure.

pub mod corpus;
pub mod judge;
mod mend;
mod mutate;
mod random;
pub mod target;
mod targets;

use peak_alloc::PeakAlloc;

/// Counts what a decoder allocates. Every program and test with this crate in it has it.
#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;
