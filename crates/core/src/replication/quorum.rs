//! Counting replicas.

use std::collections::BTreeSet;

use super::message::Assignment;
use crate::metadata::majority;
use crate::mutant;
use crate::{Offset, ReplicaId};

/// Whether `members` hold a majority of `set`.
pub fn is_quorum(set: &[ReplicaId], members: &BTreeSet<ReplicaId>) -> bool {
    let needed = if mutant!(RecoverFromMinority) { 1 } else { majority(set.len()) };
    set.iter().filter(|replica| members.contains(replica)).count() >= needed
}

/// R13: whether `members` hold a majority of the set, and of the one being left if there is one.
pub fn is_recovery_quorum(assignment: &Assignment, members: &BTreeSet<ReplicaId>) -> bool {
    is_quorum(&assignment.set, members)
        && (mutant!(RecoverFromNewSet)
            || assignment.prev.as_ref().is_none_or(|prev| is_quorum(prev, members)))
}

/// R26: the highest offset that a majority of `set` has reached.
pub fn committed(set: &[ReplicaId], reached: impl Fn(ReplicaId) -> Offset) -> Offset {
    let mut offsets: Vec<Offset> = set.iter().map(|&replica| reached(replica)).collect();
    offsets.sort_unstable();
    let needed = if mutant!(CommitAlone) { 1 } else { majority(offsets.len()) };
    offsets[offsets.len() - needed]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BrokerId, DirId};

    fn replicas(count: u32) -> Vec<ReplicaId> {
        (0..count).map(|broker| ReplicaId { broker: BrokerId(broker), dir: DirId(1) }).collect()
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
        let assignment = Assignment {
            term: crate::Term(2),
            leader: all[1],
            set: vec![all[0], all[1], all[3]],
            prev: Some(vec![all[0], all[1], all[2]]),
            learners: vec![],
            unclean: false,
        };
        let quorum = |members: &[usize]| {
            is_recovery_quorum(&assignment, &members.iter().map(|&member| all[member]).collect())
        };
        assert!(quorum(&[0, 1]) && quorum(&[1, 2, 3]));
        assert!(!quorum(&[1, 3]), "a majority of the new set alone");
        assert!(!quorum(&[1, 2]), "a majority of the old set alone");
    }
}
