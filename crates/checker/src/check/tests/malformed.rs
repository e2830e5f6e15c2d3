//! A history that contradicts itself is refused, not judged.

use super::super::{Malformed, judge};
use super::script::Script;
use crate::history::{Edge, What};

fn refused(script: &Script) -> Malformed {
    judge(&script.events).unwrap_err()
}

#[test]
fn an_end_without_a_beginning() {
    let mut script = Script::default();
    let sending = script.send(1, &[1]);
    script.acked(&sending, 0);
    script.acked(&sending, 0);
    assert_eq!(refused(&script), Malformed::NeverBegan { line: 3, process: 1, op: 1 });
}

#[test]
fn an_operation_that_begins_twice() {
    let mut script = Script::default();
    script.poll(1, crate::history::PollStage::Invoke);
    assert_eq!(refused(&script), Malformed::BeganTwice { line: 2, process: 1, op: 1 });
}

#[test]
fn an_end_that_does_not_fit() {
    let mut script = Script::default();
    let sending = script.send(1, &[1, 2]);
    script.acked(&sending, 0);
    if let What::Send(send) = &mut script.events[1].what {
        send.values = vec![1, 3];
    }
    assert_eq!(refused(&script), Malformed::Changed { line: 2, process: 1, op: 1 });
}

#[test]
fn a_value_that_is_sent_twice() {
    let mut script = Script::default();
    script.write(1, &[1, 2, 3], 0);
    script.send(2, &[7, 3]);
    assert_eq!(refused(&script), Malformed::ValueReused { line: 3, key: "t/0".into(), value: 3 });
}

#[test]
fn an_offset_that_no_log_has() {
    let mut script = Script::default();
    script.write(1, &[1], u64::MAX);
    assert_eq!(refused(&script), Malformed::OffsetTooLarge { line: 2, offset: u64::MAX });
    let mut script = Script::default();
    script.read(1, &[(u64::MAX, u64::MAX)]);
    assert!(matches!(refused(&script), Malformed::OffsetTooLarge { line: 2, .. }));
}

#[test]
fn a_fault_that_ends_without_a_beginning() {
    let mut script = Script::default();
    script.fault("kill", Edge::End);
    assert_eq!(refused(&script), Malformed::FaultNeverBegan { line: 1, name: "kill".into() });
}

#[test]
fn the_largest_values_harm_nobody() {
    let mut script = Script::default();
    script.write(1, &[u64::MAX - 1, u64::MAX, 0], 0);
    script.finally(&[(0, u64::MAX - 1), (1, u64::MAX), (2, 0)]);
    assert_eq!(script.found(), []);
}
