//! The end of a run: the faults end, and everything has to be written everywhere within a bounded time. Then a zone dies
//! while there are no controllers, and what is led elsewhere has to go on (protocol §10).

use std::time::Duration;

use holdfast_core::replication::{Assignment, Replica};

use super::World;
use crate::coverage::Sight;
use crate::event_queue::Happening;
use crate::oracle::Violation;
use crate::plan::Healing;
use crate::workload::Producer;

/// How long partitions that are led outside of a dead zone may take to commit a record, controllers or not.
const GOES_ON_WITHIN: Duration = Duration::from_secs(10);

impl World {
    /// From the end of the faults to the end of the run. Gives how long it took until everything was written.
    pub(super) fn recover(&mut self) -> Result<Duration, Violation> {
        let dead = self.zone_to_lose();
        self.heal(dead)?;
        let healed = self.now;
        self.feed_all();
        if dead.is_some() {
            self.wait_until_settled("with a zone dead")?;
            self.coverage.see(Sight::CommitWithoutZone);
            self.revive();
        }
        self.wait_until_settled("after the last fault")?;
        let settled_after = self.now.since(healed);
        if self.plan.replicas > 1 {
            self.lose_zone_and_controllers()?;
        }
        self.scrub()?;
        Ok(settled_after)
    }

    /// A zone that every partition can do without, where the plan asks for one.
    fn zone_to_lose(&mut self) -> Option<usize> {
        if self.plan.healing == Healing::Whole {
            return None;
        }
        let zone = self.random.below(self.plan.zones);
        let inside = self.zone(zone);
        self.are_spare(&inside).then_some(zone)
    }

    /// Ends all faults: what is down comes up, what failed is started anew; but for a zone that stays dead.
    fn heal(&mut self, dead: Option<usize>) -> Result<(), Violation> {
        self.healed = true;
        self.doomed = None;
        self.network.heal();
        self.controller.heal();
        for node in 0..self.nodes.len() {
            self.nodes[node].make_whole();
            if Some(self.nodes[node].zone) == dead {
                self.nodes[node].stays_down = true;
                if self.nodes[node].running {
                    self.crash(node, false)?;
                }
                continue;
            }
            if self.nodes[node].paused > 0 {
                self.nodes[node].paused = 1;
                self.resume(node)?;
            }
            if self.nodes[node].has_failed_replica() {
                self.crash(node, false)?;
            }
            if !self.nodes[node].running {
                self.queue.plan(self.now, Happening::Boot { node });
            }
        }
        for one in 0..self.nodes.len() {
            for other in one + 1..self.nodes.len() {
                self.reconnect(one, other);
            }
        }
        Ok(())
    }

    /// The dead zone comes back.
    fn revive(&mut self) {
        for node in 0..self.nodes.len() {
            if std::mem::take(&mut self.nodes[node].stays_down) {
                self.queue.plan(self.now, Happening::Boot { node });
            }
        }
        self.feed_all();
    }

    /// One more record for every partition: the proof that it is written to.
    fn feed_all(&mut self) {
        (0..self.plan.partitions).for_each(|partition| self.feed(partition));
    }

    fn feed(&mut self, partition: usize) {
        if let Some(producer) = self.producers.iter().position(|producer| producer.partition == partition) {
            let idle = !self.producers[producer].goes_on();
            self.producers[producer].make_one_more();
            if idle {
                self.pump(producer);
            }
        }
    }

    fn wait_until_settled(&mut self, when: &str) -> Result<(), Violation> {
        let limit = self.plan.settle;
        self.wait_until(when, limit, World::is_settled)
    }

    fn wait_until(
        &mut self,
        when: &str,
        limit: Duration,
        reached: impl Fn(&World) -> bool,
    ) -> Result<(), Violation> {
        let deadline = self.now + limit;
        while !reached(self) {
            if self.now > deadline {
                let detail = format!("not settled {limit:?} {when}: {}", self.describe_standstill());
                return Err(Violation { id: "LIVE-1", detail });
            }
            self.step()?;
        }
        Ok(())
    }

    /// Whether every batch is acknowledged and every replica that runs has everything and knows it.
    fn is_settled(&self) -> bool {
        self.producers.iter().all(Producer::is_done)
            && (0..self.plan.partitions).all(|partition| self.is_partition_settled(partition))
    }

    fn is_partition_settled(&self, partition: usize) -> bool {
        let Some(register) = self.controller.register(partition) else { return false };
        let waits_for_nobody = self.nodes.iter().all(|node| !node.stays_down);
        if waits_for_nobody && !self.controller.is_still(partition) {
            return false;
        }
        let mut ends = register.set.iter().filter_map(|&replica| {
            // On a disk that was lost it waits for its substitute.
            let Some(node) = self.home_of(replica) else { return waits_for_nobody.then_some(None) };
            if self.nodes[node].stays_down {
                return None;
            }
            let slot = &self.nodes[node].slots[partition];
            // Durably: a leader that restarts without controllers has nothing else to go by.
            let known = slot.disk.state().and_then(|state| state.assignment.as_ref());
            let told = known == Some(&Assignment::from(register));
            Some(slot.replica.as_ref().filter(|_| told).and_then(whole_end))
        });
        let first = ends.next().flatten();
        let same = first.is_some() && ends.all(|end| end == first);
        // Whoever is named no more has deleted what it had (R46).
        let strangers = self.nodes.iter().filter(|node| !register.names(node.replica_id()));
        same && strangers.filter(|_| waits_for_nobody).all(|node| {
            node.slots[partition].replica.is_none() && node.slots[partition].disk.state().is_none()
        })
    }

