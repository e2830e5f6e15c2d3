use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::fs::hooked::HookedFs;
use crate::{OpenMode, segment};

#[test]
fn appended_batches_are_read_back_whole_and_in_order() {
    on_every_fs(|place| {
        let all = batches(0, 40, 1);
        let mut log = place.open();
        log.append(&all[..1]).unwrap();
        log.append(&[]).unwrap();
        log.append(&all[1..]).unwrap();
        assert!(log.segment_count() > 3);
        assert_eq!(content(&log), all);
        assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset(0), Offset(120)));
        assert_eq!(log.size_bytes(), all.iter().map(|batch| batch.bytes().len() as u64).sum::<u64>());
        assert_eq!(log.last_epoch(), Some(epoch(10)));
        assert_eq!(log.epochs()[1], (epoch(2), Offset(12)));
    });
}

#[test]
fn every_read_starts_with_the_batch_that_holds_the_offset_and_ends_where_asked() {
    on_every_fs(|place| {
        let all = batches(0, 20, 1);
        let reader = filled(place, &all).reader();
        for from in 0..60 {
            for below in from..=60 {
                let read =
                    RecordBatch::split(reader.read(Offset(from), Offset(below), 300).unwrap()).unwrap();
                let first = (from / 3) as usize;
                if (first as u64 + 1) * 3 > below || from == below {
                    assert!(read.is_empty(), "{from} to {below}");
                    continue;
                }
                assert_eq!(read, all[first..first + read.len()], "{from} to {below}");
                let last = read.last().unwrap().header();
                assert!(last.next_offset() <= Offset(below));
                assert!(
                    read.len() == 1 || read.iter().map(|batch| batch.bytes().len()).sum::<usize>() <= 300
                );
            }
        }
    });
}

#[test]
fn one_batch_is_read_however_large_it_is() {
    on_every_fs(|place| {
        let all = [batch(0, 1, 1, 5, 10), batch(1, 1, 1, 5, 100_000), batch(2, 1, 1, 5, 10)];
        let reader = filled(place, &all).reader();
        assert_eq!(reader.read(Offset(1), Offset(3), 1).unwrap(), all[1].bytes());
        assert_eq!(reader.read(Offset(1), Offset(3), usize::MAX).unwrap(), all[1].bytes());
        assert_eq!(reader.read(Offset(0), Offset(3), 0).unwrap(), all[0].bytes());
    });
}

#[test]
fn reads_outside_the_log_say_where_it_is() {
    on_every_fs(|place| {
        let reader = filled(place, &batches(0, 2, 1)).reader();
        assert!(reader.read(Offset(6), Offset(100), 10).unwrap().is_empty());
        let error = reader.read(Offset(7), Offset(100), 10).unwrap_err();
        assert!(matches!(error, LogError::OutOfRange { start: Offset(0), end: Offset(6), .. }));
    });
}

#[test]
fn batches_that_do_not_follow_are_refused_and_nothing_is_written() {
    on_every_fs(|place| {
        let all = batches(0, 3, 5);
        let mut log = filled(place, &all);
        let before = place.files();
        let good = batch(9, 1, 5, 0, 1);
        let gap = log.append(&[good.clone(), batch(11, 1, 5, 0, 1)]).unwrap_err();
        assert!(matches!(gap, LogError::NotContiguous { expected: Offset(10), got: Offset(11) }));
        let old = log.append(&[good, batch(10, 1, 4, 0, 1)]).unwrap_err();
        assert!(matches!(old, LogError::EpochDecreases { offset: Offset(10), .. }));
        let mut builder = RecordBatchBuilder::new();
        builder.push(0, None, None, &[]).unwrap();
        let mut log = filled(&Place { dir: place.dir.with_file_name("other-0"), ..place.clone() }, &[]);
        let unstamped = log.append(&[builder.build(None).unwrap()]).unwrap_err();
        assert!(matches!(unstamped, LogError::NotStamped { offset: Offset(0) }));
        assert_eq!(place.files(), before);
    });
}

#[test]
fn search_by_time_finds_the_first_batch_that_reaches_it() {
    on_every_fs(|place| {
        let all = batches(0, 30, 1);
        let reader = filled(place, &all).reader();
        for timestamp in (-1..1400).step_by(3) {
            for below in [0, 30, 89, 90] {
                let reaches = |batch: &&RecordBatch| batch.header().max_timestamp >= timestamp;
                let expected = all
                    .iter()
                    .find(reaches)
                    .map(|batch| batch.header())
                    .filter(|header| header.next_offset() <= Offset(below))
                    .map(|header| (header.base_offset, header.max_timestamp));
                let found = reader.offset_for_timestamp(timestamp, Offset(below)).unwrap();
                assert_eq!(found, expected, "time {timestamp} below {below}");
            }
        }
    });
}

/// Readers beside an appender that also truncates see whole, contiguous batches or a typed error, never a mixture.
#[test]
fn reads_beside_appends_and_truncations_see_whole_batches() {
    on_every_fs(|place| {
        let mut log = filled(place, &batches(0, 4, 1));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let (reader, stop) = (log.reader(), &stop);
                scope.spawn(move || {
                    let mut from = thread;
                    while !stop.load(Ordering::SeqCst) {
                        from = (from * 7 + 3) % (reader.log_end_offset().0 + 1);
                        match reader.read(Offset(from), Offset(u64::MAX), 900) {
                            Ok(bytes) => check_contiguous(&RecordBatch::split(bytes).unwrap(), Offset(from)),
                            Err(LogError::OutOfRange { .. } | LogError::TruncatedWhileReading { .. }) => {}
                            Err(other) => panic!("{other:?}"),
                        }
                        reader.offset_for_timestamp(1010, Offset(u64::MAX)).ok();
                    }
                });
            }
            for term in 2..150 {
                let end = log.log_end_offset().0;
                log.append(&batches(end, 10, term * 4)).unwrap();
                log.truncate_to(Offset(12 + u64::from(term) % 20)).unwrap();
            }
            stop.store(true, Ordering::SeqCst);
        });
    });
}

fn check_contiguous(batches: &[RecordBatch], from: Offset) {
    if let Some(first) = batches.first() {
        assert!(first.header().base_offset <= from && from < first.header().next_offset());
    }
    for pair in batches.windows(2) {
        assert_eq!(pair[0].header().next_offset(), pair[1].header().base_offset);
    }
}

/// A flipped bit in a length must not take as much memory as there is of the segment.
#[test]
fn no_memory_is_taken_for_what_a_damaged_length_claims() {
    let fs = HookedFs::default();
    let config = LogConfig { segment_size: ByteSize(1 << 30), ..small() };
    let place = Place { fs: Arc::new(fs.clone()), dir: "/d/t-0".into(), config };
    let all: Vec<RecordBatch> = (0..5).map(|base| batch(base, 1, 1, 0, 8 << 20)).collect();
    let log = filled(&place, &all);
    let file = fs.open(&segment::path(&place.dir, Offset(0)), OpenMode::Existing).unwrap();
    file.write_all_at(&[&(33_u32 << 20).to_be_bytes()], 8).unwrap();
    let read = log.reader().read(Offset(0), Offset(5), 1000).map(|bytes| bytes.len());
    assert!(matches!(read, Err(LogError::Corrupt { offset: Offset(0), .. })), "{read:?}");
    assert!(fs.largest_read() <= 1 << 20, "{} bytes at once", fs.largest_read());
}
