//! One producer under load: a single task that sends, and looks at what has landed whenever a batch was acknowledged.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_client::{CloseReport, Outcome, Pending, Producer, Record, SendError, TrySendError};
use rand::rngs::SmallRng;
use rand::{RngCore as _, SeedableRng as _};
use tokio::time::{Instant, sleep_until};

use super::Stop;
use super::flights::Flights;
use super::measure::Meter;

/// Values are cut from so many pseudo-random bytes: far more than a codec looks back over.
const POOL: usize = 8 << 20;
/// The same bytes in every run.
const SEED: u64 = 42;
/// Records sent in a row before others on this thread have their turn.
const BURST: u32 = 64;
/// Records that are due and not sent: how long after the end of the run they are still tried.
const OVERTIME: Duration = Duration::from_secs(30);

/// Bytes that do not compress.
pub(super) fn values(record: usize) -> Bytes {
    let mut pool = vec![0; POOL.max(2 * record)];
    SmallRng::seed_from_u64(SEED).fill_bytes(&mut pool);
    pool.into()
}

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

    fn due(&self) -> Instant {
        let nanos = u128::from(self.next) * 1_000_000_000 / u128::from(self.rate.max(1));
        self.start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn advance(&mut self) {
        self.next = self.next.saturating_add(self.step);
    }

    /// How many are due before `end` and have not been sent.
    fn left(&self, end: Instant) -> u64 {
        let nanos = end.saturating_duration_since(self.start).as_nanos();
        // Number k is due before the end if k / rate is less than the time until then.
        let due = nanos.saturating_mul(u128::from(self.rate)).div_ceil(1_000_000_000);
        let left = due.saturating_sub(u128::from(self.next)).div_ceil(u128::from(self.step.max(1)));
        u64::try_from(left).unwrap_or(u64::MAX)
    }
}

/// What became of the records of one or more senders.
#[derive(Debug, Default)]
pub(super) struct Sent {
    pub(super) acked: u64,
    pub(super) failed: u64,
    pub(super) unknown: u64,
    /// Due, and never sent.
    pub(super) unsent: u64,
    pub(super) resends: u64,
    pub(super) duplicates: u64,
    pub(super) batches: u64,
    /// Bytes of batches as sent.
    pub(super) wire_bytes: u64,
    pub(super) first_error: Option<SendError>,
}

impl Sent {
    pub(super) fn add(&mut self, other: Sent) {
        self.acked += other.acked;
        self.failed += other.failed;
        self.unknown += other.unknown;
        self.unsent += other.unsent;
        self.resends += other.resends;
        self.duplicates += other.duplicates;
        self.batches += other.batches;
        self.wire_bytes += other.wire_bytes;
        self.first_error = self.first_error.take().or(other.first_error);
    }

    /// Whether every record was acknowledged.
    pub(super) fn is_clean(&self) -> bool {
        self.failed == 0 && self.unknown == 0 && self.unsent == 0
    }
}

pub(super) struct Sender {
    producer: Producer,
    meter: Arc<Meter>,
    values: Bytes,
    record: usize,
    /// Where the next value begins in `values`.
    position: usize,
    pace: Option<Pace>,
    flights: Flights,
    refused: u64,
    first_error: Option<SendError>,
}

impl Sender {
    pub(super) fn new(
        producer: Producer,
        meter: Arc<Meter>,
        values: Bytes,
        record: usize,
        pace: Option<Pace>,
    ) -> Sender {
        Sender {
            producer,
            meter,
            values,
            record,
            position: 0,
            pace,
            flights: Flights::default(),
            refused: 0,
            first_error: None,
        }
    }

