//! Logs of which the last record of each key is left, and tombstones that go (R45): nobody shows a value again whose tombstone is
//! gone, and nobody loses one for the sake of a later one that is not there.

use holdfast_core::Offset;
use holdfast_core::replication::Assignment;

use super::stage::{A, B, C, D, Kind, Stage, register, replica_id, replicas};

super::schedules! {
    of_each_key_the_last_record_stays,
    what_is_not_committed_supersedes_nothing,
    a_tombstone_goes_when_all_have_cleaned,
    a_member_that_is_away_holds_tombstones_back,
    a_tombstone_stays_as_long_as_what_it_deletes,
    an_old_copy_begins_anew_where_tombstones_are_gone,
    a_copy_from_two_logs_lacks_no_tombstone,
    a_log_cut_below_what_was_cleaned_is_copied_anew,
    a_retry_is_known_when_its_batch_is_compacted_away,
}

/// A leads B and C, and so many records with other keys are committed behind those given, `key value` each, `key -` for a
/// tombstone: what is appended to is never cleaned.
fn with_records(leader: usize, records: &[&str]) -> Stage {
    let mut stage = Stage::piecemeal();
    stage.appoint(1, leader, &[A, B, C]);
    stage.exchange(&[A, B, C]);
    for (sequence, record) in (0..).zip(records.iter().chain(&["x 1", "y 1"])) {
        write(&mut stage, leader, sequence, record);
    }
    stage.exchange(&[A, B, C]);
    stage
}

fn write(stage: &mut Stage, node: usize, sequence: i32, record: &str) {
    let (key, value) = record.split_once(' ').unwrap();
    stage.produce_keyed(node, sequence, Some(key), Some(value).filter(|value| *value != "-"));
}

fn without_padding(stage: &mut Stage, node: usize) -> Vec<String> {
    let mut keyed = stage.keyed(node);
    keyed.retain(|record| !record.starts_with(['x', 'y']));
    keyed
}

/// The leader says what it knows, and all that is there is copied.
fn beat(stage: &mut Stage, leader: usize, nodes: &[usize]) {
    stage.wait(leader, 250);
    stage.exchange(nodes);
}

/// A register with D as a learner.
fn with_learner(term: u32, leader: usize, set: &[usize]) -> Assignment {
    Assignment { learners: replicas(&[D]), ..register(term, leader, set) }
}

/// D asks, and is sent one piece of the leader's log.
fn copy_a_piece(stage: &mut Stage, leader: usize) {
    stage.deliver(D, leader, Kind::Fetch);
    stage.deliver(leader, D, Kind::Data);
}

/// Whichever replica is asked.
#[cfg_attr(test, test)]
fn of_each_key_the_last_record_stays() {
    let mut stage = with_records(A, &["k 1", "l 1", "k 2", "k -", "l 2"]);
    for node in [A, B] {
        stage.compact(node);
        assert_eq!(without_padding(&mut stage, node), ["k -", "l 2"]);
    }
    assert_eq!(without_padding(&mut stage, C), ["k 1", "l 1", "k 2", "k -", "l 2"]);
    stage.lose_log(C);
    beat(&mut stage, A, &[A, B, C]);
    assert_eq!(without_padding(&mut stage, C), ["k -", "l 2"], "copied from what is left");
    assert_eq!([A, B, C].map(|node| stage.end(node)), [Offset(8); 3]);
}

/// k 2 is on A only when A is compacted, and B becomes leader without it.
#[cfg_attr(test, test)]
fn what_is_not_committed_supersedes_nothing() {
    let mut stage = with_records(A, &["k 1"]);
    for (sequence, record) in (3..).zip(["k 2", "x 2", "y 2"]) {
        write(&mut stage, A, sequence, record);
    }
    stage.compact(A);
    assert_eq!(without_padding(&mut stage, A), ["k 1", "k 2"]);
    stage.lose_post();
    stage.appoint(2, B, &[B, C]);
    stage.exchange(&[B, C]);
    beat(&mut stage, B, &[A, B, C]);
    assert_eq!(without_padding(&mut stage, A), ["k 1"]);
}

