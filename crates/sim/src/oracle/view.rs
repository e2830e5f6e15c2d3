//! What the oracle knows of one replica: its log as a chain of digests, and what others may have seen of it.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};

use holdfast_core::record_batch::RecordBatch;
use holdfast_core::{LeaderEpoch, Offset};

use super::compaction::Origin;
use crate::digest::Digest;

/// A batch in a log. `chain` stands for it and all before it.
#[derive(Debug, Clone)]
pub(super) struct Written {
    pub(super) next: Offset,
    pub(super) chain: u64,
    pub(super) batch: RecordBatch,
}

/// What is known of one replica's disk and process.
#[derive(Debug, Clone, Default)]
pub(super) struct View {
    /// Every batch written, in order; those that were trimmed as well, and those in whose stead the log began anew behind
    /// them.
    pub(super) log: Vec<Written>,
    /// Offsets of records that compaction took from it.
    pub(super) missing: BTreeSet<Offset>,
    /// Log start offset, of this run of the process.
    pub(super) start: Offset,
    /// Of this run of the process.
    pub(super) watermark: Offset,
    pub(super) active: Option<LeaderEpoch>,
    /// The highest epoch that the replica ever spoke or wrote in.
    pub(super) obeyed: LeaderEpoch,
    /// Whether its watermark may stand for what an unclean recovery gave up (R37), of which it has not heard.
    pub(super) doubtful: bool,
    /// Whether it voted when it was last looked at.
    pub(super) voter: Option<bool>,
}

impl View {
    /// Takes in a batch at the end, and gives its chain.
    pub(super) fn extend(&mut self, batch: &RecordBatch) -> u64 {
        let mut digest = Digest::default();
        self.log.last().map_or(0, |last| last.chain).hash(&mut digest);
        digest.write(batch.bytes());
        let (next, chain) = (batch.header().next_offset(), digest.finish());
        self.log.push(Written { next, chain, batch: batch.clone() });
        chain
    }

    /// The log as read from the files of a process that starts, from `start` on. What was trimmed below is as it was.
    pub(super) fn reload(&mut self, start: Offset, origins: &[Origin]) {
        self.cut(start);
        self.start = start;
        for origin in origins {
            for batch in &origin.batches {
                self.extend(batch);
            }
            self.missing.extend(&origin.missing);
        }
    }

    /// Forgets what lies from `end` on.
    pub(super) fn cut(&mut self, end: Offset) {
        self.log.truncate(self.count(end));
        self.missing.split_off(&end);
    }

    /// Log end offset, exclusive.
    pub(super) fn end(&self) -> Offset {
        self.log.last().map_or(Offset::ZERO, |last| last.next)
    }

    /// Epoch of the last batch.
    pub(super) fn last_epoch(&self) -> LeaderEpoch {
        self.log.last().and_then(|last| last.batch.header().epoch).unwrap_or(LeaderEpoch::ZERO)
    }

    /// Number of batches below `offset`.
    pub(super) fn count(&self, offset: Offset) -> usize {
        self.log.partition_point(|written| written.next <= offset)
    }

    /// Whether the batch of that number, and all before it, are those that `chain` stands for.
    pub(super) fn holds(&self, index: usize, chain: u64) -> bool {
        self.log.get(index).is_some_and(|own| own.chain == chain)
    }

    /// The chain of all below `offset`, which is a batch boundary; `None` if the log does not reach that far.
    pub(super) fn chain_below(&self, offset: Offset) -> Option<u64> {
        match self.count(offset).checked_sub(1) {
            None => (offset == Offset::ZERO).then_some(0),
            Some(last) => (self.log[last].next == offset).then_some(self.log[last].chain),
        }
    }

    /// The process is over.
    pub(super) fn stop(&mut self) {
        self.watermark = Offset::ZERO;
        self.active = None;
    }
}
