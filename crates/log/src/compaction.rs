//! Compaction of a log: of each key no more than the last record stays (R45, ADR 20).
//!
//! ```text
//! state      what is noted of it on disk: how far the log was cleaned, which tombstones may be gone, a merge under way
//! marks      since when the log has been cleaned how far: which tombstones are old enough to go
//! key_map    the last offset of each key, in bounded memory
//! producers  which batches of producers have to stay known
//! segments   batches of a segment, verified one by one
//! pass       reads, decides what goes, writes what stays
//! writer     a segment written anew, beside the one that it replaces, with its index
//! swap       puts it in the place of that one and of those that it swallowed
//! leftovers  what a crash in the middle of a swap has left, and what of it counts
//! ```
//! Offsets never change, and each is still covered by one batch: `holdfast_core::record_batch` says how. What is appended
//! to is not touched, nor is anything whose checksum does not hold.
//!
//! Memory of a pass, in bytes: `map_bytes` for the keys, about 130 for each producer that wrote to the log, twice
//! [`READ_AT_ONCE`] for reading and writing, and for the largest batch three times the more of its bytes and those of its
//! records.
//!
//! Invariants:
//! - A record goes only if a later one of its key lies below the end of the pass, in this log, or if it is a tombstone
//!   that is noted to be gone. One that cannot be read stays, and so does every tombstone behind it.
//! - After a crash at any moment the log holds either what a segment held before, or what replaced it; never a part.

mod key_map;
mod leftovers;
mod marks;
mod pass;
mod producers;
mod segments;
mod state;
mod swap;
mod writer;

use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use holdfast_core::Offset;
use holdfast_core::compaction::Dirt;
use holdfast_core::record_batch::Compression;
use holdfast_core::replication::Compacted;

use crate::repair::DamagedRange;
use crate::segment::Segment;
use crate::shared::Shared;
use crate::{Fs, LogError, LogReader};

pub(crate) use leftovers::{finish_merge, leftovers, settle};
pub(crate) use state::{State, read};
pub(crate) use swap::install;
pub(crate) use writer::{Files, Rewritten, Suffix};

/// Bytes read, and bytes written, at once.
pub(crate) const READ_AT_ONCE: usize = 1 << 20;

/// Why a record section could not be compressed or decompressed.
pub type CodecError = Box<dyn Error + Send + Sync>;

/// Compresses and decompresses record sections: whoever starts a pass knows how.
pub trait Codec {
    /// What `section` holds.
    ///
    /// # Errors
    /// Where that is more than `max` bytes, or where it cannot be made out. The batch stays as it is then.
    fn decompress(&self, compression: Compression, section: Bytes, max: usize) -> Result<Bytes, CodecError>;

    /// `section`, compressed.
    ///
    /// # Errors
    /// The batch stays as it is then.
    fn compress(&self, compression: Compression, section: &[u8]) -> Result<Vec<u8>, CodecError>;
}

/// What a pass is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionPlan {
    /// Nothing at or above counts as a later record (exclusive): no more than the high watermark, the durable one, and
    /// what this log has flushed. Segments that end above it are left alone.
    pub below: Offset,
    /// Milliseconds since 1970.
    pub now_ms: i64,
    /// Milliseconds for which tombstones stay once everything below them was cleaned. Only says which notes of times are
    /// needed no more: which tombstones go was noted before ([`note_tombstones_gone`](crate::PartitionLog::note_tombstones_gone)).
    pub tombstone_delay_ms: u64,
    /// Bytes of memory for the keys, 32 or so for each. With more keys than fit, the pass ends below the first that does not.
    pub map_bytes: usize,
    /// Most bytes that the records of a batch may take decompressed; a batch that has more stays as it is.
    pub max_section_bytes: usize,
}

/// What a pass did.
#[derive(Debug)]
pub struct CompactionOutcome {
    /// Offset below which the log is cleaned now (exclusive), durably.
    pub cleaned_end: Offset,
    /// Bytes of batches in the segments that were gone through, before.
    pub bytes_before: u64,
    /// Bytes that are left of them.
    pub bytes_after: u64,
    /// Records that were removed, tombstones included.
    pub removed_records: u64,
    /// Segments that were written anew or swallowed.
    pub replaced_segments: u64,
    /// Batches whose records cannot be decompressed or made out: they stayed as they were.
    pub unreadable_batches: u64,
    /// Why it ended.
    pub ended: PassEnd,
}

/// Why a pass ended.
#[derive(Debug)]
pub enum PassEnd {
    /// Everything was gone through.
    Complete,
    /// There were more keys than fit in memory: the rest is for the next pass.
    MapFull,
    /// It was told to.
    Stopped,
    /// The log was cut, repaired or closed meanwhile, or is just being trimmed. What was done until then holds.
    Changed,
    /// A batch is damaged. It is for the repair; segments in front of it were gone through.
    Damaged(Box<DamagedRange>),
}

