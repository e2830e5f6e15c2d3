//! The controllers' register: what each command may do to it, whoever repeats it and whenever (R1 to R4, R37, R42, R43).

use holdfast_core::metadata::{
    Appointment, BrokerRegistration, ClusterMap, Command, Metadata, MetadataError, Reassignment, Register,
    TopicSpec,
};
use holdfast_core::{BrokerId, DirId, Incarnation, PartitionId, Term, TopicId, ZoneId};

super::schedules! {
    every_appointment_has_a_term_of_its_own,
    a_change_of_the_set_begins_a_term,
    only_the_leader_of_the_term_completes_a_change,
    one_change_at_a_time,
    no_zone_holds_a_majority,
    an_unclean_term_is_the_only_one,
    a_verdict_hits_the_run_that_it_was_about,
    a_map_is_taken_whole_or_not,
}

const TOPIC: TopicId = TopicId(7);
const PARTITION: PartitionId = PartitionId { topic: TOPIC, index: 0 };

/// Brokers 1, 2 and 3 in zones a, b and c, brokers 4 and 5 in a and c; one partition on the first three.
struct Controllers {
    metadata: Metadata,
    index: u64,
}

fn registration(id: u32, zone: &str, run: u64) -> Command {
    Command::RegisterBroker(BrokerRegistration {
        id: BrokerId(id),
        zone: ZoneId::new(zone),
        dir: DirId(u64::from(id)),
        incarnation: Incarnation(run),
        client_endpoint: format!("{id}:1"),
        peer_endpoint: format!("{id}:2"),
    })
}

impl Controllers {
    fn new() -> Controllers {
        let mut controllers = Controllers { metadata: Metadata::default(), index: 0 };
        for (id, zone) in [(1, "a"), (2, "b"), (3, "c")] {
            controllers.apply(registration(id, zone, 1)).unwrap();
        }
        let (name, spec) = ("t".to_owned(), TopicSpec::default());
        controllers.apply(Command::CreateTopic { id: TOPIC, name, spec }).unwrap();
        for (id, zone) in [(4, "a"), (5, "c")] {
            controllers.apply(registration(id, zone, 1)).unwrap();
        }
        controllers
    }

    fn apply(&mut self, command: Command) -> Result<(), MetadataError> {
        self.index += 1;
        self.metadata.apply(self.index, &command).0.map(|_| ())
    }

    fn register(&self) -> Register {
        self.metadata.map().partition(PARTITION).unwrap().register.clone()
    }

    fn appointment(&self, broker: u32) -> Appointment {
        let expected_term = self.register().term;
        Appointment { partition: PARTITION, expected_term, leader: BrokerId(broker) }
    }

    /// Replicas are to move to these brokers.
    fn reassign(&mut self, brokers: [u32; 3]) -> Result<(), MetadataError> {
        let (expected_term, brokers) = (self.register().term, brokers.map(BrokerId).to_vec());
        self.apply(Command::Reassign(vec![Reassignment { partition: PARTITION, expected_term, brokers }]))
    }

    /// The learners have caught up.
    fn change_set(&mut self) -> Result<(), MetadataError> {
        let term = self.register().term;
        self.apply(Command::ChangeSets(vec![(PARTITION, term)]))
    }

    fn complete(&mut self, term: Term) {
        self.apply(Command::CompleteChange { partition: PARTITION, term }).unwrap();
    }
}

/// R1, META-1: an appointment raises the term by one, and is taken once.
#[cfg_attr(test, test)]
fn every_appointment_has_a_term_of_its_own() {
    let mut controllers = Controllers::new();
    let appointment = controllers.appointment(2);
    for _ in 0..2 {
        controllers.apply(Command::Appoint(vec![appointment])).unwrap();
        assert_eq!(controllers.register().term, Term(2));
    }
}

/// R2: the set is changed by a leader that has to ask both sets first, hence in a term of its own.
#[cfg_attr(test, test)]
fn a_change_of_the_set_begins_a_term() {
    let mut controllers = Controllers::new();
    let before = controllers.register();
    controllers.reassign([1, 2, 5]).unwrap();
    controllers.change_set().unwrap();
    let after = controllers.register();
    assert_eq!((after.term, after.prev), (before.term.next(), Some(before.set)));
}

/// R3: that the marker of an earlier term is committed says nothing of the set that was chosen since.
#[cfg_attr(test, test)]
fn only_the_leader_of_the_term_completes_a_change() {
    let mut controllers = Controllers::new();
    controllers.reassign([1, 2, 5]).unwrap();
    controllers.change_set().unwrap();
    let term = controllers.register().term;
    controllers.apply(Command::Appoint(vec![controllers.appointment(2)])).unwrap();
    controllers.complete(term);
    assert!(controllers.register().prev.is_some(), "the leader of {term} was replaced");
    controllers.complete(controllers.register().term);
    assert!(controllers.register().prev.is_none());
}

/// R43: a second change would forget the set that the first one is leaving.
#[cfg_attr(test, test)]
fn one_change_at_a_time() {
    let mut controllers = Controllers::new();
    let left = controllers.register().set;
    controllers.reassign([1, 2, 5]).unwrap();
    controllers.change_set().unwrap();
    // Refused or not: what counts is what the register says afterwards.
    let again = controllers.reassign([4, 2, 5]).and_then(|()| controllers.change_set());
    assert!(matches!(again, Err(MetadataError::ChangeUnderWay { .. })), "{again:?}");
    assert_eq!(controllers.register().prev, Some(left));
}

/// R4, META-2.
#[cfg_attr(test, test)]
fn no_zone_holds_a_majority() {
    let mut controllers = Controllers::new();
    let refused = controllers.reassign([1, 4, 2]);
    assert!(matches!(refused, Err(MetadataError::BadReplicaSet { .. })), "{refused:?}");
}

/// R37: who leads next recovers from voters again.
#[cfg_attr(test, test)]
fn an_unclean_term_is_the_only_one() {
    let mut controllers = Controllers::new();
    let appointment = controllers.appointment(2);
    controllers.apply(Command::RecoverUnclean { appointment }).unwrap();
    assert!(controllers.register().is_unclean());
    controllers.apply(Command::Appoint(vec![controllers.appointment(3)])).unwrap();
    assert!(!controllers.register().is_unclean());
}

/// R42: broker 2 was started again before the verdict on its earlier run got through.
#[cfg_attr(test, test)]
fn a_verdict_hits_the_run_that_it_was_about() {
    let mut controllers = Controllers::new();
    controllers.apply(registration(2, "b", 2)).unwrap();
    controllers.apply(Command::FenceBrokers(vec![(BrokerId(2), Incarnation(1))])).unwrap();
    assert!(controllers.metadata.map().broker(BrokerId(2)).unwrap().live);
}

/// META-4: a snapshot that lost an object on its way.
#[cfg_attr(test, test)]
fn a_map_is_taken_whole_or_not() {
    let mut update = Controllers::new().metadata.map().snapshot();
    update.objects.pop();
    let mut map = ClusterMap::default();
    assert!(map.adopt(&update).is_err());
    assert_eq!(map, ClusterMap::default());
}
