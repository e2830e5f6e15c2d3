//! Replicas for which there is no room on the disk when they are to be opened or made: tried again until there is.
//!
//! Invariant: at most one register of each partition waits here.

use std::error::Error;
use std::io;

use holdfast_core::PartitionId;
use holdfast_core::metadata::Durability;
use holdfast_core::replication::Assignment;
use holdfast_log::is_full;

use super::Shard;

impl Shard {
    /// Keeps the register for later where the replica could not be opened for want of room. Says whether it does.
    pub(super) fn waits_for_room(
        &mut self,
        partition: PartitionId,
        durability: Durability,
        assignment: Assignment,
        error: &(dyn Error + 'static),
    ) -> bool {
        let full = is_for_want_of_room(error);
        if full {
            self.context.space.denied();
            if self.unopened.insert(partition, (durability, assignment)).is_none() {
                tracing::error!(
                    %partition, error,
                    "no room on the disk to open the replica: it is tried again until there is some"
                );
            }
        }
        full
    }

    /// Opens what waits for room, if there is any by now.
    pub(super) fn open_waiting(&mut self) {
        if self.unopened.is_empty() || !self.context.space.room().takes_replicas() {
            return;
        }
        let now = self.context.clock.now();
        let waiting: Vec<_> = self.unopened.iter().map(|(&id, known)| (id, known.clone())).collect();
        for (partition, (durability, assignment)) in waiting {
            self.assign(now, partition, durability, assignment);
            self.perform(partition);
        }
    }
}

fn is_for_want_of_room(error: &(dyn Error + 'static)) -> bool {
    let mut source = Some(error);
    while let Some(error) = source {
        if error.downcast_ref::<io::Error>().is_some_and(is_full) {
            return true;
        }
        source = error.source();
    }
    false
}
