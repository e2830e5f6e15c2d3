//! Following, and what a log says of its producers: what may be believed, what may be cut, what goes with a tail.

use holdfast_core::Offset;
use holdfast_core::metadata::Durability;
use holdfast_core::replication::{Event, Message, ProduceError};

use super::stage::{A, B, C, Kind, Stage};

super::schedules! {
    a_watermark_reaches_no_further_than_the_log,
    a_lead_moves_no_watermark,
    an_acknowledged_batch_is_kept_when_a_new_leader_is_met,
    a_flush_from_before_a_cut_proves_nothing,
    a_non_voter_waits_for_what_it_may_have_lost,
    a_cut_takes_sequence_numbers_back,
    a_restart_keeps_sequence_numbers,
    a_gap_in_the_sequence_is_refused,
    written_is_not_durable,
    a_batch_above_the_watermark_is_not_served,
}

/// R29: B is sent the first of three batches, with the watermark of all three.
#[cfg_attr(test, test)]
fn a_watermark_reaches_no_further_than_the_log() {
    let mut stage = Stage::led_by(Durability::Disk, A);
    stage.lose_post();
    stage.restart(B);
    for sequence in 0..3 {
        stage.produce(A, sequence);
    }
    stage.exchange(&[A, C]);
    assert_eq!(stage.watermark(A), Offset(4));
    stage.lose_post();
    stage.wait(A, 250);
    stage.deliver(A, B, Kind::Lead);
    stage.deliver(B, A, Kind::Fetch);
    let mut data = stage.take(A, B, Kind::Data);
    if let Message::Data { batches, .. } = &mut data.message {
        batches.truncate(1);
    }
    stage.receive(data);
    assert_eq!((stage.end(B), stage.watermark(B)), (Offset(2), Offset(2)));
}

/// R29: A has a tail of its own, and hears that leader B of term 2 has committed as much.
#[cfg_attr(test, test)]
fn a_lead_moves_no_watermark() {
    let mut stage = Stage::led_by(Durability::Disk, A);
    stage.produce(A, 0);
    stage.lose_post();
    stage.appoint(2, B, &[B]);
    stage.exchange(&[B, C]);
    stage.wait(B, 250);
    assert_eq!((stage.watermark(B), stage.end(A)), (Offset(2), Offset(2)));
    stage.take(B, A, Kind::Fence);
    stage.take(B, A, Kind::Lead);
    stage.deliver(B, A, Kind::Lead);
    assert_eq!(stage.watermark(A), Offset(1), "its log was not compared yet");
    stage.exchange(&[A, B, C]);
    assert_eq!(stage.watermark(A), Offset(2));
}

/// R23: A and B hold x, and B has not heard that it is committed. It meets A again as leader of term 2. It must not cut
/// x: A dies, and B leads with C.
#[cfg_attr(test, test)]
fn an_acknowledged_batch_is_kept_when_a_new_leader_is_met() {
    let mut stage = Stage::led_by(Durability::Disk, A);
    let x = stage.produce(A, 0);
    stage.deliver(A, B, Kind::Data);
    stage.deliver(B, A, Kind::Fetch);
    assert!(stage.is_acknowledged(x) && stage.watermark(B) == Offset(1));
    stage.lose_post();
    stage.appoint(2, A, &[A]);
    stage.deliver(A, C, Kind::Fence);
    stage.deliver(C, A, Kind::FenceOk);
    assert!(stage.leads(A));
    stage.deliver(A, B, Kind::Lead);
    assert_eq!(stage.end(B), Offset(2));
    stage.lose_post();
    stage.appoint(3, B, &[B]);
    stage.exchange(&[B, C]);
    assert!(stage.leads(B) && stage.watermark(B) == Offset(3), "marker, x, marker");
}

/// R25: A's flush of its own tail is under way when the tail is cut and other batches take its place. That it ended
/// says nothing of them.
#[cfg_attr(test, test)]
fn a_flush_from_before_a_cut_proves_nothing() {
    let mut stage = Stage::led_by(Durability::Disk, A);
    stage.produce(A, 0);
    stage.lose_post();
    stage.appoint(2, B, &[B]);
    stage.exchange(&[B, C]);
    stage.produce(B, 0);
    stage.exchange(&[B, C]);
    stage.hold_flushes(A);
    stage.wait(B, 250);
    stage.exchange(&[A, B]);
    assert_eq!(stage.end(A), Offset(3), "the tail was cut, and two batches came in its place");
    assert!(stage.replica(A).durable_end() < Offset(3), "which are not flushed");
    stage.tell(A, Event::Flushed { generation: 0, end: Offset(3) });
    assert!(stage.replica(A).durable_end() < Offset(3), "a flush of the time before the cut");
}

