//! Performs the actions of one replica, in the order given, and decides nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast_core::metadata::{Durability, LeaderReport};
use holdfast_core::record_batch::RecordBatch;
use holdfast_core::replication::{
    Action, Assignment, Checkpoint, Envelope, Event, Message, Replica, ReplicaStatus, RequestId,
    StoredReplica,
};
use holdfast_core::{LeaderEpoch, Offset, PartitionId, ReplicaId, Term, Timestamp};
use holdfast_log::{LogError, PartitionLog, checkpoint_replica};
use tokio::sync::watch;

use super::paused::Paused;
use super::reading::read_for_replica;
use super::registry::PartitionHandle;
use super::shard::ShardContext;
use super::{Command, ProduceReply};
use crate::flusher::{FlushJob, Flushed};

/// Bytes of all that is read for other replicas and not handed to their streams: many may lag at a time. A single batch
/// may be larger than what was asked for.
pub(crate) const READ_ROOM: usize = 64 << 20;

/// Bytes appended after which it is noted what is known of the log: a start after a crash reads no more than these.
const NOTED_BYTES: u64 = 64 << 20;
/// The same for the end of a run, where noting costs a flush of its own.
const NOTED_BYTES_AT_CLOSE: u64 = 1 << 20;

/// One replica with its log.
pub(super) struct Driver {
    pub(super) partition: PartitionId,
    pub(super) replica: Replica,
    pub(super) log: PartitionLog,
    /// What waits for room on the disk, and holds up everything behind it.
    pub(super) paused: Option<Paused>,
    /// Whether the log failed, and whether somebody leads without this replica since.
    failure: Option<Failure>,
    /// The generation of a flush that runs, and of one that was asked for meanwhile.
    flushing: Option<u64>,
    flush_wanted: Option<u64>,
    requests: BTreeMap<RequestId, ProduceReply>,
    next_request: u64,
    pub(super) status: watch::Sender<ReplicaStatus>,
    size_bytes: watch::Sender<u64>,
    /// What was noted last, by this run or an earlier one.
    noted: Checkpoint,
    /// How far the rules know the log to be cleaned.
    pub(super) told_cleaned: Offset,
}

impl Driver {
    /// `noted` is what the last run left.
    pub(super) fn new(
        partition: PartitionId,
        replica: Replica,
        log: PartitionLog,
        noted: Checkpoint,
    ) -> Driver {
        let told_cleaned = replica.compacted().cleaned_end;
        let (status, _) = watch::channel(replica.status());
        let (size_bytes, _) = watch::channel(log.size_bytes());
        Driver {
            partition,
            replica,
            log,
            paused: None,
            failure: None,
            flushing: None,
            flush_wanted: None,
            requests: BTreeMap::new(),
            next_request: 0,
            status,
            size_bytes,
            noted,
            told_cleaned,
        }
    }

    pub(super) fn handle_for_readers(&self, context: &ShardContext) -> PartitionHandle {
        PartitionHandle {
            partition: self.partition,
            newest: context.newest.clone(),
            reader: self.log.reader(),
            status: self.status.subscribe(),
            size_bytes: self.size_bytes.subscribe(),
        }
    }

    pub(super) fn handle(&mut self, now: Timestamp, event: Event) {
        let Some(event) = self.sift(event) else { return };
        let failed = event == Event::StorageFailed;
        if let Some(failure) = &mut self.failure {
            failure.led_without |= is_lead(&event, self.status.borrow().epoch);
        }
        self.replica.handle(now, event);
        if failed {
            self.failure.get_or_insert_default();
            self.end_pause(now);
        }
    }

    /// Whether the log failed and the partition does without this replica.
    pub(super) fn is_replaceable(&self) -> bool {
        self.failure.is_some_and(|failure| failure.led_without)
    }

