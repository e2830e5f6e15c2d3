//! What senders measure, and how it is put together.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Latencies above are counted as this: ten minutes, in microseconds.
const HIGHEST: u64 = 600_000_000;
/// Significant digits kept.
const DIGITS: u8 = 3;

/// Latencies in microseconds.
pub(super) type Latencies = Histogram<u64>;

fn empty() -> Latencies {
    Histogram::new_with_bounds(1, HIGHEST, DIGITS)
        .expect("the bounds are constants that the histogram allows")
}

/// Where one sender puts its measurements.
#[derive(Debug)]
pub(super) struct Meter {
    /// Told of every batch acknowledged.
    pub(super) batch_acked: Notify,
    interval: Mutex<Interval>,
}

impl Default for Meter {
    fn default() -> Self {
        Meter { batch_acked: Notify::new(), interval: Mutex::new(Interval::new()) }
    }
}

impl Meter {
    /// For a few records: the lock is held no longer than it takes to count them.
    pub(super) fn interval(&self) -> MutexGuard<'_, Interval> {
        // Counters are whole after every line, so a panic elsewhere spoils nothing.
        self.interval.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Measurements since they were last taken.
#[derive(Debug)]
pub(super) struct Interval {
    pub(super) latencies: Latencies,
    /// Records that failed or whose outcome is unknown.
    pub(super) errors: u64,
    /// When the last record was acknowledged.
    pub(super) last_ack: Option<Instant>,
    /// From start to when this was taken.
    pub(super) since_start: Duration,
    /// How long this is about.
    pub(super) length: Duration,
}

impl Interval {
    fn new() -> Interval {
        Interval {
            latencies: empty(),
            errors: 0,
            last_ack: None,
            since_start: Duration::ZERO,
            length: Duration::ZERO,
        }
    }

    /// An acknowledgement `latency` after what it counts from.
    pub(super) fn acked(&mut self, latency: Duration, now: Instant) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(HIGHEST);
        self.latencies.saturating_record(micros.max(1));
        self.last_ack = Some(now);
    }

    fn add(&mut self, other: &Interval) {
        self.latencies.add(&other.latencies).expect("both have the same bounds");
        self.errors += other.errors;
        self.last_ack = self.last_ack.max(other.last_ack);
    }

    fn clear(&mut self) {
        self.latencies.reset();
        (self.errors, self.last_ack) = (0, None);
    }
}

/// The sum of all senders' measurements.
#[derive(Debug)]
pub(super) struct Totals {
    start: Instant,
    taken_at: Instant,
    sum: Interval,
}

impl Totals {
    pub(super) fn new(start: Instant) -> Totals {
        Totals { start, taken_at: start, sum: Interval::new() }
    }

    /// What was measured since the last call.
    pub(super) fn take_interval(&mut self, meters: &[Arc<Meter>], now: Instant) -> Interval {
        let mut taken = Interval::new();
        for meter in meters {
            let mut interval = meter.interval();
            taken.add(&interval);
            interval.clear();
        }
        self.sum.add(&taken);
        taken.since_start = now - self.start;
        taken.length = now - self.taken_at;
        self.taken_at = now;
        taken
    }

    pub(super) fn latencies(&self) -> &Latencies {
        &self.sum.latencies
    }

    /// From the start to the last acknowledgement.
    pub(super) fn time(&self) -> Duration {
        self.sum.last_ack.map_or(Duration::ZERO, |last| last - self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn intervals_add_up_and_begin_anew() {
        let start = Instant::now();
        let meters = [Arc::new(Meter::default()), Arc::new(Meter::default())];
        let mut totals = Totals::new(start);
        meters[0].interval().acked(Duration::from_millis(5), start + Duration::from_millis(900));
        meters[1].interval().acked(Duration::from_secs(3600), start + Duration::from_millis(800));
        meters[1].interval().errors += 2;
        let first = totals.take_interval(&meters, start + Duration::from_secs(1));
        assert_eq!((first.latencies.len(), first.errors, first.length), (2, 2, Duration::from_secs(1)));
        let second = totals.take_interval(&meters, start + Duration::from_secs(2));
        assert_eq!((second.latencies.len(), second.errors, second.length), (0, 0, Duration::from_secs(1)));
        assert_eq!(totals.time(), Duration::from_millis(900));
        let total = totals.latencies();
        assert!((4_995..=5_005).contains(&total.value_at_quantile(0.5)));
        assert!(total.max() >= HIGHEST, "what is slower than the scale counts as its end");
    }
}
