//! The log of one partition: segments in order, the last of which is appended to.
//!
//! One owner appends, truncates and takes flush tickets; [`LogReader`]s and [`FlushTicket`]s work beside it on
//! other threads.
//!
//! Memory: 48 bytes per segment and 12 per epoch, and at most a block of index (1 KiB). Open files: those with unflushed
//! bytes; all others are opened when they are used, and whether they stay open is up to the [`Fs`].
//!
//! Invariants:
//! - Offsets are dense and epochs never decrease, across segments as well.
//! - Readers see whole batches whose bytes were handed to the operating system.
//! - After a failed write, truncation or flush nothing is written any more. A full disk is no failure: what was begun is
//!   taken back.

mod compacting;
mod full;
mod indexing;
mod noting;
mod trimming;
mod truncation;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::record_batch::{BatchHeader, RecordBatch};
use holdfast_core::replication::Position;
use holdfast_core::{LeaderEpoch, Offset};

use crate::compaction::{self, Compaction};
use crate::derived::EveryBatch;
use crate::flush::{Dirty, Part};
use crate::fs::{create_dir_synced, parent_of, write_again};
use crate::index::Entry;
use crate::noted::Noted;
use crate::recovery::{self, Found};
use crate::repair::mark;
use crate::segment::{self, Segment};
use crate::shared::{Shared, View};
use crate::{Derived, File, FlushTicket, Fs, LogConfig, LogError, LogReader, OpenMode, Opened, Recovery};

/// The log of one partition.
#[derive(Debug)]
pub struct PartitionLog {
    config: LogConfig,
    shared: Arc<Shared>,
    dirty: Dirty,
    /// When the active segment was first seen with batches, in the caller's time.
    active_since: Option<i64>,
    /// As noted in its folder.
    shortened: bool,
}

impl PartitionLog {
    /// [Opens](Self::open_derived) the log in `dir` and passes every batch that is kept to `visit`, in order.
    pub fn open(
        fs: Arc<dyn Fs>,
        dir: &Path,
        config: LogConfig,
        recovery: Recovery,
        visit: &mut dyn FnMut(&BatchHeader),
    ) -> Result<(PartitionLog, Opened), LogError> {
        PartitionLog::open_derived(fs, dir, config, recovery, &mut EveryBatch(visit))
    }

    /// Opens the log in `dir`, or creates it; the folder above has to be there, durably. `derived` starts from the newest
    /// [checkpoint](Self::checkpoint) that can be believed, and each batch behind it that is kept is visited in order
    /// (whatever is built is to be thrown away if an error is returned). What may not have been flushed before counts as
    /// unflushed and is written again after an unclean stop.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] if anything below `recovery.trusted_end` is damaged or missing; nothing is changed then.
    pub fn open_derived(
        fs: Arc<dyn Fs>,
        dir: &Path,
        config: LogConfig,
        recovery: Recovery,
        derived: &mut dyn Derived,
    ) -> Result<(PartitionLog, Opened), LogError> {
        // Durable before anything is noted of the replica: one that is noted and has no folder may have forgotten anything.
        create_dir_synced(&*fs, dir).map_err(LogError::io("creating folder", dir))?;
        let found = recovery::scan(&*fs, dir, &config, recovery, derived)?;
        let noted = Noted::forgetting(&*fs, dir, found.end())?;
        found.cut(&*fs, dir)?;
        let shortened = mark::more_is_gone(&*fs, dir)?;
        let start = found.end();
        let state = compaction::settle(&*fs, dir, &found)?;
        let Found { mut segments, index, epochs, base, active_since, mut opened, .. } = found;
        let mut dirty = Dirty::default();
        if segments.is_empty() {
            let (segment, file) = create_segment(&*fs, dir, start)?;
            dirty.mark_file(segment.base, Part::Segment, &file);
            segments.push(segment);
            opened.created = true;
        }
        opened.kept_bytes = segments.iter().map(|segment| segment.len).sum();
        if opened.created || !recovery.clean {
            // The process before may have died between creating a name and syncing it.
            dirty.mark_dir(dir.to_owned());
            dirty.mark_dir(parent_of(dir).to_owned());
        }
        let view = View::new(segments, index, epochs, base);
        let shared = Arc::new(Shared::new(fs, dir, view, noted, Compaction::new(state)));
        let mut log = PartitionLog { config, shared, dirty, active_since, shortened };
        log.mend_indexes(recovery)?;
        log.take_over_unflushed(recovery)?;
        Ok((log, opened))
    }

    /// Whether the log was repaired before it could be opened, and may have held more than is known (R35): it had ended below what
    /// was trusted, or a torn tail was cut behind the damage. That stays so, in later runs, too, until it is
    /// [settled](Self::settle_repair).
    pub fn is_shortened(&self) -> bool {
        self.shortened
    }

