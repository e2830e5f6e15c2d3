//! What was found, and what became of it, since the process started.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts, never reset.
#[derive(Debug, Default)]
pub(super) struct Stats {
    /// Damaged ranges of batches that were repaired.
    pub(super) repaired: Count,
    /// Bytes of batches that were written anew.
    pub(super) repaired_bytes: Count,
    /// Attempts that ended without a repair.
    pub(super) unrepaired: Count,
    /// Batches' bytes that were verified without anybody reading them.
    pub(super) scrubbed_bytes: Count,
    /// Rounds over all logs.
    pub(super) rounds: Count,
    /// Bytes given to other brokers for their repairs.
    pub(super) given_bytes: Count,
}

/// One of them.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
