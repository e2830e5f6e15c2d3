//! Power fails, or an operation does, at every single step of passes; nothing of the log is lost, and it stays one that opens.

use super::*;
use crate::create_dir_synced;
use crate::fs::mem::Fault;

/// So small that segments are joined, and few batches make several.
fn tiny() -> LogConfig {
    LogConfig { segment_size: ByteSize(900), index_interval: ByteSize(100), ..LogConfig::default() }
}

struct Setup {
    fs: MemFs,
    place: Place,
    log: PartitionLog,
    written: Written,
}

/// A log that was cleaned in part, with checkpoints, tombstones to go, and something left to do of every kind.
fn setup() -> Setup {
    let fs = MemFs::new();
    let place = Place { fs: Arc::new(fs.clone()), dir: "/data/t-0".into(), config: tiny() };
    create_dir_synced(&fs, Path::new("/data")).unwrap();
    let mut written = Written::usual(25, 30);
    for key in 0..6 {
        written.add(6, &[(&format!("key {key}"), None)], Some(7), Compression::None);
    }
    let mut log = log_of(&place, &written);
    checkpoint(&mut log);
    compact(&log);
    log.note_tombstones_gone(log.compacted().cleaned_end).unwrap();
    for round in 0..3 {
        let from = written.batches.len();
        written.go_on(12, 7);
        log.append(&written.batches[from..]).unwrap();
        checkpoint(&mut log);
        if round == 1 {
            compact(&log);
        }
    }
    Setup { fs, place, log, written }
}

fn recovery(end: Offset, clean: bool) -> Recovery {
    Recovery { trusted_end: end, flushed_end: end, clean }
}

fn try_compact(log: &PartitionLog) -> Result<CompactionOutcome, LogError> {
    let reader = log.reader();
    reader.compact(&plan(&reader), &Turned, &mut |_| ControlFlow::Continue(()))
}

/// The log opens, holds what it may, and a pass over it comes to its end.
fn check_found(place: &Place, written: &Written, below: Offset, context: &str) -> PartitionLog {
    let (mut log, opened, _) =
        place.try_open(recovery(written.end(), false)).unwrap_or_else(|error| panic!("{context}: {error:?}"));
    assert_eq!(opened.cut_bytes, 0, "{context}");
    check(&log, written, below, context);
    flush(&mut log);
    log
}

#[test]
fn a_crash_at_any_operation_of_a_pass_loses_nothing() {
    let mut joined = false;
    for seed in 0..24 {
        for after in 0..10_000 {
            let Setup { fs, place, log, written } = setup();
            let below = log.sealed_segments().last().unwrap().end;
            fs.inject(Fault { kind: None, after, lasting: true });
            let segments = log.segment_count();
            let finished = try_compact(&log).is_ok();
            joined |= log.segment_count() < segments;
            drop(log);
            crash(&fs, seed);
            let context = format!("seed {seed}, crash after {after}");
            // What was there before is what is to be checked, not what a new pass made of it.
            let log = check_found(&place, &written, below, &context);
            assert!(!finished || log.compacted().cleaned_end == below, "{context}");
            compact(&log);
            check(&log, &written, below, &context);
            if finished {
                assert!(after > 40, "a pass has too few operations: {after}");
                break;
            }
        }
    }
    assert!(joined, "nothing was joined");
}

/// The power fails again while the log is opened.
#[test]
fn a_crash_in_the_recovery_of_a_crash_loses_nothing() {
    for after in 0..10_000 {
        let mut finished = false;
        for again in 0..10_000 {
            let seed = after * 31 + again;
            let Setup { fs, place, log, written } = setup();
            let below = log.sealed_segments().last().unwrap().end;
            fs.inject(Fault { kind: None, after, lasting: true });
            finished = try_compact(&log).is_ok();
            drop(log);
            crash(&fs, seed % 5);
            fs.inject(Fault { kind: None, after: again, lasting: true });
            let opened = place.try_open(recovery(written.end(), false)).is_ok();
            crash(&fs, (seed / 5) % 5);
            let context = format!("crash after {after}, and after {again}");
            check_found(&place, &written, below, &context);
            if opened {
                break;
            }
        }
        if finished {
            break;
        }
    }
}

