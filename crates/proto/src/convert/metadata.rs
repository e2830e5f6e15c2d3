//! The metadata map and its updates.

use holdfast_core::compaction::Compaction;
use holdfast_core::metadata::{
    Broker, Durability, LeaderReport, LeaderState, Object, Partition, Register, Topic, TopicChange,
    TopicSpec, Update,
};
use holdfast_core::retention::Retention;
use holdfast_core::{BrokerId, DirId, Incarnation, Offset, PartitionId, Term, ZoneId};

use super::{ConvertError, bad, replica, replica_from_wire, replica_to_wire, topic_id};
use crate::{internal, v1};

/// An update for the wire.
pub fn update_to_wire(update: &Update) -> v1::MetadataUpdate {
    let mut wire = v1::MetadataUpdate {
        snapshot: update.base.is_none(),
        base_index: update.base.unwrap_or(0),
        index: update.index,
        entry_count: update.entry_count,
        digest: update.digest,
        ..Default::default()
    };
    for object in &update.objects {
        match object {
            Object::Broker(broker) => wire.brokers.push(broker_to_wire(broker)),
            Object::Topic(topic) => wire.topics.push(topic_to_wire(topic)),
            Object::Partition(partition) => wire.partitions.push(partition_to_wire(partition)),
        }
    }
    wire
}

/// An update from the wire.
///
/// # Errors
/// Where an object has no identity. Whether the update is complete is for `ClusterMap::adopt` to say.
pub fn update_from_wire(wire: v1::MetadataUpdate) -> Result<Update, ConvertError> {
    let mut objects = Vec::with_capacity(wire.brokers.len() + wire.topics.len() + wire.partitions.len());
    objects.extend(wire.brokers.into_iter().map(|broker| Object::Broker(broker_from_wire(broker))));
    for topic in wire.topics {
        objects.push(Object::Topic(topic_from_wire(topic)?));
    }
    for partition in wire.partitions {
        objects.push(Object::Partition(partition_from_wire(partition)?));
    }
    Ok(Update {
        base: (!wire.snapshot).then_some(wire.base_index),
        index: wire.index,
        entry_count: wire.entry_count,
        digest: wire.digest,
        objects,
    })
}

/// A durability for the wire.
pub fn durability_to_wire(durability: Durability) -> v1::Durability {
    match durability {
        Durability::Disk => v1::Durability::Disk,
        Durability::Memory => v1::Durability::Memory,
    }
}

/// A durability from the wire; what is not set means disk.
pub fn durability_from_wire(wire: v1::Durability) -> Durability {
    match wire {
        v1::Durability::Memory => Durability::Memory,
        v1::Durability::Unspecified | v1::Durability::Disk => Durability::Disk,
    }
}

/// The topic that a request asks for.
pub fn topic_spec_from_wire(request: &v1::CreateTopicRequest) -> TopicSpec {
    TopicSpec {
        partitions: request.partitions,
        replication: if request.replication == 0 {
            TopicSpec::default().replication
        } else {
            request.replication
        },
        durability: durability_from_wire(request.durability()),
        zone_waiver: request.zone_waiver,
        retention: request.retention.map(retention_from_wire).unwrap_or_default(),
        compaction: request.compaction.map(compaction_from_wire),
    }
}

/// The change that a request asks for.
pub fn topic_change_from_wire(request: &v1::AlterTopicRequest) -> TopicChange {
    use v1::alter_topic_request::CompactionChange;
    let compaction = match request.compaction_change {
        Some(CompactionChange::Compaction(compaction)) => Some(Some(compaction_from_wire(compaction))),
        Some(CompactionChange::NotCompacted(true)) => Some(None),
        Some(CompactionChange::NotCompacted(false)) | None => None,
    };
    TopicChange { retention: request.retention.map(retention_from_wire), compaction }
}

/// A request for that change of the topic of that name; its id is left out.
pub fn topic_change_to_wire(name: &str, change: TopicChange) -> v1::AlterTopicRequest {
    use v1::alter_topic_request::CompactionChange;
    let compaction_change = change.compaction.map(|compaction| match compaction {
        Some(compaction) => CompactionChange::Compaction(compaction_to_wire(compaction)),
        None => CompactionChange::NotCompacted(true),
    });
    v1::AlterTopicRequest {
        name: name.to_owned(),
        topic_id: Default::default(),
        retention: change.retention.map(retention_to_wire),
        compaction_change,
    }
}

/// How a topic is compacted, for the wire.
pub fn compaction_to_wire(compaction: Compaction) -> v1::Compaction {
    v1::Compaction {
        tombstone_delay_ms: Some(compaction.tombstone_delay_ms),
        min_dirty_percent: Some(u32::from(compaction.min_dirty_percent)),
    }
}

/// How a topic is compacted, from the wire. A share that is no percentage stays none: it is refused where it is applied.
pub fn compaction_from_wire(wire: v1::Compaction) -> Compaction {
    let defaults = Compaction::default();
    let percent = wire.min_dirty_percent.map(|percent| u8::try_from(percent).unwrap_or(u8::MAX));
    Compaction {
        tombstone_delay_ms: wire.tombstone_delay_ms.unwrap_or(defaults.tombstone_delay_ms),
        min_dirty_percent: percent.unwrap_or(defaults.min_dirty_percent),
    }
}

/// How much is kept, for the wire.
pub fn retention_to_wire(retention: Retention) -> v1::Retention {
    v1::Retention { time_ms: retention.time_ms, bytes: retention.bytes }
}

