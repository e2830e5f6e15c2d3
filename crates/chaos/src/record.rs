//! What is written down while load runs: the history that the checker judges, and the times of acknowledgements that
//! recovery times come from.

use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_core::{LeaderEpoch, Term};

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

/// An acknowledgement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ack {
    /// When it came.
    pub(crate) at: Micros,
    /// Of the leader that gave it, as on the wire.
    pub(crate) epoch: i32,
}

/// When the records of each partition were acknowledged, in order.
#[derive(Debug)]
pub(crate) struct Acks {
    partitions: Vec<Mutex<Vec<Ack>>>,
}

impl Acks {
    /// For so many partitions.
    pub(crate) fn new(partitions: u32) -> Acks {
        Acks { partitions: (0..partitions).map(|_| Mutex::default()).collect() }
    }

    /// An acknowledgement.
    pub(crate) fn note(&self, partition: u32, ack: Ack) {
        if let Some(acks) = self.partitions.get(partition as usize) {
            lock(acks).push(ack);
        }
    }

    /// The times of one partition.
    pub(crate) fn of(&self, partition: u32) -> Vec<Micros> {
        let acks = self.partitions.get(partition as usize);
        acks.map(|acks| lock(acks).iter().map(|ack| ack.at).collect()).unwrap_or_default()
    }

    /// The first acknowledgement of a partition at or after a moment.
    pub(crate) fn first_since(&self, partition: u32, moment: Micros) -> Option<Micros> {
        let acks = lock(self.partitions.get(partition as usize)?);
        acks.get(acks.partition_point(|ack| ack.at < moment)).map(|ack| ack.at)
    }

    /// Acknowledgements of a partition at or after a moment that the leader of a term gave.
    pub(crate) fn of_term_since(&self, partition: u32, term: u32, moment: Micros) -> usize {
        let Some(acks) = self.partitions.get(partition as usize).map(lock) else { return 0 };
        let since = acks.iter().skip(acks.partition_point(|ack| ack.at < moment));
        since
            .filter(|ack| LeaderEpoch::from_wire(ack.epoch).is_some_and(|epoch| epoch.term == Term(term)))
            .count()
    }

    /// Acknowledgements of all partitions between two moments.
    pub(crate) fn between(&self, from: Micros, to: Micros) -> usize {
        let within = |acks: &Mutex<Vec<Ack>>| {
            let acks = lock(acks);
            acks.partition_point(|ack| ack.at < to).saturating_sub(acks.partition_point(|ack| ack.at < from))
        };
        self.partitions.iter().map(within).sum()
    }

    /// Acknowledgements in all.
    pub(crate) fn count(&self) -> u64 {
        self.partitions.iter().map(|acks| lock(acks).len() as u64).sum()
    }
}

/// Lists are whole after every line, so a panic elsewhere spoils nothing.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An acknowledgement counts for the leader that gave it, and only from the moment asked for.
    #[test]
    fn acknowledgements_by_term() {
        let acks = Acks::new(1);
        for (at, term) in [(10, 7), (20, 7), (30, 8), (40, 7)] {
            acks.note(0, Ack { at: Micros(at), epoch: LeaderEpoch::first(Term(term)).to_wire() });
        }
        assert_eq!(acks.of_term_since(0, 7, Micros(20)), 2);
        assert_eq!(acks.of_term_since(0, 8, Micros(31)), 0);
        assert_eq!(acks.of_term_since(1, 7, Micros(0)), 0);
        assert_eq!((acks.between(Micros(10), Micros(40)), acks.between(Micros(11), Micros(11))), (3, 0));
    }
}
