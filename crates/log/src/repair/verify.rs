//! Verifying a log while it is used, and reading what is whole of it for others.

use std::ops::Range;
use std::path::PathBuf;

use bytes::Bytes;
use holdfast_core::record_batch::{BatchError, BatchHeader, RecordBatch};
use holdfast_core::{LeaderEpoch, Offset};

use super::run::{Bad, Place, Run};
use crate::error::Damage;
use crate::index::{Between, Entry};
use crate::segment::Segment;
use crate::shared::{Held, Shared};
use crate::{LogError, LogReader};

/// How often batches are read again that were bad a moment ago.
const ATTEMPTS: usize = 3;

/// What was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Everything below it is whole, from the batch that was asked for on; where something is damaged, its first offset.
    pub end: Offset,
    /// Bytes that were looked at.
    pub bytes: u64,
    /// The damage that ended it.
    pub damage: Option<DamagedRange>,
}

/// A part of a segment that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("offsets {from} to {to} cannot be read: {bytes} bytes from byte {position} of {segment:?} on")]
pub struct DamagedRange {
    /// The first of them.
    pub from: Offset,
    /// The first behind them that can be read; the end of the segment where none can be made out (exclusive).
    pub to: Offset,
    /// The file.
    pub segment: PathBuf,
    /// First byte in it.
    pub position: u64,
    /// Bytes up to `to`.
    pub bytes: u64,
    /// What is wrong at `from`.
    #[source]
    pub source: Damage,
    /// First offset of the file.
    pub(super) base: Offset,
    /// How often the log had been truncated.
    pub(super) truncations: u64,
}

impl From<DamagedRange> for LogError {
    fn from(range: DamagedRange) -> LogError {
        let DamagedRange { from, segment, position, source, .. } = range;
        LogError::Corrupt { offset: from, segment, position, source }
    }
}

/// Batches whose header, offset, epoch and checksum are right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WholeBatches {
    /// All their bytes, end to end.
    pub bytes: Bytes,
    /// The batches. They share the bytes.
    pub batches: Vec<RecordBatch>,
}

/// A segment, and what of the log's shape was so when it was looked up.
struct Look {
    held: Held,
    segment: Segment,
    sealed: bool,
    truncations: u64,
}

impl LogReader {
    /// Verifies header, offset, epoch and checksum of every batch from the one that contains `from` on: up to `max_bytes`
    /// of them but at least that one, none at or above `below`, none behind the segment's end. What cannot be read from
    /// the disk counts as damage.
    ///
    /// # Errors
    /// Those of [`read`](LogReader::read), but for damage.
    pub fn verify(&self, from: Offset, below: Offset, max_bytes: u64) -> Result<Verified, LogError> {
        self.untruncated(from, || {
            let from = from.max(self.log_start_offset());
            match self.look(from, below)? {
                Some(look) => {
                    let start = self.log_start_offset();
                    Ok(self.verify_in(&look, from..below, max_bytes, start).0)
                }
                None => Ok(Verified { end: from, bytes: 0, damage: None }),
            }
        })
    }

    fn look(&self, from: Offset, below: Offset) -> Result<Option<Look>, LogError> {
        let (segment, sealed, truncations) = {
            let view = self.shared.read();
            if from >= below.min(view.end()) {
                return Ok(None);
            }
            let number = view.segment_of(from);
            (view.segments[number], number + 1 < view.segments.len(), view.truncations)
        };
        let held = self.shared.hold(segment)?;
        Ok(Some(Look { held, segment, sealed, truncations }))
    }

    /// Damage that ends at `aside` or below is stepped over. Also returns the last batch that is whole, and where it is.
    fn verify_in(
        &self,
        look: &Look,
        wanted: Range<Offset>,
        max_bytes: u64,
        aside: Offset,
    ) -> (Verified, Option<(Place, BatchHeader)>) {
        let (from, mut last) = (wanted.start, None);
        let epoch = |header: &BatchHeader| wrong_epoch(&self.shared, header);
        let below = wanted.end.min(look.segment.end);
        let mut run = Run::new(&**look.held.file(), look.segment.len);
        let mut start =
            self.place_before(look, |entry| u64::from(entry.relative) <= from - look.segment.base);
        let mut place = start;
        while place.offset < below && (place.offset <= from || place.position - start.position < max_bytes) {
            match run.check(place, &epoch) {
                Ok(header) => {
                    last = Some((place, header));
                    place = place.behind(&header);
                }
                // Where the index leads to may be where it is wrong: what lies before shows whether a batch begins there.
                Err(_) if place == start && start.position > 0 => {
                    start = self.place_before(look, |entry| u64::from(entry.position) < start.position);
                    place = start;
                }
                Err(bad) => {
                    let bytes = place.position - start.position;
                    let range = self.damaged(look, &mut run, place, bad);
                    if range.to > aside {
                        return (Verified { end: place.offset, bytes, damage: Some(range) }, last);
                    }
                    place = Place { position: place.position + range.bytes, offset: range.to };
                }
            }
        }
        if look.sealed {
            // So that the next round asks the disk, and what is looked at for this alone takes nobody's memory.
            look.held.file().forget(start.position, place.position - start.position);
        }
        (Verified { end: place.offset, bytes: place.position - start.position, damage: None }, last)
    }

