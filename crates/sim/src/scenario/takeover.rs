//! Changes of the leader: whose log wins, what may be counted, and what late messages may not do.

use holdfast_core::Offset;
use holdfast_core::metadata::Durability;
use holdfast_core::replication::ProduceError;

use super::stage::{A, B, C, Kind, Stage};

super::schedules! {
    batches_of_an_earlier_epoch_are_not_counted_before_the_marker,
    a_copied_batch_without_the_marker_is_not_committed,
    the_newer_epoch_beats_an_equally_long_log,
    a_longer_log_of_an_earlier_epoch_is_cut,
    a_late_diverge_cuts_nothing,
    an_acknowledged_batch_above_the_own_watermark_is_kept,
    data_applies_once,
    a_leader_without_a_majority_commits_nothing,
    a_duplicate_is_not_acknowledged_before_the_commit,
    a_promise_survives_a_restart,
}

/// R26, R16: x of epoch 1 is only on A. B leads 2 and appends y alone; A leads 3 and copies x to C. x must not count as
/// committed before the marker of 3 does: B leads 4 with C, and its y is newer.
#[cfg_attr(test, test)]
fn batches_of_an_earlier_epoch_are_not_counted_before_the_marker() {
    let mut stage = Stage::led_by(Durability::Disk, A);
    let x = stage.produce(A, 0);
    stage.lose_post();
    // B leads 2 with C; y and B's marker reach nobody.
    stage.appoint(2, B, &[B]);
    stage.exchange(&[B, C]);
    stage.lose_post();
    stage.produce(B, 0);
    stage.lose_post();
    // C lost what B's marker brought? No: C has it. A must win over C's log, so C's answer is its own.
    stage.appoint(3, A, &[A]);
    stage.exchange(&[A, C]);
    assert!(stage.leads(A) && !stage.is_acknowledged(x));
    assert_eq!(stage.reply(x), Some(Err(ProduceError::LeaderLost)));
    // Everything goes on from one sequence.
    stage.appoint(4, B, &[A, B, C]);
    stage.exchange(&[A, B, C]);
    let again = stage.produce(B, 0);
    stage.exchange(&[A, B, C]);
    assert!(stage.is_acknowledged(again));
}

/// R26 with the old leader's data on two logs by copy only: the copier crashes right after the follower has x but not
/// the marker. Nobody may have been told that x is committed.
#[cfg_attr(test, test)]
fn a_copied_batch_without_the_marker_is_not_committed() {
    let mut stage = Stage::led_by(Durability::Disk, A);
    stage.produce(A, 0); // x at offset 1, on A only
    stage.lose_post();
    stage.appoint(2, B, &[B]);
    stage.deliver(B, C, Kind::Fence);
    stage.deliver(C, B, Kind::FenceOk); // B active in 2: its marker is on B only
    assert!(stage.leads(B));
    stage.lose_post();
    stage.appoint(3, A, &[A]);
    stage.deliver(A, C, Kind::Fence);
    stage.deliver(C, A, Kind::FenceOk);
    assert!(stage.leads(A));
    stage.deliver(A, C, Kind::Lead);
    // C has all up to offset 1. The answer brings x and the marker of 3 in two batches; only x arrives.
    stage.deliver(C, A, Kind::Fetch);
    let mut data = stage.take(A, C, Kind::Data);
    if let holdfast_core::replication::Message::Data { batches, .. } = &mut data.message {
        assert_eq!(batches.len(), 2);
        batches.truncate(1);
    }
    stage.receive(data);
    stage.deliver(C, A, Kind::Fetch); // acknowledges x on disk: a majority holds it
    assert_eq!(stage.watermark(A), Offset(1), "x is on two disks and still not committed");
    // B's marker of 2 beats x of 1: x goes, and nobody was told of it.
    stage.lose_post();
    stage.appoint(4, B, &[B]);
    stage.deliver(B, C, Kind::Fence);
    stage.deliver(C, B, Kind::FenceOk);
    stage.exchange(&[B, C]);
    assert!(stage.leads(B));
    let y = stage.produce(B, 0);
    stage.exchange(&[A, B, C]);
    assert!(stage.is_acknowledged(y));
}

/// R14: B leads 2 from empty logs and commits y on B and C. A, older and as long, leads 3 with B: B's log must win.
#[cfg_attr(test, test)]
fn the_newer_epoch_beats_an_equally_long_log() {
    let mut stage = Stage::led_by(Durability::Disk, A);
    stage.produce(A, 0); // on A only
    stage.lose_post();
    stage.appoint(2, B, &[B]);
    stage.exchange(&[B, C]);
    stage.lose_post();
    assert_eq!(stage.end(A), stage.end(B));
    stage.appoint(3, A, &[A]);
    stage.exchange(&[A, C]);
    assert!(stage.leads(A));
    assert_eq!(stage.watermark(A), Offset(3), "A took over the marker of 2 and appended its own");
}

/// R19, R20 (finding): a deposed leader with a longer log than its successor hears where to cut, without waiting for
/// the successor's log to outgrow its own.
#[cfg_attr(test, test)]
fn a_longer_log_of_an_earlier_epoch_is_cut() {
    let mut stage = Stage::led_by(Durability::Disk, A);
    for sequence in 0..5 {
        stage.produce(A, sequence);
    }
    stage.lose_post();
    stage.appoint(2, B, &[A, B, C]);
    stage.deliver(B, C, Kind::Fence);
    stage.deliver(C, B, Kind::FenceOk);
    stage.exchange(&[A, B, C]);
    for node in [A, B, C] {
        assert_eq!((stage.end(node), stage.watermark(node)), (Offset(2), Offset(2)), "node {node}");
    }
}

