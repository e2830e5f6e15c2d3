//! Disks that are lost for good, and the unclean recovery that an operator orders then (R37): the controllers' production
//! rules say who is asked, replicas hear of it or do not.

use holdfast_core::metadata::{
    Appointment, BrokerRegistration, Command, Durability, Metadata, MetadataError, Reassignment, Register,
    TopicSpec,
};
use holdfast_core::replication::Assignment;
use holdfast_core::{DirId, Incarnation, Offset, PartitionId, Term, TopicId, ZoneId};

use super::stage::{A, B, C, D, Stage, first_dir, replica_id, replicas};
use crate::controller::broker_id;

super::schedules! {
    new_disks_alone_recover_nothing,
    what_the_last_replica_holds_survives_two_lost_disks,
    who_has_nothing_leads_no_unclean_recovery,
    a_majority_that_is_left_is_asked_as_it_is,
    a_change_whose_new_set_is_lost_goes_back,
    an_unclean_recovery_is_not_called_off,
    who_sleeps_through_an_unclean_term_gives_up_what_it_gave_up,
    an_unclean_term_is_recovered_uncleanly_once,
}

const TOPIC: TopicId = TopicId(7);
const PARTITION: PartitionId = PartitionId { topic: TOPIC, index: 0 };

/// One partition on A, B and C, each in a zone of its own; D in the zone of C.
struct Cluster {
    metadata: Metadata,
    index: u64,
    stage: Stage,
}

impl Cluster {
    /// Led by A, with nothing on its way.
    fn new() -> Cluster {
        Cluster::with(Durability::Disk)
    }

    fn with(durability: Durability) -> Cluster {
        let stage = Stage::new(durability);
        let mut cluster = Cluster { metadata: Metadata::default(), index: 0, stage };
        [A, B, C].into_iter().for_each(|node| cluster.register(node, first_dir(node)));
        let (name, spec) = ("t".to_owned(), TopicSpec::default());
        cluster.apply(Command::CreateTopic { id: TOPIC, name, spec }).unwrap();
        cluster.register(D, first_dir(D));
        assert_eq!(cluster.at().set, replicas(&[A, B, C]));
        assert_eq!(cluster.at().leader, replica_id(A));
        cluster.tell(&[A, B, C]);
        cluster.stage.exchange(&[A, B, C]);
        cluster
    }

    fn apply(&mut self, command: Command) -> Result<(), MetadataError> {
        self.index += 1;
        self.metadata.apply(self.index, &command).0.map(|_| ())
    }

    fn register(&mut self, node: usize, dir: DirId) {
        let zone = ["a", "b", "c", "c"][node];
        let registration = BrokerRegistration {
            id: broker_id(node),
            zone: ZoneId::new(zone),
            dir,
            incarnation: Incarnation(self.index),
            client_endpoint: format!("{zone}:1"),
            peer_endpoint: format!("{zone}:2"),
        };
        self.apply(Command::RegisterBroker(registration)).unwrap();
    }

    fn at(&self) -> Register {
        self.metadata.map().partition(PARTITION).unwrap().register.clone()
    }

    /// These nodes hear of the register.
    fn tell(&mut self, nodes: &[usize]) {
        self.stage.assign(&Assignment::from(&self.at()), nodes);
    }

    /// The nodes come back with empty disks.
    fn lose_disks(&mut self, nodes: &[usize]) {
        for &node in nodes {
            let dir = DirId(first_dir(node).0 + 0x10);
            self.stage.lose_disk(node, dir);
            self.register(node, dir);
        }
        self.stage.lose_post();
    }

    fn appointment(&self, leader: usize) -> Appointment {
        Appointment { partition: PARTITION, expected_term: self.at().term, leader: broker_id(leader) }
    }

    fn order(&mut self, leader: usize) -> Result<(), MetadataError> {
        let appointment = self.appointment(leader);
        self.apply(Command::RecoverUnclean { appointment })
    }

    fn appoint(&mut self, leader: usize) {
        let appointment = self.appointment(leader);
        self.apply(Command::Appoint(vec![appointment])).unwrap();
        assert_eq!(self.at().leader.broker, broker_id(leader));
    }

    /// The leader's report that its change is complete gets through.
    fn complete(&mut self) {
        let Term(term) = self.at().term;
        assert!(self.stage.is_complete(term), "nobody said so of term {term}");
        self.apply(Command::CompleteChange { partition: PARTITION, term: Term(term) }).unwrap();
        self.tell(&[A, B, C]);
    }
}

