//! The controllers are away, cut off, wrong, or ask for much at a bad moment.

use crate::event_queue::Repair;
use crate::plan::FaultKind;
use crate::world::World;

impl World {
    pub(super) fn mislead(&mut self, kind: FaultKind, node: usize) {
        let while_long = self.random.micros(200_000, 6_000_000);
        let partition = self.random.below(self.plan.partitions);
        match kind {
            FaultKind::ControllerDown => {
                self.controller.go_down();
                self.repair_after(while_long, Repair::Controller);
            }
            FaultKind::ControllerGone => {
                self.controller.go_down();
                self.repair_after(while_long * 6, Repair::Controller);
            }
            FaultKind::ControllerCut => {
                self.controller.cut(node);
                self.repair_after(while_long, Repair::ControllerLink(node));
            }
            FaultKind::ControllerFailover => self.fail_over(),
            FaultKind::StaleCommand => self.controller.propose_again(),
            FaultKind::FalseVerdict => self.controller.fence(&[node]),
            FaultKind::Move => self.controller.reassign(partition),
            FaultKind::CancelMove => self.controller.cancel(partition),
            _ => self.controller.reappoint(partition),
        }
    }

    /// Every broker presents itself to the new leader, and says again how its partitions are.
    fn fail_over(&mut self) {
        self.controller.fail_over();
        for node in 0..self.nodes.len() {
            if !self.nodes[node].running {
                continue;
            }
            let run = self.nodes[node].run();
            for partition in 0..self.plan.partitions {
                if let Some(report) = self.nodes[node].slots[partition].report.clone() {
                    let arrival = self.now + self.random.micros(1_000, 500_000);
                    let again = crate::event_queue::Happening::Report { run, partition, report };
                    self.queue.plan(arrival, again);
                }
            }
        }
    }
}
