//! The log of one partition: segments in order, the last of which is appended to.
//!
//! One owner appends, truncates and takes flush tickets; [`LogReader`]s and [`FlushTicket`]s work beside it on
//! other threads.
//!
//! Invariants:
//! - Offsets are dense and epochs never decrease, across segments as well.
//! - Readers see whole batches whose bytes were handed to the operating system.
//! - After a failed write, truncation or flush nothing is written any more.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_core::record_batch::{BatchHeader, RecordBatch};
use holdfast_core::{LeaderEpoch, Offset, mutant};

use crate::flush::Dirty;
use crate::fs::{create_dir_synced, parent_of, write_again};
use crate::recovery::{self, Found};
use crate::segment::{self, Segment};
use crate::shared::Shared;
use crate::{FlushTicket, Fs, LogConfig, LogError, LogReader, OpenMode, Opened, Recovery};

/// The log of one partition.
#[derive(Debug)]
pub struct PartitionLog {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    config: LogConfig,
    shared: Arc<Shared>,
    /// First offset of each epoch in the log, ascending in both.
    epochs: Vec<(LeaderEpoch, Offset)>,
    dirty: Dirty,
}

impl PartitionLog {
    /// Opens the log in `dir`, or creates it; the folder above has to be there, durably. Each batch that is kept goes to `visit` in order (whatever `visit`
    /// built is to be thrown away if an error is returned). What may not have been flushed before counts as unflushed
    /// and is written again after an unclean stop.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] if anything below `recovery.trusted_end` is damaged or missing; nothing is changed then.
    pub fn open(
        fs: Arc<dyn Fs>,
        dir: &Path,
        config: LogConfig,
        recovery: Recovery,
        visit: &mut dyn FnMut(&BatchHeader),
    ) -> Result<(PartitionLog, Opened), LogError> {
        create_dir_synced(&*fs, dir).map_err(LogError::io("creating folder", dir))?;
        let found = recovery::scan(&*fs, dir, &config, recovery, visit)?;
        found.cut(&*fs, dir)?;
        let Found { mut segments, epochs, mut opened, .. } = found;
        let mut dirty = Dirty::default();
        if segments.is_empty() {
            segments.push(create_segment(&*fs, dir, Offset::ZERO)?);
            opened.created = true;
        }
        let unflushed = |segment: &&Segment| opened.created || segment.end > recovery.flushed_end;
        for segment in segments.iter().filter(unflushed) {
            if !recovery.clean {
                write_unflushed_again(segment, recovery.flushed_end)?;
            }
            dirty.mark_file(segment.base, &segment.file);
        }
        if opened.created || !recovery.clean {
            // The process before may have died between creating a name and syncing it.
            dirty.mark_dir(dir.to_owned());
            dirty.mark_dir(parent_of(dir).to_owned());
        }
        let shared = Arc::new(Shared::new(segments));
        Ok((PartitionLog { fs, dir: dir.to_owned(), config, shared, epochs, dirty }, opened))
    }

