//! Damage in logs that were compacted, and peers that were compacted otherwise: what they hold takes the place of what is damaged,
//! whatever its length.

use std::time::Duration;

use holdfast_core::LeaderEpoch;

use super::*;
use crate::fs::mem::Fault;
use crate::repair::{DamagedLog, DamagedRange, MendError, Misfit, Verified, read_closed};
use crate::{OpenMode, ReplicaLogError};

/// How far a log was compacted: it holds batches up to there, and others came behind.
#[derive(Debug, Clone, Copy)]
enum Cleaned {
    Never,
    Early,
    Late,
}

const PAIRS: [(Cleaned, Cleaned); 5] = [
    (Cleaned::Never, Cleaned::Late),
    (Cleaned::Late, Cleaned::Never),
    (Cleaned::Late, Cleaned::Early),
    (Cleaned::Early, Cleaned::Late),
    (Cleaned::Late, Cleaned::Late),
];

/// A log of all that was written, so compacted. Its last segment is never sealed.
fn cleaned(place: &Place, written: &Written, how: Cleaned) -> PartitionLog {
    let mut log = place.open();
    let early = written.batches.len() / 2;
    for (number, batch) in written.batches.iter().enumerate() {
        if number == early && matches!(how, Cleaned::Early) {
            compact(&log);
        }
        log.append(std::slice::from_ref(batch)).unwrap();
    }
    if matches!(how, Cleaned::Late) {
        compact(&log);
    }
    flush(&mut log);
    log
}

fn memory() -> Place {
    Place { fs: Arc::new(MemFs::new()), dir: "/data/topic-0".into(), config: small() }
}

/// What a peer gives: from that offset on, up to so many bytes.
fn give(peer: &PartitionLog, from: Offset, most: usize) -> Vec<RecordBatch> {
    let whole = peer.reader().read_verified(from, peer.log_end_offset(), most).unwrap();
    let mut batches = whole.batches;
    batches[0] =
        batches[0].clipped(from, Offset(u64::MAX)).expect("a batch begins there, or a filler goes over it");
    batches
}

fn damage(reader: &LogReader) -> Option<DamagedRange> {
    let mut from = Offset::ZERO;
    loop {
        let Verified { end, damage, .. } = reader.verify(from, reader.log_end_offset(), 300).unwrap();
        if damage.is_some() || end == reader.log_end_offset() {
            return damage;
        }
        from = end;
    }
}

