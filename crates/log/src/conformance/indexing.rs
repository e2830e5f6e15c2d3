use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// Many blocks of index in a segment.
fn dense() -> LogConfig {
    LogConfig { segment_size: ByteSize(30_000), index_interval: ByteSize(1), ..LogConfig::default() }
}

fn dense_batches(base: u64, count: u64) -> Vec<RecordBatch> {
    let make = |number: u64| {
        let timestamp = if number % 7 == 3 { 0 } else { 1000 + number as i64 };
        batch(base + number * 2, 2, 1 + (number / 100) as u32, timestamp, 30)
    };
    (0..count).map(make).collect()
}

fn clean(log: &PartitionLog) -> Recovery {
    Recovery { trusted_end: log.log_end_offset(), flushed_end: log.log_end_offset(), clean: true }
}

#[test]
fn everything_is_found_in_blocks_on_file_and_little_is_in_memory() {
    on_every_fs(|place| {
        let place = Place { config: dense(), ..place.clone() };
        let all = dense_batches(0, 700);
        let mut log = filled(&place, &all);
        assert!(log.segment_count() >= 3);
        assert!(log.memory_bytes() < 2048, "{}", log.memory_bytes());
        check_lookups(&log, &all);
        checkpoint(&mut log);
        for recovery in [clean(&log), Recovery { clean: false, ..clean(&log) }] {
            let (resumed, opened, _) = place.try_resume(recovery).unwrap();
            assert!(opened.batches == 0 && resumed.memory_bytes() < 2048);
            check_lookups(&resumed, &all);
            let (walked, ..) = place.try_open(recovery).unwrap();
            assert!(walked.memory_bytes() < 2048, "{}", walked.memory_bytes());
            check_lookups(&walked, &all);
        }
    });
}

#[test]
fn truncation_into_blocks_on_file_keeps_what_is_below() {
    on_every_fs(|place| {
        let all = dense_batches(0, 600);
        for (end, more) in [(1, 300), (123, 300), (124, 9), (125, 300), (430, 9), (800, 9), (1199, 300)] {
            let dir = place.dir.with_file_name(format!("end-{end}"));
            let place = Place { config: dense(), dir, ..place.clone() };
            let mut log = filled(&place, &all);
            checkpoint(&mut log);
            let (mut log, ..) = place.try_resume(clean(&log)).unwrap();
            log.truncate_to(Offset(end)).unwrap();
            let kept = &all[..(end / 2) as usize];
            check_lookups(&log, kept);
            let more = dense_batches(kept.len() as u64 * 2, more);
            let more: Vec<RecordBatch> =
                more.iter().map(|batch| batch.stamped(batch.header().base_offset, epoch(90))).collect();
            log.append(&more).unwrap();
            let expected = [kept, &more].concat();
            check_lookups(&log, &expected);
            checkpoint(&mut log);
            for recovery in [clean(&log), Recovery { clean: false, ..clean(&log) }] {
                let (log, opened, _) = place.try_resume(recovery).unwrap();
                assert_eq!(opened.batches, 0);
                check_lookups(&log, &expected);
            }
        }
    });
}

#[test]
fn a_missing_index_or_one_of_another_segment_is_built_anew() {
    on_every_fs(|place| {
        let all = batches(0, 40, 1);
        let mut log = filled(place, &all);
        checkpoint(&mut log);
        let indexes = place.files_of(".index");
        assert!(indexes.len() >= 3);
        place.fs.remove_file(&indexes[0].0).unwrap();
        place.overwrite(&indexes[1].0, &indexes[0].1);
        place.overwrite(&indexes[2].0, &indexes[2].1[..indexes[2].1.len() - 1]);
        let stray = place.dir.join("00000000000000000001.index");
        place.overwrite(&stray, &indexes[0].1);
        let (log, opened, _) = place.try_resume(clean(&log)).unwrap();
        assert_eq!(opened.batches, 0);
        check_lookups(&log, &all);
        assert_eq!(place.files_of(".index"), indexes);
    });
}

