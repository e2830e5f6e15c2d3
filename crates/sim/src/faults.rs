//! What goes wrong, and when: chosen by the seed, within what the protocol says it survives.

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast_core::metadata::{Durability, majority};

use crate::event_queue::{Happening, Repair};
use crate::network::Link;
use crate::oracle::Violation;
use crate::plan::FaultKind;
use crate::world::World;

impl World {
    /// Plans the next fault.
    pub(crate) fn plan_fault(&mut self) {
        let mean = u64::try_from(self.plan.fault_interval.as_micros()).unwrap_or(u64::MAX);
        if !self.plan.faults.is_empty() {
            let at = self.now + self.random.micros(1, mean * 2);
            self.queue.plan(at, Happening::Fault);
        }
    }

    fn choose_fault(&mut self) -> Option<FaultKind> {
        let total: u32 = self.plan.faults.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.random.below(total as usize) as u32;
        for &(kind, weight) in &self.plan.faults {
            if drawn < weight {
                return Some(kind);
            }
            drawn -= weight;
        }
        None
    }

    /// Something goes wrong.
    pub(crate) fn fault(&mut self) -> Result<(), Violation> {
        if self.healed {
            return Ok(());
        }
        self.plan_fault();
        let Some(kind) = self.choose_fault() else { return Ok(()) };
        *self.faults.entry(format!("{kind:?}")).or_insert(0) += 1;
        let node = self.random.below(self.nodes.len());
        self.inflict(kind, node)
    }

    /// This goes wrong at that broker.
    pub(crate) fn inflict(&mut self, kind: FaultKind, node: usize) -> Result<(), Violation> {
        match kind {
            FaultKind::Crash => self.crash_and_restart(node, false),
            FaultKind::CrashMidway => {
                self.doomed = Some((node, self.random.between(1, 6) as usize));
                Ok(())
            }
            FaultKind::PowerCut if self.may_lose_tail(node) => self.crash_and_restart(node, true),
            FaultKind::PowerCut => Ok(()),
            FaultKind::CrashAll => {
                (0..self.nodes.len()).try_for_each(|node| self.crash_and_restart(node, false))
            }
            FaultKind::StorageFailure => self.fail_storage(node),
            FaultKind::Isolate => {
                let others = (0..self.nodes.len()).filter(|&other| other != node);
                self.cut(others.flat_map(|other| [(node, other), (other, node)]).collect());
                Ok(())
            }
            FaultKind::CutOneWay => {
                let other = (node + 1 + self.random.below(self.nodes.len() - 1)) % self.nodes.len();
                self.cut(BTreeSet::from([(node, other)]));
                Ok(())
            }
            FaultKind::Reset => {
                let other = self.random.below(self.nodes.len());
                if other != node {
                    self.reconnect(node, other);
                }
                Ok(())
            }
            FaultKind::ControllerDown
            | FaultKind::ControllerCut
            | FaultKind::FalseVerdict
            | FaultKind::Reappoint
            | FaultKind::SlowDisk => {
                self.mislead(kind, node);
                Ok(())
            }
        }
    }

    /// Faults of the control plane, and of patience.
    fn mislead(&mut self, kind: FaultKind, node: usize) {
        let while_long = self.random.micros(200_000, 6_000_000);
        match kind {
            FaultKind::ControllerDown => {
                self.controller.go_down();
                self.repair_after(while_long, Repair::Controller);
            }
            FaultKind::ControllerCut => {
                self.controller.cut(node);
                self.repair_after(while_long, Repair::ControllerLink(node));
            }
            FaultKind::FalseVerdict => self.controller.fence(&[node]),
            FaultKind::SlowDisk => {
                self.nodes[node].slow = true;
                self.repair_after(while_long, Repair::Disk(node));
            }
            _ => {
                let partition = self.random.below(self.plan.partitions);
                self.controller.reappoint(partition);
            }
        }
    }

    fn repair_after(&mut self, after: Duration, repair: Repair) {
        self.queue.plan(self.now + after, Happening::Repair(repair));
    }

    fn cut(&mut self, links: BTreeSet<Link>) {
        self.network.cut(&links);
        let while_long = self.random.micros(100_000, 5_000_000);
        self.repair_after(while_long, Repair::Mend(links));
    }

    /// The process dies and is started again after a while.
    pub(crate) fn crash_and_restart(&mut self, node: usize, power: bool) -> Result<(), Violation> {
        if !self.nodes[node].running {
            return Ok(());
        }
        self.crash(node, power)?;
        let back = self.now + self.random.micros(10_000, 3_000_000);
        self.queue.plan(back, Happening::Boot { node });
        Ok(())
    }

    /// Mode replicated stops for good where a majority forgot its tail at once (R35): that is no defect, and not done.
    fn may_lose_tail(&self, node: usize) -> bool {
        self.plan.durability == Durability::Disk || self.is_spare(node)
    }

    /// Whether a majority of voters is left without this broker.
    fn is_spare(&self, node: usize) -> bool {
        let others = self.nodes.iter().filter(|other| other.index != node && !other.is_at_risk()).count();
        others >= majority(self.nodes.len())
            || (self.nodes.len() == 1 && self.plan.durability == Durability::Disk)
    }

    fn fail_storage(&mut self, node: usize) -> Result<(), Violation> {
        let host = &self.nodes[node];
        if !host.running || host.is_at_risk() || !self.is_spare(node) {
            return Ok(());
        }
        let partition = self.random.below(self.plan.partitions);
        if self.nodes[node].slots[partition].replica.is_none() {
            return Ok(());
        }
        if self.random.chance(500) {
            self.nodes[node].slots[partition].disk.fail_next_write();
            return Ok(());
        }
        self.fail_log(node, partition)?;
        self.drain(node, partition)
    }
}
