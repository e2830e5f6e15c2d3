//! The records on their way, each with the time that its latency counts from.
//!
//! Held in blocks of records sent one after the other, which mostly share a batch: a block whose first and last record
//! are on their way is passed over. So a look at all of them costs little, and may come with every batch acknowledged.
//! Bounded by the producer's buffer: a record leaves when its outcome is known.

use futures::FutureExt as _;
use holdfast_client::{Pending, SendError};
use tokio::time::Instant;

/// Records per block.
const BLOCK: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Flights {
    blocks: Vec<Vec<(Instant, Pending)>>,
}

impl Flights {
    /// Adds a record whose latency counts from `since`.
    pub(super) fn push(&mut self, since: Instant, pending: Pending) {
        match self.blocks.last_mut() {
            Some(block) if block.len() < BLOCK => block.push((since, pending)),
            _ => {
                let mut block = Vec::with_capacity(BLOCK);
                block.push((since, pending));
                self.blocks.push(block);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Takes out the records whose outcome is known.
    pub(super) fn land(&mut self, mut landed: impl FnMut(Instant, Result<(), SendError>)) {
        self.blocks.retain_mut(|block| {
            let done =
                |record: Option<&(Instant, Pending)>| record.is_some_and(|(_, pending)| pending.is_done());
            if done(block.first()) || done(block.last()) {
                for (since, pending) in block.extract_if(.., |(_, pending)| pending.is_done()) {
                    if let Some(outcome) = pending.now_or_never() {
                        landed(since, outcome.map(drop));
                    }
                }
            }
            !block.is_empty()
        });
    }
}
