//! Figures of many measurements.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Largest time that is told apart: an hour, in microseconds.
const LARGEST: u64 = 3_600_000_000;

/// Median, 99th percentile and largest of some times in microseconds, by nearest rank; zeros where there are none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Quantiles {
    /// How many.
    pub count: u64,
    /// Half are no longer.
    pub p50_us: u64,
    /// 99 in 100 are no longer.
    pub p99_us: u64,
    /// The longest.
    pub max_us: u64,
}

impl Quantiles {
    /// Of these times.
    pub fn of(mut times: Vec<u64>) -> Quantiles {
        times.sort_unstable();
        let rank = |percent: usize| {
            let rank = (times.len() * percent).div_ceil(100).max(1);
            times.get(rank - 1).copied().unwrap_or(0)
        };
        let max_us = times.last().copied().unwrap_or(0);
        Quantiles { count: times.len() as u64, p50_us: rank(50), p99_us: rank(99), max_us }
    }

    pub(crate) fn of_histogram(histogram: &Histogram<u64>) -> Quantiles {
        if histogram.is_empty() {
            return Quantiles::default();
        }
        let at = |quantile| histogram.value_at_quantile(quantile).min(histogram.max());
        let max_us = histogram.max();
        Quantiles { count: histogram.len(), p50_us: at(0.5), p99_us: at(0.99), max_us }
    }
}

/// A histogram of microseconds with that many significant digits: 2 take about 25 KiB, 3 about 200 KiB.
pub(crate) fn histogram(digits: u8) -> Histogram<u64> {
    Histogram::new_with_bounds(1, LARGEST, digits).expect("constant bounds are valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_those_of_real_measurements() {
        let quantiles = Quantiles::of((1..=200).rev().collect());
        assert_eq!(quantiles, Quantiles { count: 200, p50_us: 100, p99_us: 198, max_us: 200 });
        assert_eq!(Quantiles::of(vec![7]), Quantiles { count: 1, p50_us: 7, p99_us: 7, max_us: 7 });
        assert_eq!(Quantiles::of(Vec::new()), Quantiles::default());
    }
}
