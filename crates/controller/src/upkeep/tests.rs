use holdfast_core::metadata::{LeaderReport, LeaderState};
use holdfast_core::{DirId, Offset};

use super::testing::Cluster;
use super::*;

const SECOND: Duration = Duration::from_secs(1);
const REPLACE_AFTER: Duration = Duration::from_secs(900);
const HOME_AFTER: Duration = Duration::from_secs(60);

/// A cluster, its upkeep, and made-up time.
struct World {
    cluster: Cluster,
    upkeep: Upkeep,
    reports: Reports,
    now: Instant,
}

/// Zone a has brokers 1 and 4, zone b 2 and 5, zone c 3.
const ZONES: [(u32, &str); 5] = [(1, "a"), (2, "b"), (3, "c"), (4, "a"), (5, "b")];

impl World {
    fn new(partitions: u32) -> World {
        let mut cluster = Cluster::new(&ZONES);
        // Placed while the spares are away, so that they hold nothing.
        for spare in [4, 5] {
            cluster.fence(spare);
        }
        cluster.create(partitions);
        for spare in [4, 5] {
            cluster.start(spare, 2, 1);
        }
        let upkeep = Upkeep::new(Some(REPLACE_AFTER), HOME_AFTER);
        World { cluster, upkeep, reports: Reports::default(), now: Instant::now() }
    }

    /// What is proposed in `seconds`, each proposal applied and every leader in good health meanwhile.
    fn run(&mut self, seconds: u64) -> Vec<Command> {
        self.run_with(seconds, |world| world.report_all(|_| true))
    }

    fn run_with(&mut self, seconds: u64, report: impl Fn(&mut World)) -> Vec<Command> {
        let end = self.now + SECOND * u32::try_from(seconds).unwrap();
        let mut proposed = Vec::new();
        while self.now < end {
            report(self);
            let commands = self.upkeep.look(self.now, self.cluster.map(), &mut self.reports);
            commands.iter().for_each(|command| self.cluster.apply(command.clone()));
            proposed.extend(commands);
            self.now += LOOK_INTERVAL;
        }
        proposed
    }

    /// Every live leader says that it takes records and that these of its replicas are in sync.
    fn report_all(&mut self, in_sync: impl Fn(ReplicaId) -> bool) {
        for partition in self.cluster.map().partitions().cloned().collect::<Vec<_>>() {
            let register = &partition.register;
            let all = register.set.iter().copied().chain(register.learners());
            let map = self.cluster.map();
            let report = LeaderReport {
                partition: partition.id,
                term: register.term,
                state: LeaderState::Active,
                log_end_offset: Offset(1),
                writable: true,
                in_sync: all.filter(|&replica| map.is_live(replica) && in_sync(replica)).collect(),
            };
            if map.is_live(register.leader) {
                self.reports.reported(self.now, map, register.leader.broker, &report, false);
            }
        }
    }

    fn away_from_home(&self) -> usize {
        let away = |partition: &&Partition| partition.register.leader != partition.register.set[0];
        self.cluster.map().partitions().filter(away).count()
    }

    fn set(&self, index: u32) -> Vec<u32> {
        self.cluster.partition(index).register.set.iter().map(|replica| replica.broker.0).collect()
    }

    fn complete_all(&mut self) {
        for partition in self.cluster.map().partitions().cloned().collect::<Vec<_>>() {
            let term = partition.register.term;
            self.cluster.apply(Command::CompleteChange { partition: partition.id, term });
        }
    }
}

fn reassigned(commands: &[Command]) -> usize {
    let reassignments = commands.iter().map(|command| match command {
        Command::Reassign(reassignments) => reassignments.len(),
        _ => 0,
    });
    reassignments.sum()
}

#[test]
fn a_broker_that_stays_away_is_replaced_when_its_time_is_up() {
    let mut world = World::new(6);
    assert!(world.run(2).is_empty());
    world.cluster.fence(1);
    let before = world.run(899);
    assert_eq!(reassigned(&before), 0, "not yet");
    let moved = world.run(2);
    assert_eq!(reassigned(&moved), 6);
    assert!(
        moved.iter().any(|command| matches!(command, Command::ChangeSets(changes) if changes.len() == 6))
    );
    world.complete_all();
    for index in 0..6 {
        assert!(world.set(index).contains(&4) && !world.set(index).contains(&1), "{:?}", world.set(index));
    }
    assert_eq!(reassigned(&world.run(60)), 0);
}

