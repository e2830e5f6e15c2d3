//! The front of a log: trimmed, and what was trimmed removed on another thread (R44).

use std::sync::Arc;
use std::time::Duration;

use holdfast_core::Offset;
use holdfast_core::replication::{Event, Position, ProducerTable};
use holdfast_core::retention::{Retainer, Retention};
use holdfast_log::{LogError, TrimTicket, reset_replica, trim_replica};

use super::driver::{Driver, unless_full};
use super::shard::ShardContext;

/// Partitions of which files are removed at the same time.
pub(crate) const REMOVALS: usize = 1;

impl Driver {
    /// What of the log lies beyond what is kept of it, if this replica leads: the others go by its log.
    pub(super) fn expired(
        &self,
        retainer: &mut Retainer,
        retention: Retention,
        now_ms: i64,
    ) -> Option<Offset> {
        let leads = self.replica.status().active && self.paused.is_none() && !self.log.is_poisoned();
        let sealed = if leads { self.log.sealed_segments() } else { Vec::new() };
        retainer.expired(retention, &sealed, self.log.size_bytes(), now_ms)
    }

    /// A segment keeps what is in it as long as it is appended to. Where that is seldom, it is sealed when its first record may
    /// be as old as records are kept.
    pub(super) fn seal_in_time(&mut self, context: &ShardContext, retention: Retention, now_ms: i64) -> bool {
        let Some(kept) = retention.time_ms.map(Duration::from_millis) else { return false };
        self.seal(context, now_ms, kept)
    }

    /// Seals the segment that is appended to, if it is that old, and there is room for another. Whether that was so.
    pub(super) fn seal(&mut self, context: &ShardContext, now_ms: i64, age: Duration) -> bool {
        if self.paused.is_some() || self.log.is_poisoned() {
            return false;
        }
        let sealed = self.log.roll_if_older(now_ms, age);
        let full = |error| unless_full(error).map(|()| false);
        sealed.or_else(full).unwrap_or_else(|error| {
            self.fail(context.clock.now(), "sealing a segment", &error);
            true
        })
    }

    /// That is kept no longer, as far as the rules allow.
    pub(super) fn offer_trim(&mut self, context: &ShardContext, to: Offset) {
        self.handle(context.clock.now(), Event::Trim { to });
        self.perform(context);
    }

    pub(super) fn trim(&mut self, context: &ShardContext, start: Position, producers: &ProducerTable) {
        let before = self.log.log_start_offset();
        match trim_replica(&mut self.log, start, producers) {
            Ok(Some(ticket)) => {
                tracing::info!(partition = %self.partition, from = %before, to = %start.end, "trimming the log");
                self.remove_later(context, ticket);
            }
            Ok(None) => {}
            Err(error) => self.fail(context.clock.now(), "trimming the log", &error),
        }
    }

    /// What was appended to when the log was trimmed beyond it goes once it is sealed: here where a log is trimmed to its end,
    /// because its leader had sealed what it holds.
    pub(super) fn remove_sealed(&mut self, context: &ShardContext) {
        if let Some(ticket) = self.log.trim_sealed() {
            self.remove_later(context, ticket);
        }
    }

    /// Waits for the disk, as a truncation does.
    pub(super) fn reset(&mut self, start: Position, producers: &ProducerTable) -> Result<(), LogError> {
        tracing::info!(
            partition = %self.partition, end = %self.log.log_end_offset(), start = %start.end,
            "the log lacks what its leader has trimmed, or parts from it below: beginning anew where that one starts"
        );
        reset_replica(&mut self.log, start, producers)
    }

    /// Files may take long to go. One partition after the other, so that whatever else the disk has to do gets its turn.
    fn remove_later(&self, context: &ShardContext, ticket: TrimTicket) {
        let (partition, turns) = (self.partition, Arc::clone(&context.removals));
        context.blocking.spawn(async move {
            // An error would say that it was closed, which nobody does.
            let Ok(turn) = turns.acquire_owned().await else { return };
            let remove = move || {
                let _turn = turn;
                if let Err(error) = ticket.run() {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(%partition, error, "what was trimmed is not removed yet: it is tried again with the next trim");
                }
            };
            // Nobody waits for its end.
            drop(tokio::task::spawn_blocking(remove));
        });
    }
}
