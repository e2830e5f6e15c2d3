//! Damage that keeps a log from being opened: what a peer holds takes its place, and the log opens as it was.

use super::*;
use crate::fs::atomic_write;
use crate::repair::{DamagedLog, MendError, read_closed};
use crate::{OpenMode, ReplicaLogError};

const END: Offset = Offset(120);

fn trusted(end: Offset) -> Recovery {
    Recovery { trusted_end: end, flushed_end: end, clean: false }
}

fn opened(place: &Place, end: Offset) -> Result<PartitionLog, ReplicaLogError> {
    let opened =
        PartitionLog::open(place.fs.clone(), &place.dir, place.config.clone(), trusted(end), &mut |_| {});
    opened.map(|(log, _)| log).map_err(|error| match error {
        LogError::Corrupt { .. } => ReplicaLogError::Damaged(error),
        other => ReplicaLogError::Log(other),
    })
}

/// Opens the log as often as there is something to repair. `None` where it cannot be made sense of; else the log, whether
/// anything was repaired, and whether it had been short.
fn repaired(
    place: &Place,
    all: &[RecordBatch],
    most: usize,
    end: Offset,
) -> Option<(PartitionLog, usize, bool)> {
    let (mut filled, mut short) = (0, false);
    loop {
        let error = match opened(place, end) {
            Ok(log) => return Some((log, filled, short)),
            Err(error) => error,
        };
        let promise = all.last().unwrap().header().epoch.unwrap();
        let before = filled;
        let (fs, recovery) = (place.fs.clone(), trusted(end));
        let mut damaged = DamagedLog::new(fs, &place.dir, recovery, promise, &error).unwrap()?;
        while let Some(range) = damaged.next_damage().unwrap() {
            let first = all.partition_point(|batch| batch.header().next_offset() <= range.from);
            match damaged.fill(&all[first..all.len().min(first + most)]) {
                Ok(_) => filled += 1,
                Err(refused @ MendError::DoesNotFit { .. }) => {
                    eprintln!("{range:?}: {refused}");
                    return None;
                }
                Err(other) => panic!("{other:?}"),
            }
            assert!(filled < 4 * all.len(), "it comes to an end: {range:?}");
        }
        short |= damaged.was_short();
        assert!(filled > before, "nothing was repaired of {error:?}");
    }
}

fn flip(place: &Place, path: &Path, at: usize) {
    place.change(path, at, |byte| byte ^ 1 << (at % 8));
}

/// What opening does not look at is left for those who read it.
#[test]
fn after_any_flipped_bit_the_log_opens_as_it_was() {
    let place = Place { fs: Arc::new(MemFs::new()), dir: "/data/topic-0".into(), config: small() };
    let all = batches(0, 40, 1);
    drop(filled(&place, &all));
    let whole = place.files();
    let mut found = 0;
    for (path, content) in &whole {
        for at in 0..content.len() {
            flip(&place, path, at);
            let again = repaired(&place, &all, 1 + at % 3, END);
            let (log, filled, short) = again.unwrap_or_else(|| panic!("byte {at} of {path:?}"));
            assert!(!short, "byte {at}");
            drop(log);
            if filled == 0 {
                flip(&place, path, at);
            }
            found += usize::from(filled > 0);
            assert!(place.files() == whole, "byte {at} of {path:?}");
        }
    }
    assert!(found > 40 * 30, "{found}");
}

#[test]
fn files_that_are_missing_or_cut_short_are_filled_again() {
    on_every_fs(|place| {
        let all = batches(0, 40, 1);
        drop(filled(place, &all));
        let whole = place.files();
        let last = whole.len() - 1;
        for damaged in 0..whole.len() {
            for left in [None, Some(0), Some(100), Some(whole[damaged].1.len() - 1)] {
                whole.iter().for_each(|(path, content)| place.overwrite(path, content));
                match left {
                    None => place.fs.remove_file(&whole[damaged].0).unwrap(),
                    Some(left) => place.overwrite(&whole[damaged].0, &whole[damaged].1[..left]),
                }
                let (log, filled, short) = repaired(place, &all, 3, END).unwrap();
                assert!(filled > 0);
                assert_eq!(short, damaged == last, "segment {damaged}, {left:?}");
                assert_eq!(content(&log), all, "segment {damaged}, {left:?}");
                drop(log);
                // Segments may be divided in another way now.
                place.files().iter().for_each(|(path, _)| place.fs.remove_file(path).unwrap());
            }
        }
    });
}

