//! Reading a log while it is appended to, on any number of threads.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_core::Offset;
use holdfast_core::record_batch::{BatchError, BatchHeader, HEADER_LEN};

use crate::error::Damage;
use crate::index::Entry;
use crate::segment::{Found, Segment, SegmentFile};
use crate::shared::{Held, Shared};
use crate::{LogConfig, LogError};

/// How often a read is repeated because the log was truncated meanwhile.
const ATTEMPTS: usize = 8;

/// Bytes for which memory is taken because a header says that its batch has so many. Of one that is to be larger the checksum
/// is verified first: it is more than any broker takes.
const BELIEVED: usize = 32 << 20;

/// Reads a log. Cheap to clone; never waits for the disk writes of an append.
#[derive(Debug, Clone)]
pub struct LogReader {
    pub(crate) shared: Arc<Shared>,
    index_interval: usize,
    /// Size of a segment in bytes, if it can be chosen.
    pub(crate) segment_size: u64,
}

/// A piece of a segment to read from.
struct Plan {
    held: Held,
    /// First byte to look at: a batch that is not behind the one wanted.
    position: u64,
    /// First byte that need not be looked at: every batch wanted ends at or before it.
    limit: u64,
}

/// What to read.
#[derive(Clone, Copy)]
struct Wanted {
    from: Offset,
    below: Offset,
    max_bytes: usize,
}

impl LogReader {
    pub(crate) fn new(shared: Arc<Shared>, config: &LogConfig) -> LogReader {
        let index_interval = usize::try_from(config.index_interval.0).unwrap_or(usize::MAX);
        LogReader { shared, index_interval, segment_size: config.segment_size.0 }
    }

    /// Bytes of a segment per entry of its index.
    pub(crate) fn index_interval(&self) -> u64 {
        self.index_interval as u64
    }

    /// First offset in the log.
    pub fn log_start_offset(&self) -> Offset {
        self.shared.read().start()
    }

    /// Offset behind the last batch (exclusive).
    pub fn log_end_offset(&self) -> Offset {
        self.shared.read().end()
    }

    /// Contiguous whole batches from the one that contains `from` on: up to `max_bytes` of them but at least one,
    /// and none that reaches beyond `below` (exclusive). Empty if `from` is at or above `below`, or if the first
    /// batch reaches beyond it. Ends early where a segment ends. Checksums are left to whoever gets the bytes.
    ///
    /// One read into memory that is then shared, not copied.
    pub fn read(&self, from: Offset, below: Offset, max_bytes: usize) -> Result<Bytes, LogError> {
        let wanted = Wanted { from, below, max_bytes };
        self.untruncated(from, || match self.plan(wanted)? {
            Some(plan) => self.read_planned(&plan, wanted),
            None => Ok(Bytes::new()),
        })
    }

    /// The first batch below `below` whose largest timestamp is at or above `timestamp_ms`: its **base** offset and
    /// that largest timestamp. The record itself may be further inside the batch, which only who decompresses it
    /// can tell. `None` if there is no such batch.
    pub fn offset_for_timestamp(
        &self,
        timestamp_ms: i64,
        below: Offset,
    ) -> Result<Option<(Offset, i64)>, LogError> {
        self.untruncated(below, || {
            let mut from = Offset::ZERO;
            while let Some((held, position)) = self.plan_timestamp(timestamp_ms, from)? {
                let start = self.log_start_offset();
                let found = held.get().walk(position, |Found { header, .. }| {
                    header.max_timestamp >= timestamp_ms && header.base_offset >= start
                })?;
                if let Some(Found { header, .. }) = found {
                    let found = (header.base_offset, header.max_timestamp);
                    return Ok((header.next_offset() <= below).then_some(found));
                }
                // The batch that has the segment's largest timestamp lies below the start of the log.
                from = held.get().segment.end;
            }
            Ok(None)
        })
    }

    /// Repeats `read` until the log was not truncated during it: what it saw may be neither the old nor the new.
    pub(crate) fn untruncated<T>(
        &self,
        offset: Offset,
        read: impl Fn() -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        for _ in 0..ATTEMPTS {
            let before = self.shared.read().truncations;
            let result = read();
            if self.shared.read().truncations == before {
                return result;
            }
        }
        Err(LogError::TruncatedWhileReading { offset })
    }

    fn plan(&self, wanted: Wanted) -> Result<Option<Plan>, LogError> {
        let view = self.shared.read();
        let (start, end) = (view.start(), view.end());
        if wanted.from < start || wanted.from > end {
            return Err(LogError::OutOfRange { requested: wanted.from, start, end });
        }
        if wanted.from >= wanted.below.min(end) {
            return Ok(None);
        }
        let number = view.segment_of(wanted.from);
        let segment = view.segments[number];
        let not_behind = |entry: &Entry| u64::from(entry.relative) <= wanted.from - segment.base;
        let wanted_too = |entry: &Entry| u64::from(entry.relative) < wanted.below - segment.base;
        let first = view.look_up(number, not_behind);
        let last = (wanted.below < segment.end).then(|| view.look_up(number, wanted_too));
        drop(view);
        let held = self.shared.hold(segment)?;
        let position = match self.shared.finish(first, segment.base, not_behind) {
            Some(between) => between.before.map_or(0, |entry| entry.position.into()),
            // Slow, and never needed but after damage.
            None => held
                .get()
                .walk(0, |found| found.header.next_offset() > wanted.from)?
                .map_or(0, |found| found.position),
        };
        let limit = last.and_then(|last| self.shared.finish(last, segment.base, wanted_too)?.at);
        Ok(Some(Plan { held, position, limit: limit.map_or(segment.len, |entry| entry.position.into()) }))
    }

