//! What can go wrong with a journal.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use crate::fs::is_full;

/// An operation on a journal failed.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system failed.
    #[error("{doing} {path:?}")]
    Io {
        /// What was being done, in words.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is no room for it. An append or a rewrite that says so has changed nothing, and may be tried again, unless the
    /// journal is [poisoned](Self::Poisoned) by now.
    #[error("{doing} {path:?}: the file system is full")]
    Full {
        /// What was being done, in words.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A frame that had been flushed is damaged. Nothing on disk was changed.
    #[error("journal {path:?} is damaged at byte {position}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where the damaged frame starts, in bytes.
        position: u64,
    },
    /// The file does not start as a journal does.
    #[error("{path:?} is not a journal")]
    NotAJournal {
        /// The file.
        path: PathBuf,
    },
    /// Written by another version of this program.
    #[error("journal {path:?} has format version {found}, this program reads version {supported}")]
    UnsupportedVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version that can be read.
        supported: u32,
    },
    /// A payload that is empty or above the limit. Nothing was written.
    #[error("journal frame of {len} bytes, must be 1 to {limit}")]
    FrameLength {
        /// Its length in bytes.
        len: usize,
        /// The largest length, inclusive.
        limit: usize,
    },
    /// Whoever read the frames back refused one.
    #[error("reading frame at byte {position} of journal {path:?}")]
    Visit {
        /// The file.
        path: PathBuf,
        /// Where the frame starts, in bytes.
        position: u64,
        /// Why it was refused.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// An earlier write or flush failed. Only opening the journal again tells what it holds.
    #[error("journal is poisoned by an earlier failed write or flush")]
    Poisoned,
}

impl JournalError {
    /// For `map_err`: names what was being done to `path`.
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
        let path = path.to_owned();
        move |source| {
            if is_full(&source) {
                JournalError::Full { doing, path, source }
            } else {
                JournalError::Io { doing, path, source }
            }
        }
    }

    /// Whether there is no room for what was to be done.
    pub fn is_full(&self) -> bool {
        matches!(self, JournalError::Full { .. })
    }
}
