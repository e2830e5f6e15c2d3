//! Changes of the replica set: who is asked, who is counted, and when the set being left may be forgotten.

use holdfast_core::metadata::Durability;
use holdfast_core::replication::{
    Action, Assignment, Envelope, Event, Loaded, Message, Replica, ReplicaConfig,
};
use holdfast_core::{Incarnation, LeaderEpoch, Offset, Term, Timestamp};

use super::stage::{A, B, C, D, Kind, Stage, register, replica_id, replicas};

super::schedules! {
    a_majority_of_the_new_set_alone_does_not_recover,
    a_change_is_complete_with_its_marker,
    learners_are_not_counted,
    a_replica_made_again_does_not_obey_an_earlier_term,
    a_recovery_asks_no_longer_who_was_left,
    what_is_told_of_a_deleted_replica_does_not_count,
}

/// B leads `term` on A, B and D; A, B and C are being left.
fn swap_to_d(term: u32) -> Assignment {
    Assignment { prev: Some(replicas(&[A, B, C])), ..register(term, B, &[A, B, D]) }
}

/// R13: D takes C's place, and B is to lead. B and D are a majority of the new set; A still commits with C.
#[cfg_attr(test, test)]
fn a_majority_of_the_new_set_alone_does_not_recover() {
    let mut stage = Stage::led_by(Durability::Disk, A);
    stage.assign(&swap_to_d(2), &[B, D]);
    stage.exchange(&[B, D]);
    assert!(!stage.leads(B), "of A, B and C only B was asked");
    let x = stage.produce(A, 0);
    stage.exchange(&[A, C]);
    assert!(stage.is_acknowledged(x), "A has not heard of the change");
    stage.wait(B, 150);
    stage.exchange(&[B, C, D]);
    assert!(stage.leads(B) && stage.watermark(B) == Offset(3), "x was taken over from C");
}

/// R3: A leads the changed set, and D has nothing yet. The set being left is not forgotten before the marker is
/// committed on the new one: D could lead next with B, without what A and C hold.
#[cfg_attr(test, test)]
fn a_change_is_complete_with_its_marker() {
    let mut stage = Stage::led_by(Durability::Disk, A);
    let change = Assignment { leader: register(2, A, &[]).leader, ..swap_to_d(2) };
    stage.assign(&change, &[A, D]);
    stage.deliver(A, B, Kind::Fence);
    stage.deliver(B, A, Kind::FenceOk);
    assert!(stage.leads(A), "B counts for both sets");
    assert!(!stage.is_complete(2), "the marker is on A only");
    stage.exchange(&[A, D]);
    assert!(stage.is_complete(2), "the marker is on A and D");
}

/// R24: D learns, and has all. That A and D hold x commits nothing: B and C may lead without it.
#[cfg_attr(test, test)]
fn learners_are_not_counted() {
    let mut stage = Stage::new(Durability::Disk);
    let learning = Assignment { learners: replicas(&[D]), ..register(1, A, &[A, B, C]) };
    stage.assign(&learning, &[A, B, C, D]);
    stage.exchange(&[A, B, C, D]);
    let x = stage.produce(A, 0);
    stage.exchange(&[A, D]);
    assert_eq!(stage.end(D), Offset(2));
    assert!(stage.reply(x).is_none(), "one member has x");
    stage.lose_post();
    stage.appoint(2, B, &[B]);
    stage.exchange(&[B, C]);
    assert!(stage.leads(B) && stage.end(B) == Offset(2), "x was never committed");
}

/// R46: D took C's place in term 2, so C's replica was deleted; in term 3 C comes back, empty. It must not obey A, who
/// has missed all that and counts C in term 1.
#[cfg_attr(test, test)]
fn a_replica_made_again_does_not_obey_an_earlier_term() {
    let mut stage = Stage::led_by(Durability::Disk, A);
    stage.assign(&swap_to_d(2), &[B, D]);
    stage.exchange(&[B, C, D]);
    assert!(stage.leads(B) && stage.is_complete(2));
    stage.delete(C);
    stage.lose_post();
    let back = Assignment { prev: Some(replicas(&[A, B, D])), ..register(3, B, &[A, B, C]) };
    stage.assign(&back, &[C]);
    stage.wait(A, 250);
    let x = stage.produce(A, 0);
    stage.exchange(&[A, C]);
    assert!(stage.reply(x).is_none(), "C promised term 3 when it was made");
}

/// R13, R3 (finding): B and D are the set that took the place of A, B and C, and the change is complete; B's process dies
/// before it has heard so, and recovers as if both sets counted. A and C are gone for good: what is left has answered when
/// B hears that the change is complete, and nobody will answer again.
#[cfg_attr(test, test)]
fn a_recovery_asks_no_longer_who_was_left() {
    let mut stage = Stage::led_by(Durability::Disk, A);
    let moved = register(2, B, &[B, D]);
    stage.assign(&Assignment { prev: Some(replicas(&[A, B, C])), ..moved.clone() }, &[B, D]);
    stage.exchange(&[B, C, D]);
    assert!(stage.leads(B) && stage.is_complete(2));
    stage.delete(A);
    stage.delete(C);
    stage.lose_post();
    stage.restart(B);
    stage.exchange(&[B, D]);
    assert!(!stage.leads(B), "a majority of A, B and C is missing");
    stage.assign(&moved, &[B]);
    assert!(stage.leads(B), "B and D are all that is asked");
}

/// R46, R8: C's replica is deleted and made again within one run of its process. That the state of the first one is on
/// disk does not let the second one speak of what it promised.
#[cfg_attr(test, test)]
fn what_is_told_of_a_deleted_replica_does_not_count() {
    let made = |life| {
        let loaded = Loaded::empty(replica_id(C), Incarnation(1), &register(1, A, &[A, B, C]));
        Replica::new(Timestamp(1), ReplicaConfig::default(), Loaded { life, ..loaded })
    };
    let persists = |replica: &mut Replica| match replica.next_action() {
        Some(Action::Persist { number, .. }) => number,
        other => panic!("a promise comes first: {other:?}"),
    };
    let told_late = persists(&mut made(0));
    let mut second = made(1);
    let number = persists(&mut second);
    let message = Message::Fence { set: replicas(&[A, B, C]), prev: None };
    let epoch = LeaderEpoch::first(Term(1));
    let fence = Envelope { from: replica_id(A), to: replica_id(C), epoch, message };
    second.handle(Timestamp(1), Event::Receive(fence));
    second.handle(Timestamp(1), Event::Persisted { number: told_late });
    assert_eq!(second.next_action(), None, "its own promise is not on disk");
    second.handle(Timestamp(1), Event::Persisted { number });
    assert!(matches!(second.next_action(), Some(Action::Send(_))));
}
