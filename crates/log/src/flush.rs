//! Flushing apart from appending: tickets that another thread can redeem.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use holdfast_core::{Offset, mutant};

use crate::shared::Shared;
use crate::{File, checkpoint, index_file, segment};

/// What a file is of the log that ends, or of the segment that begins, at an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Segment,
    Index,
    Checkpoint,
}

impl Part {
    pub(crate) fn path(self, dir: &Path, base: Offset) -> PathBuf {
        match self {
            Part::Segment => segment::path(dir, base),
            Part::Index => index_file::path(dir, base),
            Part::Checkpoint => checkpoint::newest_path(dir),
        }
    }
}

/// What of a log is not known to be on disk.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    /// Held open until they are flushed: who opens a file anew may never hear that writing it failed.
    files: BTreeMap<(Offset, Part), Arc<dyn File>>,
    dirs: BTreeSet<PathBuf>,
    /// Ends promised by tickets that may still be running.
    promised: Vec<Weak<AtomicU64>>,
}

impl Dirty {
    pub(crate) fn mark_file(&mut self, base: Offset, part: Part, file: &Arc<dyn File>) {
        self.files.entry((base, part)).or_insert_with(|| Arc::clone(file));
    }

    /// The file, if it is to be flushed.
    pub(crate) fn file(&self, base: Offset, part: Part) -> Option<Arc<dyn File>> {
        self.files.get(&(base, part)).cloned()
    }

    /// It is flushed already, or gone.
    pub(crate) fn forget_file(&mut self, base: Offset, part: Part) {
        self.files.remove(&(base, part));
    }

    pub(crate) fn mark_dir(&mut self, dir: PathBuf) {
        self.dirs.insert(dir);
    }

    /// The log now ends at `end`, in the segment that starts at `active`: nothing above is promised any more.
    pub(crate) fn truncated(&mut self, active: Offset, end: Offset) {
        self.files.retain(|(base, _), _| *base <= active);
        self.promised.retain(|promise| {
            let alive = promise.upgrade();
            alive.inspect(|promise| _ = promise.fetch_min(end.0, Ordering::SeqCst)).is_some()
        });
    }

    /// The log was removed, and is empty at `end`.
    pub(crate) fn reset(&mut self, end: Offset) {
        self.files.clear();
        self.truncated(end, end);
    }

    pub(crate) fn take(&mut self, shared: &Arc<Shared>, end: Offset) -> Option<FlushTicket> {
        if self.files.is_empty() && self.dirs.is_empty() {
            return None;
        }
        let end = Arc::new(AtomicU64::new(end.0));
        self.promised.retain(|promise| promise.strong_count() > 0);
        self.promised.push(Arc::downgrade(&end));
        Some(FlushTicket {
            files: std::mem::take(&mut self.files).into_values().collect(),
            dirs: std::mem::take(&mut self.dirs),
            shared: Arc::clone(shared),
            end,
            settled: AtomicBool::new(false),
        })
    }
}

/// The unflushed files of a log at one moment, and the offset below which everything is durable once they are synced.
///
/// Tickets of one log count in the order they were taken: the end of one is durable only when it **and every one
/// taken before it** are settled. Dropping a ticket that was not settled poisons the log, because nobody would
/// flush those files again.
#[derive(Debug)]
pub struct FlushTicket {
    files: Vec<Arc<dyn File>>,
    dirs: BTreeSet<PathBuf>,
    shared: Arc<Shared>,
    end: Arc<AtomicU64>,
    settled: AtomicBool,
}

impl FlushTicket {
    /// Syncs the files, then the folders that name them. On any thread. A failure poisons the log.
    pub fn run(&self) -> io::Result<()> {
        let result =
            self.sync().or_else(|error| if mutant!(IgnoreFailedFlush) { Ok(()) } else { Err(error) });
        self.settle(result.is_ok());
        result
    }

    /// For a caller that synced the whole file system instead, after this ticket was taken: says how that went.
    pub fn settle(&self, durable: bool) {
        if !durable {
            self.shared.poison();
        }
        self.settled.store(true, Ordering::SeqCst);
    }

    /// The log end offset when the ticket was taken (exclusive), or the lowest end that the log was truncated to
    /// since. Read it where the log is driven, after the ticket was settled well.
    pub fn end(&self) -> Offset {
        Offset(self.end.load(Ordering::SeqCst))
    }

    /// The files to sync.
    pub fn files(&self) -> &[Arc<dyn File>] {
        &self.files
    }

    fn sync(&self) -> io::Result<()> {
        if mutant!(FlushNothing) {
            return Ok(());
        }
        self.files.iter().try_for_each(|file| file.sync_data())?;
        self.dirs.iter().try_for_each(|dir| self.shared.fs.sync_dir(dir))
    }
}

impl Drop for FlushTicket {
    fn drop(&mut self) {
        if !self.settled.load(Ordering::SeqCst) {
            self.shared.poison();
        }
    }
}
