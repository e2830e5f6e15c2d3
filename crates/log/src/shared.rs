//! What a log shares with its readers and its flush tickets.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use holdfast_core::record_batch::BatchHeader;
use holdfast_core::replication::Position;
use holdfast_core::{LeaderEpoch, Offset};

use crate::compaction::Compaction;
use crate::index::{ActiveIndex, Between, Entry};
use crate::index_file::{self, IndexFile};
use crate::noted::Noted;
use crate::segment::{self, Segment, SegmentFile};
use crate::trim::Trimming;
use crate::{File, Fs, LogError, OpenMode, recovery};

/// The segments in order. Never empty; only the last one is appended to.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) segments: Vec<Segment>,
    /// Of the last segment.
    pub(crate) index: ActiveIndex,
    /// First offset of each epoch in the log, ascending in both.
    pub(crate) epochs: Vec<(LeaderEpoch, Offset)>,
    /// Where the log starts, which may be inside its first segment, and the epoch of the batch below.
    pub(crate) base: Position,
    /// Counts truncations, from either end, and segments that were replaced. A read during which it changed may have seen old
    /// and new bytes side by side.
    pub(crate) truncations: u64,
    /// A segment that is being replaced, while its files come to their names.
    pub(crate) replaced: Option<Replaced>,
}

/// The files of a segment that may not have their names yet.
#[derive(Debug)]
pub(crate) struct Replaced {
    pub(crate) base: Offset,
    pub(crate) file: Arc<dyn File>,
    pub(crate) index_file: Arc<dyn File>,
}

/// Where the answer of an index is to be had.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Lookup {
    Known(Between),
    /// In the first blocks of the file. `behind` is the entry that follows them.
    InFile {
        blocks: u32,
        behind: Option<Entry>,
    },
}

impl View {
    /// Of a log as it was found.
    pub(crate) fn new(
        segments: Vec<Segment>,
        index: ActiveIndex,
        epochs: Vec<(LeaderEpoch, Offset)>,
        base: Position,
    ) -> View {
        View { segments, index, epochs, base, truncations: 0, replaced: None }
    }

    pub(crate) fn active(&self) -> &Segment {
        self.segments
            .last()
            .expect("a log has a segment from opening on, and none is removed but by truncation")
    }

    fn active_mut(&mut self) -> &mut Segment {
        self.segments.last_mut().expect("a log has a segment from opening on, and truncation keeps one")
    }

    /// Takes in the batch that now stands at the end.
    pub(crate) fn push(&mut self, header: &BatchHeader, interval: u64) {
        let Segment { base, len, max_timestamp, .. } = *self.active();
        self.index.add(header.base_offset - base, len, max_timestamp, interval);
        self.active_mut().push(header);
        if let Some(epoch) = header.epoch.filter(|epoch| self.last_epoch() != Some(*epoch)) {
            self.epochs.push((epoch, header.base_offset));
        }
    }

    /// Epoch of the last batch; `None` for an empty log.
    pub(crate) fn last_epoch(&self) -> Option<LeaderEpoch> {
        self.epochs.last().map(|(epoch, _)| *epoch)
    }

    /// Epoch of the batch at `offset`, which is in the log.
    pub(crate) fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let begun = self.epochs.partition_point(|(_, first)| *first <= offset);
        begun.checked_sub(1).map(|last| self.epochs[last].0)
    }

    /// The active segment is sealed; its index file has that many blocks. `next` is appended to from now on.
    pub(crate) fn roll(&mut self, blocks: u32, next: Segment) {
        self.active_mut().blocks = blocks;
        self.segments.push(next);
        self.index = ActiveIndex::default();
    }

    /// The log ends with `active` from now on, which is a part of segment `number`. Returns the segments to remove.
    pub(crate) fn truncate(&mut self, number: usize, active: Segment, index: ActiveIndex) -> Vec<Segment> {
        let removed = self.segments.split_off(number + 1);
        *self.active_mut() = active;
        self.index = index;
        self.epochs.retain(|(_, first)| *first < active.end);
        self.truncations += 1;
        removed
    }

    /// The log starts at `base` from now on. Segments that lie below as a whole are known no more.
    pub(crate) fn trim(&mut self, base: Position) {
        let bases: Vec<Offset> = self.segments.iter().map(|segment| segment.base).collect();
        self.segments.drain(..recovery::below_start(&bases, base.end));
        let end = self.end();
        recovery::trim_epochs(&mut self.epochs, base.end, end);
        self.base = base;
        self.truncations += 1;
    }

    /// The log is empty from now on, and starts at `base`.
    pub(crate) fn reset(&mut self, base: Position) {
        self.segments = vec![Segment::new(base.end)];
        self.index = ActiveIndex::default();
        self.epochs.clear();
        self.base = base;
        self.truncations += 1;
    }

    /// Where the sealed `segments` are, all of them as they are there; `None` if anything of that has changed.
    pub(crate) fn sealed(&self, segments: &[Segment]) -> Option<Range<usize>> {
        let base = segments.first()?.base;
        let first = self.segments.iter().position(|segment| segment.base == base)?;
        let range = first..first + segments.len();
        let same = |known: &[Segment]| {
            known
                .iter()
                .zip(segments)
                .all(|(known, segment)| (known.end, known.len) == (segment.end, segment.len))
        };
        (range.end < self.segments.len() && same(&self.segments[range.clone()])).then_some(range)
    }

    /// Those segments take the place of the ones in `range`.
    pub(crate) fn replace(&mut self, range: Range<usize>, segments: &[Segment], replaced: Option<Replaced>) {
        self.segments.splice(range, segments.iter().copied());
        self.replaced = replaced;
        self.truncations += 1;
    }

    pub(crate) fn start(&self) -> Offset {
        self.base.end
    }

    pub(crate) fn end(&self) -> Offset {
        self.active().end
    }

    /// Number of the segment whose range holds `offset`, which is not below the log's start.
    pub(crate) fn segment_of(&self, offset: Offset) -> usize {
        self.segments.partition_point(|segment| segment.base <= offset).saturating_sub(1)
    }

    /// Begins a search in the index of segment `number`.
    pub(crate) fn look_up(&self, number: usize, before: impl Fn(&Entry) -> bool) -> Lookup {
        match self.segments.get(number) {
            Some(sealed) if number + 1 < self.segments.len() => {
                Lookup::InFile { blocks: sealed.blocks, behind: None }
            }
            _ => self.index.search_tail(before).map_or_else(
                || Lookup::InFile {
                    blocks: self.index.written.blocks,
                    behind: self.index.tail().first().copied(),
                },
                Lookup::Known,
            ),
        }
    }
}

