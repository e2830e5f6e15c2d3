//! Writing batches of a peer where the own ones cannot be read.

use std::path::Path;

use holdfast_core::Offset;
use holdfast_core::record_batch::{BatchHeader, RecordBatch};

use super::run::{EpochCheck, Place, Run};
use super::splice::{Splice, within};
use super::verify::{DamagedRange, wrong_epoch};
use crate::error::Damage;
use crate::segment::Segment;
use crate::shared::{Held, Shared};
use crate::{Fs, LogError, LogReader, OpenMode};

/// Why a damaged part of a log was not mended.
#[derive(Debug, thiserror::Error)]
pub enum MendError {
    /// The batches are not those that were there: nothing was written.
    #[error("the batch for offset {offset} does not belong there: {problem}")]
    DoesNotFit {
        /// Where.
        offset: Offset,
        /// What is wrong.
        problem: Misfit,
    },
    /// The log was cut or deleted meanwhile: nothing was written.
    #[error("the log has changed meanwhile")]
    Changed,
    /// Writing failed, or what was written is not what is read.
    #[error("writing what a peer holds")]
    Log(#[from] LogError),
}

/// What is wrong with a batch for a place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// There is none.
    #[error("no batch was given")]
    Nothing,
    /// It has another offset.
    #[error("it has offset {found}")]
    Offset {
        /// Its offset.
        found: Offset,
    },
    /// It is there already, and is not what is wrong.
    #[error("it is what is there")]
    Same,
    /// It has another epoch, or that of no batch that may be there.
    #[error(transparent)]
    Epoch(Damage),
    /// It does not end where the log goes on.
    #[error("it ends at offset {offset} and byte {position}, where no batch of this log begins")]
    End {
        /// Offset behind it.
        offset: Offset,
        /// Byte behind it.
        position: u64,
    },
    /// It is of another length than what was there, and stands where batches are appended.
    #[error("it is of another length than what was there: its segment has to be sealed first")]
    Unsealed,
    /// What is damaged can only be replaced as a whole, and more is needed for that.
    #[error(
        "it ends at offset {upto}, and has to be replaced up to {to} at once: it is of another length than what was there"
    )]
    Short {
        /// Offset behind the last batch.
        upto: Offset,
        /// Offset behind what is damaged.
        to: Offset,
    },
}

impl LogReader {
    /// Puts batches of a peer, which it holds as committed, where `range` cannot be read, and returns the offset behind
    /// them. They have to fill it: dense, with the epochs that this log knows, and up to where it goes on by itself. So
    /// many of them as are needed are written; where they end earlier, what is behind is still to be repaired. Durable, and
    /// read back from the disk.
    ///
    /// Batches of one that was compacted may be of another length than what was there. Then they have to come
    /// [as far as the range](Misfit::Short), and the segment, which is not appended to any more, is written anew.
    ///
    /// Call it only for what is below the high watermark: nobody cuts there without waiting for this to end.
    ///
    /// # Errors
    /// [`MendError::Log`] where writing failed: the range is damaged still. The log is not poisoned by that: the disk said
    /// so to this handle alone.
    pub fn mend(&self, range: &DamagedRange, batches: &[RecordBatch]) -> Result<Offset, MendError> {
        let owned = self.shared.stand_still();
        if !*owned {
            return Err(MendError::Changed);
        }
        self.shared.check_alive()?;
        let (segment, sealed) = {
            let view = self.shared.read();
            let known = view.segments.iter().find(|segment| segment.base == range.base).copied();
            let same = view.truncations == range.truncations;
            let segment =
                known.filter(|segment| same && range.to <= segment.end).ok_or(MendError::Changed)?;
            (segment, view.active().base != segment.base)
        };
        let held = self.shared.hold(segment)?;
        let mut run = Run::new(&**held.file(), segment.len);
        let place = Place { position: range.position, offset: range.from };
        let end = Place { position: range.position + range.bytes, offset: range.to };
        let epoch = |header: &BatchHeader| wrong_epoch(&self.shared, header);
        let batches = within(batches, range.from, range.to);
        let fits = fitting(&mut run, place, Some(end), &batches, &epoch);
        let other_length = matches!(fits, Err(MendError::DoesNotFit { problem: Misfit::End { .. }, .. }));
        if other_length && !sealed {
            return Err(MendError::DoesNotFit { offset: range.from, problem: Misfit::Unsealed });
        }
        if !other_length {
            let (fitting, behind) = fits?;
            self.forget_clean(range.from)?;
            write_durably(&*self.shared.fs, held.get().path, place, fitting)?;
            return Ok(behind.offset);
        }
        check_epochs(&batches, &epoch)?;
        self.forget_clean(range.from)?;
        drop(owned);
        self.splice(range, segment, &held, &batches)
    }

