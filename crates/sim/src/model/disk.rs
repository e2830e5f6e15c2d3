//! The disk under one replica of the model: small, and equal where its contents are.

use holdfast_core::Offset;
use holdfast_core::record_batch::RecordBatch;
use holdfast_core::replication::{DurableState, EpochIndex, Event, ProducerTable};

/// A flush under way: it will prove what was written when it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Flush {
    generation: u64,
    end: Offset,
    /// Whether the log was cut meanwhile: then it proves nothing.
    stale: bool,
}

/// A log of which the operating system may hold the end, and a state that is durable once written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Disk {
    batches: Vec<RecordBatch>,
    flushed: Offset,
    flushing: Option<Flush>,
    /// A flush that was asked for while another was under way.
    queued: Option<u64>,
    state: Option<DurableState>,
    /// Whether a power cut may have taken what was written, and no state says so yet (R34, R35).
    pub(super) tail_lost: bool,
}

impl Disk {
    pub(super) fn batches(&self) -> &[RecordBatch] {
        &self.batches
    }

    pub(super) fn state(&self) -> Option<&DurableState> {
        self.state.as_ref()
    }

    /// End of the log, exclusive.
    pub(super) fn end(&self) -> Offset {
        self.batches.last().map_or(Offset::ZERO, |batch| batch.header().next_offset())
    }

    /// End of what a power cut cannot take.
    pub(super) fn flushed(&self) -> Offset {
        self.flushed
    }

    /// Number of batches that a power cut cannot take.
    pub(super) fn flushed_batches(&self) -> usize {
        self.batches.partition_point(|batch| batch.header().next_offset() <= self.flushed)
    }

    pub(super) fn is_flushing(&self) -> bool {
        self.flushing.is_some()
    }

    pub(super) fn persist(&mut self, state: DurableState) {
        self.tail_lost &= !state.nonvoter;
        self.state = Some(state);
    }

    pub(super) fn append(&mut self, batches: Vec<RecordBatch>) {
        self.batches.extend(batches);
    }

    /// Cuts the log, durably.
    pub(super) fn truncate(&mut self, end: Offset) {
        self.batches.retain(|batch| batch.header().base_offset < end);
        self.flushed = self.flushed.min(end);
        if let Some(flush) = &mut self.flushing {
            flush.stale = true;
        }
    }

    pub(super) fn read(&self, from: Offset) -> Vec<RecordBatch> {
        let first = self.batches.partition_point(|batch| batch.header().base_offset < from);
        self.batches[first..].to_vec()
    }

    /// Asks for a flush, which takes its time. Gives what ended at once, as a flush of nothing does.
    pub(super) fn flush_later(&mut self, generation: u64) -> Option<Event> {
        if self.flushing.is_some() {
            self.queued = Some(generation);
            return None;
        }
        if self.flushed == self.end() {
            return Some(Event::Flushed { generation, end: self.flushed });
        }
        self.flushing = Some(Flush { generation, end: self.end(), stale: false });
        None
    }

    /// A flush that ends at once.
    pub(super) fn flush_now(&mut self, generation: u64) -> Event {
        self.flushed = self.end();
        Event::Flushed { generation, end: self.flushed }
    }

    /// The flush under way has ended. Gives what ended: the one that was queued may have nothing left to do.
    pub(super) fn end_flush(&mut self) -> Vec<Event> {
        let Some(Flush { generation, end, stale }) = self.flushing.take() else { return Vec::new() };
        if !stale {
            self.flushed = self.flushed.max(end.min(self.end()));
        }
        let queued = self.queued.take().and_then(|generation| self.flush_later(generation));
        [Some(Event::Flushed { generation, end }), queued].into_iter().flatten().collect()
    }

    /// The process dies: what it wrote stays.
    pub(super) fn lose_process(&mut self) {
        self.flushing = None;
        self.queued = None;
    }

    /// The machine loses power: of what was not flushed, only the first `kept` batches of the log are left.
    pub(super) fn lose_power(&mut self, kept: usize) {
        self.lose_process();
        self.batches.truncate(kept.max(self.flushed_batches()));
    }

    /// What a starting process finds in the log.
    pub(super) fn load(&self) -> (EpochIndex, ProducerTable) {
        let (mut epochs, mut producers) = (EpochIndex::default(), ProducerTable::default());
        for batch in &self.batches {
            epochs.append(batch.header().epoch.unwrap_or_default(), batch.header().next_offset());
            producers.append(batch.header());
        }
        (epochs, producers)
    }
}
