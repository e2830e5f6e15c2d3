use holdfast_core::DirId;
use holdfast_core::metadata::{Command, Metadata};

use super::*;

const TIMEOUT: Duration = Duration::from_millis(1000);
const GRACE: Duration = Duration::from_millis(100);

fn registration(id: u32, zone: &str, incarnation: u64) -> BrokerRegistration {
    BrokerRegistration {
        id: BrokerId(id),
        zone: ZoneId::new(zone),
        dir: DirId(u64::from(id)),
        incarnation: Incarnation(incarnation),
        client_endpoint: format!("b{id}:1"),
        peer_endpoint: format!("b{id}:2"),
    }
}

/// Two brokers in each of three zones: 11, 12 in a; 21, 22 in b; 31, 32 in c.
struct Cluster {
    start: Instant,
    metadata: Metadata,
    tracker: Tracker,
}

const ALL: [u32; 6] = [11, 12, 21, 22, 31, 32];

impl Cluster {
    fn new() -> Self {
        let mut cluster = Cluster {
            start: Instant::now(),
            metadata: Metadata::default(),
            tracker: Tracker::new(TIMEOUT, GRACE, ZoneId::new("a")),
        };
        for id in ALL {
            cluster.apply(Command::RegisterBroker(cluster.registration(id)));
        }
        cluster
    }

    fn registration(&self, id: u32) -> BrokerRegistration {
        registration(id, ["a", "b", "c"][id as usize / 10 - 1], 1)
    }

