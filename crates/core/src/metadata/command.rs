//! What can be asked of the metadata, and how it can be refused.

use serde::{Deserialize, Serialize};

use super::Durability;
use crate::compaction::Compaction;
use crate::retention::Retention;
use crate::{BrokerId, DirId, ErrorCode, Incarnation, PartitionId, Term, TopicId, ZoneId};

/// How a broker presents itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerRegistration {
    /// Its number.
    pub id: BrokerId,
    /// Its zone.
    pub zone: ZoneId,
    /// Its data directory.
    pub dir: DirId,
    /// This run of the process.
    pub incarnation: Incarnation,
    /// `host:port` for clients.
    pub client_endpoint: String,
    /// `host:port` for other brokers.
    pub peer_endpoint: String,
}

/// What a topic is to be.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "EncodedSpec", into = "EncodedSpec")]
pub struct TopicSpec {
    /// Number of partitions, at least 1.
    pub partitions: u32,
    /// Replicas per partition, each in another zone.
    pub replication: u32,
    /// What an acknowledgement means.
    pub durability: Durability,
    /// Whether fewer than three replicas or zones are accepted: the topic then does not survive the loss of a zone.
    pub zone_waiver: bool,
    /// How much of each partition is kept. Can be changed.
    pub retention: Retention,
    /// Whether and how it is compacted: only the last record of each key stays. Can be changed.
    pub compaction: Option<Compaction>,
}

impl Default for TopicSpec {
    fn default() -> Self {
        TopicSpec {
            partitions: 1,
            replication: 3,
            durability: Durability::Disk,
            zone_waiver: false,
            retention: Retention::default(),
            compaction: None,
        }
    }
}

/// How a [`TopicSpec`] is encoded: as before there was a retention or a compaction, where there is none. Formats on disk
/// outlive versions.
#[derive(Serialize, Deserialize)]
struct EncodedSpec {
    partitions: u32,
    replication: u32,
    durability: Durability,
    rest: EncodedRest,
}

/// The first two were the values of a flag.
#[derive(Serialize, Deserialize)]
enum EncodedRest {
    NoWaiver,
    ZoneWaiver,
    Retention { zone_waiver: bool, retention: Retention },
    Compaction { zone_waiver: bool, retention: Retention, compaction: Compaction },
}

impl From<TopicSpec> for EncodedSpec {
    fn from(spec: TopicSpec) -> Self {
        let TopicSpec { partitions, replication, durability, zone_waiver, retention, compaction } = spec;
        let rest = match (compaction, retention.is_unlimited(), zone_waiver) {
            (Some(compaction), ..) => EncodedRest::Compaction { zone_waiver, retention, compaction },
            (None, true, false) => EncodedRest::NoWaiver,
            (None, true, true) => EncodedRest::ZoneWaiver,
            (None, false, _) => EncodedRest::Retention { zone_waiver, retention },
        };
        EncodedSpec { partitions, replication, durability, rest }
    }
}

impl From<EncodedSpec> for TopicSpec {
    fn from(encoded: EncodedSpec) -> Self {
        let EncodedSpec { partitions, replication, durability, rest } = encoded;
        let (zone_waiver, retention, compaction) = match rest {
            EncodedRest::NoWaiver => (false, Retention::default(), None),
            EncodedRest::ZoneWaiver => (true, Retention::default(), None),
            EncodedRest::Retention { zone_waiver, retention } => (zone_waiver, retention, None),
            EncodedRest::Compaction { zone_waiver, retention, compaction } => {
                (zone_waiver, retention, Some(compaction))
            }
        };
        TopicSpec { partitions, replication, durability, zone_waiver, retention, compaction }
    }
}

/// A leader to be appointed, if the register still stands at `expected_term` (rule R1: a compare-and-set each).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appointment {
    /// Which partition.
    pub partition: PartitionId,
    /// The term that the decision was made on.
    pub expected_term: Term,
    /// Who is to lead: a live broker of the set.
    pub leader: BrokerId,
}

