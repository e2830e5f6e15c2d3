//! META-5: whatever a step of a register is allowed to do, nobody who may have committed is forgotten.

use super::super::invariants::violation;
use super::*;
use crate::ReplicaId;

/// The sets of three of five replicas.
fn sets() -> Vec<Vec<ReplicaId>> {
    let three = (0..1_u32 << 5).filter(|bits| bits.count_ones() == 3);
    three.map(|bits| (0..5).filter(|broker| bits >> broker & 1 == 1).map(replica).collect()).collect()
}

fn replica(broker: u32) -> ReplicaId {
    ReplicaId { broker: BrokerId(broker), dir: DirId(1) }
}

fn registers(term: u32) -> Vec<Register> {
    let prevs: Vec<Option<Vec<ReplicaId>>> =
        std::iter::once(None).chain(sets().into_iter().map(Some)).collect();
    let of_set = |set: Vec<ReplicaId>| {
        prevs.clone().into_iter().map(move |prev| Register {
            term: Term(term),
            leader: set[0],
            set: set.clone(),
            prev,
            target: None,
            unclean_term: None,
        })
    };
    sets().into_iter().flat_map(of_set).collect()
}

/// Whom a recovery asks: a majority of each.
fn asked(register: &Register) -> Vec<&Vec<ReplicaId>> {
    std::iter::once(&register.set).chain(&register.prev).collect()
}

/// The set may have committed in this term. So may the one being left, before it: no leader may have come to recover what it
/// committed, for the change is not complete. Both have to be asked in the next term, too: only two majorities of one set
/// are sure to meet.
#[test]
fn a_new_term_asks_every_set_that_may_have_committed() {
    let (mut allowed, mut changes) = (0, 0);
    for old in registers(4) {
        for new in registers(5) {
            if violation(Some(&old), &new).is_some() {
                continue;
            }
            allowed += 1;
            changes += u32::from(old.set != new.set);
            let asked = asked(&new);
            assert!(asked.contains(&&old.set), "the set is not asked: {old:?} to {new:?}");
            assert!(
                old.prev.as_ref().is_none_or(|prev| asked.contains(&prev)),
                "the set being left is not asked: {old:?} to {new:?}"
            );
        }
    }
    assert!(allowed > changes && changes > 0, "{allowed} allowed, {changes} of them change the set");
}
