//! A replica whose log failed begins anew, from its peers and on fresh files, without a restart of the broker (R35).
//!
//! ```text
//!   failed, and says so durably ── an active leader makes itself heard ──► pause ──► a fresh file can be written and
//!   flushed ──► the log is put aside ──► an empty non-voter
//! ```
//! Not before somebody leads: then a quorum of voters without this replica has the best log, and this one is not needed
//! for anything. Where nobody leads it may be the last copy, for an operator to decide about (R37).
//!
//! A log that fails again and again is begun anew later and later. The first one is kept for a human to look at, where there
//! is room for it; those that come after it in this run are copies, and go.

use std::io;
use std::time::Duration;

use holdfast_core::{Incarnation, PartitionId};
use holdfast_log::OpenMode;

use super::Shard;
use crate::data_dir::{DataDir, DataDirError};
use crate::partition::Command;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// Bytes written to see whether the disk takes any.
const PROBE: [u8; 4096] = [0x5a; 4096];

/// How often a replica failed in this run.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Failures {
    count: u32,
    /// Whether the failure counted last waits for a new beginning.
    planned: bool,
}

impl Shard {
    /// Plans a new beginning for a replica that failed and is not needed for anything.
    pub(super) fn rebuild_if_failed(&mut self, partition: PartitionId) {
        if !self.drivers.get(&partition).is_some_and(|driver| driver.is_replaceable()) {
            return;
        }
        let failures = self.failures.entry(partition).or_default();
        if !failures.planned {
            *failures = Failures { count: failures.count + 1, planned: true };
            let count = failures.count;
            self.rebuild_later(partition, count);
        }
    }

    /// Asks for it as soon as the disk takes something, after a pause.
    fn rebuild_later(&self, partition: PartitionId, count: u32) {
        let (dir, own) = (self.context.dir.clone(), self.context.own.clone());
        let mut pause = FIRST_PAUSE.saturating_mul(1 << count.saturating_sub(1).min(16)).min(LONGEST_PAUSE);
        self.context.blocking.spawn(async move {
            loop {
                tokio::time::sleep(pause).await;
                let dir = dir.clone();
                let Ok(probed) = tokio::task::spawn_blocking(move || probe(&dir, partition)).await else {
                    return;
                };
                match probed {
                    Ok(()) => break,
                    Err(error) => {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(%partition, error, "the disk still fails: the replica stays out of service");
                    }
                }
                pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
            }
            // An error says that the shard is gone.
            let _ = own.send(Command::Rebuild { partition, failure: count }).await;
        });
    }

    /// The disk takes something. `failure` says which one of the replica it is about.
    pub(super) fn rebuild(&mut self, partition: PartitionId, failure: u32) {
        let Some(driver) = self.drivers.get(&partition) else { return };
        let known = self.failures.get(&partition).copied().unwrap_or_default();
        if !driver.is_replaceable() || !known.planned || known.count != failure {
            return;
        }
        let room = self.context.space.room();
        let Some((stored, durability, assignment)) = driver.remains().filter(|_| !room.is_short()) else {
            // There is no room for another copy, or it is not on disk yet that this replica may have forgotten something.
            self.rebuild_later(partition, failure);
            return;
        };
        let keep = known.count == 1 && room.free.saturating_sub(room.reserve) > driver.log.size_bytes();
        // Out of readers' sight before a file of it changes.
        self.drivers.remove(&partition);
        self.forget_deadline(partition);
        self.context.partitions.remove(partition);
        self.context.newest.forget(partition);
        self.retained.forget(partition);
        self.deleted += 1;
        self.stored.insert(partition, stored);
        self.failures.insert(partition, Failures { planned: false, ..known });
        match give_up_log(&self.context.dir, partition, keep) {
            Ok(()) => {
                tracing::warn!(%partition, "the replica begins anew, from its peers");
                self.assign(self.context.clock.now(), partition, durability, assignment);
            }
            Err(error) => tracing::error!(
                %partition, error = &error as &dyn std::error::Error,
                "a log that failed cannot be put aside: the replica stays out of service until the broker is restarted"
            ),
        }
    }

    /// What tells this life of a replica from those that it had before in this run: what was answered to one of those proves
    /// nothing of this one (R36).
    pub(super) fn incarnation_of(&self, partition: PartitionId) -> Incarnation {
        if self.failures.contains_key(&partition) {
            Incarnation(rand::random_range(1..=u64::MAX))
        } else {
            self.context.incarnation
        }
    }
}

fn give_up_log(dir: &DataDir, partition: PartitionId, keep: bool) -> Result<(), DataDirError> {
    if !keep {
        return dir.delete_partition(partition);
    }
    let aside = dir.quarantine_partition(partition)?;
    tracing::warn!(%partition, aside = %aside.display(), "a log that failed is put aside: remove it when nobody needs it");
    Ok(())
}

/// Whether the disk takes a fresh file.
fn probe(dir: &DataDir, partition: PartitionId) -> io::Result<()> {
    let (fs, path) = (dir.fs(), dir.file(&format!("probe-{partition}")));
    let file = fs.open(&path, OpenMode::Truncate)?;
    let written = file.write_all_at(&[&PROBE], 0).and_then(|()| file.sync_data());
    fs.remove_file(&path)?;
    written
}