    /// What follows of the log being [shortened](Self::is_shortened) is on disk: the log need not tell it any more.
    ///
    /// # Errors
    /// [`LogError::Io`]. Nothing is lost then.
    pub fn settle_repair(&mut self) -> Result<(), LogError> {
        if self.shortened {
            mark::remove(&*self.shared.fs, &self.shared.dir)?;
            self.shortened = false;
        }
        Ok(())
    }

    /// What was read above the flushed end may be in the system's memory only, left by a process that was killed or by
    /// a flush that failed.
    fn take_over_unflushed(&mut self, recovery: Recovery) -> Result<(), LogError> {
        let segments = self.shared.read().segments.clone();
        for (number, segment) in segments.into_iter().enumerate() {
            if segment.end <= recovery.flushed_end {
                continue;
            }
            let held = self.shared.hold(segment)?;
            if !recovery.clean {
                // `-` of offsets is 0 where the flushed end lies below the segment.
                let relative = recovery.flushed_end - segment.base;
                let before = |entry: &Entry| u64::from(entry.relative) <= relative;
                let lookup = self.shared.read().look_up(number, before);
                let between = self.shared.finish(lookup, segment.base, before).unwrap_or_default();
                let from = between.before.map_or(0, |entry| entry.position.into());
                let file = held.get();
                let written = write_again(file.file, from, segment.len);
                written.map_err(LogError::io("writing segment", file.path))?;
            }
            self.dirty.mark_file(segment.base, Part::Segment, held.file());
        }
        Ok(())
    }