/// A checkpoint that relies on blocks which are gone is not believed, after an orderly stop neither.
#[test]
fn a_missing_or_short_index_of_the_active_segment_is_built_anew() {
    on_every_fs(|place| {
        for lost in ["all of it", "its end"] {
            let dir = place.dir.with_file_name(lost);
            let place = Place { config: dense(), dir, ..place.clone() };
            let all = dense_batches(0, 200);
            let mut log = filled(&place, &all);
            checkpoint(&mut log);
            let indexes = place.files_of(".index");
            let (path, content) = indexes.last().unwrap();
            match lost {
                "its end" => place.overwrite(path, &content[..content.len() - 1]),
                _ => place.fs.remove_file(path).unwrap(),
            }
            let (log, ..) = place.try_resume(clean(&log)).unwrap();
            check_lookups(&log, &all);
            assert_eq!(place.files_of(".index"), indexes, "without {lost}");
        }
    });
}

/// What a flush took along before a segment was sealed is no proof that its index is on disk.
#[test]
fn after_a_crash_an_index_that_was_not_flushed_is_not_believed() {
    let fs = MemFs::new();
    let place = Place { fs: Arc::new(fs.clone()), dir: "/data/t-0".into(), config: small() };
    let all = batches(0, 40, 1);
    for seed in 0..200 {
        let mut log = filled(&place, &all[..10]);
        log.append(&all[10..]).unwrap();
        fs.crash_keeping(seed);
        let flushed = Recovery { trusted_end: Offset(30), flushed_end: Offset(30), clean: false };
        let (mut log, ..) = place.try_open(flushed).unwrap();
        let found = content(&log);
        check_lookups(&log, &found);
        log.truncate_to(Offset(0)).unwrap();
    }
}

/// Batches of one record, the value of each as long as given.
fn sized(sizes: &[usize], epoch: u32) -> Vec<RecordBatch> {
    (0..).zip(sizes).map(|(base, size)| batch(base, 1, epoch, 7, *size)).collect()
}

/// A truncation and a crash can leave blocks behind that were written for other batches of the same segment.
#[test]
fn blocks_of_an_earlier_life_of_the_segment_are_not_believed() {
    on_every_fs(|place| {
        let place = Place { config: dense(), ..place.clone() };
        let earlier: Vec<usize> = (0..150).map(|number| number % 50).collect();
        let mut log = filled(&place, &sized(&earlier, 1));
        let (path, old) = place.files_of(".index").remove(0);
        log.truncate_to(Offset(0)).unwrap();
        let later: Vec<usize> = (0..150).map(|number| 50 - number % 50).collect();
        let all = sized(&later, 2);
        log.append(&all).unwrap();
        checkpoint(&mut log);
        let (_, new) = place.files_of(".index").remove(0);
        assert!(new.len() == old.len() && new.len() >= 2048, "{} and {}", new.len(), old.len());
        place.overwrite(&path, &[&old[..1024], &new[1024..]].concat());
        let (log, ..) = place.try_resume(Recovery { clean: false, ..clean(&log) }).unwrap();
        check_lookups(&log, &all);
    });
}

/// The same of a seal: the flush that is known of had ended when the segment was sealed.
#[test]
fn a_seal_of_an_earlier_life_of_the_segment_is_not_believed() {
    on_every_fs(|place| {
        let mut log = filled(place, &sized(&[100, 100, 300, 300, 100, 300, 900], 1));
        let (path, old) = place.files_of(".index").remove(0);
        log.truncate_to(Offset(0)).unwrap();
        let all = sized(&[300, 100, 100, 300, 300, 100, 900], 2);
        log.append(&all[..6]).unwrap();
        flush(&mut log);
        log.append(&all[6..]).unwrap();
        assert_eq!((log.segment_count(), place.files_of(".index")[0].1.len()), (2, old.len()));
        place.overwrite(&path, &old);
        let flushed = Recovery { trusted_end: Offset(6), flushed_end: Offset(6), clean: false };
        let (log, ..) = place.try_open(flushed).unwrap();
        for batch in &all {
            let offset = batch.header().base_offset;
            assert_eq!(log.reader().read(offset, Offset(7), 1).unwrap(), batch.bytes());
        }
    });
}

