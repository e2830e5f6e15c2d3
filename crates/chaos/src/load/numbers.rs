//! Numbers that are given out once in a run: of processes, operations and values.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters shared by everything that writes history.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    process: AtomicU64,
    op: AtomicU64,
    value: AtomicU64,
}

/// Room for the values and the processes of one probe in another namespace.
const RESERVED: u64 = 1 << 32;

impl Numbers {
    /// Begins after what another program reserved for this one.
    pub(crate) fn after(process: u64, value: u64) -> Numbers {
        Numbers { process: process.into(), op: AtomicU64::default(), value: value.into() }
    }

    /// A process that never was.
    pub(crate) fn process(&self) -> u64 {
        self.process.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The next operation.
    pub(crate) fn op(&self) -> u64 {
        self.op.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A value that no record has.
    pub(crate) fn value(&self) -> u64 {
        self.value.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Processes and values for another program, which counts on from these.
    pub(crate) fn reserve(&self) -> (u64, u64) {
        (
            self.process.fetch_add(RESERVED, Ordering::Relaxed),
            self.value.fetch_add(RESERVED, Ordering::Relaxed),
        )
    }
}