/// A alone is left with x. With an operator's order it goes on, with new disks in the places of the lost ones; then it may
/// go, too.
#[cfg_attr(test, test)]
fn what_the_last_replica_holds_survives_two_lost_disks() {
    let mut cluster = Cluster::new();
    let x = cluster.stage.produce(A, 0);
    cluster.stage.exchange(&[A, B, C]);
    assert!(cluster.stage.is_acknowledged(x));
    cluster.lose_disks(&[B, C]);
    cluster.order(A).unwrap();
    cluster.tell(&[A, B, C]);
    cluster.stage.exchange(&[A, B, C]);
    assert!(cluster.stage.leads(A) && cluster.stage.watermark(A) == Offset(3), "marker, x, marker");
    cluster.complete();
    cluster.stage.exchange(&[A, B, C]);
    let y = cluster.stage.produce(A, 1);
    cluster.stage.exchange(&[A, C]);
    assert!(cluster.stage.is_acknowledged(y));
    cluster.appoint(B);
    cluster.tell(&[B, C]);
    cluster.stage.exchange(&[B, C]);
    assert!(cluster.stage.leads(B) && cluster.stage.watermark(B) == Offset(5), "without A");
}

/// A alone is left with x, and is away again before anybody has heard of the order. B and C, which hold nothing, hear of a
/// later term only, which is not unclean, and names them like any member.
#[cfg_attr(test, test)]
fn new_disks_alone_recover_nothing() {
    let mut cluster = Cluster::new();
    let x = cluster.stage.produce(A, 0);
    cluster.stage.exchange(&[A, B, C]);
    assert!(cluster.stage.is_acknowledged(x));
    cluster.lose_disks(&[B, C]);
    cluster.order(A).unwrap();
    cluster.appoint(B);
    assert!(!cluster.at().is_unclean());
    cluster.tell(&[B, C]);
    cluster.stage.exchange(&[B, C]);
    assert!(!cluster.stage.leads(B), "A has x");
    cluster.stage.wait(B, 150);
    cluster.stage.exchange(&[A, B, C]);
    assert!(cluster.stage.leads(B) && cluster.stage.watermark(B) == Offset(3), "x was taken over from A");
}

/// A is left with x; B and C are empty, and alive.
#[cfg_attr(test, test)]
fn who_has_nothing_leads_no_unclean_recovery() {
    let mut cluster = Cluster::new();
    cluster.lose_disks(&[B, C]);
    for node in [B, C, D] {
        let refused = MetadataError::CannotLead { id: PARTITION, broker: broker_id(node) };
        assert_eq!(cluster.order(node), Err(refused));
    }
    cluster.order(A).unwrap();
}

/// One disk of three is lost, and the order is given all the same: what a majority had on disk is asked for as ever.
#[cfg_attr(test, test)]
fn a_majority_that_is_left_is_asked_as_it_is() {
    let mut cluster = Cluster::new();
    // x is on B and A alone; C has lost what it had.
    let x = cluster.stage.produce(A, 0);
    cluster.stage.exchange(&[A, B]);
    assert!(cluster.stage.is_acknowledged(x));
    cluster.lose_disks(&[C]);
    cluster.order(B).unwrap();
    assert_eq!((cluster.at().set, cluster.at().prev), (replicas(&[A, B, C]), None));
    cluster.tell(&[B]);
    cluster.stage.exchange(&[B, C]);
    assert!(!cluster.stage.leads(B), "A is there, and may hold more");
    cluster.stage.wait(B, 150);
    cluster.stage.exchange(&[A, B]);
    assert!(cluster.stage.leads(B) && cluster.stage.watermark(B) == Offset(3));
}

