//! Power fails at every single operation of a small workload; then the log is opened again.

use super::*;
use crate::create_dir_synced;
use crate::fs::mem::Fault;

/// What a log may hold after the crash.
#[derive(Debug, Default)]
struct Expected {
    /// Everything below was acknowledged: flushed, and not truncated since.
    durable: Offset,
    /// What is left is a prefix of this.
    written: Vec<RecordBatch>,
}

/// Appends, flushes, rolls and truncates until something fails.
fn work(place: &Place, expected: &mut Expected) -> Result<(), LogError> {
    let (mut log, ..) = place.try_open(Recovery::default())?;
    for round in 0..14_u32 {
        let end = log.log_end_offset();
        let next = batches(end.0, 3, 1 + round * 2);
        // Part of it may be there even if the append fails.
        expected.written.extend_from_slice(&next);
        log.append(&next)?;
        if round % 3 == 1 {
            let ticket = log.take_flush().expect("just appended");
            ticket.run().map_err(LogError::io("flushing", &place.dir))?;
            expected.durable = ticket.end();
        }
        if round % 4 == 2 {
            let snapshot = snapshot(&log);
            log.checkpoint(&snapshot)?;
        }
        if round % 5 == 4 {
            let cut = Offset(log.log_end_offset().0.saturating_sub(16));
            expected.durable = expected.durable.min(Offset(cut.0 / 3 * 3));
            log.truncate_to(cut)?;
            expected.written.truncate((log.log_end_offset().0 / 3) as usize);
        }
    }
    Ok(())
}

#[test]
fn crash_at_every_operation_keeps_a_prefix_with_all_that_was_flushed() {
    for seed in 0..16 {
        for after in 0..10_000 {
            let fs = MemFs::new();
            let place = Place { fs: Arc::new(fs.clone()), dir: "/data/t-0".into(), config: small() };
            create_dir_synced(&fs, Path::new("/data")).unwrap();
            fs.inject(Fault { kind: None, after, lasting: true });
            let mut expected = Expected::default();
            let finished = work(&place, &mut expected).is_ok();
            super::crash(&fs, seed);
            check(&fs, &place, &expected, &format!("seed {seed}, crash after {after}"));
            if finished {
                assert!(after > 40, "the workload has too few operations: {after}");
                break;
            }
        }
    }
}

fn check(fs: &MemFs, place: &Place, expected: &Expected, context: &str) {
    let recovery = Recovery { trusted_end: expected.durable, flushed_end: expected.durable, clean: false };
    let (mut log, _, derived) =
        place.try_resume(recovery).unwrap_or_else(|error| panic!("{context}: {error:?}"));
    let found = content(&log);
    let derivable: Vec<Seen> = found.iter().map(|batch| seen(batch.header())).collect();
    assert_eq!(derived.seen, derivable, "{context}");
    check_lookups(&log, &found);
    assert!(log.log_end_offset() >= expected.durable, "{context}");
    assert_eq!(found, expected.written[..found.len()], "{context}");
    // What was found can be acted on once it is flushed: it survives the next crash, and the log goes on.
    log.append(&batches(log.log_end_offset().0, 2, 100)).unwrap();
    log.take_flush().expect("just appended").run().unwrap();
    let end = log.log_end_offset();
    fs.crash();
    let (log, opened, _) =
        place.try_resume(Recovery { trusted_end: end, flushed_end: end, clean: false }).unwrap();
    assert_eq!((opened.cut_bytes, log.log_end_offset()), (0, end), "{context}");
    assert_eq!(content(&log)[..found.len()], found, "{context}");
}

/// A single failed operation, without a crash: the log is as good as before or refuses to go on, and says so.
#[test]
fn any_failed_operation_is_reported_and_nothing_acknowledged_is_lost() {
    for after in 0..10_000 {
        let fs = MemFs::new();
        let place = Place { fs: Arc::new(fs.clone()), dir: "/data/t-0".into(), config: small() };
        create_dir_synced(&fs, Path::new("/data")).unwrap();
        fs.inject(Fault { kind: None, after, lasting: false });
        let mut expected = Expected::default();
        if work(&place, &mut expected).is_ok() {
            assert!(after > 40, "the workload has too few operations: {after}");
            break;
        }
        check(&fs, &place, &expected, &format!("failure after {after}"));
    }
}
