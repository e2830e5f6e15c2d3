//! What goes wrong, and when: chosen by the seed, within what the protocol says it survives.

mod control;
mod disks;
mod links;
mod processes;

use std::time::Duration;

use crate::event_queue::{Happening, Repair};
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
        self.trace(|| format!("{kind:?} at node {node}"));
        self.inflict(kind, node)
    }

    /// This goes wrong at that broker.
    fn inflict(&mut self, kind: FaultKind, node: usize) -> Result<(), Violation> {
        match kind {
            FaultKind::Crash
            | FaultKind::CrashMidway
            | FaultKind::CrashAll
            | FaultKind::Restart
            | FaultKind::PowerCut
            | FaultKind::PowerCutStarting
            | FaultKind::ZonePowerCut
            | FaultKind::PowerCutAll
            | FaultKind::ZoneFlaps
            | FaultKind::Pause
            | FaultKind::ZonePause => self.strike_process(kind, node),
            FaultKind::Isolate
            | FaultKind::Mute
            | FaultKind::Deaf
            | FaultKind::CutOneWay
            | FaultKind::Bridge
            | FaultKind::ZoneCut
            | FaultKind::Reset => {
                self.strike_links(kind, node);
                Ok(())
            }
            FaultKind::DiskError
            | FaultKind::Rot
            | FaultKind::RotTail
            | FaultKind::SlowDisk
            | FaultKind::Wipe => self.strike_disk(kind, node),
            FaultKind::WipeMost => self.wipe_most(),
            FaultKind::ControllerDown
            | FaultKind::ControllerGone
            | FaultKind::ControllerCut
            | FaultKind::ControllerFailover
            | FaultKind::StaleCommand
            | FaultKind::FalseVerdict
            | FaultKind::Reappoint
            | FaultKind::Move
            | FaultKind::CancelMove => {
                self.mislead(kind, node);
                Ok(())
            }
            FaultKind::Drain => {
                let incarnation = self.nodes[node].incarnation;
                self.controller.drain(node, incarnation);
                let stop = self.random.micros(100_000, 2_000_000);
                self.repair_after(stop, Repair::Stop(node));
                Ok(())
            }
        }
    }

    fn repair_after(&mut self, after: Duration, repair: Repair) {
        self.queue.plan(self.now + after, Happening::Repair(repair));
    }

    /// The nodes of a zone.
    pub(crate) fn zone(&self, zone: usize) -> Vec<usize> {
        self.nodes.iter().filter(|node| node.zone == zone).map(|node| node.index).collect()
    }

    /// The end of a fault.
    pub(crate) fn repair(&mut self, repair: &Repair) -> Result<(), Violation> {
        match repair {
            Repair::Mend(links) => self.mend(links),
            Repair::Controller => self.controller.come_back(),
            Repair::ControllerLink(node) => self.controller.mend(*node),
            Repair::Disk(node) => self.nodes[*node].slow = false,
            Repair::Resume(node) => self.resume(*node)?,
            Repair::Flap { zone, left } => self.flap(*zone, *left)?,
            // Not while it stands still; but a broker that was drained does stop.
            Repair::Stop(node) if self.nodes[*node].paused > 0 => {
                self.repair_after(Duration::from_secs(1), Repair::Stop(*node));
            }
            Repair::Stop(node) => self.stop_and_restart(*node)?,
            Repair::Restart(node) => {
                if self.nodes[*node].has_failed_replica() {
                    self.crash_and_restart(*node, false)?;
                }
            }
        }
        Ok(())
    }
}