#[test]
fn a_broker_that_comes_back_in_time_is_not_replaced_and_its_clock_starts_anew() {
    let mut world = World::new(3);
    world.run(2);
    world.cluster.fence(1);
    world.run(800);
    world.cluster.start(1, 2, 1);
    world.run(5);
    world.cluster.fence(1);
    assert_eq!(reassigned(&world.run(800)), 0);
    assert_eq!(reassigned(&world.run(101)), 3);
}

#[test]
fn a_new_leader_of_the_controllers_starts_the_clocks_anew() {
    let mut world = World::new(3);
    world.cluster.fence(1);
    world.run(800);
    world.upkeep.follow();
    assert_eq!(reassigned(&world.run(800)), 0);
    assert_eq!(reassigned(&world.run(101)), 3);
}

#[test]
fn never_is_never_but_for_a_new_disk() {
    let mut world = World::new(3);
    world.upkeep.replace_after = None;
    world.cluster.fence(1);
    assert_eq!(reassigned(&world.run(5000)), 0);
    world.cluster.start(1, 2, 99);
    assert_eq!(reassigned(&world.run(1)), 3, "the broker is back, without what it had");
    let learned = world.cluster.partition(0).register.set.iter().any(|replica| replica.dir == DirId(99));
    assert!(learned);
}

#[test]
fn brokers_of_one_zone_at_a_time_and_a_few_partitions_at_a_time() {
    let mut world = World::new(30);
    world.run(1);
    for lost in [1, 2] {
        world.cluster.fence(lost);
    }
    let nobody_catches_up =
        |world: &mut World| world.report_all(|replica| ![4, 5].contains(&replica.broker.0));
    let commands = world.run_with(1000, nobody_catches_up);
    assert_eq!(reassigned(&commands), MOVES_AT_ONCE, "UPK-2");
    for partition in world.cluster.map().partitions() {
        let learners: Vec<u32> = partition.register.learners().map(|replica| replica.broker.0).collect();
        assert!(learners.is_empty() || learners == [4], "UPK-1: {learners:?}");
    }
}

#[test]
fn a_set_changes_only_with_a_majority_in_sync() {
    let mut world = World::new(1);
    world.cluster.fence(1);
    world.run_with(901, |world| world.report_all(|replica| replica.broker.0 != 4));
    assert_eq!(world.cluster.partition(0).register.learners().count(), 1);
    let leader = world.cluster.partition(0).register.leader;
    let alone = world.run_with(5, |world| world.report_all(|replica| replica.broker.0 == 9));
    assert!(alone.is_empty(), "{alone:?}");
    let both =
        world.run_with(1, |world| world.report_all(|replica| replica.broker.0 == 4 || replica == leader));
    assert!(matches!(both[..], [Command::ChangeSets(_)]), "{both:?}");
}

#[test]
fn a_move_to_a_broker_that_dies_is_called_off_and_begins_again_elsewhere() {
    let mut world = World::new(1);
    world.cluster.fence(1);
    let lagging = |world: &mut World| world.report_all(|replica| replica.broker.0 != 4);
    world.run_with(901, lagging);
    world.cluster.fence(4);
    assert!(world.run_with(59, lagging).is_empty(), "it may come back");
    let called_off = world.run_with(3, lagging);
    assert!(
        matches!(called_off[..], [Command::CancelReassign { .. }]),
        "{called_off:?}: nobody else is in zone a"
    );
    world.cluster.start(4, 3, 7);
    assert_eq!(reassigned(&world.run_with(1, lagging)), 1, "with another disk, and at once");
    // The disk of a learner is lost, too.
    world.cluster.start(4, 4, 8);
    let again = world.run_with(1, lagging);
    assert!(matches!(again[..], [Command::CancelReassign { .. }, Command::Reassign(_)]), "{again:?}");
}

#[test]
fn leaders_go_home_in_batches_once_their_broker_is_stable() {
    let mut world = World::new(90);
    world.run(70);
    world.cluster.fence(1);
    world.run(5);
    world.cluster.start(1, 2, 1);
    assert_eq!(world.away_from_home(), 30);
    world.run(59);
    assert_eq!(world.away_from_home(), 30, "not stable yet");
    let mut left = Vec::new();
    for _ in 0..4 {
        world.run(1);
        left.push(world.away_from_home());
    }
    assert_eq!(left, [30, 20, 10, 0].map(|left: usize| left), "ten a second");
}

#[test]
fn leaders_go_home_only_to_replicas_in_sync_and_while_all_is_calm() {
    let mut world = World::new(12);
    world.run(70);
    world.cluster.fence(1);
    world.cluster.start(1, 2, 1);
    let lags = |world: &mut World| world.report_all(|replica| replica.broker.0 != 1);
    world.run_with(120, lags);
    assert_eq!(world.away_from_home(), 4, "not in sync");
    world.cluster.fence(5);
    world.run(9);
    assert_eq!(world.away_from_home(), 4, "a broker went a moment ago");
    world.run(3);
    assert_eq!(world.away_from_home(), 0);
}

