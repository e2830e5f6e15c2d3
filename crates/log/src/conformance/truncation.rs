use super::*;

#[test]
fn truncation_ends_the_log_at_the_batch_that_holds_the_offset() {
    on_every_fs(|place| {
        let all = batches(0, 24, 1);
        for end in 0..=73 {
            let place = Place { dir: place.dir.with_file_name(format!("end-{end}")), ..place.clone() };
            let mut log = filled(&place, &all);
            log.truncate_to(Offset(end)).unwrap();
            let kept = (end / 3).min(24) as usize;
            assert_eq!(log.log_end_offset(), Offset(kept as u64 * 3));
            assert_eq!(content(&log), all[..kept]);
            let more = batches(log.log_end_offset().0, 12, 50);
            log.append(&more).unwrap();
            let expected = [&all[..kept], &more].concat();
            assert_eq!(content(&log), expected);
            check_times(&log, &expected);
            let (reopened, opened, visited) = place.try_open(Recovery::default()).unwrap();
            assert_eq!(opened.cut_bytes, 0);
            assert_eq!(visited.len(), expected.len());
            assert_eq!(content(&reopened), expected);
            assert_eq!(reopened.epochs(), log.epochs());
        }
    });
}

/// The index knows the largest timestamps after a truncation as if it had never known others.
fn check_times(log: &PartitionLog, expected: &[RecordBatch]) {
    for timestamp in (1000..1300).step_by(5) {
        let first = expected.iter().find(|batch| batch.header().max_timestamp >= timestamp);
        let found = log.reader().offset_for_timestamp(timestamp, log.log_end_offset()).unwrap();
        assert_eq!(found.map(|(offset, _)| offset), first.map(|batch| batch.header().base_offset));
    }
}

#[test]
fn epochs_after_a_truncation_are_those_left() {
    on_every_fs(|place| {
        let mut log = filled(place, &batches(0, 12, 1));
        log.truncate_to(Offset(12)).unwrap();
        assert_eq!(log.epochs(), [(epoch(1), Offset(0))]);
        log.append(&[batch(12, 1, 1, 0, 1)]).unwrap();
        log.truncate_to(Offset(0)).unwrap();
        assert_eq!(log.last_epoch(), None);
        assert_eq!(log.segment_count(), 1);
    });
}

#[test]
fn truncation_is_durable_on_return() {
    let fs = MemFs::new();
    let place = Place { fs: Arc::new(fs.clone()), dir: "/d/t-0".into(), config: small() };
    let all = batches(0, 24, 1);
    filled(&place, &all).truncate_to(Offset(10)).unwrap();
    fs.crash();
    assert_eq!(content(&place.open()), all[..3]);
}

/// Removed segments whose removal was not durable would continue the log again where new batches end just there.
#[test]
fn removed_segments_do_not_come_back_behind_new_batches() {
    let fs = MemFs::new();
    let place = Place { fs: Arc::new(fs.clone()), dir: "/d/t-0".into(), config: small() };
    let old: Vec<RecordBatch> = (0..30).map(|base| batch(base, 1, 1, 7, 100)).collect();
    let mut log = filled(&place, &old);
    let second_base = log.segment_bases()[1].0;
    let third_base = log.segment_bases()[2].0;
    log.truncate_to(Offset(second_base)).unwrap();
    let new: Vec<RecordBatch> = (second_base..third_base).map(|base| batch(base, 1, 1, 8, 100)).collect();
    log.append(&new).unwrap();
    log.take_flush().unwrap().run().unwrap();
    fs.crash();
    let expected = [&old[..second_base as usize], &new].concat();
    assert_eq!(content(&place.open()), expected);
}
