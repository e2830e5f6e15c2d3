//! The 61 bytes in front of a batch's records.
//!
//! ```text
//!  0 base offset i64      8 length after this field i32   12 leader epoch i32   16 magic i8   17 crc-32c u32
//! 21 attributes i16      23 last offset delta i32         27 base timestamp i64 35 max timestamp i64
//! 43 producer id i64     51 producer epoch i16            53 base sequence i32  57 record count i32
//! ```
//! All big endian. The checksum covers byte 21 to the end, so that a broker writes base offset and leader epoch
//! without touching it.

use serde::{Deserialize, Serialize};

use super::BatchError;
use crate::{LeaderEpoch, Offset, ProducerId};

/// Length of a batch header in bytes.
pub const HEADER_LEN: usize = 61;
/// Bytes in front of what the length field counts.
pub(super) const LENGTH_OVERHEAD: usize = 12;
/// First byte under the checksum.
pub(super) const CHECKSUM_START: usize = 21;
const MAGIC: u8 = 2;

pub(super) const ATTRIBUTE_APPEND_TIME: u16 = 0x08;
pub(super) const ATTRIBUTE_TRANSACTIONAL: u16 = 0x10;
pub(super) const ATTRIBUTE_CONTROL: u16 = 0x20;

/// How the records of a batch are compressed; the numbers are those of the header's attributes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compression {
    /// Not at all.
    #[default]
    None = 0,
    /// RFC 1952.
    Gzip = 1,
    /// Snappy in Kafka's xerial framing.
    Snappy = 2,
    /// The LZ4 frame format.
    Lz4 = 3,
    /// Zstandard.
    Zstd = 4,
}

impl Compression {
    pub(super) const MASK: u16 = 0x07;

    fn from_attributes(attributes: u16) -> Option<Compression> {
        match attributes & Self::MASK {
            0 => Some(Compression::None),
            1 => Some(Compression::Gzip),
            2 => Some(Compression::Snappy),
            3 => Some(Compression::Lz4),
            4 => Some(Compression::Zstd),
            _ => None,
        }
    }
}

/// Which producer wrote a batch, and where it stands in that producer's sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProducerRef {
    /// The producer.
    pub id: ProducerId,
    /// Its instance: a higher one fences the lower ones.
    pub epoch: i16,
    /// Sequence number of the batch's first record; they count from 0 per partition and wrap after `i32::MAX`.
    pub base_sequence: i32,
}

