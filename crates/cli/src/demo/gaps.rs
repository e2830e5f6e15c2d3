//! When each partition acknowledged: what a fault cost.
//!
//! The rule: a partition's recovery time is its longest gap between two acknowledgements that overlaps the fault, less
//! the gap that is exceeded once in a thousand without a fault.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Shorter gaps are counted but not kept.
const KEPT_FROM: Duration = Duration::from_millis(5);
/// Kept gaps of one partition; the oldest go first.
const KEPT: usize = 1 << 16;
/// Largest gap and latency that the histograms tell apart: ten minutes, in microseconds.
const LARGEST: u64 = 600_000_000;

/// A histogram of microseconds.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LARGEST, 3).expect("constant bounds are valid")
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).clamp(1, LARGEST)
}

/// A value of a histogram of microseconds, in milliseconds.
pub(crate) fn quantile_ms(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1000.0
}

/// Acknowledgements of all partitions.
#[derive(Debug)]
pub(crate) struct Gaps {
    partitions: Vec<Mutex<Partition>>,
    /// Gaps before the first fault, and latencies of the whole run.
    quiet: Mutex<Histogram<u64>>,
    latency: Mutex<Histogram<u64>>,
    fault_seen: std::sync::atomic::AtomicBool,
}

#[derive(Debug, Default)]
struct Partition {
    last: Option<Instant>,
    gaps: VecDeque<(Instant, Instant)>,
}

impl Gaps {
    pub(crate) fn new(partitions: u32) -> Gaps {
        Gaps {
            partitions: (0..partitions).map(|_| Mutex::default()).collect(),
            quiet: Mutex::new(histogram()),
            latency: Mutex::new(histogram()),
            fault_seen: false.into(),
        }
    }

    /// A batch of `records` was acknowledged just now.
    pub(crate) fn acknowledged(&self, partition: u32, records: u32, latency: Duration) {
        lock(&self.latency).saturating_record_n(micros(latency), u64::from(records));
        let Some(partition) = self.partitions.get(partition as usize) else { return };
        let now = Instant::now();
        let mut partition = lock(partition);
        let Some(last) = partition.last.replace(now) else { return };
        let gap = now - last;
        if !self.fault_seen.load(std::sync::atomic::Ordering::Relaxed) {
            lock(&self.quiet).saturating_record(micros(gap));
        }
        if gap >= KEPT_FROM {
            if partition.gaps.len() == KEPT {
                partition.gaps.pop_front();
            }
            partition.gaps.push_back((last, now));
        }
    }

    /// From now on gaps may have a cause.
    pub(crate) fn fault(&self) {
        self.fault_seen.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// The longest gap of a partition that overlaps the time from `from` to `to`; one that lasts still, too.
    pub(crate) fn longest(&self, partition: u32, from: Instant, to: Instant) -> Duration {
        let Some(partition) = self.partitions.get(partition as usize) else { return Duration::ZERO };
        let partition = lock(partition);
        let open = partition.last.map(|last| (last, Instant::now()));
        let overlapping = |&(begin, end): &(Instant, Instant)| begin < to && end > from;
        let gaps = partition.gaps.iter().copied().chain(open).filter(overlapping);
        gaps.map(|(begin, end)| end - begin).max().unwrap_or_default()
    }

    /// The gap that was exceeded once in a thousand before the first fault.
    pub(crate) fn quiet_p999(&self) -> Duration {
        let quiet = lock(&self.quiet);
        if quiet.is_empty() { Duration::ZERO } else { Duration::from_micros(quiet.value_at_quantile(0.999)) }
    }

    /// Acknowledgement latency per record so far, in milliseconds.
    pub(crate) fn latency_ms(&self, quantiles: [f64; 3]) -> [f64; 3] {
        let latency = lock(&self.latency);
        quantiles.map(|quantile| quantile_ms(&latency, quantile))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_counts_where_it_overlaps_the_fault() {
        let gaps = Gaps::new(1);
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut partition = lock(&gaps.partitions[0]);
        partition.gaps.extend([(at(0), at(100)), (at(200), at(1200)), (at(1300), at(1350))]);
        drop(partition);
        assert_eq!(gaps.longest(0, at(1000), at(1400)), Duration::from_millis(1000));
        assert_eq!(gaps.longest(0, at(1250), at(1400)), Duration::from_millis(50));
        assert_eq!(gaps.longest(0, at(110), at(190)), Duration::ZERO);
    }
}
