//! For every anomaly the smallest history that has it, and one close by that has not.

mod malformed;
mod model;
mod plant;
mod random;
mod reports;
mod script;

use crate::history::Event;
use crate::report::Verdict;
use script::Script;

const NOTHING: [(&str, u64); 0] = [];

/// A script that was written to by one process: values 10, 11, .. at offsets 0, 1, ..
fn written(values: u64) -> Script {
    let mut script = Script::default();
    for value in 0..values {
        script.write(1, &[10 + value], value);
    }
    script
}

fn log(offsets: std::ops::Range<u64>) -> Vec<(u64, u64)> {
    offsets.map(|offset| (offset, 10 + offset)).collect()
}

#[test]
fn a_history_without_fault_is_valid() {
    let mut script = written(5);
    script.read(2, &log(0..3));
    script.read(2, &log(3..5));
    script.finally(&log(0..5));
    let report = script.judge();
    assert_eq!((script.found().as_slice(), report.verdict), (NOTHING.as_slice(), Verdict::Valid));
    assert_eq!((report.counts.sends.ok, report.counts.values.acked, report.counts.records_shown), (5, 5, 10));
    assert!(report.to_string().ends_with("\nvalid"), "{report}");
}

#[test]
fn inconsistent_offsets_two_values_at_one_offset() {
    let mut script = written(2);
    script.write(1, &[50], 2);
    let near = script.clone();
    script.read_and_fail(2, &[(0, 10), (1, 11), (2, 51)]);
    let found = script.found();
    assert!(found.contains(&("inconsistent-offsets", 1)), "{found:?}");
    let mut near = near;
    near.read_and_fail(2, &[(0, 10), (1, 11), (2, 50)]);
    assert_eq!(near.found(), NOTHING);
}

#[test]
fn lost_write_an_acknowledged_value_that_reads_went_past() {
    let mut script = written(3);
    let mut near = script.clone();
    script.read(2, &[(1, 11), (2, 12)]);
    assert_eq!(script.found(), [("lost-write", 1)]);
    near.read(2, &[(0, 10), (1, 11)]);
    assert_eq!(near.found(), NOTHING, "what lies behind may be read yet");
}

#[test]
fn lost_write_of_unknown_outcome_is_none() {
    let mut script = Script::default();
    let sending = script.send(1, &[9]);
    script.unknown(&sending);
    script.write(3, &[10], 0);
    script.finally(&[(0, 10)]);
    assert_eq!(script.found(), NOTHING);
}

#[test]
fn lost_write_read_once_and_gone_in_the_end() {
    let mut script = written(3);
    script.read(2, &log(0..3));
    let mut near = script.clone();
    script.finally(&[(0, 10), (2, 12)]);
    assert_eq!(script.found(), [("lost-write", 1), ("precommitted-read", 1), ("int-poll-skip", 1)]);
    near.finally(&log(0..3));
    assert_eq!(near.found(), NOTHING);
}

#[test]
fn lost_write_counts_a_value_at_two_offsets_by_its_later_one() {
    // 10 is at 0 and 5; only 0..2 were read. By the bound of its earliest offset nothing from 2 on must have been read.
    let mut script = Script::default();
    script.write(1, &[10, 11], 0);
    let sending = script.send(1, &[12]);
    script.acked(&sending, 2);
    script.read(2, &[(0, 10), (1, 11)]);
    script.read(3, &[(5, 10)]);
    assert_eq!(script.found(), [("duplicate", 1)]);
}

#[test]
fn unseen_an_acknowledged_tail_that_nobody_read() {
    let mut script = written(3);
    let mut near = script.clone();
    let open = script.clone();
    script.finally(&log(0..2));
    assert_eq!(script.found(), [("unseen", 1)]);
    near.finally(&log(0..3));
    assert_eq!(near.found(), NOTHING);
    assert_eq!(open.found(), NOTHING);
    assert_eq!(open.judge().verdict, Verdict::Incomplete, "without a final phase nobody can tell");
}

#[test]
fn duplicate_one_value_at_two_offsets() {
    let mut script = written(2);
    let mut near = script.clone();
    script.finally(&[(0, 10), (1, 11), (2, 10)]);
    assert_eq!(script.found(), [("duplicate", 1)]);
    near.finally(&[(0, 10), (1, 11)]);
    assert_eq!(near.found(), NOTHING);
}

#[test]
fn aborted_read_a_value_whose_send_failed() {
    for failed in [true, false] {
        let mut script = Script::default();
        let sending = script.send(1, &[10]);
        if failed {
            script.failed(&sending);
        } else {
            script.unknown(&sending);
        }
        script.finally(&[(0, 10)]);
        let expected = if failed { vec![("aborted-read", 1)] } else { vec![] };
        assert_eq!(script.found(), expected);
    }
    let mut shown = Script::default();
    shown.read_and_fail(2, &[]);
    let sending = shown.send(1, &[10]);
    shown.read_and_fail(2, &[(0, 10)]);
    shown.failed(&sending);
    assert_eq!(
        shown.found(),
        [("aborted-read", 1)],
        "also where a failed poll showed it, and before the send ended"
    );
}