/// An orderly stop vouches for it, also when the machine loses power right after.
#[test]
fn the_index_of_a_sealed_segment_is_flushed_with_the_log() {
    let fs = MemFs::new();
    let place = Place { fs: Arc::new(fs.clone()), dir: "/data/t-0".into(), config: small() };
    let mut log = filled(&place, &sized(&[100, 100, 300, 300, 100, 300, 900], 1));
    // That of an earlier life of the segment is what there will be otherwise.
    fs.volume(&place.dir).unwrap().sync().unwrap();
    log.truncate_to(Offset(0)).unwrap();
    let all = sized(&[300, 100, 100, 300, 300, 100, 900], 2);
    log.append(&all).unwrap();
    flush(&mut log);
    fs.crash();
    let (log, ..) = place.try_open(clean(&log)).unwrap();
    for batch in &all {
        let offset = batch.header().base_offset;
        assert_eq!(log.reader().read(offset, Offset(7), 1).unwrap(), batch.bytes());
    }
}

/// What the checkpoint vouches for has to be there at least.
#[test]
fn a_sealed_segment_that_has_lost_bytes_is_damage() {
    on_every_fs(|place| {
        let mut log = filled(place, &batches(0, 40, 1));
        checkpoint(&mut log);
        let (path, content) = place.files().remove(1);
        place.overwrite(&path, &content[..content.len() - 1]);
        for recovery in [clean(&log), Recovery { clean: false, ..clean(&log) }] {
            assert!(matches!(place.try_resume(recovery), Err(LogError::Corrupt { .. })));
        }
    });
}

#[test]
fn a_block_that_rots_costs_time_only_and_is_built_anew_later() {
    on_every_fs(|place| {
        let place = Place { config: dense(), ..place.clone() };
        let all = dense_batches(0, 700);
        let mut log = filled(&place, &all);
        checkpoint(&mut log);
        let indexes = place.files_of(".index");
        let mut rotten = indexes[0].1.clone();
        rotten[100] ^= 1;
        place.overwrite(&indexes[0].0, &rotten);
        let (mut log, ..) = place.try_resume(clean(&log)).unwrap();
        for batch in [&all[0], &all[70], &all[300]] {
            let offset = batch.header().last_offset();
            assert_eq!(log.reader().read(offset, Offset(u64::MAX), 1).unwrap(), batch.bytes());
        }
        log.append(&[batch(1400, 1, 90, 0, 1)]).unwrap();
        checkpoint(&mut log);
        let (log, ..) = place.try_resume(clean(&log)).unwrap();
        check_lookups(&log, &all);
        assert_eq!(place.files_of(".index")[0], indexes[0]);
    });
}

proptest! {
    /// LOG-2: whatever index files and checkpoints hold, the log is found as it is.
    #[test]
    fn arbitrary_damage_beside_the_segments_changes_nothing(
        changes in proptest::collection::vec((any::<Index>(), any::<Index>(), any::<u8>()), 1..6),
        cut: Option<(Index, Index)>,
        clean: bool,
    ) {
        let place = Place { fs: Arc::new(MemFs::new()), dir: "/d/t-0".into(), config: small() };
        let all = batches(0, 40, 1);
        let mut log = filled(&place, &all[..35]);
        checkpoint(&mut log);
        log.append(&all[35..]).unwrap();
        checkpoint(&mut log);
        let mut files = place.files_of(".index");
        files.extend(place.files_of("checkpoint"));
        files.extend(place.files_of("checkpoint.old"));
        for (file, at, byte) in &changes {
            let (path, content) = file.get(&files);
            let file = place.fs.open(path, crate::OpenMode::Existing).unwrap();
            file.write_all_at(&[&[*byte]], at.index(content.len()) as u64).unwrap();
        }
        if let Some((file, at)) = cut {
            let (path, content) = file.get(&files);
            place.fs.open(path, crate::OpenMode::Existing).unwrap().set_len(at.index(content.len()) as u64).unwrap();
        }
        let recovery = Recovery { trusted_end: Offset(120), flushed_end: Offset(120), clean };
        let (mut log, _, derived) = place.try_resume(recovery).unwrap();
        prop_assert_eq!(derived.seen.len(), 40);
        prop_assert_eq!(content(&log), &all[..]);
        check_lookups(&log, &all);
        log.truncate_to(Offset(50)).unwrap();
        check_lookups(&log, &all[..16]);
    }
}
