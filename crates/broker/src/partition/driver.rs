//! Performs the actions of one replica, in the order given, and decides nothing.

use std::collections::BTreeMap;

use holdfast_core::metadata::LeaderReport;
use holdfast_core::record_batch::RecordBatch;
use holdfast_core::replication::{Action, Event, Replica, ReplicaStatus, RequestId};
use holdfast_core::{LeaderEpoch, Offset, PartitionId, ReplicaId, Term, Timestamp};
use holdfast_log::{LogError, LogReader, PartitionLog};
use tokio::sync::watch;

use super::registry::PartitionHandle;
use super::shard::ShardContext;
use super::{Command, ProduceReply, ShardSender};
use crate::flusher::{FlushJob, Flushed};
use crate::state_store::Checkpoint;

/// One replica with its log.
pub(super) struct Driver {
    partition: PartitionId,
    replica: Replica,
    log: PartitionLog,
    /// The generation of a flush that runs, and of one that was asked for meanwhile.
    flushing: bool,
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
            flushing: false,
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
        self.flushing = false;
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
        self.flushing
    }

    /// Whether everything written is flushed, so that the run can end in order. Not while a flush runs: what that one
    /// took is flushed only when it has ended well.
    pub(super) fn flush_for_close(&mut self) -> bool {
        let flushed = self.log.take_flush().is_none_or(|ticket| ticket.run().is_ok());
        flushed && !self.flushing && !self.log.is_poisoned()
    }

    /// Watermarks worth noting since the last time.
    pub(super) fn checkpoint(&mut self) -> Option<Checkpoint> {
        let high_watermark = self.replica.status().high_watermark.min(self.log.log_end_offset());
        // Never above the high watermark: what lies there may be truncated, and must not be missed after a crash.
        let durable_end = self.replica.durable_end().min(high_watermark);
        // What an earlier run noted stays true until it is taken back: below it nothing may be taken for a torn tail.
        let durable_end = durable_end.max(self.noted.durable_end.min(high_watermark));
        let checkpoint = Checkpoint { high_watermark, durable_end };
        let news = checkpoint != self.noted;
        self.noted = checkpoint;
        news.then_some(checkpoint)
    }

    /// After damage, and in an unclean term, the log ends below what was noted (R35, R37). With the state that says so,
    /// or after it, and before the log is written to: else what comes there would be taken for flushed, or a replica
    /// that has forgotten something for one that never held it.
    fn take_back_checkpoint(&mut self, context: &ShardContext) {
        let high_watermark = self.replica.status().high_watermark;
        if high_watermark < self.noted.high_watermark {
            self.noted = self.noted.at_most(high_watermark);
            context.states.checkpoint(self.partition, self.noted);
        }
    }

    /// Performs everything that the replica asks for.
    pub(super) fn perform(&mut self, context: &ShardContext) {
        let now = context.clock.now();
        let mut published = false;
        while let Some(action) = self.replica.next_action() {
            match action {
                Action::Persist { number, state } => {
                    context.states.persist(self.partition, number, state, context.own.clone());
                    self.take_back_checkpoint(context);
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
        if self.flushing || self.log.is_poisoned() {
            return false;
        }
        let Some(generation) = self.flush_wanted.take() else { return false };
        match self.log.take_flush() {
            Some(ticket) => {
                self.flushing = true;
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

    /// Reads on a thread that may wait for the disk.
    fn read(
        &self,
        context: &ShardContext,
        to: ReplicaId,
        epoch: LeaderEpoch,
        from: Offset,
        max_bytes: usize,
    ) {
        let (reader, reply, partition) = (self.log.reader(), context.own.clone(), self.partition);
        context.blocking.spawn_blocking(move || {
            let event = match read_batches(&reader, from, max_bytes) {
                Ok(batches) => Event::Read { to, epoch, from, batches },
                Err(error) => {
                    tracing::error!(
                        %partition, %from, error = &*error,
                        "reading the log for another replica failed: this replica goes out of service"
                    );
                    Event::StorageFailed
                }
            };
            send(&reply, partition, event);
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

/// From a thread that may wait.
fn send(to: &ShardSender, partition: PartitionId, event: Event) {
    // An error says that the shard is gone.
    let _ = to.blocking_send(Command::Event(partition, event));
}
