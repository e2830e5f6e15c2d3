//! What a pass leaves, and how far it goes.

use super::*;

#[test]
fn the_last_record_of_each_key_stays_where_it_is() {
    on_every_fs(|place| {
        for keys in [1, 3, 17, 1000] {
            let place = Place { dir: place.dir.with_file_name(format!("keys-{keys}")), ..place.clone() };
            let written = Written::usual(120, keys);
            let log = log_of(&place, &written);
            let sealed = log.sealed_segments().last().unwrap().end;
            let size = log.size_bytes();
            let outcome = compact(&log);
            assert!(matches!(outcome.ended, PassEnd::Complete), "{outcome:?}");
            assert_eq!(log.compacted().cleaned_end, sealed);
            assert_eq!(outcome.cleaned_end, sealed);
            let found = check(&log, &written, sealed, &format!("{keys} keys"));
            assert_eq!(log.size_bytes() < size, keys < 1000, "{keys} keys");
            let gone = written.records().len() - records_of(&found).len();
            assert_eq!(outcome.removed_records, gone as u64);
            assert_eq!(size - log.size_bytes(), outcome.bytes_before - outcome.bytes_after);
            check_opens(&place, &written, sealed, &format!("{keys} keys"));
        }
    });
}

#[test]
fn a_pass_over_a_clean_log_changes_nothing() {
    on_every_fs(|place| {
        let written = Written::usual(100, 9);
        let log = log_of(place, &written);
        // The first joins what has become small; what it leaves fills segments.
        compact(&log);
        compact(&log);
        let files = place.files();
        let outcome = compact(&log);
        assert_eq!((outcome.removed_records, outcome.replaced_segments), (0, 0), "{outcome:?}");
        assert!(place.files() == files);
    });
}

#[test]
fn a_log_that_goes_on_is_cleaned_again_and_again() {
    on_every_fs(|place| {
        let mut written = Written::default();
        let mut log = place.open();
        for round in 0..12 {
            let from = written.batches.len();
            written.go_on(30 + round, 13);
            for batch in &written.batches[from..] {
                log.append(std::slice::from_ref(batch)).unwrap();
            }
            flush(&mut log);
            if round % 3 == 1 {
                checkpoint(&mut log);
            }
            let below = log.sealed_segments().last().unwrap().end;
            let dirt = log.reader().dirtiness(below);
            assert!(dirt.dirty_bytes > 0, "{dirt:?}");
            compact(&log);
            check(&log, &written, below, &format!("round {round}"));
            assert_eq!(log.reader().dirtiness(below).dirty_bytes, 0);
            assert_eq!(log.compacted().cleaned_end, below);
            check_opens(place, &written, below, &format!("round {round}, opened"));
            let end = written.end();
            log = place
                .try_open(Recovery { trusted_end: end, flushed_end: end, clean: round % 2 == 0 })
                .unwrap()
                .0;
            flush(&mut log);
        }
        assert!(log.segment_count() < 12, "small ones were joined: {:?}", log.segment_bases());
    });
}

#[test]
fn small_segments_become_one() {
    on_every_fs(|place| {
        let written = Written::usual(150, 2);
        let log = log_of(place, &written);
        let before = log.segment_count();
        compact(&log);
        assert_eq!(log.segment_count(), before, "nobody knows before how small they become");
        compact(&log);
        assert!(before > 6 && log.segment_count() <= before / 2, "{before} became {}", log.segment_count());
        let named: Vec<PathBuf> =
            log.segment_bases().iter().map(|base| place.dir.join(format!("{:020}.log", base.0))).collect();
        assert_eq!(place.files().into_iter().map(|(path, _)| path).collect::<Vec<_>>(), named);
        let below = log.compacted().cleaned_end;
        check(&log, &written, below, "joined");
        check_opens(place, &written, below, "joined");
    });
}

