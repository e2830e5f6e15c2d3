//! A disk that is full from some byte on: the log keeps what it has, says so, and goes on once there is room.

use super::*;
use crate::fs::mem::{Fault, OperationKind};

/// Steps between two sizes of a disk: coprime to the sizes of batches and blocks, so that every kind of write is cut somewhere.
const STEP: usize = 211;

fn in_memory() -> (MemFs, Place) {
    let fs = MemFs::new();
    // So many entries that blocks of the index are written between two rolls.
    let config = LogConfig { segment_size: ByteSize(24 << 10), index_interval: ByteSize(1), ..small() };
    let place = Place { fs: Arc::new(fs.clone()), dir: "/data/t-0".into(), config };
    (fs, place)
}

/// Nothing is on disk but whole batches.
fn assert_holds(place: &Place, log: &PartitionLog, expected: &[RecordBatch], context: &str) {
    assert!(!log.is_poisoned(), "{context}");
    assert_eq!(content(log), expected, "{context}");
    let in_files: usize = place.files().iter().map(|(_, bytes)| bytes.len()).sum();
    assert_eq!(in_files as u64, log.size_bytes(), "{context}: something is left of what did not fit");
}

/// Appends until nothing fits any more. Returns whether that happened.
fn fills(log: &mut PartitionLog, all: &[RecordBatch]) -> bool {
    for some in all.chunks(5) {
        let held = (log.log_end_offset().0 / 3) as usize;
        let from = held.saturating_sub((some[0].header().base_offset.0 / 3) as usize);
        match log.append(&some[from..]) {
            Ok(()) => {}
            Err(error) if error.is_full() => return true,
            Err(error) => panic!("{error:?}"),
        }
    }
    false
}

/// What is left to append.
fn rest<'a>(log: &PartitionLog, all: &'a [RecordBatch]) -> &'a [RecordBatch] {
    &all[(log.log_end_offset().0 / 3) as usize..]
}

#[test]
fn a_log_on_a_full_disk_holds_whole_batches_and_goes_on_once_there_is_room() {
    let all = batches(0, 130, 1);
    for room in (0..).step_by(STEP) {
        let context = format!("room for {room} bytes");
        let (fs, place) = in_memory();
        let mut log = filled(&place, &all[..3]);
        fs.set_capacity(Some(fs.used() + room as u64));
        let full = fills(&mut log, &all[3..]);
        let held = (log.log_end_offset().0 / 3) as usize;
        assert_holds(&place, &log, &all[..held], &context);
        // Again and again: nothing is used up by trying.
        for _ in 0..3 {
            assert_eq!(log.append(rest(&log, &all)).is_err_and(|error| error.is_full()), full, "{context}");
        }
        assert_holds(&place, &log, &all[..(log.log_end_offset().0 / 3) as usize], &context);
        flush(&mut log);
        fs.set_capacity(None);
        log.append(rest(&log, &all)).unwrap();
        assert_holds(&place, &log, &all, &context);
        flush(&mut log);
        check_lookups(&log, &all);
        let end = log.log_end_offset();
        drop(log);
        fs.crash();
        for clean in [false, true] {
            let log = place.try_open(Recovery { trusted_end: end, flushed_end: end, clean }).unwrap().0;
            assert_holds(&place, &log, &all, &context);
            check_lookups(&log, &all);
        }
        if !full {
            assert!(room > 26 << 10, "the disk was never full");
            return;
        }
    }
}

/// The power goes while the disk is full, whatever of the failed write and its taking back reaches the disk.
#[test]
fn a_power_cut_on_a_full_disk_takes_nothing_that_was_flushed() {
    let all = batches(0, 200, 1);
    for (room, seed) in (0..30_000).step_by(401).zip(0..) {
        let context = format!("room for {room} bytes, seed {seed}");
        let (fs, place) = in_memory();
        let mut log = filled(&place, &all[..3]);
        fs.set_capacity(Some(fs.used() + room as u64));
        assert!(fills(&mut log, &all[3..]), "{context}");
        // Some flush what they have, and try once more.
        let mut durable = Offset(9);
        if seed % 2 == 0 {
            flush(&mut log);
            durable = log.log_end_offset();
            log.append(rest(&log, &all)).unwrap_err();
        }
        drop(log);
        fs.crash_keeping(seed);
        let recovery = Recovery { trusted_end: durable, flushed_end: durable, clean: false };
        let mut log = place.try_open(recovery).unwrap_or_else(|error| panic!("{context}: {error:?}")).0;
        let found = content(&log);
        assert!(log.log_end_offset() >= durable && found == all[..found.len()], "{context}");
        fs.set_capacity(None);
        log.append(rest(&log, &all)).unwrap();
        assert_eq!(content(&log), all, "{context}");
    }
}

