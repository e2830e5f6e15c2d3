use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::ProducerId;

type Plain = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

fn build(records: &[Plain], producer: Option<ProducerRef>) -> RecordBatch {
    let mut builder = RecordBatchBuilder::new();
    for (timestamp, key, value, headers) in records {
        let headers: Vec<Header> = headers
            .iter()
            .map(|(key, value)| Header { key: key.clone().into(), value: value.clone().map(Bytes::from) })
            .collect();
        let bound = builder.size() + record_size_bound(key.as_deref(), value.as_deref(), &headers);
        builder.push(*timestamp, key.as_deref(), value.as_deref(), &headers).unwrap();
        assert!(builder.size() <= bound);
    }
    let size = builder.size();
    let batch = builder.build(producer).unwrap();
    assert_eq!(batch.bytes().len(), size);
    batch
}

fn simple(values: &[&[u8]]) -> RecordBatch {
    let records: Vec<Plain> = values.iter().map(|value| (7, None, Some(value.to_vec()), vec![])).collect();
    build(&records, None)
}

/// Writes the right checksum, so that what stands behind it is reached.
fn repaired(mut bytes: Vec<u8>) -> Bytes {
    let crc = checksum_of(&bytes);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    Bytes::from(bytes)
}

fn plain_records() -> impl Strategy<Value = Vec<Plain>> {
    let bytes = || vec(any::<u8>(), 0..40);
    let headers = vec((bytes(), option::of(bytes())), 0..3);
    vec((-1_i64..=i64::MAX, option::of(bytes()), option::of(bytes()), headers), 1..20)
}