/// R23, R22: A cuts its tail, follows B, and acknowledges B's marker, which commits it; A has not heard of that. The
/// Diverge that it obeyed arrives once more. It must not cut again.
#[cfg_attr(test, test)]
fn a_late_diverge_cuts_nothing() {
    let mut stage = Stage::led_by(Durability::Disk, A);
    stage.produce(A, 0);
    stage.produce(A, 1);
    stage.lose_post();
    stage.appoint(2, B, &[B]);
    stage.deliver(B, C, Kind::Fence);
    stage.deliver(C, B, Kind::FenceOk);
    stage.deliver(B, A, Kind::Lead);
    stage.deliver(A, B, Kind::Fetch);
    let diverge = stage.deliver(B, A, Kind::Diverge);
    stage.deliver(A, B, Kind::Fetch);
    stage.deliver(B, A, Kind::Data);
    while stage.watermark(B) < Offset(2) {
        stage.deliver(A, B, Kind::Fetch);
    }
    assert_eq!((stage.watermark(A), stage.end(A)), (Offset(1), Offset(2)));
    stage.receive(diverge);
    assert_eq!(stage.end(A), Offset(2), "B's marker is committed by A's acknowledgement");
    stage.lose_post();
    stage.appoint(3, C, &[C]);
    stage.exchange(&[A, C]);
    assert!(stage.leads(C) && stage.watermark(C) == Offset(3));
}

/// R23: B acknowledged x and has not heard that it is committed. It meets leader C of term 2, who has x too, through a
/// longer detour; x must still be there when C dies.
#[cfg_attr(test, test)]
fn an_acknowledged_batch_above_the_own_watermark_is_kept() {
    let mut stage = Stage::led_by(Durability::Disk, A);
    let x = stage.produce(A, 0);
    stage.deliver(A, B, Kind::Data);
    stage.deliver(B, A, Kind::Fetch);
    assert!(stage.is_acknowledged(x), "A and B hold x");
    assert_eq!(stage.watermark(B), Offset(1), "B has not heard of it");
    stage.lose_post();
    stage.appoint(2, C, &[C]);
    stage.exchange(&[B, C]);
    assert!(stage.leads(C) && stage.watermark(C) == Offset(3));
    assert!(stage.end(B) == Offset(3));
}

/// R22: the same Data twice appends once.
#[cfg_attr(test, test)]
fn data_applies_once() {
    let mut stage = Stage::led_by(Durability::Disk, A);
    stage.produce(A, 0);
    let data = stage.deliver(A, B, Kind::Data);
    stage.receive(data.clone());
    stage.receive(data);
    assert_eq!(stage.end(B), Offset(2));
}

/// R13, R9: a leader that was cut off cannot commit, and learns so when it meets the new one.
#[cfg_attr(test, test)]
fn a_leader_without_a_majority_commits_nothing() {
    let mut stage = Stage::led_by(Durability::Disk, A);
    let x = stage.produce(A, 0);
    stage.lose_post();
    stage.appoint(2, B, &[B]);
    stage.exchange(&[B, C]);
    let y = stage.produce(B, 0);
    stage.exchange(&[B, C]);
    assert!(stage.is_acknowledged(y) && stage.reply(x).is_none());
    stage.exchange(&[A, B, C]);
    stage.wait(B, 250);
    stage.exchange(&[A, B, C]);
    assert_eq!(stage.reply(x), Some(Err(ProduceError::LeaderLost)));
    assert_eq!(stage.watermark(A), stage.watermark(B));
}

/// R40: x is only on A when its retry comes; the retry is not acknowledged, and x goes with A's leadership.
#[cfg_attr(test, test)]
fn a_duplicate_is_not_acknowledged_before_the_commit() {
    let mut stage = Stage::led_by(Durability::Disk, A);
    let (x, retry) = (stage.produce(A, 0), stage.produce(A, 0));
    assert!(stage.reply(x).is_none() && stage.reply(retry).is_none());
    stage.lose_post();
    stage.appoint(2, C, &[A, B, C]);
    stage.deliver(C, B, Kind::Fence);
    stage.deliver(B, C, Kind::FenceOk);
    stage.exchange(&[A, B, C]);
    assert_eq!(stage.reply(retry), Some(Err(ProduceError::LeaderLost)));
    let again = stage.produce(C, 0);
    stage.exchange(&[A, B, C]);
    assert!(matches!(stage.reply(again), Some(Ok(acknowledged)) if !acknowledged.duplicate));
}

/// R8: C promises 2, restarts, and still refuses A's batch of epoch 1.
#[cfg_attr(test, test)]
fn a_promise_survives_a_restart() {
    let mut stage = Stage::led_by(Durability::Disk, A);
    stage.appoint(2, B, &[B]);
    stage.deliver(B, C, Kind::Fence);
    let reply = stage.take(C, B, Kind::FenceOk);
    stage.restart(C);
    stage.wait(A, 250);
    let x = stage.produce(A, 0);
    stage.exchange(&[A, C]);
    assert!(stage.reply(x).is_none());
    stage.receive(reply);
    assert!(stage.leads(B));
    stage.exchange(&[A, B, C]);
}