/// A pass that fails leaves a log that is as good as before, and that is not poisoned: it goes on, and the next pass does
/// what this one could not.
#[test]
fn a_pass_that_meets_an_error_harms_nothing() {
    for lasting in [false, true] {
        for after in 0..10_000 {
            let Setup { fs, place, mut log, mut written } = setup();
            let below = log.sealed_segments().last().unwrap().end;
            let context = format!("failure after {after}, lasting: {lasting}");
            fs.inject(Fault { kind: None, after, lasting });
            let finished = try_compact(&log).is_ok();
            fs.clear_faults();
            assert!(!log.is_poisoned(), "{context}");
            check(&log, &written, below, &context);
            let from = written.batches.len();
            written.go_on(3, 50);
            log.append(&written.batches[from..]).unwrap();
            flush(&mut log);
            if after % 2 == 0 {
                // Others come across what was not finished.
                let end = written.batches[from + 2].header().base_offset;
                log.truncate_to(end).unwrap();
                written.batches.truncate(from + 2);
                let base = holdfast_core::replication::Position { epoch: epoch(1), end: Offset(9) };
                log.trim_to(base, vec![]).unwrap().unwrap().run().unwrap();
            }
            check(&log, &written, below, &context);
            let below = log.sealed_segments().last().unwrap().end;
            compact(&log);
            check(&log, &written, below, &context);
            assert_eq!(log.compacted().cleaned_end, below, "{context}");
            let bases: Vec<PathBuf> = log
                .segment_bases()
                .iter()
                .map(|base| place.dir.join(format!("{:020}.log", base.0)))
                .collect();
            assert_eq!(
                place.files().into_iter().map(|(path, _)| path).collect::<Vec<_>>(),
                bases,
                "{context}"
            );
            drop(log);
            check_found(&place, &written, below, &context);
            if finished {
                assert!(after > 40, "a pass has too few operations: {after}");
                break;
            }
        }
    }
}

#[test]
fn a_full_disk_puts_a_pass_off() {
    for room in (0..).step_by(97) {
        let Setup { fs, place, log, written } = setup();
        let below = log.sealed_segments().last().unwrap().end;
        let context = format!("room for {room} bytes");
        fs.set_capacity(Some(fs.used() + room));
        let outcome = try_compact(&log);
        assert!(
            outcome.as_ref().is_ok_and(|_| true) || outcome.as_ref().is_err_and(LogError::is_full),
            "{context}"
        );
        assert!(!log.is_poisoned(), "{context}");
        check(&log, &written, below, &context);
        fs.set_capacity(None);
        check_found(&place, &written, below, &context);
        if outcome.is_ok() {
            assert!(room > 1000, "it was never full");
            return;
        }
        assert_eq!(
            log.compacted().cleaned_end,
            check_found(&place, &written, below, &context).compacted().cleaned_end
        );
    }
}

/// A cut inside a filler is one rename: there is always the longer or the shorter one.
#[test]
fn a_crash_while_a_filler_is_cut_leaves_the_one_or_the_other() {
    for (seed, which) in (0..16).flat_map(|seed| [0, 1, 2].map(|which| (seed, which))) {
        for after in 0..10_000 {
            let Setup { fs, place, mut log, mut written } = setup();
            compact(&log);
            let fillers = content(&log);
            let inside = |cut: &Offset| {
                fillers
                    .iter()
                    .any(|batch| batch.header().base_offset < *cut && *cut < batch.header().next_offset())
            };
            let boundaries = written.batches.iter().map(|batch| batch.header().base_offset);
            let cut = boundaries.filter(inside).nth(which * 4).expect("fillers take several batches");
            fs.inject(Fault { kind: None, after, lasting: true });
            let finished = log.truncate_to(cut).is_ok();
            drop(log);
            crash(&fs, seed);
            let context = format!("seed {seed}, cut at {cut}, crash after {after}");
            // What is trusted was lowered before.
            let opened = place.try_open(recovery(cut, false));
            let (mut log, ..) = opened.unwrap_or_else(|error| panic!("{context}: {error:?}"));
            flush(&mut log);
            let end = log.log_end_offset();
            assert!(end >= cut && (!finished || end == cut), "{context}: {end}");
            // A part of it may be left, as after any crash.
            assert!(log.compacted().cleaned_end <= end, "{context}");
            let boundary =
                written.batches.iter().take_while(|batch| batch.header().next_offset() <= end).count();
            if written.batches[..boundary].last().map(|batch| batch.header().next_offset()) == Some(end) {
                written.batches.truncate(boundary);
                let left = records_of(&content(&log));
                let all = written.records();
                assert!(left.iter().all(|(offset, record)| all.get(offset) == Some(record)), "{context}");
            }
            if finished {
                break;
            }
        }
    }
}
