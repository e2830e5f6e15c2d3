//! Registration, placement, failover and the map's completeness.

use std::collections::BTreeMap;

use super::*;
use crate::{BrokerId, DirId, Incarnation};

fn registration(id: u32, zone: &str, incarnation: u64) -> BrokerRegistration {
    BrokerRegistration {
        id: BrokerId(id),
        zone: ZoneId::new(zone),
        dir: DirId(u64::from(id) + 100),
        incarnation: Incarnation(incarnation),
        client_endpoint: format!("{id}:1"),
        peer_endpoint: format!("{id}:2"),
    }
}

/// Metadata with what its holders saw of it.
struct Cluster {
    metadata: Metadata,
    index: u64,
    copy: ClusterMap,
}

impl Cluster {
    /// Brokers 1, 2, 3 in zones a, b, c.
    fn new() -> Cluster {
        let mut cluster = Cluster { metadata: Metadata::default(), index: 0, copy: ClusterMap::default() };
        for (id, zone) in [(1, "a"), (2, "b"), (3, "c")] {
            cluster.apply(Command::RegisterBroker(registration(id, zone, 1))).unwrap();
        }
        cluster
    }

    /// Applies a command; a copy that follows by updates must stay equal.
    fn apply(&mut self, command: Command) -> Result<Applied, MetadataError> {
        self.index += 1;
        let before = self.metadata.clone();
        let (result, update) = self.metadata.apply(self.index, &command);
        if result.is_err() {
            assert_eq!(self.metadata, before, "a refused command changed something");
        }
        if let Some(update) = update {
            assert!(self.copy.adopt(&update).unwrap());
        }
        assert_eq!(&self.copy, self.metadata.map());
        result
    }

    fn create(&mut self, name: &str, partitions: u32) -> TopicId {
        let id = TopicId(u128::from(self.index) + 1);
        let spec = TopicSpec { partitions, ..TopicSpec::default() };
        self.apply(Command::CreateTopic { id, name: name.to_owned(), spec }).unwrap();
        id
    }

    fn led(&self, topic: TopicId) -> BTreeMap<u32, usize> {
        let mut led = BTreeMap::new();
        for partition in self.metadata.map().partitions_of(topic) {
            *led.entry(partition.register.leader.broker.0).or_default() += 1;
        }
        led
    }

    fn fence(&mut self, id: u32, incarnation: u64) {
        self.apply(Command::FenceBrokers(vec![(BrokerId(id), Incarnation(incarnation))])).unwrap();
    }
}

#[test]
fn every_partition_has_a_replica_in_each_zone_and_leaders_spread() {
    let mut cluster = Cluster::new();
    let topic = cluster.create("t", 12);
    let map = cluster.metadata.map();
    for partition in map.partitions_of(topic) {
        let zones = partition.register.set.iter().map(|replica| &map.broker(replica.broker).unwrap().zone);
        assert!(zone_rule_holds(zones), "META-2");
        assert_eq!(partition.register.set.len(), 3);
    }
    assert_eq!(cluster.led(topic), BTreeMap::from([(1, 4), (2, 4), (3, 4)]));
}

#[test]
fn one_entry_moves_all_leaders_of_a_dead_broker_and_its_old_run_cannot_be_fenced_twice() {
    let mut cluster = Cluster::new();
    let topic = cluster.create("t", 12);
    cluster.fence(2, 1);
    assert_eq!(cluster.led(topic), BTreeMap::from([(1, 6), (3, 6)]));
    cluster.apply(Command::RegisterBroker(registration(2, "b", 2))).unwrap();
    let map = cluster.metadata.map().clone();
    cluster.fence(2, 1);
    assert_eq!(cluster.metadata.map(), &map, "a verdict on an earlier run hit the new one");
}

#[test]
fn leaders_of_a_new_topic_spread_also_after_a_zone_came_back() {
    let mut cluster = Cluster::new();
    cluster.create("old", 12);
    cluster.fence(2, 1);
    cluster.apply(Command::RegisterBroker(registration(2, "b", 2))).unwrap();
    let topic = cluster.create("new", 6);
    assert_eq!(cluster.led(topic), BTreeMap::from([(1, 2), (2, 2), (3, 2)]));
}

