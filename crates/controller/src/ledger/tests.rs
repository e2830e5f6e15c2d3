//! The ledger with made-up time: three zones, a broker in each, one topic.

use std::time::{Duration, Instant};

use holdfast_core::metadata::{
    Appointment, BrokerRegistration, ClusterMap, Command, LeaderReport, LeaderState, Metadata, TopicSpec,
};
use holdfast_core::{BrokerId, ControllerId, DirId, Incarnation, Offset, PartitionId, TopicId, ZoneId};

use super::failover::{Stamp, head};
use super::observation::{AppliedEntry, Moment, Observation};
use super::record::{Kind, Record, Since};
use super::{Found, Ledger, Reason};

const TOPIC: TopicId = TopicId(5);
const RUN: Incarnation = Incarnation(1);
/// The term that controller 2 leads; the ledger is of controller 1.
const TERM: u64 = 4;

/// Some record of a failover.
pub(super) fn record(index: u64) -> Record {
    let (brokers, gone, moved) = (vec![BrokerId(1)], vec![], vec![]);
    let (kind, reason, zone) = (Kind::Failover, Reason::Refused, Some("z1".to_owned()));
    let found = Found { kind, reason, brokers, zone, gone, moved };
    head(Stamp { controller: 1, led: true, index, term: TERM }, &found, 7, Since::Cut)
}

/// A ledger, and what the controllers agree on.
struct World {
    start: Instant,
    ms: u64,
    metadata: Metadata,
    ledger: Ledger,
    records: Vec<Record>,
}

impl World {
    /// Everything is registered, and controller 2 leads.
    fn new() -> World {
        let mut metadata = Metadata::default();
        let mut apply = |command| {
            let index = metadata.map().index() + 1;
            metadata.apply(index, &command).0.unwrap();
        };
        (1..=3).for_each(|id| apply(Command::RegisterBroker(registration(id, RUN))));
        let spec = TopicSpec { partitions: 6, ..TopicSpec::default() };
        apply(Command::CreateTopic { id: TOPIC, name: "t".to_owned(), spec });
        let map = metadata.map().clone();
        let ledger = Ledger::new(ControllerId(1), 3, Duration::from_millis(500), map);
        World { start: Instant::now(), ms: 0, metadata, ledger, records: Vec::new() }
    }

    /// The same, with a ledger that has seen where the logs end, and who leads.
    fn caught_up() -> World {
        let mut world = World::new();
        world.stands(TERM, Some(2));
        world.reaches();
        world
    }

    fn reaches(&mut self) {
        let index = self.metadata.map().index();
        (1..=2).for_each(|id| self.see(Observation::Reaches(ControllerId(id), index)));
    }

    fn stands(&mut self, term: u64, leader: Option<u64>) {
        self.see(Observation::Standing { term, leader: leader.map(ControllerId) });
    }

    /// Time goes on, and the supervisor looks as it does.
    fn pass(&mut self, ms: u64) {
        let until = self.ms + ms;
        while self.ms < until {
            self.ms = until.min(self.ms + 25);
            self.see(Observation::Looked);
        }
    }

    fn see(&mut self, observation: Observation) {
        let now = self.start + Duration::from_millis(self.ms);
        let follows = self.ledger.handle(Moment { now, wall_ms: 10_000 + self.ms as i64 }, observation);
        assert!(follows, "the ledger lost its map");
        while let Some(record) = self.ledger.next_record() {
            self.records.retain(|known| known.key() != record.key());
            self.records.push(record);
        }
    }

    fn hear(&mut self, ids: impl IntoIterator<Item = u32>) {
        ids.into_iter().for_each(|id| self.see(Observation::Heard((BrokerId(id), RUN))));
    }

    /// An entry of that term is committed, and applied here.
    fn apply(&mut self, term: u64, command: Command) {
        let index = self.metadata.map().index() + 1;
        let (result, update) = self.metadata.apply(index, &command);
        result.unwrap();
        let change = Some((command, update.unwrap()));
        self.see(Observation::Applied(Box::new(AppliedEntry { index, term, change })));
    }

    fn fence(&mut self, id: u32) {
        self.apply(TERM, Command::FenceBrokers(vec![(BrokerId(id), RUN)]));
    }

    fn map(&self) -> &ClusterMap {
        self.metadata.map()
    }

