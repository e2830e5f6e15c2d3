//! Registration, placement, failover and the map's completeness.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::compaction::Compaction;
use crate::retention::Retention;
use crate::{BrokerId, DirId, Incarnation, PartitionId, Term};

mod steps;
mod unclean;

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

    /// A topic of one partition, moved to these brokers.
    fn create_on(&mut self, brokers: &[u32]) -> TopicId {
        let topic = self.create("t", 1);
        let id = PartitionId { topic, index: 0 };
        if brokers_of(&self.register(id).set) != brokers {
            let mut partition = self.metadata.map().partition(id).unwrap().clone();
            let map = self.metadata.map();
            partition.register.set =
                brokers.iter().map(|&id| map.broker(BrokerId(id)).unwrap().replica()).collect();
            partition.register.leader = partition.register.set[0];
            let mut map = map.clone();
            map.put(Object::Partition(partition));
            self.copy = map.clone();
            self.metadata = Metadata::from_parts(map, 0);
        }
        topic
    }

    fn register(&self, id: PartitionId) -> Register {
        self.metadata.map().partition(id).unwrap().register.clone()
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
fn how_much_is_kept_can_be_changed_and_nothing_absurd_is_taken() {
    let mut cluster = Cluster::new();
    let topic = cluster.create("t", 1);
    let set = |time_ms, bytes| Command::SetRetention { id: topic, retention: Retention { time_ms, bytes } };
    cluster.apply(set(Some(3_600_000), Some(1 << 30))).unwrap();
    let known = cluster.metadata.map().topic(topic).unwrap().clone();
    assert_eq!((known.spec.retention.time_ms, known.spec.retention.bytes), (Some(3_600_000), Some(1 << 30)));
    cluster.apply(set(Some(3_600_000), Some(1 << 30))).unwrap();
    assert_eq!(cluster.metadata.map().topic(topic), Some(&known), "nothing changed");
    // The one who created it asks again, not having heard the first answer.
    let asked = TopicSpec { partitions: 1, ..TopicSpec::default() };
    cluster.apply(Command::CreateTopic { id: topic, name: "t".to_owned(), spec: asked }).unwrap();
    assert_eq!(cluster.metadata.map().topic(topic), Some(&known));
    for absurd in [set(Some(999), None), set(None, Some(1000)), set(Some(0), Some(1 << 30))] {
        assert_eq!(cluster.apply(absurd).unwrap_err().code(), crate::ErrorCode::InvalidRequest);
    }
    cluster.apply(set(None, None)).unwrap();
    assert!(cluster.metadata.map().topic(topic).unwrap().spec.retention.is_unlimited());
    cluster.apply(Command::DeleteTopic { id: topic }).unwrap();
    let error = cluster.apply(set(None, None)).unwrap_err();
    assert!(matches!(error, MetadataError::UnknownTopic { .. }), "{error}");
}

#[test]
fn compaction_can_be_changed_beside_retention_and_a_bad_combination_changes_nothing() {
    let mut cluster = Cluster::new();
    let topic = cluster.create("t", 1);
    let alter = |retention, compaction| Command::AlterTopic {
        id: topic,
        change: TopicChange { retention, compaction },
    };
    let spec_of = |cluster: &Cluster| cluster.metadata.map().topic(topic).unwrap().spec.clone();
    let hourly = Compaction { tombstone_delay_ms: 3_600_000, min_dirty_percent: 10 };
    let hour = Retention { time_ms: Some(3_600_000), bytes: None };
    cluster.apply(alter(None, Some(Some(hourly)))).unwrap();
    assert_eq!(
        (spec_of(&cluster).compaction, spec_of(&cluster).retention),
        (Some(hourly), Retention::default())
    );
    cluster.apply(alter(Some(hour), None)).unwrap();
    let both = spec_of(&cluster);
    assert_eq!((both.compaction, both.retention), (Some(hourly), hour));
    // The one who created it asks again, not having heard the first answer.
    let asked = TopicSpec { partitions: 1, ..TopicSpec::default() };
    cluster.apply(Command::CreateTopic { id: topic, name: "t".to_owned(), spec: asked }).unwrap();

    let never = Compaction { min_dirty_percent: 0, ..hourly };
    let beyond = Compaction { min_dirty_percent: 101, ..hourly };
    let absurd = Retention { time_ms: Some(1), bytes: None };
    for bad in [
        alter(Some(Retention::default()), Some(Some(never))),
        alter(Some(Retention::default()), Some(Some(beyond))),
        alter(Some(absurd), Some(None)),
    ] {
        assert_eq!(cluster.apply(bad).unwrap_err().code(), crate::ErrorCode::InvalidRequest);
        assert_eq!(spec_of(&cluster), both, "half of it was done");
    }
    let spec = TopicSpec { compaction: Some(never), ..TopicSpec::default() };
    let create = Command::CreateTopic { id: TopicId(77), name: "u".to_owned(), spec };
    assert_eq!(cluster.apply(create).unwrap_err().code(), crate::ErrorCode::InvalidRequest);

    cluster.apply(alter(None, Some(None))).unwrap();
    assert_eq!((spec_of(&cluster).compaction, spec_of(&cluster).retention), (None, hour));
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

/// Zone a has brokers 1 and 4, zone b 2 and 5, zone c 3.
fn with_spares() -> Cluster {
    let mut cluster = Cluster::new();
    for (id, zone) in [(4, "a"), (5, "b")] {
        cluster.apply(Command::RegisterBroker(registration(id, zone, 1))).unwrap();
    }
    cluster
}

fn reassign(cluster: &Cluster, id: PartitionId, brokers: &[u32]) -> Command {
    let expected_term = cluster.register(id).term;
    let brokers = brokers.iter().map(|&broker| BrokerId(broker)).collect();
    Command::Reassign(vec![Reassignment { partition: id, expected_term, brokers }])
}

fn brokers_of(set: &[crate::ReplicaId]) -> Vec<u32> {
    set.iter().map(|replica| replica.broker.0).collect()
}

#[test]
fn a_replica_moves_by_learning_changing_and_completing() {
    let mut cluster = with_spares();
    let id = PartitionId { topic: cluster.create_on(&[1, 2, 3]), index: 0 };
    cluster.apply(reassign(&cluster, id, &[4, 2, 3])).unwrap();
    let learning = cluster.register(id);
    assert_eq!(learning.term, Term(1), "a learner needs no new term");
    assert_eq!(learning.learners().map(|replica| replica.broker.0).collect::<Vec<_>>(), [4]);
    let again = cluster.apply(reassign(&cluster, id, &[1, 5, 3])).unwrap_err();
    assert_eq!(again, MetadataError::ChangeUnderWay { id });

    cluster.apply(Command::ChangeSets(vec![(id, Term(1))])).unwrap();
    let changing = cluster.register(id);
    assert_eq!((changing.term, brokers_of(&changing.set)), (Term(2), vec![4, 2, 3]));
    assert_eq!(changing.prev.as_deref().map(brokers_of), Some(vec![1, 2, 3]));
    assert_ne!(changing.leader.broker, BrokerId(1), "who leaves does not lead");
    assert_eq!(cluster.apply(reassign(&cluster, id, &[4, 5, 3])), Err(MetadataError::ChangeUnderWay { id }));

    cluster.apply(Command::CompleteChange { partition: id, term: Term(1) }).unwrap();
    assert!(cluster.register(id).prev.is_some(), "an earlier term completes nothing");
    cluster.apply(Command::CompleteChange { partition: id, term: Term(2) }).unwrap();
    let moved = cluster.register(id);
    assert!(moved.prev.is_none() && moved.target.is_none());
    let left = cluster.metadata.map().broker(BrokerId(1)).unwrap().replica();
    assert!(!moved.names(left));
}

#[test]
fn a_move_is_called_off_before_and_after_the_change() {
    let mut cluster = with_spares();
    let id = PartitionId { topic: cluster.create_on(&[1, 2, 3]), index: 0 };
    let cancel = |term| Command::CancelReassign { partition: id, expected_term: Term(term) };
    assert_eq!(cluster.apply(cancel(1)), Err(MetadataError::NoChangeUnderWay { id }));
    cluster.apply(reassign(&cluster, id, &[4, 2, 3])).unwrap();
    cluster.apply(cancel(1)).unwrap();
    assert_eq!((cluster.register(id).term, cluster.register(id).target), (Term(1), None));

    cluster.apply(reassign(&cluster, id, &[4, 2, 3])).unwrap();
    cluster.apply(Command::ChangeSets(vec![(id, Term(1))])).unwrap();
    cluster.apply(cancel(2)).unwrap();
    let back = cluster.register(id);
    assert_eq!((back.term, brokers_of(&back.set)), (Term(3), vec![1, 2, 3]));
    assert_eq!(
        back.prev.as_deref().map(brokers_of),
        Some(vec![4, 2, 3]),
        "both majorities count until it is complete"
    );
}

#[test]
fn replica_sets_that_break_a_rule_are_refused() {
    let mut cluster = with_spares();
    let id = PartitionId { topic: cluster.create_on(&[1, 2, 3]), index: 0 };
    for (brokers, rule) in
        [(&[1, 4, 3][..], "no majority"), (&[1, 1, 3], "twice"), (&[1, 2], "replication is 3")]
    {
        let refused = cluster.apply(reassign(&cluster, id, brokers)).unwrap_err();
        assert!(refused.to_string().contains(rule), "{brokers:?}: {refused}");
    }
    let unknown = cluster.apply(reassign(&cluster, id, &[1, 2, 9])).unwrap_err();
    assert_eq!(unknown, MetadataError::UnknownBroker { id: BrokerId(9) });
    let stale = Reassignment { partition: id, expected_term: Term(7), brokers: vec![BrokerId(4)] };
    let stale = cluster.apply(Command::Reassign(vec![stale])).unwrap_err();
    assert_eq!(stale, MetadataError::StaleTerm { id, expected: Term(7), current: Term(1) });
}

#[test]
fn a_draining_broker_hands_its_partitions_over_and_stays_a_follower() {
    let mut cluster = Cluster::new();
    let topic = cluster.create("t", 12);
    cluster.apply(Command::DrainBroker { id: BrokerId(2), incarnation: Incarnation(1) }).unwrap();
    assert_eq!(cluster.led(topic), BTreeMap::from([(1, 6), (3, 6)]));
    assert!(cluster.metadata.map().broker(BrokerId(2)).unwrap().live);
    // Its end moves nothing more; the next run starts afresh.
    let before = cluster.metadata.map().partitions().cloned().collect::<Vec<_>>();
    cluster.fence(2, 1);
    assert_eq!(before, cluster.metadata.map().partitions().cloned().collect::<Vec<_>>());
    cluster.apply(Command::RegisterBroker(registration(2, "b", 2))).unwrap();
    let back = cluster.metadata.map().broker(BrokerId(2)).unwrap();
    assert!(back.live && !back.draining);
}

#[test]
fn an_unclean_recovery_needs_a_live_member_and_lasts_one_term() {
    let mut cluster = Cluster::new();
    let id = PartitionId { topic: cluster.create("t", 1), index: 0 };
    let order = |term, leader| Command::RecoverUnclean {
        appointment: Appointment { partition: id, expected_term: Term(term), leader: BrokerId(leader) },
    };
    assert_eq!(cluster.apply(order(1, 9)), Err(MetadataError::CannotLead { id, broker: BrokerId(9) }));
    cluster.apply(order(1, 2)).unwrap();
    let register = cluster.register(id);
    assert!(register.is_unclean() && register.leader.broker == BrokerId(2) && register.term == Term(2));
    cluster
        .apply(Command::Appoint(vec![Appointment {
            partition: id,
            expected_term: Term(2),
            leader: BrokerId(1),
        }]))
        .unwrap();
    assert!(!cluster.register(id).is_unclean());
}

#[test]
fn leaders_are_at_home_on_all_brokers_and_zones() {
    for brokers in 1..=4 {
        let mut cluster = Cluster::new();
        for extra in 1..brokers {
            for (zone, id) in [("a", 1), ("b", 2), ("c", 3)] {
                cluster.apply(Command::RegisterBroker(registration(id + 10 * extra, zone, 1))).unwrap();
            }
        }
        let partitions = 9 * brokers;
        let topic = cluster.create("t", partitions);
        let led = cluster.led(topic);
        assert_eq!(led.len() as u32, 3 * brokers, "{led:?}");
        assert!(led.values().all(|&led| led == 3), "{led:?}");
    }
}

#[test]
fn leaders_go_home_when_their_broker_is_stable_and_in_sync() {
    let mut cluster = Cluster::new();
    let topic = cluster.create("t", 12);
    cluster.fence(1, 1);
    cluster.apply(Command::RegisterBroker(registration(1, "a", 2))).unwrap();
    let map = cluster.metadata.map();
    assert!(home_moves(map, |_| false, |_, _, _| true, 100).is_empty(), "not stable yet");
    assert!(home_moves(map, |_| true, |_, _, _| false, 100).is_empty(), "not in sync yet");
    assert_eq!(home_moves(map, |_| true, |_, _, _| true, 3).len(), 3, "a few at a time");
    let moves = home_moves(map, |_| true, |_, _, _| true, 100);
    cluster.apply(Command::Appoint(moves)).unwrap();
    assert_eq!(cluster.led(topic), BTreeMap::from([(1, 4), (2, 4), (3, 4)]));
    assert!(home_moves(cluster.metadata.map(), |_| true, |_, _, _| true, 100).is_empty());
}

#[test]
fn a_replica_that_stays_away_is_replaced_in_its_zone() {
    let mut cluster = with_spares();
    let topic = cluster.create_on(&[1, 2, 3]);
    let id = PartitionId { topic, index: 0 };
    let gone = |id| BTreeSet::from([BrokerId(id)]);
    assert!(replacements(cluster.metadata.map(), &BTreeSet::new(), 10).is_empty());
    assert!(replacements(cluster.metadata.map(), &gone(3), 10).is_empty(), "no other broker in its zone");
    cluster.fence(1, 1);
    let found = replacements(cluster.metadata.map(), &gone(1), 10);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].brokers, [BrokerId(4), BrokerId(2), BrokerId(3)]);
    assert!(replacements(cluster.metadata.map(), &gone(1), 0).is_empty(), "only so many at once");
    cluster.apply(Command::Reassign(found)).unwrap();
    assert!(replacements(cluster.metadata.map(), &gone(1), 10).is_empty(), "under way already");

    let term = cluster.register(id).term;
    let learner = cluster.metadata.map().broker(BrokerId(4)).unwrap().replica();
    assert!(set_changes(cluster.metadata.map(), |_, _, _| false).is_empty());
    let changes = set_changes(cluster.metadata.map(), |_, at, replica| at == term && replica == learner);
    assert_eq!(changes, [(id, term)]);
}