/// Another leader may have something smaller to say, for which the segment before has room: the one that was to follow it
/// must not lie in the middle of that.
#[test]
fn a_segment_that_could_not_be_begun_does_not_come_back() {
    for seed in 0..32 {
        let (fs, place) = in_memory();
        let mut log = filled(&place, &batches(0, 10, 1));
        // There is room for a name, and none for the seal.
        fs.set_capacity(Some(fs.used() + 1));
        let large = batch(30, 3, 90, 0, 23 << 10);
        assert!(log.append(std::slice::from_ref(&large)).unwrap_err().is_full());
        assert_eq!(log.segment_count(), 1);
        assert_eq!(place.files().len(), 1);
        fs.set_capacity(None);
        let smaller: Vec<RecordBatch> = (0..30).map(|number| batch(30 + number * 3, 3, 91, 0, 900)).collect();
        log.append(&smaller).unwrap();
        assert!(log.segment_count() > 1);
        flush(&mut log);
        let (end, before) = (log.log_end_offset(), content(&log));
        drop(log);
        fs.crash_keeping(seed);
        let recovery = Recovery { trusted_end: end, flushed_end: end, clean: false };
        assert_eq!(content(&place.try_open(recovery).unwrap().0), before, "seed {seed}");
    }
}

/// Another leader cuts the log while the disk is full.
#[test]
fn a_log_on_a_full_disk_can_be_cut() {
    let all = batches(0, 200, 1);
    for room in (0..30_000).step_by(97) {
        let (fs, place) = in_memory();
        let mut log = filled(&place, &all[..3]);
        fs.set_capacity(Some(fs.used() + room as u64));
        assert!(fills(&mut log, &all[3..]));
        let kept = (log.log_end_offset().0 / 3 / 2).max(1);
        log.truncate_to(Offset(kept * 3)).unwrap();
        assert_holds(&place, &log, &all[..kept as usize], &format!("room for {room} bytes"));
        fs.set_capacity(None);
        let other = batches(kept * 3, 60, 80);
        log.append(&other).unwrap();
        let expected = [&all[..kept as usize], &other].concat();
        assert_holds(&place, &log, &expected, &format!("room for {room} bytes"));
        check_lookups(&log, &expected);
    }
}

#[test]
fn a_checkpoint_without_room_is_no_loss() {
    for room in (0..).step_by(STEP) {
        let (fs, place) = in_memory();
        let all = batches(0, 40, 1);
        let mut log = filled(&place, &all[..20]);
        checkpoint(&mut log);
        log.append(&all[20..]).unwrap();
        flush(&mut log);
        let before = fs.used();
        fs.set_capacity(Some(before + room as u64));
        let known = snapshot(&log);
        let noted = log.checkpoint(&known);
        if noted.as_ref().is_err_and(LogError::is_full) {
            assert_eq!(fs.used(), before, "what was written of it goes");
        } else {
            noted.as_ref().unwrap();
        }
        assert_holds(&place, &log, &all, "");
        fs.set_capacity(None);
        flush(&mut log);
        let end = log.log_end_offset();
        drop(log);
        fs.crash();
        let recovery = Recovery { trusted_end: end, flushed_end: end, clean: false };
        let (mut log, _, derived) = place.try_resume(recovery).unwrap();
        assert_eq!(derived.restored, if noted.is_ok() { 40 } else { 20 });
        checkpoint(&mut log);
        assert_eq!(log.bytes_since_checkpoint(), 0);
        if noted.is_ok() {
            assert!(room > 100);
            return;
        }
    }
}

/// A start reads what is there: whatever it would build to find it faster can wait.
#[test]
fn a_log_without_its_indexes_opens_on_a_full_disk() {
    let (fs, place) = in_memory();
    let all = batches(0, 200, 1);
    drop(filled(&place, &all));
    for (path, _) in place.files_of(".index") {
        fs.remove_file(&path).unwrap();
    }
    fs.set_capacity(Some(fs.used()));
    let log = place.open();
    assert_holds(&place, &log, &all, "");
    check_lookups(&log, &all);
    drop(log);
    fs.set_capacity(None);
    let mut log = place.open();
    assert!(!place.files_of(".index").is_empty());
    check_lookups(&log, &all);
    log.append(&batches(600, 4, 60)).unwrap();
}

#[test]
fn what_cannot_be_taken_back_poisons() {
    let all = batches(0, 4, 1);
    let (fs, place) = in_memory();
    let mut log = filled(&place, &all[..3]);
    fs.set_capacity(Some(fs.used() + 20));
    fs.inject(Fault { kind: Some(OperationKind::SetLen), after: 0, lasting: false });
    assert!(!log.append(&all[3..]).unwrap_err().is_full());
    assert!(matches!(log.append(&all[3..]), Err(LogError::Poisoned)));
}

#[test]
fn an_old_segment_is_sealed_once_there_is_room() {
    let (fs, place) = in_memory();
    let all = batches(0, 8, 1);
    let mut log = filled(&place, &all[..4]);
    let age = i64::try_from(place.config.segment_age.as_millis()).unwrap();
    assert!(!log.roll_if_old(0).unwrap());
    for room in [0, 1, 500] {
        fs.set_capacity(Some(fs.used() + room));
        assert!(log.roll_if_old(age).unwrap_err().is_full());
        assert_holds(&place, &log, &all[..4], "");
    }
    fs.set_capacity(None);
    assert!(log.roll_if_old(age).unwrap());
    log.append(&all[4..]).unwrap();
    assert_holds(&place, &log, &all, "");
    check_lookups(&log, &all);
}