/// Once that is known everywhere nothing is left of the key.
#[cfg_attr(test, test)]
fn a_tombstone_goes_when_all_have_cleaned() {
    let mut stage = with_records(A, &["k 1", "k -"]);
    for node in [A, B, C] {
        stage.compact(node);
    }
    beat(&mut stage, A, &[A, B, C]);
    beat(&mut stage, A, &[A, B, C]);
    for node in [A, B, C] {
        assert!(stage.drop_tombstones(node) > Offset(2));
        assert_eq!(without_padding(&mut stage, node), [""; 0]);
    }
    stage.restart(B);
    beat(&mut stage, A, &[A, B, C]);
    assert!(stage.drop_tombstones(B) > Offset(2), "noted on disk");
}

/// C has k 1 and has not heard of the tombstone: it would keep k 1 for ever.
#[cfg_attr(test, test)]
fn a_member_that_is_away_holds_tombstones_back() {
    let mut stage = Stage::piecemeal();
    stage.appoint(1, A, &[A, B, C]);
    stage.exchange(&[A, B, C]);
    write(&mut stage, A, 0, "k 1");
    stage.exchange(&[A, B, C]);
    for (sequence, record) in (1..).zip(["k -", "x 1", "y 1"]) {
        write(&mut stage, A, sequence, record);
    }
    stage.exchange(&[A, B]);
    stage.lose_post();
    for node in [A, B] {
        stage.compact(node);
    }
    beat(&mut stage, A, &[A, B]);
    for node in [A, B] {
        stage.drop_tombstones(node);
        assert_eq!(without_padding(&mut stage, node), ["k -"]);
    }
    beat(&mut stage, A, &[A, B, C]);
    beat(&mut stage, A, &[A, B, C]);
    stage.compact(C);
    assert_eq!(without_padding(&mut stage, C), ["k -"]);
    assert!(stage.replica(C).is_voter());
}

/// D is sent k 1 by A, which has not been cleaned; then A is, twice.
#[cfg_attr(test, test)]
fn a_tombstone_stays_as_long_as_what_it_deletes() {
    let mut stage = with_records(A, &["k 1", "k -"]);
    stage.drop_tombstones(B);
    assert_eq!(stage.drop_tombstones(B), Offset(0), "A has cleaned nothing");
    stage.tell(A, holdfast_core::replication::Event::DropTombstones { below: Offset(9) });
    stage.assign(&with_learner(1, A, &[A, B, C]), &[A, D]);
    stage.deliver(A, D, Kind::Lead);
    copy_a_piece(&mut stage, A);
    copy_a_piece(&mut stage, A);
    assert_eq!(stage.keyed(D), ["k 1"]);
    stage.compact(A);
    stage.compact(A);
    beat(&mut stage, A, &[A, D]);
    stage.compact(D);
    assert_eq!(without_padding(&mut stage, D), ["k -"]);
}

/// D was copying the log when nothing had been cleaned, and is forgotten. When it is named again its copy holds k 1, and the
/// tombstone is gone.
#[cfg_attr(test, test)]
fn an_old_copy_begins_anew_where_tombstones_are_gone() {
    let mut stage = with_records(A, &["k 1", "k -"]);
    stage.assign(&with_learner(1, A, &[A, B, C]), &[A, D]);
    stage.deliver(A, D, Kind::Lead);
    copy_a_piece(&mut stage, A);
    copy_a_piece(&mut stage, A);
    assert_eq!(stage.keyed(D), ["k 1"]);
    stage.lose_post();
    stage.appoint(1, A, &[A]);
    for node in [A, B, C] {
        stage.compact(node);
    }
    beat(&mut stage, A, &[A, B, C]);
    assert!(stage.drop_tombstones(A) > Offset(2));
    stage.assign(&with_learner(1, A, &[A, B, C]), &[A, D]);
    beat(&mut stage, A, &[A, D]);
    assert_eq!(stage.end(D), stage.end(A));
    assert_eq!(without_padding(&mut stage, D), [""; 0]);
}

