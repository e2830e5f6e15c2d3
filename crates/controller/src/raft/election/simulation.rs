//! Three and five machines with a small Raft between them, under loss, one-way cuts, pauses, kills and restarts.
//!
//! What it proves of every seed: whoever stands could reach a majority just before; a leader that is well connected is
//! never challenged; and when all is whole again there is one leader soon, and nobody stands any more. A failing seed
//! is in the panic's message; `HOLDFAST_ELECTION_SEED=n` runs it alone.

mod world;

use world::{Fault, World};

/// Runs one seed, or the one that is asked for.
fn seeds(count: u64) -> impl Iterator<Item = u64> {
    let only = std::env::var("HOLDFAST_ELECTION_SEED").ok().and_then(|seed| seed.parse().ok());
    only.map_or(1..count + 1, |only: u64| only..only + 1)
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
        for voters in [3, 5] {
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