/// Nothing at or above the plan's end counts, and no segment that reaches above it is touched.
#[test]
fn what_is_not_committed_supersedes_nothing() {
    on_every_fs(|place| {
        let written = Written::usual(90, 3);
        let log = log_of(place, &written);
        let reader = log.reader();
        for below in (0..written.end().0).step_by(11) {
            let below = Offset(below);
            let files = place.files();
            let outcome = compact_with(&reader, &CompactionPlan { below, ..plan(&reader) });
            let reached =
                log.sealed_segments().iter().map(|segment| segment.end).filter(|end| *end <= below).max();
            let reached = reached.unwrap_or(Offset(0));
            assert!(outcome.cleaned_end <= below && outcome.cleaned_end >= reached);
            check(&log, &written, outcome.cleaned_end, &format!("below {below}"));
            for (path, content) in place.files() {
                let old = files.iter().find(|(old, _)| *old == path).unwrap();
                let base = crate::segment::parse_file_name(path.file_name().unwrap()).unwrap();
                assert!(base < reached || old.1 == content, "{path:?} was touched below {below}");
            }
        }
    });
}

/// With as little memory as may be, a pass takes a key or two at a time, and gets on.
#[test]
fn a_full_map_ends_a_pass_early_and_the_next_goes_on_from_there() {
    on_every_fs(|place| {
        for map_bytes in [0, 200, 1000] {
            let place = Place { dir: place.dir.with_file_name(format!("map-{map_bytes}")), ..place.clone() };
            let written = Written::usual(60, 11);
            let log = log_of(&place, &written);
            let reader = log.reader();
            let (mut passes, mut clean) = (0, Offset(0));
            loop {
                let outcome = compact_with(&reader, &CompactionPlan { map_bytes, ..plan(&reader) });
                check(&log, &written, outcome.cleaned_end, &format!("{map_bytes} bytes, pass {passes}"));
                passes += 1;
                match outcome.ended {
                    PassEnd::Complete => break,
                    PassEnd::MapFull => assert!(outcome.cleaned_end > clean, "it gets on"),
                    other => panic!("{other:?}"),
                }
                clean = outcome.cleaned_end;
            }
            assert!(passes > 1 || map_bytes == 1000, "{passes}");
            assert_eq!(log.compacted().cleaned_end, log.sealed_segments().last().unwrap().end);
            check_opens(&place, &written, log.compacted().cleaned_end, "opened");
        }
    });
}

