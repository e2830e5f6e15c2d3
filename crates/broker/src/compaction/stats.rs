//! What compaction did, since the process started.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use holdfast_core::PartitionId;
use holdfast_log::{CompactionOutcome, PassEnd};

/// Counts, never reset. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct CompactionStats {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    passes: AtomicU64,
    removed_records: AtomicU64,
    freed_bytes: AtomicU64,
}

impl CompactionStats {
    /// Passes that went over a log.
    pub(crate) fn passes(&self) -> u64 {
        self.counts.passes.load(Ordering::Relaxed)
    }

    /// Records that were removed, tombstones included.
    pub(crate) fn removed_records(&self) -> u64 {
        self.counts.removed_records.load(Ordering::Relaxed)
    }

    /// Bytes by which logs became smaller.
    pub(crate) fn freed_bytes(&self) -> u64 {
        self.counts.freed_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn tell(&self, partition: PartitionId, outcome: &CompactionOutcome, took: Duration) {
        let add = |count: &AtomicU64, more: u64| count.fetch_add(more, Ordering::Relaxed);
        add(&self.counts.passes, 1);
        add(&self.counts.removed_records, outcome.removed_records);
        add(&self.counts.freed_bytes, outcome.bytes_before.saturating_sub(outcome.bytes_after));
        let CompactionOutcome { cleaned_end, bytes_before, bytes_after, .. } = *outcome;
        let CompactionOutcome { removed_records, replaced_segments, unreadable_batches, .. } = *outcome;
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            %partition, %cleaned_end, bytes_before, bytes_after, removed_records, replaced_segments, took_ms,
            ended = name(&outcome.ended), passes = self.passes(), all_freed = self.freed_bytes(),
            "compacted the log"
        );
        if unreadable_batches > 0 {
            tracing::warn!(
                %partition, unreadable_batches,
                "batches that cannot be decompressed stay in the log as they are, with whatever is older than their records"
            );
        }
    }
}

fn name(end: &PassEnd) -> &'static str {
    match end {
        PassEnd::Complete => "complete",
        PassEnd::MapFull => "more keys than fit compaction-map: the rest is for the next pass",
        PassEnd::Stopped => "stopped",
        PassEnd::Changed => "the log was changed meanwhile",
        PassEnd::Damaged(_) => "a damaged batch is in the way",
    }
}
