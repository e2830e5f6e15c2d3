//! Shortening the log.

use std::io;
use std::sync::Arc;

use holdfast_core::record_batch::RecordBatch;
use holdfast_core::{Offset, mutant};

use super::PartitionLog;
use crate::compaction::Suffix;
use crate::flush::Part;
use crate::index::{ActiveIndex, Between, Entry, Written};
use crate::index_file::{self, IndexFile};
use crate::segment::{self, Segment};
use crate::{Damage, File, LogError, OpenMode};

/// Bytes of a segment that are copied at once.
const COPIED_AT_ONCE: usize = 1 << 20;

/// What is left of a segment that is cut.
struct Left {
    segment: Segment,
    index: ActiveIndex,
    /// The part below the end of a filler that contains it. It is the last batch of the segment.
    filler: Option<RecordBatch>,
}

impl PartitionLog {
    /// Shortens the log: afterwards it ends at `end`, or at the base of the batch that contains `end` and is no filler. Durable
    /// on return. Nothing happens if the log ends at or below `end` already. What was cleaned above is not clean any more: what
    /// will stand there is something else.
    ///
    /// Whoever keeps a [`Recovery::trusted_end`](crate::Recovery::trusted_end) lowers it durably **before**: a crash after
    /// the cut would otherwise look like lost data.
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
        let shared = Arc::clone(&self.shared);
        let _nothing_is_repaired = shared.stand_still();
        shared.finish_merge()?;
        shared.compaction.lower(&*shared.fs, &shared.dir, end)?;
        let number = self.shared.read().segment_of(end);
        let Left { segment, index, filler } = self.part_below(number, end)?;
        // Out of readers' sight before a byte of it changes.
        let removed = self.shared.write().truncate(number, segment, index);
        if !removed.is_empty() {
            self.active_since = None;
        }
        let cut = self.cut(&removed, segment, filler.as_ref());
        self.poison_on_error(cut)?;
        self.dirty.truncated(segment.base, segment.end);
        Ok(())
    }

    /// What of segment `number` lies below the batch that contains `end`.
    fn part_below(&self, number: usize, end: Offset) -> Result<Left, LogError> {
        let (segment, lookup, blocks, tail) = {
            let view = self.shared.read();
            let segment = view.segments[number];
            let is_active = number + 1 == view.segments.len();
            let blocks = if is_active { view.index.written.blocks } else { segment.blocks };
            let tail = if is_active { view.index.tail().to_vec() } else { Vec::new() };
            (segment, view.look_up(number, |entry| is_below(entry, segment, end)), blocks, tail)
        };
        let between = self.shared.finish(lookup, segment.base, |entry| is_below(entry, segment, end));
        let (mut left, filler) = self.walk_up_to(segment, between, end)?;
        let mut index = self.index_below(left, blocks, tail).map_or_else(|| self.index_of(left), Ok)?;
        if let Some(filler) = &filler {
            let relative = filler.header().base_offset - left.base;
            index.add(relative, left.len, left.max_timestamp, self.config.index_interval.0);
            left.push(filler.header());
        }
        Ok(Left { segment: left, index, filler })
    }

    /// Walks from the last entry below `end` to the batch that contains it. What lies in front of that one, and the part below
    /// `end` of it where it is a filler.
    fn walk_up_to(
        &self,
        segment: Segment,
        between: Option<Between>,
        end: Offset,
    ) -> Result<(Segment, Option<RecordBatch>), LogError> {
        let mut left = Segment::new(segment.base);
        if let Some(Between { before: Some(entry), .. }) = between {
            left.len = entry.position.into();
            left.end = segment.base + u64::from(entry.relative);
            left.max_timestamp = Some(entry.max_before).filter(|time| *time != i64::MIN);
        }
        let held = self.shared.hold(segment)?;
        let found = held.get().walk(left.len, |found| {
            let contains_end = found.header.next_offset() > end;
            if !contains_end {
                left.push(&found.header);
            }
            contains_end
        })?;
        // The view says that `end` is below the segment's end, so its batches have to reach that far.
        let damage = Damage::Missing { trusted_end: segment.end };
        let header = found.ok_or_else(|| held.get().corrupt(segment.len, damage))?.header;
        let epoch = header.epoch.filter(|_| header.is_filler());
        Ok((left, epoch.and_then(|epoch| RecordBatch::filler(header.base_offset, end, epoch))))
    }

    /// The index of `left`, from its entries in `blocks` of the file and in `tail` behind them. `None` if the file is bad.
    fn index_below(&self, left: Segment, blocks: u32, mut tail: Vec<Entry>) -> Option<ActiveIndex> {
        tail.retain(|entry| u64::from(entry.position) < left.len);
        let mut written = Written::default();
        if blocks > 0 {
            let path = index_file::path(&self.shared.dir, left.base);
            let file = self.shared.fs.open(&path, OpenMode::Existing).ok()?;
            let (kept, mut entries) = IndexFile { file: &*file, base: left.base }.cut(blocks, left.len)?;
            entries.append(&mut tail);
            (written, tail) = (kept, entries);
        } else if tail.is_empty() && left.len > 0 {
            return None; // A segment that was sealed without an index.
        }
        let last = tail.last().map(|entry| entry.position);
        Some(ActiveIndex::resumed(written, tail, last))
    }

    /// The index of `left`, from its batches.
    fn index_of(&self, left: Segment) -> Result<ActiveIndex, LogError> {
        let (mut index, mut known) = (ActiveIndex::default(), Segment::new(left.base));
        self.shared.hold(left)?.get().walk(0, |found| {
            let relative = found.header.base_offset - left.base;
            index.add(relative, found.position, known.max_timestamp, self.config.index_interval.0);
            known.push(&found.header);
            false
        })?;
        Ok(index)
    }

    /// Cuts durably. Segments go last first, and before the one in front of them is cut: at no moment is there a
    /// gap that hides the rest.
    fn cut(
        &mut self,
        removed: &[Segment],
        left: Segment,
        filler: Option<&RecordBatch>,
    ) -> Result<(), LogError> {
        let (fs, dir) = (Arc::clone(&self.shared.fs), self.shared.dir.clone());
        self.shared.noted().forget_above(&*fs, &dir, left.end)?;
        for segment in removed.iter().rev() {
            let path = segment::path(&dir, segment.base);
            fs.remove_file(&path).map_err(LogError::io("removing segment", &path))?;
        }
        if !removed.is_empty() {
            fs.sync_dir(&dir).map_err(LogError::io("syncing folder", &dir))?;
        }
        if let Some(filler) = filler {
            return self.write_anew(left, filler);
        }
        let held = self.shared.hold(left)?;
        let file = held.get();
        let cut = file.file.set_len(left.len);
        let cut = if mutant!(TruncateWithoutSync) { cut } else { cut.and_then(|()| file.file.sync_data()) };
        cut.map_err(LogError::io("truncating segment", file.path))?;
        self.cut_index()?;
        self.write_index()
    }

    /// Ends the segment with `filler`, at the place of a longer one. There is no moment at which neither is there: in place, a
    /// part of the one could be left with a part of the other.
    fn write_anew(&mut self, left: Segment, filler: &RecordBatch) -> Result<(), LogError> {
        let (fs, dir) = (Arc::clone(&self.shared.fs), self.shared.dir.clone());
        let path = segment::path(&dir, left.base);
        let temporary = Suffix::Cleaned.of(&path);
        let file =
            fs.open(&temporary, OpenMode::Truncate).map_err(LogError::io("creating segment", &temporary))?;
        let kept = left.len - filler.bytes().len() as u64;
        let held = self.shared.hold(left)?;
        let written = copy(&**held.file(), &*file, kept)
            .and_then(|()| file.write_all_at(&[filler.bytes()], kept))
            .and_then(|()| file.sync_data())
            .and_then(|()| fs.rename(&temporary, &path))
            .and_then(|()| fs.sync_dir(&dir));
        written.map_err(LogError::io("truncating segment", &path))?;
        // It is flushed, and nobody is to write to the one before.
        self.dirty.forget_file(left.base, Part::Segment);
        self.cut_index()?;
        self.write_index()
    }
}

/// The first `len` bytes.
fn copy(from: &dyn File, to: &dyn File, len: u64) -> io::Result<()> {
    let mut position = 0;
    while position < len {
        let some = usize::try_from(len - position).unwrap_or(usize::MAX).min(COPIED_AT_ONCE);
        to.write_all_at(&[&from.read_bytes(position, some)?], position)?;
        position += some as u64;
    }
    Ok(())
}

fn is_below(entry: &Entry, segment: Segment, end: Offset) -> bool {
    u64::from(entry.relative) < end - segment.base
}