/// A replica set to move to, if the register still stands at `expected_term` (R6; the move itself is R2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reassignment {
    /// Which partition.
    pub partition: PartitionId,
    /// The term that the decision was made on.
    pub expected_term: Term,
    /// Brokers of the new set; the first is the preferred leader.
    pub brokers: Vec<BrokerId>,
}

/// One entry of the controllers' log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// A broker came (back). Partitions that only it can lead, or that its earlier run led, get a new term.
    RegisterBroker(BrokerRegistration),
    /// These runs of these brokers are dead: one entry moves everything that they lead.
    FenceBrokers(Vec<(BrokerId, Incarnation)>),
    /// A new topic under a fresh id, chosen by the proposer.
    CreateTopic {
        /// Its identity.
        id: TopicId,
        /// Its name.
        name: String,
        /// What it is to be.
        spec: TopicSpec,
    },
    /// A topic and its records go.
    DeleteTopic {
        /// Its identity.
        id: TopicId,
    },
    /// Leaders are appointed, each by itself.
    Appoint(Vec<Appointment>),
    /// This run of this broker is about to stop: others lead what it leads.
    DrainBroker {
        /// Its number.
        id: BrokerId,
        /// The run.
        incarnation: Incarnation,
    },
    /// Replicas are to move, each partition by itself: the new ones begin to learn (R6).
    Reassign(Vec<Reassignment>),
    /// The learners of these partitions have caught up: each moves to its target set, if its register still stands at
    /// the term (R2).
    ChangeSets(Vec<(PartitionId, Term)>),
    /// A move is called off: learners are dropped, or a set being left is gone back to (R2, R43). Not what is left after an
    /// unclean recovery.
    CancelReassign {
        /// Which partition.
        partition: PartitionId,
        /// The term that the decision was made on.
        expected_term: Term,
    },
    /// By an operator's order: replicas that may have forgotten what they acknowledged take part in the recovery of the
    /// next term; where the data directories of a majority are lost, it recovers from what is left, and new ones take
    /// their places (R37). What a majority never had on disk may be lost by it.
    RecoverUnclean {
        /// The partition, the term that the decision was made on, and who is to lead.
        appointment: Appointment,
    },
    /// The leader of `term` has its marker committed: the set being left is dropped (R3).
    CompleteChange {
        /// Which partition.
        partition: PartitionId,
        /// The leader's term.
        term: Term,
    },
    /// A block of producer ids is handed out, never to be handed out again.
    AllocateProducerIds {
        /// How many.
        count: u32,
    },
    /// More or less of a topic is kept from now on. What there was before [`AlterTopic`](Command::AlterTopic); logs hold it.
    SetRetention {
        /// Its identity.
        id: TopicId,
        /// How much.
        retention: Retention,
    },
    /// Settings of a topic change, all of them or none.
    AlterTopic {
        /// Its identity.
        id: TopicId,
        /// Which, and to what.
        change: TopicChange,
    },
}

/// What of a topic is to change. What is `None` stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicChange {
    /// How much of it is kept.
    pub retention: Option<Retention>,
    /// Whether and how it is compacted.
    pub compaction: Option<Option<Compaction>>,
}

impl TopicChange {
    /// What `spec` becomes.
    pub fn applied_to(&self, spec: &TopicSpec) -> TopicSpec {
        TopicSpec {
            retention: self.retention.unwrap_or(spec.retention),
            compaction: self.compaction.unwrap_or(spec.compaction),
            ..spec.clone()
        }
    }
}

