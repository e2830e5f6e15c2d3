use super::*;
use crate::fs::mem::{Fault, OperationKind};
use crate::{OpenMode, create_dir_synced};

/// A log with a checkpoint behind the first `count` batches, all of them flushed.
fn noted(place: &Place, all: &[RecordBatch], count: usize) -> PartitionLog {
    let mut log = filled(place, &all[..count]);
    checkpoint(&mut log);
    for batch in &all[count..] {
        log.append(std::slice::from_ref(batch)).unwrap();
    }
    flush(&mut log);
    log
}

#[test]
fn only_what_is_behind_the_checkpoint_is_visited() {
    on_every_fs(|place| {
        let all = batches(0, 40, 1);
        for count in [1, 10, 24, 40] {
            let place = Place { dir: place.dir.with_file_name(format!("at-{count}")), ..place.clone() };
            let epochs = noted(&place, &all, count).epochs();
            for recovery in [recovery(120, false), recovery(120, true)] {
                let (mut log, opened, derived) = place.try_resume(recovery).unwrap();
                assert_eq!((derived.restored, opened.batches as usize), (count, 40 - count));
                assert_eq!(derived.seen, all.iter().map(|batch| seen(batch.header())).collect::<Vec<_>>());
                assert_eq!((content(&log), log.epochs()), (all.clone(), epochs.clone()));
                assert_eq!((opened.cut_bytes, opened.kept_bytes), (0, log.size_bytes()));
                check_lookups(&log, &all);
                flush(&mut log);
            }
        }
    });
}

/// Opening after an orderly stop reads the checkpoint, the seals, and the last batch's header: nothing else is looked at.
#[test]
fn after_an_orderly_stop_no_batch_is_walked_over() {
    on_every_fs(|place| {
        let all = batches(0, 40, 1);
        drop(noted(place, &all, 40));
        let last = all[39].bytes().len();
        for (path, content) in place.files() {
            let kept = if path == place.files().last().unwrap().0 { last } else { 0 };
            let mut spoilt = vec![0xee; content.len() - kept];
            spoilt.extend_from_slice(&content[content.len() - kept..]);
            place.overwrite(&path, &spoilt);
        }
        let (log, opened, derived) = place.try_resume(recovery(120, true)).unwrap();
        assert_eq!((derived.restored, opened.batches, log.log_end_offset()), (40, 0, Offset(120)));
        assert_eq!(log.segment_count(), place.files().len());
        // Without it everything is, and the damage found.
        assert!(place.try_open(recovery(120, true)).is_err());
    });
}

#[test]
fn after_a_crash_a_checkpoint_above_what_is_known_to_be_flushed_is_not_believed() {
    on_every_fs(|place| {
        let all = batches(0, 40, 1);
        let mut log = noted(place, &all[..30], 20);
        checkpoint(&mut log);
        for (flushed_end, restored) in [(90, 30), (89, 20), (60, 20), (59, 0)] {
            let (log, _, derived) = place.try_resume(recovery(flushed_end, false)).unwrap();
            assert_eq!(derived.restored, restored, "flushed up to {flushed_end}");
            assert_eq!(content(&log), all[..30]);
        }
    });
}

#[test]
fn a_damaged_checkpoint_is_done_without() {
    on_every_fs(|place| {
        let all = batches(0, 20, 1);
        drop(noted(place, &all, 16));
        let path = place.dir.join("checkpoint");
        let whole = place.files_of("checkpoint").remove(0).1;
        for at in (0..whole.len()).step_by(7) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            for content in [&damaged[..], &whole[..at]] {
                place.overwrite(&path, content);
                let (log, _, derived) = place.try_resume(recovery(60, true)).unwrap();
                assert_eq!((derived.restored, derived.seen.len()), (0, 20), "byte {at}");
                assert_eq!(content_len(&log), 20);
            }
        }
    });
}

fn content_len(log: &PartitionLog) -> usize {
    content(log).len()
}

/// The same offsets, other batches: what was noted of the earlier ones says nothing.
#[test]
fn a_checkpoint_above_a_truncation_is_gone() {
    on_every_fs(|place| {
        let old = batches(0, 30, 1);
        let mut log = noted(place, &old, 10);
        checkpoint(&mut log);
        let before = place.files_of("checkpoint");
        log.truncate_to(Offset(45)).unwrap();
        assert!(place.files_of("checkpoint").is_empty());
        log.append(&batches(45, 20, 50)).unwrap();
        flush(&mut log);
        let expected = content(&log);
        let (_, _, derived) = place.try_resume(recovery(105, true)).unwrap();
        assert_eq!((derived.restored, derived.seen.len()), (10, 35), "the one below the cut still holds");
        // And if it came back it would not be believed.
        place.overwrite(&before[0].0, &before[0].1);
        let (log, _, derived) = place.try_resume(recovery(105, true)).unwrap();
        assert_eq!((derived.restored, derived.seen.len()), (10, 35));
        check_lookups(&log, &expected);
    });
}

