//! What loss the cluster survives now.
//!
//! A partition works while an active leader and a majority of its set are up and in sync. It tolerates the loss of a
//! zone if such a majority is left without that zone. The cluster does if every partition does and a majority of the
//! controllers is left as well: without one nobody appoints a new leader.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use holdfast_core::metadata::majority;

use super::facts::{ClusterState, PartitionFact};
use crate::commands::human::count;
use crate::exit;

/// Zones that a cluster needs for partitions that tolerate the loss of one.
const ZONES_NEEDED: usize = 3;

/// The cluster in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// Everything is there.
    Healthy,
    /// Everything works, and something is missing.
    Degraded,
    /// Some partitions take no records.
    PartlyUnavailable,
}

impl Health {
    pub(crate) fn exit(self) -> u8 {
        match self {
            Health::Healthy => exit::OK,
            Health::Degraded => exit::WARNING,
            Health::PartlyUnavailable => exit::CRITICAL,
        }
    }

    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Health::Healthy => "HEALTHY",
            Health::Degraded => "DEGRADED",
            Health::PartlyUnavailable => "CRITICAL",
        }
    }

    /// For programs.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Health::Healthy => "healthy",
            Health::Degraded => "degraded",
            Health::PartlyUnavailable => "partly_unavailable",
        }
    }
}

/// What losing one zone would stop that works now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Loss {
    /// Partitions of topics that did not waive it.
    pub(crate) partitions: usize,
    /// Partitions of topics that did.
    pub(crate) waived: usize,
    /// Whether the controllers would lose their majority.
    pub(crate) controllers: bool,
}

/// The verdict, and what it rests on.
#[derive(Debug, Clone)]
pub(crate) struct Judgement {
    pub(crate) health: Health,
    /// Why it is not the best one.
    pub(crate) reasons: Vec<String>,
    /// What topics that waived zones would lose.
    pub(crate) waived: Vec<String>,
    /// Partitions that take no records.
    pub(crate) unavailable: usize,
    /// Partitions with a replica that is down or behind.
    pub(crate) under_replicated: usize,
    losses: BTreeMap<String, Loss>,
    tolerates_a_zone: bool,
}

impl Judgement {
    /// What the cluster survives, in words.
    pub(crate) fn sentence(&self) -> &'static str {
        match (self.health, self.tolerates_a_zone) {
            (Health::PartlyUnavailable, _) => "partly unavailable",
            (_, true) => "tolerates the loss of any 1 zone",
            (_, false) => "tolerates no further loss",
        }
    }

    /// The same as a number.
    pub(crate) fn zone_losses_tolerated(&self) -> u32 {
        u32::from(self.tolerates_a_zone && self.health != Health::PartlyUnavailable)
    }

    /// What losing that zone would stop.
    pub(crate) fn loss_of(&self, zone: &str) -> Option<&Loss> {
        self.losses.get(zone)
    }
}

/// Judges what was found out.
pub(crate) fn judge(state: &ClusterState) -> Judgement {
    let losses: BTreeMap<String, Loss> =
        state.zones().into_iter().map(|zone| (zone.name.clone(), loss(state, &zone.name))).collect();
    let unavailable = state.partitions.iter().filter(|partition| !works(partition)).count();
    let incomplete = |partition: &&PartitionFact| !partition.replicas.iter().all(|replica| replica.good);
    let under_replicated = state.partitions.iter().filter(incomplete).count();
    let reasons = reasons(state, unavailable, under_replicated);
    let live_zones = state.zones().iter().filter(|zone| zone.brokers_live > 0).count();
    let survives = losses.values().all(|loss| loss.partitions == 0 && !loss.controllers);
    let quorum = has_quorum(state, |_| true);
    let health = match (unavailable, reasons.is_empty()) {
        (1.., _) => Health::PartlyUnavailable,
        (0, false) => Health::Degraded,
        (0, true) => Health::Healthy,
    };
    Judgement {
        health,
        reasons,
        waived: waived(state, &losses),
        unavailable,
        under_replicated,
        losses,
        tolerates_a_zone: survives && quorum && live_zones >= ZONES_NEEDED,
    }
}

/// Whether a partition takes records.
fn works(partition: &PartitionFact) -> bool {
    partition.leader.is_some() && !partition.full && holds_without(partition, None)
}

/// Whether a majority of the set is good without `zone`.
fn holds_without(partition: &PartitionFact, zone: Option<&str>) -> bool {
    let left =
        partition.replicas.iter().filter(|replica| replica.good && zone != Some(replica.zone.as_str()));
    left.count() >= majority(partition.replicas.len())
}

