//! What can go wrong with a partition's log.

use std::io;
use std::path::{Path, PathBuf};

use holdfast_core::record_batch::BatchError;
use holdfast_core::{LeaderEpoch, Offset};

use crate::fs::is_full;

/// An operation on a partition's log failed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file system failed. After a failed write or flush the log is poisoned.
    #[error("{doing} {path:?}")]
    Io {
        /// What was being done, in words.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is no room for it. An append or a checkpoint that says so has changed nothing that counts: it may be tried again.
    #[error("{doing} {path:?}: the file system is full")]
    Full {
        /// What was being done, in words.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Data that was acknowledged or flushed is damaged or gone. Nothing on disk was changed.
    #[error("log is damaged at offset {offset} ({segment:?}, byte {position})")]
    Corrupt {
        /// First offset that cannot be read.
        offset: Offset,
        /// The file it should be in.
        segment: PathBuf,
        /// Where in that file, in bytes.
        position: u64,
        /// What is wrong there.
        #[source]
        source: Damage,
    },
    /// No such offset is in the log.
    #[error("offset {requested} is outside the log, which is {start} to {end}")]
    OutOfRange {
        /// The offset asked for.
        requested: Offset,
        /// Log start offset (inclusive).
        start: Offset,
        /// Log end offset (exclusive).
        end: Offset,
    },
    /// A batch that does not follow the log's end. Nothing was written.
    #[error("batch at offset {got} does not follow the log, which ends at {expected}")]
    NotContiguous {
        /// Offset the next batch has to have.
        expected: Offset,
        /// Offset it has.
        got: Offset,
    },
    /// A batch of an older epoch than the last one in the log. Nothing was written.
    #[error("batch at offset {offset} has epoch {got}, the log is at {last} already")]
    EpochDecreases {
        /// Base offset of the batch.
        offset: Offset,
        /// Epoch of the batch before it.
        last: LeaderEpoch,
        /// Its epoch.
        got: LeaderEpoch,
    },
    /// A batch without a leader epoch. Nothing was written.
    #[error("batch at offset {offset} has no leader epoch")]
    NotStamped {
        /// Base offset of the batch.
        offset: Offset,
    },
    /// An earlier write or flush failed. Only opening the log again tells what it holds.
    #[error("log is poisoned by an earlier failed write or flush")]
    Poisoned,
    /// The log was truncated again and again while it was read. Reading anew may succeed.
    #[error("log was truncated while offset {offset} was read")]
    TruncatedWhileReading {
        /// The offset asked for.
        offset: Offset,
    },
}

/// What is wrong with stored data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Not a whole record batch with a right checksum.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The batch found has another offset than the one expected.
    #[error("found a batch of offset {found} instead of {expected}")]
    Gap {
        /// Offset that should be there.
        expected: Offset,
        /// Offset that is there.
        found: Offset,
    },
    /// The epoch is missing or lower than that of the batch before.
    #[error("epoch {found:?} follows {last}")]
    Epoch {
        /// Epoch of the batch before.
        last: LeaderEpoch,
        /// Epoch found.
        found: Option<LeaderEpoch>,
    },
    /// The disk does not give it.
    #[error("cannot be read: {problem}")]
    Unreadable {
        /// What the system said.
        problem: String,
    },
    /// The note of where the log starts cannot be made out.
    #[error("the note of where the log starts is damaged")]
    LogStart,
    /// The note of what was compacted cannot be made out.
    #[error("the note of what was compacted is damaged")]
    Compaction,
    /// The log ends below the offset up to which it is known to have been flushed or acknowledged.
    #[error("the log ends here, but was trusted up to offset {trusted_end}")]
    Missing {
        /// That offset (exclusive).
        trusted_end: Offset,
    },
}

impl LogError {
    /// For `map_err`: names what was being done to `path`.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LogError {
        let path = path.to_owned();
        move |source| {
            if is_full(&source) {
                LogError::Full { doing, path, source }
            } else {
                LogError::Io { doing, path, source }
            }
        }
    }

    /// Whether there is no room for what was to be done.
    pub fn is_full(&self) -> bool {
        matches!(self, LogError::Full { .. })
    }
}