#[test]
fn what_is_trusted_no_more_is_not_asked_for() {
    on_every_fs(|place| {
        let all = batches(0, 40, 1);
        drop(filled(place, &all));
        let (path, content) = place.files().pop().unwrap();
        place.overwrite(&path, &vec![0; content.len()]);
        let (log, filled, short) = repaired(place, &all, 1, END).unwrap();
        assert!(filled > 0 && !short && log.log_end_offset() == END);
        drop(log);
        place.overwrite(&path, &vec![0; content.len()]);
        let (log, filled, _) = repaired(place, &all, 1, Offset(117)).unwrap();
        assert!(filled > 0 && log.log_end_offset() == Offset(117), "the rest is a torn tail");
    });
}

#[test]
fn a_log_of_which_nothing_is_left_is_not_repaired() {
    on_every_fs(|place| {
        let all = batches(0, 10, 1);
        assert!(repaired(place, &all, 10, Offset(30)).is_none());
    });
}

#[test]
fn what_other_replicas_are_given_of_a_damaged_log_is_whole() {
    on_every_fs(|place| {
        let all = batches(0, 40, 1);
        drop(filled(place, &all));
        let read = |from, below, most| {
            read_closed(&*place.fs, &place.dir, Offset(from), Offset(below), most).unwrap()
        };
        assert_eq!(read(0, 120, usize::MAX), all);
        assert_eq!(read(31, 60, usize::MAX), all[10..20]);
        assert_eq!(read(31, 59, usize::MAX), all[10..19]);
        assert_eq!(read(31, 60, 1), all[10..11]);
        let files = place.files();
        let (path, content) = &files[1];
        let first = all.iter().position(|batch| content.starts_with(batch.bytes())).unwrap();
        for at in 0..all[first].bytes().len() {
            flip(place, path, at);
            let base = 3 * first as u64;
            for from in [0, base, base + 3] {
                let given = read(from, 120, usize::MAX);
                // The epoch alone is for whoever asks to judge.
                let same = |(number, batch): (usize, &RecordBatch)| {
                    let right = &all[from as usize / 3 + number];
                    batch == right || ((12..16).contains(&at) && batch.section() == right.section())
                };
                assert!(given.iter().enumerate().all(same), "byte {at} from {from}");
                // Where the length, the epoch or the last offset cannot be believed, the rest is not given.
                let lost = from <= base || (8..16).contains(&at) || (23..27).contains(&at);
                assert!(lost || !given.is_empty(), "byte {at}: what is behind is given");
            }
            flip(place, path, at);
        }
    });
}

/// The names and the folder are as durable as the bytes: a crash at any moment leaves what can be repaired again.
#[test]
fn a_crash_during_the_repair_of_a_missing_file_is_repaired_again() {
    for after in 0..12 {
        let fs = MemFs::new();
        let place = Place { fs: Arc::new(fs.clone()), dir: "/data/topic-0".into(), config: small() };
        let all = batches(0, 40, 1);
        drop(filled(&place, &all));
        atomic_write(&fs, &place.dir.join("other"), b"so that names are durable").unwrap();
        let (missing, _) = place.files().remove(1);
        fs.remove_file(&missing).unwrap();
        fs.sync_dir(&place.dir).unwrap();
        let error = opened(&place, END).unwrap_err();
        let promise = all.last().unwrap().header().epoch.unwrap();
        let (files, recovery) = (place.fs.clone(), trusted(END));
        let mut damaged = DamagedLog::new(files, &place.dir, recovery, promise, &error).unwrap().unwrap();
        fs.inject(crate::fs::mem::Fault { kind: None, after, lasting: true });
        while let Ok(Some(range)) = damaged.next_damage() {
            let first = all.partition_point(|batch| batch.header().next_offset() <= range.from);
            if damaged.fill(&all[first..first + 2]).is_err() {
                break;
            }
        }
        fs.crash_keeping(after);
        let (log, ..) = repaired(&place, &all, 3, END).unwrap();
        assert_eq!(content(&log), all, "after {after}");
    }
}