    /// The batch that contains `from`, and nothing of what is around it: that may be what cannot be read.
    fn read_alone(&self, from: Offset, below: Offset) -> Result<Bytes, LogError> {
        self.untruncated(from, || {
            let Some(look) = self.look(from, below)? else { return Ok(Bytes::new()) };
            let (verified, last) = self.verify_in(&look, from..below, 0, from);
            if let Some(range) = verified.damage {
                return Err(range.into());
            }
            let Some((place, header)) = last.filter(|(_, header)| header.next_offset() <= below) else {
                return Ok(Bytes::new());
            };
            let read = look.held.file().read_bytes(place.position, header.length as usize);
            read.map_err(LogError::io("reading segment", look.held.get().path))
        })
    }

    /// The last entry of the index for which that holds; else the segment's begin.
    fn place_before(&self, look: &Look, before: impl Fn(&Entry) -> bool) -> Place {
        let base = look.segment.base;
        let found = self.search(look, before).before;
        let found = found.filter(|entry| u64::from(entry.position) < look.segment.len);
        found.map_or(Place { position: 0, offset: base }, |entry| place_of(base, &entry))
    }

    /// Searches the segment's index. Nothing is found where it is of no use.
    fn search(&self, look: &Look, before: impl Fn(&Entry) -> bool) -> Between {
        let base = look.segment.base;
        let lookup = {
            let view = self.shared.read();
            let Ok(number) = view.segments.binary_search_by_key(&base, |segment| segment.base) else {
                return Between::default(); // It is gone meanwhile.
            };
            view.look_up(number, &before)
        };
        self.shared.finish(lookup, base, &before).unwrap_or_default()
    }

    fn damaged(&self, look: &Look, run: &mut Run<'_>, place: Place, bad: Bad) -> DamagedRange {
        let epoch = |header: &BatchHeader| wrong_epoch(&self.shared, header);
        let end = look.segment.end;
        let next = run.behind(place, &bad, Some(end), &epoch);
        let next = next.or_else(|| self.next_indexed(look, run, place));
        let to = next.unwrap_or(Place { position: look.segment.len, offset: end });
        DamagedRange {
            from: place.offset,
            to: to.offset,
            segment: look.held.get().path.to_owned(),
            position: place.position,
            bytes: to.position - place.position,
            source: bad.damage,
            base: look.segment.base,
            truncations: look.truncations,
        }
    }

    /// The first batch behind `place` that the index knows of and that is whole.
    fn next_indexed(&self, look: &Look, run: &mut Run<'_>, place: Place) -> Option<Place> {
        let epoch = |header: &BatchHeader| wrong_epoch(&self.shared, header);
        let mut behind = place;
        loop {
            let entry = self.search(look, |entry| u64::from(entry.position) <= behind.position).at?;
            let next = place_of(look.segment.base, &entry);
            if next.position <= behind.position || next.position >= look.segment.len {
                return None;
            }
            if next.offset > place.offset && run.check(next, &epoch).is_ok() {
                return Some(next);
            }
            behind = next;
        }
    }

    /// [Reads](Self::read), and verifies what was read: whole batches with the epochs that they have in this log. Ends
    /// before the first that is damaged.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] where that is the first one, [`LogError::Io`] where it cannot be read.
    pub fn read_verified(
        &self,
        from: Offset,
        below: Offset,
        max_bytes: usize,
    ) -> Result<WholeBatches, LogError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let bytes = match self.read(from, below, max_bytes) {
                Err(LogError::Io { .. } | LogError::Corrupt { .. }) => self.read_alone(from, below)?,
                read => read?,
            };
            let (batches, problem) = whole(bytes.clone(), |header| wrong_epoch(&self.shared, header));
            let problem = match problem {
                Some(problem) if batches.is_empty() => problem,
                _ => {
                    let len = batches.iter().map(|batch| batch.bytes().len()).sum::<usize>();
                    return Ok(WholeBatches { bytes: bytes.slice(..len), batches });
                }
            };
            // Where exactly. It may be repaired, or cut, since.
            match self.verify(from, below, 0)?.damage {
                Some(range) => return Err(range.into()),
                None if attempts < ATTEMPTS => {}
                None => {
                    let (offset, segment) = (from, self.shared.dir.clone());
                    return Err(LogError::Corrupt { offset, segment, position: 0, source: problem });
                }
            }
        }
    }
}

/// The batches in front, up to the first that is not whole, and what is wrong with that one.
fn whole(
    mut bytes: Bytes,
    wrong_epoch: impl Fn(&BatchHeader) -> Option<Damage>,
) -> (Vec<RecordBatch>, Option<Damage>) {
    let mut batches = Vec::new();
    while !bytes.is_empty() {
        let taken = BatchHeader::decode(&bytes).and_then(|header| {
            let (have, need) = (bytes.len(), header.length as usize);
            if have < need {
                return Err(BatchError::Truncated { have, need });
            }
            RecordBatch::check_crc(bytes.split_to(need))
        });
        let problem = match &taken {
            Ok(batch) => wrong_epoch(batch.header()),
            Err(problem) => Some(problem.clone().into()),
        };
        match taken {
            Ok(batch) if problem.is_none() => batches.push(batch),
            _ => return (batches, problem),
        }
    }
    (batches, None)
}

/// What is wrong with the epoch of a batch of the log, which knows where each epoch begins.
pub(super) fn wrong_epoch(shared: &Shared, header: &BatchHeader) -> Option<Damage> {
    let view = shared.read();
    if header.base_offset < view.start() {
        return None; // It was trimmed: nothing is known of it any more.
    }
    let expected = view.epoch_at(header.base_offset);
    let last = expected.unwrap_or(LeaderEpoch::ZERO);
    (header.epoch != expected).then_some(Damage::Epoch { last, found: header.epoch })
}

fn place_of(base: Offset, entry: &Entry) -> Place {
    Place { position: entry.position.into(), offset: base + u64::from(entry.relative) }
}
