//! Every schedule of a small cluster: the production state machine, three replicas, two or three terms, one or two
//! records, and each order in which messages, appointments, flushes, deaths and power cuts can come.
//!
//! Chance finds what is likely; this finds what is possible, within the bounds. A message may arrive at any time after
//! it was sent, or never. Nothing is timed: time stands still, and a timer fires when the search says so. A state is
//! made of the replicas themselves (they are `Clone + Eq + Hash`), their disks, the messages on their way and what was
//! committed so far; the steps between two states are judged as the oracle of the simulation does (REP-1 to REP-8).
//! The schedule of a violation is a shortest one.
//!
//! Not in here: learners and deleted replicas, unclean terms, trims, failing disks, a stored high watermark, deaths between two
//! writes of one step unless the bounds ask for them.

mod disk;
mod history;
mod interner;
mod node;
mod perform;
mod search;
mod state;
mod step;

use std::fmt;

use holdfast_core::metadata::Durability;

use crate::oracle::Violation;

/// What is searched, and how much of each.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// What it is called.
    pub name: &'static str,
    /// What an acknowledgement means.
    pub durability: Durability,
    /// Number of nodes, at most 4.
    pub replicas: usize,
    /// Who leads each term, from term 1. A node may hear of a term at any time, or never.
    pub leaders: &'static [usize],
    /// The replica sets of the terms; all nodes in every term where there are none.
    pub sets: &'static [Sets],
    /// How many records are produced, at any leader.
    pub records: u8,
    /// How often one of them is produced again.
    pub retries: u8,
    /// How often a message stays on its way although it arrived.
    pub duplicates: u8,
    /// How often a timer fires.
    pub timers: u8,
    /// How often a node's stream to another is opened again.
    pub reconnects: u8,
    /// How often a process dies and starts again.
    pub kills: u8,
    /// Whether a process may also die between two actions of one step.
    pub kills_within_steps: bool,
    /// How often a machine loses power, and with it any suffix of what was not flushed.
    pub power_cuts: u8,
    /// Whether a flush ends in a step of its own, and not at once.
    pub slow_flushes: bool,
    /// The search ends with the level in which it has seen so many states.
    pub states: usize,
}

/// The register's sets in one term.
#[derive(Debug, Clone, Copy)]
pub struct Sets {
    /// The replica set.
    pub set: &'static [usize],
    /// The set being left; empty if there is none.
    pub prev: &'static [usize],
}

impl Bounds {
    /// The sets of a term.
    fn sets_of(&self, term: u32) -> Sets {
        const ALL: [usize; 4] = [0, 1, 2, 3];
        let whole = Sets { set: &ALL[..self.replicas.min(ALL.len())], prev: &[] };
        (term as usize).checked_sub(1).and_then(|nth| self.sets.get(nth)).copied().unwrap_or(whole)
    }

    /// Whether a node is a member in a term.
    fn names(&self, term: u32, node: usize) -> bool {
        let Sets { set, prev } = self.sets_of(term);
        set.contains(&node) || prev.contains(&node)
    }

    /// The term whose change has to be complete before this one can begin (R3, R43); going on and going back need none.
    fn waits_for(&self, term: u32) -> Option<u32> {
        let before = term.checked_sub(1).filter(|&before| before > 0)?;
        let (now, then) = (self.sets_of(term), self.sets_of(before));
        let goes_back = now.set == then.prev && now.prev == then.set;
        let goes_on = now.set == then.set && now.prev == then.prev;
        (!then.prev.is_empty() && !goes_back && !goes_on).then_some(before)
    }
}

/// What the search came across: it shows that the bounds leave room for something to happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reached {
    /// The leader of the last term committed something.
    pub commit_in_last_term: bool,
    /// Two replicas led at once, in different epochs.
    pub two_leaders: bool,
    /// The most records committed.
    pub records: usize,
}

/// A schedule that breaks a promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counterexample {
    /// Its steps, one a line.
    pub schedule: Vec<String>,
    /// What the last of them breaks.
    pub violation: Violation,
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.schedule.iter().enumerate() {
            writeln!(f, "  {:>2}. {step}", index + 1)?;
        }
        write!(f, "  {}", self.violation)
    }
}