/// R36: B acknowledged x, and lost it with its tail. An answer that brings nothing makes it no voter.
#[cfg_attr(test, test)]
fn a_non_voter_waits_for_what_it_may_have_lost() {
    let mut stage = Stage::led_by(Durability::Memory, A);
    stage.hold_flushes(B);
    let x = stage.produce(A, 0);
    stage.exchange(&[A, B]);
    assert!(stage.is_acknowledged(x));
    stage.lose_post();
    stage.lose_power(B);
    stage.flush(B);
    stage.wait(A, 250);
    stage.deliver(A, B, Kind::Lead);
    stage.deliver(B, A, Kind::Fetch);
    let mut answer = stage.take(A, B, Kind::Data);
    if let Message::Data { batches, .. } = &mut answer.message {
        batches.clear();
    }
    stage.receive(answer);
    assert!(!stage.replica(B).is_voter(), "A had x when it answered");
    stage.lose_post();
    stage.appoint(2, C, &[C]);
    stage.exchange(&[B, C]);
    assert!(!stage.leads(C), "only A has x");
}

/// R38: A appended x alone, and its tail was cut. When A leads again, the same sequence number is no duplicate.
#[cfg_attr(test, test)]
fn a_cut_takes_sequence_numbers_back() {
    let mut stage = Stage::led_by(Durability::Disk, A);
    stage.produce(A, 0);
    stage.lose_post();
    stage.appoint(2, B, &[B]);
    stage.exchange(&[B, C]);
    stage.exchange(&[A, B, C]);
    stage.wait(B, 250);
    stage.exchange(&[A, B, C]);
    assert_eq!(stage.end(A), Offset(2), "x was cut");
    stage.appoint(3, A, &[A, B, C]);
    stage.exchange(&[A, B, C]);
    let again = stage.produce(A, 0);
    stage.exchange(&[A, B, C]);
    assert!(matches!(stage.reply(again), Some(Ok(acknowledged)) if !acknowledged.duplicate));
}

/// R38, R39: x is committed, and its producer, who has not heard of it, sends it again after A has restarted.
#[cfg_attr(test, test)]
fn a_restart_keeps_sequence_numbers() {
    let mut stage = Stage::led_by(Durability::Disk, A);
    let x = stage.produce(A, 0);
    stage.exchange(&[A, B, C]);
    assert!(stage.is_acknowledged(x));
    stage.restart(A);
    stage.exchange(&[A, B, C]);
    let again = stage.produce(A, 0);
    stage.exchange(&[A, B, C]);
    assert!(matches!(stage.reply(again), Some(Ok(acknowledged)) if acknowledged.duplicate));
}

/// R39: a batch that does not follow on is not appended, whether its producer is known or not.
#[cfg_attr(test, test)]
fn a_gap_in_the_sequence_is_refused() {
    let mut stage = Stage::led_by(Durability::Disk, A);
    let unknown = stage.produce(A, 1);
    assert_eq!(stage.reply(unknown), Some(Err(ProduceError::UnknownProducer)));
    stage.produce(A, 0);
    let gap = stage.produce(A, 2);
    assert_eq!(stage.reply(gap), Some(Err(ProduceError::OutOfOrderSequence { expected: 1, given: 2 })));
    assert_eq!(stage.end(A), Offset(2));
}

/// R27: with durability memory x is committed while nobody has flushed it. It is not durable yet.
#[cfg_attr(test, test)]
fn written_is_not_durable() {
    let mut stage = Stage::led_by(Durability::Memory, A);
    for node in [A, B, C] {
        stage.hold_flushes(node);
    }
    let x = stage.produce(A, 0);
    stage.exchange(&[A, B, C]);
    assert!(stage.is_acknowledged(x));
    stage.produce(A, 1);
    let data = stage.take(A, B, Kind::Data);
    let Message::Data { high_watermark, durable_high_watermark, .. } = data.message else {
        panic!("{data:?}")
    };
    assert!(high_watermark == Offset(2) && durable_high_watermark < Offset(2), "{durable_high_watermark}");
}

/// R30: x is on A only. Nobody may read it.
#[cfg_attr(test, test)]
fn a_batch_above_the_watermark_is_not_served() {
    let mut stage = Stage::led_by(Durability::Disk, A);
    stage.produce(A, 0);
    assert_eq!((stage.end(A), stage.watermark(A)), (Offset(2), Offset(1)));
}
