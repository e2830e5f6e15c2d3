//! Restarts: what a replica may have forgotten, and how it earns its vote again.

use holdfast_core::Offset;
use holdfast_core::metadata::Durability;

use super::stage::{A, B, C, Kind, Stage};

super::schedules! {
    a_restarted_leader_takes_a_new_epoch,
    a_leader_does_not_count_itself_before_its_flush,
    who_lost_its_tail_does_not_vote,
    who_lost_its_tail_and_dies_at_once_does_not_vote_either,
    an_answer_to_an_earlier_run_sets_no_target,
    a_vote_waits_for_the_flush,
    a_lost_rejoin_answer_is_given_again,
    a_source_whose_log_changed_is_not_copied,
    a_source_whose_log_is_gone_does_not_say_where_to_cut,
    a_cut_alone_may_end_a_copy,
    who_finds_its_log_damaged_does_not_vote,
}

/// R10: A sends x unflushed and C stores it; A loses it and goes on. It must not put another batch at the same offset
/// of the same epoch.
#[cfg_attr(test, test)]
fn a_restarted_leader_takes_a_new_epoch() {
    let mut stage = Stage::led_by(Durability::Disk, A);
    stage.hold_flushes(A);
    stage.produce(A, 0);
    stage.deliver(A, C, Kind::Data);
    stage.lose_power(A);
    stage.flush(A);
    stage.exchange(&[A, B]);
    assert!(stage.leads(A));
    let again = stage.produce(A, 0);
    stage.exchange(&[A, B, C]);
    assert!(stage.is_acknowledged(again));
    assert_eq!(stage.end(A), stage.end(C));
}

/// R25: A and C hold x, A has not flushed it: no commit in mode disk.
#[cfg_attr(test, test)]
fn a_leader_does_not_count_itself_before_its_flush() {
    let mut stage = Stage::led_by(Durability::Disk, A);
    stage.hold_flushes(A);
    let x = stage.produce(A, 0);
    stage.exchange(&[A, C]);
    assert!(stage.reply(x).is_none(), "one disk only");
    stage.flush(A);
    assert!(stage.is_acknowledged(x));
}

/// R35: A commits on A and B in memory; B loses its tail. C must not lead with B's vote alone.
#[cfg_attr(test, test)]
fn who_lost_its_tail_does_not_vote() {
    let mut stage = Stage::led_by(Durability::Memory, A);
    stage.hold_flushes(B);
    let x = stage.produce(A, 0);
    stage.exchange(&[A, B]);
    assert!(stage.is_acknowledged(x));
    stage.lose_post();
    stage.lose_power(B);
    stage.flush(B);
    assert!(!stage.replica(B).is_voter());
    stage.appoint(2, C, &[C]);
    stage.exchange(&[B, C]);
    assert!(!stage.leads(C), "B may have forgotten x, and has");
    // The flag is durable: a clean restart changes nothing.
    stage.restart(B);
    assert!(!stage.replica(B).is_voter());
    stage.wait(C, 150);
    stage.exchange(&[B, C]);
    assert!(!stage.leads(C));
    // A has it.
    stage.wait(C, 150);
    stage.exchange(&[A, B, C]);
    assert!(stage.leads(C) && stage.end(C) == Offset(3));
}

/// R35: the same, and the first process after the power cut is killed before anything else happens: the boot that it noted
/// is no longer another one.
#[cfg_attr(test, test)]
fn who_lost_its_tail_and_dies_at_once_does_not_vote_either() {
    let mut stage = Stage::led_by(Durability::Memory, A);
    stage.hold_flushes(B);
    let x = stage.produce(A, 0);
    stage.exchange(&[A, B]);
    assert!(stage.is_acknowledged(x));
    stage.lose_post();
    stage.lose_power(B);
    stage.restart(B);
    stage.flush(B);
    stage.appoint(2, C, &[C]);
    stage.exchange(&[B, C]);
    assert!(!stage.leads(C), "B may have forgotten x, and has");
}