/// What is wrong with a log whose repair breaks off.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Lack {
    /// Nothing but one batch.
    Batch,
    /// It ends below what is trusted.
    End,
    /// One batch, and above what is trusted there is a torn tail.
    BatchBeforeTornTail,
}

impl Lack {
    fn bring_about(self, place: &Place) {
        let files = place.files();
        let (last, content) = files.last().unwrap();
        match self {
            Lack::End => place.overwrite(last, &content[..content.len() / 3]),
            Lack::Batch => flip(place, &files[1].0, 16),
            Lack::BatchBeforeTornTail => {
                flip(place, &files[1].0, 16);
                place.overwrite(last, &[content, &b"a torn tail"[..]].concat());
            }
        }
        for (path, _) in files {
            place.fs.open(&path, OpenMode::Existing).unwrap().sync_data().unwrap();
        }
        atomic_write(&*place.fs, &place.dir.join("other"), b"so that names are durable").unwrap();
    }
}

/// One run that repairs and opens the log, as far as the disk lets it.
fn run(place: &Place, all: &[RecordBatch]) -> Option<PartitionLog> {
    loop {
        let error = match opened(place, END) {
            Ok(log) => return Some(log),
            Err(error) => error,
        };
        let promise = all.last().unwrap().header().epoch.unwrap();
        let mut damaged =
            DamagedLog::new(place.fs.clone(), &place.dir, trusted(END), promise, &error).ok()??;
        while let Some(range) = damaged.next_damage().ok()? {
            let first = all.partition_point(|batch| batch.header().next_offset() <= range.from);
            // All at once, so that nothing is missing any more behind one write.
            damaged.fill(&all[first..]).ok()?;
        }
    }
}

/// R35: the next run does not see any more that something was missing.
#[test]
fn what_a_repair_found_out_outlives_a_crash_at_any_operation() {
    for lack in [Lack::Batch, Lack::End, Lack::BatchBeforeTornTail] {
        let mut broken_off = 0;
        for after in 0..60 {
            let fs = MemFs::new();
            let place = Place { fs: Arc::new(fs.clone()), dir: "/data/topic-0".into(), config: small() };
            let all = batches(0, 40, 1);
            drop(filled(&place, &all));
            lack.bring_about(&place);
            fs.inject(crate::fs::mem::Fault { kind: None, after, lasting: true });
            broken_off += usize::from(run(&place, &all).is_none());
            crash(&fs, after % 5);
            let mut log = run(&place, &all).unwrap();
            assert_eq!(content(&log), all, "{lack:?}, after {after}");
            assert_eq!(log.is_shortened(), lack != Lack::Batch, "{lack:?}, after {after}");
            log.settle_repair().unwrap();
            drop(log);
            fs.crash();
            let log = run(&place, &all).unwrap();
            assert!(!log.is_shortened(), "it says so once: {lack:?}, after {after}");
        }
        assert!((8..60).contains(&broken_off), "{lack:?}: {broken_off}");
    }
}

#[test]
fn a_note_of_a_repair_that_rots_says_that_more_may_be_gone() {
    on_every_fs(|place| {
        let all = batches(0, 40, 1);
        drop(filled(place, &all));
        flip(place, &place.files()[1].0, 16);
        let error = opened(place, END).unwrap_err();
        let promise = all.last().unwrap().header().epoch.unwrap();
        let damaged = DamagedLog::new(place.fs.clone(), &place.dir, trusted(END), promise, &error);
        damaged.unwrap().unwrap().begin().unwrap();
        let note = place.dir.join("repair");
        assert!(place.fs.exists(&note).unwrap(), "it is there before anybody is asked");
        place.change(&note, 12, |byte| byte ^ 4);
        assert!(run(place, &all).unwrap().is_shortened());
    });
}
