//! What happens between a reader's look at the index and its look at the file.

use std::sync::Mutex;

use super::*;
use crate::fs::hooked::HookedFs;

/// An empty folder on files of which the next read can be preceded by something.
fn hooked() -> (HookedFs, Place) {
    let fs = HookedFs::default();
    let place = Place { fs: Arc::new(fs.clone()), dir: "/d/t-0".into(), config: small() };
    (fs, place)
}

/// A log of four batches. Before the next read the last three are replaced by others of other sizes.
fn log_that_changes_before_the_next_read() -> (Arc<Mutex<PartitionLog>>, HookedFs, Vec<RecordBatch>) {
    let (fs, place) = hooked();
    let old: Vec<RecordBatch> = (0..4).map(|base| batch(base, 1, 1, 7, 50)).collect();
    let log = Arc::new(Mutex::new(filled(&place, &old)));
    let new: Vec<RecordBatch> = (1..4).map(|base| batch(base, 1, 2, 9, 71)).collect();
    let (changed, batches) = (log.clone(), new.clone());
    fs.before_read(move || {
        let mut log = changed.lock().unwrap();
        log.truncate_to(Offset(1)).unwrap();
        log.append(&batches).unwrap();
    });
    (log, fs, [&old[..1], &new].concat())
}

/// A log of three segments. Before the next read it is trimmed to its last batch.
fn log_that_is_trimmed_before_the_next_read() -> (Arc<Mutex<PartitionLog>>, HookedFs) {
    let (fs, place) = hooked();
    let all: Vec<RecordBatch> = (0..30).map(|base| batch(base, 1, 1, base as i64, 100)).collect();
    let log = Arc::new(Mutex::new(filled(&place, &all)));
    let trimmed = log.clone();
    fs.before_read(move || {
        let base = holdfast_core::replication::Position { epoch: epoch(1), end: Offset(29) };
        trimmed.lock().unwrap().trim_to(base, vec![]).unwrap().unwrap().run().unwrap();
    });
    (log, fs)
}

#[test]
fn read_that_a_trim_overtakes_is_out_of_range() {
    let (log, fs) = log_that_is_trimmed_before_the_next_read();
    let reader = log.lock().unwrap().reader();
    let error = reader.read(Offset(2), Offset(30), 10_000).unwrap_err();
    assert!(fs.have_run(), "it was not trimmed");
    assert!(matches!(error, LogError::OutOfRange { start: Offset(29), .. }), "{error:?}");
}

/// Its segment goes between the look at the index and the opening of the file.
#[test]
fn search_by_time_that_a_trim_overtakes_finds_what_is_left() {
    let (log, fs) = log_that_is_trimmed_before_the_next_read();
    let reader = log.lock().unwrap().reader();
    assert_eq!(reader.offset_for_timestamp(3, Offset(30)).unwrap(), Some((Offset(29), 29)));
    assert!(fs.have_run(), "it was not trimmed");
}

#[test]
fn read_that_a_truncation_overtakes_sees_the_log_as_it_is_afterwards() {
    let (log, fs, expected) = log_that_changes_before_the_next_read();
    let reader = log.lock().unwrap().reader();
    let read = reader.read(Offset(2), Offset(4), 10_000).unwrap();
    assert!(fs.have_run(), "it was not truncated");
    assert_eq!(RecordBatch::split(read).unwrap(), expected[2..]);
}

#[test]
fn search_by_time_that_a_truncation_overtakes_sees_the_log_as_it_is_afterwards() {
    let (log, fs, _) = log_that_changes_before_the_next_read();
    let reader = log.lock().unwrap().reader();
    assert_eq!(reader.offset_for_timestamp(7, Offset(4)).unwrap(), Some((Offset(0), 7)));
    assert!(fs.have_run(), "it was not truncated");
}
