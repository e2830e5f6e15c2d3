//! Record batches, as producers send them and disks give them back, and the records inside.

use bytes::Bytes;
use holdfast_core::record_batch::{
    BatchError, Compression, Header, ProducerRef, RecordBatch, RecordBatchBuilder, RecordIter,
};
use holdfast_core::{BrokerId, LeaderEpoch, Offset, ProducerId, Term};
use holdfast_proto::compression::{CompressionError, compress, decompress};

use crate::corpus::Input;
use crate::target::{Memory, Target};

const CODECS: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
/// The limit that a decoder of records is given.
const MAX_RECORDS: usize = 1 << 20;

pub(super) fn targets() -> Vec<Target> {
    vec![
        Target {
            name: "batch",
            about: "record batches, from a producer, a peer or a segment",
            memory: Memory { fixed: 64 << 10, per_byte: 64 },
            written,
            run: batch,
        },
        Target {
            name: "records",
            about: "the records of a batch, decompressed, as consumers read them",
            // The codecs have blocks of up to 8 MiB of their own.
            memory: Memory { fixed: 24 << 20, per_byte: 64 },
            written,
            run: records,
        },
        Target {
            name: "compacted",
            about: "batches that compaction takes records out of, cuts, or stands fillers for",
            memory: Memory { fixed: 24 << 20, per_byte: 128 },
            written: compacted_written,
            run: compacted,
        },
    ]
}

/// Why a batch cannot be made.
#[derive(Debug, thiserror::Error)]
enum BuildError {
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error(transparent)]
    Compression(#[from] CompressionError),
}

/// A stamped batch of some records, with all that a record may have.
pub(super) fn build(base: u64, term: u32, codec: Compression) -> RecordBatch {
    let mut builder = RecordBatchBuilder::new();
    let headers = [
        Header { key: Bytes::from_static(b"trace"), value: None },
        Header { key: Bytes::new(), value: Some(Bytes::from_static(b"\xff\0")) },
    ];
    let producer = ProducerRef { id: ProducerId(7), epoch: 0, base_sequence: 3 };
    let pushed = [
        builder.push(1_700_000_000_000, Some(b"key"), Some(&[b'v'; 200]), &[]),
        builder.push(1_700_000_000_005, None, Some(b""), &headers),
        builder.push(-1, Some(b""), None, &[]),
    ];
    assert!(pushed.iter().all(Result::is_ok), "three small records fit");
    let built: Result<RecordBatch, BuildError> =
        builder.finish_with(Some(producer), codec, |section| Ok(compress(codec, section)?));
    built.expect("three small records fit").stamped(Offset(base), LeaderEpoch::first(Term(term)))
}

fn written() -> Vec<Input> {
    let marker = RecordBatch::marker(Offset(0), LeaderEpoch::first(Term(1)), BrokerId(1));
    let mut inputs = vec![Input::of("marker.batch", marker.bytes().to_vec())];
    inputs.extend(CODECS.map(|codec| Input::of("one.batch", build(1, 1, codec).bytes().to_vec())));
    let many = [marker, build(1, 1, Compression::None), build(4, 2, Compression::Zstd)];
    let many: Vec<u8> = many.iter().flat_map(|batch| batch.bytes().to_vec()).collect();
    inputs.push(Input::of("many.batch", many));
    inputs
}

/// What compaction leaves: fewer records, none, and fillers.
fn compacted_written() -> Vec<Input> {
    let mut inputs = written();
    for codec in CODECS {
        for kept in [0, 1, 2] {
            let batch = build(1, 1, codec);
            let Ok(left) = without(&batch, |delta| delta >= kept) else { continue };
            inputs.push(Input::of("left.batch", left.bytes().to_vec()));
        }
    }
    let fillers = [(0, 1), (1, 40), (41, 1 << 31)].map(|(first, offsets)| filler(first, offsets));
    inputs.push(Input::of("fillers.batch", fillers.concat()));
    inputs
}

fn filler(first: u64, offsets: u64) -> Vec<u8> {
    let filler = RecordBatch::filler(Offset(first), Offset(first + offsets), LeaderEpoch::first(Term(1)));
    filler.map(|filler| filler.bytes().to_vec()).unwrap_or_default()
}