/// What a log and its passes share.
#[derive(Debug, Default)]
pub(crate) struct Compaction {
    /// Held by a pass from begin to end.
    passing: Mutex<()>,
    /// Held while the state is written.
    writing: Mutex<()>,
    /// What is on disk.
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    state: State,
    /// Counts what makes the knowledge of a pass void: truncations, repairs, beginnings anew.
    disturbed: u64,
}

impl Compaction {
    pub(crate) fn new(state: State) -> Compaction {
        Compaction { known: Mutex::new(Known { state, disturbed: 0 }), ..Compaction::default() }
    }

    /// What is on disk.
    pub(crate) fn state(&self) -> State {
        lock(&self.known).state.clone()
    }

    /// Changes what is noted, durably, before anybody sees it. Nothing is written where nothing changes.
    pub(crate) fn change(
        &self,
        fs: &dyn Fs,
        dir: &Path,
        change: impl FnOnce(&mut State),
    ) -> Result<(), LogError> {
        let _one = lock(&self.writing);
        let mut state = self.state();
        change(&mut state);
        if state != self.state() {
            state.write(fs, dir)?;
            lock(&self.known).state = state;
        }
        Ok(())
    }

    /// Nothing from `end` on counts as cleaned any more: what stands there will be other content. What a pass knows by now is
    /// void.
    pub(crate) fn lower(&self, fs: &dyn Fs, dir: &Path, end: Offset) -> Result<(), LogError> {
        lock(&self.known).disturbed += 1;
        self.change(fs, dir, |state| state.lower(end))
    }

    /// The log begins anew.
    pub(crate) fn forget(&self, fs: &dyn Fs, dir: &Path) -> Result<(), LogError> {
        lock(&self.known).disturbed += 1;
        self.change(fs, dir, |state| *state = State::default())
    }

    pub(crate) fn note_tombstones_gone(
        &self,
        fs: &dyn Fs,
        dir: &Path,
        below: Offset,
    ) -> Result<(), LogError> {
        // A pass that goes by another bound must not put anything in its place any more.
        lock(&self.known).disturbed += 1;
        self.change(fs, dir, |state| state.tombstones_gone_below = below)
    }

    fn disturbed(&self) -> u64 {
        lock(&self.known).disturbed
    }
}

impl Shared {
    /// How far the log was compacted, durably.
    pub(crate) fn compacted(&self) -> Compacted {
        let State { cleaned_end, tombstones_gone_below, .. } = self.compaction.state();
        // Below the start that is on disk there is nothing, whatever happens.
        Compacted { cleaned_end: cleaned_end.max(self.trimming.noted()), tombstones_gone_below }
    }
}

impl LogReader {
    /// How far the log was compacted, as it is noted on disk.
    pub fn compacted(&self) -> Compacted {
        self.shared.compacted()
    }

    /// Below which offset everything was cleaned longer ago than `delay_ms` (exclusive): tombstones there are old enough to go.
    /// `now_ms` is milliseconds since 1970.
    pub fn old_tombstones(&self, delay_ms: u64, now_ms: i64) -> Offset {
        self.shared.compaction.state().marks.older_than(delay_ms, now_ms)
    }

    /// How much a pass up to `below` would look at for the first time, of the segments that end there or lower and are not
    /// appended to any more.
    pub fn dirtiness(&self, below: Offset) -> Dirt {
        let cleaned = self.compacted().cleaned_end;
        let mut dirt = Dirt::default();
        for segment in self.sealed_below(below) {
            // Of a segment that is clean in part, the share of its offsets.
            let share = u128::from(cleaned - segment.base).min(u128::from(segment.end - segment.base));
            let clean = u128::from(segment.len) * share / u128::from(segment.end - segment.base).max(1);
            let clean = u64::try_from(clean).unwrap_or(segment.len);
            dirt.clean_bytes += clean;
            dirt.dirty_bytes += segment.len - clean;
        }
        dirt
    }

    /// The segments that end at `below` or lower and are not appended to any more, oldest first.
    fn sealed_below(&self, below: Offset) -> Vec<Segment> {
        let view = self.shared.read();
        let sealed = view.segments.split_last().map_or(&[][..], |(_, sealed)| sealed);
        sealed.iter().take_while(|segment| segment.end <= below).copied().collect()
    }

    /// Goes over the sealed segments once and takes out what is superseded (R45), on any thread; it may take long. `throttle` is told of
    /// bytes that were read or written, and may wait, or end the pass. One pass of a log runs at a time.
    ///
    /// What it looks at is up to the plan. Which tombstones go was noted [before](crate::PartitionLog::note_tombstones_gone).
    ///
    /// # Errors
    /// The log is none the worse for it, and not poisoned: what a pass could not do is done by the next one, or undone when
    /// the log is opened.
    pub fn compact(
        &self,
        plan: &CompactionPlan,
        codec: &dyn Codec,
        throttle: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<CompactionOutcome, LogError> {
        self.shared.check_alive()?;
        let _one = lock(&self.shared.compaction.passing);
        pass::run(self, plan, codec, throttle)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