/// How much is kept, from the wire.
pub fn retention_from_wire(wire: v1::Retention) -> Retention {
    Retention { time_ms: wire.time_ms, bytes: wire.bytes }
}

/// A leader's report for the wire.
pub fn report_to_wire(report: &LeaderReport, complete: bool) -> internal::v1::LeaderReport {
    let state = match report.state {
        LeaderState::Fencing => internal::v1::LeaderState::Fencing,
        LeaderState::Active => internal::v1::LeaderState::Active,
        LeaderState::Stalled => internal::v1::LeaderState::Stalled,
    };
    internal::v1::LeaderReport {
        topic_id: report.partition.topic.to_bytes().to_vec().into(),
        partition: report.partition.index,
        term: report.term.0,
        state: state.into(),
        log_end_offset: report.log_end_offset.0,
        complete,
        writable: report.writable,
        in_sync: report.in_sync.iter().copied().map(replica_to_wire).collect(),
    }
}

/// A leader's report from the wire, and whether its term's change is complete.
///
/// # Errors
/// Where the partition or the state is missing.
pub fn report_from_wire(wire: internal::v1::LeaderReport) -> Result<(LeaderReport, bool), ConvertError> {
    let state = match wire.state() {
        internal::v1::LeaderState::Fencing => LeaderState::Fencing,
        internal::v1::LeaderState::Active => LeaderState::Active,
        internal::v1::LeaderState::Stalled => LeaderState::Stalled,
        internal::v1::LeaderState::Unspecified => return Err(bad("LeaderReport", "state", "unknown")),
    };
    let partition = PartitionId { topic: topic_id("LeaderReport", &wire.topic_id)?, index: wire.partition };
    let report = LeaderReport {
        partition,
        term: Term(wire.term),
        state,
        log_end_offset: Offset(wire.log_end_offset),
        writable: wire.writable,
        in_sync: wire.in_sync.into_iter().map(replica_from_wire).collect(),
    };
    Ok((report, wire.complete))
}

fn broker_to_wire(broker: &Broker) -> v1::Broker {
    v1::Broker {
        id: broker.id.0,
        zone: broker.zone.as_str().to_owned(),
        dir: broker.dir.0,
        incarnation: broker.incarnation.0,
        client_endpoint: broker.client_endpoint.clone(),
        peer_endpoint: broker.peer_endpoint.clone(),
        live: broker.live,
        draining: broker.draining,
        version: broker.version,
    }
}

fn broker_from_wire(wire: v1::Broker) -> Broker {
    Broker {
        id: BrokerId(wire.id),
        zone: ZoneId::new(&wire.zone),
        dir: DirId(wire.dir),
        incarnation: Incarnation(wire.incarnation),
        client_endpoint: wire.client_endpoint,
        peer_endpoint: wire.peer_endpoint,
        live: wire.live,
        draining: wire.draining,
        version: wire.version,
    }
}

fn topic_to_wire(topic: &Topic) -> v1::Topic {
    v1::Topic {
        id: topic.id.to_bytes().to_vec().into(),
        name: topic.name.clone(),
        partitions: topic.spec.partitions,
        replication: topic.spec.replication,
        durability: durability_to_wire(topic.spec.durability).into(),
        zone_waiver: topic.spec.zone_waiver,
        deleted: topic.deleted,
        retention: Some(retention_to_wire(topic.spec.retention)),
        compaction: topic.spec.compaction.map(compaction_to_wire),
        version: topic.version,
    }
}

fn topic_from_wire(wire: v1::Topic) -> Result<Topic, ConvertError> {
    let durability = durability_from_wire(wire.durability());
    let spec = TopicSpec {
        partitions: wire.partitions,
        replication: wire.replication,
        durability,
        zone_waiver: wire.zone_waiver,
        retention: wire.retention.map(retention_from_wire).unwrap_or_default(),
        compaction: wire.compaction.map(compaction_from_wire),
    };
    let id = topic_id("Topic", &wire.id)?;
    Ok(Topic { id, name: wire.name, spec, deleted: wire.deleted, version: wire.version })
}

fn partition_to_wire(partition: &Partition) -> v1::Partition {
    let register = &partition.register;
    v1::Partition {
        topic_id: partition.id.topic.to_bytes().to_vec().into(),
        index: partition.id.index,
        term: register.term.0,
        leader: Some(replica_to_wire(register.leader)),
        set: register.set.iter().copied().map(replica_to_wire).collect(),
        prev: register.prev.iter().flatten().copied().map(replica_to_wire).collect(),
        target: register.target.iter().flatten().copied().map(replica_to_wire).collect(),
        unclean_term: register.unclean_term.map_or(0, |term| term.0),
        version: partition.version,
    }
}

fn partition_from_wire(wire: v1::Partition) -> Result<Partition, ConvertError> {
    if wire.set.is_empty() {
        return Err(bad("Partition", "set", "empty"));
    }
    let prev: Vec<_> = wire.prev.into_iter().map(replica_from_wire).collect();
    let target: Vec<_> = wire.target.into_iter().map(replica_from_wire).collect();
    let register = Register {
        term: Term(wire.term),
        leader: replica("Partition", "leader", wire.leader)?,
        set: wire.set.into_iter().map(replica_from_wire).collect(),
        prev: (!prev.is_empty()).then_some(prev),
        target: (!target.is_empty()).then_some(target),
        unclean_term: (wire.unclean_term > 0).then_some(Term(wire.unclean_term)),
    };
    let id = PartitionId { topic: topic_id("Partition", &wire.topic_id)?, index: wire.index };
    Ok(Partition { id, register, version: wire.version })
}