    /// What was cleaned here may not have been where the batches come from. Noted before they are written.
    fn forget_clean(&self, from: Offset) -> Result<(), LogError> {
        self.shared.compaction.lower(&*self.shared.fs, &self.shared.dir, from)
    }

    /// Copies the segment around the batches, while the log is used, and puts it in the place of the old one.
    fn splice(
        &self,
        range: &DamagedRange,
        segment: Segment,
        held: &Held,
        batches: &[RecordBatch],
    ) -> Result<Offset, MendError> {
        let Shared { fs, dir, .. } = &*self.shared;
        let hole = range.position..range.position + range.bytes;
        let splice = Splice { file: &**held.file(), len: segment.len, hole, batches };
        splice.check_reaches(range.to)?;
        let new = splice.rewrite(&**fs, dir, segment, self.index_interval())?;
        let still = self.shared.stand_still();
        if !*still || self.shared.read().truncations != range.truncations {
            new.discard(&**fs);
            return Err(MendError::Changed);
        }
        self.shared.finish_merge()?;
        if self.shared.replace_segments(&still, &[segment], new)? {
            Ok(range.to)
        } else {
            Err(MendError::Changed)
        }
    }
}

/// Whether batches are what may follow each other there: their lengths are of no matter.
pub(super) fn check_epochs(batches: &[RecordBatch], epoch: EpochCheck<'_>) -> Result<(), MendError> {
    let mut expected = None;
    for header in batches.iter().map(RecordBatch::header) {
        let offset = expected.unwrap_or(header.base_offset);
        let misfit = |problem| Err(MendError::DoesNotFit { offset, problem });
        if header.base_offset != offset {
            return misfit(Misfit::Offset { found: header.base_offset });
        }
        if let Some(damage) = epoch(header) {
            return misfit(Misfit::Epoch(damage));
        }
        expected = Some(header.next_offset());
    }
    Ok(())
}

/// Those of the batches that are to be written from `place` on, and where the last of them ends: the first place where
/// the log goes on by itself, which is `end` at the latest if that is known.
pub(super) fn fitting<'b>(
    run: &mut Run<'_>,
    place: Place,
    end: Option<Place>,
    batches: &'b [RecordBatch],
    epoch: EpochCheck<'_>,
) -> Result<(&'b [RecordBatch], Place), MendError> {
    let mut at = place;
    for (number, header) in batches.iter().map(RecordBatch::header).enumerate() {
        let misfit = |problem| MendError::DoesNotFit { offset: at.offset, problem };
        if header.base_offset != at.offset {
            return Err(misfit(Misfit::Offset { found: header.base_offset }));
        }
        if let Some(damage) = epoch(header) {
            return Err(misfit(Misfit::Epoch(damage)));
        }
        let next = at.behind(header);
        let beyond = end
            .is_some_and(|end| next != end && (next.position >= end.position || next.offset >= end.offset));
        if beyond {
            return Err(misfit(Misfit::End { offset: next.offset, position: next.position }));
        }
        at = next;
        if end == Some(at) || run.check(at, epoch).is_ok() {
            return Ok((&batches[..=number], at));
        }
    }
    if batches.is_empty() {
        return Err(MendError::DoesNotFit { offset: place.offset, problem: Misfit::Nothing });
    }
    Ok((batches, at))
}

/// Writes batches end to end, makes them durable, and reads them back from the disk.
pub(super) fn write_durably(
    fs: &dyn Fs,
    path: &Path,
    place: Place,
    batches: &[RecordBatch],
) -> Result<(), LogError> {
    let file = fs.open(path, OpenMode::Apart).map_err(LogError::io("opening segment", path))?;
    let buffers: Vec<&[u8]> = batches.iter().map(|batch| &batch.bytes()[..]).collect();
    let written = file.write_all_at(&buffers, place.position).and_then(|()| file.sync_data());
    written.map_err(LogError::io("repairing segment", path))?;
    file.forget(place.position, buffers.iter().map(|buffer| buffer.len() as u64).sum());
    let mut at = place;
    for batch in batches {
        let read = file.read_bytes(at.position, batch.bytes().len());
        if read.map_err(LogError::io("reading what was repaired in", path))? != *batch.bytes() {
            let problem = "the disk does not keep what is written to it".to_owned();
            let (offset, segment, position) = (at.offset, path.to_owned(), at.position);
            return Err(LogError::Corrupt {
                offset,
                segment,
                position,
                source: Damage::Unreadable { problem },
            });
        }
        at = at.behind(batch.header());
    }
    Ok(())
}
