//! Where replicas go: one per zone, and from a bounded number of copysets.
//!
//! The k-th brokers of all zones form copyset k, so that the number of peers of a broker, and what one failure can
//! touch, does not grow with the number of partitions (Cidon et al., Copysets, 2013).

use std::collections::BTreeMap;

use super::{Broker, ClusterMap, MetadataError, TopicSpec};
use crate::mutant;
use crate::{BrokerId, PartitionId, ReplicaId, TopicId, ZoneId};

/// Replicas that must hold a batch before it is committed: `floor(n/2)+1`.
pub fn majority(replicas: usize) -> usize {
    replicas / 2 + 1
}

/// Rule R4: no zone holds more than `ceil(n/2)-1` replicas, so that any one zone may vanish and a majority is left.
pub fn zone_rule_holds<'a>(zones: impl IntoIterator<Item = &'a ZoneId>) -> bool {
    let mut counts: BTreeMap<&ZoneId, usize> = BTreeMap::new();
    let mut replicas = 0;
    for zone in zones {
        *counts.entry(zone).or_default() += 1;
        replicas += 1;
    }
    let allowed = usize::div_ceil(replicas, 2).saturating_sub(1);
    counts.values().all(|&count| count <= allowed) || mutant!(ZoneHoldsMajority)
}

/// Chooses a replica set per partition of a new topic.
///
/// A zone whose brokers are all fenced still gets its replica, which catches up on return, as long as a majority of
/// every set is alive.
pub(super) fn place(map: &ClusterMap, spec: &TopicSpec) -> Result<Vec<Vec<ReplicaId>>, MetadataError> {
    let mut zones: BTreeMap<&ZoneId, Vec<&Broker>> = BTreeMap::new();
    for broker in map.brokers() {
        zones.entry(&broker.zone).or_default().push(broker);
    }
    let replication = spec.replication as usize;
    if zones.len() < replication {
        return Err(MetadataError::NotEnoughZones {
            replication: spec.replication,
            needed: spec.replication,
            available: zones.len() as u32,
            zones: names(zones.keys()),
        });
    }
    let zones: Vec<Vec<&Broker>> = zones.into_values().collect();
    let copysets = zones.iter().map(Vec::len).max().unwrap_or(0);
    let first = map.partitions().count();
    (0..spec.partitions as usize)
        .map(|index| {
            let turn = first + index;
            // Both move on with every turn, so that the first members, where leaders are at home, spread over the zones
            // within each topic and over all brokers in the long run.
            let round = least_common_multiple(copysets, zones.len());
            let (copyset, first_zone) = (turn % copysets, turn + turn / round);
            let set: Vec<&Broker> = (0..replication)
                .map(|nth| member(&zones[(first_zone + nth) % zones.len()], copyset))
                .collect();
            let live = set.iter().filter(|broker| broker.live).count();
            if live < majority(replication) {
                return Err(MetadataError::NotEnoughLiveBrokers {
                    replication: spec.replication,
                    live: names(map.brokers().filter(|broker| broker.live).map(|broker| broker.id)),
                });
            }
            Ok(set.into_iter().map(Broker::replica).collect())
        })
        .collect()
}

fn least_common_multiple(a: usize, b: usize) -> usize {
    let (mut divisor, mut rest) = (a, b);
    while rest > 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    a / divisor * b
}

/// The zone's broker of that copyset, or the next live one after it.
fn member<'a>(zone: &[&'a Broker], copyset: usize) -> &'a Broker {
    let turns = (0..zone.len()).map(|step| zone[(copyset + step) % zone.len()]);
    turns.clone().find(|broker| broker.live).unwrap_or_else(|| zone[copyset % zone.len()])
}

/// Chooses leaders so that those of each topic spread evenly over live brokers, and among equals those of all topics.
pub(super) struct LeaderChoice {
    led: BTreeMap<BrokerId, usize>,
    led_of_topic: BTreeMap<(TopicId, BrokerId), usize>,
}

impl LeaderChoice {
    /// Counts what every broker leads now.
    pub(super) fn new(map: &ClusterMap) -> Self {
        let mut choice = LeaderChoice { led: BTreeMap::new(), led_of_topic: BTreeMap::new() };
        for partition in map.partitions().filter(|partition| map.is_live(partition.register.leader)) {
            choice.count(partition.id.topic, partition.register.leader.broker);
        }
        choice
    }

    /// The first of the set if it may lead, else as `choose`.
    pub(super) fn prefer(
        &mut self,
        map: &ClusterMap,
        id: PartitionId,
        set: &[ReplicaId],
    ) -> Option<ReplicaId> {
        let Some(&home) = set.first().filter(|&&home| map.may_lead(home)) else {
            return self.choose(map, id, set);
        };
        self.count(id.topic, home.broker);
        Some(home)
    }

    /// The live member of the set that leads least; among equals the first from position `turn` on.
    pub(super) fn choose(
        &mut self,
        map: &ClusterMap,
        id: PartitionId,
        set: &[ReplicaId],
    ) -> Option<ReplicaId> {
        let turn = id.index as usize;
        let load = |broker: BrokerId| {
            let of_topic = self.led_of_topic.get(&(id.topic, broker)).copied().unwrap_or(0);
            (of_topic, self.led.get(&broker).copied().unwrap_or(0))
        };
        let leader = (0..set.len())
            .map(|step| set[(turn + step) % set.len()])
            .filter(|&replica| map.may_lead(replica))
            .min_by_key(|replica| load(replica.broker))?;
        self.count(id.topic, leader.broker);
        Some(leader)
    }

    fn count(&mut self, topic: TopicId, broker: BrokerId) {
        *self.led.entry(broker).or_default() += 1;
        *self.led_of_topic.entry((topic, broker)).or_default() += 1;
    }
}

fn names(items: impl IntoIterator<Item = impl ToString>) -> String {
    let names: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
