//! All that a replica can ask for. Actions are performed in the order given.

use serde::{Deserialize, Serialize};

use super::event::RequestId;
use super::message::{Assignment, Envelope, Position};
use super::producers::ProducerTable;
use crate::metadata::LeaderState;
use crate::record_batch::RecordBatch;
use crate::{BrokerId, ErrorCode, LeaderEpoch, Offset, ReplicaId, Term};

/// What a replica must find again after a crash (docs/protocol.md §2), besides its log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DurableState {
    /// Lowest epoch still obeyed. Never decreases.
    pub promise: LeaderEpoch,
    /// The register as last seen.
    pub assignment: Option<Assignment>,
    /// Whether batches that were acknowledged may be forgotten (R35).
    pub nonvoter: bool,
    /// The last unclean term in which this replica was an active leader: its recovery is over, and if there is to be another
    /// one in that term, only voters count (R37).
    pub recovered: Option<Term>,
}

/// What a replica asks of its driver.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    /// Make the state durable, then say `Event::Persisted`. What must wait for it is not given out before.
    Persist {
        /// Counts up.
        number: u64,
        /// The state.
        state: DurableState,
    },
    /// Write the batches at the end of the log.
    Append {
        /// Stamped and contiguous.
        batches: Vec<RecordBatch>,
    },
    /// Cut the log; durable before the next action is performed (R23).
    Truncate {
        /// The new end, a batch boundary.
        end: Offset,
    },
    /// Give up what lies below the start of the log: it is served no more, and whole segments of it are deleted. In the
    /// background, but what is known of the producers is durable before a byte of their batches goes (R44).
    Trim {
        /// Where the log starts from now on, a batch boundary.
        start: Position,
        /// What is known of the producers of what lies below.
        producers: ProducerTable,
    },
    /// Put an empty log in the place of this one; durable before the next action is performed (R44).
    Reset {
        /// Where it starts and ends.
        start: Position,
        /// What is known of the producers of what lies below.
        producers: ProducerTable,
    },
    /// Take note of where tombstones may be gone, in place of what was noted before, be it higher or lower; durable before the
    /// next action is performed. No pass that began before may swap anything in any more that it wrote by a higher bound, and
    /// no batches below that are kept in memory may be given to other replicas (R45).
    NoteTombstonesGone {
        /// Offset below which tombstones may be dropped, and may be missing (exclusive). May lie above the log end.
        below: Offset,
    },
    /// Flush the log, then say `Event::Flushed`. Requests may be merged.
    Flush {
        /// To be given back: a flush that began before a truncation proves nothing after it.
        generation: u64,
    },
    /// Read batches, then say `Event::Read`.
    Read {
        /// Who they are for.
        to: ReplicaId,
        /// The epoch, to be given back.
        epoch: LeaderEpoch,
        /// First offset.
        from: Offset,
        /// Stop after the batch that reaches this size.
        max_bytes: usize,
    },
    /// Send a message. It may be lost.
    Send(Envelope),
    /// Answer a produce request.
    Reply {
        /// Which.
        request: RequestId,
        /// How it went.
        result: Result<Acknowledged, ProduceError>,
    },
    /// Tell the controller, at its leisure.
    Report {
        /// The term led.
        term: Term,
        /// How far it is.
        state: LeaderState,
        /// Whether a change of the set is complete: the term's marker is committed (R3).
        complete: bool,
        /// Whether the term's marker is committed, so that records are acknowledged.
        writable: bool,
        /// Members and learners that hold what is committed, the leader included. Empty until then.
        in_sync: Vec<ReplicaId>,
    },
}

/// The batch is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Acknowledged {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Offset of its last record.
    pub last_offset: Offset,
    /// The epoch that acknowledges it.
    pub epoch: LeaderEpoch,
    /// Whether it had been appended by an earlier request.
    pub duplicate: bool,
}

/// Why a batch is not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ProduceError {
    /// Another broker leads, or nobody.
    #[error("this replica does not lead the partition")]
    NotLeader {
        /// Who does, as far as is known.
        leader: Option<BrokerId>,
    },
    /// Refused before anything was appended.
    #[error("{heard} of {needed} replicas that an acknowledgement needs were heard from lately")]
    NotEnoughReplicas {
        /// Replicas heard from, this one included.
        heard: usize,
        /// Replicas needed.
        needed: usize,
    },
    /// Too much waits for acknowledgement.
    #[error("{bytes} bytes wait for acknowledgement, at most {limit} may")]
    Overloaded {
        /// Bytes waiting.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Refused before anything was appended: the disk of this broker is as good as full.
    #[error("{free} bytes are free on this broker's disk, and {reserve} are kept in reserve")]
    DiskFull {
        /// Bytes that are free.
        free: u64,
        /// Bytes that no record of a client may take.
        reserve: u64,
    },
    /// R39.
    #[error("sequence number {given} does not follow: expected {expected}")]
    OutOfOrderSequence {
        /// What would follow.
        expected: i32,
        /// What came.
        given: i32,
    },
    /// R40.
    #[error("nothing is known of the producer and its sequence number is not 0")]
    UnknownProducer,
    /// R39.
    #[error("producer epoch {given} is fenced by {current}")]
    FencedProducer {
        /// The latest.
        current: i16,
        /// The request's.
        given: i16,
    },
    /// R9: appended, and then the leadership ended.
    #[error("leadership ended before the batch was committed")]
    LeaderLost,
    /// Appended, and no majority was heard from since (R28).
    #[error(
        "appended here, and then only {heard} of {needed} replicas that an acknowledgement needs were heard from"
    )]
    NotEnoughReplicasAfterAppend {
        /// Replicas heard from, this one included.
        heard: usize,
        /// Replicas needed.
        needed: usize,
    },
    /// The log on this broker failed.
    #[error("the partition's log on this broker failed")]
    StorageFailed,
}

impl ProduceError {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            ProduceError::NotLeader { .. } => ErrorCode::NotLeader,
            ProduceError::NotEnoughReplicas { .. } => ErrorCode::NotEnoughReplicas,
            ProduceError::NotEnoughReplicasAfterAppend { .. } => ErrorCode::NotEnoughReplicasAfterAppend,
            ProduceError::Overloaded { .. } => ErrorCode::Overloaded,
            ProduceError::DiskFull { .. } => ErrorCode::DiskFull,
            ProduceError::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequence,
            ProduceError::UnknownProducer => ErrorCode::UnknownProducer,
            ProduceError::FencedProducer { .. } => ErrorCode::FencedProducer,
            ProduceError::LeaderLost => ErrorCode::LeaderLost,
            ProduceError::StorageFailed => ErrorCode::StorageFailed,
        }
    }
}