/// D takes the place of C, and A commits y with B in the term of the change; then the disks of B and D are lost before
/// anybody heard that it is complete. A and C are a majority of the set being left, so C may lead; y is on A alone.
#[cfg_attr(test, test)]
fn a_change_whose_new_set_is_lost_goes_back() {
    let mut cluster = Cluster::new();
    let (expected_term, brokers) = (cluster.at().term, [A, B, D].map(broker_id).to_vec());
    let reassignment = Reassignment { partition: PARTITION, expected_term, brokers };
    cluster.apply(Command::Reassign(vec![reassignment])).unwrap();
    cluster.apply(Command::ChangeSets(vec![(PARTITION, expected_term)])).unwrap();
    cluster.tell(&[A, B, D]);
    cluster.stage.exchange(&[A, B]);
    let y = cluster.stage.produce(A, 0);
    cluster.stage.exchange(&[A, B]);
    assert!(cluster.stage.is_acknowledged(y));
    cluster.lose_disks(&[B, D]);
    cluster.order(C).unwrap();
    assert_eq!((cluster.at().set, cluster.at().prev), (replicas(&[A, B, C]), Some(replicas(&[A]))));
    cluster.tell(&[A, B, C]);
    cluster.stage.exchange(&[A, C]);
    assert!(cluster.stage.leads(C) && cluster.stage.watermark(C) == Offset(4), "two markers, y, marker");
    cluster.complete();
    assert_eq!(cluster.at().prev, None);
}

/// What is left is asked besides; it is no set of three to go back to.
#[cfg_attr(test, test)]
fn an_unclean_recovery_is_not_called_off() {
    let mut cluster = Cluster::new();
    cluster.lose_disks(&[B, C]);
    cluster.order(A).unwrap();
    let expected_term = cluster.at().term;
    let called_off = cluster.apply(Command::CancelReassign { partition: PARTITION, expected_term });
    assert_eq!(called_off, Err(MetadataError::NoChangeUnderWay { id: PARTITION }));
}

/// x is committed on all three in memory; A and B lose power, and go on by an operator's order, while C is away. When C comes
/// back, in a later term that is not unclean, its log parts from the leader's below its own high watermark.
#[cfg_attr(test, test)]
fn who_sleeps_through_an_unclean_term_gives_up_what_it_gave_up() {
    let mut cluster = Cluster::with(Durability::Memory);
    let x = cluster.stage.produce(A, 0);
    cluster.stage.exchange(&[A, B, C]);
    assert!(cluster.stage.is_acknowledged(x) && cluster.stage.watermark(C) == Offset(2));
    cluster.stage.lose_power(A);
    cluster.stage.lose_power(B);
    cluster.stage.lose_post();
    cluster.order(A).unwrap();
    cluster.tell(&[A, B]);
    cluster.stage.exchange(&[A, B]);
    assert!(cluster.stage.leads(A) && cluster.stage.replica(B).is_voter());
    cluster.appoint(B);
    assert!(!cluster.at().is_unclean());
    cluster.tell(&[A, B]);
    cluster.stage.exchange(&[A, B]);
    assert!(cluster.stage.leads(B) && cluster.stage.watermark(B) == Offset(2), "two markers");
    cluster.tell(&[C]);
    cluster.stage.wait(B, 250);
    cluster.stage.exchange(&[A, B, C]);
    assert_eq!((cluster.stage.end(C), cluster.stage.watermark(C)), (Offset(2), Offset(2)));
    let y = cluster.stage.produce(B, 0);
    cluster.stage.exchange(&[B, C]);
    assert!(cluster.stage.is_acknowledged(y), "C follows");
}

/// A and B lost power, and went on by an operator's order, while C is away; y is committed on both, in memory. Then A loses
/// power once more, and leads the same term again: C, which voted all the time, makes no majority with it.
#[cfg_attr(test, test)]
fn an_unclean_term_is_recovered_uncleanly_once() {
    let mut cluster = Cluster::with(Durability::Memory);
    cluster.stage.produce(A, 0);
    cluster.stage.exchange(&[A, B, C]);
    cluster.stage.lose_power(A);
    cluster.stage.lose_power(B);
    cluster.stage.lose_post();
    cluster.order(A).unwrap();
    cluster.tell(&[A, B]);
    cluster.stage.exchange(&[A, B]);
    let y = cluster.stage.produce(A, 0);
    cluster.stage.exchange(&[A, B]);
    assert!(cluster.stage.is_acknowledged(y) && cluster.stage.replica(B).is_voter());
    cluster.stage.lose_power(A);
    cluster.stage.lose_post();
    cluster.tell(&[A, C]);
    cluster.stage.wait(A, 150);
    cluster.stage.exchange(&[A, C]);
    assert!(!cluster.stage.leads(A), "B has y");
    cluster.stage.wait(A, 150);
    cluster.stage.exchange(&[A, B, C]);
    assert!(cluster.stage.leads(A) && cluster.stage.watermark(A) == Offset(3), "marker, y, marker");
}
