//! Pre-vote by hand: a voter that cannot reach a majority must not stand for election.
//!
//! openraft 0.9 has no pre-vote. An isolated voter would raise its term over and over and depose the leader when it
//! comes back. So a task pings the peers, and elections are enabled only after a majority was reachable without a break
//! for longer than an election takes: then the leader, if there is one, is heard first.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Whether this voter may stand. Time is an argument.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Peers that make a majority together with this voter.
    needed: usize,
    /// An answer older than this does not count.
    window: Duration,
    /// How long a majority must have been reachable.
    hold: Duration,
    answered: BTreeMap<u64, Instant>,
    reachable_since: Option<Instant>,
}

impl Gate {
    /// Of a quorum with `voters` members, this one included.
    pub(crate) fn new(voters: usize, window: Duration, hold: Duration) -> Self {
        Gate { needed: voters / 2, window, hold, answered: BTreeMap::new(), reachable_since: None }
    }

    /// A ping that was sent at `sent` was answered.
    pub(crate) fn answered(&mut self, peer: u64, sent: Instant) {
        let last = self.answered.entry(peer).or_insert(sent);
        *last = sent.max(*last);
    }

    /// Whether a majority is reachable at this moment.
    pub(crate) fn majority_reachable(&self, now: Instant) -> bool {
        let fresh = |sent: &&Instant| now.saturating_duration_since(**sent) <= self.window;
        self.answered.values().filter(fresh).count() >= self.needed
    }

    /// Whether the voter may stand. Call it regularly: a break is noticed by being looked at.
    pub(crate) fn is_open(&mut self, now: Instant) -> bool {
        if !self.majority_reachable(now) {
            self.reachable_since = None;
            return false;
        }
        let since = *self.reachable_since.get_or_insert(now);
        self.needed == 0 || now.saturating_duration_since(since) >= self.hold
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_millis(300);
    const HOLD: Duration = Duration::from_millis(900);

    #[test]
    fn opens_after_an_unbroken_hold_and_closes_on_silence() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut gate = Gate::new(3, WINDOW, HOLD);
        assert!(!gate.is_open(at(0)));
        for ms in (0..=1000).step_by(100) {
            gate.answered(2, at(ms));
            assert_eq!(gate.is_open(at(ms)), ms >= 900, "{ms}");
        }
        assert!(gate.is_open(at(1300)));
        assert!(!gate.is_open(at(1301)));
        gate.answered(3, at(1400));
        assert!(!gate.is_open(at(1400)), "a break starts the hold anew");
    }

    #[test]
    fn one_dead_peer_of_two_does_not_close_it() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut gate = Gate::new(3, WINDOW, HOLD);
        for ms in (0..3000).step_by(100) {
            gate.answered(2, at(ms));
            if ms < 1000 {
                gate.answered(3, at(ms));
            }
            assert_eq!(gate.is_open(at(ms)), ms >= 900, "{ms}");
        }
    }

    #[test]
    fn a_single_voter_needs_nobody() {
        assert!(Gate::new(1, WINDOW, HOLD).is_open(Instant::now()));
    }
}
