//! The log of a replica, opened by what is stored of it (R33, R34): how far it is trusted, what is verified, what is damage.
//!
//! What follows for the replica is `holdfast_core::replication::Loaded`. Putting a damaged log aside is the caller's.

use std::path::Path;
use std::sync::Arc;

use holdfast_core::record_batch::BatchHeader;
use holdfast_core::replication::{EpochIndex, FoundLog, Position, ProducerTable, StoredReplica};
use holdfast_core::{LeaderEpoch, Offset};

use crate::{Derived, Fs, LogConfig, LogError, Opened, PartitionLog, Recovery, TrimTicket};

/// First byte of a snapshot. In a checkpoint another one is not read: the log is. In the note of where a log starts there is
/// nothing else to read, so whoever changes the encoding goes on reading the earlier ones.
const SNAPSHOT_VERSION: u8 = 1;

/// Why a replica's log cannot be opened. Nothing of it was changed.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaLogError {
    /// Records that were acknowledged are damaged or gone.
    #[error("damage below what was acknowledged")]
    Damaged(#[source] LogError),
    /// An epoch that was never promised: damage, too.
    #[error("the log holds epoch {found}, and no more than {promise} was promised")]
    Overreach {
        /// The last epoch in the log.
        found: LeaderEpoch,
        /// What was promised.
        promise: LeaderEpoch,
        /// Where that epoch begins.
        at: Offset,
    },
    /// The files cannot be read or written.
    #[error("opening the log")]
    Log(#[source] LogError),
}

impl ReplicaLogError {
    /// Whether acknowledged records are damaged or gone (R33): then the log is never cut. It is put aside, and the
    /// replica begins anew from its peers, as one that may have forgotten what it acknowledged (R35).
    pub fn is_damage(&self) -> bool {
        matches!(self, ReplicaLogError::Damaged(_) | ReplicaLogError::Overreach { .. })
    }
}

impl Recovery {
    /// What is known of a replica's log before it is read. `clean`: whether the last run ended in order.
    pub fn of(stored: Option<&StoredReplica>, clean: bool) -> Recovery {
        // Who may have forgotten what it acknowledged answers for nothing: everything it holds is verified, and cut where
        // it is bad, so that no rotten batch is left when it votes again.
        let Some(stored) = stored.filter(|stored| !stored.state.nonvoter) else { return Recovery::default() };
        let checkpoint = stored.checkpoint;
        Recovery {
            // After another boot nothing that was not flushed is to be expected; the high watermark of mode replicated
            // may lie above what was flushed, and is not damage then.
            trusted_end: if stored.tail_lost {
                checkpoint.durable_end
            } else {
                checkpoint.durable_end.max(checkpoint.high_watermark)
            },
            // What is acknowledged may have been in the system's memory only when the process was killed.
            flushed_end: checkpoint.durable_end,
            clean,
        }
    }
}

/// Opens the log of a replica in `dir`, or creates it. `stored` is what the journal holds of it.
///
/// # Errors
/// [`ReplicaLogError::is_damage`] says whether the log is to be put aside.
pub fn open_replica(
    fs: Arc<dyn Fs>,
    dir: &Path,
    config: LogConfig,
    stored: Option<&StoredReplica>,
    clean: bool,
) -> Result<(PartitionLog, FoundLog, Opened), ReplicaLogError> {
    let mut producers = Producers::default();
    let opened = PartitionLog::open_derived(fs, dir, config, Recovery::of(stored, clean), &mut producers);
    let (log, opened) = opened.map_err(|error| match error {
        LogError::Corrupt { .. } => ReplicaLogError::Damaged(error),
        _ => ReplicaLogError::Log(error),
    })?;
    let epochs = EpochIndex::new(log.base(), log.epochs(), log.log_end_offset());
    let compacted = log.compacted();
    let (producers, shortened) = (producers.0, log.is_shortened());
    let found = FoundLog { epochs, producers, compacted, put_aside: false, shortened };
    let overreach = stored.and_then(|stored| Some((stored.overreach(&found.epochs)?, stored.state.promise)));
    let at = found.epochs.starts().last().map_or(Offset::ZERO, |(_, first)| *first);
    match overreach {
        Some((found, promise)) => Err(ReplicaLogError::Overreach { found, promise, at }),
        None => Ok((log, found, opened)),
    }
}

/// Notes what is known of a replica's log, so that the next opening need not read what is below. `producers` are those of
/// exactly the log as it is; where they are not complete, only the log can tell, and nothing is noted.
///
/// # Errors
/// Those of [`PartitionLog::checkpoint`].
pub fn checkpoint_replica(log: &mut PartitionLog, producers: &ProducerTable) -> Result<(), LogError> {
    if !producers.is_complete() {
        return Ok(());
    }
    match encode(producers) {
        Some(snapshot) => log.checkpoint(&snapshot),
        // The log has it all.
        None => Ok(()),
    }
}

/// Lets a replica's log start at `start`. `producers` is what is known of exactly what lies below. The ticket, if there is
/// one, does on another thread what may take long.
///
/// # Errors
/// Those of [`PartitionLog::trim_to`].
pub fn trim_replica(
    log: &mut PartitionLog,
    start: Position,
    producers: &ProducerTable,
) -> Result<Option<TrimTicket>, LogError> {
    match encode(producers) {
        Some(snapshot) => log.trim_to(start, snapshot),
        // What cannot be noted must not go.
        None => Ok(None),
    }
}

/// Puts an empty log in the place of a replica's, that starts and ends at `start`.
///
/// # Errors
/// Those of [`PartitionLog::reset_to`].
pub fn reset_replica(
    log: &mut PartitionLog,
    start: Position,
    producers: &ProducerTable,
) -> Result<(), LogError> {
    log.reset_to(start, encode(producers).unwrap_or_default())
}

/// `None` for what has no encoding, which plain data always has.
fn encode(producers: &ProducerTable) -> Option<Vec<u8>> {
    postcard::to_extend(producers, vec![SNAPSHOT_VERSION]).ok()
}

/// The producers of a log as they are derived from it.
#[derive(Default)]
struct Producers(ProducerTable);

impl Derived for Producers {
    fn restore(&mut self, snapshot: &[u8]) -> bool {
        let Some((&SNAPSHOT_VERSION, encoded)) = snapshot.split_first() else { return false };
        let decoded = postcard::from_bytes(encoded);
        decoded.map(|table| self.0 = table).is_ok()
    }

    fn visit(&mut self, header: &BatchHeader) {
        self.0.append(header);
    }
}

#[cfg(test)]
mod tests {
    use holdfast_core::record_batch::{ProducerRef, RecordBatch, RecordBatchBuilder};
    use holdfast_core::replication::{Checkpoint, DurableState};
    use holdfast_core::{ProducerId, Term};

    use super::*;
    use crate::MemFs;

    fn stored() -> StoredReplica {
        let state = DurableState {
            promise: LeaderEpoch::first(Term(1)),
            assignment: None,
            nonvoter: false,
            recovered: None,
        };
        let checkpoint = Checkpoint { high_watermark: Offset(8), durable_end: Offset(5) };
        StoredReplica { checkpoint, ..StoredReplica::new(state) }
    }

    fn recovery(trusted_end: u64, flushed_end: u64, clean: bool) -> Recovery {
        Recovery { trusted_end: Offset(trusted_end), flushed_end: Offset(flushed_end), clean }
    }

    #[test]
    fn a_log_is_trusted_as_far_as_it_was_acknowledged_and_may_still_be_there() {
        assert_eq!(Recovery::of(Some(&stored()), false), recovery(8, 5, false));
        assert_eq!(Recovery::of(Some(&stored()), true), recovery(8, 5, true));
        let mut lost = stored();
        lost.lose_tail();
        assert_eq!(Recovery::of(Some(&lost), false), recovery(5, 5, false));
    }

    #[test]
    fn who_answers_for_nothing_is_verified_whole() {
        let mut nonvoter = stored();
        nonvoter.state.nonvoter = true;
        for nothing in [Some(&nonvoter), None] {
            assert_eq!(Recovery::of(nothing, true), recovery(0, 0, false));
        }
    }

    fn batch(offset: u64) -> RecordBatch {
        let mut builder = RecordBatchBuilder::new();
        builder.push(0, None, Some(b"a record"), &[]).unwrap();
        let producer =
            ProducerRef { id: ProducerId((offset % 3) as i64), epoch: 0, base_sequence: (offset / 3) as i32 };
        builder.build(Some(producer)).unwrap().stamped(Offset(offset), LeaderEpoch::first(Term(1)))
    }

    /// A log of `batches` in `dir`, with a checkpoint behind the first `noted` of them.
    fn written(fs: &MemFs, dir: &Path, batches: &[RecordBatch], noted: usize, stored: &StoredReplica) {
        let (fs, config) = (Arc::new(fs.clone()), LogConfig::default());
        let (mut log, found, _) = open_replica(fs, dir, config, Some(stored), true).unwrap();
        let mut producers = found.producers;
        for (number, batch) in batches.iter().enumerate() {
            if number == noted {
                producers.settle(Offset(noted as u64 / 2));
                checkpoint_replica(&mut log, &producers).unwrap();
            }
            log.append(std::slice::from_ref(batch)).unwrap();
            producers.append(batch.header());
        }
        log.take_flush().unwrap().run().unwrap();
    }

    #[test]
    fn a_replica_is_found_alike_with_and_without_its_checkpoint() {
        let fs = MemFs::new();
        let batches: Vec<RecordBatch> = (0..20).map(batch).collect();
        let nothing_trusted = StoredReplica { checkpoint: Checkpoint::default(), ..stored() };
        let open = |dir: &str| {
            let stored = Some(&nothing_trusted);
            open_replica(Arc::new(fs.clone()), dir.as_ref(), LogConfig::default(), stored, true).unwrap()
        };
        for noted in [1, 12, 19] {
            let dir = format!("/{noted}");
            written(&fs, dir.as_ref(), &batches, noted, &nothing_trusted);
            let (_, mut resumed, opened) = open(&dir);
            assert_eq!(opened.batches, 20 - noted as u64);
            fs.remove_file(&Path::new(&dir).join("checkpoint")).unwrap();
            let (_, mut walked, opened) = open(&dir);
            assert_eq!(opened.batches, 20);
            for found in [&mut resumed, &mut walked] {
                found.producers.settle(Offset(20));
            }
            assert_eq!(resumed, walked);
        }
    }
}
