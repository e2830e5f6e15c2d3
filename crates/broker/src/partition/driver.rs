//! Performs the actions of one replica, in the order given, and decides nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast_core::metadata::LeaderReport;
use holdfast_core::record_batch::RecordBatch;
use holdfast_core::replication::{Action, Checkpoint, Event, Replica, ReplicaStatus, RequestId};
use holdfast_core::{LeaderEpoch, Offset, PartitionId, ReplicaId, Term, Timestamp};
use holdfast_log::{LogError, LogReader, PartitionLog, checkpoint_replica};
use tokio::sync::watch;

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
    partition: PartitionId,
    replica: Replica,
    log: PartitionLog,
    /// The generation of a flush that runs, and of one that was asked for meanwhile.
    flushing: Option<u64>,
    flush_wanted: Option<u64>,
    requests: BTreeMap<RequestId, ProduceReply>,
    next_request: u64,
    status: watch::Sender<ReplicaStatus>,
    size_bytes: watch::Sender<u64>,
    /// What was noted last, by this run or an earlier one.
    noted: Checkpoint,
}

impl Driver {
    /// `noted` is what the last run left.
    pub(super) fn new(
        partition: PartitionId,
        replica: Replica,
        log: PartitionLog,
        noted: Checkpoint,
    ) -> Driver {
        let (status, _) = watch::channel(replica.status());
        let (size_bytes, _) = watch::channel(log.size_bytes());
        Driver {
            partition,
            replica,
            log,
            flushing: None,
            flush_wanted: None,
            requests: BTreeMap::new(),
            next_request: 0,
            status,
            size_bytes,
            noted,
        }
    }

    pub(super) fn handle_for_readers(&self) -> PartitionHandle {
        PartitionHandle {
            reader: self.log.reader(),
            status: self.status.subscribe(),
            size_bytes: self.size_bytes.subscribe(),
        }
    }

    pub(super) fn handle(&mut self, now: Timestamp, event: Event) {
        self.replica.handle(now, event);
    }

    pub(super) fn produce(&mut self, now: Timestamp, batch: RecordBatch, reply: ProduceReply) {
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
                self.replica.handle(now, Event::Flushed { generation, end });
            }
            Err(error) => self.fail(now, "flushing the log", error),
        }
    }

    /// Term of the lowest epoch that it still obeys.
    pub(super) fn promised_term(&self) -> Term {
        self.replica.durable_state().promise.term
    }

    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.replica.next_deadline()
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
        self.log.bytes_since_checkpoint() < NOTED_BYTES_AT_CLOSE
            || (self.note_log().is_ok() && self.flush_now())
    }

    fn flush_now(&mut self) -> bool {
        self.log.take_flush().is_none_or(|ticket| ticket.run().is_ok())
    }

    /// What the log needs now and then: an old segment is sealed, and what is known of the log is noted.
    pub(super) fn maintain_log(&mut self, context: &ShardContext, wall_clock_ms: i64) {
        if self.log.is_poisoned() {
            return;
        }
        let mut maintained = self.log.roll_if_old(wall_clock_ms).map(|_| ());
        if maintained.is_ok() && self.log.bytes_since_checkpoint() >= NOTED_BYTES {
            maintained = self.note_log();
        }
        if let Err(error) = maintained {
            self.fail(context.clock.now(), "keeping the log in order", &error);
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
        let high_watermark = self.replica.status().high_watermark.min(self.log.log_end_offset());
        let checkpoint = self.noted.next(high_watermark, self.replica.durable_end());
        let news = checkpoint != self.noted;
        self.noted = checkpoint;
        news.then_some(checkpoint)
    }

    /// Performs everything that the replica asks for.
    pub(super) fn perform(&mut self, context: &ShardContext) {
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
                Action::Append { batches } => {
                    if let Err(error) = self.log.append(&batches) {
                        self.fail(now, "appending to the log", &error);
                    }
                }
                Action::Truncate { end } => self.truncate(now, end),
                Action::Flush { generation } => self.flush_wanted = Some(generation),
                Action::Read { to, epoch, from, max_bytes } => {
                    self.read(context, to, epoch, from, max_bytes);
                }
                Action::Send(envelope) => context.peers.send(self.partition, envelope),
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
        let charge = max_bytes.min(READ_ROOM) as u32;
        context.blocking.spawn(async move {
            // An error would say that it was closed, which nobody does.
            let Ok(room) = read_room.acquire_many_owned(charge).await else { return };
            let reading = move || {
                let event = match read_batches(&reader, from, max_bytes) {
                    Ok(batches) => Event::Read { to, epoch, from, batches },
                    // The replica was deleted: nothing is wrong with the one that may be here by now.
                    Err(_) if status.has_changed().is_err() => return,
                    Err(error) => {
                        tracing::error!(
                            %partition, %from, error = &*error,
                            "reading the log for another replica failed: this replica goes out of service"
                        );
                        Event::StorageFailed
                    }
                };
                // An error says that the shard is gone.
                let _ = reply.blocking_send(Command::Charged { partition, event, _room: room });
            };
            // Its end is told by the command.
            drop(tokio::task::spawn_blocking(reading));
        });
    }

    fn fail(&mut self, now: Timestamp, doing: &str, error: &(dyn std::error::Error + 'static)) {
        tracing::error!(
            partition = %self.partition, error,
            "{doing} failed: this replica goes out of service until the broker is restarted"
        );
        self.replica.handle(now, Event::StorageFailed);
    }

    fn publish(&self) {
        let status = self.replica.status();
        self.size_bytes.send_if_modified(|size| replace(size, self.log.size_bytes()));
        self.status.send_if_modified(|published| replace(published, status));
    }
}

/// The log could not be cut where the rules say.
#[derive(Debug, thiserror::Error)]
#[error("asked to cut at {end}, the nearest batch boundary is {found}")]
struct CutElsewhere {
    end: Offset,
    found: Offset,
}

fn replace<T: PartialEq>(current: &mut T, new: T) -> bool {
    let changed = *current != new;
    *current = new;
    changed
}

fn read_batches(
    reader: &LogReader,
    from: Offset,
    max_bytes: usize,
) -> Result<Vec<RecordBatch>, Box<dyn std::error::Error + Send + Sync>> {
    let bytes = match reader.read(from, reader.log_end_offset(), max_bytes) {
        Ok(bytes) => bytes,
        // Whoever asked has another epoch by now.
        Err(LogError::TruncatedWhileReading { .. } | LogError::OutOfRange { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    Ok(RecordBatch::split(bytes)?)
}
