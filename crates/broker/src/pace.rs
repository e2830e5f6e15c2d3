//! So many bytes a second: what reads and writes for nobody in particular leaves the disk to the others.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Bytes in time.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    /// A second.
    rate: u64,
    /// When the next may be read.
    next: Instant,
}

impl Pace {
    pub(crate) fn new(rate: u64) -> Pace {
        Pace { rate, next: Instant::now() }
    }

    /// Waits until so many bytes have had their time. What was not used before is not made up for.
    pub(crate) async fn spend(&mut self, bytes: u64) {
        sleep_until(self.after(Instant::now(), bytes)).await;
    }

    /// When so many bytes, taken `now`, have had their time.
    pub(crate) fn after(&mut self, now: Instant, bytes: u64) -> Instant {
        let time = Duration::from_secs_f64(bytes as f64 / self.rate.max(1) as f64);
        self.next = self.next.max(now) + time;
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_their_time_and_a_pause_is_not_made_up_for() {
        let start = Instant::now();
        let mut pace = Pace { rate: 1 << 20, next: start };
        let seconds = Duration::from_secs;
        assert_eq!(pace.after(start, 1 << 20), start + seconds(1));
        assert_eq!(pace.after(start, 2 << 20), start + seconds(3), "asked for early");
        assert_eq!(pace.after(start + seconds(100), 1 << 20), start + seconds(101));
        assert_eq!(pace.after(start + seconds(100), 1 << 20), start + seconds(102));
    }
}
