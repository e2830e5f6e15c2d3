//! Damage in a log that is open: every bit of it is found, and what a peer holds takes its place.

use holdfast_core::replication::Position;

use super::*;
use crate::fs::mem::{Fault, OperationKind};
use crate::repair::{DamagedRange, MendError, Misfit, Verified};
use crate::{Damage, LogReader, OpenMode};

/// What a peer that holds all of it sends.
fn peer(all: &[RecordBatch], from: Offset, most: usize) -> &[RecordBatch] {
    let first = all.partition_point(|batch| batch.header().next_offset() <= from);
    &all[first..all.len().min(first + most)]
}

/// The first damage at or behind `from`, found in small steps.
fn damage(reader: &LogReader, mut from: Offset) -> Option<DamagedRange> {
    loop {
        let Verified { end, damage, .. } = reader.verify(from, reader.log_end_offset(), 300).unwrap();
        if damage.is_some() || end == reader.log_end_offset() {
            return damage;
        }
        assert!(end > from, "it gets on");
        from = end;
    }
}

/// Repairs everything, from a peer that sends up to `most` batches at a time. Returns how many ranges were damaged.
fn repair(reader: &LogReader, all: &[RecordBatch], most: usize) -> usize {
    let mut found = 0;
    while let Some(range) = damage(reader, Offset::ZERO) {
        found += 1;
        assert!(found <= 2 * all.len(), "it comes to an end: {range:?}");
        let behind = reader.mend(&range, peer(all, range.from, most)).unwrap();
        assert!(behind > range.from);
    }
    found
}

#[test]
fn a_whole_log_is_verified_and_nothing_is_found() {
    on_every_fs(|place| {
        let all = batches(0, 40, 1);
        let log = filled(place, &all);
        let reader = log.reader();
        assert_eq!(damage(&reader, Offset::ZERO), None);
        for (from, below) in [(0, 120), (5, 9), (7, 8), (119, 120), (30, 30), (120, 130)] {
            let Verified { end, bytes, damage } =
                reader.verify(Offset(from), Offset(below), u64::MAX).unwrap();
            assert_eq!(damage, None);
            assert!(
                end >= Offset(from) && (bytes > 0) == (from < below && from < 120),
                "{from} to {below}: {end}"
            );
        }
        assert!(reader.verify(Offset(0), Offset(120), 1).unwrap().end >= Offset(3), "one batch at least");
    });
}

/// Also those that no checksum covers: offset, length and epoch.
#[test]
fn every_flipped_bit_is_found_and_what_a_peer_holds_takes_its_place() {
    let place = Place { fs: Arc::new(MemFs::new()), dir: "/data/topic-0".into(), config: small() };
    let all = batches(0, 40, 1);
    let log = filled(&place, &all);
    let (reader, whole) = (log.reader(), place.files());
    for (path, content) in &whole {
        for at in 0..content.len() {
            place.change(path, at, |byte| byte ^ 1 << (at % 8));
            let range = damage(&reader, Offset::ZERO).unwrap_or_else(|| panic!("byte {at} of {path:?}"));
            let holds = (range.position..range.position + range.bytes).contains(&(at as u64));
            assert!(range.segment == *path && holds && range.from < range.to, "byte {at}: {range:?}");
            assert_eq!(repair(&reader, &all, 1 + at % 3), 1, "byte {at}");
            place.change(path, at, |byte| byte);
        }
    }
    assert!(place.files() == whole);
}

#[test]
fn many_damages_are_repaired_one_after_the_other() {
    on_every_fs(|place| {
        let all = batches(0, 60, 1);
        let log = filled(place, &all);
        let (reader, whole) = (log.reader(), place.files());
        for (spread, length) in [(97, 1), (300, 40), (1500, 700), (4000, 2000)] {
            let mut skip = 0;
            for (path, content) in &whole {
                for at in (skip..content.len()).step_by(spread) {
                    (at..content.len().min(at + length)).for_each(|at| place.change(path, at, |byte| !byte));
                }
                skip = (skip + 31) % spread;
            }
            assert!(damage(&reader, Offset::ZERO).is_some());
            repair(&reader, &all, 5);
            assert!(place.files() == whole, "{length} bytes every {spread}");
        }
        assert_eq!(content(&log), all);
    });
}

