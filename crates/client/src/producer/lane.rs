//! The records of one partition that are not on their way yet: one open batch, and closed ones behind which it waits.
//!
//! Records are encoded straight into the open batch. Bounded by the producer's buffer: whoever appends has taken room
//! for the record before.

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdfast_core::ErrorCode;
use holdfast_core::record_batch::{HEADER_LEN, RecordBatchBuilder, record_size_bound};
use holdfast_proto::ApiError;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::completion::{Completion, Pending};
use super::record::Record;
use super::stats::{Ledger, Ticket};
use crate::error::SendError;
use crate::sync::lock;

/// What a batch is before it has a sequence number.
#[derive(Debug)]
pub(super) struct OpenBatch {
    pub(super) builder: RecordBatchBuilder,
    pub(super) ticket: Ticket,
    /// Sent from then on, full or not.
    due: Instant,
}

#[cfg(test)]
impl OpenBatch {
    pub(super) fn new(builder: RecordBatchBuilder, ticket: Ticket) -> OpenBatch {
        let due = ticket.opened;
        OpenBatch { builder, ticket, due }
    }
}

/// When batches are closed, sent and given up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) batch_size: usize,
    pub(super) linger: Duration,
    pub(super) delivery_timeout: Duration,
}

/// One partition's waiting records.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) partition: u32,
    /// Told of new batches and of flushes; the partition's sender listens.
    pub(super) wake: Notify,
    /// Whether the sender has no leader that takes batches: records without a key go elsewhere.
    pub(super) stalled: AtomicBool,
    pace: Pace,
    ledger: Arc<Ledger>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: Option<OpenBatch>,
    /// Full or due, oldest first.
    closed: VecDeque<OpenBatch>,
    /// Batches without an outcome as far as known, oldest first: what a flush waits for.
    unfinished: VecDeque<Arc<Completion>>,
    /// Why nothing is taken any more.
    ended: Option<SendError>,
    /// Whether a sender runs.
    started: bool,
    /// Bytes of the batch closed last: the next one will hardly be smaller.
    last_size: usize,
}

/// What became of a record.
pub(super) enum Appended {
    /// It is in a batch; `start` asks for a sender, as there is none yet.
    In { pending: Pending, start: bool },
    /// The open batch has no room for it, and another was not wanted.
    NoRoom,
}

impl Lane {
    pub(super) fn new(partition: u32, pace: Pace, ledger: Arc<Ledger>) -> Lane {
        Lane {
            partition,
            wake: Notify::new(),
            stalled: AtomicBool::new(false),
            pace,
            ledger,
            state: Mutex::default(),
        }
    }

    /// Encodes a record, for which `charge` bytes of room were taken, into the open batch. Where it does not fit, a new
    /// batch is opened if `may_open` says so.
    ///
    /// # Errors
    /// Where the partition takes nothing any more or the record cannot be encoded.
    pub(super) fn append(
        &self,
        record: &Record,
        timestamp: i64,
        charge: usize,
        may_open: bool,
    ) -> Result<Appended, SendError> {
        let mut state = lock(&self.state);
        if let Some(error) = &state.ended {
            return Err(error.clone());
        }
        let fits = |open: &OpenBatch| open.builder.size() + charge <= self.pace.batch_size;
        let fresh = !state.open.as_ref().is_some_and(fits);
        if fresh {
            if !may_open {
                return Ok(Appended::NoRoom);
            }
            self.open_batch(&mut state);
        }
        let Some(open) = &mut state.open else { return Ok(Appended::NoRoom) };
        open.builder.push(timestamp, record.key(), record.value(), record.headers()).map_err(|error| {
            SendError::failed(ApiError::new(ErrorCode::InvalidRequest, error.to_string()))
        })?;
        let index = open.ticket.add(charge);
        let pending = Pending::new(open.ticket.completion().clone(), index);
        let start = !std::mem::replace(&mut state.started, true);
        drop(state);
        if fresh {
            self.wake.notify_one();
        }
        Ok(Appended::In { pending, start })
    }

    fn open_batch(&self, state: &mut State) {
        state.close_open();
        while state.unfinished.front().is_some_and(|completion| completion.is_done()) {
            state.unfinished.pop_front();
        }
        let ticket = Ticket::new(self.ledger.clone(), self.partition);
        state.unfinished.push_back(ticket.completion().clone());
        let due = ticket.opened + self.pace.linger;
        let capacity = state.last_size + state.last_size / 8;
        let builder = RecordBatchBuilder::with_capacity(capacity.min(self.pace.batch_size + HEADER_LEN));
        state.open = Some(OpenBatch { builder, ticket, due });
    }

    /// The next batch to send, if one is full or due.
    pub(super) fn take_due(&self, now: Instant) -> Option<OpenBatch> {
        let mut state = lock(&self.state);
        if state.open.as_ref().is_some_and(|open| open.due <= now) {
            state.close_open();
        }
        state.closed.pop_front()
    }

    /// Takes the batches whose delivery timeout has ended, all of them where `all` says so.
    pub(super) fn take_expired(&self, now: Instant, all: bool) -> Vec<OpenBatch> {
        let mut state = lock(&self.state);
        let expired = |batch: &OpenBatch| all || batch.ticket.opened + self.pace.delivery_timeout <= now;
        let mut taken = Vec::new();
        while state.closed.front().is_some_and(expired) {
            taken.extend(state.closed.pop_front());
        }
        if state.closed.is_empty() && state.open.as_ref().is_some_and(expired) {
            taken.extend(state.open.take());
        }
        taken
    }