    /// What a replica that begins anew in the place of this one starts from; `None` before that is on disk.
    pub(super) fn remains(&self) -> Option<(StoredReplica, Durability, Assignment)> {
        let state = self.replica.durable_state();
        let assignment = state.assignment.clone().filter(|_| self.replica.is_persisted())?;
        let stored = StoredReplica { checkpoint: self.noted, ..StoredReplica::new(state) };
        Some((stored, self.replica.durability(), assignment))
    }

    pub(super) fn produce(&mut self, context: &ShardContext, batch: RecordBatch, reply: ProduceReply) {
        if let Some(refusal) = self.refuses(context, &batch) {
            // An error says that the caller went away.
            let _ = reply.send(Err(refusal));
            return;
        }
        let now = context.clock.now();
        let request = RequestId(self.next_request);
        self.next_request += 1;
        self.requests.insert(request, reply);
        self.replica.handle(now, Event::Produce { request, batch });
    }

    pub(super) fn flushed(&mut self, now: Timestamp, flushed: &Flushed) {
        // A replica that was deleted meanwhile may have asked for it: that says nothing of this one, nor ends its flush.
        if self.flushing != Some(flushed.generation) {
            return;
        }
        self.flushing = None;
        match &flushed.result {
            Ok(()) => {
                let (generation, end) = (flushed.generation, flushed.ticket.end());
                self.handle(now, Event::Flushed { generation, end });
            }
            Err(error) => self.fail(now, "flushing the log", error),
        }
    }

