//! The records inside a batch, after decompression.

use std::ops::Range;

use bytes::Bytes;

use super::varint::Cursor;
use super::{BatchError, BatchHeader};

/// A record's header: a key and a value that the log does not interpret. Keys may repeat; their order is kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Header {
    /// The key; UTF-8 by convention, not checked.
    pub key: Bytes,
    /// The value; `None` is not the same as empty.
    pub value: Option<Bytes>,
}

/// One record. Its fields share the memory of the section it was read from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Record {
    /// Its offset less the base offset of the batch.
    pub offset_delta: u32,
    /// Milliseconds since 1970; -1 for none.
    pub timestamp: i64,
    /// The key; `None` is not the same as empty.
    pub key: Option<Bytes>,
    /// The value; `None` deletes the key in a compacted topic.
    pub value: Option<Bytes>,
    /// The headers in the order given.
    pub headers: Vec<Header>,
}

/// Where a record's parts are in its section.
struct Frame {
    offset_delta: u32,
    timestamp_delta: i64,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
}

/// Which records may come next: how many came before, and which offset the last of them has left.
#[derive(Debug, Clone, Copy, Default)]
struct Expected {
    index: u32,
    /// Offset deltas begin here.
    offset_delta: u32,
}

impl Expected {
    /// Behind `frame`.
    fn advance(&mut self, frame: &Frame) {
        *self = Expected { index: self.index + 1, offset_delta: frame.offset_delta + 1 };
    }

    /// Whether that offset may be the next one of the batch. Offsets rise, and each has one record where the batch is
    /// dense.
    fn allows(&self, header: &BatchHeader, offset_delta: u32) -> bool {
        let dense = !header.is_dense() || offset_delta == self.index;
        dense && (self.offset_delta..=header.last_offset_delta).contains(&offset_delta)
    }
}

/// Reads the record that starts at the cursor and may be one of `header`'s at that place. Every header of its own goes to
/// `on_header`.
fn read_frame(
    cursor: &mut Cursor<'_>,
    header: &BatchHeader,
    expected: Expected,
    mut on_header: impl FnMut(Range<usize>, Option<Range<usize>>),
) -> Result<Frame, BatchError> {
    let bad = |reason| BatchError::Record { index: expected.index, reason };
    let length = cursor.varint().ok_or(bad("bad length"))?;
    let length = usize::try_from(length).map_err(|_| bad("negative length"))?;
    if length > cursor.remaining() {
        return Err(bad("longer than the batch"));
    }
    let end = cursor.position() + length;
    cursor.byte().ok_or(bad("no attributes"))?;
    let timestamp_delta = cursor.varlong().ok_or(bad("bad timestamp"))?;
    let offset_delta = cursor.varint().ok_or(bad("bad offset"))?;
    let in_order = u32::try_from(offset_delta).ok().filter(|delta| expected.allows(header, *delta));
    let offset_delta = in_order.ok_or(bad("offset out of order"))?;
    let key = cursor.nullable().ok_or(bad("bad key"))?;
    let value = cursor.nullable().ok_or(bad("bad value"))?;
    let headers = cursor.varint().ok_or(bad("bad header count"))?;
    if headers < 0 {
        return Err(bad("negative header count"));
    }
    for _ in 0..headers {
        // A false count ends here at the latest where the bytes end: each header takes at least two.
        let key = cursor.nullable().flatten().ok_or(bad("bad header key"))?;
        let value = cursor.nullable().ok_or(bad("bad header value"))?;
        on_header(key, value);
    }
    if cursor.position() != end {
        return Err(bad("length does not match its content"));
    }
    Ok(Frame { offset_delta, timestamp_delta, key, value })
}

/// The timestamp of record `index`.
fn timestamp_of(header: &BatchHeader, index: u32, delta: i64) -> Result<i64, BatchError> {
    let bad = |reason| BatchError::Record { index, reason };
    if header.is_append_time() {
        return Ok(header.max_timestamp);
    }
    let timestamp = header.base_timestamp.checked_add(delta).ok_or(bad("timestamp out of range"))?;
    if timestamp > header.max_timestamp {
        return Err(bad("timestamp above the batch's largest"));
    }
    Ok(timestamp)
}

/// Walks the uncompressed `section` of a batch without allocating: each record framed right, numbered in order,
/// none after the last.
pub(super) fn check_section(header: &BatchHeader, section: &[u8]) -> Result<(), BatchError> {
    let mut cursor = Cursor::new(section, 0);
    let mut expected = Expected::default();
    for index in 0..header.records {
        let frame = read_frame(&mut cursor, header, expected, |_, _| {})?;
        timestamp_of(header, index, frame.timestamp_delta)?;
        expected.advance(&frame);
    }
    match cursor.remaining() {
        0 => Ok(()),
        extra => Err(BatchError::TrailingBytes { extra }),
    }
}

/// The records of a batch, one by one. Ends after the last record or after the first error.
#[derive(Debug)]
pub struct RecordIter {
    header: BatchHeader,
    section: Bytes,
    position: usize,
    next: Expected,
    failed: bool,
}

impl RecordIter {
    /// Reads the records of the batch with that header from `section`, which the caller has decompressed.
    pub fn new(header: BatchHeader, section: Bytes) -> RecordIter {
        RecordIter { header, section, position: 0, next: Expected::default(), failed: false }
    }

    /// Where the next record begins in the section.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    fn read_next(&mut self) -> Result<Record, BatchError> {
        let index = self.next.index;
        let mut cursor = Cursor::new(&self.section, self.position);
        let mut headers = Vec::new();
        let frame = read_frame(&mut cursor, &self.header, self.next, |key, value| {
            headers.push(Header {
                key: self.section.slice(key),
                value: value.map(|range| self.section.slice(range)),
            });
        })?;
        let timestamp = timestamp_of(&self.header, index, frame.timestamp_delta)?;
        let position = cursor.position();
        if index + 1 == self.header.records && position != self.section.len() {
            return Err(BatchError::TrailingBytes { extra: self.section.len() - position });
        }
        self.position = position;
        self.next.advance(&frame);
        Ok(Record {
            offset_delta: frame.offset_delta,
            timestamp,
            key: frame.key.map(|range| self.section.slice(range)),
            value: frame.value.map(|range| self.section.slice(range)),
            headers,
        })
    }
}

impl Iterator for RecordIter {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.next.index >= self.header.records {
            return None;
        }
        let record = self.read_next();
        self.failed = record.is_err();
        Some(record)
    }
}
