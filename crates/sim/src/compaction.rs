//! What a broker's compactor does (R45): now and then a replica may drop tombstones, and its log is gone over.

use std::collections::BTreeSet;

use holdfast_core::metadata::Durability;
use holdfast_core::replication::{Event, Replica};
use holdfast_core::{Offset, mutant};
use holdfast_log::PassEnd;

use crate::coverage::Sight;
use crate::event_queue::{Happening, Run};
use crate::oracle::Violation;
use crate::world::World;

/// Changes to the disk in a pass at most, or a few more.
const CHANGES: usize = 30;

impl World {
    /// Some replicas may drop tombstones, as far as they are cleaned and old enough, and a pass over their logs is to come.
    pub(crate) fn offer_compaction(
        &mut self,
        partition: usize,
        running: &BTreeSet<usize>,
    ) -> Result<(), Violation> {
        if self.plan.keys == 0 {
            return Ok(());
        }
        for &node in running {
            let slot = &self.nodes[node].slots[partition];
            if slot.replica.is_none() || !self.random.chance(250) {
                continue;
            }
            let run = self.nodes[node].run();
            let cleaned = slot.disk.compacted().cleaned_end;
            if self.random.chance(800) {
                // The higher, the younger.
                let below = Offset(self.random.between(cleaned.0 / 2, cleaned.0));
                self.tell(node, partition, Event::DropTombstones { below })?;
            }
            let begins = self.now + self.random.micros(0, 100_000);
            self.queue.plan(begins, Happening::Compact { run, partition });
        }
        Ok(())
    }

    /// A pass over a log, which takes no time: what happens meanwhile happens before it or after it, or ends the process in the
    /// middle.
    pub(crate) fn compact(&mut self, run: Run, partition: usize) -> Result<(), Violation> {
        let host = &mut self.nodes[run.node];
        if !host.is_running(run) || host.slots[partition].disk.failed() {
            return Ok(());
        }
        let Some(below) = host.slots[partition].replica.as_ref().map(cleanable_end) else { return Ok(()) };
        let (dies, cramped) = (host.random.chance(100) && !self.healed, host.random.chance(200));
        let disk = &mut host.slots[partition].disk;
        if dies {
            disk.break_after(host.random.below(CHANGES) as u64);
        }
        let now_ms = (self.now.0 / 1_000) as i64;
        let outcome = disk.compact(below, now_ms, cramped);
        self.trace(|| {
            format!("node {} partition {partition} compacted below {below}: {outcome:?}", run.node)
        });
        if dies {
            // With durability memory a power cut is a loss, of which not too many may come at once.
            let power = self.plan.durability == Durability::Disk && self.random.chance(700);
            self.coverage.see(Sight::DiedCompacting);
            return self.crash_and_restart(run.node, power);
        }
        let damaged = matches!(&outcome, Ok(outcome) if matches!(outcome.ended, PassEnd::Damaged(_)));
        // A pass that fails leaves the log as it was, or at any rate whole.
        let disk = &mut self.nodes[run.node].slots[partition].disk;
        let Some(found) = disk.read_all().filter(|_| !damaged) else {
            self.fail_log(run.node, partition, Sight::ReadFailed)?;
            return self.drain(run.node, partition);
        };
        self.oracles[partition].compacted(run.node, &found)?;
        let cleaned_end = self.nodes[run.node].slots[partition].disk.compacted().cleaned_end;
        self.tell(run.node, partition, Event::Cleaned { cleaned_end })
    }
}

/// Up to where a pass may look.
pub(crate) fn cleanable_end(replica: &Replica) -> Offset {
    let status = replica.status();
    if mutant!(CompactAboveWatermark) {
        return status.log_end_offset;
    }
    status.high_watermark.min(status.durable_high_watermark).min(replica.durable_end())
}
