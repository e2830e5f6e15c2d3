//! Vote and log: in memory for reading, in a journal for keeps.
//!
//! Invariants: entries are readable when `append` returns and acknowledged only after fdatasync (`writer`);
//!             vote, truncation and purge are durable when they return;
//!             entries have no gap, and begin right behind the purge mark.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use holdfast_log::{Fs, Journal, JournalError};
use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{ErrorSubject, ErrorVerb, OptionalSend, RaftLogReader};

use super::frame::{Encoded, Frame, Mirror};
use super::room::Room;
use super::types::{Entry, LogId, StorageError, TypeConfig, Vote};
use super::writer::{Done, Writer};

/// Entries handed out at once at most.
const READ_AT_ONCE: usize = 1024;

/// Why the log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LogStoreError {
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The system gives no thread for its writer.
    #[error("starting the log's writer thread")]
    Thread(#[source] io::Error),
}

/// The log of one controller. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct LogStore {
    state: Arc<Mutex<State>>,
    writer: Writer,
}

#[derive(Debug, Default)]
struct State {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    entries: BTreeMap<u64, Entry>,
}

impl State {
    fn last(&self) -> Option<LogId> {
        self.entries.values().next_back().map(|entry| entry.log_id).or(self.purged)
    }
}

impl LogStore {
    /// Opens the journal at `path`, or creates it. What finds no room waits in `room`; `hold` is let go when the last write
    /// is done.
    pub(crate) fn open(
        fs: Arc<dyn Fs>,
        path: &Path,
        room: Room,
        hold: impl Send + 'static,
    ) -> Result<Self, LogStoreError> {
        let mut mirror = Mirror::default();
        let journal = Journal::open(fs, path, &mut |bytes| Ok(mirror.replay(bytes)?))?;
        let state = State {
            vote: mirror.vote(),
            committed: mirror.committed(),
            purged: mirror.purged(),
            entries: mirror.entries(),
        };
        let writer = Writer::spawn(journal, mirror, room, hold).map_err(LogStoreError::Thread)?;
        Ok(LogStore { state: Arc::new(Mutex::new(state)), writer })
    }

    /// Up to where entries were purged.
    pub(crate) fn purged(&self) -> Option<LogId> {
        self.state().purged
    }

    /// Whether neither a vote nor an entry was ever stored.
    pub(crate) fn is_pristine(&self) -> bool {
        let state = self.state();
        state.vote.is_none() && state.last().is_none()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while it was held cannot leave it half changed: each change is one assignment or one map call.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn write(&self, frame: Frame) -> io::Result<()> {
        let encoded = Encoded::new(frame).map_err(io::Error::other)?;
        self.writer.write(vec![encoded]).await
    }
}

fn failed(subject: ErrorSubject<u64>) -> impl FnOnce(io::Error) -> StorageError {
    move |error| StorageError::from_io_error(subject, ErrorVerb::Write, error)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        if is_empty(&range) {
            return Ok(Vec::new());
        }
        Ok(self.state().entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        if start >= end {
            return Ok(Vec::new());
        }
        let state = self.state();
        Ok(state.entries.range(start..end).take(READ_AT_ONCE).map(|(_, entry)| entry.clone()).collect())
    }
}

/// `BTreeMap::range` panics on a range that ends before it begins.
fn is_empty(range: &impl RangeBounds<u64>) -> bool {
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    match range.end_bound() {
        Bound::Included(&end) => start > end,
        Bound::Excluded(&end) => start >= end,
        Bound::Unbounded => false,
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let state = self.state();
        Ok(LogState { last_purged_log_id: state.purged, last_log_id: state.last() })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        self.write(Frame::Vote(*vote)).await.map_err(failed(ErrorSubject::Vote))?;
        self.state().vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.state().vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        let encoded = Encoded::new(Frame::Committed(committed)).map_err(io::Error::other);
        let encoded = encoded.map_err(failed(ErrorSubject::Logs))?;
        self.writer.send(vec![encoded], Done::Lazy).await.map_err(failed(ErrorSubject::Logs))?;
        self.state().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        let state = self.state();
        // The mark is written lazily, and a checkpoint writes it behind the entries: never claim more than there is.
        Ok(state.committed.filter(|&committed| Some(committed) <= state.last()))
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let encoded: Result<Vec<Encoded>, _> =
            entries.iter().map(|entry| Encoded::new(Frame::Entry(entry.clone()))).collect();
        let encoded = encoded.map_err(io::Error::other).map_err(failed(ErrorSubject::Logs))?;
        self.state().entries.extend(entries.into_iter().map(|entry| (entry.log_id.index, entry)));
        let sent = self.writer.send(encoded, Done::Appended(callback)).await;
        sent.map_err(failed(ErrorSubject::Logs))
    }

    async fn truncate(&mut self, since: LogId) -> Result<(), StorageError> {
        self.write(Frame::Truncate { from: since.index }).await.map_err(failed(ErrorSubject::Logs))?;
        self.state().entries.split_off(&since.index);
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), StorageError> {
        self.write(Frame::Purge(upto)).await.map_err(failed(ErrorSubject::Logs))?;
        let mut state = self.state();
        state.entries = state.entries.split_off(&(upto.index + 1));
        state.purged = Some(upto);
        Ok(())
    }
}
