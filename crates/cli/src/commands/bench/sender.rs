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
use super::pace::Pace;

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
    /// Records have one of so many keys, those that have any.
    keys: Option<u64>,
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
        keys: Option<u64>,
        pace: Option<Pace>,
    ) -> Sender {
        Sender {
            producer,
            meter,
            values,
            record,
            keys,
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
        let record = Record::new(self.next_value());
        let record = match self.keys {
            Some(keys) => record.with_key(rand::random_range(0..keys.max(1)).to_be_bytes().to_vec()),
            None => record,
        };
        let record = match self.producer.try_send(record) {
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

    #[test]
    fn values_do_not_compress_and_suffice_for_two_records() {
        let pool = values(5 << 20);
        assert_eq!(pool.len(), 10 << 20);
        let mut counts = [0u32; 256];
        pool[..1 << 16].iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        assert!(counts.iter().all(|count| (128..=384).contains(count)), "every byte is about as frequent");
    }
}