    /// Term of the lowest epoch that it still obeys.
    pub(super) fn promised_term(&self) -> Term {
        self.replica.durable_state().promise.term
    }

    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        match &self.paused {
            Some(paused) => Some(paused.deadline()),
            None => self.replica.next_deadline(),
        }
    }

    /// Whether a flush runs whose end was not told yet.
    pub(super) fn is_flushing(&self) -> bool {
        self.flushing.is_some()
    }

    /// Whether everything written is flushed, so that the run can end in order. Not while a flush runs: what that one
    /// took is flushed only when it has ended well.
    pub(super) fn flush_for_close(&mut self) -> bool {
        self.flush_now() && !self.is_flushing() && !self.log.is_poisoned() && self.note_log_for_close()
    }

    fn note_log_for_close(&mut self) -> bool {
        if self.log.bytes_since_checkpoint() < NOTED_BYTES_AT_CLOSE {
            return true;
        }
        // Without room the next start reads more: no reason to doubt what is flushed.
        self.note_log().or_else(unless_full).is_ok() && self.flush_now()
    }

    fn flush_now(&mut self) -> bool {
        self.log.take_flush().is_none_or(|ticket| ticket.run().is_ok())
    }

    /// What the log needs now and then: an old segment is sealed, and what is known of the log is noted.
    pub(super) fn maintain_log(&mut self, context: &ShardContext, wall_clock_ms: i64) {
        if self.log.is_poisoned() || self.paused.is_some() {
            return;
        }
        let mut maintained = self.log.roll_if_old(wall_clock_ms).map(|_| ());
        if maintained.is_ok() && self.replica.is_persisted() {
            maintained = self.log.settle_repair();
        }
        self.remove_sealed(context);
        if maintained.is_ok() && self.log.bytes_since_checkpoint() >= NOTED_BYTES {
            maintained = self.note_log();
        }
        let mut news = self.tell_cleaned(context);
        if let Err(error) = maintained.or_else(unless_full) {
            self.fail(context.clock.now(), "keeping the log in order", &error);
            news = true;
        }
        if news {
            self.perform(context);
        }
    }

    /// So that the next start need not read the log. Durable with the next flush.
    fn note_log(&mut self) -> Result<(), LogError> {
        if self.replica.epochs().end() != self.log.log_end_offset() {
            return Ok(()); // The replica knows of other batches than those in the log: only after a failure.
        }
        checkpoint_replica(&mut self.log, self.replica.producers())
    }

    /// Watermarks worth noting since the last time.
    pub(super) fn checkpoint(&mut self) -> Option<Checkpoint> {
        if self.replica.epochs().base() != self.log.base() {
            // It is to begin anew (R44): until it has, the watermark says nothing of what it holds.
            return None;
        }
        let high_watermark = self.replica.status().high_watermark.min(self.log.log_end_offset());
        let checkpoint = self.noted.next(high_watermark, self.replica.durable_end());
        let news = checkpoint != self.noted;
        self.noted = checkpoint;
        news.then_some(checkpoint)
    }

    /// Performs everything that the replica asks for.
    pub(super) fn perform(&mut self, context: &ShardContext) {
        if !self.goes_on(context) {
            // What was written before is flushed all the same.
            self.start_flush(context);
            return;
        }
        let now = context.clock.now();
        let mut published = false;
        while let Some(action) = self.replica.next_action() {
            match action {
                Action::Persist { number, state } => {
                    let taken_back = self.noted.taken_back(self.replica.status().high_watermark);
                    self.noted = taken_back.unwrap_or(self.noted);
                    let own = context.own.clone();
                    context.states.persist(self.partition, number, state, taken_back, own);
                }
                action @ (Action::Append { .. }
                | Action::Reset { .. }
                | Action::NoteTombstonesGone { .. }) => {
                    let batches = self.to_keep(context, &action);
                    if !self.write(context, action) {
                        break;
                    }
                    context.newest.append(self.partition, &batches);
                }
                Action::Truncate { end } => {
                    context.newest.truncate(self.partition, end);
                    self.truncate(now, end);
                }
                Action::Trim { start, producers } => self.trim(context, start, &producers),
                Action::Flush { generation } => self.flush_wanted = Some(generation),
                Action::Read { to, epoch, from, max_bytes } => {
                    let end = self.log.log_end_offset();
                    match context.newest.read(self.partition, from, end, max_bytes) {
                        Some(batches) => self.handle(now, Event::Read { to, epoch, from, batches }),
                        None => self.read(context, to, epoch, from, max_bytes),
                    }
                }
                Action::Send(envelope) => {
                    if let Some(envelope) = context.space.room().tame(envelope) {
                        context.peers.send(self.partition, envelope);
                    }
                }
                Action::Reply { request, result } => {
                    if result.is_ok() && !published {
                        // First: whoever is acknowledged a batch finds it when it reads at once.
                        self.publish();
                        published = true;
                    }
                    if let Some(reply) = self.requests.remove(&request) {
                        // An error says that the caller went away.
                        let _ = reply.send(result);
                    }
                }
                Action::Report { term, state, complete, writable, in_sync } => {
                    let log_end_offset = self.log.log_end_offset();
                    let partition = self.partition;
                    let report = LeaderReport { partition, term, state, log_end_offset, writable, in_sync };
                    context.reports.put(report, complete);
                }
            }
        }
        if self.start_flush(context) {
            // The log was flushed already: the replica may have more to say.
            return self.perform(context);
        }
        self.publish();
    }

    /// What is kept in memory for those who read at the end of the log, once it is written: what this replica appends as the
    /// leader.
    fn to_keep(&self, context: &ShardContext, action: &Action) -> Vec<RecordBatch> {
        match action {
            Action::Append { batches } if self.replica.is_active() => batches.clone(),
            Action::Reset { .. } => {
                context.newest.forget(self.partition);
                Vec::new()
            }
            Action::NoteTombstonesGone { below } => {
                // A replica that got a record from memory might not find its tombstone in the log any more.
                context.newest.forget_below(self.partition, *below);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// Returns whether the flush is over at once.
    fn start_flush(&mut self, context: &ShardContext) -> bool {
        if self.is_flushing() || self.log.is_poisoned() {
            return false;
        }
        let Some(generation) = self.flush_wanted.take() else { return false };
        match self.log.take_flush() {
            Some(ticket) => {
                self.flushing = Some(generation);
                let (partition, reply) = (self.partition, context.own.clone());
                context.flusher.submit(FlushJob { partition, generation, ticket, reply });
                false
            }
            None => {
                let end = self.log.log_end_offset();
                self.replica.handle(context.clock.now(), Event::Flushed { generation, end });
                true
            }
        }
    }

    fn truncate(&mut self, now: Timestamp, end: Offset) {
        tracing::info!(partition = %self.partition, from = %self.log.log_end_offset(), to = %end, "truncating the log");
        match self.log.truncate_to(end) {
            Err(error) => self.fail(now, "truncating the log", &error),
            // The rules cut at batch boundaries only; anything else is a defect that must not go on.
            Ok(()) if self.log.log_end_offset() != end => {
                let found = self.log.log_end_offset();
                self.fail(now, "truncating the log", &CutElsewhere { end, found });
            }
            Ok(()) => {}
        }
    }

    /// Reads on a thread that may wait for the disk, as soon as there is room for it.
    fn read(
        &self,
        context: &ShardContext,
        to: ReplicaId,
        epoch: LeaderEpoch,
        from: Offset,
        max_bytes: usize,
    ) {
        let (reader, reply, partition) = (self.log.reader(), context.own.clone(), self.partition);
        let (status, read_room) = (self.status.subscribe(), Arc::clone(&context.read_room));
        let (charge, repairs) = (max_bytes.min(READ_ROOM) as u32, context.repairs.clone());
        context.blocking.spawn(async move {
            // An error would say that it was closed, which nobody does.
            let Ok(room) = read_room.acquire_many_owned(charge).await else { return };
            let event = match read_for_replica(&repairs, partition, &reader, from, max_bytes).await {
                Some(Ok(batches)) => Event::Read { to, epoch, from, batches },
                // The replica was deleted: nothing is wrong with the one that may be here by now.
                _ if status.has_changed().is_err() => return,
                Some(Err(error)) => {
                    tracing::error!(
                        %partition, %from, error = &error as &dyn std::error::Error,
                        "reading the log for another replica failed: this replica goes out of service"
                    );
                    Event::StorageFailed
                }
                None => return,
            };
            // An error says that the shard is gone.
            let _ = reply.send(Command::Charged { partition, event, _room: room }).await;
        });
    }

    pub(super) fn fail(&mut self, now: Timestamp, doing: &str, error: &(dyn std::error::Error + 'static)) {
        tracing::error!(
            partition = %self.partition, error,
            "{doing} failed: this replica goes out of service, until it can begin anew from its peers"
        );
        self.handle(now, Event::StorageFailed);
    }

    fn publish(&self) {
        let status = self.replica.status();
        self.size_bytes.send_if_modified(|size| replace(size, self.log.size_bytes()));
        self.status.send_if_modified(|published| replace(published, status));
    }
}

/// The log failed.
#[derive(Debug, Clone, Copy, Default)]
struct Failure {
    /// Whether an active leader was heard since: a quorum does without this replica.
    led_without: bool,
}

/// Whether the leader of that epoch, or of a later one, makes itself heard.
fn is_lead(event: &Event, promise: LeaderEpoch) -> bool {
    matches!(event, Event::Receive(Envelope { epoch, message: Message::Lead { .. }, .. }) if *epoch >= promise)
}

/// The log could not be cut where the rules say.
#[derive(Debug, thiserror::Error)]
#[error("asked to cut at {end}, the nearest batch boundary is {found}")]
struct CutElsewhere {
    end: Offset,
    found: Offset,
}

/// A log that cannot be kept in order for want of room is no worse for that: it is tried again.
pub(super) fn unless_full(error: LogError) -> Result<(), LogError> {
    if error.is_full() { Ok(()) } else { Err(error) }
}

fn replace<T: PartialEq>(current: &mut T, new: T) -> bool {
    let changed = *current != new;
    *current = new;
    changed
}
