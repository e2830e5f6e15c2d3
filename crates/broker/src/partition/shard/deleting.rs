//! Replicas that are deleted (R46): at once as far as anybody can see, and their folders little by little, on another thread.
//! To remove a file may take long, and data is not to wait for it.
//!
//! ```text
//!   deleted ──► waits ──► folder removed, durably ──► note of the replica removed ──► made again, if a register says so
//! ```
//! In that order: what is left of a replica of which nothing is noted, nobody would ever delete. A replica that is noted and
//! named by no register is deleted at the next start, however much of its folder is left.
//!
//! Invariant: what waits here is bounded by the number of replicas; at most one register of each waits.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::sync::Arc;

use holdfast_core::metadata::Durability;
use holdfast_core::replication::Assignment;
use holdfast_core::{PartitionId, Term, TopicId};

use super::Shard;
use crate::data_dir::DataDir;
use crate::partition::Command;

/// Folders removed in one turn.
const AT_ONCE: usize = 64;

/// Those of a shard.
#[derive(Default)]
pub(super) struct Deleting {
    /// With the register that names the broker again, where one came meanwhile.
    replicas: BTreeMap<PartitionId, Option<(Durability, Assignment)>>,
    /// In the order in which their folders are removed.
    waiting: VecDeque<PartitionId>,
    under_way: bool,
}

impl Deleting {
    /// The topic is deleted: none of it is made again.
    pub(super) fn forget_registers(&mut self, topic: TopicId) {
        self.drop_registers(|id, _| id.topic == topic);
    }

    /// The register of that term does not name the broker any more.
    pub(super) fn forget_register(&mut self, partition: PartitionId, term: Term) {
        self.drop_registers(|id, register| id == partition && register.term <= term);
    }

    fn drop_registers(&mut self, is_over: impl Fn(PartitionId, &Assignment) -> bool) {
        for (&id, register) in &mut self.replicas {
            register.take_if(|(_, register)| is_over(id, register));
        }
    }
}

impl Shard {
    /// Keeps the register of a replica whose folder is being removed. Says whether it is.
    pub(super) fn waits_for_deletion(
        &mut self,
        partition: PartitionId,
        durability: Durability,
        assignment: &Assignment,
    ) -> bool {
        let Some(register) = self.deleting.replicas.get_mut(&partition) else { return false };
        if register.as_ref().is_none_or(|(_, known)| known.term <= assignment.term) {
            *register = Some((durability, assignment.clone()));
        }
        true
    }

    /// Nobody uses the folder any more.
    pub(super) fn remove_folder_later(&mut self, partition: PartitionId) {
        if self.deleting.replicas.insert(partition, None).is_none() {
            self.deleting.waiting.push_back(partition);
        }
        self.remove_folders();
    }

    /// Those folders are removed, and the others could not be.
    pub(super) fn folders_removed(&mut self, removed: &[PartitionId], left: &[PartitionId]) {
        self.deleting.under_way = false;
        for &partition in removed {
            self.context.states.remove(partition);
        }
        for &partition in removed.iter().chain(left) {
            if let Some(Some((durability, assignment))) = self.deleting.replicas.remove(&partition) {
                self.assign(self.context.clock.now(), partition, durability, assignment);
                self.perform(partition);
            }
        }
        self.remove_folders();
    }

    /// A few of them, as soon as it is this broker's turn to remove something: others want to use the disk, too.
    fn remove_folders(&mut self) {
        if self.deleting.under_way || self.deleting.waiting.is_empty() {
            return;
        }
        self.deleting.under_way = true;
        let count = self.deleting.waiting.len().min(AT_ONCE);
        let partitions: Vec<PartitionId> = self.deleting.waiting.drain(..count).collect();
        let (dir, own) = (Arc::clone(&self.context.dir), self.context.own.clone());
        let turns = Arc::clone(&self.context.removals);
        self.context.blocking.spawn(async move {
            // An error would say that it was closed, which nobody does.
            let Ok(turn) = turns.acquire_owned().await else { return };
            let remove = move || {
                let _turn = turn;
                remove(&dir, partitions)
            };
            // Errors say that the broker is ending.
            if let Ok((removed, left)) = tokio::task::spawn_blocking(remove).await {
                let _ = own.send(Command::FoldersRemoved { removed, left }).await;
            }
        });
    }
}

/// Those whose folders are gone, durably, and those whose are not.
fn remove(dir: &DataDir, partitions: Vec<PartitionId>) -> (Vec<PartitionId>, Vec<PartitionId>) {
    let (mut removed, mut left) = (Vec::new(), Vec::new());
    for partition in partitions {
        match dir.delete_partition(partition) {
            Ok(()) => removed.push(partition),
            Err(error) => {
                tell(&error, Some(partition));
                left.push(partition);
            }
        }
    }
    if let Err(error) = dir.sync_partitions() {
        tell(&error, None);
        left.append(&mut removed);
    }
    (removed, left)
}

fn tell(error: &(dyn Error + 'static), partition: Option<PartitionId>) {
    let partition = partition.map(|partition| partition.to_string());
    tracing::error!(partition, error, "deleting partitions failed: it is tried again when the broker starts");
}
