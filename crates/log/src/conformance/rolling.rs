use std::time::Duration;

use super::*;

#[test]
fn an_old_segment_is_sealed_by_the_callers_clock() {
    on_every_fs(|place| {
        let config = LogConfig { segment_age: Duration::from_secs(60), ..small() };
        let place = Place { config, ..place.clone() };
        let mut log = place.open();
        assert!(!log.roll_if_old(1_000_000).unwrap(), "an empty segment never gets old");
        log.append(&batches(0, 2, 1)).unwrap();
        assert!(!log.roll_if_old(2_000_000).unwrap(), "time counts from here");
        assert!(!log.roll_if_old(2_059_999).unwrap());
        assert!(log.roll_if_old(2_060_000).unwrap());
        assert_eq!(log.segment_bases(), [Offset(0), Offset(6)]);
        assert!(!log.roll_if_old(9_000_000).unwrap(), "the new one is empty");
        log.append(&batches(6, 2, 2)).unwrap();
        assert!(!log.roll_if_old(9_000_000).unwrap());
        assert!(!log.roll_if_old(1_000_000).unwrap(), "a clock that was set back");
        // An orderly stop keeps the time.
        checkpoint(&mut log);
        let end = log.log_end_offset();
        let recovery = Recovery { trusted_end: end, flushed_end: end, clean: true };
        let (mut log, ..) = place.try_resume(recovery).unwrap();
        assert!(!log.roll_if_older(1_005_000, Duration::from_secs(6)).unwrap());
        assert!(log.roll_if_older(1_006_000, Duration::from_secs(6)).unwrap(), "sooner on request");
        log.append(&batches(log.log_end_offset().0, 1, 90)).unwrap();
        assert!(!log.roll_if_old(1_000_000).unwrap());
        assert!(log.roll_if_old(1_060_000).unwrap());
        assert_eq!(log.segment_count(), 4);
    });
}
