//! The disk under one replica: a log and a small state, each with a part that only the operating system holds.
//!
//! A killed process loses nothing that was handed to the operating system; a power cut loses any suffix of what was
//! not flushed, and any state that was not yet on disk.

use std::collections::VecDeque;

use holdfast_core::Offset;
use holdfast_core::record_batch::RecordBatch;
use holdfast_core::replication::{DurableState, EpochIndex, ProducerTable};

use crate::random::Random;

/// A flush under way: it will prove what was written when it began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flush {
    /// Generation of the request it serves.
    pub(crate) generation: u64,
    /// End of the log when it began.
    pub(crate) end: Offset,
    /// Whether the log was cut meanwhile: then it proves nothing.
    stale: bool,
}

/// The disk of one replica.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    batches: Vec<RecordBatch>,
    flushed: Offset,
    flushing: Option<Flush>,
    /// A flush that was asked for while another was under way.
    queued: Option<u64>,
    state: Option<DurableState>,
    writing: VecDeque<(u64, DurableState)>,
    /// A lower bound of the high watermark, written now and then.
    watermark: Offset,
    /// Whether unflushed data may be gone since the last start (R34).
    tail_lost: bool,
    /// Whether the log failed since the last start.
    failed: bool,
    /// The next write will fail.
    fails_next: bool,
}

impl Disk {
    /// All batches.
    pub(crate) fn batches(&self) -> &[RecordBatch] {
        &self.batches
    }

    /// End of the log, exclusive.
    pub(crate) fn end(&self) -> Offset {
        self.batches.last().map_or(Offset::ZERO, |batch| batch.header().next_offset())
    }

    /// End of what a power cut cannot take.
    pub(crate) fn flushed(&self) -> Offset {
        self.flushed
    }

    /// What a restart would find besides the log.
    pub(crate) fn state(&self) -> Option<&DurableState> {
        self.state.as_ref()
    }

    /// The stored lower bound of the high watermark.
    pub(crate) fn watermark(&self) -> Offset {
        self.watermark
    }

    /// Stores a lower bound of the high watermark; never above what is flushed, or a power cut would look like damage.
    pub(crate) fn store_watermark(&mut self, watermark: Offset) {
        self.watermark = watermark.min(self.flushed);
    }

    /// Whether unflushed data may be gone since the last start.
    pub(crate) fn tail_lost(&self) -> bool {
        self.tail_lost
    }

    /// Whether the log failed since the last start, or will with its next write.
    pub(crate) fn is_failing(&self) -> bool {
        self.failed || self.fails_next
    }

    /// Whether the log failed since the last start.
    pub(crate) fn failed(&self) -> bool {
        self.failed
    }

    /// Writes at the end; in the operating system's memory at once.
    pub(crate) fn append(&mut self, batches: Vec<RecordBatch>) {
        self.batches.extend(batches);
    }

    /// Whether this write fails.
    pub(crate) fn takes_failure(&mut self) -> bool {
        std::mem::take(&mut self.fails_next)
    }

    /// The next write will fail.
    pub(crate) fn fail_next_write(&mut self) {
        self.fails_next = true;
    }

    /// Cuts the log, durably.
    pub(crate) fn truncate(&mut self, end: Offset) {
        self.batches.retain(|batch| batch.header().base_offset < end);
        self.flushed = self.flushed.min(end);
        if let Some(flush) = &mut self.flushing {
            flush.stale = true;
        }
    }

    /// The batches from `from` on, up to the one that reaches `max_bytes`.
    pub(crate) fn read(&self, from: Offset, max_bytes: usize) -> Vec<RecordBatch> {
        let first = self.batches.partition_point(|batch| batch.header().base_offset < from);
        let mut bytes = 0;
        let wanted = self.batches[first..].iter().take_while(|batch| {
            let wanted = bytes < max_bytes;
            bytes += batch.bytes().len();
            wanted
        });
        wanted.cloned().collect()
    }

