//! One to five machines with a small Raft between them, under loss, one-way cuts, broken connections, pauses, slow disks,
//! kills and restarts.
//!
//! What it proves of every seed: whoever stands could reach a majority just before; a leader that is well connected is
//! never challenged; and when all is whole again there is one leader soon, and nobody stands any more. A failing seed
//! is in the panic's message; `HOLDFAST_ELECTION_SEED=n` runs it alone, `HOLDFAST_ELECTION_SEEDS=n` runs n times as many.

mod world;

use world::{Fault, World};

/// So many seeds, or `HOLDFAST_ELECTION_SEEDS` times as many, or the one that is asked for.
fn seeds(count: u64) -> impl Iterator<Item = u64> {
    let asked = |name: &str| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let count = count * asked("HOLDFAST_ELECTION_SEEDS").unwrap_or(1);
    asked("HOLDFAST_ELECTION_SEED").map_or(1..count + 1, |only| only..only + 1)
}

#[test]
fn a_killed_leader_is_replaced_by_one_candidate_within_the_lease() {
    for seed in seeds(25) {
        for voters in [3, 5] {
            let mut world = World::new(seed, voters, 0);
            world.run(2000);
            let (leader, term, stands) = (world.leader(), world.term(), world.stands.len());
            world.run(seed % 75);
            world.apply(Fault::Kill(leader));
            let killed = world.now;
            while world.leaders().is_empty() {
                world.run(1);
                assert!(world.now < killed + 150, "seed {seed}, {voters} voters: no leader after 150 ms");
            }
            world.run(3000);
            assert_eq!(world.stands.len(), stands + 1, "seed {seed}, {voters} voters: {:?}", world.stands);
            assert_eq!(world.term(), term + 1, "seed {seed}, {voters} voters");
        }
    }
}

#[test]
fn one_that_was_cut_off_or_half_deaf_comes_back_without_an_election() {
    for seed in seeds(25) {
        for (inward, outward) in [(true, true), (true, false), (false, true)] {
            let mut world = World::new(seed, 3, 0);
            world.run(2000);
            let (term, other) = (world.term(), (world.leader() + 1) % 3);
            for to in (0..3).filter(|&to| to != other) {
                world.cut(other, to, outward);
                world.cut(to, other, inward);
            }
            world.run(5000);
            world.heal();
            world.run(3000);
            assert_eq!(world.term(), term, "seed {seed} {inward} {outward}: {:?}", world.stands);
        }
    }
}

#[test]
fn a_pause_of_any_of_them_or_of_all_raises_the_term_by_one_at_most() {
    for seed in seeds(25) {
        for who in 0..4 {
            let mut world = World::new(seed, 3, 0);
            world.run(2000);
            let (term, leader) = (world.term(), world.leader());
            let paused: Vec<usize> = if who == 3 { vec![0, 1, 2] } else { vec![who] };
            for &index in &paused {
                world.apply(Fault::Pause(index, 5000));
            }
            world.run(9000);
            let raised = u64::from(paused == [leader]);
            assert_eq!(world.term(), term + raised, "seed {seed} {paused:?}: {:?}", world.stands);
            assert_eq!(world.leaders().len(), 1);
        }
    }
}

#[test]
fn whatever_happened_there_is_one_leader_soon_after_it_and_peace() {
    for seed in seeds(25) {
        for voters in 1..=5 {
            let loss = [0, 2, 10][seed as usize % 3];
            let mut world = World::new(seed, voters, loss);
            for _ in 0..12 {
                let pause = world.random(900);
                world.run(pause);
                let fault = world.random_fault();
                world.apply(fault);
            }
            world.heal();
            world.run(4000);
            assert_eq!(world.leaders().len(), 1, "seed {seed}, {voters} voters: leaders after 4 s");
            let (term, stands) = (world.term(), world.stands.len());
            assert!(world.all_believe(), "seed {seed}, {voters} voters: not everybody knows the leader");
            world.run(3000);
            assert_eq!((world.term(), world.stands.len()), (term, stands), "seed {seed}, {voters} voters");
        }
    }
}