    fn led_by(&self, id: u32) -> Vec<PartitionId> {
        let led = self.map().partitions().filter(|known| known.register.leader.broker == BrokerId(id));
        led.map(|known| known.id).collect()
    }

    /// The leader of a partition reports; those of `in_sync` have everything.
    fn report(&mut self, partition: PartitionId, state: LeaderState, writable: bool, in_sync: &[u32]) {
        let register = &self.map().partition(partition).unwrap().register;
        let (term, leader) = (register.term, register.leader.broker);
        let holders = register.set.iter().copied();
        let in_sync = holders.filter(|replica| in_sync.contains(&replica.broker.0)).collect();
        let report = LeaderReport { partition, term, state, log_end_offset: Offset(3), writable, in_sync };
        self.see(Observation::Reported(leader, report));
    }

    /// Each of them recovers, becomes writable, and is in sync, a millisecond apart.
    fn take_over(&mut self, partitions: &[PartitionId], in_sync: &[u32]) {
        for &partition in partitions {
            self.report(partition, LeaderState::Fencing, false, &[]);
            self.pass(1);
            self.report(partition, LeaderState::Active, false, &[]);
            self.pass(1);
            self.report(partition, LeaderState::Active, true, &[]);
            self.pass(1);
            self.report(partition, LeaderState::Active, true, in_sync);
        }
    }

    fn failovers(&self) -> Vec<&Record> {
        self.records.iter().filter(|record| record.kind == Kind::Failover).collect()
    }

    fn only_failover(&self) -> &Record {
        let failovers = self.failovers();
        assert_eq!(failovers.len(), 1, "{failovers:#?}");
        failovers[0]
    }
}

fn registration(id: u32, incarnation: Incarnation) -> BrokerRegistration {
    BrokerRegistration {
        id: BrokerId(id),
        zone: ZoneId::new(&format!("z{id}")),
        dir: DirId(1),
        incarnation,
        client_endpoint: "b:1".into(),
        peer_endpoint: "b:2".into(),
    }
}

/// Every step has the time at which it was seen, counted from the cut, and the shares add up.
#[test]
fn a_failover_is_timed_step_by_step() {
    let mut world = World::caught_up();
    world.hear(1..=3);
    world.pass(40);
    let run = (BrokerId(1), RUN);
    world.see(Observation::Cut(run));
    world.pass(3);
    world.see(Observation::Gone(run, Reason::Refused));
    world.pass(4);
    let moved = world.led_by(1);
    world.fence(1);
    assert!(!world.only_failover().complete, "nobody has taken over yet");
    world.pass(5);
    world.take_over(&moved, &[2, 3]);
    let failover = world.only_failover();
    assert!(failover.complete);
    assert_eq!(
        (failover.kind, failover.reason, failover.since),
        (Kind::Failover, Reason::Refused, Since::Cut)
    );
    assert_eq!((failover.zone.as_deref(), &failover.brokers[..]), (Some("z1"), &[1][..]));
    assert_eq!((failover.at_ms, failover.led, failover.index), (10_040, false, world.map().index()));
    assert_eq!((failover.detected_us, failover.appointed_us), (Some(3_000), Some(7_000)));
    assert_eq!(failover.rows.len(), moved.len());
    for (nth, row) in (0..).zip(&failover.rows) {
        assert_eq!((row.topic.as_str(), row.from, row.partition), ("t", 1, moved[nth].index));
        let begun = 12_000 + 3_000 * nth as u64;
        assert_eq!(row.recovered_us, Some(begun + 1_000));
        assert_eq!(row.writable_us, Some(begun + 2_000));
        assert_eq!(row.in_sync_us, Some(begun + 3_000));
    }
    assert_eq!(failover.writable.unwrap().count as usize, moved.len());
    let shares = failover.shares.unwrap();
    let sum = shares.detect + shares.appoint + shares.recover + shares.commit;
    assert!((sum - 1.0).abs() < 1e-9, "{shares:?}");
}