/// An index that leads astray must not lead a repair astray: what is whole stays as it is.
#[test]
fn a_log_is_repaired_without_its_indexes_too() {
    on_every_fs(|place| {
        let all = batches(0, 60, 1);
        let log = filled(place, &all);
        let (reader, whole) = (log.reader(), place.files());
        for (path, content) in place.files_of(".index") {
            (0..content.len()).step_by(100).for_each(|at| place.change(&path, at, |byte| byte ^ 0xff));
        }
        for (path, content) in &whole {
            for at in [9, content.len() / 2, content.len() - 1] {
                place.change(path, at, |byte| byte ^ 4);
            }
        }
        repair(&reader, &all, 60);
        assert!(place.files() == whole);
    });
}

#[test]
fn a_sector_that_cannot_be_read_is_written_anew() {
    let fs = MemFs::new();
    let place = Place { fs: Arc::new(fs.clone()), dir: "/data/topic-0".into(), config: small() };
    let all = batches(0, 30, 1);
    let log = filled(&place, &all);
    let (reader, whole) = (log.reader(), place.files());
    for (path, content) in &whole {
        for at in (0..content.len() as u64 - 100).step_by(37) {
            fs.spoil(path, at..at + 100).unwrap();
            let range = damage(&reader, Offset::ZERO).unwrap();
            assert!(matches!(range.source, Damage::Unreadable { .. }), "{range:?}");
            // From the bad one on, others that cannot be read come one by one.
            repair(&reader, &all, 1);
        }
    }
    assert!(place.files() == whole);
}

#[test]
fn what_does_not_belong_there_is_refused_and_nothing_is_written() {
    on_every_fs(|place| {
        let all = batches(0, 30, 1);
        let log = filled(place, &all);
        let reader = log.reader();
        let (path, bytes) = place.files().remove(1);
        let first = all.iter().position(|batch| bytes.starts_with(batch.bytes())).unwrap();
        let base = all[first].header().base_offset;
        place.change(&path, 100, |byte| byte ^ 1);
        let damaged = place.files();
        let range = damage(&reader, Offset::ZERO).unwrap();
        let length = all[first].bytes().len();
        assert_eq!((range.from, range.to, range.bytes), (base, base + 3, length as u64));
        let right = all[first].header().epoch.unwrap().term.0;
        let fits = |size: usize, term: u32| batch(base.0, 3, term, 0, size);
        let size = (0..300).find(|size| fits(*size, right).bytes().len() == length).unwrap();
        let cases = [
            (vec![], "no batch"),
            (vec![all[first + 1].clone()], "no batch was given"),
            (vec![all[first - 1].clone()], "no batch was given"),
            (vec![fits(size, right + 1)], "epoch"),
            (vec![fits(size, right - 1)], "epoch"),
            (vec![batch(base.0, 4, right, 0, size)], "no batch of this log begins"),
            (vec![batch(base.0, 1, right, 0, 0), all[first].clone()], "has offset"),
        ];
        for (wrong, why) in cases {
            let refused = reader.mend(&range, &wrong).unwrap_err();
            assert!(matches!(refused, MendError::DoesNotFit { .. }), "{refused:?}");
            assert!(refused.to_string().contains(why), "{refused} has no {why:?}");
            assert!(place.files() == damaged);
        }
        let nothing = reader.mend(&range, &[]).unwrap_err();
        assert!(matches!(nothing, MendError::DoesNotFit { problem: Misfit::Nothing, .. }));
        assert_eq!(reader.mend(&range, &all[first..]).unwrap(), base + 3, "no more than is needed is taken");
        assert_eq!(content(&log), all);
    });
}

