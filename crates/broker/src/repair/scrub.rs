//! Reading everything now and then, so that damage is found while others still have what is lost.

use std::time::Duration;

use holdfast_core::PartitionId;
use holdfast_log::LogError;
use tokio::time::{Instant, sleep_until};

use super::live::blocking;
use super::{Outcome, Repairs, lock};
use crate::fatal::Fatal;
use crate::pace::Pace;

/// Bytes verified at once.
const STEP: u64 = 1 << 20;
/// What a look at a log costs, however short it is.
const LEAST_COST: u64 = 16 << 10;
/// A round over little data takes so long all the same.
const LEAST_ROUND: Duration = Duration::from_secs(10);
/// A round that took so long is told of, also where nothing was found.
const LONG_ROUND: Duration = Duration::from_secs(60);
/// How long a repair is waited for before the rest is looked at.
const REPAIR_PATIENCE: Duration = Duration::from_secs(30);

/// Verifies every batch that is committed, log by log, `rate` bytes a second, round after round; ends with the runtime.
pub(crate) async fn scrub(repairs: Repairs, rate: u64, fatal: Fatal) {
    let _watched = fatal.watch_thread();
    let mut pace = Pace::new(rate);
    // Restarts must not leave the last logs unread for ever.
    let mut first = Some(rand::random::<u32>() as usize);
    loop {
        let began = Instant::now();
        let mut partitions = repairs.inner.partitions.ids();
        if let Some(first) = first.take().and_then(|random| random.checked_rem(partitions.len())) {
            partitions.rotate_left(first);
        }
        let mut round = Round::default();
        for &partition in &partitions {
            scrub_one(&repairs, partition, &mut pace, &mut round).await;
        }
        repairs.inner.stats.rounds.add(1);
        round.tell(&repairs, partitions.len(), began.elapsed());
        sleep_until(began + LEAST_ROUND).await;
    }
}

/// What a round met.
#[derive(Debug, Default)]
struct Round {
    bytes: u64,
    damaged: u64,
    left: u64,
}

impl Round {
    fn tell(&self, repairs: &Repairs, logs: usize, took: Duration) {
        let Round { bytes, damaged, left } = *self;
        let stats = &repairs.inner.stats;
        let (repaired, unrepaired) = (stats.repaired.get(), stats.unrepaired.get());
        let (repaired_bytes, given) = (stats.repaired_bytes.get(), stats.given_bytes.get());
        let (rounds, all) = (stats.rounds.get(), stats.scrubbed_bytes.get());
        let (long, took_ms) = (took >= LONG_ROUND, u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        if left > 0 {
            tracing::error!(
                logs,
                bytes,
                damaged,
                left,
                took_ms,
                repaired,
                unrepaired,
                repaired_bytes,
                given,
                rounds,
                all,
                "all logs were verified, and some are damaged still"
            );
        } else if damaged > 0 || long {
            tracing::info!(
                logs,
                bytes,
                damaged,
                took_ms,
                repaired,
                unrepaired,
                repaired_bytes,
                given,
                rounds,
                all,
                "all logs were verified"
            );
        }
    }
}

async fn scrub_one(repairs: &Repairs, partition: PartitionId, pace: &mut Pace, round: &mut Round) {
    let left = round.left;
    look_through(repairs, partition, pace, round).await;
    if round.left == left {
        lock(&repairs.inner.unrepaired).remove(&partition);
    }
}

async fn look_through(repairs: &Repairs, partition: PartitionId, pace: &mut Pace, round: &mut Round) {
    let Some(handle) = repairs.inner.partitions.get(partition) else { return };
    let mut at = handle.reader.log_start_offset();
    let mut repaired = None;
    loop {
        let below = handle.readable_end();
        if at >= below || handle.status.borrow().failed {
            return;
        }
        let reader = handle.reader.clone();
        let Some(verified) = blocking(move || reader.verify(at, below, STEP)).await else { return };
        let verified = match verified {
            Ok(verified) => verified,
            // It begins elsewhere by now, or it is cut: the next round finds it as it is.
            Err(LogError::OutOfRange { .. } | LogError::TruncatedWhileReading { .. }) => return,
            Err(_) if handle.status.has_changed().is_err() => return,
            Err(error) => {
                round.left += 1;
                let error = &error as &dyn std::error::Error;
                tracing::error!(%partition, %at, error, "the log cannot be verified");
                return;
            }
        };
        round.bytes += verified.bytes;
        repairs.inner.stats.scrubbed_bytes.add(verified.bytes);
        pace.spend(verified.bytes.max(LEAST_COST)).await;
        let Some(range) = verified.damage else {
            if verified.end <= at {
                return;
            }
            at = verified.end;
            continue;
        };
        // The same again after it was repaired: others have their turn.
        let again = repaired == Some(range.from);
        round.damaged += 1;
        let deadline = Instant::now() + REPAIR_PATIENCE;
        match repairs.repair(partition, range.from, deadline).await {
            Outcome::Whole if !again => {
                repaired = Some(range.from);
                at = range.from;
            }
            Outcome::Gone | Outcome::Failed => return,
            _ => {
                round.left += 1;
                at = range.to;
            }
        }
    }
}