/// Puts what the peer holds where it is damaged. False where that is of another length, and the segment is appended to.
fn mend(
    reader: &LogReader,
    peer: &PartitionLog,
    range: &DamagedRange,
    most: usize,
) -> Result<bool, MendError> {
    let mut given = give(peer, range.from, most);
    loop {
        match reader.mend(range, &given) {
            Ok(behind) => {
                assert!(behind > range.from);
                assert!(reader.compacted().cleaned_end <= range.from, "what is behind is not clean any more");
                return Ok(true);
            }
            Err(MendError::DoesNotFit { problem: Misfit::Short { upto, .. }, .. }) => {
                given.extend(give(peer, upto, most));
            }
            Err(MendError::DoesNotFit { problem: Misfit::Unsealed, .. }) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

/// Repairs everything. Returns how often something was written.
fn repair(log: &mut PartitionLog, peer: &PartitionLog, most: usize) -> usize {
    let mut mended = 0;
    while let Some(range) = damage(&log.reader()) {
        if !mend(&log.reader(), peer, &range, most).unwrap() {
            // It has to be sealed for that.
            assert!(log.roll_if_older(0, Duration::ZERO).unwrap(), "{range:?}");
        }
        mended += 1;
        assert!(mended < 1000, "it comes to an end: {range:?}");
    }
    mended
}

#[test]
fn every_flipped_byte_is_repaired_by_a_peer_that_was_compacted_otherwise() {
    let written = Written::usual(60, 9);
    for (own, other) in PAIRS {
        let (place, elsewhere) = (memory(), memory());
        let peer = cleaned(&elsewhere, &written, other);
        let mut log = cleaned(&place, &written, own);
        let mut at = 0;
        // The files change as they are repaired.
        while let Some((path, content)) = place.files().into_iter().find(|(_, content)| content.len() > at) {
            place.change(&path, at, |byte| !byte);
            let context = format!("{own:?} from {other:?}, byte {at} of {path:?}, {} bytes", content.len());
            let mended = repair(&mut log, &peer, 1 + at % 700);
            assert!(mended > 0, "{context}");
            check(&log, &written, written.end(), &context);
            at += 13;
        }
        check_opens(&place, &written, written.end(), &format!("{own:?} from {other:?}"));
    }
}

#[test]
fn whole_stretches_and_sectors_that_cannot_be_read_are_repaired() {
    let written = Written::usual(80, 9);
    for (own, other) in PAIRS {
        for (spread, length) in [(97, 1), (500, 300), (3000, 1500)] {
            let fs = MemFs::new();
            let place = Place { fs: Arc::new(fs.clone()), ..memory() };
            let peer = cleaned(&memory(), &written, other);
            let mut log = cleaned(&place, &written, own);
            for (number, (path, content)) in place.files().into_iter().enumerate() {
                for at in (number * 31 % spread..content.len()).step_by(spread) {
                    let bytes = at..content.len().min(at + length);
                    if number % 2 == 0 {
                        bytes.for_each(|at| place.change(&path, at, |byte| !byte));
                    } else {
                        fs.spoil(&path, bytes.start as u64..bytes.end as u64).unwrap();
                    }
                }
            }
            let context = format!("{own:?} from {other:?}, {length} bytes every {spread}");
            assert!(repair(&mut log, &peer, 1 << 20) > 0, "{context}");
            check(&log, &written, written.end(), &context);
        }
    }
}

/// A segment that is appended to cannot be written anew: it is said, and nothing is written.
#[test]
fn what_is_of_another_length_waits_until_its_segment_is_sealed() {
    on_every_fs(|place| {
        let written = Written::usual(12, 2);
        let mut log = place.open();
        log.append(&written.batches).unwrap();
        assert_eq!(log.segment_count(), 1);
        let elsewhere = memory();
        let mut peer = cleaned(&elsewhere, &written, Cleaned::Never);
        peer.roll_if_older(0, Duration::ZERO).unwrap();
        compact(&peer);
        let (path, content) = place.files().remove(0);
        place.change(&path, 200, |byte| !byte);
        let damaged = place.files();
        let range = damage(&log.reader()).unwrap();
        assert!(!mend(&log.reader(), &peer, &range, 1 << 20).unwrap());
        assert!(place.files() == damaged);
        assert_eq!(repair(&mut log, &peer, 1 << 20), 2);
        check(&log, &written, written.end(), "sealed");
        assert!(place.files()[0].1.len() < content.len());
    });
}

/// Neither a log that is used meanwhile nor one that was cut gets what does not belong there.
#[test]
fn a_log_that_was_cut_or_replaced_meanwhile_is_not_spliced() {
    let written = Written::usual(60, 5);
    let place = memory();
    let peer = cleaned(&memory(), &written, Cleaned::Late);
    let mut log = cleaned(&place, &written, Cleaned::Never);
    let (path, _) = place.files().remove(0);
    place.change(&path, 200, |byte| !byte);
    let range = damage(&log.reader()).unwrap();
    let end = Offset(written.batches[40].header().base_offset.0);
    log.truncate_to(end).unwrap();
    let before = place.files();
    assert!(matches!(mend(&log.reader(), &peer, &range, 1 << 20), Err(MendError::Changed)));
    assert!(place.files() == before);
    let reader = log.reader();
    let range = damage(&reader).unwrap();
    drop(log);
    assert!(matches!(mend(&reader, &peer, &range, 1 << 20), Err(MendError::Changed)));
    assert!(place.files() == before);
    assert_eq!(place.files_of(".repaired").len(), 0);
}

/// After a crash at any moment of it the log opens, to what it was or to what it is to be, and is repaired again.
#[test]
fn a_crash_at_any_moment_of_a_repair_loses_nothing() {
    let written = Written::usual(60, 5);
    let (mut spliced, mut after) = (0, 0);
    loop {
        let fs = MemFs::new();
        let place = Place { fs: Arc::new(fs.clone()), ..memory() };
        let peer = cleaned(&memory(), &written, Cleaned::Late);
        let mut log = cleaned(&place, &written, Cleaned::Early);
        checkpoint(&mut log);
        let (path, content) = place.files().remove(1);
        place.change(&path, content.len() / 2, |byte| !byte);
        fs.crash_keeping(after); // the flipped byte is on disk, whatever happens
        change_durably(&place, &path, content.len() / 2);
        drop(log);
        // What is noted vouches for what is damaged: else opening the log would find it.
        let mut log = place.try_resume(trusted(&written)).map(|(log, ..)| log).unwrap();
        let operations = fs.operations();
        fs.inject(Fault { kind: None, after, lasting: true });
        let range = damage(&log.reader()).unwrap();
        let done = mend(&log.reader(), &peer, &range, 1 << 20);
        spliced = spliced.max(fs.operations() - operations);
        fs.clear_faults();
        drop(log);
        fs.crash_keeping(after * 31);
        let opened = place.try_resume(trusted(&written)).map(|(log, ..)| log);
        log = opened.unwrap_or_else(|error| panic!("after {after}: {error:?}"));
        repair(&mut log, &peer, 1 << 20);
        check(&log, &written, written.end(), &format!("after {after}"));
        if done.is_ok_and(|done| done) {
            break;
        }
        after += 1;
    }
    assert!(spliced >= 8, "{spliced} operations");
}

/// The byte is other than it was, on disk, whether the crash left it so or not.
fn change_durably(place: &Place, path: &Path, at: usize) {
    let file = place.fs.open(path, OpenMode::Existing).unwrap();
    let byte = file.read_bytes(at as u64, 1).unwrap()[0];
    file.write_all_at(&[&[byte ^ 0x55]], at as u64).unwrap();
    file.sync_data().unwrap();
}

fn trusted(written: &Written) -> Recovery {
    Recovery { trusted_end: written.end(), flushed_end: written.end(), clean: false }
}

/// Opens the log as often as there is something to repair.
fn opened(place: &Place, peer: &PartitionLog, written: &Written, most: usize, clean: bool) -> PartitionLog {
    let recovery = Recovery { clean, ..trusted(written) };
    for _ in 0..100 {
        let error = match place.try_open(recovery) {
            Ok((log, ..)) => return log,
            Err(error @ LogError::Corrupt { .. }) => ReplicaLogError::Damaged(error),
            Err(error) => ReplicaLogError::Log(error),
        };
        let promise =
            written.batches.last().and_then(|batch| batch.header().epoch).unwrap_or(LeaderEpoch::ZERO);
        let damaged = DamagedLog::new(place.fs.clone(), &place.dir, recovery, promise, &error);
        let mut damaged = damaged.unwrap().unwrap_or_else(|| panic!("{error:?}"));
        while let Some(range) = damaged.next_damage().unwrap() {
            let mut given = give(peer, range.from, most);
            while let Err(error) = damaged.fill(&given) {
                let MendError::DoesNotFit { problem: Misfit::Short { upto, .. }, .. } = error else {
                    panic!("{range:?}: {error:?}")
                };
                given.extend(give(peer, upto, most));
            }
        }
    }
    panic!("it does not come to an end");
}

#[test]
fn a_log_that_cannot_be_opened_is_repaired_by_a_peer_that_was_compacted_otherwise() {
    let written = Written::usual(60, 9);
    for (own, other) in PAIRS {
        let place = memory();
        let peer = cleaned(&memory(), &written, other);
        drop(cleaned(&place, &written, own));
        for number in 0..place.files().len() {
            for part in 0..8 {
                let Some((path, content)) = place.files().into_iter().nth(number) else { continue };
                let (from, to) = (content.len() * part / 8, content.len() * (part + 1 + part % 2) / 8);
                (from..to.min(content.len())).for_each(|at| place.change(&path, at, |byte| !byte));
                let context = format!("{own:?} from {other:?}, part {part} of {path:?}");
                let mut log = opened(&place, &peer, &written, 400, part == 7);
                repair(&mut log, &peer, 400);
                check(&log, &written, written.end(), &context);
            }
        }
        assert_eq!(place.files_of(".repaired").len(), 0);
    }
}

/// The last segment as well, of which nothing is torn off after an orderly stop: what is left over goes.
#[test]
fn the_last_segment_of_a_log_that_was_closed_in_order_is_repaired() {
    let mut written = Written::usual(12, 2);
    let elsewhere = memory();
    let mut peer = cleaned(&elsewhere, &written, Cleaned::Never);
    peer.roll_if_older(0, Duration::ZERO).unwrap();
    compact(&peer);
    // It has gone on in a later epoch since.
    written.marker(90);
    peer.append(&written.batches[12..]).unwrap();
    written.batches.truncate(12);
    for damaged in [3, 7, 11] {
        let place = memory();
        let mut log = place.open();
        log.append(&written.batches).unwrap();
        flush(&mut log);
        drop(log);
        let at: usize = written.batches[..damaged].iter().map(|batch| batch.bytes().len()).sum();
        let (path, _) = place.files().remove(0);
        (at..at + 40).for_each(|at| place.change(&path, at, |_| 0xff));
        let mut log = opened(&place, &peer, &written, 1 << 20, true);
        repair(&mut log, &peer, 1 << 20);
        check(&log, &written, written.end(), &format!("batch {damaged}"));
        log.append(&[RecordBatch::marker(written.end(), epoch(91), BrokerId(1))]).unwrap();
        assert_eq!(content(&log).last().unwrap().header().base_offset, written.end());
    }
}

/// What others are given of it begins and ends in fillers where it has to.
#[test]
fn a_closed_log_gives_fillers_cut_to_size() {
    on_every_fs(|place| {
        let written = Written::usual(60, 3);
        drop(cleaned(place, &written, Cleaned::Late));
        let all = read_closed(&*place.fs, &place.dir, Offset::ZERO, written.end(), usize::MAX).unwrap();
        let filler = all.iter().map(RecordBatch::header).find(|header| header.offsets() > 3).unwrap();
        assert!(filler.is_filler());
        let (from, below) = (filler.base_offset + 1, filler.base_offset + 3);
        let given = read_closed(&*place.fs, &place.dir, from, below, usize::MAX).unwrap();
        assert_eq!(given.len(), 1);
        assert_eq!(
            (given[0].header().base_offset, given[0].header().next_offset()),
            (filler.base_offset, below)
        );
        assert_eq!(given[0].clipped(from, below).unwrap().header().base_offset, from);
    });
}
