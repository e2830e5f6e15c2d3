//! What is written down while load runs: the history that the checker judges, and the times of acknowledgements that
//! recovery times come from.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::Micros;

/// A record that was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    /// The sending process.
    pub(crate) process: u64,
    /// The operation.
    pub(crate) op: u64,
    /// Its partition.
    pub(crate) partition: u32,
    /// The number it carries.
    pub(crate) value: u64,
}

/// What became of it.
#[derive(Debug, Clone)]
pub(crate) enum SendOutcome {
    /// Acknowledged.
    Acked {
        /// Its offset.
        base_offset: u64,
        /// Leader epoch, as on the wire.
        epoch: i32,
    },
    /// Certainly not stored: code and reason.
    Failed(String),
    /// May be stored: code and reason.
    Unknown(String),
}

/// When the records of each partition were acknowledged, in order.
#[derive(Debug)]
pub(crate) struct Acks {
    partitions: Vec<Mutex<Vec<Micros>>>,
}

impl Acks {
    /// For so many partitions.
    pub(crate) fn new(partitions: u32) -> Acks {
        Acks { partitions: (0..partitions).map(|_| Mutex::default()).collect() }
    }

    /// An acknowledgement.
    pub(crate) fn note(&self, partition: u32, at: Micros) {
        if let Some(times) = self.partitions.get(partition as usize) {
            lock(times).push(at);
        }
    }

    /// The times of one partition.
    pub(crate) fn of(&self, partition: u32) -> Vec<Micros> {
        self.partitions.get(partition as usize).map(|times| lock(times).clone()).unwrap_or_default()
    }

    /// The first acknowledgement of a partition at or after a moment.
    pub(crate) fn first_since(&self, partition: u32, moment: Micros) -> Option<Micros> {
        let times = lock(self.partitions.get(partition as usize)?);
        times.get(times.partition_point(|at| *at < moment)).copied()
    }

    /// Acknowledgements in all.
    pub(crate) fn count(&self) -> u64 {
        self.partitions.iter().map(|times| lock(times).len() as u64).sum()
    }
}

/// Lists are whole after every line, so a panic elsewhere spoils nothing.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
