//! Which entries are news. A controller that starts, or was away, applies old entries, too: when they were written it
//! saw nothing, and has no times to tell of them.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_core::ControllerId;

/// Entries up to the horizon were written before this controller took part.
#[derive(Debug)]
pub(super) struct Horizon {
    me: ControllerId,
    /// Controllers that have to say how far their logs reach: a majority, so that one of them has all that is committed.
    needed: usize,
    reached: BTreeMap<ControllerId, u64>,
    /// Controllers whose word may be as old as the time that this one was away: it waited in a socket.
    stale: BTreeSet<ControllerId>,
    /// What this controller writes as leader of that term is always news.
    leads: Option<u64>,
    /// Whether it has known a leader since it lost sight of the rest.
    led: bool,
}

impl Horizon {
    /// For one of so many voters.
    pub(super) fn new(me: ControllerId, voters: usize) -> Horizon {
        Horizon {
            me,
            needed: voters / 2 + 1,
            reached: BTreeMap::new(),
            stale: BTreeSet::new(),
            leads: None,
            led: false,
        }
    }

    /// How far a controller's log reaches. Only its first word counts.
    pub(super) fn reaches(&mut self, controller: ControllerId, index: u64) {
        if !self.stale.remove(&controller) {
            self.reached.entry(controller).or_insert(index);
        }
    }

    pub(super) fn standing(&mut self, term: u64, leader: Option<ControllerId>) {
        self.led |= leader.is_some();
        self.leads = leader.filter(|&leader| leader == self.me).map(|_| term);
    }

    /// This controller was away: what the others wrote meanwhile is no news.
    pub(super) fn lose_sight(&mut self) {
        self.stale.extend(self.reached.keys().filter(|&&controller| controller != self.me));
        self.reached.clear();
        self.led = false;
    }

    /// Whether this controller led when the entry was written.
    pub(super) fn is_own(&self, term: u64) -> bool {
        self.leads == Some(term)
    }

    pub(super) fn is_news(&self, index: u64, term: u64) -> bool {
        let known = self.led && self.reached.len() >= self.needed;
        self.is_own(term) || (known && self.reached.values().all(|&reached| index > reached))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_news_beyond_what_a_majority_had_at_first_sight() {
        let id = ControllerId;
        let mut horizon = Horizon::new(id(1), 3);
        horizon.reaches(id(1), 5);
        assert!(!horizon.is_news(6, 2), "nothing is known of the others");
        horizon.reaches(id(2), 8);
        assert!(!horizon.is_news(9, 2), "no leader was seen");
        horizon.standing(2, Some(id(2)));
        horizon.reaches(id(2), 20);
        assert_eq!([8, 9].map(|index| horizon.is_news(index, 2)), [false, true]);
        horizon.lose_sight();
        assert!(!horizon.is_news(9, 2));
        horizon.standing(3, Some(id(1)));
        assert_eq!(
            [2, 3].map(|term| horizon.is_news(9, term)),
            [false, true],
            "what it writes itself is news"
        );
        horizon.reaches(id(1), 30);
        horizon.reaches(id(2), 10);
        assert!(!horizon.is_news(31, 2), "that answer waited while this controller was away");
        horizon.reaches(id(2), 40);
        assert_eq!([40, 41].map(|index| horizon.is_news(index, 2)), [false, true]);
    }
}
