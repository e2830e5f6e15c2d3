//! A record as an application sends it.

use bytes::Bytes;
use holdfast_core::record_batch::Header;

/// A record to be sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Record {
    key: Option<Bytes>,
    value: Option<Bytes>,
    headers: Vec<Header>,
    timestamp: Option<i64>,
    partition: Option<u32>,
}

impl Record {
    /// A record with a payload and no key.
    pub fn new(value: impl Into<Bytes>) -> Record {
        Record { value: Some(value.into()), ..Record::default() }
    }

    /// A record without payload, which deletes `key` in a compacted topic.
    pub fn tombstone(key: impl Into<Bytes>) -> Record {
        Record { key: Some(key.into()), ..Record::default() }
    }

    /// Sets the key: records of the same key go to the same partition. An empty key is a key.
    pub fn with_key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Adds a header.
    pub fn with_header(mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.headers.push(Header { key: key.into(), value: Some(value.into()) });
        self
    }

    /// Adds a header that may lack a value.
    pub fn with_raw_header(mut self, header: Header) -> Self {
        self.headers.push(header);
        self
    }

    /// Sets the time in milliseconds since 1970, at least 0. Without it, the time of sending.
    pub fn with_timestamp(mut self, timestamp_ms: i64) -> Self {
        self.timestamp = Some(timestamp_ms);
        self
    }

    /// Chooses the partition, whatever the key.
    pub fn with_partition(mut self, partition: u32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// The key.
    pub fn key(&self) -> Option<&[u8]> {
        self.key.as_deref()
    }

    /// The payload.
    pub fn value(&self) -> Option<&[u8]> {
        self.value.as_deref()
    }

    /// The headers in order.
    pub fn headers(&self) -> &[Header] {
        &self.headers
    }

    /// The time set, in milliseconds since 1970.
    pub fn timestamp(&self) -> Option<i64> {
        self.timestamp
    }

    /// The partition chosen.
    pub fn partition(&self) -> Option<u32> {
        self.partition
    }
}
