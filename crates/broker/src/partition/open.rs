//! Opening a replica: what the folder and the journal hold becomes what the rules start from (R33-R35).

use holdfast_core::replication::{Assignment, FoundLog, Loaded, StoredReplica};
use holdfast_core::{Incarnation, PartitionId, ReplicaId};
use holdfast_log::{LogConfig, PartitionLog, ReplicaLogError, open_replica};

use crate::data_dir::{DataDir, DataDirError};
use crate::repair::Repaired;

/// Why a replica cannot be opened. Its folder is as it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Log(#[from] ReplicaLogError),
    #[error("putting a damaged log aside")]
    Quarantine(#[from] DataDirError),
}

/// What is known of a replica besides its log.
pub(super) struct Known<'a> {
    /// What was promised, if anything.
    pub(super) stored: Option<&'a StoredReplica>,
    /// The register.
    pub(super) assignment: &'a Assignment,
    /// What was done about damage of the log. While nothing was, damage is an error, and the folder stays as it is.
    pub(super) repaired: Option<Repaired>,
}

/// Opens the log of `partition` and joins it with what was promised.
pub(super) fn open(
    dir: &DataDir,
    config: &LogConfig,
    partition: PartitionId,
    me: ReplicaId,
    incarnation: Incarnation,
    known: Known<'_>,
) -> Result<(PartitionLog, Loaded), OpenError> {
    let Known { stored, assignment, repaired } = known;
    // A replica has its folder before anything is noted of it. Without one it was put aside, or removed by hand.
    let gone = stored.is_some() && !dir.may_hold(partition);
    let (log, found) = match read(dir, config, partition, stored) {
        Ok((log, found)) if gone => (log, FoundLog { put_aside: true, ..found }),
        Err(damage) if damage.is_damage() && repaired == Some(Repaired::InVain) => {
            let aside = dir.quarantine_partition(partition)?;
            tracing::error!(
                %partition, error = &damage as &dyn std::error::Error, aside = %aside.display(),
                "log is damaged: put aside, to be fetched again from the other replicas"
            );
            let (log, found) = read(dir, config, partition, None)?;
            (log, FoundLog { put_aside: true, ..found })
        }
        read => read?,
    };
    let loaded = match stored {
        Some(stored) => Loaded::found(me, incarnation, stored, found),
        None => Loaded::empty(me, incarnation, assignment).with_unexplained_log(found),
    };
    Ok((log, loaded))
}

fn read(
    dir: &DataDir,
    config: &LogConfig,
    partition: PartitionId,
    stored: Option<&StoredReplica>,
) -> Result<(PartitionLog, FoundLog), ReplicaLogError> {
    let folder = dir.partition(partition);
    let (log, found, opened) = open_replica(dir.fs(), &folder, config.clone(), stored, dir.was_clean())?;
    if opened.cut_bytes > 0 {
        tracing::warn!(%partition, bytes = opened.cut_bytes, end = %log.log_end_offset(), "cut a torn tail");
    }
    Ok((log, found))
}
