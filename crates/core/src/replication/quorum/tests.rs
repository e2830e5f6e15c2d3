//! Who has to answer, and who has to hold a batch: every set and every set being left, of up to five replicas.

use super::*;
use crate::{BrokerId, DirId, Term};

fn replica(broker: u32) -> ReplicaId {
    ReplicaId { broker: BrokerId(broker), dir: DirId(1) }
}

fn replicas(count: u32) -> Vec<ReplicaId> {
    (0..count).map(replica).collect()
}

/// Every set of some of five replicas, the empty one included.
fn subsets() -> impl Iterator<Item = Vec<ReplicaId>> {
    (0..1 << 5).map(|bits| (0..5).filter(|broker| bits >> broker & 1 == 1).map(replica).collect())
}

fn filled() -> impl Iterator<Item = Vec<ReplicaId>> {
    subsets().filter(|set| !set.is_empty())
}

fn assignment(set: Vec<ReplicaId>, prev: Option<Vec<ReplicaId>>) -> Assignment {
    Assignment { term: Term(2), leader: set[0], set, prev, learners: vec![], unclean_term: None }
}

/// Those of all five who may answer so that a recovery goes on.
fn recovery_quorums(assignment: &Assignment) -> Vec<BTreeSet<ReplicaId>> {
    let members = subsets().map(|members| members.into_iter().collect());
    members.filter(|members| is_recovery_quorum(assignment, members)).collect()
}

/// Those of all five who may hold a batch so that it is committed in `set`.
fn commit_quorums(set: &[ReplicaId]) -> Vec<BTreeSet<ReplicaId>> {
    let held_by = |members: &BTreeSet<ReplicaId>| {
        committed(set, |replica| Offset(u64::from(members.contains(&replica)))) == Offset(1)
    };
    subsets().map(|members| members.into_iter().collect()).filter(held_by).collect()
}

fn all_meet(some: &[BTreeSet<ReplicaId>], others: &[BTreeSet<ReplicaId>]) -> bool {
    some.iter().all(|one| others.iter().all(|other| !one.is_disjoint(other)))
}

#[test]
fn committed_needs_a_majority() {
    for (offsets, expected) in [
        (vec![7], 7),
        (vec![7, 3], 3),
        (vec![9, 0, 0], 0),
        (vec![9, 5, 0], 5),
        (vec![9, 5, 8], 8),
        (vec![1, 2, 3, 4], 2),
        (vec![5, 4, 3, 2, 1], 3),
    ] {
        let set = replicas(offsets.len() as u32);
        let reached = |replica: ReplicaId| Offset(offsets[replica.broker.0 as usize]);
        assert_eq!(committed(&set, reached), Offset(expected), "{offsets:?}");
    }
}

#[test]
fn a_recovery_needs_both_sets_during_a_change() {
    let all = replicas(4);
    let changing = assignment(vec![all[1], all[0], all[3]], Some(vec![all[0], all[1], all[2]]));
    let quorum = |members: &[usize]| {
        is_recovery_quorum(&changing, &members.iter().map(|&member| all[member]).collect())
    };
    assert!(quorum(&[0, 1]) && quorum(&[1, 2, 3]));
    assert!(!quorum(&[1, 3]), "a majority of the new set alone");
    assert!(!quorum(&[1, 2]), "a majority of the old set alone");
}

/// What lets a recovery trust the best log that it hears of: it has asked somebody who holds whatever may have been
/// committed, in the set or in the one being left; and two recoveries of one register have asked somebody in common.
#[test]
fn every_recovery_meets_every_commit_of_either_set() {
    for set in filled() {
        for prev in subsets() {
            let prev = (!prev.is_empty()).then_some(prev);
            let assignment = assignment(set.clone(), prev);
            let recoveries = recovery_quorums(&assignment);
            assert!(!recoveries.is_empty(), "nobody could ever lead: {assignment:?}");
            assert!(all_meet(&recoveries, &recoveries), "two recoveries: {assignment:?}");
            for committers in [Some(&assignment.set), assignment.prev.as_ref()].into_iter().flatten() {
                assert!(all_meet(&recoveries, &commit_quorums(committers)), "a commit: {assignment:?}");
            }
        }
    }
}

/// A batch is committed exactly where those who hold it are a majority, whatever the others hold.
#[test]
fn committed_is_what_a_majority_holds_and_no_more() {
    for size in 1..=5 {
        let set = replicas(size);
        for ends in 0..4_u64.pow(size) {
            let end = |replica: ReplicaId| Offset(ends / 4_u64.pow(replica.broker.0) % 4);
            let holders = |offset| set.iter().copied().filter(|&replica| end(replica) >= offset).collect();
            let found = committed(&set, end);
            assert!(is_quorum(&set, &holders(found)), "{ends:x} of {size}: {found}");
            assert!(!is_quorum(&set, &holders(found + 1)), "{ends:x} of {size}: {found}");
        }
    }
}
