//! Brokers that are about to stop: others lead what they lead before they go.
//!
//! A broker says in its heartbeats that it leaves. The leading controller appoints, for everything that it leads, a
//! member that is in sync where there is one (R5), so that nothing has to be copied first, and notes in the map that the
//! broker is draining: it is appointed to nothing any more, and what was missed moves with that entry.

use std::collections::BTreeMap;

use holdfast_core::metadata::{Appointment, ClusterMap, Command, Partition};
use holdfast_core::{BrokerId, Incarnation};

use crate::liveness::Run;
use crate::reports::Reports;

/// Runs that said they are about to stop and of which the map does not say so yet.
#[derive(Debug, Default)]
pub(crate) struct Leaving {
    runs: BTreeMap<BrokerId, Incarnation>,
}

impl Leaving {
    /// A broker says that it leaves. Says whether anything has to be done about it.
    pub(crate) fn said(&mut self, map: &ClusterMap, run: Run) -> bool {
        let leaves = is_undrained(map, run);
        if leaves {
            self.runs.insert(run.0, run.1);
        }
        leaves
    }

    /// What to propose. Empty once the map says the same.
    pub(crate) fn hand_over(&mut self, map: &ClusterMap, reports: &Reports) -> Vec<Command> {
        self.runs.retain(|&id, &mut incarnation| is_undrained(map, (id, incarnation)));
        if self.runs.is_empty() {
            return Vec::new();
        }
        let mut commands = Vec::new();
        let appointments = self.appointments(map, reports);
        let brokers: Vec<u32> = self.runs.keys().map(|id| id.0).collect();
        tracing::info!(
            ?brokers,
            leaders = appointments.len(),
            "brokers are about to stop; moving their leaders"
        );
        if !appointments.is_empty() {
            commands.push(Command::Appoint(appointments));
        }
        let drains = self.runs.iter();
        commands.extend(drains.map(|(&id, &incarnation)| Command::DrainBroker { id, incarnation }));
        commands
    }

    fn appointments(&self, map: &ClusterMap, reports: &Reports) -> Vec<Appointment> {
        let mut led: BTreeMap<BrokerId, usize> = BTreeMap::new();
        for partition in map.partitions() {
            *led.entry(partition.register.leader.broker).or_default() += 1;
        }
        let theirs = map.partitions().filter(|partition| {
            let leader = partition.register.leader;
            self.runs.contains_key(&leader.broker) && map.is_live(leader)
        });
        theirs.filter_map(|partition| self.appointment(map, reports, &mut led, partition)).collect()
    }

    /// In sync first, then who leads least.
    fn appointment(
        &self,
        map: &ClusterMap,
        reports: &Reports,
        led: &mut BTreeMap<BrokerId, usize>,
        partition: &Partition,
    ) -> Option<Appointment> {
        let register = &partition.register;
        let stays = register.set.iter().copied().filter(|&replica| map.may_lead(replica));
        let others = stays.filter(|replica| !self.runs.contains_key(&replica.broker));
        let successor = others.min_by_key(|&replica| {
            let lags = !reports.in_sync(partition.id, register.term, replica);
            (lags, led.get(&replica.broker).copied().unwrap_or(0))
        })?;
        *led.entry(successor.broker).or_default() += 1;
        Some(Appointment { partition: partition.id, expected_term: register.term, leader: successor.broker })
    }
}

fn is_undrained(map: &ClusterMap, (id, incarnation): Run) -> bool {
    map.broker(id).is_some_and(|known| known.live && !known.draining && known.incarnation == incarnation)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use holdfast_core::Offset;
    use holdfast_core::metadata::{LeaderReport, LeaderState};

    use super::*;
    use crate::upkeep::testing::Cluster;

    fn hand_over(leaving: &mut Leaving, cluster: &mut Cluster, reports: &Reports) {
        for command in leaving.hand_over(cluster.map(), reports) {
            cluster.apply(command);
        }
    }

    fn led_by(cluster: &Cluster, broker: u32) -> usize {
        let led = |partition: &&Partition| partition.register.leader.broker == BrokerId(broker);
        cluster.map().partitions().filter(led).count()
    }

    #[test]
    fn a_broker_that_leaves_hands_over_to_who_is_in_sync() {
        let mut cluster = Cluster::new(&[(1, "a"), (2, "b"), (3, "c")]);
        cluster.create(12);
        let (mut leaving, mut reports) = (Leaving::default(), Reports::default());
        // Whoever leads says that only broker 3 keeps up with it.
        for partition in cluster.map().partitions().cloned().collect::<Vec<_>>() {
            let register = &partition.register;
            let in_sync = register.set.iter().copied();
            let in_sync =
                in_sync.filter(|&replica| replica == register.leader || replica.broker == BrokerId(3));
            let report = LeaderReport {
                partition: partition.id,
                term: register.term,
                state: LeaderState::Active,
                log_end_offset: Offset(1),
                writable: true,
                in_sync: in_sync.collect(),
            };
            reports.reported(Instant::now(), cluster.map(), register.leader.broker, &report, false);
        }
        let run = (BrokerId(1), Incarnation(1));
        assert!(leaving.said(cluster.map(), run));
        hand_over(&mut leaving, &mut cluster, &reports);
        assert_eq!([led_by(&cluster, 1), led_by(&cluster, 2), led_by(&cluster, 3)], [0, 4, 8]);
        assert!(cluster.map().broker(BrokerId(1)).unwrap().draining);
        assert!(leaving.hand_over(cluster.map(), &reports).is_empty(), "once");
        assert!(!leaving.said(cluster.map(), run));
        assert!(!leaving.said(cluster.map(), (BrokerId(2), Incarnation(9))), "another run");
    }

    #[test]
    fn brokers_that_leave_together_do_not_hand_over_to_each_other() {
        let mut cluster = Cluster::new(&[(1, "a"), (2, "b"), (3, "c")]);
        cluster.create(12);
        let (mut leaving, reports) = (Leaving::default(), Reports::default());
        for id in [1, 2] {
            leaving.said(cluster.map(), (BrokerId(id), Incarnation(1)));
        }
        hand_over(&mut leaving, &mut cluster, &reports);
        assert_eq!(led_by(&cluster, 3), 12);
        // The last one keeps what nobody else could lead.
        leaving.said(cluster.map(), (BrokerId(3), Incarnation(1)));
        hand_over(&mut leaving, &mut cluster, &reports);
        assert_eq!(led_by(&cluster, 3), 12);
    }
}
