//! A replica's part in compaction (R45): how far a pass may go, which tombstones are gone, and how far the log was cleaned.

use holdfast_core::Offset;
use holdfast_core::compaction::Compaction;
use holdfast_core::replication::Event;
use holdfast_log::LogReader;

use super::driver::Driver;
use super::shard::ShardContext;

/// What a pass over a log may do.
#[derive(Debug)]
pub(crate) struct PassBounds {
    pub(crate) reader: LogReader,
    /// Nothing at or above counts (exclusive).
    pub(crate) below: Offset,
    /// Offset below which the log was cleaned before (exclusive).
    pub(crate) cleaned_end: Offset,
    /// Milliseconds since 1970, by a clock that is not ahead.
    pub(crate) now_ms: i64,
}

impl Driver {
    /// The bounds of a pass that begins now. Which tombstones it may drop is noted before, as far as the rules allow. `None`
    /// where there is to be none.
    pub(super) fn begin_pass(
        &mut self,
        context: &ShardContext,
        compaction: Compaction,
        now_ms: i64,
    ) -> Option<PassBounds> {
        if !self.may_be_compacted() {
            return None;
        }
        self.tell_cleaned(context);
        let below = self.log.reader().old_tombstones(compaction.tombstone_delay_ms, now_ms);
        self.handle(context.clock.now(), Event::DropTombstones { below });
        self.perform(context);
        let status = self.replica.status();
        let committed = status.high_watermark.min(status.durable_high_watermark);
        let below = committed.min(self.replica.durable_end()).min(self.log.log_end_offset());
        let cleaned_end = self.log.compacted().cleaned_end;
        self.may_be_compacted().then(|| PassBounds { reader: self.log.reader(), below, cleaned_end, now_ms })
    }

    /// A pass has ended. What it removed is not served from memory any more either.
    pub(super) fn end_pass(&mut self, context: &ShardContext) {
        context.newest.forget_below(self.partition, self.log.compacted().cleaned_end);
        self.tell_cleaned(context);
    }

    fn may_be_compacted(&self) -> bool {
        self.paused.is_none() && !self.log.is_poisoned() && !self.replica.status().failed
    }

    /// Tells the rules how far the log is cleaned, where they do not know: a pass has ended, or a repair put something back.
    /// Whether there was something to tell.
    pub(super) fn tell_cleaned(&mut self, context: &ShardContext) -> bool {
        // Not of a log that is to begin anew, or to be cut, and has not yet.
        if !self.may_be_compacted() || self.replica.epochs().end() != self.log.log_end_offset() {
            return false;
        }
        let cleaned_end = self.log.compacted().cleaned_end;
        let news = self.told_cleaned != cleaned_end;
        if news {
            self.told_cleaned = cleaned_end;
            self.handle(context.clock.now(), Event::Cleaned { cleaned_end });
        }
        news
    }
}
