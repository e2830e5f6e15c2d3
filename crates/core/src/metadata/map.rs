//! The map that brokers and clients route by, and its transfer: complete or refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Broker, Object, Partition, Topic};
use crate::mutant;
use crate::{BrokerId, PartitionId, ReplicaId, TopicId};

/// A change of the map, or all of it. Stamped with what the holder must have afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// The index the change builds on; `None` for a snapshot, which replaces what was there.
    pub base: Option<u64>,
    /// Index of the log entry after which the map is as described.
    pub index: u64,
    /// Number of objects in the whole map.
    pub entry_count: u64,
    /// Digest over the whole map.
    pub digest: u64,
    /// The objects that changed, or all of them.
    pub objects: Vec<Object>,
}

/// Why an update was refused. The map is as before; the holder asks for a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// The update builds on another state.
    #[error("update builds on index {base}, and the map stands at {index} only")]
    Gap {
        /// What the update needs.
        base: u64,
        /// What there is.
        index: u64,
    },
    /// The update would leave a partial map.
    #[error(
        "map at index {index} would be partial: {count} entries with digest {digest:016x}, \
         expected {expected_count} with {expected_digest:016x}"
    )]
    Partial {
        /// The update's index.
        index: u64,
        /// Entries after the update.
        count: u64,
        /// Digest after the update.
        digest: u64,
        /// Entries announced.
        expected_count: u64,
        /// Digest announced.
        expected_digest: u64,
    },
}

/// Brokers, topics and partitions as of one index. Equal index means equal map.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterMap {
    index: u64,
    digest: u64,
    brokers: BTreeMap<BrokerId, Broker>,
    topics: BTreeMap<TopicId, Topic>,
    partitions: BTreeMap<PartitionId, Partition>,
    /// Topics that are not deleted, by name.
    names: BTreeMap<String, TopicId>,
}

impl ClusterMap {
    /// Index of the entry that changed the map last; 0 for an empty one.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Number of objects.
    pub fn entry_count(&self) -> u64 {
        (self.brokers.len() + self.topics.len() + self.partitions.len()) as u64
    }

    /// A digest over every object's identity and version: it differs where an object is missing or stale.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// All brokers by id.
    pub fn brokers(&self) -> impl Iterator<Item = &Broker> {
        self.brokers.values()
    }

    /// One broker.
    pub fn broker(&self, id: BrokerId) -> Option<&Broker> {
        self.brokers.get(&id)
    }

    /// Whether the broker is alive and still serves that data directory.
    pub fn is_live(&self, replica: ReplicaId) -> bool {
        self.broker(replica.broker).is_some_and(|broker| broker.live && broker.dir == replica.dir)
    }

    /// Whether the broker, alive or not, still serves that data directory: what is on it may come back.
    pub fn is_kept(&self, replica: ReplicaId) -> bool {
        self.broker(replica.broker).is_some_and(|broker| broker.dir == replica.dir)
    }

    /// Whether the broker may be appointed there: alive, serving that data directory, and not about to stop.
    pub fn may_lead(&self, replica: ReplicaId) -> bool {
        self.is_live(replica) && self.broker(replica.broker).is_some_and(|broker| !broker.draining)
    }

