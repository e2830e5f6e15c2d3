//! From fetched bytes to records: whole batches, right checksums, no offset left out, bounded decompression. A batch may have
//! fewer records than offsets, or none: what compaction leaves.

use holdfast_core::Offset;
use holdfast_core::record_batch::{BatchError, BatchHeader, Header, Record, RecordBatch, RecordIter};
use holdfast_proto::compression::{CompressionError, decompress};

use bytes::Bytes;

/// What a fetch gave is not the continuation of the partition's log.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Offsets are missing, or go back.
    #[error("expected a batch that contains offset {expected}, found one from {first} to {last}")]
    NotDense {
        /// The consumer's position.
        expected: Offset,
        /// First offset of the batch found.
        first: Offset,
        /// Last offset of the batch found, inclusive.
        last: Offset,
    },
    /// The bytes are no record batches, or their checksum is wrong.
    #[error("bad record batch at offset {position}")]
    Batch {
        /// The consumer's position.
        position: Offset,
        /// What is wrong.
        #[source]
        source: BatchError,
    },
    /// The records cannot be decompressed within the limit.
    #[error("bad compressed records at offset {position}")]
    Compression {
        /// The consumer's position.
        position: Offset,
        /// What is wrong.
        #[source]
        source: CompressionError,
    },
}

/// A record as consumed. Its fields share the memory of its batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumedRecord {
    /// Its place in the partition.
    pub offset: Offset,
    /// Milliseconds since 1970; -1 for none.
    pub timestamp: i64,
    /// The key; `None` is not the same as empty.
    pub key: Option<Bytes>,
    /// The payload; `None` for a tombstone.
    pub value: Option<Bytes>,
    /// The headers in order.
    pub headers: Vec<Header>,
}

/// Cuts an answer into its batches.
pub(super) fn split(bytes: Bytes, position: Offset) -> Result<Vec<RecordBatch>, DecodeError> {
    RecordBatch::split(bytes).map_err(|source| DecodeError::Batch { position, source })
}

/// The records of `batch` from `position` on and, where an end is given, below `end`. `is_first` says whether it is the
/// first of an answer: only that one may begin before the position.
pub(super) fn decode(
    batch: &RecordBatch,
    position: Offset,
    end: Option<Offset>,
    is_first: bool,
    max_size: usize,
) -> Result<Decoded, DecodeError> {
    let header = *batch.header();
    let begins_right = header.base_offset == position || (is_first && header.base_offset < position);
    if !begins_right || header.next_offset() <= position {
        let (first, last) = (header.base_offset, header.last_offset());
        return Err(DecodeError::NotDense { expected: position, first, last });
    }
    if header.is_control() {
        return Ok(Decoded { records: Vec::new(), size: 0 });
    }
    let section = decompress(header.compression(), batch.section(), max_size)
        .map_err(|source| DecodeError::Compression { position, source })?;
    let size = section.len();
    let wanted = |offset: Offset| offset >= position && end.is_none_or(|end| offset < end);
    // A record takes at least seven bytes: a false count allocates no more than the records there are.
    let mut records = Vec::with_capacity((header.records as usize).min(size / 7));
    for record in RecordIter::new(header, section) {
        let record = record.map_err(|source| DecodeError::Batch { position, source })?;
        let record = consumed(&header, record);
        if wanted(record.offset) {
            records.push(record);
        }
    }
    Ok(Decoded { records, size })
}

/// The wanted records of a batch.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) records: Vec<ConsumedRecord>,
    /// Bytes of the whole batch after decompression.
    pub(super) size: usize,
}

fn consumed(header: &BatchHeader, record: Record) -> ConsumedRecord {
    ConsumedRecord {
        offset: header.base_offset + u64::from(record.offset_delta),
        timestamp: record.timestamp,
        key: record.key,
        value: record.value,
        headers: record.headers,
    }
}

#[cfg(test)]
mod tests {
    use holdfast_core::record_batch::{Compression, RecordBatchBuilder};
    use holdfast_core::{BrokerId, LeaderEpoch};
    use holdfast_proto::compression::compress;

    use super::*;

    const LIMIT: usize = 1 << 20;

    fn batch(base: u64, values: &[&str], compression: Compression) -> RecordBatch {
        let mut builder = RecordBatchBuilder::new();
        for value in values {
            builder.push(1000, None, Some(value.as_bytes()), &[]).unwrap();
        }
        let built: Result<_, Box<dyn std::error::Error>> =
            builder.finish_with(None, compression, |section| Ok(compress(compression, section)?));
        built.unwrap().stamped(Offset(base), LeaderEpoch::ZERO)
    }

    fn offsets(decoded: &Decoded) -> Vec<u64> {
        decoded.records.iter().map(|record| record.offset.0).collect()
    }

    #[test]
    fn a_fetch_inside_a_batch_gives_only_what_was_asked_for() {
        for compression in [Compression::None, Compression::Zstd, Compression::Snappy] {
            let batch = batch(10, &["a", "b", "c", "d"], compression);
            let decoded = decode(&batch, Offset(12), None, true, LIMIT).unwrap();
            assert_eq!(offsets(&decoded), [12, 13]);
            let decoded = decode(&batch, Offset(10), Some(Offset(12)), true, LIMIT).unwrap();
            assert_eq!(offsets(&decoded), [10, 11]);
            assert_eq!(decoded.records[1].value.as_deref(), Some(&b"b"[..]));
        }
    }

    #[test]
    fn gaps_and_steps_back_are_errors() {
        let batch = batch(10, &["a", "b"], Compression::None);
        for (position, is_first) in [(9, true), (9, false), (11, false), (12, true), (40, true)] {
            let error = decode(&batch, Offset(position), None, is_first, LIMIT).unwrap_err();
            assert!(matches!(error, DecodeError::NotDense { .. }), "{position}: {error}");
        }
    }

    #[test]
    fn control_batches_advance_without_records() {
        let marker = RecordBatch::marker(Offset(5), LeaderEpoch::ZERO, BrokerId(1));
        assert!(decode(&marker, Offset(5), None, true, LIMIT).unwrap().records.is_empty());
    }

    #[test]
    fn a_batch_that_expands_beyond_the_limit_is_refused() {
        let large = "x".repeat(100_000);
        let batch = batch(0, &[&large], Compression::Zstd);
        let error = decode(&batch, Offset(0), None, true, 50_000).unwrap_err();
        assert!(matches!(error, DecodeError::Compression { .. }), "{error}");
    }

    #[test]
    fn damaged_bytes_are_refused() {
        let mut bytes = batch(0, &["abc"], Compression::None).bytes().to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        assert!(matches!(split(bytes.into(), Offset(0)), Err(DecodeError::Batch { .. })));
    }
}
