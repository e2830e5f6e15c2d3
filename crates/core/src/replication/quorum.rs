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
mod tests;