/// B was away while the tombstone went, and still has k 1 and the tombstone. D begins to copy from A, which has neither, goes
/// on with B, which has both, and comes back to A.
#[cfg_attr(test, test)]
fn a_copy_from_two_logs_lacks_no_tombstone() {
    let mut stage = with_records(A, &["k 1", "k -"]);
    stage.assign(&register(2, A, &[A, C]), &[A, C]);
    stage.exchange(&[A, C]);
    stage.lose_post();
    for node in [A, C] {
        stage.compact(node);
    }
    beat(&mut stage, A, &[A, C]);
    let gone = stage.drop_tombstones(A);
    assert!(gone > Offset(2));
    stage.assign(&register(3, A, &[A, B, C]), &[A, B, C]);
    stage.exchange(&[A, B, C]);
    assert_eq!(stage.keyed(B)[..2], ["k 1", "k -"]);
    assert!(stage.replica(B).is_voter(), "it lacks nothing that is gone");
    stage.assign(&with_learner(3, A, &[A, B, C]), &[A, D]);
    stage.deliver(A, D, Kind::Lead);
    copy_a_piece(&mut stage, A);
    assert_eq!((stage.replica(D).compacted().tombstones_gone_below, stage.end(D)), (gone, Offset(1)));
    stage.lose_post();
    stage.assign(&with_learner(4, B, &[A, B, C]), &[A, B, C, D]);
    stage.exchange(&[A, B, C]);
    stage.deliver(B, D, Kind::Lead);
    copy_a_piece(&mut stage, B);
    assert_eq!(stage.keyed(D), ["k 1"]);
    stage.lose_post();
    stage.assign(&with_learner(5, A, &[A, B, C]), &[A, B, C, D]);
    stage.exchange(&[A, B, C, D]);
    beat(&mut stage, A, &[A, B, C, D]);
    assert_eq!(stage.end(D), stage.end(A));
    assert_eq!(without_padding(&mut stage, D), [""; 0]);
}

/// C has cleaned k 1 away for k 2. A and B lose their logs, A has copied k 1 again by then, and an operator gives up k 2: C is
/// cut to what A has, and must have k 1 again.
#[cfg_attr(test, test)]
fn a_log_cut_below_what_was_cleaned_is_copied_anew() {
    let mut stage = with_records(B, &["k 1", "k 2"]);
    stage.compact(C);
    assert_eq!(without_padding(&mut stage, C), ["k 2"]);
    stage.lose_log(A);
    stage.wait(B, 250);
    stage.deliver(B, A, Kind::Lead);
    for _ in 0..2 {
        stage.deliver(A, B, Kind::Fetch);
        stage.deliver(B, A, Kind::Data);
    }
    assert_eq!(stage.keyed(A), ["k 1"]);
    stage.lose_log(B);
    stage.lose_post();
    let unclean = Assignment {
        leader: replica_id(A),
        unclean_term: Some(holdfast_core::Term(2)),
        ..register(2, A, &[A, B, C])
    };
    stage.assign(&unclean, &[A, B]);
    stage.exchange(&[A, B]);
    assert!(stage.leads(A));
    stage.assign(&unclean, &[C]);
    beat(&mut stage, A, &[A, B, C]);
    beat(&mut stage, A, &[A, B, C]);
    assert_eq!([B, C].map(|node| stage.end(node)), [stage.end(A); 2]);
    for node in [A, B, C] {
        assert_eq!(stage.keyed(node), ["k 1"]);
        assert!(stage.replica(node).is_voter());
    }
}

/// Nothing is left of the producer's batches but the last one, and one of the others is sent again (R38, R40).
#[cfg_attr(test, test)]
fn a_retry_is_known_when_its_batch_is_compacted_away() {
    let mut stage = with_records(A, &["k 1", "k 2", "k 3"]);
    stage.compact(A);
    assert_eq!(without_padding(&mut stage, A), ["k 3"]);
    stage.restart(A);
    stage.exchange(&[A, B, C]);
    let retry = stage.produce_keyed(A, 1, Some("k"), Some("2"));
    stage.exchange(&[A, B, C]);
    let told = stage.reply(retry).unwrap().unwrap();
    assert!(told.duplicate && told.base_offset == Offset(2), "{told:?}");
}
