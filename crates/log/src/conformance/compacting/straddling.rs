//! A filler of this log may lie across a boundary of another's: where that one starts, or is cut.

use holdfast_core::replication::Position;

use super::*;

/// One long filler in front: of nine keys everything was written many times.
fn with_fillers(place: &Place) -> (PartitionLog, Written, Vec<RecordBatch>) {
    let mut written = Written::default();
    for number in 0..140 {
        let value = format!("value {number}");
        written.add(
            1 + number / 45,
            &[(&format!("key {}", number % 9), Some(&value)), ("k", Some("v"))],
            None,
            Compression::None,
        );
    }
    let log = log_of(place, &written);
    compact(&log);
    let found = check(&log, &written, log.compacted().cleaned_end, "compacted");
    let long =
        found.iter().filter(|batch| batch.header().is_filler() && batch.header().offsets() > 20).count();
    assert!(long >= 2, "{long}");
    (log, written, found)
}

fn position(written: &Written, end: Offset) -> Position {
    let below = written.batches.iter().rfind(|batch| batch.header().next_offset() <= end);
    below.map_or(Position::default(), |batch| Position { epoch: batch.header().epoch.unwrap(), end })
}

/// Every batch boundary of a log that was not compacted is a start of this one.
#[test]
fn a_log_may_start_inside_a_filler() {
    on_every_fs(|place| {
        for number in (1..140).step_by(9) {
            let place = Place { dir: place.dir.with_file_name(format!("start-{number}")), ..place.clone() };
            let (mut log, written, _) = with_fillers(&place);
            let below = log.compacted().cleaned_end;
            let base = position(&written, written.batches[number].header().base_offset);
            let ticket = log.trim_to(base, vec![]).unwrap().unwrap();
            check(&log, &written, below, "before it is noted");
            ticket.run().unwrap();
            assert_eq!(log.base(), base);
            check(&log, &written, below, &format!("start {base:?}"));
            check_opens(&place, &written, below, &format!("start {base:?}, opened"));
            let (log, ..) = place.try_open(Recovery::default()).unwrap();
            assert_eq!((log.base(), log.position()), (base, position(&written, written.end())));
            assert!(log.compacted().cleaned_end >= base.end);
            compact(&log);
            check(&log, &written, below, &format!("start {base:?}, again"));
        }
    });
}

/// An unclean term: what lies above the cut was never written, and something else may come there.
#[test]
fn a_log_may_be_cut_inside_a_filler() {
    on_every_fs(|place| {
        for number in (0..140).step_by(7) {
            let place = Place { dir: place.dir.with_file_name(format!("cut-{number}")), ..place.clone() };
            let (mut log, mut written, found) = with_fillers(&place);
            checkpoint(&mut log);
            let end = written.batches[number].header().base_offset;
            log.truncate_to(end).unwrap();
            let context = format!("cut at {end}");
            assert_eq!(log.log_end_offset(), end, "{context}");
            assert!(log.compacted().cleaned_end <= end && log.compacted().tombstones_gone_below <= end);
            let whole = found.iter().take_while(|batch| batch.header().next_offset() <= end).count();
            let left = content(&log);
            assert_eq!(left[..whole], found[..whole], "{context}");
            assert_eq!(left[whole..], found[whole].clipped(Offset(0), end).into_iter().collect::<Vec<_>>());
            written.batches.truncate(number);
            for clean in [false, true] {
                let reopened =
                    place.try_open(Recovery { trusted_end: end, flushed_end: end, clean }).unwrap().0;
                assert_eq!(content(&reopened), left, "{context}");
                assert_eq!(reopened.epochs(), epochs_of(&written.batches), "{context}");
                check_lookups(&reopened, &left);
                log = reopened;
                flush(&mut log);
            }
            let from = written.batches.len();
            for more in 0..60 {
                written.add(9, &[(&format!("key {}", more % 5), Some("new"))], None, Compression::None);
            }
            log.append(&written.batches[from..]).unwrap();
            flush(&mut log);
            compact(&log);
            let now = content(&log);
            check_opens_to(&place, &now, &context);
        }
    });
}

fn check_opens_to(place: &Place, expected: &[RecordBatch], context: &str) {
    let end = expected.last().unwrap().header().next_offset();
    for clean in [false, true] {
        let (mut log, ..) = place.try_open(Recovery { trusted_end: end, flushed_end: end, clean }).unwrap();
        assert_eq!(content(&log), expected, "{context}");
        check_lookups(&log, expected);
        flush(&mut log);
    }
}

#[test]
fn a_log_that_starts_inside_a_filler_may_be_cut_back_to_its_start() {
    on_every_fs(|place| {
        let (mut log, written, _) = with_fillers(place);
        let base = position(&written, written.batches[20].header().base_offset);
        log.trim_to(base, vec![]).unwrap().unwrap().run().unwrap();
        log.truncate_to(base.end).unwrap();
        assert_eq!(
            (log.log_start_offset(), log.log_end_offset(), log.position()),
            (base.end, base.end, base)
        );
        let recovery = Recovery { trusted_end: base.end, flushed_end: base.end, clean: false };
        let mut log = place.try_open(recovery).unwrap().0;
        assert_eq!(
            (log.log_start_offset(), log.log_end_offset(), log.position()),
            (base.end, base.end, base)
        );
        log.append(&written.batches[20..]).unwrap();
        flush(&mut log);
        assert_eq!(content(&log).last(), written.batches.last());
    });
}

#[test]
fn a_log_that_begins_anew_is_clean_up_to_its_start() {
    on_every_fs(|place| {
        let (mut log, written, _) = with_fillers(place);
        log.note_tombstones_gone(Offset(50)).unwrap();
        let base = position(&written, written.batches[100].header().base_offset);
        log.reset_to(base, vec![]).unwrap();
        let compacted =
            |log: &PartitionLog| (log.compacted().cleaned_end, log.compacted().tombstones_gone_below);
        assert_eq!(compacted(&log), (base.end, Offset(0)));
        log.append(&written.batches[100..]).unwrap();
        flush(&mut log);
        let end = written.end();
        let log = place.try_open(Recovery { trusted_end: end, flushed_end: end, clean: false }).unwrap().0;
        assert_eq!(compacted(&log), (base.end, Offset(0)));
        compact(&log);
        check(&log, &written, log.compacted().cleaned_end, "anew");
    });
}