/// R36: B lost x, matches all that it kept, and is no voter before it has x again. An answer that was meant for its
/// earlier run sets no target.
#[cfg_attr(test, test)]
fn an_answer_to_an_earlier_run_sets_no_target() {
    let mut stage = Stage::led_by(Durability::Memory, A);
    // B is a non-voter in this run already, and the answer to its rejoin is late.
    stage.hold_flushes(B);
    let early = stage.produce(A, 0);
    stage.exchange(&[A, B]);
    assert!(stage.is_acknowledged(early));
    stage.lose_post();
    stage.lose_power(B);
    stage.flush(B);
    stage.wait(A, 250);
    stage.deliver(A, B, Kind::Lead);
    stage.deliver(B, A, Kind::Fetch);
    let late = stage.deliver(A, B, Kind::Data);
    // Now B has everything, and votes. It acknowledges x, and loses it.
    stage.exchange(&[A, B]);
    assert!(stage.replica(B).is_voter());
    stage.hold_flushes(B);
    let x = stage.produce(A, 1);
    stage.exchange(&[A, B]);
    assert!(stage.is_acknowledged(x));
    stage.lose_post();
    stage.lose_power(B);
    stage.flush(B);
    assert!(!stage.replica(B).is_voter());
    // B follows, and the late answer arrives again.
    stage.wait(A, 250);
    stage.deliver(A, B, Kind::Lead);
    stage.receive(late);
    assert!(!stage.replica(B).is_voter() || stage.end(B) >= Offset(3), "a vote without x");
    stage.lose_post();
    stage.appoint(2, C, &[C]);
    stage.exchange(&[B, C]);
    assert!(!stage.leads(C));
}

/// R36, mode disk (finding): B acknowledged x, its log failed, and it copies x again. A power cut before the flush must
/// not leave a voter without x.
#[cfg_attr(test, test)]
fn a_vote_waits_for_the_flush() {
    let mut stage = Stage::led_by(Durability::Disk, A);
    let x = stage.produce(A, 0);
    stage.exchange(&[A, B]);
    assert!(stage.is_acknowledged(x), "A and B hold x; C does not");
    stage.lose_post();
    stage.lose_log(B);
    assert!(!stage.replica(B).is_voter() && stage.end(B) == Offset(0));
    stage.hold_flushes(B);
    stage.wait(A, 250);
    stage.exchange(&[A, B]);
    assert_eq!(stage.end(B), Offset(2), "x is written again");
    stage.lose_power(B);
    stage.flush(B);
    assert_eq!(stage.end(B), Offset(0), "and lost again");
    stage.lose_post();
    stage.appoint(2, C, &[C]);
    stage.exchange(&[B, C]);
    assert!(!stage.leads(C), "only A has x");
    stage.wait(C, 150);
    stage.exchange(&[A, B, C]);
    assert!(stage.leads(C) && stage.end(C) == Offset(3));
}

/// R36 (finding): the answer with the target is lost while data goes on flowing; the non-voter still gets one.
#[cfg_attr(test, test)]
fn a_lost_rejoin_answer_is_given_again() {
    let mut stage = Stage::led_by(Durability::Memory, A);
    stage.hold_flushes(B);
    stage.produce(A, 0);
    stage.exchange(&[A, B]);
    stage.lose_post();
    stage.lose_power(B);
    stage.flush(B);
    stage.wait(A, 250);
    stage.deliver(A, B, Kind::Lead);
    let fetch = stage.deliver(B, A, Kind::Fetch);
    let mut answer = stage.take(A, B, Kind::Data);
    // The same batches arrive without the incarnation: as if pushed by an earlier exchange.
    if let holdfast_core::replication::Message::Data { incarnation, .. } = &mut answer.message {
        assert!(incarnation.take().is_some());
    }
    stage.receive(answer);
    drop(fetch);
    stage.exchange(&[A, B]);
    for _ in 0..3 {
        stage.wait(A, 250);
        stage.exchange(&[A, B]);
    }
    assert!(stage.replica(B).is_voter());
}

