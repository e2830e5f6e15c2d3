//! What a replica starts from, how it is set, and what others may see of it.

use std::time::Duration;

use super::action::DurableState;
use super::epochs::EpochIndex;
use super::message::Assignment;
use super::producers::ProducerTable;
use super::stored::Compacted;
use crate::metadata::Durability;
use crate::mutant;
use crate::{Incarnation, LeaderEpoch, Offset, ReplicaId, Timestamp};

/// Settings of a replica. The defaults suit zones a few milliseconds apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ReplicaConfig {
    /// What an acknowledgement means; a topic's setting.
    pub durability: Durability,
    /// With durability `memory`: the log is flushed this long after an append at the latest.
    pub flush_interval: Duration,
    /// Bytes sent to a follower and not acknowledged by it.
    pub inflight_limit: usize,
    /// Bytes of one read for a follower that lags.
    pub read_size: usize,
    /// Bytes of produce requests that wait for their commit.
    pub pending_limit: usize,
    /// A lost message of recovery or catch-up is repeated after this long.
    pub retry_interval: Duration,
    /// How often an active leader makes itself heard.
    pub lead_interval: Duration,
    /// How often one does of which nobody has anything to learn. Not more than a third of `quorum_timeout`: one that waited
    /// for so long must not be taken for cut off when the next answer is late.
    pub calm_lead_interval: Duration,
    /// A leader that heard from no majority for this long refuses new batches.
    pub quorum_timeout: Duration,
    /// A leader that does not get on for this long asks to be replaced (R17, R41).
    pub stall_timeout: Duration,
}

impl Default for ReplicaConfig {
    fn default() -> Self {
        ReplicaConfig {
            durability: Durability::Disk,
            flush_interval: Duration::from_millis(500),
            inflight_limit: 8 << 20,
            read_size: 1 << 20,
            pending_limit: 64 << 20,
            retry_interval: Duration::from_millis(150),
            lead_interval: Duration::from_millis(250),
            calm_lead_interval: Duration::from_secs(1),
            quorum_timeout: Duration::from_secs(3),
            stall_timeout: Duration::from_secs(5),
        }
    }
}

/// What a replica starts from: found on disk, or nothing at all.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Who it is.
    pub me: ReplicaId,
    /// This run of the process.
    pub incarnation: Incarnation,
    /// What it had promised.
    pub state: DurableState,
    /// Epochs of the log as recovered.
    pub epochs: EpochIndex,
    /// Producers of the log as recovered.
    pub producers: ProducerTable,
    /// How far the log was compacted.
    pub compacted: Compacted,
    /// A lower bound of the high watermark.
    pub high_watermark: Offset,
    /// Whether batches that were written may be gone: no clean shutdown and another boot of the machine (R34).
    pub tail_lost: bool,
    /// Whether acknowledged records were found damaged or missing while opening (R33).
    pub damaged: bool,
    /// Differs from that of every replica of the partition that this run of the process deleted before (R46): what is
    /// still told of their flushes and states proves nothing of this one.
    pub life: u32,
}

impl Loaded {
    /// A replica that the register names and that has no data yet (R46).
    pub fn empty(me: ReplicaId, incarnation: Incarnation, assignment: &Assignment) -> Loaded {
        let first = LeaderEpoch::first(assignment.term);
        // The leader's own first attempt must lie above its promise (R10).
        let unasked = assignment.leader != me && !mutant!(CreateWithoutPromise);
        let promise = if unasked { first } else { LeaderEpoch::ZERO };
        Loaded {
            me,
            incarnation,
            state: DurableState { promise, assignment: None, nonvoter: false, recovered: None },
            epochs: EpochIndex::default(),
            producers: ProducerTable::default(),
            compacted: Compacted::default(),
            high_watermark: Offset::ZERO,
            tail_lost: false,
            damaged: false,
            life: 0,
        }
    }
}

/// What a leader knows of a member of the set, itself among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberStatus {
    /// Who it is.
    pub replica: ReplicaId,
    /// End of what it ever acknowledged, as the topic's durability asks.
    pub reached: Offset,
    /// Whether its stream is not open, it is silent, or it had not reached what was committed at the round before: then
    /// what it acknowledged once does not make it in sync.
    pub lags: bool,
}

/// What others may see of a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// Whether it takes records.
    pub active: bool,
    /// Whether its log failed.
    pub failed: bool,
    /// Who leads, as far as it knows.
    pub leader: Option<ReplicaId>,
    /// Lowest epoch it obeys; the epoch led where it is active.
    pub epoch: LeaderEpoch,
    /// End of what is known to be committed.
    pub high_watermark: Offset,
    /// End of what is known to be on the disks of a majority.
    pub durable_high_watermark: Offset,
    /// End of its log.
    pub log_end_offset: Offset,
    /// Members of the set; only where active.
    pub members: Vec<MemberStatus>,
    /// Whether the high watermark covers all that was ever committed: a leader's does once its marker is committed
    /// (R31).
    pub settled: bool,
    /// Offset below which the logs of all replicas were cleaned, as far as it knows (R45).
    pub cleaned_by_all: Offset,
    /// When a follower last heard from its leader: bounds how old its high watermark is (R30).
    pub heard: Option<Timestamp>,
}
