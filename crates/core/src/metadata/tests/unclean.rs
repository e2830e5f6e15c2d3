//! R37: what an unclean order makes of a register whose disks are lost.

use super::*;
use crate::ReplicaId;

fn order(cluster: &Cluster, id: PartitionId, leader: u32) -> Command {
    let expected_term = cluster.register(id).term;
    let appointment = Appointment { partition: id, expected_term, leader: BrokerId(leader) };
    Command::RecoverUnclean { appointment }
}

impl Cluster {
    /// The broker comes back with an empty data directory of that number.
    fn lose_disk(&mut self, id: u32, dir: u64) {
        let known = self.metadata.map().broker(BrokerId(id)).unwrap();
        let (zone, incarnation) = (known.zone.as_str().to_owned(), known.incarnation.0 + 1);
        let registration = BrokerRegistration { dir: DirId(dir), ..registration(id, &zone, incarnation) };
        self.apply(Command::RegisterBroker(registration)).unwrap();
    }

    fn replica(&self, id: u32) -> ReplicaId {
        self.metadata.map().broker(BrokerId(id)).unwrap().replica()
    }

    /// Replicas move to these brokers: the set has changed, and the change is not complete.
    fn begin_change(&mut self, id: PartitionId, brokers: &[u32]) {
        self.apply(reassign(self, id, brokers)).unwrap();
        let term = self.register(id).term;
        self.apply(Command::ChangeSets(vec![(id, term)])).unwrap();
        assert_eq!(brokers_of(&self.register(id).set), brokers);
    }

    fn complete(&mut self, id: PartitionId) -> Register {
        let term = self.register(id).term;
        self.apply(Command::CompleteChange { partition: id, term }).unwrap();
        self.register(id)
    }
}

fn on_three() -> (Cluster, PartitionId) {
    let mut cluster = with_spares();
    let id = PartitionId { topic: cluster.create_on(&[1, 2, 3]), index: 0 };
    (cluster, id)
}

#[test]
fn new_disks_take_the_place_of_lost_ones_and_what_is_left_is_asked_until_that_is_done() {
    let (mut cluster, id) = on_three();
    let left = cluster.replica(1);
    cluster.lose_disk(2, 902);
    // Upkeep has begun to replace what was lost first, which nobody can finish.
    cluster.apply(reassign(&cluster, id, &[1, 2, 3])).unwrap();
    cluster.lose_disk(3, 903);
    let before = cluster.register(id);
    cluster.apply(order(&cluster, id, 1)).unwrap();
    let ordered = cluster.register(id);
    assert_eq!((ordered.term, ordered.leader, ordered.is_unclean()), (before.term.next(), left, true));
    assert_eq!(ordered.set, [left, cluster.replica(2), cluster.replica(3)], "home stays where it was");
    assert_eq!((ordered.prev, ordered.target), (Some(vec![left]), None));

    // Also by whoever is appointed before it is done.
    let next = Appointment { partition: id, expected_term: ordered.term, leader: BrokerId(2) };
    cluster.apply(Command::Appoint(vec![next])).unwrap();
    let next = cluster.register(id);
    assert_eq!((next.leader, next.is_unclean(), next.prev), (cluster.replica(2), false, Some(vec![left])));
    assert_eq!(cluster.complete(id).prev, None);
}

#[test]
fn who_has_nothing_leads_no_unclean_recovery() {
    let (mut cluster, id) = on_three();
    cluster.lose_disk(2, 902);
    cluster.lose_disk(3, 903);
    for leader in [2, 3, 4] {
        let refused = cluster.apply(order(&cluster, id, leader)).unwrap_err();
        assert_eq!(refused, MetadataError::CannotLead { id, broker: BrokerId(leader) });
    }
    let candidates = |cluster: &Cluster| -> Vec<u32> {
        let map = cluster.metadata.map();
        unclean_leaders(map, &cluster.register(id)).map(|replica| replica.broker.0).collect()
    };
    assert_eq!(candidates(&cluster), [1]);
    cluster.lose_disk(1, 901);
    assert!(cluster.apply(order(&cluster, id, 1)).is_err(), "nothing is left");
    assert!(candidates(&cluster).is_empty());
}