    /// All topics by id, deleted ones included.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.topics.values()
    }

    /// One topic, which may be deleted.
    pub fn topic(&self, id: TopicId) -> Option<&Topic> {
        self.topics.get(&id)
    }

    /// The topic that has this name now.
    pub fn topic_named(&self, name: &str) -> Option<&Topic> {
        self.topics.get(self.names.get(name)?)
    }

    /// All partitions by id.
    pub fn partitions(&self) -> impl Iterator<Item = &Partition> {
        self.partitions.values()
    }

    /// The partitions of one topic in order.
    pub fn partitions_of(&self, topic: TopicId) -> impl Iterator<Item = &Partition> {
        let first = PartitionId { topic, index: 0 };
        let last = PartitionId { topic, index: u32::MAX };
        self.partitions.range(first..=last).map(|(_, partition)| partition)
    }

    /// One partition.
    pub fn partition(&self, id: PartitionId) -> Option<&Partition> {
        self.partitions.get(&id)
    }

    /// The broker that leads a partition, if it is alive.
    pub fn leader_of(&self, id: PartitionId) -> Option<&Broker> {
        let leader = self.partition(id)?.register.leader;
        self.broker(leader.broker).filter(|broker| broker.live && broker.dir == leader.dir)
    }

    /// Every object, as a snapshot.
    pub fn snapshot(&self) -> Update {
        let brokers = self.brokers.values().cloned().map(Object::Broker);
        let topics = self.topics.values().cloned().map(Object::Topic);
        let partitions = self.partitions.values().cloned().map(Object::Partition);
        self.update(None, brokers.chain(topics).chain(partitions).collect())
    }

    /// What changed after `base`, an index that this map once stood at. A deleted topic's partitions need no mention.
    pub fn changes_since(&self, base: u64) -> Update {
        let brokers =
            self.brokers.values().filter(|broker| broker.version > base).cloned().map(Object::Broker);
        let topics = self.topics.values().filter(|topic| topic.version > base).cloned().map(Object::Topic);
        let partitions = self.partitions.values().filter(|partition| partition.version > base);
        let partitions = partitions.cloned().map(Object::Partition);
        self.update(Some(base), brokers.chain(topics).chain(partitions).collect())
    }

    /// The change from `base` to this map, given the objects that differ.
    pub fn update(&self, base: Option<u64>, objects: Vec<Object>) -> Update {
        Update { base, index: self.index, entry_count: self.entry_count(), digest: self.digest, objects }
    }

    /// Takes in an update. Older ones than the map change nothing and say so with `false`.
    ///
    /// # Errors
    /// Refuses an update that builds on another state or would leave a partial map (META-4).
    pub fn adopt(&mut self, update: &Update) -> Result<bool, MapError> {
        if update.index <= self.index && self.index != 0 {
            return Ok(false);
        }
        let mut next = match update.base {
            None => ClusterMap::default(),
            // Objects are told whole and history is one line, so an update may begin before what is known already: it
            // comes from a source that bundles changes differently. The digest shows whether the result is complete.
            Some(base) if base <= self.index => self.clone(),
            Some(base) => return Err(MapError::Gap { base, index: self.index }),
        };
        for object in &update.objects {
            next.put(object.clone());
        }
        next.index = update.index;
        let whole = next.entry_count() == update.entry_count && next.digest == update.digest;
        if !whole && !mutant!(AdoptPart) {
            return Err(MapError::Partial {
                index: update.index,
                count: next.entry_count(),
                digest: next.digest,
                expected_count: update.entry_count,
                expected_digest: update.digest,
            });
        }
        *self = next;
        Ok(true)
    }

    /// Puts an object in the place of the one of the same identity.
    pub(super) fn put(&mut self, object: Object) {
        self.digest = self.digest.wrapping_add(object_digest(&object));
        let replaced = match object {
            Object::Broker(broker) => self.brokers.insert(broker.id, broker).map(Object::Broker),
            Object::Topic(topic) => self.put_topic(topic),
            Object::Partition(partition) => {
                self.partitions.insert(partition.id, partition).map(Object::Partition)
            }
        };
        if let Some(replaced) = replaced {
            self.digest = self.digest.wrapping_sub(object_digest(&replaced));
        }
    }

    /// A deleted topic frees its name and takes its partitions along.
    fn put_topic(&mut self, topic: Topic) -> Option<Object> {
        if topic.deleted {
            if self.names.get(&topic.name) == Some(&topic.id) {
                self.names.remove(&topic.name);
            }
            let gone: Vec<PartitionId> = self.partitions_of(topic.id).map(|partition| partition.id).collect();
            for id in gone {
                if let Some(partition) = self.partitions.remove(&id) {
                    self.digest = self.digest.wrapping_sub(object_digest(&Object::Partition(partition)));
                }
            }
        } else {
            self.names.insert(topic.name.clone(), topic.id);
        }
        self.topics.insert(topic.id, topic).map(Object::Topic)
    }

    pub(super) fn set_index(&mut self, index: u64) {
        self.index = index;
    }
}

/// Identity and version of an object, mixed. Contents are not hashed: two builds that encode an object differently
/// still agree on whether they hold the same one.
fn object_digest(object: &Object) -> u64 {
    match object {
        Object::Broker(broker) => mix([1, u64::from(broker.id.0), 0, 0, broker.version]),
        Object::Topic(topic) => {
            let [high, low] = halves(topic.id);
            mix([2, high, low, 0, topic.version])
        }
        Object::Partition(partition) => {
            let [high, low] = halves(partition.id.topic);
            mix([3, high, low, u64::from(partition.id.index), partition.version])
        }
    }
}

fn halves(id: TopicId) -> [u64; 2] {
    [(id.0 >> 64) as u64, id.0 as u64]
}

/// Folds words through the finalizer of SplitMix64 (Steele, Lea, Flood 2014).
fn mix(words: [u64; 5]) -> u64 {
    words.into_iter().fold(0x9e37_79b9_7f4a_7c15, |state, word| {
        let mut z = (state ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}