#[test]
fn a_leader_that_gets_stuck_at_home_stays_away_longer_each_time() {
    let mut world = World::new(1);
    world.run(70);
    let home = world.cluster.partition(0).register.set[0].broker;
    let mut stays = Vec::new();
    for _ in 0..4 {
        let register = world.cluster.partition(0).register.clone();
        assert_eq!(register.leader.broker, home);
        let id = world.cluster.partition(0).id;
        let elsewhere =
            Appointment { partition: id, expected_term: register.term, leader: register.set[1].broker };
        world.upkeep.stuck(world.now, world.cluster.map(), &[elsewhere]);
        world.cluster.apply(Command::Appoint(vec![elsewhere]));
        let mut seconds = 0;
        while world.away_from_home() > 0 {
            world.run(1);
            seconds += 1;
        }
        stays.push(seconds);
    }
    assert!(stays.windows(2).all(|pair| pair[1] >= 2 * pair[0] - 2), "{stays:?}");
    assert!(stays[0] >= 60, "{stays:?}");
}

/// A broker that takes no records leads nothing that another can lead, and gets it back when it has room.
#[test]
fn leaders_leave_a_full_disk_and_come_home_when_there_is_room() {
    let mut world = World::new(12);
    world.run(120);
    let led = |world: &World, broker| {
        let led = |partition: &&Partition| partition.register.leader.broker == BrokerId(broker);
        world.cluster.map().partitions().filter(led).count()
    };
    let before = led(&world, 1);
    assert!(before > 0);
    world.upkeep.disk_is_full(BrokerId(1), true);
    world.run(1);
    assert_eq!(led(&world, 1), 0);
    assert_eq!(led(&world, 2) + led(&world, 3), 12);
    assert!(world.run(300).is_empty(), "nobody goes home to a full disk");
    world.upkeep.disk_is_full(BrokerId(1), false);
    world.run(120);
    assert_eq!(led(&world, 1), before);
}

#[test]
fn a_full_disk_is_left_only_for_who_is_in_sync_and_has_room() {
    let mut world = World::new(12);
    world.run(120);
    let leaders = |world: &World| -> Vec<ReplicaId> {
        world.cluster.map().partitions().map(|partition| partition.register.leader).collect()
    };
    let before = leaders(&world);
    for broker in [1, 2, 3] {
        world.upkeep.disk_is_full(BrokerId(broker), true);
    }
    assert!(world.run(5).is_empty(), "nobody has room");
    world.upkeep.disk_is_full(BrokerId(3), false);
    // Whoever leads has nobody that keeps up.
    let alone = |world: &mut World| {
        let leaders = leaders(world);
        world.report_all(|replica| leaders.contains(&replica) && replica.broker != BrokerId(3));
    };
    assert!(world.run_with(5, alone).is_empty());
    assert_eq!(leaders(&world), before);
    world.run(1);
    assert!(leaders(&world).iter().all(|leader| leader.broker == BrokerId(3)));
}

/// With all disks full a leader may be stuck with what its followers have no room for. It serves what is stored; who comes after
/// it could not commit as much as a marker.
#[test]
fn a_stuck_leader_is_not_replaced_by_a_full_disk_as_long_as_it_serves() {
    let mut world = World::new(1);
    world.run(120);
    let register = world.cluster.partition(0).register.clone();
    let [leader, next, last] = register.set[..] else { panic!("{register:?}") };
    let proposed = Appointment {
        partition: world.cluster.partition(0).id,
        expected_term: register.term,
        leader: next.broker,
    };
    let help = |world: &World| {
        let helping = world.upkeep.with_room(world.cluster.map(), &world.reports, vec![proposed]);
        helping.first().map(|appointment| appointment.leader)
    };
    assert_eq!(help(&world), Some(next.broker));
    world.upkeep.disk_is_full(next.broker, true);
    assert_eq!(help(&world), Some(last.broker), "one has room");
    for full in [leader, last] {
        world.upkeep.disk_is_full(full.broker, true);
    }
    assert_eq!(help(&world), None);
    // One whose log failed serves nothing.
    let failed = LeaderReport {
        partition: proposed.partition,
        term: register.term,
        state: LeaderState::Stalled,
        log_end_offset: Offset(1),
        writable: false,
        in_sync: Vec::new(),
    };
    world.reports.reported(world.now, world.cluster.map(), leader.broker, &failed, false);
    assert_eq!(help(&world), Some(next.broker));
}