    fn apply(&mut self, command: Command) {
        self.metadata.apply(self.metadata.map().index() + 1, &command).0.unwrap();
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn heard(&mut self, ms: u64, id: u32) {
        let registration = self.registration(id);
        let now = self.at(ms);
        self.tracker.heard(now, self.metadata.map(), registration).unwrap();
    }

    fn look(&mut self, ms: u64) -> Verdicts {
        let now = self.at(ms);
        self.tracker.look(now);
        self.tracker.verdicts(now, self.metadata.map())
    }

    /// Looks every 25 ms from `from` to `to`, with `alive` sending heartbeats; stops at the first fencing.
    fn run(&mut self, from: u64, to: u64, alive: &[u32]) -> Option<(u64, Vec<u32>)> {
        for ms in (from..=to).step_by(25) {
            for &id in alive {
                self.heard(ms, id);
            }
            let verdicts = self.look(ms);
            assert!(verdicts.register.is_empty(), "{verdicts:?}");
            if !verdicts.fence.is_empty() {
                let dead = verdicts.fence.iter().map(|(id, _)| id.0).collect();
                self.apply(Command::FenceBrokers(verdicts.fence));
                return Some((ms, dead));
            }
        }
        None
    }
}

#[test]
fn a_silent_zone_is_fenced_in_one_go() {
    let mut cluster = Cluster::new();
    assert_eq!(cluster.run(0, 5000, &ALL), None);
    cluster.heard(5300, 12);
    // 11 was heard at 5000, 12 at 5300: half the timeout is enough for the second.
    assert_eq!(cluster.run(5025, 9000, &[21, 22, 31, 32]), Some((6000, vec![11, 12])));
    assert_eq!(cluster.run(6025, 9000, &[21, 22, 31, 32]), None);
}

#[test]
fn one_dead_broker_does_not_take_its_zone_along() {
    let mut cluster = Cluster::new();
    cluster.run(0, 1000, &ALL);
    assert_eq!(cluster.run(1025, 9000, &[12, 21, 22, 31, 32]), Some((2000, vec![11])));
    assert_eq!(cluster.run(2025, 9000, &[12, 21, 22, 31, 32]), None);
}

#[test]
fn a_second_zone_is_held_back_but_not_a_broker_of_it() {
    let mut cluster = Cluster::new();
    cluster.run(0, 1000, &ALL);
    assert_eq!(cluster.run(1025, 9000, &[21, 22, 31, 32]), Some((2000, vec![11, 12])));
    assert_eq!(cluster.run(2025, 9000, &[22, 31, 32]), Some((3000, vec![21])));
    assert_eq!(cluster.run(3025, 9000, &[31, 32]), None);
    let verdicts = cluster.look(9000);
    assert_eq!(verdicts.held_back, [BrokerId(22)]);
}

#[test]
fn a_new_leader_gives_a_broker_it_never_heard_the_whole_timeout() {
    let mut cluster = Cluster::new();
    assert_eq!(cluster.run(0, 9000, &[12, 21, 22, 31, 32]), Some((1000, vec![11])));
    let mut cluster = Cluster::new();
    for id in ALL {
        cluster.heard(0, id);
    }
    cluster.tracker.follow();
    for id in [12, 21, 22, 31, 32] {
        cluster.heard(900, id);
    }
    assert_eq!(cluster.run(900, 9000, &[12, 21, 22, 31, 32]), Some((1000, vec![11])), "heard it as follower");
}

#[test]
fn a_pause_of_this_process_is_nobodys_silence() {
    let mut cluster = Cluster::new();
    cluster.run(0, 1000, &ALL);
    assert!(cluster.look(9000).fence.is_empty());
    assert_eq!(cluster.run(9025, 20_000, &ALL), None);
    assert_eq!(cluster.run(20_025, 30_000, &ALL[1..]), Some((21_000, vec![11])));
}

#[test]
fn a_fenced_broker_that_is_back_is_registered_and_so_is_a_new_one() {
    let mut cluster = Cluster::new();
    cluster.run(0, 1000, &ALL);
    cluster.run(1025, 2000, &ALL[1..]);
    cluster.heard(2050, 11);
    for id in &ALL[1..] {
        cluster.heard(2050, *id);
    }
    let new = registration(33, "c", 7);
    let now = cluster.at(2050);
    assert_eq!(cluster.tracker.heard(now, cluster.metadata.map(), new.clone()), Ok(true));
    let verdicts = cluster.tracker.verdicts(now, cluster.metadata.map());
    assert_eq!(verdicts.register, [cluster.registration(11), new]);
}

#[test]
fn the_latest_run_of_a_broker_wins_and_the_earlier_one_is_told() {
    let mut cluster = Cluster::new();
    cluster.run(0, 1000, &ALL);
    let now = cluster.at(1050);
    let map = cluster.metadata.map();
    assert_eq!(cluster.tracker.heard(now, map, registration(11, "a", 2)), Ok(true));
    let zombie = cluster.tracker.heard(now, map, registration(11, "a", 1));
    assert_eq!(zombie, Err(Refusal::Replaced { id: BrokerId(11) }));
    assert_eq!(cluster.tracker.verdicts(now, map).register, [registration(11, "a", 2)]);
}

/// A second process under a live broker's id, on a folder of its own, is refused and changes nothing; once the first is
/// gone its place is free, and a restart on the same folder needs no waiting.
#[test]
fn a_second_process_does_not_take_the_id_of_a_live_one() {
    let mut cluster = Cluster::new();
    let first = cluster.registration(11);
    let second = BrokerRegistration { dir: DirId(99), incarnation: Incarnation(2), ..first.clone() };
    let refused = Err(Refusal::InUse { id: BrokerId(11) });
    let map = cluster.metadata.map().clone();
    let at = |ms: u64| cluster.start + Duration::from_millis(ms);
    let tracker = &mut cluster.tracker;
    tracker.look(at(0));
    assert_eq!(tracker.heard(at(10), &map, second.clone()), refused, "the map says that the first lives");
    tracker.heard(at(20), &map, first.clone()).unwrap();
    tracker.opened((first.id, first.incarnation));
    assert_eq!(tracker.heard(at(900), &map, second.clone()), refused);
    let restarted = BrokerRegistration { incarnation: Incarnation(3), ..first };
    assert_eq!(tracker.heard(at(910), &map, restarted.clone()), Ok(true));
    tracker.opened((restarted.id, restarted.incarnation));
    assert_eq!(tracker.heard(at(920), &map, second.clone()), refused);
    tracker.closed(at(930), (restarted.id, restarted.incarnation));
    assert_eq!(tracker.heard(at(940), &map, second), Ok(true), "the first has ended");
}

/// Silence frees the id as well, also of a run that this controller never heard.
#[test]
fn an_id_whose_run_is_silent_is_free() {
    let mut cluster = Cluster::new();
    let first = cluster.registration(11);
    let second = BrokerRegistration { dir: DirId(99), incarnation: Incarnation(2), ..first.clone() };
    let map = cluster.metadata.map().clone();
    let at = |ms: u64| cluster.start + Duration::from_millis(ms);
    let mut unheard = Tracker::new(TIMEOUT, GRACE, ZoneId::new("a"));
    unheard.look(at(0));
    assert_eq!(unheard.heard(at(1000), &map, second.clone()), Ok(true));
    cluster.tracker.heard(at(0), &map, first.clone()).unwrap();
    cluster.tracker.opened((first.id, first.incarnation));
    assert_eq!(cluster.tracker.heard(at(1000), &map, second), Ok(true));
}

#[test]
fn a_broker_in_another_zone_is_refused() {
    let mut cluster = Cluster::new();
    let now = cluster.at(0);
    let refused = cluster.tracker.heard(now, cluster.metadata.map(), registration(11, "b", 1));
    assert!(matches!(refused, Err(Refusal::OtherZone { .. })));
}

/// Broker 21 is connected until 1000 and then cut off from this controller.
fn cut_off() -> (Cluster, Run) {
    let mut cluster = Cluster::new();
    let run = (BrokerId(21), Incarnation(1));
    cluster.run(0, 0, &ALL);
    cluster.tracker.opened(run);
    cluster.run(25, 1000, &ALL);
    let now = cluster.at(1000);
    assert_eq!(cluster.tracker.closed(now, run), Some("b21:2".to_owned()), "where to knock");
    (cluster, run)
}

const OTHERS: [u32; 5] = [11, 12, 22, 31, 32];

#[test]
fn a_reset_seen_in_two_zones_is_death_after_the_grace() {
    let (mut cluster, run) = cut_off();
    let witness = |cluster: &mut Cluster, ms, zone: &str| {
        let now = cluster.at(ms);
        cluster.tracker.witnessed(now, ControllerId(2), &ZoneId::new(zone), BTreeSet::from([run]));
    };
    let cut = cluster.at(1000);
    assert_eq!(cluster.tracker.next_loss(cut), Some(cut + GRACE));
    assert_eq!(cluster.run(1000, 1200, &OTHERS), None, "nobody else has seen it");
    let now = cluster.at(1200);
    assert_eq!(cluster.tracker.lost(now), BTreeSet::from([run]));
    witness(&mut cluster, 1200, "a");
    assert_eq!(cluster.run(1225, 1300, &OTHERS), None, "the witness is in our own zone");
    witness(&mut cluster, 1300, "c");
    assert_eq!(cluster.run(1325, 1400, &OTHERS), Some((1325, vec![21])));
    assert_eq!(cluster.run(1350, 9000, &OTHERS), None, "it is not registered again for its last heartbeat");
}

#[test]
fn a_port_that_refuses_leaves_no_grace() {
    let (mut cluster, run) = cut_off();
    let now = cluster.at(1000);
    cluster.tracker.witnessed(now, ControllerId(2), &ZoneId::new("c"), BTreeSet::from([run]));
    cluster.tracker.refused((BrokerId(21), Incarnation(9)));
    assert!(cluster.tracker.lost(now).is_empty(), "another run's port says nothing");
    cluster.tracker.refused(run);
    assert_eq!(cluster.run(1000, 1025, &OTHERS), Some((1000, vec![21])));
    // It is back under the same run: a connection says more than a refusal from before.
    let (mut cluster, run) = cut_off();
    cluster.tracker.opened(run);
    cluster.tracker.refused(run);
    assert!(cluster.tracker.lost(cluster.at(5000)).is_empty());
}

#[test]
fn a_broker_that_no_controller_ever_heard_is_dead_when_its_port_refuses() {
    let mut cluster = Cluster::new();
    let run = (BrokerId(21), Incarnation(1));
    for id in OTHERS {
        cluster.heard(0, id);
    }
    let strangers = cluster.tracker.strangers(cluster.metadata.map());
    assert_eq!(strangers, [(run, "b21:2".to_owned())]);
    cluster.tracker.refused(run);
    assert!(cluster.tracker.strangers(cluster.metadata.map()).is_empty(), "known now");
    assert_eq!(cluster.run(25, 100, &OTHERS), None, "one controller's word is not enough");
    let now = cluster.at(100);
    cluster.tracker.witnessed(now, ControllerId(2), &ZoneId::new("c"), BTreeSet::from([run]));
    let (mut heard, at) = (cluster.run(125, 125, &OTHERS), 125);
    assert_eq!(heard.take(), Some((at, vec![21])));

    let mut cluster = Cluster::new();
    cluster.tracker.refused(run);
    cluster.heard(0, 21);
    assert!(cluster.tracker.lost(cluster.at(10)).is_empty(), "it is there after all");
}

#[test]
fn a_broker_that_is_back_within_the_grace_lives() {
    let (mut cluster, run) = cut_off();
    let now = cluster.at(1000);
    cluster.tracker.witnessed(now, ControllerId(2), &ZoneId::new("c"), BTreeSet::from([run]));
    assert_eq!(cluster.run(1000, 1075, &OTHERS), None);
    cluster.tracker.opened(run);
    assert_eq!(cluster.run(1100, 1400, &ALL), None);
}

#[test]
fn the_end_of_one_of_two_streams_or_of_an_earlier_run_is_no_reset() {
    let (mut cluster, run) = cut_off();
    cluster.tracker.opened(run);
    cluster.tracker.opened(run);
    let now = cluster.at(1050);
    assert_eq!(cluster.tracker.closed(now, run), None);
    assert!(cluster.tracker.lost(cluster.at(5000)).is_empty());
    let again = registration(21, "b", 2);
    cluster.tracker.heard(now, cluster.metadata.map(), again).unwrap();
    cluster.tracker.opened((BrokerId(21), Incarnation(2)));
    assert_eq!(cluster.tracker.closed(now, run), None);
    assert!(cluster.tracker.lost(cluster.at(5000)).is_empty());
}