#[test]
fn a_checkpoint_above_a_torn_tail_is_gone_before_the_tail_is_cut() {
    let fs = MemFs::new();
    let place = Place { fs: Arc::new(fs.clone()), dir: "/data/t-0".into(), config: small() };
    create_dir_synced(&fs, Path::new("/data")).unwrap();
    let all = batches(0, 3, 1);
    let mut log = filled(&place, &all);
    let snapshot = snapshot(&log);
    log.checkpoint(&snapshot).unwrap();
    flush(&mut log);
    let (path, content) = place.files().remove(0);
    place.overwrite(&path, &content[..content.len() - 1]);
    fs.inject(Fault { kind: Some(OperationKind::SetLen), after: 0, lasting: true });
    assert!(place.try_resume(Recovery::default()).is_err(), "the cut fails");
    assert!(place.files_of("checkpoint").is_empty());
}

#[test]
fn a_checkpoint_is_durable_with_the_next_flush_and_the_one_before_holds_until_then() {
    let fs = MemFs::new();
    let place = Place { fs: Arc::new(fs.clone()), dir: "/data/t-0".into(), config: small() };
    create_dir_synced(&fs, Path::new("/data")).unwrap();
    let all = batches(0, 30, 1);
    for seed in 0..64 {
        let mut log = noted(&place, &all[..20], 10);
        let snapshot = snapshot(&log);
        log.checkpoint(&snapshot).unwrap();
        fs.crash_keeping(seed);
        let (mut log, _, derived) = place.try_resume(recovery(60, false)).unwrap();
        assert!([0, 10, 20].contains(&derived.restored), "{}", derived.restored);
        assert_eq!(derived.seen.len(), 20);
        checkpoint(&mut log);
        fs.crash();
        let (mut log, _, derived) = place.try_resume(recovery(60, false)).unwrap();
        assert_eq!((derived.restored, content_len(&log)), (20, 20));
        log.truncate_to(Offset(0)).unwrap();
    }
}

#[test]
fn an_owner_that_keeps_no_snapshot_sees_every_batch() {
    on_every_fs(|place| {
        let all = batches(0, 20, 1);
        let mut log = filled(place, &all);
        log.checkpoint(b"of no use").unwrap();
        flush(&mut log);
        let (_, opened, visited) = place.try_open(recovery(60, true)).unwrap();
        assert_eq!((opened.batches, visited.len()), (20, 20));
    });
}

#[test]
fn bytes_count_from_the_last_checkpoint() {
    on_every_fs(|place| {
        let all = batches(0, 40, 1);
        let bytes =
            |batches: &[RecordBatch]| batches.iter().map(|batch| batch.bytes().len() as u64).sum::<u64>();
        let mut log = place.open();
        log.checkpoint(b"").unwrap();
        assert!(place.files_of("checkpoint").is_empty(), "there is nothing to note of an empty log");
        log.append(&all[..30]).unwrap();
        assert_eq!(log.bytes_since_checkpoint(), bytes(&all[..30]));
        checkpoint(&mut log);
        assert_eq!(log.bytes_since_checkpoint(), 0);
        log.append(&all[30..]).unwrap();
        assert_eq!(log.bytes_since_checkpoint(), bytes(&all[30..]));
        flush(&mut log);
        let (mut log, ..) = place.try_resume(recovery(120, true)).unwrap();
        assert_eq!(log.bytes_since_checkpoint(), bytes(&all[30..]));
        log.truncate_to(Offset(45)).unwrap();
        assert_eq!(log.bytes_since_checkpoint(), bytes(&all[..15]));
    });
}

/// A file of another kind, or an older one that was kept: nothing but a whole checkpoint is taken for one.
#[test]
fn leftovers_of_a_checkpoint_are_overwritten() {
    on_every_fs(|place| {
        let mut log = filled(place, &batches(0, 5, 1));
        place.fs.open(&place.dir.join("checkpoint.tmp"), OpenMode::CreateNew).unwrap();
        checkpoint(&mut log);
        assert_eq!(place.try_resume(recovery(15, true)).unwrap().2.restored, 5);
    });
}