    /// Sends until `end`, or until `stop`; then waits for all outcomes, unless `give_up`.
    pub(super) async fn run(mut self, end: Instant, stop: Stop, give_up: Stop) -> Sent {
        self.send_all(end, &stop).await;
        let unsent = self.pace.filter(|_| !stop.is_cancelled()).map_or(0, |pace| pace.left(end));
        let producer = self.producer.clone();
        let flush = producer.flush();
        tokio::pin!(flush);
        while !self.flights.is_empty() {
            tokio::select! {
                () = &mut flush => break,
                () = give_up.cancelled() => break,
                () = self.meter.batch_acked.notified() => self.land(),
            }
        }
        let limit = if give_up.is_cancelled() { Duration::ZERO } else { Duration::from_secs(1) };
        let CloseReport { acked, failed, unknown } = self.producer.close(limit).await;
        self.land();
        let stats = self.producer.stats();
        Sent {
            acked,
            failed: failed + self.refused,
            unknown,
            unsent,
            resends: stats.resends,
            duplicates: stats.duplicates,
            batches: stats.batches,
            wire_bytes: stats.bytes,
            first_error: self.first_error,
        }
    }

    async fn send_all(&mut self, end: Instant, stop: &Stop) {
        let mut burst = 0;
        while let Some(since) = self.next_turn(end, stop).await {
            match self.send(since, end, stop).await {
                Some(Ok(pending)) => self.flights.push(since, pending),
                Some(Err(error)) => {
                    // Where one record is refused, so are the next: the topic is gone, or the producer is.
                    self.refused += 1;
                    self.first_error.get_or_insert(error);
                    return;
                }
                None => return,
            }
            if let Some(pace) = &mut self.pace {
                pace.advance();
            }
            burst += 1;
            if burst % BURST == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Waits until the next record is due, and says when its latency begins; `None` at the end.
    async fn next_turn(&mut self, end: Instant, stop: &Stop) -> Option<Instant> {
        let due = self.pace.map_or_else(Instant::now, |pace| pace.due());
        if due >= end || stop.is_cancelled() || Instant::now() >= end + OVERTIME {
            return None;
        }
        while due > Instant::now() {
            tokio::select! {
                () = sleep_until(due) => {}
                () = self.meter.batch_acked.notified() => self.land(),
                () = stop.cancelled() => return None,
            }
        }
        Some(due)
    }

    /// `None` where no room came before the run was over.
    async fn send(
        &mut self,
        since: Instant,
        end: Instant,
        stop: &Stop,
    ) -> Option<Result<Pending, SendError>> {
        let value = self.next_value();
        let record = match self.producer.try_send(Record::new(value)) {
            Ok(pending) => return Some(Ok(pending)),
            Err(TrySendError::Refused(error)) => return Some(Err(error)),
            Err(TrySendError::Full(record)) => record,
        };
        // In an open loop a record that was due before the end is part of the run.
        let limit = if self.pace.is_some() { end + OVERTIME } else { end.max(since) };
        let producer = self.producer.clone();
        let sent = producer.send(record);
        tokio::pin!(sent);
        loop {
            tokio::select! {
                sent = &mut sent => return Some(sent),
                () = self.meter.batch_acked.notified() => self.land(),
                () = sleep_until(limit) => return None,
                () = stop.cancelled() => return None,
            }
        }
    }

    fn next_value(&mut self) -> Bytes {
        if self.position + self.record > self.values.len() {
            self.position = 0;
        }
        let value = self.values.slice(self.position..self.position + self.record);
        self.position += self.record;
        value
    }

    /// Measures what was acknowledged since the last look.
    fn land(&mut self) {
        let now = Instant::now();
        let mut interval = self.meter.interval();
        let first_error = &mut self.first_error;
        self.flights.land(|since, outcome| match outcome {
            Ok(()) => interval.acked(now.saturating_duration_since(since), now),
            Err(error) => {
                interval.errors += 1;
                let unknown = error.outcome == Outcome::Unknown;
                if first_error.as_ref().is_none_or(|known| unknown && known.outcome == Outcome::Failed) {
                    *first_error = Some(error);
                }
            }
        });
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

    #[test]
    fn values_do_not_compress_and_suffice_for_two_records() {
        let pool = values(5 << 20);
        assert_eq!(pool.len(), 10 << 20);
        let mut counts = [0u32; 256];
        pool[..1 << 16].iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        assert!(counts.iter().all(|count| (128..=384).contains(count)), "every byte is about as frequent");
    }
}
