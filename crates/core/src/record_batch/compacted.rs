//! What compaction leaves of batches (R45): fewer records at the same offsets.
//!
//! Every offset of a log stays covered by one batch, so that a compacted log is as contiguous as any other:
//! - A batch with records left keeps its header but for count, length and checksum, and its records as they were.
//! - Of a batch with none left, of which somebody may still ask whose it was, the header stays, without a codec.
//! - Any number of others, one behind the other and of one epoch, become a *filler*: a header and nothing else.
//!
//! Kafka's clients read all three: its own compaction leaves the first two.

use bytes::{Bytes, BytesMut};

use super::{BatchError, BatchHeader, Compression, HEADER_LEN, Record, RecordBatch, RecordIter, checksum_of};
use crate::{LeaderEpoch, Offset};

/// Most offsets that a filler takes: its last offset delta is an i32.
pub const MAX_FILLER_OFFSETS: u64 = 1 << 31;

impl BatchHeader {
    /// Whether it stands for offsets of which nothing is left, not even whose they were. It may be cut anywhere.
    pub fn is_filler(&self) -> bool {
        self.records == 0 && self.producer.is_none() && !self.is_control()
    }
}

impl RecordBatch {
    /// The filler from `first` up to `next` (exclusive) in the log of `epoch`. `None` unless that is one offset or more, and
    /// no more than [`MAX_FILLER_OFFSETS`].
    pub fn filler(first: Offset, next: Offset, epoch: LeaderEpoch) -> Option<RecordBatch> {
        let offsets =
            next.0.checked_sub(first.0).filter(|offsets| (1..=MAX_FILLER_OFFSETS).contains(offsets))?;
        let header = BatchHeader {
            base_offset: first,
            length: HEADER_LEN as u32,
            epoch: Some(epoch),
            attributes: 0,
            last_offset_delta: (offsets - 1) as u32,
            base_timestamp: -1,
            max_timestamp: -1,
            producer: None,
            records: 0,
            crc: 0,
        };
        RecordBatch::sealed(header, BytesMut::zeroed(HEADER_LEN)).ok()
    }

    /// The part of a batch from `from` up to `to` (exclusive): the batch itself where it lies within, a shorter filler where
    /// it is one. `None` where it lies outside, or would have to be cut and is no filler.
    pub fn clipped(&self, from: Offset, to: Offset) -> Option<RecordBatch> {
        let (first, next) = (self.header.base_offset, self.header.next_offset());
        if from <= first && next <= to {
            return Some(self.clone());
        }
        let epoch = self.header.epoch.filter(|_| self.header.is_filler())?;
        RecordBatch::filler(first.max(from), next.min(to), epoch)
    }

    /// The batch with those of its records that `keep` wants, each as it was. `section` is its record section, decompressed;
    /// what is left of it goes through `compress`, which is not called for none nor for [`Compression::None`]. Where all are
    /// wanted it is the batch itself.
    ///
    /// # Errors
    /// Where the section is not what the header says, and those of `compress`.
    pub fn retaining<C, E>(
        &self,
        section: &Bytes,
        mut keep: impl FnMut(&Record) -> bool,
        compress: impl FnOnce(&[u8]) -> Result<C, E>,
    ) -> Result<RecordBatch, E>
    where
        C: AsRef<[u8]>,
        E: From<BatchError>,
    {
        let mut records = RecordIter::new(self.header, section.clone());
        let (mut left, mut count, mut latest) = (BytesMut::zeroed(HEADER_LEN), 0, -1);
        loop {
            let start = records.position();
            let Some(record) = records.next().transpose()? else { break };
            if keep(&record) {
                left.extend_from_slice(&section[start..records.position()]);
                (count, latest) = (count + 1, record.timestamp.max(latest));
            }
        }
        if count == self.header.records {
            return Ok(self.clone());
        }
        if count > 0 && self.header.compression() != Compression::None {
            let compressed = compress(&left[HEADER_LEN..])?;
            left.truncate(HEADER_LEN);
            left.extend_from_slice(compressed.as_ref());
        }
        // Timestamps of records are told from the batch's first one, which may be that of a record that is gone.
        let (base_timestamp, max_timestamp) = match count {
            0 => (-1, -1),
            _ if self.header.is_append_time() => (self.header.base_timestamp, self.header.max_timestamp),
            _ => (self.header.base_timestamp, latest.max(self.header.base_timestamp)),
        };
        // Nothing is there to be decompressed: no codec takes that for its own.
        let attributes =
            if count == 0 { self.header.attributes & !Compression::MASK } else { self.header.attributes };
        let header = BatchHeader { records: count, attributes, base_timestamp, max_timestamp, ..self.header };
        Ok(RecordBatch::sealed(header, left)?)
    }

