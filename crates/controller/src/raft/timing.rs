//! When which voter stands for election.
//!
//! openraft lets a follower stand once `max + timeout` have passed since it last heard the leader, where `max` is also
//! the lease in which it refuses to vote for another, and `timeout` is drawn from `[min, max)` at start. Both are set
//! to half of what is wanted, with a draw of one millisecond, and differ by the voter's position:
//!
//! ```text
//! leader silent ──────────────┬──────────── base ──── base+step ──── base+2 step ─── ...
//!                       leases run out      1st stands  2nd stands    3rd stands
//! ```
//!
//! A step is longer than openraft's tick of 1.5 heartbeats (`ControllerConfig::validate` sees to ten heartbeats a base),
//! hence two voters never stand in the same tick, and every lease is over when the first one stands.

use std::time::Duration;

/// openraft's election settings of one voter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ElectionTiming {
    /// `election_timeout_min`, in milliseconds.
    pub(crate) min_ms: u64,
    /// `election_timeout_max`, in milliseconds (exclusive); also the lease.
    pub(crate) max_ms: u64,
    /// How long a majority must have been reachable before the voter may stand: longer than the slowest election, so
    /// that after an isolation it hears the leader first.
    pub(crate) gate: Duration,
}

impl ElectionTiming {
    /// Of the voter at `position` among `voters`, sorted by id.
    pub(crate) fn of(base: Duration, position: usize, voters: usize) -> Self {
        let base = u64::try_from(base.as_millis()).unwrap_or(u64::MAX / 8);
        let step = base / 5;
        let stands_after = |position: usize| base + position as u64 * step;
        let min_ms = stands_after(position) / 2;
        let slowest = stands_after(voters.saturating_sub(1));
        ElectionTiming { min_ms, max_ms: min_ms + 2, gate: Duration::from_millis(slowest + step) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_disjoint_and_leases_end_before_the_first_stands() {
        for voters in 1..=5 {
            for base in [100, 250, 500, 1000, 5000] {
                let tick = base / 10 * 3 / 2;
                let timings: Vec<ElectionTiming> = (0..voters)
                    .map(|position| ElectionTiming::of(Duration::from_millis(base), position, voters))
                    .collect();
                let earliest = |timing: &ElectionTiming| timing.max_ms + timing.min_ms;
                let latest = |timing: &ElectionTiming| 2 * timing.max_ms;
                for pair in timings.windows(2) {
                    assert!(latest(&pair[0]) + tick <= earliest(&pair[1]), "{base} {pair:?}");
                }
                for timing in &timings {
                    assert!(timing.max_ms < earliest(&timings[0]), "{base} {timing:?}");
                    assert!(timing.gate.as_millis() as u64 > latest(timing));
                }
            }
        }
    }
}
