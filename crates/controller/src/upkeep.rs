//! What the leading controller does by itself once the worst is over: replicas that will not come back get substitutes
//! (R6, R2), moves that do not get on are called off, leaders go home (R5), and away from disks that are full.
//!
//! `core::metadata` says what could be proposed for a given map; here is when. Time is an argument. Everything is
//! counted from what this controller has seen itself since it leads: a new leader starts its clocks anew, which makes
//! upkeep later, never wrong. Nothing here is urgent; what somebody waits for is with `liveness` and `handover`.
//!
//! Invariants:  UPK-1  one replica of a partition at a time, and brokers of one zone at a time, are given up
//!              UPK-2  at most `MOVES_AT_ONCE` partitions move by upkeep's doing

mod full;
mod homing;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use holdfast_core::metadata::{
    Appointment, ClusterMap, Command, Partition, majority, replacements, set_changes,
};
use holdfast_core::{BrokerId, Incarnation, PartitionId, ReplicaId, Term, ZoneId};

use crate::reports::Reports;
use full::FullDisks;
use homing::Homing;

/// Between two looks: each goes over all partitions.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Partitions on the move at once: their copies compete with what is produced.
const MOVES_AT_ONCE: usize = 20;
/// A move to a broker that is dead for this long, or for `replace_after` where that is less, is called off.
const LEARNER_PATIENCE: Duration = Duration::from_secs(60);

/// The clocks of upkeep.
#[derive(Debug)]
pub(crate) struct Upkeep {
    replace_after: Option<Duration>,
    homing: Homing,
    full: FullDisks,
    looked: Option<Instant>,
    brokers: BTreeMap<BrokerId, Watched>,
}

/// Since when a broker is as it is.
#[derive(Debug, Clone, Copy)]
struct Watched {
    live: bool,
    incarnation: Incarnation,
    since: Instant,
}

impl Upkeep {
    /// Brokers dead for `replace_after` are replaced; those alive for `home_after` get their leaders back.
    pub(crate) fn new(replace_after: Option<Duration>, home_after: Duration) -> Self {
        let homing = Homing::new(home_after);
        Upkeep { replace_after, homing, full: FullDisks::default(), looked: None, brokers: BTreeMap::new() }
    }

    /// Another controller leads, or nobody.
    pub(crate) fn follow(&mut self) {
        self.brokers.clear();
        self.looked = None;
        self.homing.follow();
    }

    /// A broker says whether its disk is nearly full.
    pub(crate) fn disk_is_full(&mut self, broker: BrokerId, full: bool) {
        self.full.said(broker, full);
    }

    /// What of the appointments in place of leaders that got stuck helps, with disks being full.
    pub(crate) fn with_room(
        &self,
        map: &ClusterMap,
        reports: &Reports,
        appointments: Vec<Appointment>,
    ) -> Vec<Appointment> {
        appointments.into_iter().filter_map(|one| self.full.instead(map, reports, one)).collect()
    }

    /// These appointments take the place of leaders that got stuck.
    pub(crate) fn stuck(&mut self, now: Instant, map: &ClusterMap, appointments: &[Appointment]) {
        for appointment in appointments {
            let register = map.partition(appointment.partition).map(|partition| &partition.register);
            if register.is_some_and(|register| register.leader == register.set[0]) {
                self.homing.stuck_at_home(now, appointment.partition);
            }
        }
        self.homing.troubled(now);
    }

    /// What to propose. For the leader only.
    pub(crate) fn look(&mut self, now: Instant, map: &ClusterMap, reports: &mut Reports) -> Vec<Command> {
        if self.looked.is_some_and(|looked| now.saturating_duration_since(looked) < LOOK_INTERVAL) {
            return Vec::new();
        }
        self.looked = Some(now);
        reports.forget_past_terms(map);
        self.observe(now, map);
        let mut commands = self.call_off(now, map);
        commands.extend(change(map, reports));
        commands.extend(self.replace(now, map));
        commands.extend(self.leave_full_disks(map, reports));
        commands.extend(self.go_home(now, map, reports));
        commands
    }

    fn observe(&mut self, now: Instant, map: &ClusterMap) {
        self.brokers.retain(|&id, _| map.broker(id).is_some());
        for broker in map.brokers() {
            let known = self.brokers.get(&broker.id);
            if known.is_some_and(|known| known.live == broker.live && known.incarnation == broker.incarnation)
            {
                continue;
            }
            if known.is_some() {
                self.homing.troubled(now);
            }
            let seen = Watched { live: broker.live, incarnation: broker.incarnation, since: now };
            self.brokers.insert(broker.id, seen);
        }
    }

