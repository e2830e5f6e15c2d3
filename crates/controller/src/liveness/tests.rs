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
    assert_eq!(cluster.tracker.heard(now, cluster.metadata.map(), new.clone()), Ok(Heard::News));
    let verdicts = cluster.tracker.verdicts(now, cluster.metadata.map());
    assert_eq!(verdicts.register, [cluster.registration(11), new]);
}

#[test]
fn the_latest_run_of_a_broker_wins_and_the_earlier_one_is_told() {
    let mut cluster = Cluster::new();
    cluster.run(0, 1000, &ALL);
    let now = cluster.at(1050);
    let map = cluster.metadata.map();
    assert_eq!(cluster.tracker.heard(now, map, registration(11, "a", 2)), Ok(Heard::News));
    let zombie = cluster.tracker.heard(now, map, registration(11, "a", 1));
    assert_eq!(zombie, Err(Refusal::Replaced { id: BrokerId(11) }));
    assert_eq!(cluster.tracker.verdicts(now, map).register, [registration(11, "a", 2)]);
}

/// Broker 11, connected, and others that go by its id.
struct Contest {
    cluster: Cluster,
    first: BrokerRegistration,
}

impl Contest {
    fn new() -> Contest {
        let cluster = Cluster::new();
        let first = cluster.registration(11);
        let mut contest = Contest { cluster, first: first.clone() };
        contest.heard(0, &first).unwrap();
        contest.cluster.tracker.opened((first.id, first.incarnation));
        contest
    }

    /// Another run, on a copy of the folder or on another one.
    fn other(&self, incarnation: u64, copied: bool) -> BrokerRegistration {
        let dir = if copied { self.first.dir } else { DirId(99) };
        BrokerRegistration { dir, incarnation: Incarnation(incarnation), ..self.first.clone() }
    }

    fn heard(&mut self, ms: u64, registration: &BrokerRegistration) -> Result<Heard, Refusal> {
        let now = self.cluster.at(ms);
        self.cluster.tracker.heard(now, self.cluster.metadata.map(), registration.clone())
    }
}

/// A second process under a live broker's id, on a folder of its own or on a copy, is refused and changes nothing.
#[test]
fn a_second_process_does_not_take_the_id_of_a_live_one() {
    for copied in [false, true] {
        let mut contest = Contest::new();
        let (first, second) = (contest.first.clone(), contest.other(2, copied));
        for ms in (100..350).step_by(50) {
            assert_eq!(contest.heard(ms, &first), Ok(Heard::Known));
            assert_eq!(contest.heard(ms, &second), Ok(Heard::Undecided), "heard {ms}: may have been waiting");
        }
        contest.heard(350, &first).unwrap();
        let refused = contest.heard(360, &second).unwrap_err();
        assert_eq!(refused, Refusal::InUse { id: BrokerId(11), endpoint: "b11:2".to_owned() });
        assert!(refused.to_string().contains("stop that one first"), "{refused}");
        let now = contest.cluster.at(370);
        let register = contest.cluster.tracker.verdicts(now, contest.cluster.metadata.map()).register;
        assert!(register.is_empty(), "{register:?}");
        assert_eq!(contest.heard(380, &first), Ok(Heard::Known), "the first goes on");
    }
}

/// A killed process says so by its sockets, maybe a moment after its successor was heard first.
#[test]
fn a_restart_waits_for_nothing_but_the_end_of_the_earlier_stream() {
    for copied in [false, true] {
        let mut contest = Contest::new();
        let (first, second) = (contest.first.clone(), contest.other(2, copied));
        assert_eq!(contest.heard(100, &second), Ok(Heard::Undecided));
        contest.heard(101, &first).unwrap();
        let now = contest.cluster.at(102);
        contest.cluster.tracker.closed(now, (first.id, first.incarnation));
        assert_eq!(contest.heard(103, &second), Ok(Heard::News));
        assert_eq!(contest.heard(104, &first), Err(Refusal::Replaced { id: BrokerId(11) }));
    }
}

/// As after the power went: no socket tells.
#[test]
fn an_id_whose_run_is_silent_is_free() {
    for copied in [false, true] {
        let mut contest = Contest::new();
        let second = contest.other(2, copied);
        assert_eq!(contest.heard(499, &second), Ok(Heard::Undecided));
        assert_eq!(contest.heard(500, &second), Ok(Heard::News));
    }
}

/// A controller that was just started has heard nobody: a restart is taken at once, another folder when the one that the
/// map names had time to speak; and whoever the map names has the id.
#[test]
fn a_controller_that_just_started_knows_the_run_that_the_map_names() {
    let unheard = || {
        let mut contest = Contest::new();
        contest.cluster.tracker = Tracker::new(TIMEOUT, GRACE, ZoneId::new("a"));
        contest.cluster.look(0);
        contest
    };
    let mut contest = unheard();
    let moved = contest.other(2, false);
    assert_eq!(contest.heard(999, &moved), Ok(Heard::Undecided));
    assert_eq!(contest.heard(1000, &moved), Ok(Heard::News));

    let mut contest = unheard();
    let (first, second) = (contest.first.clone(), contest.other(2, true));
    assert_eq!(contest.heard(10, &second), Ok(Heard::News), "a restart, as it seems");
    contest.cluster.tracker.opened((second.id, second.incarnation));
    assert_eq!(contest.heard(20, &first), Ok(Heard::Known), "it was not");
    contest.cluster.tracker.opened((first.id, first.incarnation));
    assert_eq!(contest.heard(30, &second), Ok(Heard::Undecided));
    contest.heard(300, &first).unwrap();
    assert!(matches!(contest.heard(310, &second), Err(Refusal::InUse { .. })));
}

#[test]
fn what_comes_on_an_earlier_stream_was_said_before() {
    let mut cluster = Cluster::new();
    let run = (BrokerId(11), Incarnation(1));
    cluster.heard(0, 11);
    let first = cluster.tracker.opened(run);
    assert!(cluster.tracker.is_latest(run, first));
    let second = cluster.tracker.opened(run);
    assert!(!cluster.tracker.is_latest(run, first) && cluster.tracker.is_latest(run, second));
    assert!(!cluster.tracker.is_latest((run.0, Incarnation(2)), second), "another run's");
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
fn a_pause_of_this_process_is_no_absence_that_others_are_told_of() {
    let (mut cluster, run) = cut_off();
    cluster.look(1025);
    // The fresh stream waits in our listener.
    let (lost, next) = cluster.tracker.look_for_losses(cluster.at(9000));
    assert_eq!((lost, next), (BTreeSet::new(), Some(cluster.at(9075))));
    let (lost, _) = cluster.tracker.look_for_losses(cluster.at(9075));
    assert_eq!(lost, BTreeSet::new(), "75 ms are a pause, too");
    for ms in [9100, 9125, 9150] {
        cluster.look(ms);
    }
    assert_eq!(cluster.tracker.look_for_losses(cluster.at(9150)).0, BTreeSet::from([run]));
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
    // The earlier run's sockets are still there, and silent.
    let again = registration(21, "b", 2);
    let now = cluster.at(1600);
    assert_eq!(cluster.tracker.heard(now, cluster.metadata.map(), again), Ok(Heard::News));
    cluster.tracker.opened((BrokerId(21), Incarnation(2)));
    assert_eq!(cluster.tracker.closed(now, run), None);
    assert!(cluster.tracker.lost(cluster.at(5000)).is_empty());
}
