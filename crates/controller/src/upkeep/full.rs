//! Brokers whose disk is nearly full: they take no records, so others lead what they lead where one with room can.
//!
//! A preference (R5), by what brokers say in their heartbeats, kept by every controller. Nobody is appointed who is not in
//! sync: the partition takes no records as it is, and could do without leader for longer. They come home like others do,
//! once there is room.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_core::metadata::{Appointment, ClusterMap, Partition};
use holdfast_core::{BrokerId, ReplicaId};

use crate::reports::Reports;

/// Appointments in one entry at most.
const APPOINT_AT_ONCE: usize = 10_000;

/// The brokers that said so last.
#[derive(Debug, Default)]
pub(super) struct FullDisks {
    brokers: BTreeSet<BrokerId>,
}

impl FullDisks {
    pub(super) fn said(&mut self, broker: BrokerId, full: bool) {
        if full {
            self.brokers.insert(broker);
        } else {
            self.brokers.remove(&broker);
        }
    }

    pub(super) fn contains(&self, broker: BrokerId) -> bool {
        self.brokers.contains(&broker)
    }

    /// Who is to lead in place of them.
    pub(super) fn successors(&mut self, map: &ClusterMap, reports: &Reports) -> Vec<Appointment> {
        // What is gone says no more.
        self.brokers.retain(|&id| map.broker(id).is_some_and(|broker| broker.live));
        if self.brokers.is_empty() {
            return Vec::new();
        }
        let mut led: BTreeMap<BrokerId, usize> = BTreeMap::new();
        for partition in map.partitions() {
            *led.entry(partition.register.leader.broker).or_default() += 1;
        }
        let theirs = map.partitions().filter(|partition| self.contains(partition.register.leader.broker));
        let appointments = theirs.filter_map(|partition| self.successor(map, reports, &mut led, partition));
        appointments.take(APPOINT_AT_ONCE).collect()
    }

    /// Who is to take the place of a leader that got stuck: another than one without room, if there is one. Where there is none, a
    /// leader whose marker is committed stays: it serves what is stored, and who comes after it could not say that it does.
    pub(super) fn instead(
        &self,
        map: &ClusterMap,
        reports: &Reports,
        appointment: Appointment,
    ) -> Option<Appointment> {
        if !self.contains(appointment.leader) {
            return Some(appointment);
        }
        let register = &map.partition(appointment.partition)?.register;
        let fits = |replica: &&ReplicaId| {
            **replica != register.leader && map.may_lead(**replica) && !self.contains(replica.broker)
        };
        match register.set.iter().find(fits) {
            Some(other) => Some(Appointment { leader: other.broker, ..appointment }),
            None => (!reports.writable(appointment.partition, register.term)).then_some(appointment),
        }
    }

    /// Of those in sync, with room, the one that leads least.
    fn successor(
        &self,
        map: &ClusterMap,
        reports: &Reports,
        led: &mut BTreeMap<BrokerId, usize>,
        partition: &Partition,
    ) -> Option<Appointment> {
        let register = &partition.register;
        let fits = register.set.iter().copied().filter(|&replica| {
            map.may_lead(replica)
                && !self.contains(replica.broker)
                && reports.in_sync(partition.id, register.term, replica)
        });
        let successor = fits.min_by_key(|replica| led.get(&replica.broker).copied().unwrap_or(0))?;
        *led.entry(successor.broker).or_default() += 1;
        Some(Appointment { partition: partition.id, expected_term: register.term, leader: successor.broker })
    }
}