#[test]
fn what_was_cut_or_left_meanwhile_is_not_repaired() {
    on_every_fs(|place| {
        let all = batches(0, 30, 1);
        let mut log = filled(place, &all);
        let reader = log.reader();
        let (path, _) = place.files().remove(0);
        place.change(&path, 100, |byte| byte ^ 1);
        let range = damage(&reader, Offset::ZERO).unwrap();
        log.truncate_to(Offset(60)).unwrap();
        let damaged = place.files();
        assert!(matches!(reader.mend(&range, &all), Err(MendError::Changed)));
        // It is found again in the log as it is now.
        let range = damage(&reader, Offset::ZERO).unwrap();
        drop(log);
        assert!(matches!(reader.mend(&range, &all), Err(MendError::Changed)), "another log may stand there");
        assert!(place.files() == damaged);
    });
}

/// The disk says so to the repair alone: what the log itself wrote is flushed, or not, for itself.
#[test]
fn a_repair_that_fails_leaves_the_log_as_it_was_and_is_done_again() {
    for kind in [OperationKind::Write, OperationKind::SyncData] {
        let fs = MemFs::new();
        let place = Place { fs: Arc::new(fs.clone()), dir: "/data/topic-0".into(), config: small() };
        let all = batches(0, 30, 1);
        let mut log = filled(&place, &all);
        let (reader, whole) = (log.reader(), place.files());
        place.change(&whole[1].0, 100, |byte| byte ^ 1);
        let range = damage(&reader, Offset::ZERO).unwrap();
        fs.inject(Fault { kind: Some(kind), after: 0, lasting: false });
        let failed = reader.mend(&range, peer(&all, range.from, 9)).unwrap_err();
        assert!(matches!(failed, MendError::Log(LogError::Io { .. })), "{failed:?}");
        log.append(&batches(90, 1, 20)).unwrap();
        flush(&mut log);
        reader.mend(&range, peer(&all, range.from, 9)).unwrap();
        assert_eq!(damage(&reader, Offset::ZERO), None);
    }
}

/// A power cut in the middle of a repair leaves whole batches, damaged ones, and nothing else.
#[test]
fn a_crash_during_a_repair_loses_nothing_that_was_whole() {
    for seed in 0..40 {
        let fs = MemFs::new();
        let place = Place { fs: Arc::new(fs.clone()), dir: "/data/topic-0".into(), config: small() };
        let all = batches(0, 30, 1);
        let mut log = filled(&place, &all);
        checkpoint(&mut log);
        let whole = place.files();
        let file = fs.open(&whole[1].0, OpenMode::Existing).unwrap();
        file.write_all_at(&[&[0; 900]], 50).unwrap();
        file.sync_data().unwrap();
        let damaged = place.files();
        let range = damage(&log.reader(), Offset::ZERO).unwrap();
        fs.inject(Fault { kind: Some(OperationKind::SyncData), after: 0, lasting: true });
        log.reader().mend(&range, peer(&all, range.from, 9)).unwrap_err();
        drop(log);
        fs.crash_keeping(seed);
        for ((_, now), ((_, before), (_, after))) in place.files().iter().zip(damaged.iter().zip(&whole)) {
            let mixed = now.iter().zip(before.iter().zip(after)).all(|(now, (a, b))| now == a || now == b);
            assert!(mixed && now.len() == after.len(), "seed {seed}");
        }
        let trusted = Recovery { trusted_end: Offset(90), flushed_end: Offset(90), clean: false };
        let (log, ..) = place.try_resume(trusted).unwrap();
        repair(&log.reader(), &all, 4);
        assert!(place.files() == whole, "seed {seed}");
    }
}

