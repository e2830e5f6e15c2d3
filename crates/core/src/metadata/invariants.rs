//! What must hold between a register and the one that takes its place.

use super::Register;
use crate::mutant;
use crate::{ReplicaId, Term};

/// The first invariant that the step from `old` to `new` breaks, with its id.
pub(super) fn violation(old: Option<&Register>, new: &Register) -> Option<String> {
    let found = if !new.set.contains(&new.leader) {
        "META-5: the leader is no member of the set"
    } else if let Some(old) = old {
        step(old, new)?
    } else if new.term != Term(1) || new.prev.is_some() {
        "META-1: a register begins at term 1, with nothing to be left"
    } else {
        return None;
    };
    Some(format!("{found}: {old:?} became {new:?}"))
}

fn step(old: &Register, new: &Register) -> Option<&'static str> {
    let same_set = new.set == old.set;
    if new.term == old.term {
        let completes = old.prev.is_some() && new.prev.is_none();
        let kept = same_set && new.leader == old.leader && new.unclean_term == old.unclean_term;
        return if !kept {
            Some("META-1: the set, the leader or unclean changed without a new term")
        } else if new.prev != old.prev && !completes {
            Some("META-5: a set to be left appeared without a new term")
        } else {
            None
        };
    }
    if new.term != old.term.next() {
        return Some("META-1: the term did not grow by one");
    }
    if !new.is_unclean() && new.unclean_term != old.unclean_term && !mutant!(ForgetUncleanTerm) {
        return Some("META-1: the last unclean term was forgotten");
    }
    // Any majority that can have committed in `old` meets every recovery of `new`: either the same sets have to be
    // asked, or the set that committed is asked as the one being left.
    let asks_committers = (same_set && new.prev == old.prev) || new.prev.as_ref() == Some(&old.set);
    if new.set.len() != old.set.len() {
        return Some("META-5: the set has another size");
    } else if new.is_unclean() && recovers_from_what_is_left(old, new) {
        return None;
    } else if !asks_committers {
        return Some("META-5: the set that may have committed is not asked");
    }
    let goes_back = old.prev.as_ref() == Some(&new.set);
    (old.prev.is_some() && new.prev != old.prev && !goes_back)
        .then_some("META-5: a second change before the first was complete")
}

/// R37: one of the sets goes on, on the same brokers, led by a replica that was a member before; and nobody is asked
/// besides who was none.
fn recovers_from_what_is_left(old: &Register, new: &Register) -> bool {
    let brokers = |set: &[ReplicaId]| set.iter().map(|replica| replica.broker).collect::<Vec<_>>();
    let was_member = |replica| old.set.contains(replica) || old.prev.iter().flatten().any(|it| it == replica);
    let goes_on = |set: &Vec<ReplicaId>| brokers(set) == brokers(&new.set);
    was_member(&new.leader)
        && new.prev.iter().flatten().all(was_member)
        && (goes_on(&old.set) || old.prev.as_ref().is_some_and(goes_on))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BrokerId, DirId};

    fn set(brokers: [u32; 3]) -> Vec<ReplicaId> {
        brokers.map(|broker| ReplicaId { broker: BrokerId(broker), dir: DirId(1) }).to_vec()
    }

    fn register(term: u32, now: [u32; 3], prev: Option<[u32; 3]>) -> Register {
        let set_now = set(now);
        let leader = set_now[0];
        Register {
            term: Term(term),
            leader,
            set: set_now,
            prev: prev.map(set),
            target: None,
            unclean_term: None,
        }
    }

    #[test]
    fn an_unclean_term_recovers_from_members_on_the_same_brokers() {
        let (abc, abd) = ([1, 2, 3], [1, 2, 4]);
        let member = |broker| ReplicaId { broker: BrokerId(broker), dir: DirId(1) };
        let fresh = |broker| ReplicaId { broker: BrokerId(broker), dir: DirId(2) };
        let (stands, moving) = (register(4, abc, None), register(4, abd, Some(abc)));
        let unclean = |set: Vec<ReplicaId>, prev| {
            let (leader, prev) = (set[0], Some(vec![prev]));
            Register { set, prev, leader, term: Term(5), unclean_term: Some(Term(5)), ..stands.clone() }
        };
        let refilled = unclean(vec![member(1), fresh(2), fresh(3)], member(1));
        let led_by_nobody = Register { leader: fresh(2), ..refilled.clone() };
        for (old, new, allowed) in [
            (&stands, refilled.clone(), true),
            (&stands, Register { unclean_term: None, ..refilled }, false),
            (&stands, led_by_nobody, false),
            (&stands, unclean(vec![member(1), fresh(2), fresh(3)], fresh(1)), false),
            (&stands, unclean(vec![member(1), fresh(2), fresh(4)], member(1)), false),
            (&stands, unclean(vec![member(1), fresh(2)], member(1)), false),
            (&moving, unclean(vec![member(1), fresh(2), fresh(4)], member(3)), true),
            (&moving, unclean(vec![member(1), fresh(2), fresh(3)], member(4)), true),
        ] {
            let found = violation(Some(old), &new);
            assert_eq!(found.is_none(), allowed, "{old:?} to {new:?}: {found:?}");
        }
    }

    #[test]
    fn only_steps_that_ask_whoever_may_have_committed_are_allowed() {
        let (abc, abd, abe) = ([1, 2, 3], [1, 2, 4], [1, 2, 5]);
        let stands = register(4, abc, None);
        let moving = register(4, abd, Some(abc));
        for (old, new, allowed) in [
            (&stands, register(5, abc, None), true),
            (&stands, register(6, abc, None), false),
            (&stands, register(5, abd, Some(abc)), true),
            (&stands, register(5, abd, None), false),
            (&stands, register(4, abd, Some(abc)), false),
            (&moving, register(4, abd, None), true),
            (&moving, register(5, abd, Some(abc)), true),
            (&moving, register(5, abd, None), false),
            (&moving, register(5, abc, Some(abd)), true),
            (&moving, register(5, abe, Some(abd)), false),
            (&moving, register(5, abe, Some(abc)), false),
        ] {
            let found = violation(Some(old), &new);
            assert_eq!(found.is_none(), allowed, "{old:?} to {new:?}: {found:?}");
        }
    }
}
