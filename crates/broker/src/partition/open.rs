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
    let damage = match read(dir, config, partition, stored) {
        Ok(found) => match overreach(stored, &found.epochs) {
            None => return Ok(loaded(me, incarnation, stored, assignment, found)),
            Some(damage) => damage,
        },
        Err(error @ LogError::Corrupt { .. }) => Damage::Corrupt(error),
        Err(error) => return Err(error.into()),
    };
    // R33: acknowledged data is gone. Never cut: put aside, and the replica begins anew from its peers, as one that may
    // have forgotten what it acknowledged (R35).
    let aside = dir.quarantine_partition(partition)?;
    tracing::error!(
        %partition, error = &damage as &dyn std::error::Error, aside = %aside.display(),
        "log is damaged: put aside, to be fetched again from the other replicas"
    );
    let found = read(dir, config, partition, None)?;
    let (log, loaded) = loaded(me, incarnation, stored, assignment, found);
    Ok((log, Loaded { high_watermark: Offset::ZERO, damaged: true, ..loaded }))
}

/// What is wrong with a log that could be read.
#[derive(Debug, thiserror::Error)]
enum Damage {
    #[error("damage below what was acknowledged")]
    Corrupt(#[source] LogError),
    #[error("the log holds epoch {found}, and no more than {promise} was promised")]
    Overreach { found: LeaderEpoch, promise: LeaderEpoch },
}

/// A promise is durable before anything of its epoch is written (R8). A batch's epoch lies outside of its checksum: a bit
/// that flips there is seen here, or where it makes epochs fall.
fn overreach(stored: Option<&StoredReplica>, epochs: &EpochIndex) -> Option<Damage> {
    let (promise, found) = (stored?.state.promise, epochs.last_epoch());
    (found > promise).then_some(Damage::Overreach { found, promise })
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
    // Who may have forgotten what it acknowledged answers for nothing: everything it holds is verified, and cut where it
    // is bad, so that no rotten batch is left when it votes again.
    let answers = stored.is_some_and(|stored| !stored.state.nonvoter);
    let checkpoint = stored.filter(|_| answers).map(|stored| stored.checkpoint).unwrap_or_default();
    let recovery = Recovery {
        // After another boot nothing that was not flushed is to be expected; the high watermark of mode replicated
        // may lie above what was flushed, and is not damage then.
        trusted_end: if stored.is_some_and(|stored| stored.tail_lost) {
            checkpoint.durable_end
        } else {
            checkpoint.durable_end.max(checkpoint.high_watermark)
        },
        // What is acknowledged may have been in the system's memory only when the process was killed.
        flushed_end: checkpoint.durable_end,
        clean: answers && dir.was_clean(),
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
) -> (PartitionLog, Loaded) {
    let fresh = Loaded::empty(me, incarnation, assignment);
    let state = stored.map_or_else(|| fresh.state.clone(), |stored| stored.state.clone());
    let end = found.epochs.end();
    // A log never holds an epoch above the promise (REP-6); where the promise was lost, the log is its lower bound.
    let promise = state.promise.max(found.epochs.last_epoch());
    let loaded = Loaded {
        state: DurableState { promise, ..state },
        high_watermark: stored.map_or(Offset::ZERO, |stored| stored.checkpoint.high_watermark),
        epochs: found.epochs,
        producers: found.producers,
        tail_lost: stored.is_some_and(|stored| stored.tail_lost),
        // Records without a promise: the journal was lost. It may have acknowledged anything.
        damaged: stored.is_none() && end > Offset::ZERO,
        ..fresh
    };
    (found.log, loaded)
}