#[test]
fn a_set_of_which_a_majority_is_left_stays_as_it_is() {
    let (mut cluster, id) = on_three();
    cluster.lose_disk(3, 903);
    // Dead is not lost: its disk may come back.
    cluster.fence(2, 1);
    let before = cluster.register(id);
    cluster.apply(order(&cluster, id, 1)).unwrap();
    let ordered = cluster.register(id);
    assert!(ordered.is_unclean() && ordered.term > before.term);
    assert_eq!((ordered.set, ordered.prev), (before.set, None));
}

#[test]
fn a_change_whose_new_set_is_lost_goes_back_and_asks_what_is_left_of_it() {
    let (mut cluster, id) = on_three();
    let (one, three) = (cluster.replica(1), cluster.replica(3));
    let left = cluster.register(id).set;
    cluster.begin_change(id, &[4, 5, 3]);
    cluster.lose_disk(4, 904);
    cluster.lose_disk(5, 905);
    cluster.apply(order(&cluster, id, 1)).unwrap();
    let ordered = cluster.register(id);
    assert_eq!((ordered.set, ordered.leader), (left, one), "led by a member of the set that was being left");
    assert_eq!(ordered.prev, Some(vec![three]), "the one replica of the new set that is left");
    assert_eq!(cluster.complete(id).prev, None);
}

#[test]
fn a_change_whose_old_set_is_lost_goes_on_and_asks_what_is_left_of_it() {
    let (mut cluster, id) = on_three();
    let three = cluster.replica(3);
    cluster.begin_change(id, &[4, 5, 3]);
    let changed = cluster.register(id).set;
    cluster.lose_disk(1, 901);
    cluster.lose_disk(2, 902);
    cluster.apply(order(&cluster, id, 4)).unwrap();
    let ordered = cluster.register(id);
    assert_eq!((ordered.set, ordered.prev), (changed, Some(vec![three])));
}

#[test]
fn a_change_both_of_whose_sets_are_lost_goes_on_with_the_one_that_its_leader_belongs_to() {
    for (leader, members) in [(4, [4, 5, 3]), (2, [1, 2, 3])] {
        let (mut cluster, id) = on_three();
        cluster.begin_change(id, &[4, 5, 3]);
        for broker in [1, 3, 5] {
            cluster.lose_disk(broker, 900 + u64::from(broker));
        }
        cluster.apply(order(&cluster, id, leader)).unwrap();
        let ordered = cluster.register(id);
        assert_eq!(ordered.set, members.map(|broker| cluster.replica(broker)));
        assert_eq!(ordered.leader, cluster.replica(leader));
        assert_eq!(
            ordered.prev,
            Some(vec![cluster.replica(2), cluster.replica(4)]),
            "all that is left of both"
        );
    }
}

#[test]
fn the_new_disks_may_be_lost_before_they_hold_anything() {
    let (mut cluster, id) = on_three();
    let left = cluster.replica(1);
    for round in [900, 800] {
        cluster.lose_disk(2, round + 2);
        cluster.lose_disk(3, round + 3);
        cluster.apply(order(&cluster, id, 1)).unwrap();
        let ordered = cluster.register(id);
        assert_eq!(ordered.set, [left, cluster.replica(2), cluster.replica(3)]);
        assert_eq!(ordered.prev, Some(vec![left]), "what is left is asked, and is no set to go back to");
    }
}

/// What is left is no set to go back to.
#[test]
fn an_unclean_recovery_is_not_called_off() {
    let (mut cluster, id) = on_three();
    cluster.lose_disk(2, 902);
    cluster.lose_disk(3, 903);
    cluster.apply(order(&cluster, id, 1)).unwrap();
    let expected_term = cluster.register(id).term;
    let cancelled = cluster.apply(Command::CancelReassign { partition: id, expected_term });
    assert_eq!(cancelled, Err(MetadataError::NoChangeUnderWay { id }));
}

/// The last that held anything is lost before the new disks had it: whoever has most may lead.
#[test]
fn what_is_left_may_be_lost_as_well() {
    let (mut cluster, id) = on_three();
    cluster.lose_disk(2, 902);
    cluster.lose_disk(3, 903);
    cluster.apply(order(&cluster, id, 1)).unwrap();
    let set = cluster.register(id).set;
    cluster.lose_disk(1, 901);
    cluster.apply(order(&cluster, id, 3)).unwrap();
    let ordered = cluster.register(id);
    assert_eq!((ordered.set, ordered.prev), (set, None), "of this one a majority is left");
}