    fn is_dead_for(&self, now: Instant, id: BrokerId, time: Duration) -> bool {
        is_for(&self.brokers, now, id, false, time)
    }

    /// R43: a move whose learner will not come in sync ends before the set was changed; after that only another leader
    /// helps (R41), since going back, too, needs a majority of both sets.
    fn call_off(&self, now: Instant, map: &ClusterMap) -> Vec<Command> {
        let patience = self.replace_after.map_or(LEARNER_PATIENCE, |after| after.min(LEARNER_PATIENCE));
        let hopeless = |learner: ReplicaId| {
            let serves_it = map.broker(learner.broker).is_some_and(|broker| broker.dir == learner.dir);
            !serves_it || self.is_dead_for(now, learner.broker, patience)
        };
        let learning = map.partitions().filter(|partition| partition.register.prev.is_none());
        let lost = learning.filter(|partition| partition.register.learners().any(hopeless));
        let cancel = |partition: &Partition| {
            tracing::warn!(partition = %partition.id, "a replica moves to a broker that is gone; calling it off");
            Command::CancelReassign { partition: partition.id, expected_term: partition.register.term }
        };
        lost.take(MOVES_AT_ONCE).map(cancel).collect()
    }

    /// UPK-1: of the zones with brokers that are gone, the first one where anything can be done; and new disks at once.
    fn replace(&self, now: Instant, map: &ClusterMap) -> Option<Command> {
        let mut gone: BTreeMap<&ZoneId, BTreeSet<BrokerId>> = BTreeMap::new();
        if let Some(replace_after) = self.replace_after {
            for broker in map.brokers().filter(|broker| self.is_dead_for(now, broker.id, replace_after)) {
                gone.entry(&broker.zone).or_default().insert(broker.id);
            }
        }
        let nobody = BTreeSet::new();
        let zones = gone.values().chain([&nobody]);
        let found =
            zones.map(|gone| replacements(map, gone, MOVES_AT_ONCE)).find(|found| !found.is_empty())?;
        tracing::info!(partitions = found.len(), "replicas are lost; substitutes begin to catch up");
        Some(Command::Reassign(found))
    }

    fn leave_full_disks(&mut self, map: &ClusterMap, reports: &Reports) -> Option<Command> {
        let moves = self.full.successors(map, reports);
        if moves.is_empty() {
            return None;
        }
        tracing::warn!(partitions = moves.len(), "disks are nearly full; others lead what is led there");
        Some(Command::Appoint(moves))
    }

    fn go_home(&mut self, now: Instant, map: &ClusterMap, reports: &Reports) -> Option<Command> {
        let (brokers, home_after) = (&self.brokers, self.homing.home_after());
        let full = &self.full;
        let stable = |id| is_for(brokers, now, id, true, home_after) && !full.contains(id);
        let moves = self.homing.candidates(now, map, reports, stable);
        if moves.is_empty() {
            return None;
        }
        tracing::info!(partitions = moves.len(), "leaders go home");
        self.homing.sent(now, &moves);
        Some(Command::Appoint(moves))
    }
}

/// Whether a broker is alive, or dead, for so long.
fn is_for(
    brokers: &BTreeMap<BrokerId, Watched>,
    now: Instant,
    id: BrokerId,
    live: bool,
    time: Duration,
) -> bool {
    let known = brokers.get(&id).filter(|known| known.live == live);
    known.is_some_and(|known| now.saturating_duration_since(known.since) >= time)
}

/// R6: learners are in sync, and with them a majority of the set to come.
fn change(map: &ClusterMap, reports: &Reports) -> Option<Command> {
    let in_sync =
        |id: PartitionId, term: Term, replica| map.is_live(replica) && reports.in_sync(id, term, replica);
    let mut ready = set_changes(map, in_sync);
    ready.retain(|&(id, term)| {
        let target = map.partition(id).and_then(|partition| partition.register.target.as_ref());
        target.is_some_and(|target| {
            target.iter().filter(|&&replica| in_sync(id, term, replica)).count() >= majority(target.len())
        })
    });
    if ready.is_empty() {
        return None;
    }
    tracing::info!(partitions = ready.len(), "new replicas have caught up; changing the replica sets");
    Some(Command::ChangeSets(ready))
}