    /// `bytes` with that header in front, its length and checksum set.
    fn sealed(header: BatchHeader, mut bytes: BytesMut) -> Result<RecordBatch, BatchError> {
        let length = i32::try_from(bytes.len()).map_err(|_| BatchError::Full)?;
        let mut header = BatchHeader { length: length as u32, ..header };
        bytes[..HEADER_LEN].copy_from_slice(&header.encode());
        header.crc = checksum_of(&bytes);
        bytes[..HEADER_LEN].copy_from_slice(&header.encode());
        Ok(RecordBatch { header: BatchHeader::decode(&bytes)?, bytes: bytes.freeze() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record_batch::{ProducerRef, RecordBatchBuilder};
    use crate::{BrokerId, ProducerId, Term};

    const EPOCH: LeaderEpoch = LeaderEpoch { term: Term(3), run: 1 };

    /// Records with keys and times 100, 101 and so on.
    fn batch(base: u64, keys: &[&str], producer: Option<ProducerRef>) -> RecordBatch {
        let mut builder = RecordBatchBuilder::new();
        for (number, key) in (0..).zip(keys) {
            builder.push(100 + number, Some(key.as_bytes()), Some(b"value"), &[]).unwrap();
        }
        builder.build(producer).unwrap().stamped(Offset(base), EPOCH)
    }

    fn keeping(batch: &RecordBatch, keys: &[&str]) -> RecordBatch {
        let wanted = |record: &Record| keys.iter().any(|key| record.key.as_deref() == Some(key.as_bytes()));
        let kept = batch.retaining(&batch.section(), wanted, |section| Ok::<_, BatchError>(section.to_vec()));
        let kept = kept.unwrap();
        assert_eq!(RecordBatch::check_crc(kept.bytes().clone()), Ok(kept.clone()), "reads back");
        kept
    }

    #[test]
    fn records_that_are_left_are_what_and_where_they_were() {
        let producer = ProducerRef { id: ProducerId(9), epoch: 2, base_sequence: 40 };
        let whole = batch(10, &["a", "b", "c", "d"], Some(producer));
        let kept = keeping(&whole, &["b", "c"]);
        assert_eq!((kept.header().base_offset, kept.header().next_offset()), (Offset(10), Offset(14)));
        assert_eq!(kept.header().last_sequence(), whole.header().last_sequence());
        assert_eq!((kept.header().epoch, kept.header().producer), (Some(EPOCH), Some(producer)));
        assert_eq!(kept.header().max_timestamp, 102);
        let all: Vec<Record> = whole.records().unwrap().collect::<Result<_, _>>().unwrap();
        let left: Vec<Record> = kept.records().unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(left, all[1..3]);
        assert_eq!(keeping(&kept, &["c"]), keeping(&whole, &["c"]), "as if it had been done at once");
        assert_eq!(keeping(&whole, &["a", "b", "c", "d"]), whole);
    }

    #[test]
    fn a_batch_without_records_keeps_offsets_and_producer() {
        let producer = ProducerRef { id: ProducerId(9), epoch: 2, base_sequence: 40 };
        let empty = keeping(&batch(10, &["a", "b"], Some(producer)), &[]);
        assert_eq!(empty.bytes().len(), HEADER_LEN);
        assert_eq!((empty.header().next_offset(), empty.header().records), (Offset(12), 0));
        assert_eq!(empty.header().last_sequence(), Some(41));
        assert_eq!(empty.records().unwrap().count(), 0);
        assert!(!empty.header().is_filler());
        assert!(keeping(&batch(10, &["a", "b"], None), &[]).header().is_filler());
        let mut builder = RecordBatchBuilder::new();
        builder.push(100, Some(b"a"), None, &[]).unwrap();
        let packed = |section: &[u8]| Ok::<_, BatchError>(section.to_vec());
        let packed = builder.finish_with(Some(producer), Compression::Zstd, packed).unwrap();
        assert_eq!(keeping(&packed, &["a"]).header().compression(), Compression::Zstd);
        assert_eq!(keeping(&packed, &[]).header().compression(), Compression::None, "nothing to decompress");
    }

    #[test]
    fn only_fillers_are_cut() {
        let filler = RecordBatch::filler(Offset(10), Offset(20), EPOCH).unwrap();
        assert!(filler.header().is_filler());
        assert_eq!(RecordBatch::check_crc(filler.bytes().clone()), Ok(filler.clone()));
        assert_eq!(
            filler.clipped(Offset(12), Offset(40)),
            RecordBatch::filler(Offset(12), Offset(20), EPOCH)
        );
        assert_eq!(filler.clipped(Offset(0), Offset(15)), RecordBatch::filler(Offset(10), Offset(15), EPOCH));
        assert_eq!(filler.clipped(Offset(0), Offset(20)), Some(filler.clone()));
        assert_eq!(filler.clipped(Offset(20), Offset(30)), None);
        let whole = batch(10, &["a", "b"], None);
        assert_eq!(whole.clipped(Offset(10), Offset(12)), Some(whole.clone()));
        assert_eq!(whole.clipped(Offset(11), Offset(12)), None);
        let marker = RecordBatch::marker(Offset(10), EPOCH, BrokerId(1));
        assert!(!marker.header().is_filler());
    }

    #[test]
    fn a_filler_takes_as_many_offsets_as_a_header_can_tell() {
        let first = Offset(1 << 40);
        let largest = RecordBatch::filler(first, first + MAX_FILLER_OFFSETS, EPOCH).unwrap();
        assert_eq!(largest.header().next_offset(), first + MAX_FILLER_OFFSETS);
        assert_eq!(RecordBatch::filler(first, first + MAX_FILLER_OFFSETS + 1, EPOCH), None);
        assert_eq!(RecordBatch::filler(first, first, EPOCH), None);
        assert_eq!(
            RecordBatch::filler(Offset(i64::MAX as u64 - 1), Offset(i64::MAX as u64 + 1), EPOCH),
            None
        );
    }

    #[test]
    fn no_producer_may_leave_records_out() {
        let whole = batch(0, &["a", "b", "c"], None);
        for keys in [&["b"][..], &[]] {
            let kept = keeping(&whole, keys);
            assert!(RecordBatch::check(kept.bytes().clone(), usize::MAX).is_err(), "{keys:?}");
        }
    }
}
