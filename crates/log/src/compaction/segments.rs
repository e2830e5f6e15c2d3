//! The batches of a segment one by one, each verified.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_core::record_batch::{BatchHeader, HEADER_LEN, RecordBatch};
use holdfast_core::{LeaderEpoch, Offset};

use super::READ_AT_ONCE;
use crate::segment::Segment;
use crate::shared::Held;

/// Bytes read at once where only headers are wanted: small batches come many at a time, large ones are stepped over.
pub(super) const HEADERS_AT_ONCE: usize = 64 << 10;
/// No batch is larger: what claims to be is not read into memory.
const LARGEST_BATCH: u32 = 32 << 20;

/// There is no whole batch at this offset. What exactly is wrong there the [verification](crate::LogReader::verify) tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bad(pub(super) Offset);

/// What a log was when a pass began.
#[derive(Debug, Default)]
pub(super) struct Epochs {
    /// Where it started.
    pub(super) start: Offset,
    /// First offset of each epoch, ascending in both.
    pub(super) starts: Vec<(LeaderEpoch, Offset)>,
}

impl Epochs {
    /// Whether the batch has the epoch that belongs there. Of what was trimmed nothing is known.
    fn allow(&self, header: &BatchHeader) -> bool {
        let begun = self.starts.partition_point(|(_, first)| *first <= header.base_offset);
        let expected = begun.checked_sub(1).map(|last| self.starts[last].0);
        header.epoch.is_some() && (header.base_offset < self.start || header.epoch == expected)
    }
}

/// Walks over a segment. Holds what is read at once, or one batch that is larger.
#[derive(Debug)]
pub(super) struct Batches {
    held: Held,
    segment: Segment,
    epochs: Arc<Epochs>,
    /// Bytes read at once.
    at_once: usize,
    expected: Offset,
    position: u64,
    /// Bytes of the file from `chunk_start` on.
    chunk: Bytes,
    chunk_start: u64,
}

impl Batches {
    pub(super) fn new(held: Held, segment: Segment, epochs: Arc<Epochs>) -> Batches {
        let (at_once, expected, chunk) = (READ_AT_ONCE, segment.base, Bytes::new());
        Batches { held, segment, epochs, at_once, expected, position: 0, chunk, chunk_start: 0 }
    }

    /// For who asks for headers only.
    pub(super) fn headers(held: Held, segment: Segment, epochs: Arc<Epochs>) -> Batches {
        Batches { at_once: HEADERS_AT_ONCE, ..Batches::new(held, segment, epochs) }
    }

    /// The next header, and where its batch is; its checksum is not verified. `None` at the end of the segment.
    fn header(&mut self) -> Result<Option<BatchHeader>, Bad> {
        if self.position == self.segment.len && self.expected == self.segment.end {
            return Ok(None);
        }
        let bad = Bad(self.expected);
        let header = BatchHeader::decode(&self.bytes(HEADER_LEN).ok_or(bad)?).map_err(|_| bad)?;
        let fits = header.base_offset == self.expected && self.epochs.allow(&header);
        if fits { Ok(Some(header)) } else { Err(bad) }
    }

    /// `len` bytes of the segment from the position on; `None` if there are not so many, or the disk does not give them.
    fn bytes(&mut self, len: usize) -> Option<Bytes> {
        let at = usize::try_from(self.position - self.chunk_start).ok()?;
        if at + len > self.chunk.len() {
            let left = usize::try_from(self.segment.len.checked_sub(self.position)?).ok()?;
            if len > left {
                return None;
            }
            let file = self.held.file();
            if !self.chunk.is_empty() {
                // What is looked at for this alone takes nobody's memory.
                file.forget(self.chunk_start, self.chunk.len() as u64);
            }
            let wanted = len.max(self.at_once).min(left);
            // What cannot be read may be what was to be read ahead.
            let read =
                file.read_bytes(self.position, wanted).or_else(|_| file.read_bytes(self.position, len));
            (self.chunk, self.chunk_start) = (read.ok()?, self.position);
            return Some(self.chunk.slice(..len));
        }
        Some(self.chunk.slice(at..at + len))
    }

    /// Steps over a batch and returns its header.
    pub(super) fn next_header(&mut self) -> Result<Option<BatchHeader>, Bad> {
        let Some(header) = self.header()? else { return Ok(None) };
        self.step(&header);
        Ok(Some(header))
    }

    /// The next batch, its checksum verified.
    pub(super) fn next_batch(&mut self) -> Result<Option<RecordBatch>, Bad> {
        let Some(header) = self.header()? else { return Ok(None) };
        let bad = Bad(self.expected);
        let length = Some(header.length).filter(|length| *length <= LARGEST_BATCH).ok_or(bad)?;
        let bytes = self.bytes(length as usize).ok_or(bad)?;
        let batch = RecordBatch::check_crc(bytes).map_err(|_| bad)?;
        self.step(&header);
        Ok(Some(batch))
    }

    fn step(&mut self, header: &BatchHeader) {
        self.position += u64::from(header.length);
        self.expected = header.next_offset();
    }
}