    /// The segment, not below `from`, that has the first batch of that time, and where in it to start looking.
    fn plan_timestamp(&self, timestamp_ms: i64, from: Offset) -> Result<Option<(Held, u64)>, LogError> {
        let before = |entry: &Entry| entry.max_before < timestamp_ms;
        let (segment, lookup) = {
            let view = self.shared.read();
            let late_enough = |segment: &Segment| {
                segment.base >= from && segment.max_timestamp.is_some_and(|max| max >= timestamp_ms)
            };
            let number = view.segments.iter().position(late_enough);
            let Some(number) = number else { return Ok(None) };
            (view.segments[number], view.look_up(number, before))
        };
        let between = self.shared.finish(lookup, segment.base, before).unwrap_or_default();
        let position = between.before.map_or(0, |entry| entry.position.into());
        Ok(Some((self.shared.hold(segment)?, position)))
    }

    fn read_planned(&self, plan: &Plan, wanted: Wanted) -> Result<Bytes, LogError> {
        // The batch wanted starts less than an interval behind the indexed one, so one read has its header at least.
        let len = wanted.max_bytes.max(HEADER_LEN).saturating_add(self.index_interval);
        let mut piece = Piece::read(plan, plan.position, len)?;
        let mut at = 0;
        let first = loop {
            if piece.lacks(at, HEADER_LEN) {
                (piece, at) = (Piece::read(plan, piece.position + at as u64, len)?, 0);
            }
            let header = piece.header(at)?;
            if header.next_offset() > wanted.from {
                break header;
            }
            at += header.length as usize;
        };
        if first.base_offset > wanted.from {
            let damage = Damage::Gap { expected: wanted.from, found: first.base_offset };
            return Err(piece.segment.corrupt(piece.position + at as u64, damage));
        }
        // A length in offsets that cannot be is damage, not a batch that lies too high to be given.
        let segment_end = piece.segment.segment.end;
        if first.next_offset() > segment_end {
            let damage = Damage::Gap { expected: segment_end, found: first.next_offset() };
            return Err(piece.segment.corrupt(piece.position + at as u64, damage));
        }
        if first.next_offset() > wanted.below {
            return Ok(Bytes::new());
        }
        let length = first.length as usize;
        if piece.lacks(at, length) {
            let position = piece.position + at as u64;
            if length > BELIEVED {
                piece.segment.verify(position)?;
            }
            (piece, at) = (Piece::read(plan, position, length)?, 0);
        }
        if piece.lacks(at, length) {
            let damage = BatchError::Truncated { have: piece.bytes.len().saturating_sub(at), need: length };
            return Err(piece.segment.corrupt(piece.position + at as u64, damage.into()));
        }
        let end =
            piece.end_of_batches(at + length, &first, at.saturating_add(wanted.max_bytes), wanted.below);
        Ok(piece.bytes.slice(at..end))
    }
}

/// Bytes of a segment.
struct Piece<'a> {
    segment: SegmentFile<'a>,
    position: u64,
    bytes: Bytes,
}

impl<'a> Piece<'a> {
    /// `len` bytes from `position` on, or as many as there are below the plan's limit.
    fn read(plan: &'a Plan, position: u64, len: usize) -> Result<Piece<'a>, LogError> {
        let left = usize::try_from(plan.limit.saturating_sub(position)).unwrap_or(usize::MAX);
        let segment = plan.held.get();
        let bytes = match len.min(left) {
            0 => Bytes::new(),
            len => {
                let read = segment.file.read_bytes(position, len);
                read.map_err(LogError::io("reading segment", segment.path))?
            }
        };
        Ok(Piece { segment, position, bytes })
    }

    /// Whether fewer than `len` bytes are here from `at` on.
    fn lacks(&self, at: usize, len: usize) -> bool {
        self.bytes.len().saturating_sub(at) < len
    }

    fn header(&self, at: usize) -> Result<BatchHeader, LogError> {
        BatchHeader::decode(self.bytes.get(at..).unwrap_or_default())
            .map_err(|error| self.segment.corrupt(self.position + at as u64, error.into()))
    }

    /// Where the batches that follow `last`, which ends at `end`, stop being whole, contiguous, inside the first
    /// `max_end` bytes and below `below`. A damaged one ends them; whoever asks for it next is told.
    fn end_of_batches(&self, mut end: usize, last: &BatchHeader, max_end: usize, below: Offset) -> usize {
        let max_end = max_end.min(self.bytes.len());
        let mut expected = last.next_offset();
        while end + HEADER_LEN <= max_end {
            let Ok(next) = self.header(end) else { break };
            let next_end = end + next.length as usize;
            if next.base_offset != expected || next.next_offset() > below || next_end > max_end {
                break;
            }
            (end, expected) = (next_end, next.next_offset());
        }
        end
    }
}
