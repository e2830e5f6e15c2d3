//! Disks fail, rot, crawl and get lost, on so few replicas at once that the others can make up for it.

use holdfast_core::DirId;
use holdfast_core::metadata::{Register, majority};

use crate::coverage::Sight;
use crate::disk::Break;
use crate::event_queue::Repair;
use crate::oracle::Violation;
use crate::plan::FaultKind;
use crate::world::World;

impl World {
    pub(super) fn strike_disk(&mut self, kind: FaultKind, node: usize) -> Result<(), Violation> {
        if kind == FaultKind::SlowDisk {
            self.nodes[node].slow = true;
            let while_long = self.random.micros(200_000, 6_000_000);
            self.repair_after(while_long, Repair::Disk(node));
            return Ok(());
        }
        let at_risk = (0..self.plan.partitions).any(|partition| self.nodes[node].is_at_risk(partition));
        if at_risk || !self.nodes[node].running || !self.are_spare(&[node]) {
            return Ok(());
        }
        match kind {
            FaultKind::DiskError => {
                let partition = self.random.below(self.plan.partitions);
                let what = self.random.pick(&Break::ALL).unwrap_or(Break::Write);
                self.nodes[node].slots[partition].disk.break_next(what);
                Ok(())
            }
            FaultKind::Wipe => self.wipe(node),
            _ => self.rot(node, kind == FaultKind::Rot),
        }
    }

    /// The process dies, and before it is started again a bit turns.
    fn rot(&mut self, node: usize, below: bool) -> Result<(), Violation> {
        self.crash_and_restart(node, !below)?;
        let partition = self.random.below(self.plan.partitions);
        let host = &mut self.nodes[node];
        let turned = host.slots[partition].disk.rot(below, &mut host.random);
        self.coverage.count(Sight::BitTurned, turned);
        Ok(())
    }

    /// The data directory is lost: what comes back is another replica (R46).
    fn wipe(&mut self, node: usize) -> Result<(), Violation> {
        self.crash(node, true)?;
        let host = &mut self.nodes[node];
        host.dir = DirId(host.random.word());
        for (partition, slot) in host.slots.iter_mut().enumerate() {
            slot.clear(&self.plan);
            slot.version = 0;
            self.oracles[partition].wiped(node);
        }
        self.coverage.see(Sight::Wiped);
        self.start_later(node);
        Ok(())
    }

    /// Many data directories are lost at once. Where no replica of a partition was left, nothing could bring it back.
    pub(super) fn wipe_most(&mut self) -> Result<(), Violation> {
        let first = self.random.below(self.nodes.len());
        let mut lost = Vec::new();
        for step in 0..self.nodes.len() {
            let node = (first + step) % self.nodes.len();
            let struck = self.random.chance(750);
            let left =
                |partition| self.keepers(partition).any(|other| other != node && !lost.contains(&other));
            if struck && (0..self.plan.partitions).all(left) {
                lost.push(node);
            }
        }
        lost.into_iter().try_for_each(|node| self.wipe(node))
    }

    /// Nodes that have a replica of the set, or of the one being left.
    fn keepers(&self, partition: usize) -> impl Iterator<Item = usize> {
        let register = self.controller.register(partition);
        let sets = register.into_iter().flat_map(|Register { set, prev, .. }| {
            // What an earlier order left leads only as a member of the set.
            std::iter::once(set).chain(prev.as_ref().filter(|prev| prev.len() == set.len()))
        });
        sets.flatten().filter_map(|&replica| self.home_of(replica))
    }

    /// The next start of the process breaks off in the middle.
    pub(super) fn break_start(&mut self, node: usize) {
        for slot in &mut self.nodes[node].slots {
            let after = self.random.between(0, 20);
            slot.disk.break_after(after);
        }
    }

    /// Whether every set, the one to move to as well, keeps a majority of voters without these brokers.
    pub(crate) fn are_spare(&self, nodes: &[usize]) -> bool {
        (0..self.plan.partitions).all(|partition| {
            let Some(register) = self.controller.register(partition) else { return false };
            let mut sets = std::iter::once(&register.set).chain(&register.prev).chain(&register.target);
            sets.all(|set| {
                let counts = |node: usize| !nodes.contains(&node) && !self.nodes[node].is_at_risk(partition);
                let left = set.iter().filter(|&&replica| self.home_of(replica).is_some_and(counts)).count();
                left >= majority(set.len())
            })
        })
    }

    /// The node that has a replica; none if its data directory was lost.
    pub(crate) fn home_of(&self, replica: holdfast_core::ReplicaId) -> Option<usize> {
        self.nodes.iter().position(|node| node.replica_id() == replica)
    }
}
