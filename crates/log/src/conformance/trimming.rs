//! The front of the log goes, and logs that begin anew (R44).

use std::time::Duration;

use holdfast_core::replication::Position;

use super::*;
use crate::fs::mem::Fault;
use crate::{OpenMode, create_dir_synced};

/// Where a log of these batches ends.
fn position(batches: &[RecordBatch]) -> Position {
    let header = batches.last().map(RecordBatch::header);
    header.map_or(Position::default(), |header| Position {
        epoch: header.epoch.unwrap(),
        end: header.next_offset(),
    })
}

/// Trims the first `count` of the batches that the log began with, and does what is left to do.
fn trim(log: &mut PartitionLog, all: &[RecordBatch], count: usize) {
    let below = &all[..count];
    if let Some(ticket) = log.trim_to(position(below), snapshot_of(below)).unwrap() {
        ticket.run().unwrap();
    }
}

/// The log has those of `all` from `count` on, and says so in every way.
fn check(log: &PartitionLog, all: &[RecordBatch], count: usize) {
    let (base, kept) = (position(&all[..count]), &all[count..]);
    assert_eq!((log.base(), log.position()), (base, position(all)));
    assert_eq!((content(log), log.epochs()), (kept.to_vec(), epochs_of(kept)));
    check_lookups(log, kept);
    let reader = log.reader();
    for below in 0..base.end.0 {
        let error = reader.read(Offset(below), log.log_end_offset(), 1000).unwrap_err();
        assert!(matches!(error, LogError::OutOfRange { start, .. } if start == base.end), "{error:?}");
    }
}

#[test]
fn a_trimmed_log_starts_where_it_says_and_is_found_so() {
    on_every_fs(|place| {
        let all = batches(0, 40, 1);
        for (noted, count) in [(0, 1), (0, 9), (0, 20), (0, 39), (0, 40), (15, 20), (20, 15), (40, 40)] {
            let folder = format!("{noted}-{count}");
            let place = Place { dir: place.dir.with_file_name(folder), ..place.clone() };
            let mut log = filled(&place, &all[..noted]);
            checkpoint(&mut log);
            log.append(&all[noted..]).unwrap();
            flush(&mut log);
            trim(&mut log, &all, count);
            check(&log, &all, count);
            let bases = log.segment_bases();
            assert!(bases.get(1).is_none_or(|next| *next > log.log_start_offset()), "{bases:?}");
            let on_disk =
                |suffix| place.files_of(suffix).into_iter().map(|(path, _)| path.with_extension(""));
            let named = bases.iter().map(|base| place.dir.join(format!("{:020}", base.0)));
            let named: Vec<PathBuf> = named.collect();
            assert_eq!(on_disk(".log").collect::<Vec<_>>(), named);
            assert!(on_disk(".index").all(|index| named.contains(&index)));
            drop(log);
            for recovery in [recovery(120, false), recovery(120, true), recovery(60, false)] {
                let (mut log, opened, derived) = place.try_resume(recovery).unwrap();
                check(&log, &all, count);
                assert_eq!(opened.cut_bytes, 0);
                let seen: Vec<Seen> = all.iter().map(|batch| seen(batch.header())).collect();
                assert_eq!(derived.seen, seen, "what was trimmed is known all the same");
                flush(&mut log);
            }
        }
    });
}

#[test]
fn a_trimmed_log_goes_on() {
    on_every_fs(|place| {
        let mut all = batches(0, 30, 1);
        let mut log = filled(place, &all);
        for round in 1..12 {
            trim(&mut log, &all, round * 7);
            let more = batches(log.log_end_offset().0, 8, 20 * round as u32);
            log.append(&more).unwrap();
            all.extend(more);
            flush(&mut log);
            if round % 3 == 0 {
                log.checkpoint(&snapshot_of(&all)).unwrap();
                flush(&mut log);
            }
            check(&log, &all, round * 7);
            let end = log.log_end_offset().0;
            let (reopened, _, derived) = place.try_resume(recovery(end, round % 2 == 0)).unwrap();
            check(&reopened, &all, round * 7);
            assert_eq!(derived.seen.len(), all.len());
            log = reopened;
            flush(&mut log);
        }
        assert!(log.segment_count() < 8, "{}", log.segment_count());
    });
}