#[test]
fn precommitted_read_a_record_that_was_shown_and_vanished() {
    let mut script = written(2);
    let sending = script.send(3, &[77]);
    script.unknown(&sending);
    let mut near = script.clone();
    script.read_and_fail(2, &[(0, 10), (1, 11), (2, 77)]);
    script.finally(&log(0..2));
    assert_eq!(script.found(), [("precommitted-read", 1)]);
    near.read_and_fail(2, &[(0, 10), (1, 11), (2, 77)]);
    near.finally(&[(0, 10), (1, 11), (2, 77)]);
    assert_eq!(near.found(), NOTHING);
}

#[test]
fn int_poll_skip_a_record_left_out_inside_a_poll() {
    let mut script = written(4);
    script.read(3, &log(0..4));
    let near = script.clone();
    script.read(2, &[(0, 10), (1, 11), (3, 13)]);
    assert_eq!(script.found(), [("int-poll-skip", 1)]);
    assert_eq!(near.found(), NOTHING);
}

#[test]
fn a_hole_that_holds_no_record_is_no_skip() {
    let mut script = written(2);
    let sending = script.send(1, &[12]);
    script.acked_in(&sending, 3, 2); // offset 2 is the marker of the epoch
    script.read(2, &[(0, 10), (1, 11), (3, 12)]);
    script.read(3, &[(0, 10), (1, 11)]);
    script.read(3, &[(3, 12)]);
    script.finally(&[(0, 10), (1, 11), (3, 12)]);
    assert_eq!(script.found(), NOTHING);
    assert_eq!(script.judge().verdict, Verdict::Valid);
}

#[test]
fn int_nonmonotonic_poll_a_record_twice_inside_a_poll() {
    let mut script = written(3);
    script.read(2, &[(0, 10), (1, 11), (1, 11), (2, 12)]);
    assert_eq!(script.found(), [("int-nonmonotonic-poll", 1)]);
}

#[test]
fn poll_skip_a_record_left_out_between_polls() {
    let mut script = written(4);
    script.read(3, &log(0..4));
    let mut near = script.clone();
    script.read(2, &log(0..2));
    script.read(2, &log(3..4));
    assert_eq!(script.found(), [("poll-skip", 1)]);
    near.read(2, &log(0..2));
    near.assign(2, 3);
    near.read(2, &log(3..4));
    assert_eq!(near.found(), NOTHING, "the process was told to go on from there");
}

#[test]
fn poll_skip_also_where_the_record_is_known_only_later() {
    let mut script = Script::default();
    let sending = script.send(1, &[10]);
    let later = script.send(3, &[11]);
    script.acked(&later, 1);
    script.assign(2, 0);
    script.read(2, &[(1, 11)]);
    let mut near = script.clone();
    script.acked(&sending, 0);
    script.read(4, &[(0, 10), (1, 11)]);
    assert_eq!(script.found(), [("poll-skip", 1)]);
    near.unknown(&sending);
    assert_eq!(near.found(), NOTHING);
}

#[test]
fn nonmonotonic_poll_a_record_again_in_the_next_poll() {
    let mut script = written(3);
    script.read(2, &log(0..3));
    let mut near = script.clone();
    script.read(2, &log(2..3));
    assert_eq!(script.found(), [("nonmonotonic-poll", 1)]);
    near.assign(2, 2);
    near.read(2, &log(2..3));
    assert_eq!(near.found(), NOTHING);
}

#[test]
fn what_a_failed_poll_showed_counts_for_the_position() {
    let mut script = written(3);
    script.read(2, &log(0..1));
    script.read_and_fail(2, &log(1..2));
    let mut near = script.clone();
    script.read(2, &log(1..3));
    assert_eq!(script.found(), [("nonmonotonic-poll", 1)]);
    near.read(2, &log(2..3));
    assert_eq!(near.found(), [("lost-write", 1)], "no poll that succeeded showed offset 1");
}

#[test]
fn nonmonotonic_send_a_later_send_at_a_lower_offset() {
    for (process, expected) in [(1, vec![("nonmonotonic-send", 1)]), (2, vec![])] {
        let mut script = Script::default();
        script.write(1, &[10], 5);
        script.write(process, &[11], 4);
        assert_eq!(script.found(), expected);
    }
}

