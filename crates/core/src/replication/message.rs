//! What replicas of a partition say to each other (docs/protocol.md §3).

use super::producers::ProducerTable;
use crate::metadata::Register;
use crate::record_batch::RecordBatch;
use crate::{Incarnation, LeaderEpoch, Offset, ReplicaId, Term};

/// Where a log ends: the epoch of the batch just below the end, and the end. Ordered by epoch first; equal positions
/// mean identical logs (REP-3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Epoch of the last batch, also if it was trimmed; `ZERO` where there never was one.
    pub epoch: LeaderEpoch,
    /// Log end offset, exclusive.
    pub end: Offset,
}

/// Why a position is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FetchKind {
    /// A follower: acknowledgement, and request for what comes next.
    Follow,
    /// A leader to be, copying from the winner of its recovery (R15).
    Recover,
    /// A follower that may have forgotten what it acknowledged (R36).
    Rejoin,
}

/// A message without its address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Message {
    /// From the leader to be: promise this epoch, tell your position (R11).
    Fence {
        /// The replica set.
        set: Vec<ReplicaId>,
        /// The set being left.
        prev: Option<Vec<ReplicaId>>,
    },
    /// Promised, and the log up to `position` flushed (R12).
    FenceOk {
        /// Position of the flushed log.
        position: Position,
        /// Whether this replica may be counted (R35).
        voter: bool,
    },
    /// From the active leader: follow me (R17). The offsets are hints and move nothing (R29).
    Lead {
        /// The leader's high watermark.
        high_watermark: Offset,
        /// The leader's log end offset.
        log_end_offset: Offset,
        /// Offset below which the logs of all that follow were cleaned, by what they said last (R45).
        cleaned_by_all: Offset,
    },
    /// The sender's position: it acknowledges everything below (R18, R25).
    Fetch {
        /// Position of its log.
        position: Position,
        /// End of its flushed log.
        durable_end: Offset,
        /// This run of its process.
        incarnation: Incarnation,
        /// Why.
        kind: FetchKind,
        /// Whether data is wanted (again) from the position on; otherwise this only acknowledges.
        restart: bool,
        /// Offset below which its log was cleaned (R45).
        cleaned_end: Offset,
    },
    /// The position parts from the sender's log (R19).
    Diverge {
        /// The position refused.
        echo: Position,
        /// The largest epoch up to the refused one in the sender's log, and the offset behind its last batch.
        common: Position,
    },
    /// What the position lacks was trimmed, or it parts from the sender's log below the start of that: begin anew there (R44).
    Reset {
        /// The position refused.
        echo: Position,
        /// Where the sender's log starts. Everything below is committed.
        start: Position,
        /// What is known of the producers of what lies below.
        producers: ProducerTable,
    },
    /// The sender promised a later epoch. A hint, never an order (R7).
    Stale {
        /// Its promise.
        promise: LeaderEpoch,
    },
    /// Batches that continue `echo`, or just watermarks (R21).
    Data {
        /// The position that the batches continue; the receiver applies them only if it stands there (R22).
        echo: Position,
        /// Contiguous batches.
        batches: Vec<RecordBatch>,
        /// The sender's high watermark.
        high_watermark: Offset,
        /// The sender's durable high watermark.
        durable_high_watermark: Offset,
        /// The sender's log end offset when it sent this.
        log_end_offset: Offset,
        /// The sender's log start offset (R44).
        log_start_offset: Offset,
        /// Offset below which tombstones may be missing from the sender's log (R45).
        tombstones_gone_below: Offset,
        /// The incarnation of the rejoining fetch that this answers (R36).
        incarnation: Option<Incarnation>,
    },
}

/// A message as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Envelope {
    /// Sender.
    pub from: ReplicaId,
    /// Receiver. A broker whose data directory is another one does not answer for it (R46).
    pub to: ReplicaId,
    /// The epoch it belongs to.
    pub epoch: LeaderEpoch,
    /// What it says.
    pub message: Message,
}

/// The controller's register as a replica knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Assignment {
    /// The register's term.
    pub term: Term,
    /// Who leads it.
    pub leader: ReplicaId,
    /// The replica set.
    pub set: Vec<ReplicaId>,
    /// The set being left.
    pub prev: Option<Vec<ReplicaId>>,
    /// Replicas that catch up to become members: they follow, and count for nothing (R24).
    pub learners: Vec<ReplicaId>,
    /// The last term in whose recovery non-voters count (R37).
    pub unclean_term: Option<Term>,
}

impl Assignment {
    /// Whether non-voters count in this term's recovery (R37).
    pub fn is_unclean(&self) -> bool {
        self.unclean_term == Some(self.term)
    }

    /// Everyone named, without repetition, in a fixed order.
    pub fn members(&self) -> Vec<ReplicaId> {
        let mut members: Vec<ReplicaId> =
            self.set.iter().chain(self.prev.iter().flatten()).copied().collect();
        members.sort_unstable();
        members.dedup();
        members
    }

    /// Whom a leader sends its log to: members and learners.
    pub fn audience(&self) -> Vec<ReplicaId> {
        let mut audience = self.members();
        audience.extend(self.learners.iter().filter(|&&learner| !self.names(learner)));
        audience
    }

    /// Whether `replica` is a member: of the set or of the one being left.
    pub fn names(&self, replica: ReplicaId) -> bool {
        self.set.contains(&replica) || self.prev.as_ref().is_some_and(|prev| prev.contains(&replica))
    }
}

impl From<&Register> for Assignment {
    fn from(register: &Register) -> Self {
        Assignment {
            term: register.term,
            leader: register.leader,
            set: register.set.clone(),
            prev: register.prev.clone(),
            learners: register.learners().collect(),
            unclean_term: register.unclean_term,
        }
    }
}