proptest! {
    #[test]
    fn built_records_read_back(records in plain_records()) {
        let batch = RecordBatch::check(build(&records, None).bytes().clone(), usize::MAX).unwrap();
        let read: Vec<Plain> = batch
            .records()
            .unwrap()
            .map(|record| record.unwrap())
            .map(|record| {
                let headers = record.headers.into_iter();
                (
                    record.timestamp,
                    record.key.map(Vec::from),
                    record.value.map(Vec::from),
                    headers.map(|header| (header.key.into(), header.value.map(Vec::from))).collect(),
                )
            })
            .collect();
        prop_assert_eq!(read, records);
    }

    #[test]
    fn any_flipped_bit_under_the_checksum_is_found(records in plain_records(), at: prop::sample::Index, bit in 0..8_u32) {
        let mut bytes = build(&records, None).bytes().to_vec();
        let position = CHECKSUM_START + at.index(bytes.len() - CHECKSUM_START);
        bytes[position] ^= 1_u8 << bit;
        prop_assert!(RecordBatch::check_crc(bytes.into()).is_err());
    }

    #[test]
    fn damaged_batches_never_panic(
        records in plain_records(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut: prop::sample::Index,
    ) {
        let mut bytes = build(&records, None).bytes().to_vec();
        for (at, value) in changes {
            let position = at.index(bytes.len());
            bytes[position] = value;
        }
        let _ = RecordBatch::split(Bytes::copy_from_slice(&bytes[..cut.index(bytes.len())]));
        if let Ok(batch) = RecordBatch::check_crc(repaired(bytes)) {
            let checked = RecordBatch::check(batch.bytes().clone(), usize::MAX).is_ok();
            let read = RecordIter::new(*batch.header(), batch.section()).all(|record| record.is_ok());
            let dense = batch.header().is_dense() && batch.header().records > 0;
            prop_assert!(batch.header().compression() != Compression::None || checked == (read && dense));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        let _ = RecordBatch::split(bytes.clone().into());
        let _ = RecordBatch::check(bytes.into(), usize::MAX);
    }
}

#[test]
fn known_batch_has_the_bytes_that_kafka_writes() {
    // Encoded by hand from the format's description: one record, key "k", value "v", timestamp 1000.
    let record = [16, 0, 0, 0, 2, b'k', 2, b'v', 0];
    let batch = build(&[(1000, Some(b"k".to_vec()), Some(b"v".to_vec()), vec![])], None);
    assert_eq!(batch.bytes()[HEADER_LEN..], record);
    assert_eq!(batch.bytes()[8..12], (49_i32 + record.len() as i32).to_be_bytes());
    assert_eq!(batch.bytes()[12..17], [0xff, 0xff, 0xff, 0xff, 2]);
    assert_eq!(batch.bytes()[43..57], [0xff; 14]);
    let crc = crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, b"123456789");
    assert_eq!(crc, 0xe306_9283, "crc-32c check value");
}

#[test]
fn stamping_changes_offset_and_epoch_and_keeps_the_checksum() {
    let batch = simple(&[b"a", b"b"]);
    let epoch = LeaderEpoch { term: crate::Term(9), run: 3 };
    let stamped = batch.stamped(Offset(77), epoch);
    let again = RecordBatch::check_crc(stamped.bytes().clone()).unwrap();
    assert_eq!(again, stamped);
    assert_eq!(again.header().base_offset, Offset(77));
    assert_eq!(again.header().last_offset(), Offset(78));
    assert_eq!(again.header().next_offset(), Offset(79));
    assert_eq!(again.header().epoch, Some(epoch));
    assert_eq!(batch.header().epoch, None);
}

#[test]
fn split_shares_memory_and_refuses_a_partial_batch() {
    let batches = [simple(&[b"a"]), simple(&[b"b", b"c"])];
    let joined: Bytes = [&batches[0].bytes()[..], &batches[1].bytes()[..]].concat().into();
    let split = RecordBatch::split(joined.clone()).unwrap();
    assert_eq!(split, batches);
    assert_eq!(split[0].bytes().as_ptr(), joined.as_ptr());
    let cut = joined.slice(..joined.len() - 1);
    assert!(matches!(RecordBatch::split(cut), Err(BatchError::Truncated { .. })));
    assert_eq!(RecordBatch::split(Bytes::new()), Ok(vec![]));
}

#[test]
fn marker_is_a_control_batch_without_a_time() {
    let epoch = LeaderEpoch::first(crate::Term(4));
    let marker = RecordBatch::marker(Offset(10), epoch, BrokerId(6));
    let marker = RecordBatch::check(marker.bytes().clone(), 128).unwrap();
    assert!(marker.header().is_control() && !marker.header().is_transactional());
    assert_eq!((marker.header().base_timestamp, marker.header().max_timestamp), (-1, -1));
    assert_eq!((marker.header().base_offset, marker.header().epoch), (Offset(10), Some(epoch)));
    let record = marker.records().unwrap().next().unwrap().unwrap();
    assert_eq!(record.key.as_deref(), Some(&[0, 0, 0, 2][..]));
    assert_eq!(record.value.as_deref(), Some(&[0, 0, 0, 0, 0, 6][..]));
}

#[test]
fn sequence_numbers_wrap_as_kafka_does() {
    let producer = |base_sequence| Some(ProducerRef { id: ProducerId(1), epoch: 0, base_sequence });
    let records: Vec<Plain> = (0..3).map(|_| (0, None, None, vec![])).collect();
    assert_eq!(build(&records, producer(5)).header().last_sequence(), Some(7));
    assert_eq!(build(&records, producer(i32::MAX - 1)).header().last_sequence(), Some(0));
    assert_eq!(build(&records, producer(i32::MAX)).header().last_sequence(), Some(1));
    assert_eq!(build(&records, None).header().last_sequence(), None);
}

#[test]
fn compressed_records_are_not_walked_and_not_iterated() {
    let mut builder = RecordBatchBuilder::new();
    builder.push(1, None, Some(b"value"), &[]).unwrap();
    let batch = builder
        .finish_with(None, Compression::Zstd, |section| Ok::<_, BatchError>(section.repeat(2)))
        .unwrap();
    let batch = RecordBatch::check(batch.bytes().clone(), usize::MAX).unwrap();
    assert_eq!(batch.header().compression(), Compression::Zstd);
    assert_eq!(batch.records().err(), Some(BatchError::Compressed(Compression::Zstd)));
    let mut records = RecordIter::new(*batch.header(), batch.section());
    assert!(matches!(records.next(), Some(Err(BatchError::TrailingBytes { .. }))));
    assert!(records.next().is_none());
}

#[test]
fn false_claims_are_refused_without_allocating_for_them() {
    let good = simple(&[b"abc"]).bytes().to_vec();
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = good.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        RecordBatch::check(repaired(changed), usize::MAX)
    };
    assert!(with(0, &[]).is_ok());
    // Record count 2^31 - 1, with a last offset delta to match.
    let mut many = good.clone();
    many[23..27].copy_from_slice(&(i32::MAX - 1).to_be_bytes());
    many[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
    let mut compressed = many.clone();
    compressed[22] |= Compression::Zstd as u8;
    let claimed = BatchError::Field { field: "records", value: i32::MAX.into() };
    assert_eq!(RecordBatch::check(repaired(compressed), usize::MAX), Err(claimed));
    assert!(matches!(
        RecordBatch::check(repaired(many), usize::MAX),
        Err(BatchError::Record { index: 1, .. })
    ));
    for (at, bytes) in [
        (0, &(-1_i64).to_be_bytes()[..]),
        (0, &i64::MAX.to_be_bytes()),
        (8, &i32::MAX.to_be_bytes()),
        (8, &(-1_i32).to_be_bytes()),
        (16, &[1]),
        (21, &[0, 7]),
        (23, &1_i32.to_be_bytes()),
        (27, &(-2_i64).to_be_bytes()),
        (35, &6_i64.to_be_bytes()),
        (43, &(-2_i64).to_be_bytes()),
        (57, &0_i32.to_be_bytes()),
        (57, &(-1_i32).to_be_bytes()),
    ] {
        assert!(with(at, bytes).is_err(), "accepted {bytes:?} at {at}");
    }
    assert!(matches!(
        RecordBatch::check(good.clone().into(), 10),
        Err(BatchError::TooLarge { limit: 10, .. })
    ));
    let longer = [&good[..], &[0]].concat();
    assert_eq!(RecordBatch::check_crc(longer.into()), Err(BatchError::TrailingBytes { extra: 1 }));
}

#[test]
fn empty_builder_builds_nothing() {
    assert_eq!(RecordBatchBuilder::new().build(None), Err(BatchError::Empty));
}
