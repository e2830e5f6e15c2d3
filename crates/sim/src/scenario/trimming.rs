//! Logs whose front is gone: who lags begins anew at the start of the leader's log, and what is known of the producers stays
//! (R44).

use holdfast_core::Offset;
use holdfast_core::metadata::Durability;

use super::stage::{A, B, C, Kind, Stage};

super::schedules! {
    nothing_above_the_watermark_is_trimmed,
    with_durability_memory_nothing_is_trimmed_before_it_is_durable,
    followers_trim_after_their_leader,
    a_follower_far_behind_begins_anew,
    a_log_that_began_anew_is_there_after_a_power_cut,
    a_leader_to_be_begins_anew_at_the_start_of_the_winners_log,
    a_tail_that_parts_below_the_start_goes,
    a_producer_outlives_its_batches,
    a_late_reset_changes_nothing,
}

/// A leads, and all have committed so many records.
fn with_records(records: i32) -> Stage {
    let mut stage = Stage::led_by(Durability::Disk, A);
    for sequence in 0..records {
        stage.produce(A, sequence);
    }
    stage.exchange(&[A, B, C]);
    stage
}

/// REP-9: x is on A only.
#[cfg_attr(test, test)]
fn nothing_above_the_watermark_is_trimmed() {
    let mut stage = with_records(3);
    stage.produce(A, 3);
    assert_eq!((stage.watermark(A), stage.end(A)), (Offset(4), Offset(5)));
    stage.trim(A, Offset(5));
    assert_eq!(stage.start(A), Offset(4));
    stage.exchange(&[A, B, C]);
    stage.trim(A, Offset(3));
    assert_eq!([A, B, C].map(|node| stage.start(node)), [Offset(4); 3], "and it never goes back");
}

/// With durability memory x is committed while nobody has flushed it: an unclean recovery may lose it.
#[cfg_attr(test, test)]
fn with_durability_memory_nothing_is_trimmed_before_it_is_durable() {
    let mut stage = Stage::led_by(Durability::Memory, A);
    for node in [A, B, C] {
        stage.flush(node);
        stage.hold_flushes(node);
    }
    let x = stage.produce(A, 0);
    stage.exchange(&[A, B, C]);
    assert!(stage.is_acknowledged(x));
    stage.trim(A, stage.end(A));
    assert!(stage.start(A) < Offset(2), "{}", stage.start(A));
    for node in [A, B, C] {
        stage.wait(node, 500);
        stage.flush(node);
    }
    stage.exchange(&[A, B, C]);
    stage.trim(A, stage.end(A));
    assert_eq!(stage.start(A), Offset(2));
}

/// The start of A's log rides along with the watermark, and stands when B leads.
#[cfg_attr(test, test)]
fn followers_trim_after_their_leader() {
    let mut stage = with_records(5);
    stage.trim(A, Offset(4));
    stage.exchange(&[A, B]);
    assert_eq!([A, B, C].map(|node| stage.start(node)), [Offset(4), Offset(4), Offset(0)]);
    stage.restart(B);
    assert_eq!(stage.start(B), Offset(4));
    stage.lose_post();
    stage.appoint(2, B, &[A, B, C]);
    stage.exchange(&[A, B, C]);
    let next = stage.produce(B, 5);
    stage.exchange(&[A, B, C]);
    assert!(stage.is_acknowledged(next));
    assert_eq!([A, B, C].map(|node| stage.start(node)), [Offset(4); 3], "C hears of it from B");
}

/// C was away, and A has trimmed what C lacks. C holds what follows and its vote counts: A dies, B leads with C, and what A
/// acknowledged is there.
#[cfg_attr(test, test)]
fn a_follower_far_behind_begins_anew() {
    let mut stage = with_records(1);
    for sequence in 1..6 {
        stage.produce(A, sequence);
        stage.exchange(&[A, B]);
    }
    stage.lose_post();
    stage.trim(A, Offset(5));
    stage.exchange(&[A, B]);
    stage.wait(A, 250);
    stage.deliver(A, C, Kind::Lead);
    stage.deliver(C, A, Kind::Fetch);
    stage.deliver(A, C, Kind::Reset);
    assert_eq!((stage.start(C), stage.end(C), stage.watermark(C)), (Offset(5), Offset(5), Offset(5)));
    stage.exchange(&[A, C]);
    assert_eq!((stage.start(C), stage.end(C)), (Offset(5), Offset(7)));
    let x = stage.produce(A, 6);
    stage.exchange(&[A, C]);
    assert!(stage.is_acknowledged(x), "C counts");
    stage.lose_post();
    stage.appoint(2, B, &[B]);
    stage.exchange(&[B, C]);
    assert!(stage.leads(B) && stage.watermark(B) == Offset(9));
    let again = stage.produce(B, 6);
    stage.exchange(&[B, C]);
    assert!(matches!(stage.reply(again), Some(Ok(acknowledged)) if acknowledged.duplicate));
}

