//! Tombstones: they go once that is noted, and it may be noted once they are old enough.

use super::*;

/// Ten keys with values, all deleted, and then enough others that all of it is sealed.
fn deleted() -> Written {
    let mut written = Written::default();
    let keys: Vec<String> = (0..10).map(|number| format!("key {number}")).collect();
    for value in [Some("value"), None] {
        keys.iter().for_each(|key| written.add(1, &[(key, value)], None, Compression::None));
    }
    for number in 0..60 {
        written.add(1, &[(&format!("other {number}"), Some("a value"))], None, Compression::None);
    }
    written
}

fn tombstones(log: &PartitionLog) -> usize {
    records_of(&content(log)).values().filter(|record| record.value.is_none()).count()
}

#[test]
fn tombstones_stay_until_it_is_noted_that_they_go() {
    on_every_fs(|place| {
        let written = deleted();
        let mut log = log_of(place, &written);
        compact(&log);
        assert_eq!(tombstones(&log), 10);
        let below = log.compacted().cleaned_end;
        for gone in [14, 14, 30] {
            log.note_tombstones_gone(Offset(gone)).unwrap();
            compact(&log);
            check(&log, &written, below, &format!("gone below {gone}"));
            assert_eq!(log.compacted().tombstones_gone_below, Offset(gone));
            assert_eq!(tombstones(&log), if gone == 30 { 0 } else { 6 }, "gone below {gone}");
            check_opens(place, &written, below, "opened");
        }
    });
}

/// It is noted before a pass, and what the pass finds for the first time is not old.
#[test]
fn a_tombstone_goes_no_sooner_than_everything_below_it_was_clean() {
    on_every_fs(|place| {
        let written = deleted();
        let mut log = log_of(place, &written);
        log.note_tombstones_gone(Offset(1000)).unwrap();
        assert_eq!(log.compacted().tombstones_gone_below, Offset(1000), "it may lie above the end");
        compact(&log);
        assert_eq!(tombstones(&log), 10);
        compact(&log);
        assert_eq!(tombstones(&log), 0);
    });
}

/// A log that is copied from another one takes over what is gone there, be it more or less.
#[test]
fn a_pass_that_began_with_another_bound_changes_nothing_any_more() {
    on_every_fs(|place| {
        let written = deleted();
        let mut log = log_of(place, &written);
        compact(&log);
        log.note_tombstones_gone(Offset(30)).unwrap();
        let (reader, mut first) = (log.reader(), true);
        let mut throttle = |_| {
            if std::mem::take(&mut first) {
                log.note_tombstones_gone(Offset(12)).unwrap();
            }
            ControlFlow::Continue(())
        };
        let outcome = reader.compact(&plan(&reader), &Turned, &mut throttle).unwrap();
        assert!(matches!(outcome.ended, PassEnd::Changed), "{outcome:?}");
        assert_eq!((tombstones(&log), log.compacted().tombstones_gone_below), (10, Offset(12)));
        compact(&log);
        assert_eq!(tombstones(&log), 8);
        check_opens(place, &written, log.compacted().cleaned_end, "lowered");
    });
}

#[test]
fn the_age_of_tombstones_outlives_the_process() {
    on_every_fs(|place| {
        let mut written = deleted();
        let mut log = log_of(place, &written);
        let reader = log.reader();
        assert_eq!(reader.old_tombstones(0, i64::MAX), Offset(0));
        compact_with(&reader, &CompactionPlan { now_ms: 10_000, ..plan(&reader) });
        let first = log.compacted().cleaned_end;
        let from = written.batches.len();
        written.go_on(80, 900);
        let later =
            written.batches[from..].iter().map(|batch| batch.stamped(batch.header().base_offset, epoch(40)));
        log.append(&later.collect::<Vec<_>>()).unwrap();
        flush(&mut log);
        compact_with(&reader, &CompactionPlan { now_ms: 10_500, ..plan(&reader) });
        let second = log.compacted().cleaned_end;
        assert!(second > first);
        drop(log);
        let log = place.open();
        let old = |now| log.reader().old_tombstones(1000, now);
        assert_eq!([11_000, 11_001, 11_500, 11_501].map(old), [Offset(0), first, first, second]);
    });
}