fn batch(input: &Input) -> bool {
    let bytes = Bytes::copy_from_slice(input.bytes());
    if let Ok(batch) = RecordBatch::check(bytes.clone(), MAX_RECORDS) {
        assert_eq!(batch.bytes(), &bytes, "a batch is what was given");
        if let Ok(records) = batch.records() {
            let good = records.filter(Result::is_ok).count();
            assert_eq!(good, batch.header().records as usize, "what was checked can be read");
        }
        let stamped = batch.stamped(Offset(9), LeaderEpoch::first(Term(3)));
        assert_eq!(RecordBatch::check_crc(stamped.bytes().clone()).as_ref(), Ok(&stamped));
    }
    let Ok(batches) = RecordBatch::split(bytes.clone()) else { return false };
    let joined: Vec<u8> = batches.iter().flat_map(|batch| batch.bytes().to_vec()).collect();
    assert_eq!(joined, bytes, "batches are all of what was given");
    batches.iter().map(RecordBatch::header).all(|header| {
        // Every number that others compute with.
        let _ = (header.next_offset(), header.last_offset(), header.last_sequence());
        header.last_offset() < header.next_offset()
    })
}

fn records(input: &Input) -> bool {
    let Ok(batches) = RecordBatch::split(Bytes::copy_from_slice(input.bytes())) else { return false };
    let readable = |batch: &RecordBatch| {
        let header = *batch.header();
        let Ok(section) = decompress(header.compression(), batch.section(), MAX_RECORDS) else {
            return false;
        };
        assert!(section.len() <= MAX_RECORDS, "the limit holds");
        RecordIter::new(header, section).all(|record| record.is_ok())
    };
    batches.iter().filter(|batch| !readable(batch)).count() == 0
}

/// The batch without the records of which that holds, by their place in it.
fn without(batch: &RecordBatch, drops: impl Fn(u32) -> bool) -> Result<RecordBatch, BuildError> {
    let codec = batch.header().compression();
    let section = decompress(codec, batch.section(), MAX_RECORDS)?;
    batch.retaining(&section, |record| !drops(record.offset_delta), |left| Ok(compress(codec, left)?))
}

/// Each batch goes through all that compaction does to one. Accepted if every one of them could be read.
fn compacted(input: &Input) -> bool {
    let Ok(batches) = RecordBatch::split(Bytes::copy_from_slice(input.bytes())) else { return false };
    for batch in &batches {
        cut(batch);
    }
    batches.iter().filter(|batch| !thins(batch)).count() == 0
}

/// Only fillers are cut, and what is cut stands for what it was cut to.
fn cut(batch: &RecordBatch) {
    let (first, next) = (batch.header().base_offset.0, batch.header().next_offset().0);
    let middle = first + (next - first) / 2;
    for (from, to) in
        [(first, next), (0, u64::MAX), (middle, next), (first, middle), (next, u64::MAX), (0, first)]
    {
        let Some(cut) = batch.clipped(Offset(from), Offset(to)) else { continue };
        let range = (cut.header().base_offset.0, cut.header().next_offset().0);
        assert_eq!(range, (first.max(from), next.min(to)), "it is cut to where it was to be");
        assert!(cut == *batch || batch.header().is_filler(), "only a filler is cut");
        assert_eq!(RecordBatch::check_crc(cut.bytes().clone()).as_ref(), Ok(&cut));
    }
}

/// Takes records out of a batch in several ways. Whether it could be read.
fn thins(batch: &RecordBatch) -> bool {
    let header = *batch.header();
    let drops: [fn(u32) -> bool; 3] = [|delta| delta % 2 == 0, |_| true, |_| false];
    drops.into_iter().all(|drops| {
        let Ok(left) = without(batch, drops) else { return false };
        let after = *left.header();
        assert_eq!((after.base_offset, after.next_offset()), (header.base_offset, header.next_offset()));
        assert_eq!((after.epoch, after.producer), (header.epoch, header.producer), "it stays whose it was");
        assert!(after.records <= header.records, "records only go");
        assert_eq!(RecordBatch::check_crc(left.bytes().clone()).as_ref(), Ok(&left), "it reads back");
        // What is gone is gone: nothing more goes of it.
        let again = without(&left, drops).expect("what was written can be read");
        assert_eq!(again, left);
        true
    })
}
