//! Opening a replica: what the folder and the journal hold becomes what the rules start from (R33-R35).

use holdfast_core::replication::{Assignment, DurableState, EpochIndex, Loaded, ProducerTable};
use holdfast_core::{Incarnation, LeaderEpoch, Offset, PartitionId, ReplicaId};
use holdfast_log::{LogConfig, LogError, PartitionLog, Recovery};

use crate::data_dir::{DataDir, DataDirError};
use crate::state_store::StoredReplica;

/// Why a replica cannot be opened. Its folder is as it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("opening the log")]
    Log(#[from] LogError),
    #[error("putting a damaged log aside")]
    Quarantine(#[from] DataDirError),
}

/// Opens the log of `partition` and joins it with what was promised.
pub(super) fn open(
    dir: &DataDir,
    config: &LogConfig,
    partition: PartitionId,
    me: ReplicaId,
    incarnation: Incarnation,
    stored: Option<&StoredReplica>,
    assignment: &Assignment,
) -> Result<(PartitionLog, Loaded), OpenError> {
    let had_folder = dir.partition(partition).exists();
    match read(dir, config, partition, stored) {
        Ok(found) => Ok(loaded(me, incarnation, stored, assignment, found, had_folder)),
        Err(error @ LogError::Corrupt { .. }) => {
            // R33: acknowledged data is gone. Never cut: put aside, and the replica begins anew from its peers, as one
            // that may have forgotten what it acknowledged (R35).
            let aside = dir.quarantine_partition(partition)?;
            tracing::error!(
                %partition, error = &error as &dyn std::error::Error, aside = %aside.display(),
                "log is damaged below what was acknowledged: put aside, to be fetched again from the other replicas"
            );
            let found = read(dir, config, partition, None)?;
            let (log, mut loaded) = loaded(me, incarnation, stored, assignment, found, true);
            loaded.high_watermark = Offset::ZERO;
            loaded.state.nonvoter = true;
            Ok((log, loaded))
        }
        Err(error) => Err(error.into()),
    }
}

struct Found {
    log: PartitionLog,
    epochs: EpochIndex,
    producers: ProducerTable,
}

fn read(
    dir: &DataDir,
    config: &LogConfig,
    partition: PartitionId,
    stored: Option<&StoredReplica>,
) -> Result<Found, LogError> {
    let checkpoint = stored.map(|stored| stored.checkpoint).unwrap_or_default();
    let recovery = Recovery {
        // After another boot nothing that was not flushed is to be expected; the high watermark of mode replicated
        // may lie above what was flushed, and is not damage then.
        trusted_end: if stored.is_some_and(|stored| stored.tail_lost) {
            checkpoint.durable_end
        } else {
            checkpoint.durable_end.max(checkpoint.high_watermark)
        },
        clean: dir.was_clean(),
    };
    let mut epochs = EpochIndex::default();
    let mut producers = ProducerTable::default();
    let (log, opened) =
        PartitionLog::open(dir.fs(), &dir.partition(partition), config.clone(), recovery, &mut |header| {
            epochs.append(header.epoch.unwrap_or(LeaderEpoch::ZERO), header.next_offset());
            producers.append(header);
        })?;
    if opened.cut_bytes > 0 {
        tracing::warn!(%partition, bytes = opened.cut_bytes, end = %log.log_end_offset(), "cut a torn tail");
    }
    Ok(Found { log, epochs, producers })
}

fn loaded(
    me: ReplicaId,
    incarnation: Incarnation,
    stored: Option<&StoredReplica>,
    assignment: &Assignment,
    found: Found,
    had_folder: bool,
) -> (PartitionLog, Loaded) {
    let fresh = Loaded::empty(me, incarnation, assignment);
    let state = stored.map_or_else(
        // Records without a promise: the journal was lost. It may have acknowledged anything.
        || DurableState { nonvoter: had_folder && found.epochs.end() > Offset::ZERO, ..fresh.state.clone() },
        |stored| stored.state.clone(),
    );
    // A log never holds an epoch above the promise (REP-6); where the promise was lost, the log is its lower bound.
    let promise = state.promise.max(found.epochs.last_epoch());
    let loaded = Loaded {
        state: DurableState { promise, ..state },
        high_watermark: stored.map_or(Offset::ZERO, |stored| stored.checkpoint.high_watermark),
        epochs: found.epochs,
        producers: found.producers,
        tail_lost: stored.is_some_and(|stored| stored.tail_lost),
        ..fresh
    };
    (found.log, loaded)
}