    /// Appends batches that continue the log: the first at the log end offset, epochs never lower than the last.
    /// They can be read at once, but are durable only after a flush.
    ///
    /// # Errors
    /// If the batches do not fit, nothing is written. If writing fails, the log is poisoned.
    pub fn append(&mut self, batches: &[RecordBatch]) -> Result<(), LogError> {
        self.shared.check_alive()?;
        self.check_follows(batches)?;
        let mut rest = batches;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(self.fitting(rest));
            if now.is_empty() {
                self.roll()?;
            } else {
                self.write(now)?;
            }
            rest = later;
        }
        Ok(())
    }

    fn check_follows(&self, batches: &[RecordBatch]) -> Result<(), LogError> {
        let mut expected = self.log_end_offset();
        let mut last = self.last_epoch().unwrap_or(LeaderEpoch::ZERO);
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
        let view = self.shared.read();
        let active = view.active();
        let (mut len, mut end) = (active.len, active.end);
        let fits = |batch: &&RecordBatch| {
            let header = batch.header();
            let room = active.has_room(len, end, header, self.config.segment_size.0);
            (len, end) = (len + u64::from(header.length), header.next_offset());
            room
        };
        batches.iter().take_while(fits).count()
    }

    fn write(&mut self, batches: &[RecordBatch]) -> Result<(), LogError> {
        let active = self.shared.read().active().without_index();
        let buffers: Vec<&[u8]> = batches.iter().map(|batch| &batch.bytes()[..]).collect();
        self.dirty.mark_file(active.base, &active.file);
        let written = active.file.write_all_at(&buffers, active.len);
        self.poison_on_error(written.map_err(LogError::io("writing segment", &active.path)))?;
        for header in batches.iter().map(RecordBatch::header) {
            if let Some(epoch) = header.epoch.filter(|epoch| self.last_epoch() != Some(*epoch)) {
                self.epochs.push((epoch, header.base_offset));
            }
        }
        let mut view = self.shared.write();
        let active = view.active_mut();
        for batch in batches {
            active.push(batch.header(), self.config.index_interval.0);
        }
        Ok(())
    }

    /// Seals the active segment and starts another.
    fn roll(&mut self) -> Result<(), LogError> {
        let created = create_segment(&*self.fs, &self.dir, self.log_end_offset());
        let segment = self.poison_on_error(created)?;
        self.dirty.mark_file(segment.base, &segment.file);
        self.dirty.mark_dir(self.dir.clone());
        self.shared.write().segments.push(segment);
        Ok(())
    }

    /// Shortens the log: afterwards it ends at `end`, or at the base of the batch that contains `end`. Durable on
    /// return. Nothing happens if the log ends at or below `end` already.
    ///
    /// Whoever keeps a [`Recovery::trusted_end`] lowers it durably **before**: a crash after the cut would otherwise
    /// look like lost data.
    ///
    /// # Errors
    /// [`LogError::OutOfRange`] below the log start. Any failure while cutting poisons the log.
    pub fn truncate_to(&mut self, end: Offset) -> Result<(), LogError> {
        self.shared.check_alive()?;
        let (start, log_end) = (self.log_start_offset(), self.log_end_offset());
        if end < start {
            return Err(LogError::OutOfRange { requested: end, start, end: log_end });
        }
        if end >= log_end {
            return Ok(());
        }
        let number = self.shared.read().segment_of(end);
        let (position, new_end, kept) = self.locate(number, end)?;
        let removed = self.hide(number, position, new_end, kept);
        self.epochs.retain(|(_, first)| *first < new_end);
        let cut = self.cut(&removed, position);
        self.poison_on_error(cut)?;
        let active = self.shared.read().active().base;
        self.dirty.truncated(active, new_end);
        Ok(())
    }

    /// The batch of segment `number` that contains `end`: its position and base offset, and the largest timestamp
    /// of the batches from the index entry before it on.
    fn locate(&self, number: usize, end: Offset) -> Result<(u64, Offset, Option<i64>), LogError> {
        let (segment, from) = {
            let view = self.shared.read();
            let segment = &view.segments[number];
            // From below `end`, so that what stays behind the last index entry is walked in full.
            let below = (end - segment.base).saturating_sub(1);
            (segment.without_index(), segment.index.floor(below))
        };
        let mut kept = None;
        let found = segment.walk(from, |found| {
            let contains_end = found.header.next_offset() > end;
            if !contains_end {
                kept = kept.max(Some(found.header.max_timestamp));
            }
            contains_end
        })?;
        let found = found.map(|found| (found.position, found.header.base_offset, kept));
        // The view says that `end` is below the segment's end, so its batches have to reach that far.
        let damage = crate::Damage::Missing { trusted_end: segment.end };
        found.ok_or_else(|| segment.corrupt(segment.len, damage))
    }

    /// Takes what is cut out of readers' sight before a byte of it changes. Returns the segments to remove.
    fn hide(&self, number: usize, position: u64, new_end: Offset, kept: Option<i64>) -> Vec<Segment> {
        let mut view = self.shared.write();
        let removed = view.segments.split_off(number + 1);
        view.active_mut().truncate(position, new_end, kept);
        view.truncations += 1;
        removed
    }

    /// Cuts durably. Segments go last first, and before the one in front of them is cut: at no moment is there a
    /// gap that hides the rest.
    fn cut(&self, removed: &[Segment], position: u64) -> Result<(), LogError> {
        for segment in removed.iter().rev() {
            self.fs.remove_file(&segment.path).map_err(LogError::io("removing segment", &segment.path))?;
        }
        if !removed.is_empty() {
            self.fs.sync_dir(&self.dir).map_err(LogError::io("syncing folder", &self.dir))?;
        }
        let active = self.shared.read().active().without_index();
        let cut = active.file.set_len(position);
        let cut = if mutant!(TruncateWithoutSync) { cut } else { cut.and_then(|()| active.file.sync_data()) };
        cut.map_err(LogError::io("truncating segment", &active.path))
    }

    fn poison_on_error<T>(&self, result: Result<T, LogError>) -> Result<T, LogError> {
        result.inspect_err(|_| self.shared.poison())
    }

    /// The files with unflushed bytes, as a ticket; `None` if there are none. From now on they count as clean, so
    /// the ticket has to be settled.
    pub fn take_flush(&mut self) -> Option<FlushTicket> {
        let end = self.log_end_offset();
        self.dirty.take(&self.fs, &self.shared, end)
    }

    /// A reader of this log.
    pub fn reader(&self) -> LogReader {
        LogReader::new(Arc::clone(&self.shared), self.config.index_interval.0)
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

    /// How many segment files, and so open descriptors, the log has.
    pub fn segment_count(&self) -> usize {
        self.shared.read().segments.len()
    }

    /// The epochs in the log with the offset of the first batch of each, ascending.
    pub fn epochs(&self) -> &[(LeaderEpoch, Offset)] {
        &self.epochs
    }

    /// Epoch of the last batch; `None` for an empty log.
    pub fn last_epoch(&self) -> Option<LeaderEpoch> {
        self.epochs.last().map(|(epoch, _)| *epoch)
    }

    /// Whether an earlier write or flush failed, so that nothing can be written any more.
    pub fn is_poisoned(&self) -> bool {
        self.shared.is_poisoned()
    }
}

/// What was read above the flushed end may be in the system's memory only, left by a process that was killed or by a
/// flush that failed.
fn write_unflushed_again(segment: &Segment, flushed_end: Offset) -> Result<(), LogError> {
    // `-` of offsets is 0 where the flushed end lies below the segment.
    let from = segment.index.floor(flushed_end - segment.base);
    write_again(&*segment.file, from, segment.len).map_err(LogError::io("writing segment", &segment.path))
}

fn create_segment(fs: &dyn Fs, dir: &Path, base: Offset) -> Result<Segment, LogError> {
    let path = dir.join(segment::file_name(base));
    let file = fs.open(&path, OpenMode::CreateNew).map_err(LogError::io("creating segment", &path))?;
    Ok(Segment::new(base, path, file))
}