/// A decoded batch header. Whatever [`decode`](BatchHeader::decode) returns is consistent in itself; whether the
/// checksum holds, only the whole batch can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BatchHeader {
    /// Offset of the first record. Producers send 0, the leader writes the real one.
    pub base_offset: Offset,
    /// Size of the whole batch in bytes, header included. At least [`HEADER_LEN`].
    pub length: u32,
    /// Epoch of the leader that appended it; `None` before it is stamped.
    pub epoch: Option<LeaderEpoch>,
    /// Compression, timestamp type, transactional and control bits.
    pub attributes: u16,
    /// Last offset that the batch takes less the base offset. Compaction takes records out of a batch and leaves it the
    /// offsets: so it is `records - 1` as a producer writes it, and may be more in a log.
    pub last_offset_delta: u32,
    /// Timestamp of the first record in milliseconds since 1970; -1 for none.
    pub base_timestamp: i64,
    /// Largest timestamp in the batch in milliseconds since 1970; -1 for none.
    pub max_timestamp: i64,
    /// The producer, if it is an idempotent one.
    pub producer: Option<ProducerRef>,
    /// How many records it holds, at most one for each of its offsets. Claimed, not counted, where they are compressed.
    pub records: u32,
    /// CRC-32C of everything from byte 21 on.
    pub crc: u32,
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`, which may go on behind it, and checks all that can be checked
    /// without the records.
    pub fn decode(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        let Some(head) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(BatchError::Truncated { have: bytes.len(), need: HEADER_LEN });
        };
        if head[16] != MAGIC {
            return Err(BatchError::Magic(head[16] as i8));
        }
        let header = BatchHeader {
            base_offset: Offset(unsigned("base_offset", i64_at(head, 0))?),
            length: decode_length(i32_at(head, 8))?,
            epoch: LeaderEpoch::from_wire(i32_at(head, 12)),
            attributes: u16::from_be_bytes([head[21], head[22]]),
            last_offset_delta: narrow("last_offset_delta", i32_at(head, 23))?,
            base_timestamp: i64_at(head, 27),
            max_timestamp: i64_at(head, 35),
            producer: decode_producer(head)?,
            records: narrow("records", i32_at(head, 57))?,
            crc: u32::from_be_bytes(array_at(head, 17)),
        };
        header.check_consistency()?;
        Ok(header)
    }

    fn check_consistency(&self) -> Result<(), BatchError> {
        if self.records == 0 && self.length != HEADER_LEN as u32 {
            return Err(BatchError::Empty);
        }
        if self.records > self.offsets() {
            return Err(field("last_offset_delta", self.last_offset_delta.into()));
        }
        if self.base_offset.0 > i64::MAX as u64 - u64::from(self.offsets()) {
            return Err(field("base_offset", self.base_offset.0 as i64));
        }
        if Compression::from_attributes(self.attributes).is_none() {
            return Err(field("attributes", self.attributes.into()));
        }
        if self.base_timestamp < -1 {
            return Err(field("base_timestamp", self.base_timestamp));
        }
        let lowest_maximum = if self.is_append_time() { -1 } else { self.base_timestamp };
        if self.max_timestamp < lowest_maximum {
            return Err(field("max_timestamp", self.max_timestamp));
        }
        match self.producer {
            // Control batches of transactions carry a producer but no sequence.
            Some(producer) if !self.is_control() && producer.epoch < 0 => {
                Err(field("producer_epoch", producer.epoch.into()))
            }
            Some(producer) if !self.is_control() && producer.base_sequence < 0 => {
                Err(field("base_sequence", producer.base_sequence.into()))
            }
            _ => Ok(()),
        }
    }

    /// The header as it stands in front of the records.
    pub(super) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut head = [0; HEADER_LEN];
        let (id, producer_epoch, sequence) = self
            .producer
            .map_or((-1, -1, -1), |producer| (producer.id.0, producer.epoch, producer.base_sequence));
        head[0..8].copy_from_slice(&self.base_offset.0.to_be_bytes());
        head[8..12].copy_from_slice(&(self.length - LENGTH_OVERHEAD as u32).to_be_bytes());
        head[12..16].copy_from_slice(&self.epoch.map_or(-1, LeaderEpoch::to_wire).to_be_bytes());
        head[16] = MAGIC;
        head[17..21].copy_from_slice(&self.crc.to_be_bytes());
        head[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        head[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        head[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        head[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        head[43..51].copy_from_slice(&id.to_be_bytes());
        head[51..53].copy_from_slice(&producer_epoch.to_be_bytes());
        head[53..57].copy_from_slice(&sequence.to_be_bytes());
        head[57..61].copy_from_slice(&self.records.to_be_bytes());
        head
    }

    /// How many offsets it takes, at least 1.
    pub fn offsets(&self) -> u32 {
        // At most 2^31: the field is an i32 that is not negative.
        self.last_offset_delta + 1
    }

    /// Whether a record stands at each of its offsets, as producers write batches and compaction may not leave them.
    pub fn is_dense(&self) -> bool {
        self.records == self.offsets()
    }

    /// Offset behind the last one that it takes (exclusive end of the batch).
    pub fn next_offset(&self) -> Offset {
        self.base_offset + u64::from(self.offsets())
    }

    /// The last offset that it takes (inclusive).
    pub fn last_offset(&self) -> Offset {
        self.base_offset + u64::from(self.last_offset_delta)
    }

    /// Sequence number of the last record, wrapped after `i32::MAX` as Kafka does; `None` without a producer or,
    /// on control batches, without a sequence.
    pub fn last_sequence(&self) -> Option<i32> {
        let base = u32::try_from(self.producer?.base_sequence).ok()?;
        Some((base.wrapping_add(self.last_offset_delta) & (i32::MAX as u32)) as i32)
    }

    /// How the records are compressed.
    pub fn compression(&self) -> Compression {
        Compression::from_attributes(self.attributes).unwrap_or_default()
    }

    /// Whether it carries markers of ours instead of records of a user.
    pub fn is_control(&self) -> bool {
        self.attributes & ATTRIBUTE_CONTROL != 0
    }

    /// Whether it belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & ATTRIBUTE_TRANSACTIONAL != 0
    }

    /// Whether all its records have the time of the append, `max_timestamp`, instead of their own.
    pub fn is_append_time(&self) -> bool {
        self.attributes & ATTRIBUTE_APPEND_TIME != 0
    }
}

fn decode_length(after_field: i32) -> Result<u32, BatchError> {
    let length = i64::from(after_field) + LENGTH_OVERHEAD as i64;
    if length < HEADER_LEN as i64 {
        return Err(field("length", after_field.into()));
    }
    u32::try_from(length).map_err(|_| field("length", after_field.into()))
}

fn decode_producer(head: &[u8; HEADER_LEN]) -> Result<Option<ProducerRef>, BatchError> {
    match i64_at(head, 43) {
        -1 => Ok(None),
        id if id < -1 => Err(field("producer_id", id)),
        id => Ok(Some(ProducerRef {
            id: ProducerId(id),
            epoch: i16::from_be_bytes(array_at(head, 51)),
            base_sequence: i32_at(head, 53),
        })),
    }
}

fn field(field: &'static str, value: i64) -> BatchError {
    BatchError::Field { field, value }
}

fn unsigned(name: &'static str, value: i64) -> Result<u64, BatchError> {
    u64::try_from(value).map_err(|_| field(name, value))
}

fn narrow(name: &'static str, value: i32) -> Result<u32, BatchError> {
    u32::try_from(value).map_err(|_| field(name, value.into()))
}

fn i64_at(head: &[u8; HEADER_LEN], at: usize) -> i64 {
    i64::from_be_bytes(array_at(head, at))
}

fn i32_at(head: &[u8; HEADER_LEN], at: usize) -> i32 {
    i32::from_be_bytes(array_at(head, at))
}

fn array_at<const N: usize>(head: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&head[at..at + N]);
    array
}
