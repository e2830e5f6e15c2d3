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
    timestamp_delta: i64,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
}

/// Reads the record that starts at the cursor and must be number `index`. Every header goes to `on_header`.
fn read_frame(
    cursor: &mut Cursor<'_>,
    index: u32,
    mut on_header: impl FnMut(Range<usize>, Option<Range<usize>>),
) -> Result<Frame, BatchError> {
    let bad = |reason| BatchError::Record { index, reason };
    let length = cursor.varint().ok_or(bad("bad length"))?;
    let length = usize::try_from(length).map_err(|_| bad("negative length"))?;
    if length > cursor.remaining() {
        return Err(bad("longer than the batch"));
    }
    let end = cursor.position() + length;
    cursor.byte().ok_or(bad("no attributes"))?;
    let timestamp_delta = cursor.varlong().ok_or(bad("bad timestamp"))?;
    let offset_delta = cursor.varint().ok_or(bad("bad offset"))?;
    if i64::from(offset_delta) != i64::from(index) {
        return Err(bad("offset out of order"));
    }
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
    Ok(Frame { timestamp_delta, key, value })
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
    for index in 0..header.records {
        let frame = read_frame(&mut cursor, index, |_, _| {})?;
        timestamp_of(header, index, frame.timestamp_delta)?;
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
    next: u32,
    failed: bool,
}

impl RecordIter {
    /// Reads the records of the batch with that header from `section`, which the caller has decompressed.
    pub fn new(header: BatchHeader, section: Bytes) -> RecordIter {
        RecordIter { header, section, position: 0, next: 0, failed: false }
    }

    fn read_next(&mut self) -> Result<Record, BatchError> {
        let index = self.next;
        let mut cursor = Cursor::new(&self.section, self.position);
        let mut headers = Vec::new();
        let frame = read_frame(&mut cursor, index, |key, value| {
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
        self.next += 1;
        Ok(Record {
            offset_delta: index,
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
        if self.failed || self.next >= self.header.records {
            return None;
        }
        let record = self.read_next();
        self.failed = record.is_err();
        Some(record)
    }
}