    /// Appends batches that continue the log: the first at the log end offset, epochs never lower than the last.
    /// They can be read at once, but are durable only after a flush.
    ///
    /// # Errors
    /// If the batches do not follow, nothing is written. If writing fails, the log is poisoned. After [`LogError::Full`] it is
    /// not: the first few of the batches may be in it, whole, and the others may be appended once there is room.
    pub fn append(&mut self, batches: &[RecordBatch]) -> Result<(), LogError> {
        self.shared.check_alive()?;
        self.check_follows(batches)?;
        let indexed = self.catch_up_index();
        self.poison_unless_full(indexed)?;
        let mut rest = batches;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(self.fitting(rest));
            if now.is_empty() {
                self.roll()?;
            } else {
                let written = self.write(now);
                self.poison_unless_full(written)?;
            }
            rest = later;
        }
        Ok(())
    }

    fn check_follows(&self, batches: &[RecordBatch]) -> Result<(), LogError> {
        let mut expected = self.log_end_offset();
        let mut last = self.position().epoch;
        for header in batches.iter().map(RecordBatch::header) {
            let offset = header.base_offset;
            if offset != expected {
                return Err(LogError::NotContiguous { expected, got: offset });
            }
            let got = header.epoch.ok_or(LogError::NotStamped { offset })?;
            if got < last {
                return Err(LogError::EpochDecreases { offset, last, got });
            }
            (expected, last) = (header.next_offset(), got);
        }
        Ok(())
    }

    /// How many of the batches go into the active segment.
    fn fitting(&self, batches: &[RecordBatch]) -> usize {
        let mut active = *self.shared.read().active();
        let fits = |batch: &&RecordBatch| {
            let room = active.has_room(batch.header(), self.config.segment_size.0);
            active.push(batch.header());
            room
        };
        batches.iter().take_while(fits).count()
    }

    fn write(&mut self, batches: &[RecordBatch]) -> Result<(), LogError> {
        let active = *self.shared.read().active();
        let file = self.unflushed(active.base, Part::Segment)?;
        let buffers: Vec<&[u8]> = batches.iter().map(|batch| &batch.bytes()[..]).collect();
        let written = file.write_all_at(&buffers, active.len);
        written.or_else(|error| self.take_back_write(&*file, &active, error))?;
        for header in batches.iter().map(RecordBatch::header) {
            self.shared.write().push(header, self.config.index_interval.0);
        }
        self.write_index()
    }

    /// A file of the segment at `base`, which counts as unflushed from now on.
    fn unflushed(&mut self, base: Offset, part: Part) -> Result<Arc<dyn File>, LogError> {
        if let Some(file) = self.dirty.file(base, part) {
            return Ok(file);
        }
        let path = part.path(&self.shared.dir, base);
        let opened = self.shared.fs.open(&path, OpenMode::Existing);
        let file = opened.map_err(LogError::io("opening for writing", &path))?;
        self.dirty.mark_file(base, part, &file);
        Ok(file)
    }

    /// Seals the active segment if it has held batches for `segment-age` or longer by the caller's clock, of which the
    /// log has none. Time counts from the first call that finds batches in it; a restart may begin it anew.
    ///
    /// # Errors
    /// A failure poisons the log, except for [`LogError::Full`]: then it may be tried again.
    pub fn roll_if_old(&mut self, now_ms: i64) -> Result<bool, LogError> {
        self.roll_if_older(now_ms, self.config.segment_age)
    }

    /// The same for another age.
    ///
    /// # Errors
    /// Those of [`roll_if_old`](Self::roll_if_old).
    pub fn roll_if_older(&mut self, now_ms: i64, age: Duration) -> Result<bool, LogError> {
        self.shared.check_alive()?;
        if self.shared.read().active().len == 0 {
            return Ok(false);
        }
        // A clock that was set back starts the time anew.
        let since = self.active_since.filter(|since| *since <= now_ms).unwrap_or(now_ms);
        self.active_since = Some(since);
        let limit = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let old = now_ms.saturating_sub(since) >= limit;
        if old {
            self.roll()?;
        }
        Ok(old)
    }

    /// Seals the active segment and starts another.
    fn roll(&mut self) -> Result<(), LogError> {
        let rolled = self.try_roll();
        self.poison_unless_full(rolled)
    }

    fn try_roll(&mut self) -> Result<(), LogError> {
        let (next, file) = create_segment(&*self.shared.fs, &self.shared.dir, self.log_end_offset())?;
        self.dirty.mark_dir(self.shared.dir.clone());
        let sealed = self.seal_index();
        let blocks = sealed.or_else(|error| self.take_back_segment(next.base, error))?;
        self.dirty.mark_file(next.base, Part::Segment, &file);
        self.shared.write().roll(blocks, next);
        self.active_since = None;
        Ok(())
    }

    fn poison_on_error<T>(&self, result: Result<T, LogError>) -> Result<T, LogError> {
        result.inspect_err(|_| self.shared.poison())
    }

    /// The files with unflushed bytes, as a ticket; `None` if there are none. From now on they count as clean, so
    /// the ticket has to be settled.
    pub fn take_flush(&mut self) -> Option<FlushTicket> {
        let end = self.log_end_offset();
        self.dirty.take(&self.shared, end)
    }

    /// A reader of this log.
    pub fn reader(&self) -> LogReader {
        LogReader::new(Arc::clone(&self.shared), &self.config)
    }

    /// First offset in the log.
    pub fn log_start_offset(&self) -> Offset {
        self.shared.read().start()
    }

    /// Offset of the next batch (exclusive end).
    pub fn log_end_offset(&self) -> Offset {
        self.shared.read().end()
    }

    /// Bytes of batches in the log.
    pub fn size_bytes(&self) -> u64 {
        self.shared.read().segments.iter().map(|segment| segment.len).sum()
    }

    /// Base offsets of the segments, ascending.
    pub fn segment_bases(&self) -> Vec<Offset> {
        self.shared.read().segments.iter().map(|segment| segment.base).collect()
    }

    /// How many segment files the log has.
    pub fn segment_count(&self) -> usize {
        self.shared.read().segments.len()
    }

    /// Bytes of memory that the log holds besides a few hundred: for segments, epochs and the index's newest entries.
    pub fn memory_bytes(&self) -> usize {
        let view = self.shared.read();
        size_of_val(&view.segments[..]) + size_of_val(&view.epochs[..]) + size_of_val(view.index.tail())
    }

    /// The epochs in the log with the offset of the first batch of each, ascending.
    pub fn epochs(&self) -> Vec<(LeaderEpoch, Offset)> {
        self.shared.read().epochs.clone()
    }

    /// Where the log starts: its log start offset, and the epoch of the batch below.
    pub fn base(&self) -> Position {
        self.shared.read().base
    }

    /// Where the log ends, and the epoch of the batch below, also if that was trimmed.
    pub fn position(&self) -> Position {
        let view = self.shared.read();
        Position { epoch: view.last_epoch().unwrap_or(view.base.epoch), end: view.end() }
    }

    /// Epoch of the last batch; `None` for an empty log.
    pub fn last_epoch(&self) -> Option<LeaderEpoch> {
        self.shared.read().last_epoch()
    }

    /// Whether an earlier write or flush failed, so that nothing can be written any more.
    pub fn is_poisoned(&self) -> bool {
        self.shared.is_poisoned()
    }
}

impl Drop for PartitionLog {
    fn drop(&mut self) {
        // Readers may outlive it, and another log may come in its place: nothing is repaired or removed any more.
        *self.shared.stand_still() = false;
    }
}

fn create_segment(fs: &dyn Fs, dir: &Path, base: Offset) -> Result<(Segment, Arc<dyn File>), LogError> {
    let path = segment::path(dir, base);
    let file = fs.open(&path, OpenMode::CreateNew).map_err(LogError::io("creating segment", &path))?;
    Ok((Segment::new(base), file))
}