fn loss(state: &ClusterState, zone: &str) -> Loss {
    let stops = |partition: &&PartitionFact| works(partition) && !holds_without(partition, Some(zone));
    let (waived, others): (Vec<_>, Vec<_>) =
        state.partitions.iter().filter(stops).partition(|partition| partition.waived);
    let controllers = has_quorum(state, |_| true) && !has_quorum(state, |there| there != zone);
    Loss { partitions: others.len(), waived: waived.len(), controllers }
}

/// Whether the controllers in these zones are a majority of all.
fn has_quorum(state: &ClusterState, counts: impl Fn(&str) -> bool) -> bool {
    let up = state.controllers.iter().filter(|controller| controller.reachable && counts(&controller.zone));
    up.count() >= majority(state.controllers.len())
}

fn reasons(state: &ClusterState, unavailable: usize, under_replicated: usize) -> Vec<String> {
    let mut reasons = Vec::new();
    let all = state.partitions.len();
    if unavailable > 0 {
        reasons.push(format!("{unavailable} of {} take no records", count(all, "partition")));
    }
    if under_replicated > 0 {
        reasons.push(format!("{under_replicated} of {} lack a replica in sync", count(all, "partition")));
    }
    for zone in state.zones().iter().filter(|zone| zone.state() == "lost") {
        reasons.push(format!("zone {} is lost", zone.name));
    }
    for broker in state.brokers.iter().filter(|broker| !broker.up) {
        reasons.push(format!("broker {} in {} is {}", broker.id, broker.zone, broker.state()));
    }
    for broker in state.brokers.iter().filter(|broker| broker.disk_full) {
        reasons.push(format!(
            "the disk of broker {} in {} is nearly full: no records are taken there",
            broker.id, broker.zone
        ));
    }
    for broker in state.brokers.iter().filter(|broker| broker.failed > 0) {
        let failed = count(broker.failed as usize, "replica");
        reasons.push(format!("{failed} on broker {} in {} failed: look at its disk", broker.id, broker.zone));
    }
    for broker in state.brokers.iter().filter(|broker| broker.damaged > 0) {
        let damaged = count(broker.damaged as usize, "replica");
        reasons.push(format!(
            "{damaged} on broker {} in {} damaged, and no other broker gave what is missing: see its log",
            broker.id, broker.zone
        ));
    }
    reasons.extend(controller_reasons(state));
    let zones = state.zones().iter().filter(|zone| zone.brokers > 0).count();
    if zones < ZONES_NEEDED {
        reasons.push(format!("{} with brokers, and {ZONES_NEEDED} are needed", count(zones, "zone")));
    }
    reasons
}

fn controller_reasons(state: &ClusterState) -> Vec<String> {
    let reachable = state.controllers.iter().filter(|controller| controller.reachable).count();
    if reachable == 0 {
        return vec![
            "no controller can be reached: records flow, but leaders and topics stay as they are".to_owned(),
        ];
    }
    let missing = state.controllers.iter().filter(|controller| !controller.reachable);
    let mut reasons: Vec<String> = missing
        .map(|controller| format!("controller {} in {} is unreachable", controller.id, controller.zone))
        .collect();
    if !has_quorum(state, |_| true) {
        reasons.push("the controllers have no majority: leaders and topics stay as they are".to_owned());
    } else if !state.controllers.iter().any(|controller| controller.leader) {
        reasons.push("the controllers have no leader at the moment".to_owned());
    }
    reasons
}

/// A line per topic that waived zones.
fn waived(state: &ClusterState, losses: &BTreeMap<String, Loss>) -> Vec<String> {
    let mut topics: BTreeMap<&str, Vec<&PartitionFact>> = BTreeMap::new();
    for partition in state.partitions.iter().filter(|partition| partition.waived) {
        topics.entry(&partition.topic).or_default().push(partition);
    }
    let line = |(topic, partitions): (&str, Vec<&PartitionFact>)| {
        let stopped_by = |zone: &String| {
            let stops = |partition: &&&PartitionFact| {
                works(partition) && !holds_without(partition, Some(zone.as_str()))
            };
            let stopped = partitions.iter().filter(stops).count();
            (stopped > 0).then(|| format!("{zone} stops {stopped}"))
        };
        let stops: Vec<String> = losses.keys().filter_map(stopped_by).collect();
        let partitions = count(partitions.len(), "partition");
        let meaning = if stops.is_empty() { "any 1 zone may be lost".to_owned() } else { stops.join(", ") };
        format!("topic {topic} of {partitions}, by loss of a zone: {meaning}")
    };
    topics.into_iter().map(line).collect()
}
