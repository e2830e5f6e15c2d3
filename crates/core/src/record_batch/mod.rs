//! Record batches: the unit of append, of checksum and of transfer.
//!
//! On disk and on every wire a batch is a Kafka v2 record batch, byte for byte. Brokers treat the records inside
//! as opaque: they check header and checksum, stamp base offset and leader epoch, and never decompress.
//!
//! Nothing here trusts its input: counts and lengths are claims until the bytes bear them out, and nothing is
//! allocated by a claim.
//!
//! Invariant: a [`RecordBatch`] is whole, its header is consistent, and its checksum held when it was made.

mod builder;
mod compacted;
mod error;
mod header;
mod record;
mod varint;

#[cfg(test)]
mod tests;

use bytes::{Bytes, BytesMut};
use crc_fast::CrcAlgorithm;

pub use builder::{RecordBatchBuilder, record_size_bound};
pub use compacted::MAX_FILLER_OFFSETS;
pub use error::BatchError;
pub use header::{BatchHeader, Compression, HEADER_LEN, ProducerRef};
pub use record::{Header, Record, RecordIter};

use crate::{BrokerId, LeaderEpoch, Offset};
use header::CHECKSUM_START;

/// Offset of the first byte that a batch's checksum covers; it covers everything from there to the end.
pub const CHECKSUM_OFFSET: usize = CHECKSUM_START;

/// Kafka's control record key: version 0, type LEADER_CHANGE.
const LEADER_CHANGE_KEY: [u8; 4] = [0, 0, 0, 2];

/// Records that a compressed batch of a client may claim to hold.
pub const MAX_COMPRESSED_RECORDS: u32 = 1 << 20;

/// A whole batch whose checksum was checked. Cloning shares the bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RecordBatch {
    header: BatchHeader,
    bytes: Bytes,
}

impl RecordBatch {
    /// Takes exactly one batch from an untrusted sender: at most `max_len` bytes, consistent header, right
    /// checksum, a record for each of its offsets and, where they are not compressed, records framed and numbered as the
    /// header says. How many they are is only claimed where they are compressed, and bounded: each takes offsets of the log.
    pub fn check(bytes: Bytes, max_len: usize) -> Result<RecordBatch, BatchError> {
        if bytes.len() > max_len {
            return Err(BatchError::TooLarge { length: bytes.len(), limit: max_len });
        }
        let batch = RecordBatch::check_crc(bytes)?;
        if batch.header.records == 0 {
            return Err(BatchError::Empty);
        }
        if !batch.header.is_dense() {
            return Err(BatchError::Field {
                field: "last_offset_delta",
                value: batch.header.last_offset_delta.into(),
            });
        }
        if batch.header.compression() == Compression::None {
            record::check_section(&batch.header, &batch.bytes[HEADER_LEN..])?;
        } else if batch.header.records > MAX_COMPRESSED_RECORDS {
            return Err(BatchError::Field { field: "records", value: batch.header.records.into() });
        }
        Ok(batch)
    }

    /// Takes exactly one batch whose records somebody trusted has checked before: header and checksum only.
    pub fn check_crc(bytes: Bytes) -> Result<RecordBatch, BatchError> {
        let header = BatchHeader::decode(&bytes)?;
        let length = header.length as usize;
        if bytes.len() < length {
            return Err(BatchError::Truncated { have: bytes.len(), need: length });
        }
        if bytes.len() > length {
            return Err(BatchError::TrailingBytes { extra: bytes.len() - length });
        }
        let computed = checksum_of(&bytes);
        if computed != header.crc {
            return Err(BatchError::Checksum { stored: header.crc, computed });
        }
        Ok(RecordBatch { header, bytes })
    }

    /// Splits contiguous bytes into their batches, each checked as by [`check_crc`](Self::check_crc) and sharing
    /// the memory of `bytes`. A cut-off batch at the end is an error.
    pub fn split(mut bytes: Bytes) -> Result<Vec<RecordBatch>, BatchError> {
        let mut batches = Vec::new();
        while !bytes.is_empty() {
            let length = BatchHeader::decode(&bytes)?.length as usize;
            if bytes.len() < length {
                return Err(BatchError::Truncated { have: bytes.len(), need: length });
            }
            batches.push(RecordBatch::check_crc(bytes.split_to(length))?);
        }
        Ok(batches)
    }

    /// The first batch of `epoch`, by which its leader `leader` opens it (rule R16): a control batch with one
    /// record, a Kafka LEADER_CHANGE whose value is version 0 (i16) and the leader's id (i32). It has no
    /// timestamp, so that it never answers a search by time.
    pub fn marker(base_offset: Offset, epoch: LeaderEpoch, leader: BrokerId) -> RecordBatch {
        let mut value = [0; 6];
        value[2..].copy_from_slice(&leader.0.to_be_bytes());
        let mut builder = RecordBatchBuilder::with_capacity(HEADER_LEN + 32);
        builder
            .push(-1, Some(&LEADER_CHANGE_KEY), Some(&value), &[])
            .and_then(|()| builder.build_control())
            .expect("ten bytes without a timestamp fit a batch")
            .stamped(base_offset, epoch)
    }

    /// The same batch at `base_offset` in the log of `epoch`. Neither is under the checksum. Copies once.
    pub fn stamped(&self, base_offset: Offset, epoch: LeaderEpoch) -> RecordBatch {
        let mut bytes = BytesMut::from(&self.bytes[..]);
        bytes[0..8].copy_from_slice(&base_offset.0.to_be_bytes());
        bytes[12..16].copy_from_slice(&epoch.to_wire().to_be_bytes());
        let header = BatchHeader { base_offset, epoch: Some(epoch), ..self.header };
        RecordBatch { header, bytes: bytes.freeze() }
    }

    /// Its decoded header.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// All its bytes, header included.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The record section behind the header, still compressed if the header says so. Shares the batch's memory.
    pub fn section(&self) -> Bytes {
        self.bytes.slice(HEADER_LEN..)
    }

    /// The records of an uncompressed batch. For another one decompress [`section`](Self::section) and use
    /// [`RecordIter::new`].
    pub fn records(&self) -> Result<RecordIter, BatchError> {
        match self.header.compression() {
            Compression::None => Ok(RecordIter::new(self.header, self.section())),
            compression => Err(BatchError::Compressed(compression)),
        }
    }
}

/// CRC-32C as batch headers carry it, of `batch` from byte 21 on. `batch` holds at least a header.
fn checksum_of(batch: &[u8]) -> u32 {
    crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, &batch[CHECKSUM_START..]) as u32
}
