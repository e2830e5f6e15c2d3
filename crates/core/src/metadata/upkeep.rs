//! What the controllers' leader does by itself once the worst is over: replicas that will not come back get
//! substitutes, caught-up learners become members, leaders go home. Each function looks at the map and says what to
//! propose; time and progress are told by the caller.

use std::collections::{BTreeMap, BTreeSet};

use super::{Appointment, Broker, ClusterMap, Partition, Reassignment};
use crate::{BrokerId, PartitionId, ReplicaId, Term};

/// Self-healing: substitutes for replicas on brokers that are `gone` for too long, and for those whose data directory
/// is not the one that the broker serves now. One replica of a partition at a time, in its place, in its zone; at most
/// `limit` partitions are on the move at once.
pub fn replacements(map: &ClusterMap, gone: &BTreeSet<BrokerId>, limit: usize) -> Vec<Reassignment> {
    let moving =
        |partition: &&Partition| partition.register.target.is_some() || partition.register.prev.is_some();
    let room = limit.saturating_sub(map.partitions().filter(moving).count());
    let mut load = replicas_of_brokers(map);
    let still = map.partitions().filter(|partition| !moving(partition));
    still.filter_map(|partition| replacement(map, gone, &mut load, partition)).take(room).collect()
}

fn replacement(
    map: &ClusterMap,
    gone: &BTreeSet<BrokerId>,
    load: &mut BTreeMap<BrokerId, usize>,
    partition: &Partition,
) -> Option<Reassignment> {
    let set = &partition.register.set;
    let (place, lost) = set.iter().enumerate().find(|&(_, &replica)| is_lost(map, gone, replica))?;
    let zone = &map.broker(lost.broker)?.zone;
    let fits = |broker: &&Broker| {
        let new_disk = broker.id == lost.broker && broker.dir != lost.dir;
        let other = new_disk || !set.iter().any(|replica| replica.broker == broker.id);
        broker.live && !broker.draining && broker.zone == *zone && other
    };
    let substitute = map.brokers().filter(fits).min_by_key(|broker| {
        // The same broker with a new disk first: it is the one that copies least to where.
        (broker.id != lost.broker, load.get(&broker.id).copied().unwrap_or(0), broker.id)
    })?;
    *load.entry(substitute.id).or_default() += 1;
    let mut brokers: Vec<BrokerId> = set.iter().map(|replica| replica.broker).collect();
    brokers[place] = substitute.id;
    Some(Reassignment { partition: partition.id, expected_term: partition.register.term, brokers })
}

fn replicas_of_brokers(map: &ClusterMap) -> BTreeMap<BrokerId, usize> {
    let mut load = BTreeMap::new();
    for register in map.partitions().map(|partition| &partition.register) {
        for replica in register.set.iter().copied().chain(register.learners()) {
            *load.entry(replica.broker).or_default() += 1;
        }
    }
    load
}

/// Moves that cannot end: a learner's broker is `gone`, or serves another data directory by now. To be called off, so
/// that another substitute is found.
pub fn lost_moves(map: &ClusterMap, gone: &BTreeSet<BrokerId>) -> Vec<(PartitionId, Term)> {
    let lost = |partition: &&Partition| {
        let register = &partition.register;
        register.prev.is_none() && register.learners().any(|learner| is_lost(map, gone, learner))
    };
    map.partitions().filter(lost).map(|partition| (partition.id, partition.register.term)).collect()
}

fn is_lost(map: &ClusterMap, gone: &BTreeSet<BrokerId>, replica: ReplicaId) -> bool {
    gone.contains(&replica.broker) || !map.is_kept(replica)
}

/// Partitions whose learners have all caught up: they may move to their target (R6). `in_sync` says what the leader of
/// the current term reported.
pub fn set_changes(
    map: &ClusterMap,
    in_sync: impl Fn(PartitionId, Term, ReplicaId) -> bool,
) -> Vec<(PartitionId, Term)> {
    let ready = |partition: &&Partition| {
        let register = &partition.register;
        register.target.is_some()
            && register.prev.is_none()
            && register.learners().all(|learner| in_sync(partition.id, register.term, learner))
    };
    map.partitions().filter(ready).map(|partition| (partition.id, partition.register.term)).collect()
}

/// Leaders that go home: to the first replica of the set, where its broker is `stable` and the leader reported it in
/// sync. At most `limit` at once: each costs its partition a moment.
pub fn home_moves(
    map: &ClusterMap,
    stable: impl Fn(BrokerId) -> bool,
    in_sync: impl Fn(PartitionId, Term, ReplicaId) -> bool,
    limit: usize,
) -> Vec<Appointment> {
    let away = map.partitions().filter_map(|partition| {
        let register = &partition.register;
        let home = register.set[0];
        let moves = register.leader != home
            && register.prev.is_none()
            && map.may_lead(home)
            && stable(home.broker)
            && in_sync(partition.id, register.term, home);
        moves.then_some(Appointment {
            partition: partition.id,
            expected_term: register.term,
            leader: home.broker,
        })
    });
    away.take(limit).collect()
}
