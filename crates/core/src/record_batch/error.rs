//! Why bytes are not a record batch.

use super::Compression;

/// What is wrong with the bytes of a record batch. Nothing of a batch that fails is ever used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than the batch needs.
    #[error("record batch is cut short: {have} of {need} bytes")]
    Truncated {
        /// Bytes given.
        have: usize,
        /// Bytes needed.
        need: usize,
    },
    /// More bytes than the one batch that was expected.
    #[error("{extra} bytes follow the record batch")]
    TrailingBytes {
        /// How many too many.
        extra: usize,
    },
    /// Above the limit of whoever checks.
    #[error("record batch of {length} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// Size of the whole batch in bytes.
        length: usize,
        /// The largest size allowed, inclusive.
        limit: usize,
    },
    /// Not the version 2 format.
    #[error("record batch has magic {0} instead of 2")]
    Magic(i8),
    /// The stored checksum is not that of the bytes.
    #[error("record batch has checksum {stored:#010x}, its bytes have {computed:#010x}")]
    Checksum {
        /// CRC-32C in the header.
        stored: u32,
        /// CRC-32C of bytes 21 to the end.
        computed: u32,
    },
    /// A header field holds what no batch may hold.
    #[error("record batch field {field} is {value}")]
    Field {
        /// Name of the field in Kafka's documentation, in snake case.
        field: &'static str,
        /// What it holds.
        value: i64,
    },
    /// The records inside are not framed as the header says.
    #[error("record {index} of the batch: {reason}")]
    Record {
        /// Number of the record in its batch, from 0.
        index: u32,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The records cannot be read before they are decompressed.
    #[error("records are compressed with {0:?}")]
    Compressed(Compression),
    /// A batch holds at least one record; one that compaction has emptied has nothing behind its header.
    #[error("record batch without records")]
    Empty,
    /// A batch holds at most 2 GiB and 2^31 - 1 records.
    #[error("record batch is full")]
    Full,
}