#[test]
fn a_broker_with_a_new_disk_replaces_its_own_replica() {
    let mut cluster = with_spares();
    let id = PartitionId { topic: cluster.create_on(&[1, 2, 3]), index: 0 };
    let new_disk = BrokerRegistration { dir: DirId(999), ..registration(1, "a", 2) };
    cluster.apply(Command::RegisterBroker(new_disk)).unwrap();
    let found = replacements(cluster.metadata.map(), &BTreeSet::new(), 10);
    assert_eq!(found[0].brokers, [BrokerId(1), BrokerId(2), BrokerId(3)]);
    cluster.apply(Command::Reassign(found)).unwrap();
    let learners: Vec<_> = cluster.register(id).learners().collect();
    assert_eq!(learners, [crate::ReplicaId { broker: BrokerId(1), dir: DirId(999) }]);

    // That disk is lost too: the move is called off and begun again with the next one.
    assert!(lost_moves(cluster.metadata.map(), &BTreeSet::new()).is_empty());
    let third_disk = BrokerRegistration { dir: DirId(1000), ..registration(1, "a", 3) };
    cluster.apply(Command::RegisterBroker(third_disk)).unwrap();
    let lost = lost_moves(cluster.metadata.map(), &BTreeSet::new());
    assert_eq!(lost, [(id, cluster.register(id).term)]);
    let (partition, expected_term) = lost[0];
    cluster.apply(Command::CancelReassign { partition, expected_term }).unwrap();
    assert_eq!(replacements(cluster.metadata.map(), &BTreeSet::new(), 10).len(), 1);
}

/// The proposer chooses the id: asked twice, one topic comes of it; anything else under that id or name is refused.
#[test]
fn a_topic_that_is_created_again_under_its_id_is_the_same() {
    let mut cluster = Cluster::new();
    let id = cluster.create("t", 3);
    let spec = TopicSpec { partitions: 3, ..TopicSpec::default() };
    let create = |id, name: &str, spec: &TopicSpec| Command::CreateTopic {
        id,
        name: name.to_owned(),
        spec: spec.clone(),
    };
    let before = cluster.metadata.map().clone();
    assert_eq!(cluster.apply(create(id, "t", &spec)), Ok(Applied::TopicCreated(id)));
    assert_eq!(*cluster.metadata.map(), before);
    let wider = TopicSpec { partitions: 4, ..spec };
    for other in [create(id, "u", &spec), create(id, "t", &wider), create(TopicId(99), "t", &spec)] {
        assert!(matches!(cluster.apply(other), Err(MetadataError::TopicExists { .. })));
    }
    cluster.apply(Command::DeleteTopic { id }).unwrap();
    assert!(cluster.apply(create(id, "t", &spec)).is_err(), "a deleted topic does not come back");
}