#[test]
fn a_restarted_leader_gets_a_new_term() {
    let mut cluster = Cluster::new();
    let topic = cluster.create("t", 3);
    let terms = |cluster: &Cluster| -> Vec<u32> {
        cluster.metadata.map().partitions_of(topic).map(|partition| partition.register.term.0).collect()
    };
    cluster.apply(Command::RegisterBroker(registration(1, "a", 2))).unwrap();
    let moved = terms(&cluster).into_iter().filter(|&term| term == 2).count();
    assert_eq!(moved, 1, "META-1: exactly the partition that broker 1 led");
}

#[test]
fn a_partition_without_a_live_member_waits_for_one() {
    let mut cluster = Cluster::new();
    let topic = cluster.create("t", 1);
    for id in 1..=3 {
        cluster.fence(id, 1);
    }
    let id = PartitionId { topic, index: 0 };
    assert!(cluster.metadata.map().leader_of(id).is_none());
    cluster.apply(Command::RegisterBroker(registration(3, "c", 2))).unwrap();
    assert_eq!(cluster.metadata.map().leader_of(id).unwrap().id, BrokerId(3));
}

#[test]
fn what_cannot_be_placed_is_refused() {
    let mut cluster = Cluster::new();
    let mut create = |spec: TopicSpec| {
        cluster
            .apply(Command::CreateTopic { id: TopicId(99), name: "t".to_owned(), spec })
            .unwrap_err()
            .code()
    };
    let spec = TopicSpec::default;
    assert_eq!(create(TopicSpec { replication: 4, ..spec() }), crate::ErrorCode::PlacementImpossible);
    assert_eq!(create(TopicSpec { replication: 2, ..spec() }), crate::ErrorCode::InvalidRequest);
    assert_eq!(create(TopicSpec { partitions: 0, ..spec() }), crate::ErrorCode::InvalidRequest);
    cluster.fence(1, 1);
    cluster.create("two-zones-are-enough", 3);
    cluster.fence(2, 1);
    let error = cluster
        .apply(Command::CreateTopic { id: TopicId(98), name: "one".to_owned(), spec: spec() })
        .unwrap_err();
    assert!(matches!(error, MetadataError::NotEnoughLiveBrokers { .. }), "{error}");
}

#[test]
fn a_deleted_topic_frees_its_name_and_keeps_its_id() {
    let mut cluster = Cluster::new();
    let old = cluster.create("t", 3);
    cluster.apply(Command::DeleteTopic { id: old }).unwrap();
    assert!(cluster.apply(Command::DeleteTopic { id: old }).is_err());
    let new = cluster.create("t", 2);
    let map = cluster.metadata.map();
    assert_eq!(map.topic_named("t").unwrap().id, new);
    assert!(map.topic(old).unwrap().deleted);
    assert_eq!(map.partitions().count(), 2);
}

#[test]
fn a_map_is_adopted_whole_or_not_at_all() {
    let mut cluster = Cluster::new();
    cluster.create("t", 3);
    let whole = cluster.metadata.map().snapshot();
    for missing in 0..whole.objects.len() {
        let mut partial = whole.clone();
        partial.objects.remove(missing);
        let mut map = ClusterMap::default();
        assert!(matches!(map.adopt(&partial), Err(MapError::Partial { .. })), "META-4");
        assert_eq!(map, ClusterMap::default());
    }
    let mut stale = ClusterMap::default();
    let later = Update { base: Some(3), ..whole };
    assert!(matches!(stale.adopt(&later), Err(MapError::Gap { .. })));
}

#[test]
fn changes_since_an_index_bring_a_copy_up_to_date() {
    let mut cluster = Cluster::new();
    let mut copies = vec![cluster.metadata.map().clone()];
    let topic = cluster.create("t", 6);
    copies.push(cluster.metadata.map().clone());
    cluster.fence(3, 1);
    copies.push(cluster.metadata.map().clone());
    cluster.apply(Command::DeleteTopic { id: topic }).unwrap();
    for mut copy in copies {
        copy.adopt(&cluster.metadata.map().changes_since(copy.index())).unwrap();
        assert_eq!(&copy, cluster.metadata.map());
    }
}

#[test]
fn producer_ids_are_given_out_once() {
    let mut cluster = Cluster::new();
    let mut ids = |count| match cluster.apply(Command::AllocateProducerIds { count }) {
        Ok(Applied::ProducerIds { first, count }) => (first, count),
        other => panic!("{other:?}"),
    };
    assert_eq!((ids(1000), ids(5), ids(1)), ((0, 1000), (1000, 5), (1005, 1)));
    assert!(cluster.apply(Command::AllocateProducerIds { count: 0 }).is_err());
}