/// With the controllers' leader lost, too, the election is part of the time until others are appointed, and has a
/// record of its own.
#[test]
fn an_election_in_between_shows_in_the_appointment() {
    let mut world = World::caught_up();
    world.hear(1..=3);
    let run = (BrokerId(2), RUN);
    world.see(Observation::Cut(run));
    world.pass(2);
    world.stands(TERM, None);
    world.see(Observation::Gone(run, Reason::Reset));
    world.pass(150);
    world.stands(TERM + 1, Some(1));
    world.pass(10);
    let blank = AppliedEntry { index: 90, term: TERM + 1, change: None };
    world.see(Observation::Applied(Box::new(blank)));
    let moved = world.led_by(2);
    world.apply(TERM + 1, Command::FenceBrokers(vec![run]));
    world.take_over(&moved, &[1, 3]);
    let failover = world.only_failover();
    assert!(failover.complete && failover.led, "{failover:#?}");
    assert_eq!((failover.detected_us, failover.appointed_us), (Some(2_000), Some(162_000)));
    let election = world.records.iter().find(|record| record.kind == Kind::Election).unwrap();
    assert!(election.complete && election.led && election.term == TERM + 1);
    let times = election.election.unwrap();
    assert_eq!((times.from, times.to), (2, 1));
    assert_eq!((times.elected_us, times.applied_us), (150_000, Some(160_000)));
}

/// A follower may hear of an appointment from the new leader before the entry reaches it: no time comes before the one
/// that it depends on.
#[test]
fn what_is_seen_out_of_order_stays_in_order() {
    let mut world = World::caught_up();
    world.hear(1..=3);
    let run = (BrokerId(1), RUN);
    world.see(Observation::Cut(run));
    let moved = world.led_by(1);
    // The others are ahead of this controller.
    let index = world.map().index() + 1;
    let command = Command::FenceBrokers(vec![run]);
    let update = world.metadata.apply(index, &command).1.unwrap();
    world.pass(10);
    world.take_over(&moved, &[2, 3]);
    world.pass(40);
    world.see(Observation::Gone(run, Reason::Refused));
    let entry = AppliedEntry { index, term: TERM, change: Some((command, update)) };
    world.see(Observation::Applied(Box::new(entry)));
    let failover = world.only_failover();
    assert!(failover.complete, "{failover:#?}");
    assert_eq!(failover.reason, Reason::Verdict, "its own judgement came later than everybody else's");
    assert_eq!((failover.detected_us, failover.appointed_us), (Some(10_000), Some(10_000)));
    for row in &failover.rows {
        assert!(Some(10_000) <= row.recovered_us && row.recovered_us <= row.writable_us);
        assert!(row.writable_us <= row.in_sync_us && row.in_sync_us.is_some());
    }
}

/// Entries that were written before this controller took part are history without times: no record.
#[test]
fn a_replayed_log_makes_no_failovers() {
    let mut world = World::new();
    world.hear(1..=3);
    world.fence(1);
    world.apply(TERM, Command::RegisterBroker(registration(1, RUN)));
    assert_eq!(world.records, []);
    world.stands(TERM, Some(2));
    world.reaches();
    world.fence(1);
    assert_eq!(world.failovers().len(), 1, "from here on it is news");
}

/// A controller that did not run, or was cut off, does not give old entries the time at which it read of them.
#[test]
fn a_controller_that_was_away_invents_nothing() {
    let mut asleep = World::caught_up();
    asleep.hear(1..=3);
    asleep.ms += 15_000;
    asleep.see(Observation::Cut((BrokerId(1), RUN)));
    asleep.fence(1);
    assert_eq!(asleep.records, [], "it was stopped");

    let mut apart = World::caught_up();
    apart.hear(1..=3);
    apart.stands(TERM, None);
    apart.pass(10_000);
    apart.stands(TERM + 1, Some(2));
    apart.apply(TERM + 1, Command::FenceBrokers(vec![(BrokerId(1), RUN)]));
    assert_eq!(apart.records, [], "it was cut off: neither failover nor election has a time");
}

/// Of a broker that it never heard, or hears still, a controller has no time before the appointment.
#[test]
fn without_a_beginning_times_count_from_the_appointment() {
    let mut world = World::caught_up();
    world.hear([1]);
    world.pass(100);
    let moved = world.led_by(1);
    world.fence(1);
    world.pass(5);
    world.take_over(&moved, &[2, 3]);
    let failover = world.only_failover();
    assert_eq!((failover.since, failover.detected_us), (Since::Appointed, None));
    assert_eq!((failover.appointed_us, failover.shares), (Some(0), None));
    assert!(!failover.complete && failover.writable.is_some());
}

