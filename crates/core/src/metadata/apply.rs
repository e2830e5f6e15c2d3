//! How a command changes the metadata: pure, total, the same on every controller.

use serde::{Deserialize, Serialize};

use super::command::{Appointment, BrokerRegistration, Command, MetadataError, TopicChange, TopicSpec};
use super::invariants::violation;
use super::placement::{LeaderChoice, place};
use super::{Broker, ClusterMap, Object, Partition, Register, Topic, Update};
use crate::compaction::Compaction;
use crate::mutant;
use crate::retention::Retention;
use crate::{BrokerId, Incarnation, PartitionId, ReplicaId, Term, TopicId};

/// Upper bounds that keep one command, and the map, of a sane size.
const MAX_PARTITIONS: u32 = 10_000;
const MAX_REPLICATION: u32 = 5;
const MIN_RETENTION_MS: u64 = 1_000;
const MIN_RETENTION_BYTES: u64 = 1 << 20;
const MAX_PRODUCER_IDS: u32 = 100_000;

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Applied {
    /// Nothing more to say.
    Done,
    /// A topic was created.
    TopicCreated(TopicId),
    /// Producer ids `first .. first + count` are the caller's.
    ProducerIds {
        /// The first.
        first: i64,
        /// How many.
        count: u32,
    },
}

/// The state that the controllers' log builds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    map: ClusterMap,
    next_producer_id: i64,
}

impl Metadata {
    /// The map that brokers and clients get.
    pub fn map(&self) -> &ClusterMap {
        &self.map
    }

    /// The state of which these are the parts, as a store gives it back.
    pub fn from_parts(map: ClusterMap, next_producer_id: i64) -> Self {
        Metadata { map, next_producer_id }
    }

    /// The producer id that is handed out next.
    pub fn next_producer_id(&self) -> i64 {
        self.next_producer_id
    }

    /// Applies the log entry at `index`. Returns what to answer the proposer, and the update for the holders of the
    /// map if it changed. A refused command changes nothing.
    pub fn apply(
        &mut self,
        index: u64,
        command: &Command,
    ) -> (Result<Applied, MetadataError>, Option<Update>) {
        let base = self.map.index();
        let mut change = Change { map: &mut self.map, index, objects: Vec::new() };
        let result = match command {
            Command::RegisterBroker(registration) => change.register_broker(registration),
            Command::FenceBrokers(brokers) => change.fence_brokers(brokers),
            Command::CreateTopic { id, name, spec } => change.create_topic(*id, name, spec),
            Command::DeleteTopic { id } => change.delete_topic(*id),
            Command::SetRetention { id, retention } => {
                change.alter_topic(*id, TopicChange { retention: Some(*retention), ..TopicChange::default() })
            }
            Command::AlterTopic { id, change: altered } => change.alter_topic(*id, *altered),
            Command::Appoint(appointments) => change.appoint_all(appointments),
            Command::DrainBroker { id, incarnation } => change.drain_broker(*id, *incarnation),
            Command::Reassign(reassignments) => change.reassign_all(reassignments),
            Command::ChangeSets(changes) => change.change_sets(changes),
            Command::CancelReassign { partition, expected_term } => {
                change.cancel_reassign(*partition, *expected_term)
            }
            Command::RecoverUnclean { appointment } => change.recover_unclean(appointment),
            Command::CompleteChange { partition, term } => change.complete(*partition, *term),
            Command::AllocateProducerIds { count } => {
                return (allocate_producer_ids(&mut self.next_producer_id, *count), None);
            }
        };
        let objects = change.objects;
        if objects.is_empty() {
            return (result, None);
        }
        self.map.set_index(index);
        (result, Some(self.map.update(Some(base), objects)))
    }
}

fn allocate_producer_ids(next: &mut i64, count: u32) -> Result<Applied, MetadataError> {
    check_range("number of producer ids", count, 1..=MAX_PRODUCER_IDS)?;
    let first = *next;
    *next += i64::from(count);
    Ok(Applied::ProducerIds { first, count })
}

/// One command's changes to the map.
pub(super) struct Change<'a> {
    pub(super) map: &'a mut ClusterMap,
    pub(super) index: u64,
    objects: Vec<Object>,
}