/// The lock is held for looking up and for publishing, never during I/O.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) dir: PathBuf,
    view: RwLock<View>,
    poisoned: AtomicBool,
    /// Held while bytes that were written before are written anew, while segments are replaced, and while the log is cut: no two
    /// of these must meet. Says whether the log has its owner: without one, another log may stand in the same folder.
    owned: Mutex<bool>,
    /// Sealed segments of which a reader found the index to be bad.
    bad_indexes: Mutex<BTreeSet<Offset>>,
    noted: Mutex<Noted>,
    pub(crate) trimming: Trimming,
    pub(crate) compaction: Compaction,
}

/// A segment's file, held open.
#[derive(Debug)]
pub(crate) struct Held {
    segment: Segment,
    file: Arc<dyn File>,
    path: PathBuf,
}

impl Held {
    pub(crate) fn get(&self) -> SegmentFile<'_> {
        SegmentFile { segment: self.segment, file: &*self.file, path: &self.path }
    }

    pub(crate) fn file(&self) -> &Arc<dyn File> {
        &self.file
    }
}

impl Shared {
    pub(crate) fn new(
        fs: Arc<dyn Fs>,
        dir: &Path,
        view: View,
        noted: Noted,
        compaction: Compaction,
    ) -> Shared {
        let trimming = Trimming::found(view.start());
        Shared {
            fs,
            dir: dir.to_owned(),
            view: RwLock::new(view),
            poisoned: AtomicBool::new(false),
            owned: Mutex::new(true),
            bad_indexes: Mutex::default(),
            noted: Mutex::new(noted),
            trimming,
            compaction,
        }
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, View> {
        self.view.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the file of a segment for as long as it is used: which files stay open is up to the [`Fs`].
    pub(crate) fn hold(&self, segment: Segment) -> Result<Held, LogError> {
        let path = segment::path(&self.dir, segment.base);
        let file = match self.replaced(segment.base, |replaced| Arc::clone(&replaced.file)) {
            Some(file) => file,
            None => {
                self.fs.open(&path, OpenMode::Existing).map_err(LogError::io("opening segment", &path))?
            }
        };
        Ok(Held { segment, file, path })
    }

    /// Of the segment at `base`, if it is being replaced.
    fn replaced<T>(&self, base: Offset, get: impl FnOnce(&Replaced) -> T) -> Option<T> {
        self.read().replaced.as_ref().filter(|replaced| replaced.base == base).map(get)
    }

    /// Ends a search that began in the [`View`]. `None` where the index is of no use: then the segment has to be walked.
    pub(crate) fn finish(
        &self,
        lookup: Lookup,
        base: Offset,
        before: impl Fn(&Entry) -> bool,
    ) -> Option<Between> {
        let (blocks, behind) = match lookup {
            Lookup::Known(between) => return Some(between),
            Lookup::InFile { blocks, behind } => (blocks, behind),
        };
        let file = self
            .replaced(base, |replaced| Arc::clone(&replaced.index_file))
            .or_else(|| self.fs.open(&index_file::path(&self.dir, base), OpenMode::Existing).ok());
        let between = file
            .filter(|_| blocks > 0)
            .and_then(|file| IndexFile { file: &*file, base }.search(blocks, before));
        // A segment that was replaced meanwhile has another index, of which this says nothing.
        if between.is_none() && self.has_index(base, blocks) {
            self.bad_indexes.lock().unwrap_or_else(PoisonError::into_inner).insert(base);
        }
        between.map(|between| Between { at: between.at.or(behind), ..between })
    }

    /// Whether the index of the segment at `base` has so many blocks.
    fn has_index(&self, base: Offset, blocks: u32) -> bool {
        let view = self.read();
        let active = view.active().base == base && view.index.written.blocks == blocks;
        active || view.segments.iter().any(|segment| segment.base == base && segment.blocks == blocks)
    }

    /// The segments whose index was found to be bad since the last call.
    pub(crate) fn take_bad_indexes(&self) -> BTreeSet<Offset> {
        std::mem::take(&mut *self.bad_indexes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Which checkpoints are on disk. Held while that changes, for a moment, and never together with the view.
    pub(crate) fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing is repaired, cut or replaced as long as this is held.
    pub(crate) fn stand_still(&self) -> MutexGuard<'_, bool> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn poison(&self) {
        self.poisoned.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::SeqCst)
    }

    pub(crate) fn check_alive(&self) -> Result<(), LogError> {
        if self.is_poisoned() { Err(LogError::Poisoned) } else { Ok(()) }
    }
}
