//! Builds batches record by record, straight into the buffer that becomes the batch.

use bytes::Bytes;

use super::header::ATTRIBUTE_CONTROL;
use super::{
    BatchError, BatchHeader, Compression, HEADER_LEN, Header, ProducerRef, RecordBatch, checksum_of, varint,
};
use crate::Offset;

/// Most bytes that a batch may have: its length field is an i32.
const MAX_LEN: usize = i32::MAX as usize;
/// Varints in front of a record's key, value and headers at their longest: length 5, attributes 1, timestamp 10,
/// offset 5, key length 5, value length 5, header count 5.
const RECORD_OVERHEAD: usize = 36;

/// Collects records into one batch. Base offset 0 and no leader epoch: the leader stamps those.
///
/// Pushing allocates nothing but the growth of one buffer.
#[derive(Debug)]
pub struct RecordBatchBuilder {
    /// Room for the header, then the records as they stand in the batch.
    buffer: Vec<u8>,
    records: u32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl Default for RecordBatchBuilder {
    fn default() -> Self {
        RecordBatchBuilder::new()
    }
}

impl RecordBatchBuilder {
    /// An empty builder.
    pub fn new() -> RecordBatchBuilder {
        RecordBatchBuilder::with_capacity(0)
    }

    /// An empty builder whose buffer holds a batch of `capacity` bytes before it grows.
    pub fn with_capacity(capacity: usize) -> RecordBatchBuilder {
        let mut buffer = Vec::with_capacity(capacity.max(HEADER_LEN));
        buffer.resize(HEADER_LEN, 0);
        RecordBatchBuilder { buffer, records: 0, base_timestamp: -1, max_timestamp: -1 }
    }

    /// Adds a record. `timestamp` is in milliseconds since 1970, -1 for none. On an error nothing was added.
    pub fn push(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header],
    ) -> Result<(), BatchError> {
        if timestamp < -1 {
            return Err(BatchError::Field { field: "timestamp", value: timestamp });
        }
        if self.size() + record_size_bound(key, value, headers) > MAX_LEN || self.records == i32::MAX as u32 {
            return Err(BatchError::Full);
        }
        if self.records == 0 {
            self.base_timestamp = timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.encode(timestamp - self.base_timestamp, key, value, headers);
        self.records += 1;
        Ok(())
    }

    fn encode(&mut self, timestamp_delta: i64, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header]) {
        let offset_delta = i64::from(self.records);
        let header_count = headers.len() as i64;
        let body = 1
            + varint::len(timestamp_delta)
            + varint::len(offset_delta)
            + nullable_len(key)
            + nullable_len(value)
            + varint::len(header_count)
            + headers.iter().map(header_len).sum::<usize>();
        let buffer = &mut self.buffer;
        varint::put(buffer, body as i64);
        buffer.push(0);
        varint::put(buffer, timestamp_delta);
        varint::put(buffer, offset_delta);
        put_nullable(buffer, key);
        put_nullable(buffer, value);
        varint::put(buffer, header_count);
        for header in headers {
            put_nullable(buffer, Some(&header.key));
            put_nullable(buffer, header.value.as_deref());
        }
    }

    /// How many records it holds.
    pub fn records(&self) -> u32 {
        self.records
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Size in bytes of the batch as it stands, uncompressed, header included.
    pub fn size(&self) -> usize {
        self.buffer.len()
    }

    /// The batch, uncompressed.
    pub fn build(self, producer: Option<ProducerRef>) -> Result<RecordBatch, BatchError> {
        self.finish(producer, Compression::None, 0)
    }

    /// The batch with its records passed through `compress`, which is given the whole record section.
    /// With [`Compression::None`] it is not called.
    pub fn finish_with<C, E>(
        mut self,
        producer: Option<ProducerRef>,
        compression: Compression,
        compress: impl FnOnce(&[u8]) -> Result<C, E>,
    ) -> Result<RecordBatch, E>
    where
        C: AsRef<[u8]>,
        E: From<BatchError>,
    {
        if compression != Compression::None && !self.is_empty() {
            let compressed = compress(&self.buffer[HEADER_LEN..])?;
            self.buffer.truncate(HEADER_LEN);
            self.buffer.extend_from_slice(compressed.as_ref());
        }
        Ok(self.finish(producer, compression, 0)?)
    }

    /// The batch as a control batch.
    pub(super) fn build_control(self) -> Result<RecordBatch, BatchError> {
        self.finish(None, Compression::None, ATTRIBUTE_CONTROL)
    }

    fn finish(
        mut self,
        producer: Option<ProducerRef>,
        compression: Compression,
        attributes: u16,
    ) -> Result<RecordBatch, BatchError> {
        if self.is_empty() {
            return Err(BatchError::Empty);
        }
        if self.buffer.len() > MAX_LEN {
            return Err(BatchError::TooLarge { length: self.buffer.len(), limit: MAX_LEN });
        }
        let mut header = BatchHeader {
            base_offset: Offset::ZERO,
            length: self.buffer.len() as u32,
            epoch: None,
            attributes: attributes | compression as u16,
            last_offset_delta: self.records - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer,
            records: self.records,
            crc: 0,
        };
        self.buffer[..HEADER_LEN].copy_from_slice(&header.encode());
        header.crc = checksum_of(&self.buffer);
        self.buffer[..HEADER_LEN].copy_from_slice(&header.encode());
        // Read back, so that a producer reference out of range is refused here and not by the broker.
        let header = BatchHeader::decode(&self.buffer)?;
        Ok(RecordBatch { header, bytes: Bytes::from(self.buffer) })
    }
}

/// Most bytes that such a record adds to a batch: for deciding whether it still fits before it is pushed.
pub fn record_size_bound(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header]) -> usize {
    let fields = key.map_or(0, <[u8]>::len).saturating_add(value.map_or(0, <[u8]>::len));
    headers.iter().map(header_len).fold(RECORD_OVERHEAD.saturating_add(fields), usize::saturating_add)
}

fn header_len(header: &Header) -> usize {
    nullable_len(Some(&header.key)).saturating_add(nullable_len(header.value.as_deref()))
}

fn nullable_len(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| varint::len(bytes.len() as i64) + bytes.len())
}

fn put_nullable(buffer: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => varint::put(buffer, -1),
        Some(bytes) => {
            varint::put(buffer, bytes.len() as i64);
            buffer.extend_from_slice(bytes);
        }
    }
}
