//! How the senders of a batch's records learn its outcome: one cell per batch, shared by all of them.
//!
//! A record costs its sender one reference count and nothing else: no task, no channel, no allocation.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use holdfast_core::{LeaderEpoch, Offset};

use crate::error::SendError;
use crate::sync::lock;

/// A record is stored as durably as its topic asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ack {
    /// Its partition.
    pub partition: u32,
    /// Its offset.
    pub offset: Offset,
    /// Epoch of the leader that appended it.
    pub epoch: LeaderEpoch,
}

/// Outcome of a batch; the acknowledgement is that of its first record.
pub(super) type BatchOutcome = Result<Ack, SendError>;

/// The outcome of one batch, once there is one.
#[derive(Debug, Default)]
pub(super) struct Completion {
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// At most one waker per waiter of the batch.
    Open(Vec<Waker>),
    Done(BatchOutcome),
}

impl Default for State {
    fn default() -> Self {
        State::Open(Vec::new())
    }
}

impl Completion {
    /// Sets the outcome and wakes everybody. The first outcome stays; says whether it was this one.
    pub(super) fn complete(&self, outcome: BatchOutcome) -> bool {
        let mut state = lock(&self.state);
        if matches!(*state, State::Done(_)) {
            return false;
        }
        let previous = std::mem::replace(&mut *state, State::Done(outcome));
        drop(state);
        if let State::Open(wakers) = previous {
            wakers.into_iter().for_each(Waker::wake);
        }
        true
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(*lock(&self.state), State::Done(_))
    }

    /// The outcome, or a place among those to be woken. `slot` is where this waiter's waker is.
    fn poll(&self, context: &Context<'_>, slot: &mut Option<usize>) -> Poll<BatchOutcome> {
        match &mut *lock(&self.state) {
            State::Done(outcome) => Poll::Ready(outcome.clone()),
            State::Open(wakers) => {
                match slot.and_then(|slot| wakers.get_mut(slot)) {
                    Some(waker) => waker.clone_from(context.waker()),
                    None => {
                        *slot = Some(wakers.len());
                        wakers.push(context.waker().clone());
                    }
                }
                Poll::Pending
            }
        }
    }

    /// Waits for the outcome.
    pub(super) async fn wait(&self) -> BatchOutcome {
        let mut slot = None;
        std::future::poll_fn(|context| self.poll(context, &mut slot)).await
    }
}

/// A record in the producer's buffer or on its way. Awaiting it gives the outcome; dropping it changes nothing.
#[derive(Debug)]
#[must_use = "the outcome is lost unless it is awaited; flush() or close() tell only counts"]
pub struct Pending {
    batch: Arc<Completion>,
    /// Number of the record in its batch.
    index: u32,
    slot: Option<usize>,
}

impl Pending {
    pub(super) fn new(batch: Arc<Completion>, index: u32) -> Pending {
        Pending { batch, index, slot: None }
    }

    /// Whether the outcome is known.
    pub fn is_done(&self) -> bool {
        self.batch.is_done()
    }
}

impl Future for Pending {
    type Output = Result<Ack, SendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Pending { batch, index, slot } = &mut *self;
        batch.poll(context, slot).map_ok(|ack| Ack { offset: ack.offset + u64::from(*index), ..ack })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_pending_of_a_batch_gets_its_own_offset() {
        let batch = Arc::new(Completion::default());
        let waiting: Vec<_> = (0..3).map(|index| tokio::spawn(Pending::new(batch.clone(), index))).collect();
        tokio::task::yield_now().await;
        let ack = Ack { partition: 2, offset: Offset(40), epoch: LeaderEpoch::ZERO };
        assert!(batch.complete(Ok(ack)));
        assert!(!batch.complete(Err(SendError::closed())));
        for (index, pending) in waiting.into_iter().enumerate() {
            assert_eq!(pending.await.unwrap().unwrap().offset, Offset(40 + index as u64));
        }
        assert_eq!(Pending::new(batch, 9).await.unwrap().offset, Offset(49));
    }

    #[tokio::test]
    async fn polling_again_takes_no_more_room() {
        let batch = Arc::new(Completion::default());
        let mut pending = Pending::new(batch.clone(), 0);
        for _ in 0..10 {
            assert!(futures::poll!(&mut pending).is_pending());
        }
        let State::Open(wakers) = &*lock(&batch.state) else { panic!("done") };
        assert_eq!(wakers.len(), 1);
    }
}