    /// Asks for a flush. True if one begins now; otherwise it begins when the current one has ended.
    pub(crate) fn begin_flush(&mut self, generation: u64) -> bool {
        if self.flushing.is_some() {
            self.queued = Some(generation);
            return false;
        }
        self.flushing = Some(Flush { generation, end: self.end(), stale: false });
        true
    }

    /// The flush under way has ended. Gives it, and whether another began.
    pub(crate) fn end_flush(&mut self) -> Option<(Flush, bool)> {
        let flush = self.flushing.take()?;
        if !flush.stale {
            self.flushed = self.flushed.max(flush.end.min(self.end()));
        }
        let another = self.queued.take().is_some_and(|generation| self.begin_flush(generation));
        Some((flush, another))
    }

    /// Hands over a state to be made durable.
    pub(crate) fn begin_persist(&mut self, number: u64, state: DurableState) {
        self.writing.push_back((number, state));
    }

    /// All states up to `number` are on disk.
    pub(crate) fn end_persist(&mut self, number: u64) {
        while self.writing.front().is_some_and(|&(queued, _)| queued <= number) {
            self.state = self.writing.pop_front().map(|(_, state)| state);
        }
        // The new boot is noted only once the flag is durable: a crash in between must find the loss again (R35).
        self.tail_lost &= !self.state.as_ref().is_some_and(|state| state.nonvoter);
    }

    /// The log failed. What it holds at the next start is anybody's guess.
    pub(crate) fn fail(&mut self) {
        self.failed = true;
    }

    /// The process dies. A state on its way to the disk may or may not have arrived.
    pub(crate) fn crash(&mut self, random: &mut Random) {
        for _ in 0..random.below(self.writing.len() + 1) {
            self.state = self.writing.pop_front().map(|(_, state)| state);
        }
        self.writing.clear();
        self.flushing = None;
        self.queued = None;
        self.fails_next = false;
        // Only the flag makes a damaged log harmless (R35): where the process died before it, the damage is not yet.
        if std::mem::take(&mut self.failed) && self.state.as_ref().is_some_and(|state| state.nonvoter) {
            self.lose_suffix(Offset::ZERO, random);
        }
    }

    /// The machine loses power: any suffix of the unflushed log may be gone too.
    pub(crate) fn cut_power(&mut self, random: &mut Random) {
        self.crash(random);
        self.lose_suffix(self.flushed, random);
        self.tail_lost = true;
    }

    /// The machine loses power, and everything that was not flushed is gone.
    #[cfg(test)]
    pub(crate) fn cut_power_fully(&mut self) {
        self.flushing = None;
        self.queued = None;
        self.writing.clear();
        let kept = self.flushed;
        self.batches.retain(|batch| batch.header().next_offset() <= kept);
        self.watermark = self.watermark.min(self.end());
        self.tail_lost = true;
    }

    /// The process dies after its log failed, and all of the log is gone.
    #[cfg(test)]
    pub(crate) fn crash_and_lose_all(&mut self) {
        self.writing.clear();
        self.flushing = None;
        self.queued = None;
        self.failed = false;
        self.batches.clear();
        self.flushed = Offset::ZERO;
        self.watermark = Offset::ZERO;
    }

    fn lose_suffix(&mut self, kept: Offset, random: &mut Random) {
        let first = self.batches.partition_point(|batch| batch.header().next_offset() <= kept);
        let keep = first + random.below(self.batches.len() - first + 1);
        self.batches.truncate(keep);
        self.flushed = self.flushed.min(self.end());
        self.watermark = self.watermark.min(self.end());
    }

    /// What a starting process finds: `None` if there never was a replica here. A log without a state was never
    /// answered for.
    pub(crate) fn load(&mut self) -> Option<(DurableState, EpochIndex, ProducerTable)> {
        let Some(state) = self.state.clone() else {
            *self = Disk::default();
            return None;
        };
        let (mut epochs, mut producers) = (EpochIndex::default(), ProducerTable::default());
        for batch in &self.batches {
            epochs.append(batch.header().epoch.unwrap_or_default(), batch.header().next_offset());
            producers.append(batch.header());
        }
        Some((state, epochs, producers))
    }
}