#[test]
fn sends_under_way_together_are_ordered_by_their_beginnings() {
    let mut script = Script::default();
    let (first, second) = (script.send(1, &[10]), script.send(1, &[11]));
    let mut near = script.clone();
    script.acked(&second, 4);
    script.acked(&first, 5);
    assert_eq!(script.found(), [("nonmonotonic-send", 1)]);
    near.acked(&second, 5);
    near.acked(&first, 4);
    assert_eq!(near.found(), NOTHING);
}

#[test]
fn a_crash_ends_the_order_of_a_process() {
    let mut script = Script::default();
    let _lost = script.send(1, &[9]);
    script.write(1, &[10], 5);
    script.crash(1);
    script.write(1, &[11], 4);
    assert_eq!(script.found(), NOTHING);
    assert_eq!(script.judge().counts.sends.unanswered, 1);
}

#[test]
fn int_nonmonotonic_send_values_of_a_send_in_another_order() {
    for (records, expected) in [
        ([(0, 20), (1, 21), (2, 10)], vec![]),
        ([(0, 21), (1, 20), (2, 10)], vec![("int-nonmonotonic-send", 1)]),
        ([(0, 20), (1, 10), (2, 21)], vec![("int-send-skip", 1)]),
    ] {
        let mut script = Script::default();
        let (batch, other) = (script.send(1, &[20, 21]), script.send(2, &[10]));
        script.unknown(&batch);
        script.unknown(&other);
        script.finally(&records);
        assert_eq!(script.found(), expected);
    }
}

#[test]
fn int_send_skip_a_part_of_a_send_is_missing() {
    let mut script = Script::default();
    let batch = script.send(1, &[20, 21, 22]);
    script.unknown(&batch);
    script.read(2, &[(0, 20), (1, 21)]);
    assert_eq!(script.found(), NOTHING, "the rest may be read yet");
    let mut near = script.clone();
    script.finally(&[(0, 20), (1, 21)]);
    assert_eq!(script.found(), [("int-send-skip", 1)]);
    near.finally(&[(0, 20), (1, 21), (2, 22)]);
    assert_eq!(near.found(), NOTHING);
    let mut front = Script::default();
    let batch = front.send(1, &[20, 21, 22]);
    front.unknown(&batch);
    front.read(2, &[(1, 21), (2, 22)]);
    assert_eq!(front.found(), [("int-send-skip", 1)], "the first value cannot come later");
}

#[test]
fn phantom_a_value_that_nobody_sent() {
    let mut script = written(2);
    let mut near = script.clone();
    script.finally(&[(0, 10), (1, 11), (2, 666)]);
    assert_eq!(script.found(), [("phantom", 1)]);
    let sending = near.send(3, &[666]);
    near.unknown(&sending);
    near.finally(&[(0, 10), (1, 11), (2, 666)]);
    assert_eq!(near.found(), NOTHING);
}

#[test]
fn read_above_watermark_and_a_watermark_that_falls() {
    let mut script = written(3);
    let (mut back, mut near) = (script.clone(), script.clone());
    script.read_below(2, &log(0..3), 2);
    assert_eq!(script.found(), [("read-above-watermark", 1)]);
    back.read_below(2, &log(0..2), 3);
    back.read_below(2, &[], 2);
    assert_eq!(back.found(), [("watermark-regression", 1)]);
    near.read_below(2, &log(0..2), 3);
    near.read_below(3, &log(0..1), 2);
    assert_eq!(near.found(), NOTHING, "another process may know less");
}

#[test]
fn epoch_regression_an_old_leader_acknowledges_what_began_after_the_new_one_did() {
    let mut script = Script::default();
    let slow = script.send(1, &[10]);
    let quick = script.send(2, &[11]);
    script.acked_in(&quick, 5, 3);
    script.acked_in(&slow, 4, 2);
    assert_eq!(script.found(), NOTHING, "it began before");
    let late = script.send(1, &[12]);
    script.acked_in(&late, 6, 2);
    assert_eq!(script.found(), [("epoch-regression", 1)]);
}

#[test]
fn late_ack_after_the_clients_own_deadline() {
    let mut script = Script::default();
    let deadline = Some(script.now() + 1000);
    let in_time = script.send_until(1, &[10], deadline);
    script.acked(&in_time, 0);
    assert_eq!(script.found(), NOTHING);
    let deadline = Some(script.now() + 999);
    let late = script.send_until(1, &[11], deadline);
    script.acked(&late, 1);
    assert_eq!(script.found(), [("late-ack", 1)]);
}

#[test]
fn a_key_that_was_not_read_in_the_end_leaves_the_history_incomplete() {
    let mut script = written(2);
    script.read(2, &log(0..2));
    script.events.push(Event::begin_final(script.now()));
    let report = script.judge();
    assert_eq!(report.verdict, Verdict::Incomplete);
    assert!(report.summary().starts_with("INCOMPLETE: t/0 was not read"), "{}", report.summary());
}