    /// When the sender has to look again: where it may send, at the next due time; always at the next expiry.
    pub(super) fn next_deadline(&self, may_send: bool) -> Option<Instant> {
        let state = lock(&self.state);
        let oldest = state.closed.front().or(state.open.as_ref())?;
        let expiry = oldest.ticket.opened + self.pace.delivery_timeout;
        Some(if may_send && state.closed.is_empty() { expiry.min(oldest.due) } else { expiry })
    }

    /// Whether no record waits.
    pub(super) fn is_empty(&self) -> bool {
        let state = lock(&self.state);
        state.closed.is_empty() && state.open.is_none()
    }

    /// Makes everything due and gives what to wait for.
    pub(super) fn flush(&self, now: Instant) -> Vec<Arc<Completion>> {
        let mut state = lock(&self.state);
        if let Some(open) = &mut state.open {
            open.due = now;
        }
        let unfinished = state.unfinished.iter().filter(|completion| !completion.is_done());
        let unfinished = unfinished.cloned().collect();
        drop(state);
        self.wake.notify_one();
        unfinished
    }

    /// Makes the open batch due, if there is one.
    pub(super) fn hurry(&self, now: Instant) {
        if let Some(open) = &mut lock(&self.state).open {
            open.due = now;
            self.wake.notify_one();
        }
    }

    /// Refuses every later record with `error`; the first refusal stays.
    pub(super) fn end(&self, error: SendError) {
        lock(&self.state).ended.get_or_insert(error);
    }

    /// Whether records are refused.
    pub(super) fn has_ended(&self) -> bool {
        lock(&self.state).ended.is_some()
    }
}

impl State {
    fn close_open(&mut self) {
        if let Some(open) = self.open.take() {
            self.last_size = open.builder.size();
            self.closed.push_back(open);
        }
    }
}

/// Room that a record takes: the most it can add to a batch.
pub(super) fn charge_of(record: &Record) -> usize {
    record_size_bound(record.key(), record.value(), record.headers())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(batch_size: usize) -> Lane {
        let pace =
            Pace { batch_size, linger: Duration::from_millis(5), delivery_timeout: Duration::from_secs(2) };
        Lane::new(0, pace, Arc::new(Ledger::new(1 << 20, None)))
    }

    fn append(lane: &Lane, size: usize) -> Pending {
        let record = Record::new(vec![7; size]);
        match lane.append(&record, 0, charge_of(&record), true).unwrap() {
            Appended::In { pending, .. } => pending,
            Appended::NoRoom => panic!("no room"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_due_after_linger_and_not_before() {
        let lane = lane(10_000);
        let _first = append(&lane, 10);
        assert!(lane.take_due(Instant::now()).is_none());
        tokio::time::advance(Duration::from_millis(4)).await;
        let _second = append(&lane, 10);
        assert!(lane.take_due(Instant::now()).is_none());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(lane.next_deadline(true), Some(Instant::now()));
        assert_eq!(lane.take_due(Instant::now()).unwrap().ticket.records(), 2);
        assert!(lane.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_batch_goes_at_once_and_in_order() {
        let lane = lane(1000);
        let _pending: Vec<_> = (0..5).map(|_| append(&lane, 400)).collect();
        let taken: Vec<_> = std::iter::from_fn(|| lane.take_due(Instant::now())).collect();
        assert_eq!(taken.iter().map(|batch| batch.ticket.records()).collect::<Vec<_>>(), [2, 2]);
        assert!(!lane.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_larger_than_a_batch_travels_alone() {
        let lane = lane(1000);
        let _small = append(&lane, 10);
        let _large = append(&lane, 5000);
        let _small = append(&lane, 10);
        let taken: Vec<_> = std::iter::from_fn(|| lane.take_due(Instant::now())).collect();
        assert_eq!(taken.iter().map(|batch| batch.ticket.records()).collect::<Vec<_>>(), [1, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn flush_makes_due_and_names_what_is_unfinished() {
        let lane = lane(1000);
        let pending = append(&lane, 10);
        let unfinished = lane.flush(Instant::now());
        assert_eq!(unfinished.len(), 1);
        let batch = lane.take_due(Instant::now()).unwrap();
        batch.ticket.lost(SendError::closed());
        assert_eq!(unfinished[0].wait().await, Err(SendError::closed()));
        assert!(pending.is_done() && lane.flush(Instant::now()).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn expired_batches_are_taken_oldest_first_and_free_their_room() {
        let lane = lane(1000);
        let _old = append(&lane, 10);
        tokio::time::advance(Duration::from_millis(1500)).await;
        let _young = append(&lane, 990);
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(lane.take_expired(Instant::now(), false).len(), 1);
        assert_eq!(lane.take_expired(Instant::now(), true).len(), 1);
        assert!(lane.is_empty());
    }

    #[tokio::test]
    async fn an_ended_lane_refuses() {
        let lane = lane(1000);
        lane.end(SendError::closed());
        let record = Record::new("late");
        assert!(lane.append(&record, 0, charge_of(&record), true).is_err());
    }
}