#[test]
fn only_what_is_in_the_log_is_trimmed_and_nothing_comes_back() {
    on_every_fs(|place| {
        let all = batches(0, 12, 1);
        let mut log = filled(place, &all);
        let beyond = Position { epoch: epoch(9), end: Offset(37) };
        assert!(matches!(log.trim_to(beyond, vec![]), Err(LogError::OutOfRange { .. })));
        trim(&mut log, &all, 6);
        assert!(log.trim_to(position(&all[..6]), vec![]).unwrap().is_none());
        assert!(log.trim_to(position(&all[..3]), vec![]).unwrap().is_none());
        check(&log, &all, 6);
        assert!(matches!(log.truncate_to(Offset(17)), Err(LogError::OutOfRange { .. })));
        log.truncate_to(Offset(18)).unwrap();
        check(&log, &all[..6], 6);
        // Of a log that is trimmed to its end, the epoch of what went still binds what comes.
        let older = batch(18, 1, 1, 0, 1);
        assert!(matches!(log.append(&[older]), Err(LogError::EpochDecreases { .. })));
        log.append(&all[6..]).unwrap();
        check(&log, &all, 6);
    });
}

/// A ticket that is redeemed late does what the log wants by then, and nothing where another log may be.
#[test]
fn a_late_ticket_harms_nothing() {
    on_every_fs(|place| {
        let all = batches(0, 30, 1);
        let mut log = filled(place, &all);
        let tickets = [4, 9, 15].map(|count| {
            let below = &all[..count];
            log.trim_to(position(below), snapshot_of(below)).unwrap().unwrap()
        });
        let later = batches(300, 3, 90);
        tickets[2].run().unwrap();
        tickets[0].run().unwrap();
        check(&log, &all, 15);
        check(&place.try_resume(recovery(90, true)).unwrap().0, &all, 15);
        let last = log.trim_to(position(&all[..20]), snapshot_of(&all[..20])).unwrap().unwrap();
        let base = Position { epoch: epoch(80), end: Offset(300) };
        log.reset_to(base, b"".to_vec()).unwrap();
        last.run().unwrap();
        log.append(&later).unwrap();
        flush(&mut log);
        let below = log.trim_to(position(&later[..1]), vec![]).unwrap().unwrap();
        drop(log);
        below.run().unwrap();
        let (log, ..) = place.try_open(recovery(309, true)).unwrap();
        assert_eq!((log.base(), content(&log)), (base, later));
    });
}

#[test]
fn a_ticket_that_failed_is_made_up_for_by_the_next() {
    let fs = MemFs::new();
    let place = Place { fs: Arc::new(fs.clone()), dir: "/d/t-0".into(), config: small() };
    let all = batches(0, 30, 1);
    let mut log = filled(&place, &all);
    let segments = place.files().len();
    let ticket = log.trim_to(position(&all[..20]), snapshot_of(&all[..20])).unwrap().unwrap();
    fs.inject(Fault { kind: None, after: 0, lasting: false });
    assert!(ticket.run().is_err() && !log.is_poisoned());
    assert_eq!(place.files().len(), segments);
    check(&log, &all, 20);
    check(&place.try_resume(recovery(90, false)).unwrap().0, &all, 0);
    ticket.run().unwrap();
    assert!(place.files().len() < segments);
    check(&place.try_resume(recovery(90, false)).unwrap().0, &all, 20);
}

#[test]
fn a_damaged_note_of_the_start_is_damage() {
    on_every_fs(|place| {
        let all = batches(0, 30, 1);
        trim(&mut filled(place, &all), &all, 20);
        let path = place.dir.join("log-start");
        let whole = place.files_of("log-start").remove(0).1;
        for at in [0, 9, 13, 17, 25, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 4;
            place.overwrite(&path, &damaged);
            let error = place.try_open(Recovery::default()).unwrap_err();
            assert!(matches!(error, LogError::Corrupt { source: crate::Damage::LogStart, .. }), "{error:?}");
        }
        place.fs.remove_file(&path).unwrap();
        let error = place.try_open(recovery(90, false)).unwrap_err();
        assert!(matches!(error, LogError::Corrupt { source: crate::Damage::Gap { .. }, .. }), "{error:?}");
    });
}

