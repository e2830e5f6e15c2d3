//! R37: what an operator's unclean order makes of a register whose replicas are lost.
//!
//! A replica is *lost* when its broker serves another data directory; one whose broker is merely dead is not, for it may
//! come back. A majority that is left is asked as in any term, and then everything that a majority had on disk survives.
//! Where none is left, nobody can vouch for what was committed: the term recovers from all that is left, and new
//! directories of the same brokers make the set whole again. They hold nothing and vouch for nothing, like any member
//! that is new (R2): what is left is kept as the set being left, so that every recovery asks it, in later terms too,
//! until the marker is committed by the new set (R3).

use super::placement::majority;
use super::{Broker, ClusterMap, Register};
use crate::mutant;
use crate::{BrokerId, ReplicaId};

/// Who may lead an unclean recovery: members of the set, or of the one being left, that are alive with their data.
/// Members of the set come first.
pub fn unclean_leaders<'a>(
    map: &'a ClusterMap,
    register: &'a Register,
) -> impl Iterator<Item = ReplicaId> + 'a {
    members(register).filter(|replica| recover_from(map, register, replica.broker).is_some())
}

/// The register of an unclean recovery that `leader` leads, term and flag still as they were; none where that broker
/// cannot lead it.
pub(super) fn recover_from(map: &ClusterMap, register: &Register, leader: BrokerId) -> Option<Register> {
    let may_lead = |replica: &ReplicaId| replica.broker == leader && map.may_lead(*replica);
    let fresh = map.broker(leader).map(Broker::replica).filter(|_| mutant!(LeadUncleanWithNothing));
    let leader = members(register).chain(fresh).find(may_lead)?;
    let (set, prev) = sets_left(map, register, leader);
    set.contains(&leader).then(|| Register { leader, set, prev, target: None, ..register.clone() })
}

/// The set to go on with, and whom to ask besides.
fn sets_left(
    map: &ClusterMap,
    Register { set, prev, .. }: &Register,
    leader: ReplicaId,
) -> (Vec<ReplicaId>, Option<Vec<ReplicaId>>) {
    let left = |set: &[ReplicaId]| -> Vec<ReplicaId> {
        set.iter().copied().filter(|&replica| map.is_kept(replica)).collect()
    };
    let has_majority = |set: &[ReplicaId]| {
        let enough = left(set).len() >= majority(set.len()) && !mutant!(GiveUpMajority);
        enough || mutant!(KeepLostReplicas)
    };
    let asked = |left: Vec<ReplicaId>| (!left.is_empty() && !mutant!(ForgetWhatIsLeft)).then_some(left);
    // What an earlier order left is asked, too, and is no set of its own.
    let whole_prev = prev.as_ref().filter(|prev| prev.len() == set.len());
    match (has_majority(set), prev) {
        (true, None) => (set.clone(), None),
        (true, Some(prev)) if has_majority(prev) => (set.clone(), Some(prev.clone())),
        (true, Some(prev)) => (set.clone(), asked(left(prev))),
        (false, prev) => match whole_prev.filter(|prev| has_majority(prev)) {
            Some(prev) => (prev.clone(), asked(left(set))),
            None => {
                let goes_on = whole_prev.filter(|_| !set.contains(&leader)).unwrap_or(set);
                let mut all = left(set);
                all.extend(left(prev.as_deref().unwrap_or_default()));
                all.sort_unstable();
                all.dedup();
                (whole_again(map, goes_on), asked(all))
            }
        },
    }
}

/// New directories in the places of lost ones.
fn whole_again(map: &ClusterMap, set: &[ReplicaId]) -> Vec<ReplicaId> {
    set.iter().map(|&replica| map.broker(replica.broker).map_or(replica, |broker| broker.replica())).collect()
}

fn members(register: &Register) -> impl Iterator<Item = ReplicaId> + '_ {
    let left = register.prev.iter().flatten().filter(|replica| !register.set.contains(replica));
    register.set.iter().chain(left).copied()
}
