//! A replica whose log has no room on the disk: it stands still until there is some, as a process would that is slow.
//!
//! From the action on that found no room nothing is performed, so nothing is acknowledged, promised or sent; what others
//! say is dropped, as if it were lost on its way, and no timer fires. The rules stand both. Readers go on below the high
//! watermark that they know, and clients that would append are refused at once.
//!
//! Invariant: what waits here is bounded: one action, one register, and what this replica had begun itself.

use std::time::Duration;

use holdfast_core::Timestamp;
use holdfast_core::record_batch::RecordBatch;
use holdfast_core::replication::{Action, Assignment, Event, ProduceError, ReplicaStatus};
use holdfast_log::{LogError, PartitionLog};

use super::driver::Driver;
use super::shard::ShardContext;

/// Between two attempts.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// What waits for room.
#[derive(Debug)]
pub(super) struct Paused {
    /// What is to be performed next.
    action: Action,
    /// The newest register told meanwhile.
    assigned: Option<Assignment>,
    retry_at: Timestamp,
}

impl Paused {
    fn new(now: Timestamp, action: Action, assigned: Option<Assignment>) -> Paused {
        Paused { action, assigned, retry_at: now + RETRY_INTERVAL }
    }

    /// When to try again.
    pub(super) fn deadline(&self) -> Timestamp {
        self.retry_at
    }
}

impl Driver {
    /// The event, where it is for the rules now: always, unless something waits for room. Then only what ends something that
    /// this replica had begun itself.
    pub(super) fn sift(&mut self, event: Event) -> Option<Event> {
        let Some(paused) = &mut self.paused else { return Some(event) };
        match event {
            Event::Persisted { .. } | Event::Flushed { .. } | Event::Read { .. } | Event::StorageFailed => {
                Some(event)
            }
            Event::Assign(assignment) => {
                if paused.assigned.as_ref().is_none_or(|known| known.term <= assignment.term) {
                    // Clients are to go to the leader that is, although this one has not heard yet.
                    self.status.send_if_modified(|status| deposed(status, &assignment));
                    paused.assigned = Some(assignment);
                }
                None
            }
            _ => None,
        }
    }

    /// Whether everything that was asked for may be performed: not as long as something waits for room.
    pub(super) fn goes_on(&mut self, context: &ShardContext) -> bool {
        let now = context.clock.now();
        if self.paused.as_ref().is_some_and(|paused| paused.retry_at > now) {
            return false;
        }
        let Some(Paused { action, assigned, .. }) = self.paused.take() else { return true };
        if !context.space.room().takes_replicas() {
            self.paused = Some(Paused::new(now, action, assigned));
            return false;
        }
        if let Some((action, _)) = self.try_to_write(now, action) {
            context.space.denied();
            self.paused = Some(Paused::new(now, action, assigned));
            return false;
        }
        context.space.granted();
        tracing::info!(partition = %self.partition, "the replica goes on after it waited for room on the disk");
        self.take_assigned(now, assigned);
        true
    }

    /// The log failed meanwhile: nothing waits for room any more.
    pub(super) fn end_pause(&mut self, now: Timestamp) {
        if let Some(paused) = self.paused.take() {
            self.take_assigned(now, paused.assigned);
        }
    }

    fn take_assigned(&mut self, now: Timestamp, assigned: Option<Assignment>) {
        if let Some(assignment) = assigned {
            self.replica.handle(now, Event::Assign(assignment));
        }
    }

    /// Performs an action that writes to the log; `false` where it has to wait for room, and everything behind it with it.
    pub(super) fn write(&mut self, context: &ShardContext, action: Action) -> bool {
        let now = context.clock.now();
        let Some((action, error)) = self.try_to_write(now, action) else { return true };
        context.space.denied();
        tracing::error!(
            partition = %self.partition, error = &error as &dyn std::error::Error,
            "no room on the disk: this replica stands still until there is some; make room, or delete topics"
        );
        self.paused = Some(Paused::new(now, action, None));
        false
    }

    /// Gives back what of the action could not be done for want of room. Any other failure is dealt with.
    fn try_to_write(&mut self, now: Timestamp, action: Action) -> Option<(Action, LogError)> {
        let (doing, done, left) = match action {
            Action::Append { batches } => {
                let done = self.log.append(&batches);
                ("appending to the log", done, Action::Append { batches: not_in(&self.log, batches) })
            }
            Action::Reset { start, producers } => {
                let done = self.reset(start, &producers);
                ("beginning the log anew", done, Action::Reset { start, producers })
            }
            Action::NoteTombstonesGone { below } => {
                let done = self.log.note_tombstones_gone(below);
                ("noting which tombstones are gone", done, Action::NoteTombstonesGone { below })
            }
            // The others take no room.
            _ => return None,
        };
        match done {
            Err(error) if error.is_full() && !self.log.is_poisoned() => return Some((left, error)),
            Err(error) => self.fail(now, doing, &error),
            Ok(()) => {}
        }
        None
    }

    /// Why a client's batch is refused for want of room; `None` where it is for the rules to say.
    pub(super) fn refuses(&self, context: &ShardContext, batch: &RecordBatch) -> Option<ProduceError> {
        let room = context.space.room();
        if self.paused.is_some() {
            let leads = self.status.borrow().active;
            return Some(if leads { room.refusal() } else { ProduceError::NotLeader { leader: None } });
        }
        (room.is_short() && self.replica.needs_room(batch)).then(|| room.refusal())
    }
}

/// Takes note in what clients see that another leads.
fn deposed(status: &mut ReplicaStatus, assignment: &Assignment) -> bool {
    let deposed =
        status.active && status.epoch.term < assignment.term && status.leader != Some(assignment.leader);
    if deposed {
        (status.active, status.leader) = (false, Some(assignment.leader));
    }
    deposed
}

/// The batches behind the end of the log.
fn not_in(log: &PartitionLog, mut batches: Vec<RecordBatch>) -> Vec<RecordBatch> {
    let end = log.log_end_offset();
    batches.retain(|batch| batch.header().base_offset >= end);
    batches
}
