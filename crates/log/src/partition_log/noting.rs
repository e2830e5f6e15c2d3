//! Writing checkpoints.

use holdfast_core::{LeaderEpoch, Offset};

use super::PartitionLog;
use crate::checkpoint::{self, Checkpoint, LastBatch};
use crate::flush::Part;
use crate::fs::temporary_path;
use crate::index::Entry;
use crate::index_file;
use crate::noted::Place;
use crate::{LogError, OpenMode};

impl PartitionLog {
    /// Bytes of batches behind the last checkpoint: what the next opening will have to read.
    pub fn bytes_since_checkpoint(&self) -> u64 {
        let newest = self.shared.noted().newest;
        let view = self.shared.read();
        // Nothing, where it is about a segment that was trimmed.
        let newest = newest.filter(|place| view.segments.iter().any(|it| it.base == place.segment));
        let (from, noted) = newest.map_or((Offset::ZERO, 0), |place| (place.segment, place.len));
        let behind = view.segments.iter().rev().take_while(|segment| segment.base >= from);
        behind.map(|segment| segment.len).sum::<u64>().saturating_sub(noted)
    }

    /// Notes what is known of the log up to its end, so that the next opening need not read it: `snapshot` is what the
    /// owner [derives](crate::Derived) from exactly the batches that are in the log now. Durable with the next flush; before that,
    /// the checkpoint before this one holds.
    ///
    /// # Errors
    /// A failure poisons the log, except for [`LogError::Full`]: then the checkpoints before this one hold.
    pub fn checkpoint(&mut self, snapshot: &[u8]) -> Result<(), LogError> {
        self.shared.check_alive()?;
        let end = self.log_end_offset();
        if self.bytes_since_checkpoint() == 0 {
            return Ok(());
        }
        let epoch = self.position().epoch;
        let noted = self.note(end, epoch, snapshot);
        self.poison_unless_full(noted)
    }

    fn note(&mut self, end: Offset, epoch: LeaderEpoch, snapshot: &[u8]) -> Result<(), LogError> {
        // A sealed segment may be replaced meanwhile.
        let last = self.reader().untruncated(end, || self.last_batch(end, epoch))?;
        let (active, index) = {
            let view = self.shared.read();
            (*view.active(), view.index.clone())
        };
        if index.written.blocks > 0 {
            self.unflushed(active.base, Part::Index)?;
        }
        let checkpoint = Checkpoint {
            offset: end,
            last,
            active,
            active_since: self.active_since,
            index,
            epochs: self.epochs(),
            snapshot: snapshot.to_vec(),
        };
        let place = Place { offset: end, segment: active.base, len: active.len };
        self.write_checkpoint(&checkpoint.encode(), place)?;
        self.remove_bad_indexes()
    }

    /// The batch that ends at `end`, the end of the log.
    fn last_batch(&self, end: Offset, epoch: LeaderEpoch) -> Result<LastBatch, LogError> {
        let before = |entry: &Entry, base: Offset| u64::from(entry.relative) < end - base;
        let (segment, lookup) = {
            let view = self.shared.read();
            let number = view.segment_of(Offset(end.0.saturating_sub(1)));
            let segment = view.segments[number];
            (segment, view.look_up(number, |entry| before(entry, segment.base)))
        };
        let between = self.shared.finish(lookup, segment.base, |entry| before(entry, segment.base));
        let from = between.unwrap_or_default().before.map_or(0, |entry| entry.position.into());
        let held = self.shared.hold(segment)?;
        let found = held.get().walk(from, |found| found.header.next_offset() == end)?;
        let damage = crate::Damage::Missing { trusted_end: end };
        let found = found.ok_or_else(|| held.get().corrupt(segment.len, damage))?;
        let crc = found.header.crc;
        Ok(LastBatch { segment: segment.base, position: found.position, epoch, crc })
    }

    fn write_checkpoint(&mut self, content: &[u8], place: Place) -> Result<(), LogError> {
        let (fs, dir) = (&self.shared.fs, &self.shared.dir);
        let mut noted = self.shared.noted();
        let newest = checkpoint::newest_path(dir);
        let temporary = temporary_path(&newest);
        let failed = |error| LogError::io("writing checkpoint", &newest)(error);
        let file = fs.open(&temporary, OpenMode::Truncate).map_err(failed)?;
        if let Err(error) = file.write_all_at(&[content], 0) {
            // What is in the way of a full disk goes; if not, the next attempt empties it.
            let _ = fs.remove_file(&temporary);
            return Err(failed(error));
        }
        if noted.newest.is_some() {
            fs.rename(&newest, &checkpoint::older_path(dir)).map_err(failed)?;
            noted.older = noted.newest.take();
        }
        fs.rename(&temporary, &newest).map_err(failed)?;
        noted.newest = Some(place);
        self.dirty.mark_file(place.offset, Part::Checkpoint, &file);
        self.dirty.mark_dir(dir.clone());
        Ok(())
    }

    /// Index files that readers found to be bad: the next opening builds them anew.
    fn remove_bad_indexes(&mut self) -> Result<(), LogError> {
        let (fs, dir) = (&self.shared.fs, &self.shared.dir);
        let active = self.shared.read().active().base;
        for base in self.shared.take_bad_indexes().into_iter().filter(|base| *base < active) {
            let path = index_file::path(dir, base);
            match fs.remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(LogError::io("removing index", &path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