/// A follower that lacks what its leader has trimmed, or parts from its leader below that.
#[test]
fn a_log_that_begins_anew_holds_nothing_of_before() {
    on_every_fs(|place| {
        let leader = batches(0, 40, 50);
        for (number, (old, count)) in [(8, 20), (20, 20), (33, 20), (40, 7)].into_iter().enumerate() {
            let place = Place { dir: place.dir.with_file_name(format!("reset-{number}")), ..place.clone() };
            let mut log = filled(&place, &batches(0, old, 1));
            checkpoint(&mut log);
            log.append(&batches(log.log_end_offset().0, 3, 30)).unwrap();
            log.reset_to(position(&leader[..count]), snapshot_of(&leader[..count])).unwrap();
            check(&log, &leader[..count], count);
            assert_eq!(place.files().len(), 1);
            log.append(&leader[count..]).unwrap();
            flush(&mut log);
            check(&log, &leader, count);
            for (clean, restored) in [(false, count), (false, 40), (true, 40)] {
                let (mut log, _, derived) = place.try_resume(recovery(120, clean)).unwrap();
                check(&log, &leader, count);
                assert_eq!((derived.seen.len(), derived.restored), (40, restored));
                checkpoint_of(&mut log, &leader);
            }
        }
    });
}

fn checkpoint_of(log: &mut PartitionLog, all: &[RecordBatch]) {
    flush(log);
    log.checkpoint(&snapshot_of(all)).unwrap();
    flush(log);
}

/// An unclean leader's log starts lower than the one that has to follow it.
#[test]
fn a_log_may_begin_anew_below_its_start() {
    on_every_fs(|place| {
        let (old, new) = (batches(0, 40, 1), batches(0, 10, 60));
        let mut log = filled(place, &old);
        trim(&mut log, &old, 30);
        log.reset_to(Position::default(), vec![]).unwrap();
        check(&log, &[], 0);
        log.append(&new).unwrap();
        flush(&mut log);
        let (log, _, derived) = place.try_resume(recovery(30, false)).unwrap();
        check(&log, &new, 0);
        assert_eq!(derived.seen.len(), 10);
    });
}

/// Every operation of trims and of beginnings anew is the last one before the power fails.
#[test]
fn crash_at_every_operation_of_a_trim_leaves_a_start_that_was_asked_for_and_all_behind_it() {
    let all = batches(0, 60, 1);
    for seed in 0..16 {
        for after in 0..10_000 {
            let fs = MemFs::new();
            let place = Place { fs: Arc::new(fs.clone()), dir: "/data/t-0".into(), config: small() };
            create_dir_synced(&fs, Path::new("/data")).unwrap();
            fs.inject(Fault { kind: None, after, lasting: true });
            let mut done = Done::default();
            let finished = work(&place, &all, &mut done).is_ok();
            crash(&fs, seed);
            let context = format!("seed {seed}, crash after {after}: {done:?}");
            let end = all[..done.flushed].last().map_or(0, |batch| batch.header().next_offset().0);
            let opened = place.try_resume(recovery(end, false));
            let (log, _, derived) = opened.unwrap_or_else(|error| panic!("{context}: {error:?}"));
            let start = position_in(&all, log.log_start_offset());
            let held = position_in(&all, log.log_end_offset());
            let found = (done.trimmed..=done.asked).contains(&start) && held >= done.flushed;
            assert!(found, "{context}: {start} to {held}");
            check(&log, &all[..held], start);
            assert_eq!(derived.seen.len(), held, "{context}");
            if finished {
                assert!(after > 60, "the workload has too few operations: {after}");
                break;
            }
        }
    }
}