/// C begins anew, and acknowledges what follows: that is on disk, and so is where its log starts.
#[cfg_attr(test, test)]
fn a_log_that_began_anew_is_there_after_a_power_cut() {
    let mut stage = with_records(1);
    for sequence in 1..6 {
        stage.produce(A, sequence);
        stage.exchange(&[A, B]);
    }
    stage.lose_post();
    stage.trim(A, Offset(7));
    stage.wait(A, 250);
    stage.deliver(A, C, Kind::Lead);
    stage.deliver(C, A, Kind::Fetch);
    stage.deliver(A, C, Kind::Reset);
    assert_eq!(stage.end(C), Offset(7));
    stage.lose_power(C);
    assert_eq!((stage.start(C), stage.end(C)), (Offset(7), Offset(7)));
    stage.lose_post();
    stage.appoint(2, C, &[C]);
    stage.exchange(&[B, C]);
    assert!(stage.leads(C) && stage.watermark(C) == Offset(8));
}

/// R15: B has all and was trimmed; C lacks that, and is to lead.
#[cfg_attr(test, test)]
fn a_leader_to_be_begins_anew_at_the_start_of_the_winners_log() {
    let mut stage = with_records(1);
    for sequence in 1..6 {
        stage.produce(A, sequence);
        stage.exchange(&[A, B]);
    }
    stage.trim(A, Offset(5));
    stage.exchange(&[A, B]);
    assert_eq!(stage.start(B), Offset(5));
    stage.lose_post();
    stage.appoint(2, C, &[C]);
    stage.exchange(&[B, C]);
    assert!(stage.leads(C));
    assert_eq!((stage.start(C), stage.watermark(C)), (Offset(5), Offset(8)));
    let again = stage.produce(C, 3);
    let next = stage.produce(C, 6);
    stage.exchange(&[B, C]);
    assert!(matches!(stage.reply(again), Some(Ok(acknowledged)) if acknowledged.duplicate));
    assert!(stage.is_acknowledged(next));
}

/// A has a long tail of its own when B and C go on without it, and trim beyond where the logs part.
#[cfg_attr(test, test)]
fn a_tail_that_parts_below_the_start_goes() {
    let mut stage = with_records(1);
    stage.lose_post();
    for sequence in 1..9 {
        stage.produce(A, sequence);
    }
    stage.lose_post();
    stage.appoint(2, B, &[B]);
    stage.exchange(&[B, C]);
    for sequence in 1..4 {
        stage.produce(B, sequence);
    }
    stage.exchange(&[B, C]);
    stage.trim(B, Offset(5));
    assert!(stage.start(B) == Offset(5) && stage.end(A) > stage.end(B));
    stage.wait(B, 250);
    stage.exchange(&[A, B, C]);
    assert_eq!((stage.start(A), stage.end(A), stage.watermark(A)), (Offset(5), Offset(6), Offset(6)));
}

/// R38: the producer's batches are trimmed, and the process starts again from what is left. It is known all the same: a retry
/// is no new batch, and what follows on is taken.
#[cfg_attr(test, test)]
fn a_producer_outlives_its_batches() {
    let mut stage = with_records(7);
    stage.trim(A, Offset(8));
    stage.exchange(&[A, B, C]);
    stage.produce(A, 7);
    stage.exchange(&[A, B, C]);
    stage.restart(A);
    assert_eq!(stage.start(A), Offset(8));
    stage.exchange(&[A, B, C]);
    let (again, next) = (stage.produce(A, 6), stage.produce(A, 8));
    stage.exchange(&[A, B, C]);
    assert!(matches!(stage.reply(again), Some(Ok(acknowledged)) if acknowledged.duplicate));
    assert!(stage.is_acknowledged(next));
}

/// R22: C began anew and got on; the answer that sent it there arrives once more.
#[cfg_attr(test, test)]
fn a_late_reset_changes_nothing() {
    let mut stage = with_records(1);
    for sequence in 1..6 {
        stage.produce(A, sequence);
        stage.exchange(&[A, B]);
    }
    stage.lose_post();
    stage.trim(A, Offset(5));
    stage.wait(A, 250);
    stage.deliver(A, C, Kind::Lead);
    stage.deliver(C, A, Kind::Fetch);
    let reset = stage.deliver(A, C, Kind::Reset);
    stage.receive(reset.clone());
    stage.exchange(&[A, C]);
    stage.receive(reset);
    assert_eq!((stage.start(C), stage.end(C)), (Offset(5), Offset(7)));
}