impl Change<'_> {
    fn register_broker(&mut self, registration: &BrokerRegistration) -> Result<Applied, MetadataError> {
        let known = self.map.broker(registration.id);
        if let Some(known) = known.filter(|known| known.zone != registration.zone) {
            return Err(MetadataError::BrokerInOtherZone {
                id: registration.id,
                registered: known.zone.clone(),
                requested: registration.zone.clone(),
            });
        }
        let restarted = known.is_some_and(|known| known.incarnation != registration.incarnation);
        let broker = Broker {
            id: registration.id,
            zone: registration.zone.clone(),
            dir: registration.dir,
            incarnation: registration.incarnation,
            client_endpoint: registration.client_endpoint.clone(),
            peer_endpoint: registration.peer_endpoint.clone(),
            live: true,
            draining: known.is_some_and(|known| known.draining) && !restarted,
            version: self.index,
        };
        if known.is_some_and(|known| Broker { version: self.index, ..known.clone() } == broker) {
            return Ok(Applied::Done);
        }
        self.put(Object::Broker(broker));
        // A restarted leader gets a fresh term as soon as possible (R10); a leaderless partition may now have one.
        self.appoint_where(|map, register| {
            !map.may_lead(register.leader) || (restarted && register.leader.broker == registration.id)
        });
        Ok(Applied::Done)
    }

    /// R42: one entry for all that the dead brokers lead.
    fn fence_brokers(&mut self, dead: &[(BrokerId, Incarnation)]) -> Result<Applied, MetadataError> {
        for &(id, incarnation) in dead {
            let broker = self.map.broker(id);
            // A verdict on an earlier run does not hit the broker that is back.
            let same_run = |broker: &&Broker| broker.incarnation == incarnation || mutant!(FenceLaterRun);
            let Some(broker) = broker.filter(|broker| broker.live).filter(same_run) else { continue };
            let fenced = Broker { live: false, version: self.index, ..broker.clone() };
            self.put(Object::Broker(fenced));
        }
        self.appoint_where(|map, register| !map.may_lead(register.leader));
        Ok(Applied::Done)
    }

    /// A verdict on an earlier run does not hit the broker that is back.
    fn drain_broker(&mut self, id: BrokerId, incarnation: Incarnation) -> Result<Applied, MetadataError> {
        let broker = self.map.broker(id).ok_or(MetadataError::UnknownBroker { id })?;
        if broker.live && broker.incarnation == incarnation && !broker.draining {
            let draining = Broker { draining: true, version: self.index, ..broker.clone() };
            self.put(Object::Broker(draining));
            self.appoint_where(|map, register| !map.may_lead(register.leader));
        }
        Ok(Applied::Done)
    }

    fn create_topic(&mut self, id: TopicId, name: &str, spec: &TopicSpec) -> Result<Applied, MetadataError> {
        check_topic_name(name)?;
        check_range("number of partitions", spec.partitions, 1..=MAX_PARTITIONS)?;
        let least = if spec.zone_waiver { 1 } else { 3 };
        check_range("replication", spec.replication, least..=MAX_REPLICATION)?;
        check_retention(spec.retention)?;
        check_compaction(spec.compaction)?;
        let same = |known: &&Topic| {
            let TopicSpec { retention, compaction, .. } = known.spec;
            let asked = TopicSpec { retention, compaction, ..spec.clone() };
            known.name == name && known.spec == asked && !known.deleted
        };
        if self.map.topic(id).filter(same).is_some() {
            return Ok(Applied::TopicCreated(id)); // the proposer did not hear the first answer
        }
        if self.map.topic_named(name).is_some() || self.map.topic(id).is_some() {
            return Err(MetadataError::TopicExists { name: name.to_owned() });
        }
        let sets = place(self.map, spec)?;
        let topic =
            Topic { id, name: name.to_owned(), spec: spec.clone(), deleted: false, version: self.index };
        self.put(Object::Topic(topic));
        let mut leaders = LeaderChoice::new(self.map);
        for (index, set) in sets.into_iter().enumerate() {
            let id = PartitionId { topic: id, index: index as u32 };
            // The first is where the partition is at home. `place` saw to a live majority, so there is a live member.
            let leader = leaders.prefer(self.map, id, &set).unwrap_or(set[0]);
            let register =
                Register { term: Term(1), leader, set, prev: None, target: None, unclean_term: None };
            self.put(Object::Partition(Partition { id, register, version: self.index }));
        }
        Ok(Applied::TopicCreated(id))
    }

    fn delete_topic(&mut self, id: TopicId) -> Result<Applied, MetadataError> {
        let topic = self.map.topic(id).filter(|topic| !topic.deleted);
        let topic = topic.ok_or(MetadataError::UnknownTopic { id })?;
        let deleted = Topic { deleted: true, version: self.index, ..topic.clone() };
        self.put(Object::Topic(deleted));
        Ok(Applied::Done)
    }

    fn alter_topic(&mut self, id: TopicId, change: TopicChange) -> Result<Applied, MetadataError> {
        let topic = self.map.topic(id).filter(|topic| !topic.deleted);
        let topic = topic.ok_or(MetadataError::UnknownTopic { id })?;
        let spec = change.applied_to(&topic.spec);
        check_retention(spec.retention)?;
        check_compaction(spec.compaction)?;
        if topic.spec != spec {
            let changed = Topic { spec, version: self.index, ..topic.clone() };
            self.put(Object::Topic(changed));
        }
        Ok(Applied::Done)
    }

    /// R1 for each; one conflict does not fail the others.
    fn appoint_all(&mut self, appointments: &[Appointment]) -> Result<Applied, MetadataError> {
        for appointment in appointments {
            let Some(partition) = self.map.partition(appointment.partition) else { continue };
            let register = &partition.register;
            let leader = register.set.iter().copied().find(|replica| replica.broker == appointment.leader);
            let Some(leader) = leader.filter(|&replica| self.map.may_lead(replica)) else { continue };
            if register.term == appointment.expected_term {
                self.appoint(partition.clone(), leader);
            }
        }
        Ok(Applied::Done)
    }

    /// R3.
    fn complete(&mut self, id: PartitionId, term: Term) -> Result<Applied, MetadataError> {
        if let Some(partition) = self.map.partition(id)
            && (partition.register.term == term || mutant!(CompleteAnyTerm))
            && partition.register.prev.is_some()
        {
            let register = Register { prev: None, ..partition.register.clone() };
            self.put(Object::Partition(Partition { id, register, version: self.index }));
        }
        Ok(Applied::Done)
    }

    /// Appoints a live leader to every partition that needs one, where its set has one.
    fn appoint_where(&mut self, needs_leader: impl Fn(&ClusterMap, &Register) -> bool) {
        let needing: Vec<Partition> = self
            .map
            .partitions()
            .filter(|partition| needs_leader(self.map, &partition.register))
            .cloned()
            .collect();
        let mut leaders = LeaderChoice::new(self.map);
        for partition in needing {
            if let Some(leader) = leaders.choose(self.map, partition.id, &partition.register.set) {
                self.appoint(partition, leader);
            }
        }
    }

    /// R1.
    pub(super) fn appoint(&mut self, partition: Partition, leader: ReplicaId) {
        let unclean = mutant!(UncleanSticks) && partition.register.is_unclean();
        self.new_term(partition, leader, unclean);
    }

    /// R37.
    pub(super) fn appoint_unclean(&mut self, partition: Partition, leader: ReplicaId) {
        self.new_term(partition, leader, true);
    }

    /// META-1: the only place where a register's term moves.
    fn new_term(&mut self, partition: Partition, leader: ReplicaId, unclean: bool) {
        // The 23 bits of the wire form outlast any cluster; past them the partition keeps its last leader.
        if partition.register.term >= Term::MAX {
            return;
        }
        let old = partition.register.term;
        let term = if mutant!(AppointInSameTerm) { old } else { old.next() };
        let before = partition.register.unclean_term.filter(|_| !mutant!(ForgetUncleanTerm));
        let unclean_term = if unclean { Some(term) } else { before };
        let register = Register { term, leader, unclean_term, ..partition.register };
        self.put(Object::Partition(Partition { id: partition.id, register, version: self.index }));
    }

    pub(super) fn put(&mut self, object: Object) {
        if cfg!(debug_assertions)
            && let Object::Partition(partition) = &object
            && let Some(violation) =
                violation(self.map.partition(partition.id).map(|known| &known.register), &partition.register)
        {
            panic!("{violation}");
        }
        self.map.put(object.clone());
        self.objects.push(object);
    }
}

