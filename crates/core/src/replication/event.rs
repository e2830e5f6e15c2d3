//! All that can happen to a replica.

use super::message::{Assignment, Envelope};
use crate::record_batch::RecordBatch;
use crate::{BrokerId, LeaderEpoch, Offset, ReplicaId};

/// A produce request, numbered by the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What a replica is told.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    /// The controller's register, as of now.
    Assign(Assignment),
    /// A message from another replica.
    Receive(Envelope),
    /// A client's batch, checked but not stamped.
    Produce {
        /// Names the request in the reply.
        request: RequestId,
        /// The batch.
        batch: RecordBatch,
    },
    /// `Action::Persist` of this number, and all before it, are on disk.
    Persisted {
        /// The number given with the action.
        number: u64,
    },
    /// A flush that was asked for in this generation has put everything below `end` on disk.
    Flushed {
        /// The generation given with the action.
        generation: u64,
        /// End of what is flushed.
        end: Offset,
    },
    /// Batches that `Action::Read` asked for.
    Read {
        /// Who they are for.
        to: ReplicaId,
        /// The epoch of the request.
        epoch: LeaderEpoch,
        /// Where they start.
        from: Offset,
        /// Whole batches, contiguous from there.
        batches: Vec<RecordBatch>,
    },
    /// What lies below is kept no longer: an active leader trims its log, as far as it may (R44).
    Trim {
        /// A batch boundary of the log.
        to: Offset,
    },
    /// How far the log is cleaned now: higher after a pass, lower where something was put back that had been cleaned away. Also
    /// without news. Never of a log that was cut or begun anew since (R45).
    Cleaned {
        /// Offset below which everything was cleaned (exclusive).
        cleaned_end: Offset,
    },
    /// A pass over the log is about to begin, and would drop tombstones below: as far as that may be, the log takes note of
    /// it with `Action::NoteTombstonesGone` (R45).
    DropTombstones {
        /// Exclusive: up to here they are old enough.
        below: Offset,
    },
    /// A write, a flush or a read of the log failed. Nothing is tried again (R35). To be said before another action
    /// is performed: those still to come may rest on the one that failed.
    StorageFailed,
    /// The stream to this broker was opened (again): what was sent before may be lost.
    PeerConnected {
        /// The broker.
        broker: BrokerId,
    },
    /// The deadline that `next_deadline` gave has come.
    Timer,
}
