//! Replicas whose logs cannot be opened because they are damaged: repaired from the other replicas first (R33). Until then
//! nobody here answers for them.

use std::collections::BTreeMap;

use holdfast_core::metadata::{Durability, LeaderReport, LeaderState};
use holdfast_core::replication::Assignment;
use holdfast_core::{Offset, PartitionId};
use holdfast_log::Recovery;

use super::Shard;
use crate::partition::open::OpenError;
use crate::repair::{Damaged, OpeningRepair, Repaired};

/// Those of a shard.
#[derive(Default)]
pub(super) struct DamagedReplicas {
    replicas: BTreeMap<PartitionId, DamagedReplica>,
    /// Repairs begun.
    count: u64,
}

struct DamagedReplica {
    durability: Durability,
    /// The register as last seen.
    assignment: Assignment,
    number: u64,
    /// None once it has ended.
    repair: Option<OpeningRepair>,
    /// How the last one ended.
    repaired: Option<Repaired>,
}

impl DamagedReplicas {
    /// What was done about the damage of a log that is opened again.
    pub(super) fn repaired(&self, partition: PartitionId) -> Option<Repaired> {
        self.replicas.get(&partition)?.repaired
    }

    /// Ends its repair, if there is one: its folder is left alone from here on.
    pub(super) fn remove(&mut self, partition: PartitionId) {
        self.replicas.remove(&partition);
    }
}

impl Shard {
    /// Keeps the register of a replica whose log is being repaired. Says whether it is.
    pub(super) fn waits_for_repair(
        &mut self,
        partition: PartitionId,
        durability: Durability,
        assignment: &Assignment,
    ) -> bool {
        let Some(known) = self.damaged.replicas.get_mut(&partition) else { return false };
        (known.durability, known.assignment) = (durability, assignment.clone());
        let Some(repair) = &known.repair else { return false };
        if assignment.is_unclean() {
            repair.hurry();
        }
        self.leads_nothing(partition, assignment);
        true
    }

    /// Begins to repair a log that could not be opened because of `error`, which is given back where that is of no use.
    pub(super) fn begin_repair(
        &mut self,
        partition: PartitionId,
        durability: Durability,
        assignment: &Assignment,
        error: OpenError,
    ) -> Option<OpenError> {
        let error = match error {
            OpenError::Log(error) => error,
            other => return Some(other),
        };
        // One that nothing is known of has nothing below what is trusted. One that was repaired in vain is as it is.
        let repaired = self.damaged.repaired(partition);
        let stored = self.stored.get(&partition).filter(|_| repaired != Some(Repaired::InVain));
        let Some(stored) = stored else { return Some(OpenError::Log(error)) };
        self.damaged.count += 1;
        let number = self.damaged.count;
        let damaged = Damaged {
            partition,
            number,
            error,
            recovery: Recovery::of(Some(stored), self.context.dir.was_clean()),
            high_watermark: stored.checkpoint.high_watermark,
            promise: stored.state.promise,
            reply: self.context.own.clone(),
        };
        let repair = self.context.repairs.begin(damaged);
        if assignment.is_unclean() {
            repair.hurry();
        }
        let (assignment_kept, repair) = (assignment.clone(), Some(repair));
        let replica = DamagedReplica { durability, assignment: assignment_kept, number, repair, repaired };
        self.damaged.replicas.insert(partition, replica);
        self.leads_nothing(partition, assignment);
        None
    }

    /// A repair has ended: the log is opened again.
    pub(super) fn take_repaired(&mut self, partition: PartitionId, number: u64, repaired: Repaired) {
        let known = self.damaged.replicas.get_mut(&partition);
        let Some(known) = known.filter(|known| known.number == number) else { return };
        (known.repair, known.repaired) = (None, Some(repaired));
        let (durability, assignment) = (known.durability, known.assignment.clone());
        self.assign(self.context.clock.now(), partition, durability, assignment);
    }

    /// R41: a replica that is not open cannot lead, and the controllers do not see that by its broker.
    fn leads_nothing(&self, partition: PartitionId, assignment: &Assignment) {
        self.context.reports.assigned(partition, assignment);
        if assignment.leader == self.context.me {
            let (term, log_end_offset) = (assignment.term, Offset::ZERO);
            let (state, writable, in_sync) = (LeaderState::Stalled, false, Vec::new());
            let report = LeaderReport { partition, term, state, log_end_offset, writable, in_sync };
            self.context.reports.put(report, false);
        }
    }
}
