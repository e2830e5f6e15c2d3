//! Recovery times from completions: the longest gap between two acknowledgements of a partition that overlaps a fault.

use std::time::Duration;

use crate::clock::Micros;

/// From one moment to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    /// Its begin.
    pub(crate) from: Micros,
    /// Its end.
    pub(crate) to: Micros,
}

impl Window {
    fn overlaps(self, from: Micros, to: Micros) -> bool {
        from < self.to && to > self.from
    }
}

/// The longest gap that overlaps the window. One that has not ended at the window's end is as long as it was then.
pub(crate) fn longest(acks: &[Micros], window: Window) -> Duration {
    let first = acks.partition_point(|at| *at < window.from).saturating_sub(1);
    let within = &acks[first.min(acks.len())..];
    let mut longest = Duration::ZERO;
    let mut last = None;
    for at in within.iter().copied() {
        if let Some(last) = last
            && window.overlaps(last, at)
        {
            longest = longest.max(at.since(last));
        }
        last = Some(at);
        if at >= window.to {
            return longest;
        }
    }
    longest.max(window.to.since(last.unwrap_or(window.from)))
}

/// The 99.9th percentile of all gaps that overlap none of the windows.
pub(crate) fn quiet_p999(partitions: &[Vec<Micros>], faults: &[Window]) -> Duration {
    let mut gaps: Vec<Duration> = partitions
        .iter()
        .flat_map(|acks| acks.windows(2).map(|pair| (pair[0], pair[1])))
        .filter(|(from, to)| !faults.iter().any(|fault| fault.overlaps(*from, *to)))
        .map(|(from, to)| to.since(from))
        .collect();
    gaps.sort_unstable();
    quantile(&gaps, 0.999)
}

/// The smallest of sorted values that a share of `quantile` does not exceed; zero of none.
pub(crate) fn quantile(sorted: &[Duration], quantile: f64) -> Duration {
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: &[u64]) -> Vec<Micros> {
        millis.iter().map(|millis| Micros(millis * 1000)).collect()
    }

    fn window(from: u64, to: u64) -> Window {
        Window { from: Micros(from * 1000), to: Micros(to * 1000) }
    }

    /// A gap counts whole where it overlaps the fault, and not at all where it does not.
    #[test]
    fn gaps_that_overlap_count_whole() {
        let acks = at(&[0, 20, 40, 340, 360, 380, 400]);
        assert_eq!(longest(&acks, window(45, 390)), Duration::from_millis(300));
        assert_eq!(longest(&acks, window(345, 390)), Duration::from_millis(20));
        assert_eq!(longest(&acks, window(0, 30)), Duration::from_millis(20));
    }

    /// A partition that never comes back shows the whole rest of the window.
    #[test]
    fn a_gap_without_end_lasts_to_the_end_of_the_window() {
        assert_eq!(longest(&at(&[0, 20]), window(30, 1030)), Duration::from_millis(1010));
        assert_eq!(longest(&[], window(30, 1030)), Duration::from_millis(1000));
    }

    /// Gaps of a fault do not make the quiet time look worse.
    #[test]
    fn quiet_gaps_leave_out_faults() {
        let acks = at(&[0, 20, 41, 900, 920]);
        assert_eq!(quiet_p999(std::slice::from_ref(&acks), &[window(50, 890)]), Duration::from_millis(21));
        assert_eq!(quiet_p999(&[acks], &[]), Duration::from_millis(859));
        assert_eq!(quiet_p999(&[], &[]), Duration::ZERO);
    }

    /// Nearest rank: the largest of twenty is their 99th percentile.
    #[test]
    fn quantiles_are_values_seen() {
        let sorted: Vec<_> = (1..=20).map(Duration::from_millis).collect();
        assert_eq!(quantile(&sorted, 0.5), Duration::from_millis(10));
        assert_eq!(quantile(&sorted, 0.99), Duration::from_millis(20));
    }
}