/// R15, R12: C reported its log, and restarts without its end before it was copied. A, who lost its own tail, must
/// neither cut nor lead by what C has now.
#[cfg_attr(test, test)]
fn a_source_whose_log_changed_is_not_copied() {
    let mut stage = Stage::led_by(Durability::Memory, A);
    stage.hold_flushes(A);
    stage.hold_flushes(C);
    let x = stage.produce(A, 0);
    stage.exchange(&[A, C]);
    assert!(stage.is_acknowledged(x));
    stage.lose_post();
    stage.flush(C);
    stage.lose_power(A);
    stage.flush(A);
    // A recovers as a non-voter: it needs B and C. C's log wins, and C loses it with its vote.
    stage.exchange(&[A, B]);
    stage.deliver(A, C, Kind::Fence);
    stage.deliver(C, A, Kind::FenceOk);
    let fetch = stage.take(A, C, Kind::Fetch);
    stage.lose_log(C);
    stage.receive(fetch);
    stage.exchange(&[A, B, C]);
    assert!(!stage.leads(A), "nobody has x any more, and nobody may lead without it");
}

/// R15: A and C hold x. C, who led 2, has the newest log, and A as leader of 3 asks for it; but C's disk fails first, and
/// C comes back with nothing. It must not tell A that nothing is what they share: A is the last to hold x.
#[cfg_attr(test, test)]
fn a_source_whose_log_is_gone_does_not_say_where_to_cut() {
    let mut stage = Stage::led_by(Durability::Disk, A);
    let x = stage.produce(A, 0);
    stage.exchange(&[A, C]);
    assert!(stage.is_acknowledged(x));
    stage.lose_post();
    stage.appoint(2, C, &[C]);
    stage.deliver(C, B, Kind::Fence);
    stage.deliver(B, C, Kind::FenceOk);
    assert!(stage.leads(C));
    // A has forgotten how far it knew of commits.
    stage.restart(A);
    stage.lose_post();
    stage.appoint(3, A, &[A]);
    stage.deliver(A, C, Kind::Fence);
    stage.deliver(C, A, Kind::FenceOk);
    let fetch = stage.take(A, C, Kind::Fetch);
    stage.lose_log(C);
    stage.receive(fetch);
    stage.exchange(&[A, C]);
    for _ in 0..3 {
        stage.wait(A, 150);
        stage.exchange(&[A, B, C]);
    }
    assert!(stage.leads(A) && stage.watermark(A) == Offset(3), "marker, x, marker");
}

/// R15 (finding): A, a non-voter, holds what B and C hold and a batch more. Cutting that one makes its log the winner's;
/// there is nothing to be copied that would say so.
#[cfg_attr(test, test)]
fn a_cut_alone_may_end_a_copy() {
    let mut stage = Stage::led_by(Durability::Memory, A);
    stage.produce(A, 0);
    stage.wait(A, 500);
    assert_eq!(stage.replica(A).durable_end(), Offset(2), "flushed, and sent to nobody");
    stage.lose_post();
    stage.lose_power(A);
    assert!(!stage.replica(A).is_voter() && stage.end(A) == Offset(2));
    stage.exchange(&[A, B, C]);
    assert!(stage.leads(A), "without waiting for an answer that cannot come");
    assert_eq!(stage.watermark(A), Offset(2), "both markers");
}

/// R35, R33: A and B hold x on disk, and B finds its log damaged when it starts. It has nothing any more, and its vote alone
/// must not let C lead without x.
#[cfg_attr(test, test)]
fn who_finds_its_log_damaged_does_not_vote() {
    let mut stage = Stage::led_by(Durability::Disk, A);
    let x = stage.produce(A, 0);
    stage.exchange(&[A, B]);
    assert!(stage.is_acknowledged(x));
    stage.lose_post();
    stage.find_damage(B);
    assert!(!stage.replica(B).is_voter() && stage.end(B) == Offset(0));
    stage.appoint(2, C, &[C]);
    stage.exchange(&[B, C]);
    assert!(!stage.leads(C), "only A has x");
    stage.wait(C, 150);
    stage.exchange(&[A, B, C]);
    assert!(stage.leads(C) && stage.end(C) == Offset(3));
}