#[derive(Debug, Default)]
struct Done {
    flushed: usize,
    /// Trimmed as far as anybody asked for, and as far as is certain.
    asked: usize,
    trimmed: usize,
}

fn position_in(all: &[RecordBatch], offset: Offset) -> usize {
    all.iter().take_while(|batch| batch.header().next_offset() <= offset).count()
}

fn work(place: &Place, all: &[RecordBatch], done: &mut Done) -> Result<(), LogError> {
    let (mut log, ..) = place.try_open(Recovery::default())?;
    for round in 0..20 {
        log.append(&all[round * 3..round * 3 + 3])?;
        if round % 4 == 3 {
            let below = &all[..done.flushed * 2 / 3];
            done.asked = done.asked.max(below.len());
            if let Some(ticket) = log.trim_to(position(below), snapshot_of(below))? {
                ticket.run()?;
            }
            done.trimmed = done.asked;
        }
        if round % 5 == 2 {
            log.checkpoint(&snapshot_of(&all[..round * 3 + 3]))?;
        }
        if round % 2 == 0 {
            let ticket = log.take_flush().expect("just appended");
            ticket.run().map_err(LogError::io("flushing", &place.dir))?;
            done.flushed = round * 3 + 3;
        }
    }
    Ok(())
}

/// A log that begins anew, here by a log that ends below and there by one that has other batches at these offsets.
#[test]
fn crash_while_a_log_begins_anew_leaves_the_one_or_the_other() {
    let leader = batches(0, 40, 50);
    for (old, count) in [(8, 20), (20, 20), (33, 20), (40, 7)] {
        let old = batches(0, old, 1);
        for (seed, after) in (0..12).flat_map(|seed| (0..60).map(move |after| (seed, after))) {
            let fs = MemFs::new();
            let place = Place { fs: Arc::new(fs.clone()), dir: "/data/t-0".into(), config: small() };
            create_dir_synced(&fs, Path::new("/data")).unwrap();
            let mut log = filled(&place, &old);
            checkpoint(&mut log);
            fs.inject(Fault { kind: None, after, lasting: true });
            let below = &leader[..count];
            let reset = log.reset_to(position(below), snapshot_of(below));
            let appended = reset.is_ok() && log.append(&leader[count..count + 4]).is_ok();
            let flushed = appended && log.take_flush().is_some_and(|ticket| ticket.run().is_ok());
            drop(log);
            crash(&fs, seed);
            let context = format!("{} old, start {count}, seed {seed}, crash after {after}", old.len());
            // Nothing of the old log was committed.
            let opened = place.try_resume(Recovery::default());
            let (log, _, derived) = opened.unwrap_or_else(|error| panic!("{context}: {error:?}"));
            if log.log_start_offset() == Offset(0) {
                assert!(reset.is_err(), "{context}: it was durable on return");
                check(&log, &old, 0);
            } else {
                let held = position_in(&leader, log.log_end_offset());
                assert!(!flushed || held == count + 4, "{context}: {held}");
                check(&log, &leader[..held], count);
                assert_eq!(derived.seen.len(), held, "{context}");
            }
        }
    }
}

/// A file of another kind, or a half-written one, is in nobody's way.
#[test]
fn leftovers_of_a_note_of_the_start_are_overwritten() {
    on_every_fs(|place| {
        let all = batches(0, 12, 1);
        let mut log = filled(place, &all);
        place.fs.open(&place.dir.join("log-start.tmp"), OpenMode::CreateNew).unwrap();
        trim(&mut log, &all, 6);
        check(&place.open(), &all, 6);
    });
}