/// How a search went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Distinct states seen.
    pub states: usize,
    /// Steps taken between them.
    pub steps: u64,
    /// Every state that so many steps can reach was seen.
    pub depth: usize,
    /// Whether there are no other states within the bounds.
    pub complete: bool,
    /// What the search came across.
    pub reached: Reached,
    /// The first violation.
    pub counterexample: Option<Counterexample>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { states, steps, depth, .. } = self;
        if self.complete {
            write!(f, "complete: {states} states, {steps} steps, depth {depth}")?;
        } else {
            write!(f, "up to depth {depth}: {states} states, {steps} steps")?;
        }
        let Reached { commit_in_last_term, two_leaders, records } = self.reached;
        write!(f, "; {records} records committed")?;
        if commit_in_last_term {
            f.write_str(", a commit in the last term")?;
        }
        if two_leaders {
            f.write_str(", two leaders at once")?;
        }
        Ok(())
    }
}

/// Searches everything within the bounds.
pub fn search(bounds: &Bounds) -> Report {
    search::Search::new(bounds).run()
}

/// Nothing but one term, one record, and messages in any order.
const QUIET: Bounds = Bounds {
    name: "one_term",
    durability: Durability::Disk,
    replicas: 3,
    leaders: &[0],
    sets: &[],
    records: 1,
    retries: 0,
    duplicates: 0,
    timers: 0,
    reconnects: 0,
    kills: 0,
    kills_within_steps: false,
    power_cuts: 0,
    slow_flushes: false,
    states: 1_000_000,
};

const OLD: &[usize] = &[0, 1, 2];
const NEW: &[usize] = &[0, 1, 3];
/// D takes C's place.
const SWAP: &[Sets] = &[Sets { set: OLD, prev: &[] }, Sets { set: NEW, prev: OLD }];
/// And then the next term has forgotten the old set.
const SWAP_COMPLETED: &[Sets] = &[SWAP[0], SWAP[1], Sets { set: NEW, prev: &[] }];
/// And then back again.
const SWAP_GONE_BACK: &[Sets] = &[SWAP[0], SWAP[1], Sets { set: OLD, prev: NEW }];

/// What `holdfast-sim --model` searches: about a minute on one core. The larger ones end at their number of states.
pub fn configurations() -> Vec<Bounds> {
    let two_terms = Bounds { leaders: &[0, 1], ..QUIET };
    let power = Bounds { slow_flushes: true, power_cuts: 1, ..QUIET };
    let memory = Bounds { durability: Durability::Memory, power_cuts: 1, ..QUIET };
    let swap = Bounds { replicas: 4, leaders: &[0, 1], sets: SWAP, states: 1_500_000, ..QUIET };
    let pair = Bounds { replicas: 2, leaders: &[0, 1], ..QUIET };
    vec![
        QUIET,
        Bounds { name: "one_term_two_records_one_retry", records: 2, retries: 1, ..QUIET },
        Bounds { name: "one_term_one_kill_within_steps", kills: 1, kills_within_steps: true, ..QUIET },
        Bounds { name: "one_term_one_power_cut", ..power.clone() },
        Bounds { name: "one_term_memory_one_power_cut", ..memory.clone() },
        Bounds { name: "one_term_one_duplicate_one_timer", duplicates: 1, timers: 1, ..QUIET },
        Bounds { name: "two_terms", states: 20_000_000, ..two_terms.clone() },
        Bounds { name: "two_terms_same_leader", leaders: &[0, 0], states: 5_000_000, ..QUIET },
        Bounds { name: "two_terms_one_retry", retries: 1, ..two_terms.clone() },
        Bounds { name: "two_terms_one_kill", kills: 1, kills_within_steps: true, ..two_terms.clone() },
        Bounds { name: "two_terms_one_power_cut", leaders: &[0, 1], ..power },
        Bounds { name: "two_terms_memory_one_power_cut", leaders: &[0, 1], ..memory },
        Bounds { name: "three_terms", leaders: &[0, 1, 0], ..two_terms },
        Bounds { name: "swap", ..swap.clone() },
        Bounds { name: "swap_same_leader", leaders: &[0, 0], ..swap.clone() },
        Bounds { name: "swap_completed", leaders: &[0, 1, 3], sets: SWAP_COMPLETED, ..swap.clone() },
        Bounds { name: "swap_gone_back", leaders: &[0, 1, 2], sets: SWAP_GONE_BACK, ..swap },
        Bounds {
            name: "pair_one_kill_one_retry",
            kills: 1,
            kills_within_steps: true,
            retries: 1,
            ..pair.clone()
        },
        Bounds {
            name: "pair_one_power_cut_one_duplicate",
            slow_flushes: true,
            power_cuts: 1,
            duplicates: 1,
            ..pair.clone()
        },
        Bounds {
            name: "pair_one_duplicate_one_timer_one_reconnect",
            duplicates: 1,
            timers: 1,
            reconnects: 1,
            states: 2_000_000,
            ..pair.clone()
        },
        Bounds { name: "pair_three_terms_two_records", leaders: &[0, 1, 0], records: 2, ..pair },
    ]
}
