//! The network between brokers: delays, losses, duplicates, broken connections and cuts in one or both directions.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_core::Timestamp;

use crate::plan::NetworkPlan;
use crate::random::Random;

/// A direction between two brokers.
pub(crate) type Link = (usize, usize);

/// Decides when, and how often, a message arrives.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    plan: NetworkPlan,
    random: Random,
    cut: BTreeMap<Link, u32>,
    /// On an ordered connection nothing overtakes.
    last_arrival: BTreeMap<Link, Timestamp>,
    /// Counts how often a connection broke: what was sent before is lost.
    connections: BTreeMap<Link, u64>,
}

/// A message on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Passage {
    /// Its direction.
    pub(crate) link: Link,
    /// The connection that carries it; `None` for a copy that no broken connection stops.
    pub(crate) connection: Option<u64>,
}

impl Network {
    /// A whole network.
    pub(crate) fn new(plan: NetworkPlan, random: Random) -> Network {
        Network {
            plan,
            random,
            cut: BTreeMap::new(),
            last_arrival: BTreeMap::new(),
            connections: BTreeMap::new(),
        }
    }

    /// When the message arrives: never, once or twice.
    pub(crate) fn send(&mut self, now: Timestamp, link: Link) -> Vec<(Timestamp, Passage)> {
        let connection = self.connection(link);
        let mut arrivals = Vec::new();
        if self.random.chance(self.plan.duplication) {
            let late = now + self.random.micros(self.plan.delay.0, 3_000_000);
            arrivals.push((late, Passage { link, connection: None }));
        }
        if self.is_cut(link) || self.random.chance(self.plan.loss) {
            return arrivals;
        }
        let mut arrival = now + self.random.micros(self.plan.delay.0, self.plan.delay.1);
        if self.plan.ordered {
            let last = self.last_arrival.entry(link).or_insert(arrival);
            *last = arrival.max(*last);
            arrival = *last;
        }
        arrivals.push((arrival, Passage { link, connection: Some(connection) }));
        arrivals
    }

    /// Whether what is on its way still arrives.
    pub(crate) fn delivers(&self, passage: Passage) -> bool {
        let current = passage.connection.is_none_or(|connection| connection == self.connection(passage.link));
        // On an unordered network a message that is under way does not care for connections.
        (current || !self.plan.ordered) && !self.is_cut(passage.link)
    }

    fn connection(&self, link: Link) -> u64 {
        self.connections.get(&link).copied().unwrap_or(0)
    }

    /// Breaks the connection between two brokers, both ways.
    pub(crate) fn reset(&mut self, one: usize, other: usize) {
        for link in [(one, other), (other, one)] {
            *self.connections.entry(link).or_insert(0) += 1;
            self.last_arrival.remove(&link);
        }
    }

    /// Cuts these directions, on top of other cuts.
    pub(crate) fn cut(&mut self, links: &BTreeSet<Link>) {
        for &link in links {
            *self.cut.entry(link).or_insert(0) += 1;
        }
    }

    /// Takes back one cut of each of these directions.
    pub(crate) fn mend(&mut self, links: &BTreeSet<Link>) {
        for link in links {
            if let Some(count) = self.cut.get_mut(link) {
                *count = count.saturating_sub(1);
            }
        }
    }

    /// Whether nothing gets through in this direction.
    pub(crate) fn is_cut(&self, link: Link) -> bool {
        self.cut.get(&link).is_some_and(|&count| count > 0)
    }

    /// No more faults.
    pub(crate) fn heal(&mut self) {
        self.cut.clear();
        self.plan.loss = 0;
        self.plan.duplication = 0;
    }
}
