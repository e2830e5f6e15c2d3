//! Retention: now and then the leaders among a shard's replicas are told what of their logs is kept no longer (R44).
//!
//! What is decided here is by what the log knows in memory. Files are removed on other threads, a few at a time.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::{Duration, SystemTime};

use holdfast_core::retention::{Retainer, Retention};
use holdfast_core::{PartitionId, TopicId};
use tokio::time::Instant;

use super::Shard;

const INTERVAL: Duration = Duration::from_secs(5);
/// Partitions sealed and trimmed at a time: where much expires at once, it goes little by little.
const ROUND: usize = 16;

/// What a shard keeps of its partitions.
pub(super) struct Retained {
    /// Of topics of which not everything is kept.
    of: BTreeMap<TopicId, Retention>,
    retainers: BTreeMap<PartitionId, Retainer>,
    /// The partition that was looked at last.
    last: Option<PartitionId>,
    due: Instant,
    clock: WallClock,
}

impl Retained {
    pub(super) fn new() -> Retained {
        let (of, retainers) = (BTreeMap::new(), BTreeMap::new());
        Retained { of, retainers, last: None, due: Instant::now() + INTERVAL, clock: WallClock::new() }
    }

    /// The time of day by which things are old.
    pub(super) fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    pub(super) fn set(&mut self, topic: TopicId, retention: Retention) {
        if retention.is_unlimited() {
            self.of.remove(&topic);
        } else {
            self.of.insert(topic, retention);
        }
    }

    pub(super) fn forget(&mut self, partition: PartitionId) {
        self.retainers.remove(&partition);
    }
}

impl Shard {
    pub(super) fn retain_if_due(&mut self) {
        if Instant::now() < self.retained.due {
            return;
        }
        self.retained.due = Instant::now() + INTERVAL;
        if self.retained.of.is_empty() {
            return;
        }
        let now_ms = self.retained.now_ms();
        let mut changed = 0;
        for partition in self.next_to_look_at() {
            let Some(&retention) = self.retained.of.get(&partition.topic) else { continue };
            let Some(driver) = self.drivers.get_mut(&partition) else { continue };
            let retainer = self.retained.retainers.entry(partition).or_default();
            self.retained.last = Some(partition);
            let sealed = driver.seal_in_time(&self.context, retention, now_ms);
            let expired = driver.expired(retainer, retention, now_ms);
            if let Some(to) = expired {
                driver.offer_trim(&self.context, to);
            }
            if sealed || expired.is_some() {
                self.perform(partition);
                changed += 1;
            }
            if changed == ROUND {
                return;
            }
        }
    }

    /// The partitions, those behind the one that was looked at last first.
    fn next_to_look_at(&self) -> Vec<PartitionId> {
        let Some(last) = self.retained.last else { return self.drivers.keys().copied().collect() };
        let behind = self.drivers.range((Bound::Excluded(last), Bound::Unbounded));
        behind.chain(self.drivers.range(..=last)).map(|(&partition, _)| partition).collect()
    }
}

/// The time of day, of which the earlier of two is believed: what the system says, and what it said at first with what has
/// gone by since. So a clock that is set forward while the process runs lets nothing go early.
#[derive(Debug, Clone, Copy)]
struct WallClock {
    begun: Instant,
    begun_ms: i64,
}

impl WallClock {
    fn new() -> WallClock {
        WallClock { begun: Instant::now(), begun_ms: system_ms() }
    }

    fn now_ms(self) -> i64 {
        self.earlier(self.begun.elapsed(), system_ms())
    }

    fn earlier(self, elapsed: Duration, system_ms: i64) -> i64 {
        let elapsed = i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX);
        self.begun_ms.saturating_add(elapsed).min(system_ms)
    }
}

fn system_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_jumps_lets_nothing_go_early() {
        let clock = WallClock { begun: Instant::now(), begun_ms: 1_000_000 };
        let (elapsed, hour) = (Duration::from_secs(10), 3_600_000);
        assert_eq!(clock.earlier(elapsed, 1_010_000), 1_010_000);
        assert_eq!(clock.earlier(elapsed, 1_010_000 + hour), 1_010_000, "set forward");
        assert_eq!(clock.earlier(elapsed, 1_010_000 - 500_000), 510_000, "set back");
    }
}