    /// A zone dies, and no controller can be reached. What is led elsewhere goes on, also where its leader restarts.
    fn lose_zone_and_controllers(&mut self) -> Result<(), Violation> {
        let zone = self.random.below(self.plan.zones);
        let inside = self.zone(zone);
        let leader = |world: &World, partition: usize| {
            let active = |node: &&crate::node::Node| {
                node.slots[partition].replica.as_ref().is_some_and(|replica| replica.status().active)
            };
            world.nodes.iter().find(active).map(|node| node.index)
        };
        let leaders: Vec<Option<usize>> =
            (0..self.plan.partitions).map(|partition| leader(self, partition)).collect();
        self.controller.go_down();
        for &node in &inside {
            self.crash(node, false)?;
        }
        let mut going_on = Vec::new();
        for (partition, leader) in leaders.into_iter().enumerate() {
            let Some(leader) = leader.filter(|leader| !inside.contains(leader)) else { continue };
            going_on.push(partition);
            // A disk that rots unseen is a loss like the zone.
            let whole = (0..self.plan.partitions).all(|partition| !self.nodes[leader].is_at_risk(partition));
            if self.random.chance(300) && self.nodes[leader].running && whole {
                self.crash(leader, false)?;
                self.queue.plan(self.now, Happening::Boot { node: leader });
                self.coverage.see(Sight::RestartWithoutController);
            }
            self.feed(partition);
        }
        let done = |world: &World| {
            let of = |producer: &&Producer| going_on.contains(&producer.partition);
            world.producers.iter().filter(of).all(Producer::is_done)
        };
        self.wait_until("with a zone dead and no controllers", GOES_ON_WITHIN, done)?;
        self.coverage.count(Sight::CommitWithoutController, !going_on.is_empty());
        self.controller.come_back();
        for node in inside {
            self.queue.plan(self.now, Happening::Boot { node });
        }
        self.feed_all();
        self.wait_until_settled("after a zone and the controllers came back")
    }

    /// Every log is read from its files. One that is damaged where nobody had looked takes its replica out of service;
    /// it comes back by what the others have.
    fn scrub(&mut self) -> Result<(), Violation> {
        for _ in 0..3 {
            let mut whole = true;
            for node in 0..self.nodes.len() {
                for partition in 0..self.plan.partitions {
                    whole &= self.scrub_log(node, partition)?;
                }
            }
            if whole {
                return Ok(());
            }
            self.wait_until_settled("after damage was found")?;
        }
        Err(Violation { id: "LIVE-1", detail: "damage that was found is never repaired".to_owned() })
    }

    fn scrub_log(&mut self, node: usize, partition: usize) -> Result<bool, Violation> {
        let slot = &mut self.nodes[node].slots[partition];
        if slot.replica.is_none() || slot.disk.read_all().is_some() {
            slot.disk.is_whole();
            return Ok(true);
        }
        self.fail_log(node, partition, Sight::ReadFailed)?;
        self.drain(node, partition)?;
        Ok(false)
    }

    pub(super) fn judge(&mut self) -> Result<(), Violation> {
        self.witness.begin_final(self.now);
        for (partition, oracle) in self.oracles.iter().enumerate() {
            let producers = self.producers.iter().filter(|producer| producer.partition == partition);
            let written = producers.map(|producer| (producer.id, producer.records())).collect();
            let mut logs = Vec::new();
            for node in &mut self.nodes {
                let slot = &mut node.slots[partition];
                if slot.replica.is_some() {
                    logs.push((node.index, slot.disk.start(), slot.disk.read_all().unwrap_or_default()));
                }
            }
            oracle.finish(&written, &logs)?;
            for (node, ..) in &logs {
                // What was trimmed or compacted had been read before, as it were: that it might go the oracle saw to.
                self.witness.read(self.now, partition, *node, &oracle.whole(*node));
            }
        }
        // An unclean recovery may lose what was acknowledged (R37); the oracle judges how much.
        if self.plan.unclean { Ok(()) } else { self.witness.judge() }
    }

    pub(super) fn describe_standstill(&self) -> String {
        let mut parts = Vec::new();
        for partition in 0..self.plan.partitions {
            if let Some(register) = self.controller.register(partition) {
                parts.push(format!("partition {partition}: {register:?}"));
            }
            for node in &self.nodes {
                if let Some(replica) = &node.slots[partition].replica {
                    let (status, voter) = (replica.status(), replica.is_voter());
                    parts.push(format!(
                        "node {}: epoch {} active {} failed {} voter {voter} hw {} end {} leader {:?}",
                        node.index,
                        status.epoch,
                        status.active,
                        status.failed,
                        status.high_watermark,
                        status.log_end_offset,
                        status.leader.map(|leader| leader.broker.0 - 1),
                    ));
                }
            }
        }
        let down: Vec<usize> =
            self.nodes.iter().filter(|node| !node.running).map(|node| node.index).collect();
        let waiting = self.producers.iter().filter(|producer| !producer.is_done()).count();
        parts.push(format!("down {down:?}; {waiting} producers wait"));
        parts.join("; ")
    }
}

/// The end of a log that is committed up to there, on a replica that votes.
fn whole_end(replica: &Replica) -> Option<holdfast_core::Offset> {
    let status = replica.status();
    let whole = status.high_watermark == status.log_end_offset && replica.is_voter() && !status.failed;
    whole.then_some(status.log_end_offset)
}
