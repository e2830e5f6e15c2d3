//! How stale polls were: the conservative age of the oldest record that a poll missed though it said it was at the end.
//!
//! A record is known to exist from its acknowledgement on. A poll that began later, showed nothing more, and did not get
//! to that record missed it. Polls that were still reading a backlog, as their high watermark says, are not counted.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::faults::Fault;
use crate::figures::{Quantiles, histogram};

/// Acknowledgements within this time are one entry, of the latest of them.
const GRAIN_US: u64 = 10_000;
/// Entries of a key; beyond, every other one is joined with its successor.
const ENTRIES: usize = 1 << 16;

/// Since when records are known to exist, by offset. Memory: 1 MiB at most.
#[derive(Debug, Clone, Default)]
pub(crate) struct Existence {
    /// Up to which offset (exclusive), and since when (µs); both increase.
    entries: Vec<(u64, u64)>,
}

impl Existence {
    /// Records below `end` were acknowledged.
    pub(crate) fn acked(&mut self, end: u64, at_us: u64) {
        match self.entries.last_mut() {
            Some(last) if end <= last.0 => {}
            Some(last) if at_us / GRAIN_US <= last.1 / GRAIN_US => *last = (end, at_us.max(last.1)),
            _ => self.push(end, at_us),
        }
    }

    fn push(&mut self, end: u64, at_us: u64) {
        if self.entries.len() == ENTRIES {
            let mut number = 0;
            self.entries.retain(|_| {
                number += 1;
                number % 2 == 0
            });
        }
        self.entries.push((end, at_us));
    }

    /// Since when a record at or behind `offset` is known to exist.
    fn since(&self, offset: u64) -> Option<u64> {
        self.entries.get(self.entries.partition_point(|&(end, _)| end <= offset)).map(|&(_, at)| at)
    }

    /// How old at `at_us` the oldest record from `position` on is; 0 where there is none.
    pub(crate) fn age(&self, position: u64, at_us: u64) -> u64 {
        self.since(position).map_or(0, |since| at_us.saturating_sub(since))
    }
}

/// Staleness of polls, in all and while a fault lasted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lag {
    /// Of all polls that were at the end, the final phase excepted.
    pub overall: Quantiles,
    /// Of those that ended during a fault, by fault.
    pub faults: Vec<FaultLag>,
}

/// Staleness during one fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FaultLag {
    /// Which.
    pub name: String,
    /// When it began (µs).
    pub begin_us: u64,
    /// How stale.
    pub lag: Quantiles,
}

/// Collects the staleness of polls.
#[derive(Debug, Clone)]
pub(crate) struct LagMeter {
    overall: Histogram<u64>,
    /// By number of the fault.
    faults: Vec<Option<Box<Histogram<u64>>>>,
}

impl LagMeter {
    pub(crate) fn new() -> LagMeter {
        LagMeter { overall: histogram(3), faults: Vec::new() }
    }

    /// A poll missed records of that age.
    pub(crate) fn note(&mut self, age_us: u64, active: impl Iterator<Item = usize>) {
        self.overall.saturating_record(age_us);
        for fault in active {
            if self.faults.len() <= fault {
                self.faults.resize(fault + 1, None);
            }
            self.faults[fault].get_or_insert_with(|| Box::new(histogram(2))).saturating_record(age_us);
        }
    }

    pub(crate) fn finish(&self, faults: &[Fault]) -> Lag {
        let of_fault = |(number, fault): (usize, &Fault)| FaultLag {
            name: fault.name.to_string(),
            begin_us: fault.window.begin_us,
            lag: self
                .faults
                .get(number)
                .and_then(Option::as_deref)
                .map_or_else(Quantiles::default, Quantiles::of_histogram),
        };
        Lag {
            overall: Quantiles::of_histogram(&self.overall),
            faults: faults.iter().enumerate().map(of_fault).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_counts_from_the_acknowledgement_of_what_was_missed() {
        let mut existence = Existence::default();
        existence.acked(10, 100_000);
        existence.acked(20, 105_000); // the same grain: both count from here
        existence.acked(30, 200_000);
        assert_eq!(existence.age(5, 150_000), 45_000);
        assert_eq!(existence.age(20, 250_000), 50_000);
        assert_eq!(existence.age(20, 150_000), 0, "acknowledged after the poll began");
        assert_eq!(existence.age(30, 999_000), 0, "nothing missed");
    }

    #[test]
    fn memory_is_bounded_and_age_is_never_overstated() {
        let mut existence = Existence::default();
        for number in 0..200_000 {
            existence.acked(number + 1, number * GRAIN_US);
        }
        assert!(existence.entries.len() <= ENTRIES);
        let now = 200_000 * GRAIN_US;
        for position in (0..199_000).step_by(997) {
            assert!(existence.age(position, now) <= now - position * GRAIN_US);
            assert!(existence.age(position, now) > 0);
        }
    }
}
