//! When records are due in an open loop.

use std::time::Duration;

use tokio::time::Instant;

/// When records are due.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    start: Instant,
    rate: u64,
    /// The next one of this sender, counted over all senders.
    next: u64,
    step: u64,
}

impl Pace {
    /// The share of sender `number` out of `senders` in `rate` records a second, evenly spread.
    pub(super) fn new(start: Instant, rate: u64, number: usize, senders: usize) -> Pace {
        Pace { start, rate, next: number as u64, step: senders as u64 }
    }

    pub(super) fn due(&self) -> Instant {
        let nanos = u128::from(self.next) * 1_000_000_000 / u128::from(self.rate.max(1));
        self.start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    pub(super) fn advance(&mut self) {
        self.next = self.next.saturating_add(self.step);
    }

    /// How many are due before `end` and have not been sent.
    pub(super) fn left(&self, end: Instant) -> u64 {
        let nanos = end.saturating_duration_since(self.start).as_nanos();
        // Number k is due before the end if k / rate is less than the time until then.
        let due = nanos.saturating_mul(u128::from(self.rate)).div_ceil(1_000_000_000);
        let left = due.saturating_sub(u128::from(self.next)).div_ceil(u128::from(self.step.max(1)));
        u64::try_from(left).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn senders_share_the_rate_evenly() {
        let start = Instant::now();
        let end = start + Duration::from_secs(1);
        let mut due: Vec<Instant> = Vec::new();
        for number in 0..3 {
            let mut pace = Pace::new(start, 100, number, 3);
            while pace.due() < end {
                due.push(pace.due());
                pace.advance();
            }
            assert_eq!(pace.left(end), 0);
        }
        due.sort();
        assert_eq!(due.len(), 100);
        assert!(due.windows(2).all(|pair| pair[1] - pair[0] == Duration::from_millis(10)));
        assert_eq!(Pace::new(start, 100, 0, 3).left(end), 34);
    }
}