#[test]
fn a_pass_that_is_stopped_leaves_a_log_that_the_next_one_goes_over() {
    on_every_fs(|place| {
        let written = Written::usual(60, 3);
        let log = log_of(place, &written);
        let reader = log.reader();
        let mut allowed = 0;
        loop {
            let mut left = allowed;
            let mut throttle = |_| {
                left -= 1;
                if left < 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let outcome = reader.compact(&plan(&reader), &Turned, &mut throttle).unwrap();
            check(
                &log,
                &written,
                log.sealed_segments().last().unwrap().end,
                &format!("stopped after {allowed}"),
            );
            match outcome.ended {
                PassEnd::Stopped => assert_eq!(log.compacted().cleaned_end, Offset(0)),
                PassEnd::Complete => break,
                other => panic!("{other:?}"),
            }
            allowed += 7;
        }
        assert!(allowed > 100, "it could be stopped in many places");
        let strays = place.files_of(".cleaned");
        assert!(strays.is_empty(), "{strays:?}");
    });
}

/// What a batch holds that cannot be made out nobody knows: it stays, and so does every tombstone behind it.
#[test]
fn a_batch_that_cannot_be_read_stays_with_all_tombstones_behind_it() {
    on_every_fs(|place| {
        let mut written = Written::default();
        written.add(1, &[("a", None), ("b", Some("1"))], None, Compression::None);
        let mut builder = RecordBatchBuilder::new();
        builder.push(7, Some(b"a"), Some(b"x"), &[]).unwrap();
        let odd = |_: &[u8]| Ok::<_, holdfast_core::record_batch::BatchError>(b"no codec knows this");
        let odd = builder.finish_with(None, Compression::Zstd, odd).unwrap().stamped(written.end(), epoch(1));
        written.batches.push(odd.clone());
        written.add(1, &[("c", None), ("b", Some("2"))], None, Compression::None);
        let keys: Vec<String> = (0..60).map(|number| format!("key {number}")).collect();
        keys.iter().for_each(|key| {
            written.add(1, &[(key, Some("long enough to fill a segment"))], None, Compression::None);
        });
        let mut log = log_of(place, &written);
        compact(&log);
        log.note_tombstones_gone(log.compacted().cleaned_end).unwrap();
        let outcome = compact(&log);
        assert_eq!(outcome.unreadable_batches, 1);
        let found = content(&log);
        assert!(found.contains(&odd));
        let left = records_of(&found.into_iter().filter(|batch| *batch != odd).collect::<Vec<_>>());
        // Of key a the tombstone in front has gone; that of c, behind, could hide what the odd one holds.
        assert_eq!(left.keys().copied().take(3).collect::<Vec<_>>(), [3, 4, 5]);
    });
}

/// Its first record could be read, and is a later one of a key; who reads the batch gets nothing of it.
#[test]
fn a_batch_that_ends_in_the_middle_supersedes_nothing() {
    on_every_fs(|place| {
        let mut written = Written::default();
        written.add(1, &[("a", Some("1"))], None, Compression::None);
        let mut builder = RecordBatchBuilder::new();
        builder.push(7, Some(b"a"), Some(b"2"), &[]).unwrap();
        builder.push(7, Some(b"b"), Some(b"3"), &[]).unwrap();
        let cut = |section: &[u8]| {
            Ok::<_, holdfast_core::record_batch::BatchError>(turned(&section[..section.len() - 2]))
        };
        let odd = builder.finish_with(None, Compression::Zstd, cut).unwrap();
        written.batches.push(odd.stamped(written.end(), epoch(1)));
        for number in 0..60 {
            let key = format!("key {}", number % 40);
            written.add(1, &[(&key, Some("long enough to fill a segment"))], None, Compression::None);
        }
        let log = log_of(place, &written);
        let outcome = compact(&log);
        assert!(outcome.removed_records > 0 && outcome.unreadable_batches == 1, "{outcome:?}");
        assert_eq!(content(&log)[..2], written.batches[..2]);
    });
}

#[test]
fn of_a_large_batch_no_more_is_decompressed_than_is_allowed() {
    on_every_fs(|place| {
        let written = Written::usual(60, 3);
        let log = log_of(place, &written);
        let reader = log.reader();
        let outcome = compact_with(&reader, &CompactionPlan { max_section_bytes: 40, ..plan(&reader) });
        assert!(outcome.unreadable_batches > 0);
        let below = log.sealed_segments().last().unwrap().end;
        let left = records_of(&content(&log));
        assert!(left.len() > 10 && log.compacted().cleaned_end == below);
    });
}

/// What is known of producers is known of a compacted log too, after whatever was appended behind.
#[test]
fn producers_are_what_they_were() {
    on_every_fs(|place| {
        let mut written = Written::default();
        for number in 0..100 {
            // The first of them falls silent; all its records are superseded.
            let producer = if number < 9 { 1 } else { 2 + number % 2 };
            written.add(1, &[("k", Some("v")), ("l", Some("v"))], Some(producer), Compression::None);
        }
        let log = log_of(place, &written);
        compact(&log);
        let found = check(&log, &written, log.compacted().cleaned_end, "cleaned");
        let of = |id| {
            let of = |batch: &&RecordBatch| {
                batch.header().producer.is_some_and(|producer| producer.id == ProducerId(id))
            };
            found.iter().filter(of).count()
        };
        assert_eq!(of(1), 5, "the last ones of a producer stay known, without records");
        assert_eq!(producers_of(&found).len(), 3);
        check_opens(place, &written, log.compacted().cleaned_end, "opened");
    });
}

/// A checkpoint vouches for how long the segment was that it was active in.
#[test]
fn checkpoints_that_tell_of_what_was_replaced_are_gone() {
    on_every_fs(|place| {
        let written = Written::usual(90, 5);
        let mut log = place.open();
        log.append(&written.batches[..10]).unwrap();
        checkpoint(&mut log);
        log.append(&written.batches[10..]).unwrap();
        flush(&mut log);
        assert_eq!(place.files_of("checkpoint").len(), 1);
        compact(&log);
        assert_eq!(place.files_of("checkpoint").len(), 0);
        checkpoint(&mut log);
        compact(&log);
        assert_eq!(place.files_of("checkpoint").len(), 1, "the active segment is not touched");
        check_opens(place, &written, log.compacted().cleaned_end, "opened");
    });
}