/// Runs until somebody leads, `patience` milliseconds at most.
fn led_within(world: &mut World, patience: u64, what: &str) {
    let until = world.now + patience;
    while world.leaders().is_empty() {
        world.run(1);
        assert!(world.now < until, "{what}: no leader after {patience} ms; stood: {:?}", world.stands);
    }
}

/// A bridge: it is heard by one voter alone, which the others need.
#[test]
fn a_leader_cut_off_from_its_majority_is_replaced_though_a_voter_hears_it() {
    for seed in seeds(25) {
        for voters in [4, 5] {
            let mut world = World::new(seed, voters, 0);
            world.run(2000);
            let leader = world.leader();
            let others: Vec<usize> = (0..voters).filter(|&other| other != leader).collect();
            if voters == 5 {
                world.apply(Fault::Kill(others[3]));
            }
            for &other in &others[1..3] {
                world.cut(leader, other, true);
                world.cut(other, leader, true);
            }
            world.run(600);
            led_within(&mut world, 2000, &format!("seed {seed}, {voters} voters"));
            world.heal();
            world.run(3000);
            assert!(world.leaders().len() == 1 && world.all_believe(), "seed {seed}, {voters} voters");
        }
    }
}

#[test]
fn a_leader_that_is_heard_and_hears_nobody_is_replaced() {
    for seed in seeds(25) {
        let mut world = World::new(seed, 3, 0);
        world.run(2000);
        let leader = world.leader();
        (0..3).for_each(|other| world.cut(other, leader, true));
        world.run(600);
        led_within(&mut world, 3000, &format!("seed {seed}"));
    }
}

/// Also where one is slow that the other needs: Raft waits for votes for 100 ms.
#[test]
fn slow_disks_elect_slowly_and_not_never() {
    for seed in seeds(10) {
        for (all, flush) in
            [(false, 150), (false, 700), (false, 2000), (true, 150), (true, 700), (true, 2000)]
        {
            let mut world = World::new(seed, 3, 0);
            world.run(2000);
            let leader = world.leader();
            for index in (0..3).filter(|&index| all || index == (leader + 1) % 3) {
                world.apply(Fault::Disk(index, flush));
            }
            world.apply(Fault::Kill(leader));
            world.run(1);
            let what = format!("seed {seed}, {flush} ms, all: {all}");
            led_within(&mut world, 20 * flush, &what);
            world.run(5 * flush);
            led_within(&mut world, 1, &what);
            // The third is back, and as slow.
            world.apply(Fault::Restart(leader));
            world.run(10_000);
            let (term, stands) = (world.term(), world.stands.len());
            world.run(5000);
            assert!(world.leaders().len() == 1 && world.all_believe(), "{what}");
            assert_eq!((world.term(), world.stands.len()), (term, stands), "{what}: no peace");
        }
    }
}

#[test]
fn short_pauses_broken_connections_and_slow_followers_cause_no_election() {
    for seed in seeds(25) {
        for voters in [3, 5] {
            let mut world = World::new(seed, voters, 0);
            world.run(2000);
            let (term, leader) = (world.term(), world.leader());
            for slow in (0..voters).filter(|&index| index != leader) {
                world.apply(Fault::Disk(slow, 150));
            }
            for _ in 0..40 {
                let (who, what) = (world.random(voters as u64) as usize, world.random(4));
                match what {
                    0 => (0..voters).for_each(|index| world.apply(Fault::Pause(index, 300))),
                    1 => world.apply(Fault::Pause(who, 300)),
                    2 => world.apply(Fault::Reset(who)),
                    _ => world.apply(Fault::Write(leader)),
                }
                let pause = 300 + world.random(600);
                world.run(pause);
            }
            assert_eq!(world.term(), term, "seed {seed}, {voters} voters: {:?}", world.stands);
        }
    }
}

/// As where a group of processes gets too little of the processors.
#[test]
fn controllers_that_run_by_fits_and_starts_elect() {
    for seed in seeds(25) {
        let mut world = World::new(seed, 3, 0);
        world.run(2000);
        world.apply(Fault::Kill(world.leader()));
        for _ in 0..50 {
            (0..3).for_each(|index| world.apply(Fault::Pause(index, 150)));
            world.run(150 + 80);
        }
        assert_eq!(world.leaders().len(), 1, "seed {seed}: {:?}", world.stands);
    }
}
