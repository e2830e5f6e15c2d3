//! What the controller quorum agrees on: brokers, topics, and one register per partition.
//!
//! ```text
//!  controller leader ── Command ──► Raft log ── apply ──► Metadata ── Update ──► brokers ── Update ──► clients
//!                                               (apply.rs)  (map.rs)   complete or refused (map.rs)
//! ```
//!
//! `Metadata::apply` is the only way the state changes, live and at replay alike. Every change is stamped with the
//! index of the log entry that made it, so that a holder of a copy can tell a complete map from a partial one.
//!
//! Invariants:  META-1  a register's term grows by one per change (docs/protocol.md R1)
//!              META-2  no zone holds more than ceil(n/2)-1 replicas of a partition whose topic does not waive it (R4)
//!              META-3  equal index means equal map: `apply` reads no clock, no randomness, no hash order
//!              META-4  a map is adopted only if its entry count and digest match those of its source
//!              META-5  a register that changes its set keeps the one it leaves, one change at a time (R2, R3, R43)

mod apply;
mod command;
mod invariants;
mod map;
mod membership;
mod placement;
#[cfg(test)]
mod tests;
mod unclean;
mod upkeep;

pub use apply::{Applied, Metadata};
pub use command::{
    Appointment, BrokerRegistration, Command, MetadataError, Reassignment, TopicChange, TopicSpec,
};
pub use map::{ClusterMap, MapError, Update};
pub use placement::{majority, zone_rule_holds};
pub use unclean::unclean_leaders;
pub use upkeep::{home_moves, lost_moves, replacements, set_changes};

use serde::{Deserialize, Serialize};

use crate::{BrokerId, DirId, Incarnation, Offset, PartitionId, ReplicaId, Term, TopicId, ZoneId};

/// What an acknowledgement means (docs/protocol.md §4, durability modes).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// On stable storage in a majority of the replicas, hence in two zones (mode fsync).
    #[default]
    Disk,
    /// In the operating system's memory in a majority of the replicas; on disk within the flush interval (mode
    /// replicated).
    Memory,
}

/// A broker as registered.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Broker {
    /// Its number, from its configuration.
    pub id: BrokerId,
    /// The zone it runs in; never changes for an id.
    pub zone: ZoneId,
    /// The data directory it serves.
    pub dir: DirId,
    /// The run of the process that registered last.
    pub incarnation: Incarnation,
    /// `host:port` for clients.
    pub client_endpoint: String,
    /// `host:port` for other brokers.
    pub peer_endpoint: String,
    /// Whether the controller believes it alive; a fenced broker leads nothing.
    pub live: bool,
    /// Whether it is about to stop: it still follows, and is appointed to nothing.
    pub draining: bool,
    /// Index of the entry that changed this last.
    pub version: u64,
}

impl Broker {
    /// The replica identity it serves.
    pub fn replica(&self) -> ReplicaId {
        ReplicaId { broker: self.id, dir: self.dir }
    }
}

/// A topic. A deleted one stays as a mark, so that brokers delete data only on an explicit order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Topic {
    /// Its identity.
    pub id: TopicId,
    /// Its name; only one topic that is not deleted has it.
    pub name: String,
    /// What was asked for at creation.
    pub spec: TopicSpec,
    /// Whether it was deleted: it then has no partitions.
    pub deleted: bool,
    /// Index of the entry that changed this last.
    pub version: u64,
}

/// The controller's register of one partition (docs/protocol.md §2).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Register {
    /// Grows by one per change.
    pub term: Term,
    /// Who leads the term. It may be fenced: then nobody leads until another is appointed.
    pub leader: ReplicaId,
    /// The replica set.
    pub set: Vec<ReplicaId>,
    /// The replica set that is being left, until the change is complete; after an unclean order what is left of a lost one
    /// (R37).
    pub prev: Option<Vec<ReplicaId>>,
    /// The replica set to move to once those of it that are not in the set yet have caught up (R6).
    pub target: Option<Vec<ReplicaId>>,
    /// The last term in whose recovery non-voters might take part (R37). It stays, so that a replica that was away meanwhile
    /// learns that what it holds may have been given up.
    pub unclean_term: Option<Term>,
}

impl Register {
    /// Whether non-voters may take part in this term's recovery (R37).
    pub fn is_unclean(&self) -> bool {
        self.unclean_term == Some(self.term)
    }

    /// Whether `replica` belongs to the set, to the one being left or to the one to move to: it then keeps a copy (R46).
    pub fn names(&self, replica: ReplicaId) -> bool {
        [Some(&self.set), self.prev.as_ref(), self.target.as_ref()]
            .into_iter()
            .flatten()
            .any(|set| set.contains(&replica))
    }

    /// Replicas that catch up to become members (R6, R24).
    pub fn learners(&self) -> impl Iterator<Item = ReplicaId> {
        let target = self.target.iter().flatten().copied();
        target.filter(|replica| !self.set.contains(replica))
    }
}

/// A partition and its register.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Partition {
    /// Its identity.
    pub id: PartitionId,
    /// Its register.
    pub register: Register,
    /// Index of the entry that changed this last.
    pub version: u64,
}

/// Anything of the map that can change.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Object {
    /// A broker.
    Broker(Broker),
    /// A topic.
    Topic(Topic),
    /// A partition.
    Partition(Partition),
}

/// What a leader tells the controller of one of its partitions; advisory (docs/protocol.md §3, Report).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LeaderState {
    /// Recovery began.
    Fencing,
    /// Its marker is appended: it takes records.
    Active,
    /// Recovery or commit does not get on (R17, R41): try another.
    Stalled,
}

/// A leader's report (docs/protocol.md §3).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LeaderReport {
    /// The partition.
    pub partition: PartitionId,
    /// The term it leads.
    pub term: Term,
    /// How far it is.
    pub state: LeaderState,
    /// Its log end offset.
    pub log_end_offset: Offset,
    /// Whether the marker of its term is committed: from here on it acknowledges records.
    pub writable: bool,
    /// Members and learners that hold what is committed, the leader included. For pacing and display only (R5, R6).
    pub in_sync: Vec<ReplicaId>,
}
