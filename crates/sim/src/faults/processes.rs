//! Processes die, stand still, and lose power with their machines, one by one and zone by zone.

use std::time::Duration;

use crate::event_queue::{Happening, Repair};
use crate::oracle::Violation;
use crate::plan::FaultKind;
use crate::world::World;

impl World {
    pub(super) fn strike_process(&mut self, kind: FaultKind, node: usize) -> Result<(), Violation> {
        match kind {
            FaultKind::Crash => self.crash_and_restart(node, false),
            FaultKind::CrashMidway => {
                self.doomed = Some((node, self.random.between(1, 6) as usize));
                Ok(())
            }
            FaultKind::CrashAll => {
                (0..self.nodes.len()).try_for_each(|node| self.crash_and_restart(node, false))
            }
            FaultKind::Restart => self.stop_and_restart(node),
            FaultKind::PowerCut | FaultKind::PowerCutStarting => {
                if !self.nodes[node].running || !self.may_lose_tail(&[node]) {
                    return Ok(());
                }
                self.crash_and_restart(node, true)?;
                if kind == FaultKind::PowerCutStarting {
                    self.break_start(node);
                }
                Ok(())
            }
            FaultKind::ZonePowerCut => {
                let inside = self.zone(self.nodes[node].zone);
                if !self.may_lose_tail(&inside) {
                    return Ok(());
                }
                inside.into_iter().try_for_each(|node| self.crash_and_restart(node, true))
            }
            FaultKind::PowerCutAll => {
                let all: Vec<usize> = (0..self.nodes.len()).collect();
                if !self.plan.unclean && !self.may_lose_tail(&all) {
                    return Ok(());
                }
                all.into_iter().try_for_each(|node| self.crash_and_restart(node, true))
            }
            FaultKind::ZoneFlaps => {
                let left = self.random.between(2, 5) as u32;
                self.flap(self.nodes[node].zone, left)
            }
            _ => {
                let zone = self.nodes[node].zone;
                let stopped = if kind == FaultKind::Pause { vec![node] } else { self.zone(zone) };
                let while_long = self.random.micros(50_000, 6_000_000);
                for node in stopped {
                    self.pause(node, while_long);
                }
                Ok(())
            }
        }
    }

    fn pause(&mut self, node: usize, while_long: Duration) {
        if self.nodes[node].running {
            self.nodes[node].paused += 1;
            self.repair_after(while_long, Repair::Resume(node));
        }
    }

    /// All processes of a zone die; a while after they are back they die again, `left` times.
    pub(super) fn flap(&mut self, zone: usize, left: u32) -> Result<(), Violation> {
        if self.healed {
            return Ok(());
        }
        for node in self.zone(zone) {
            self.crash_and_restart(node, false)?;
        }
        if left > 0 {
            let again = self.random.micros(300_000, 4_000_000);
            self.repair_after(again, Repair::Flap { zone, left: left - 1 });
        }
        Ok(())
    }

    /// The process dies and is started again after a while.
    pub(crate) fn crash_and_restart(&mut self, node: usize, power: bool) -> Result<(), Violation> {
        if !self.nodes[node].running {
            return Ok(());
        }
        self.crash(node, power)?;
        self.start_later(node);
        Ok(())
    }

    /// The process ends in order and is started again after a while.
    pub(super) fn stop_and_restart(&mut self, node: usize) -> Result<(), Violation> {
        if !self.nodes[node].running || self.nodes[node].paused > 0 {
            return Ok(());
        }
        self.close(node)?;
        self.start_later(node);
        Ok(())
    }

    pub(super) fn start_later(&mut self, node: usize) {
        let back = self.now + self.random.micros(10_000, 3_000_000);
        self.queue.plan(back, Happening::Boot { node });
    }

    /// Mode replicated stops for good where a majority forgot its tail at once (R35): that is no defect, and not done.
    fn may_lose_tail(&self, nodes: &[usize]) -> bool {
        self.plan.durability == holdfast_core::metadata::Durability::Disk || self.are_spare(nodes)
    }
}