#[test]
fn batches_for_others_are_whole_and_end_before_what_is_not() {
    on_every_fs(|place| {
        let all = batches(0, 30, 1);
        let log = filled(place, &all);
        let reader = log.reader();
        let read = |from| {
            let whole = reader.read_verified(Offset(from), Offset(90), 1 << 20)?;
            assert_eq!(RecordBatch::split(whole.bytes).unwrap(), whole.batches);
            Ok::<_, LogError>(whole.batches)
        };
        let (path, bytes) = place.files().remove(1);
        let first = all.iter().position(|batch| bytes.starts_with(batch.bytes())).unwrap() as u64;
        for (at, bits) in [(100, 1), (14, 1), (15, 1)] {
            let behind = all[first as usize].bytes().len();
            place.change(&path, behind + at, |byte| byte ^ bits);
            assert_eq!(read(3 * first).unwrap(), all[first as usize..first as usize + 1], "byte {at}");
            let error = read(3 * first + 3).unwrap_err();
            let there = matches!(&error, LogError::Corrupt { offset, position, segment, .. }
                if *offset == Offset(3 * first + 3) && *position == behind as u64 && *segment == path);
            assert!(there, "{error:?}");
            place.change(&path, behind + at, |byte| byte ^ bits);
        }
        assert!(read(3 * first + 3).unwrap().len() > 1);
    });
}

/// What is read ahead is more than what was asked for: a bad sector behind keeps nobody from what is in front.
#[test]
fn what_is_in_front_of_a_bad_sector_is_read() {
    let fs = MemFs::new();
    let place = Place { fs: Arc::new(fs.clone()), dir: "/data/topic-0".into(), config: small() };
    let all = batches(0, 12, 1);
    let log = filled(&place, &all);
    let (path, _) = place.files().remove(0);
    let bad: u64 = all[..2].iter().map(|batch| batch.bytes().len() as u64).sum();
    fs.spoil(&path, bad + 70..bad + 80).unwrap();
    let read = |from| log.reader().read_verified(Offset(from), Offset(36), 1 << 20);
    assert_eq!((read(0).unwrap().batches, read(4).unwrap().batches), (all[..1].to_vec(), all[1..2].to_vec()));
    let error = read(6).unwrap_err();
    assert!(matches!(error, LogError::Corrupt { offset: Offset(6), .. }), "{error:?}");
    assert_eq!(read(9).unwrap().batches[0], all[3]);
}

#[test]
fn what_was_repaired_survives_a_power_cut() {
    let fs = MemFs::new();
    let place = Place { fs: Arc::new(fs.clone()), dir: "/data/topic-0".into(), config: small() };
    let all = batches(0, 30, 1);
    let mut log = filled(&place, &all);
    checkpoint(&mut log);
    let whole = place.files();
    let file = fs.open(&whole[1].0, OpenMode::Existing).unwrap();
    file.write_all_at(&[&[0; 900]], 50).unwrap();
    file.sync_data().unwrap();
    repair(&log.reader(), &all, 9);
    drop(log);
    fs.crash();
    assert!(place.files() == whole);
}

/// What lies below the start of a log is no part of it, also where it shares a segment with what follows.
#[test]
fn what_was_trimmed_is_not_missed_and_what_is_behind_is_repaired() {
    let place = Place { fs: Arc::new(MemFs::new()), dir: "/data/topic-0".into(), config: small() };
    let all = batches(0, 30, 1);
    let mut log = filled(&place, &all);
    let below = &all[..5];
    let last = below.last().unwrap().header();
    let base = Position { epoch: last.epoch.unwrap(), end: last.next_offset() };
    if let Some(ticket) = log.trim_to(base, Vec::new()).unwrap() {
        ticket.run().unwrap();
    }
    let (reader, whole) = (log.reader(), place.files());
    let trimmed: usize = below.iter().map(|batch| batch.bytes().len()).sum();
    let (path, content) = &whole[0];
    for at in 0..content.len() {
        let length = (8..12).contains(&(at % below[0].bytes().len()));
        if at < trimmed && (length || at % 7 > 0) {
            continue; // Where a length cannot be believed, nothing leads to what is behind but the index.
        }
        place.change(path, at, |byte| byte ^ 1 << (at % 8));
        let found = damage(&reader, base.end);
        assert_eq!(found.is_some(), at >= trimmed, "byte {at}: {found:?}");
        match found {
            Some(range) => assert!(range.from >= base.end && repair(&reader, &all, 3) == 1, "byte {at}"),
            None => place.change(path, at, |byte| byte ^ 1 << (at % 8)),
        }
    }
    assert!(place.files() == whole);
}