/// The rule of Kafka's `Topic.java`, which existing names obey.
fn check_topic_name(name: &str) -> Result<(), MetadataError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let fits = (1..=249).contains(&name.len()) && name.chars().all(allowed) && name != "." && name != "..";
    if fits { Ok(()) } else { Err(MetadataError::BadTopicName { name: name.chars().take(300).collect() }) }
}

/// So little is no retention: most likely a unit was mistaken.
fn check_retention(retention: Retention) -> Result<(), MetadataError> {
    let check = |what: &str, value: Option<u64>, least: u64| match value.filter(|value| *value < least) {
        Some(value) => Err(MetadataError::OutOfRange {
            what: what.to_owned(),
            value,
            allowed: format!("{least} or more"),
        }),
        None => Ok(()),
    };
    check("milliseconds of retention", retention.time_ms, MIN_RETENTION_MS)?;
    check("bytes of retention", retention.bytes, MIN_RETENTION_BYTES)
}

fn check_compaction(compaction: Option<Compaction>) -> Result<(), MetadataError> {
    let Some(Compaction { min_dirty_percent, .. }) = compaction else { return Ok(()) };
    check_range("percent of dirty bytes", u32::from(min_dirty_percent), 1..=100)
}

fn check_range(what: &str, value: u32, allowed: std::ops::RangeInclusive<u32>) -> Result<(), MetadataError> {
    if allowed.contains(&value) {
        return Ok(());
    }
    Err(MetadataError::OutOfRange {
        what: what.to_owned(),
        value: u64::from(value),
        allowed: format!("{} to {}", allowed.start(), allowed.end()),
    })
}