/// No room for the note of the start: nothing is given up for it, and it is done once there is room.
#[test]
fn a_full_disk_puts_off_trims_and_beginnings_anew() {
    let fs = MemFs::new();
    let place = Place { fs: Arc::new(fs.clone()), dir: "/d/t-0".into(), config: small() };
    let (all, leader) = (batches(0, 30, 1), batches(0, 60, 50));
    let mut log = filled(&place, &all);
    fs.set_capacity(Some(fs.used()));
    let ticket = log.trim_to(position(&all[..20]), snapshot_of(&all[..20])).unwrap().unwrap();
    assert!(ticket.run().unwrap_err().is_full());
    let (base, below) = (position(&leader[..50]), snapshot_of(&leader[..50]));
    assert!(log.reset_to(base, below.clone()).unwrap_err().is_full() && !log.is_poisoned());
    check(&place.try_resume(recovery(90, false)).unwrap().0, &all, 0);
    fs.set_capacity(None);
    log.reset_to(base, below).unwrap();
    log.append(&leader[50..]).unwrap();
    flush(&mut log);
    ticket.run().unwrap();
    check(&log, &leader, 50);
    check(&place.try_resume(recovery(180, false)).unwrap().0, &leader, 50);
}

/// A log that was trimmed to its end goes on in the same file. What it knows of that stays, however late a ticket comes; once
/// the file is sealed it goes.
#[test]
fn a_segment_that_was_appended_to_when_it_was_trimmed_goes_once_it_is_sealed() {
    on_every_fs(|place| {
        let mut all = batches(0, 5, 1);
        let mut log = filled(place, &all);
        let ticket = log.trim_to(position(&all), snapshot_of(&all)).unwrap().unwrap();
        assert!(log.trim_sealed().is_none(), "it is appended to");
        log.roll_if_older(0, Duration::ZERO).unwrap();
        ticket.run().unwrap();
        check(&log, &all, 5);
        log.checkpoint(&snapshot_of(&all)).unwrap();
        log.trim_sealed().unwrap().run().unwrap();
        assert!(log.trim_sealed().is_none());
        assert_eq!((place.files().len(), place.files_of(".index").len(), log.segment_count()), (1, 0, 1));
        let more = batches(15, 9, 60);
        log.append(&more).unwrap();
        all.extend(more);
        checkpoint_of(&mut log, &all);
        check(&log, &all, 5);
        check(&place.try_resume(recovery(42, false)).unwrap().0, &all, 5);
    });
}

/// The start that the last run noted counts for tickets of this one.
#[test]
fn a_segment_that_an_earlier_run_trimmed_goes_once_it_is_sealed() {
    on_every_fs(|place| {
        let all = batches(0, 5, 1);
        trim(&mut filled(place, &all), &all, 5);
        let (mut log, ..) = place.try_resume(recovery(15, true)).unwrap();
        log.roll_if_older(0, Duration::ZERO).unwrap();
        log.trim_sealed().unwrap().run().unwrap();
        assert_eq!(place.files().len(), 1);
        check(&log, &all, 5);
    });
}

/// The next process sees a start that the one before had renamed to its place and not flushed, and removes what lies below.
#[test]
fn a_start_that_is_found_is_durable_before_what_lies_below_goes() {
    let all = batches(0, 30, 1);
    for (killed, crashed) in (0..8).flat_map(|killed| (0..12).map(move |crashed| (killed, crashed))) {
        for seed in 0..24 {
            let fs = MemFs::new();
            let place = Place { fs: Arc::new(fs.clone()), dir: "/data/t-0".into(), config: small() };
            create_dir_synced(&fs, Path::new("/data")).unwrap();
            let mut log = filled(&place, &all);
            let ticket = log.trim_to(position(&all[..20]), snapshot_of(&all[..20])).unwrap().unwrap();
            fs.inject(Fault { kind: None, after: killed, lasting: true });
            let noted = ticket.run().is_ok();
            drop(log);
            fs.clear_faults();
            fs.inject(Fault { kind: None, after: crashed, lasting: true });
            let opened = place.try_resume(recovery(90, false));
            drop(opened);
            crash(&fs, seed);
            let context = format!("killed after {killed}, crash after {crashed}, seed {seed}");
            let opened = place.try_resume(recovery(90, false));
            let (log, ..) = opened.unwrap_or_else(|error| panic!("{context}: {error:?}"));
            let start = position_in(&all, log.log_start_offset());
            assert!(start == 20 || (start == 0 && !noted), "{context}: {start}");
            check(&log, &all, start);
        }
    }
}