/// Silence counts from the last heartbeat.
#[test]
fn silence_is_counted_from_the_last_heartbeat() {
    let mut world = World::caught_up();
    world.hear(1..=3);
    world.pass(1_000);
    world.hear(2..=3);
    world.see(Observation::Gone((BrokerId(1), RUN), Reason::Silence));
    world.pass(8);
    world.fence(1);
    let failover = world.only_failover();
    assert_eq!((failover.since, failover.reason), (Since::Heard, Reason::Silence));
    assert_eq!((failover.detected_us, failover.appointed_us), (Some(1_000_000), Some(1_008_000)));
}

/// A leader that is stuck, one that goes home, and one that leaves are told apart.
#[test]
fn moves_and_failovers_of_stuck_leaders_are_told_apart() {
    let mut world = World::caught_up();
    world.hear(1..=3);
    let stuck = world.led_by(1)[0];
    world.report(stuck, LeaderState::Stalled, false, &[]);
    world.pass(30);
    let appoint = |world: &World, partition, leader| {
        let expected_term = world.map().partition(partition).unwrap().register.term;
        Command::Appoint(vec![Appointment { partition, expected_term, leader: BrokerId(leader) }])
    };
    let away = appoint(&world, stuck, 2);
    world.apply(TERM, away);
    world.take_over(&[stuck], &[1, 2, 3]);
    let failover = world.only_failover();
    assert!(failover.complete);
    assert_eq!((failover.reason, failover.since), (Reason::Stalled, Since::Stalled));
    assert_eq!((failover.detected_us, failover.appointed_us), (Some(0), Some(30_000)));
    let home = appoint(&world, stuck, 1);
    world.apply(TERM, home);
    world.take_over(&[stuck], &[1, 2, 3]);
    world.apply(TERM, Command::DrainBroker { id: BrokerId(3), incarnation: RUN });
    let moves = world.records.iter().filter(|record| record.kind == Kind::Move);
    let moves: Vec<_> =
        moves.map(|record| (record.reason, record.complete, record.zone.as_deref())).collect();
    assert_eq!(moves, [(Reason::Home, true, Some("z2")), (Reason::Drain, false, Some("z3"))]);
    assert_eq!(world.failovers().len(), 1);
}

/// A partition that moves again before it is in sync is not awaited any longer.
#[test]
fn a_second_failover_supersedes_the_first() {
    let mut world = World::caught_up();
    world.hear(1..=3);
    for id in [1, 2] {
        world.see(Observation::Gone((BrokerId(id), RUN), Reason::Silence));
    }
    world.fence(1);
    world.fence(2);
    let moved = world.led_by(3);
    world.take_over(&moved, &[3]);
    let failovers = world.failovers();
    let [second, first] = failovers[..] else {
        panic!("{failovers:#?}");
    };
    let (first, second) = if first.index < second.index { (first, second) } else { (second, first) };
    assert!(first.rows.iter().any(|row| row.superseded && row.writable_us.is_none()));
    assert!(second.rows.iter().all(|row| row.in_sync_us.is_some() && !row.superseded));
}

/// Brokers that come and come back are recorded; a restart that moves leaders is a failover, too.
#[test]
fn registrations_and_restarts_are_recorded() {
    let mut world = World::caught_up();
    world.hear(1..=3);
    world.apply(TERM, Command::RegisterBroker(registration(4, RUN)));
    world.see(Observation::Cut((BrokerId(1), RUN)));
    world.pass(60);
    let again = Incarnation(2);
    world.see(Observation::Heard((BrokerId(1), again)));
    world.apply(TERM, Command::RegisterBroker(registration(1, again)));
    let registered = world.records.iter().filter(|record| record.kind == Kind::Registered);
    let registered: Vec<_> = registered.map(|record| (record.reason, record.brokers[0])).collect();
    assert_eq!(registered, [(Reason::New, 4), (Reason::Restarted, 1)]);
    let failover = world.only_failover();
    assert_eq!((failover.reason, failover.since), (Reason::Restart, Since::Cut));
    assert_eq!(failover.appointed_us, Some(60_000));
}

/// However many failovers never end, only so many are followed, and each has a record.
#[test]
fn failovers_that_never_end_are_bounded() {
    let mut world = World::caught_up();
    world.hear(1..=3);
    for _ in 0..40 {
        world.fence(1);
        world.apply(TERM, Command::RegisterBroker(registration(1, RUN)));
        world.pass(25);
        world.hear(1..=3);
    }
    assert!(world.ledger.under_way().count() <= super::MAX_OPEN);
    let fenced = world.records.iter().filter(|record| record.kind == Kind::Failover);
    assert!(fenced.count() >= 40);
}