/// Why a command changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum MetadataError {
    /// The topic name is not usable.
    #[error("topic name {name:?} is not allowed: use 1 to 249 of [a-zA-Z0-9._-], not \".\" or \"..\"")]
    BadTopicName {
        /// The name asked for.
        name: String,
    },
    /// A count is out of range.
    #[error("{what} {value} is out of range: {allowed}")]
    OutOfRange {
        /// Which setting.
        what: String,
        /// What was asked for.
        value: u64,
        /// What is allowed.
        allowed: String,
    },
    /// The name is taken.
    #[error("topic {name:?} exists")]
    TopicExists {
        /// The name asked for.
        name: String,
    },
    /// No such topic.
    #[error("no topic with id {id}")]
    UnknownTopic {
        /// The id asked for.
        id: TopicId,
    },
    /// There are not enough zones.
    #[error("{replication} replicas need brokers in {needed} zones, and there are {available}: {zones}")]
    NotEnoughZones {
        /// Replicas asked for.
        replication: u32,
        /// Zones that they need.
        needed: u32,
        /// Zones that have a broker.
        available: u32,
        /// Their names.
        zones: String,
    },
    /// Too few of the brokers that would hold the replicas are alive.
    #[error("a majority of {replication} replicas cannot be placed on live brokers: live are {live}")]
    NotEnoughLiveBrokers {
        /// Replicas asked for.
        replication: u32,
        /// The live brokers.
        live: String,
    },
    /// No such partition.
    #[error("no partition {id}")]
    UnknownPartition {
        /// What was asked for.
        id: PartitionId,
    },
    /// No such broker.
    #[error("no broker {id} is registered")]
    UnknownBroker {
        /// What was asked for.
        id: BrokerId,
    },
    /// The register has changed since the decision was made.
    #[error("partition {id} is at term {current}, the request was made at {expected}: look again and repeat")]
    StaleTerm {
        /// Which partition.
        id: PartitionId,
        /// The request's.
        expected: Term,
        /// The register's.
        current: Term,
    },
    /// One change of a replica set at a time (R43).
    #[error("partition {id} is being moved already: wait until that is done, or cancel it")]
    ChangeUnderWay {
        /// Which partition.
        id: PartitionId,
    },
    /// There is nothing to cancel or to complete.
    #[error("partition {id} is not being moved")]
    NoChangeUnderWay {
        /// Which partition.
        id: PartitionId,
    },
    /// The replica set asked for is not allowed.
    #[error("replicas of {id} cannot be on {brokers}: {why}")]
    BadReplicaSet {
        /// Which partition.
        id: PartitionId,
        /// The brokers asked for.
        brokers: String,
        /// The rule that it breaks.
        why: String,
    },
    /// Who is to lead cannot.
    #[error("broker {broker} cannot lead partition {id}: it is no live member of the replica set")]
    CannotLead {
        /// Which partition.
        id: PartitionId,
        /// Who was asked for.
        broker: BrokerId,
    },
    /// A broker's id is in use in another zone.
    #[error("broker {id} is registered in zone {registered}, not {requested}: an id never changes its zone")]
    BrokerInOtherZone {
        /// The broker.
        id: BrokerId,
        /// The zone on record.
        registered: ZoneId,
        /// The zone it claims.
        requested: ZoneId,
    },
}

impl MetadataError {
    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            MetadataError::BadTopicName { .. }
            | MetadataError::OutOfRange { .. }
            | MetadataError::BadReplicaSet { .. }
            | MetadataError::UnknownBroker { .. }
            | MetadataError::CannotLead { .. }
            | MetadataError::BrokerInOtherZone { .. } => ErrorCode::InvalidRequest,
            MetadataError::UnknownPartition { .. } => ErrorCode::UnknownPartition,
            MetadataError::StaleTerm { .. }
            | MetadataError::ChangeUnderWay { .. }
            | MetadataError::NoChangeUnderWay { .. } => ErrorCode::ConflictingChange,
            MetadataError::TopicExists { .. } => ErrorCode::TopicExists,
            MetadataError::UnknownTopic { .. } => ErrorCode::UnknownTopic,
            MetadataError::NotEnoughZones { .. } | MetadataError::NotEnoughLiveBrokers { .. } => {
                ErrorCode::PlacementImpossible
            }
        }
    }
}
