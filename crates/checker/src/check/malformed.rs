//! Histories that cannot be judged.

use std::sync::Arc;

use crate::history::Key;

/// A history that contradicts itself, so that nothing can be said of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Something ends that never began.
    #[error("line {line}: operation {op} of process {process} ends, and never began")]
    NeverBegan {
        /// Where.
        line: u64,
        /// Whose.
        process: u64,
        /// Which.
        op: u64,
    },
    /// Something begins that is under way.
    #[error("line {line}: operation {op} of process {process} begins again before it ended")]
    BeganTwice {
        /// Where.
        line: u64,
        /// Whose.
        process: u64,
        /// Which.
        op: u64,
    },
    /// The end does not fit the beginning.
    #[error(
        "line {line}: operation {op} of process {process} ends with another key, or with other values, than it began with"
    )]
    Changed {
        /// Where.
        line: u64,
        /// Whose.
        process: u64,
        /// Which.
        op: u64,
    },
    /// A value is not unique.
    #[error("line {line}: value {value} was sent to {key} before; values must be unique for their key")]
    ValueReused {
        /// Where.
        line: u64,
        /// In which partition.
        key: Key,
        /// Which.
        value: u64,
    },
    /// No log is that long.
    #[error("line {line}: offset {offset} is too large")]
    OffsetTooLarge {
        /// Where.
        line: u64,
        /// Which.
        offset: u64,
    },
    /// A fault ends that never began.
    #[error("line {line}: fault {name:?} ends, and never began")]
    FaultNeverBegan {
        /// Where.
        line: u64,
        /// Which.
        name: Arc<str>,
    },
}
