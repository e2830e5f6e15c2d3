//! The disk under one replica: the production log and journal of promises, on files in memory that tear and forget.
//!
//! ```text
//!  Action::Append, Truncate, Read ──► PartitionLog ──► MemFs   a killed process loses nothing of it,
//!  Action::Flush ──► FlushTicket ─────────────────────►        a power cut any part that was not synced
//!  Action::Persist ──► queue ──► Journal ─────────────► MemFs
//! ```
//! What the broker's driver, flusher and journal thread do is done here step by step, so that a process can die between
//! any two of them. Log and journal have a file system each, so that faults hit the one that was meant.

mod compaction;
mod damage;
mod open;
mod states;

use std::collections::VecDeque;

use holdfast_core::Offset;
use holdfast_core::metadata::Durability;
use holdfast_core::record_batch::RecordBatch;
use holdfast_core::replication::{
    Checkpoint, DurableState, Event, Position, ProducerTable, Replica, StoredReplica,
};
use holdfast_log::{
    FlushTicket, Journal, LogConfig, LogError, MemFs, PartitionLog, TrimTicket, checkpoint_replica,
    reset_replica, trim_replica,
};

pub(crate) use damage::Break;
pub(crate) use open::Found;
use states::Frame;

/// The disk of one replica.
#[derive(Debug)]
pub(crate) struct Disk {
    config: LogConfig,
    /// Whether what is acknowledged may not be flushed, so that a power cut may take it.
    forgets: bool,
    log_files: MemFs,
    state_files: MemFs,
    open: Option<Open>,
    /// What the journal's last flush proved.
    stored: Option<StoredReplica>,
    /// End of what a power cut cannot take.
    flushed: Offset,
    /// End of what the process that died last left behind.
    left: Offset,
    /// Where the log starts, as far as that is certain to be found again.
    trimmed: Offset,
    /// The machine was booted so often.
    boot: u64,
    /// Whether the log failed since the last start.
    failed: bool,
    /// Whether the power was cut and no process has started since.
    powerless: bool,
    /// Whether a fault waits in the files that will make an operation fail.
    breaking: bool,
    /// Whether a bit was turned that nobody has come across yet.
    rotten: bool,
    /// Whether the log was put aside, and no state says yet what follows from that.
    put_aside: bool,
}

/// The files as a running process holds them.
#[derive(Debug)]
struct Open {
    log: Option<PartitionLog>,
    journal: Journal,
    /// What was trimmed and not removed yet.
    trims: Vec<TrimTicket>,
    /// A flush under way, with the generation it will prove.
    flushing: Option<(u64, FlushTicket)>,
    /// The generation of a flush that was asked for.
    wanted: Option<u64>,
    /// States on their way to the journal, with the checkpoints that they take back to.
    writing: VecDeque<(u64, Vec<Frame>)>,
    /// The checkpoint that was noted last, by this run or an earlier one.
    noted: Checkpoint,
}

/// What became of a wish to flush.
#[derive(Debug)]
pub(crate) enum FlushStart {
    /// Nobody asked, or one is under way already.
    Idle,
    /// It takes its time; `end_flush` ends it.
    UnderWay,
    /// There was nothing to flush: the replica is told at once.
    Done(Event),
}

impl Disk {
    /// An empty disk with logs laid out like that.
    pub(crate) fn new(config: LogConfig, durability: Durability) -> Disk {
        Disk {
            config,
            forgets: durability == Durability::Memory,
            log_files: MemFs::new(),
            state_files: MemFs::new(),
            open: None,
            stored: None,
            flushed: Offset::ZERO,
            left: Offset::ZERO,
            trimmed: Offset::ZERO,
            boot: 1,
            failed: false,
            powerless: false,
            breaking: false,
            rotten: false,
            put_aside: false,
        }
    }

    fn log(&self) -> Option<&PartitionLog> {
        self.open.as_ref()?.log.as_ref()
    }

    /// End of the log, exclusive; of a process that is down what is certain to be found again.
    pub(crate) fn end(&self) -> Offset {
        self.log().map_or(self.left, PartitionLog::log_end_offset)
    }

    /// End of what a power cut cannot take.
    pub(crate) fn flushed(&self) -> Offset {
        self.flushed
    }

    /// What a restart would find besides the log.
    pub(crate) fn state(&self) -> Option<&DurableState> {
        self.stored.as_ref().map(|stored| &stored.state)
    }

    /// Whether the log failed since the last start.
    pub(crate) fn failed(&self) -> bool {
        self.failed
    }

    /// Whether what was acknowledged here may be forgotten, now or soon: it must not be counted on.
    pub(crate) fn is_at_risk(&self) -> bool {
        let lost = |stored: &StoredReplica| stored.state.nonvoter || (self.forgets && stored.tail_lost);
        let forgot = self.stored.as_ref().is_some_and(lost) || (self.forgets && self.powerless);
        self.failed || self.breaking || self.rotten || self.put_aside || forgot
    }

    /// Writes at the end; in the operating system's memory at once.
    pub(crate) fn append(&mut self, batches: &[RecordBatch]) -> Result<(), LogError> {
        match self.log_mut() {
            Some(log) => log.append(batches),
            None => Err(LogError::Poisoned),
        }
    }

    /// Cuts the log, durably.
    pub(crate) fn truncate(&mut self, end: Offset) -> Result<(), LogError> {
        let Some(log) = self.log_mut() else { return Err(LogError::Poisoned) };
        log.truncate_to(end)?;
        let found = log.log_end_offset();
        self.flushed = self.flushed.min(found);
        // The rules cut at batch boundaries only.
        if found == end { Ok(()) } else { Err(LogError::NotContiguous { expected: end, got: found }) }
    }

    /// Lets the log start higher. What is left to do for that is done with the end of a flush.
    pub(crate) fn trim(&mut self, start: Position, producers: &ProducerTable) -> Result<(), LogError> {
        let Some(log) = self.log_mut() else { return Err(LogError::Poisoned) };
        let ticket = trim_replica(log, start, producers)?;
        if let Some(open) = &mut self.open {
            open.trims.extend(ticket);
        }
        Ok(())
    }

    /// As on a thread of its own. What fails is made up for with the next one, or at the next start.
    pub(crate) fn end_trims(&mut self) {
        let Some(open) = &mut self.open else { return };
        let Some(start) = open.log.as_ref().map(PartitionLog::log_start_offset) else { return };
        let tickets = std::mem::take(&mut open.trims);
        if !tickets.is_empty() && tickets.iter().all(|ticket| ticket.run().is_ok()) {
            self.trimmed = start;
        }
    }

    /// Puts an empty log in the place of this one, durably.
    pub(crate) fn reset(&mut self, start: Position, producers: &ProducerTable) -> Result<(), LogError> {
        let Some(log) = self.log_mut() else { return Err(LogError::Poisoned) };
        reset_replica(log, start, producers)?;
        (self.flushed, self.trimmed) = (start.end, start.end);
        if let Some(open) = &mut self.open {
            open.trims.clear();
        }
        Ok(())
    }

    /// Log start offset.
    pub(crate) fn start(&self) -> Offset {
        self.log().map_or(Offset::ZERO, PartitionLog::log_start_offset)
    }

    /// Log start offset that no death of the process takes back.
    pub(crate) fn trimmed(&self) -> Offset {
        self.trimmed
    }

    /// Where somebody may want the log to start.
    pub(crate) fn boundaries(&self) -> Vec<Offset> {
        let Some(log) = self.log() else { return Vec::new() };
        log.segment_bases().into_iter().chain([log.log_end_offset()]).collect()
    }

    fn log_mut(&mut self) -> Option<&mut PartitionLog> {
        self.open.as_mut()?.log.as_mut()
    }

    /// The batches from `from` on, the first one perhaps from below, up to the one that reaches `max_bytes`. `None` where they cannot be read.
    pub(crate) fn read(&mut self, from: Offset, max_bytes: usize) -> Option<Vec<RecordBatch>> {
        let reader = self.log()?.reader();
        let read = match reader.read(from, reader.log_end_offset(), max_bytes) {
            // Whoever asked has another epoch by now.
            Err(LogError::TruncatedWhileReading { .. } | LogError::OutOfRange { .. }) => {
                return Some(Vec::new());
            }
            read => read.ok(),
        };
        read.and_then(|bytes| RecordBatch::split(bytes).ok())
    }

    /// Every batch of the log from its start on, read from its files. `None` where one is damaged.
    pub(crate) fn read_all(&mut self) -> Option<Vec<RecordBatch>> {
        let (mut batches, start): (Vec<RecordBatch>, _) = (Vec::new(), self.start());
        loop {
            let from = batches.last().map_or(start, |batch| batch.header().next_offset());
            let mut more = self.read(from, 1 << 20)?.into_iter();
            let Some(first) = more.next() else { return Some(batches) };
            // A log may start inside of a filler (R45).
            batches.push(first.clipped(from, Offset(u64::MAX))?);
            batches.extend(more);
        }
    }

    /// Asks for a flush. It begins with `start_flush`.
    pub(crate) fn want_flush(&mut self, generation: u64) {
        if let Some(open) = &mut self.open {
            open.wanted = Some(generation);
        }
    }

    /// Begins the flush that was asked for, unless one is under way.
    pub(crate) fn start_flush(&mut self) -> FlushStart {
        let Some(open) = &mut self.open else { return FlushStart::Idle };
        let Some(log) = open.log.as_mut().filter(|log| open.flushing.is_none() && !log.is_poisoned()) else {
            return FlushStart::Idle;
        };
        let Some(generation) = open.wanted.take() else { return FlushStart::Idle };
        match log.take_flush() {
            Some(ticket) => {
                open.flushing = Some((generation, ticket));
                FlushStart::UnderWay
            }
            None => {
                let end = log.log_end_offset();
                self.flushed = end;
                FlushStart::Done(Event::Flushed { generation, end })
            }
        }
    }

    /// The flush under way ends. `Some(StorageFailed)` where it failed.
    pub(crate) fn end_flush(&mut self) -> Option<Event> {
        let (generation, ticket) = self.open.as_mut()?.flushing.take()?;
        if ticket.run().is_err() {
            return Some(Event::StorageFailed);
        }
        self.end_trims();
        let end = ticket.end();
        self.flushed = self.flushed.max(end);
        Some(Event::Flushed { generation, end })
    }

    /// Hands over a state to be made durable, of a replica with that high watermark.
    pub(crate) fn begin_persist(&mut self, number: u64, state: DurableState, high_watermark: Offset) {
        let Some(open) = &mut self.open else { return };
        let taken_back = open.noted.taken_back(high_watermark);
        open.noted = taken_back.unwrap_or(open.noted);
        let frames = [Some(Frame::State(state)), taken_back.map(Frame::Checkpoint)];
        open.writing.push_back((number, frames.into_iter().flatten().collect()));
    }

    /// All states up to `number` are made durable. False where the journal failed: promises cannot be kept any more,
    /// and the process has to end.
    pub(crate) fn end_persist(&mut self, number: u64) -> bool {
        let Some(open) = &mut self.open else { return true };
        let mut written = Vec::new();
        while let Some((_, frames)) = open.writing.pop_front_if(|&mut (queued, _)| queued <= number) {
            written.extend(frames);
        }
        if written.is_empty() {
            return true;
        }
        let appended = written.iter().try_for_each(|frame| states::append(&mut open.journal, frame));
        if appended.and_then(|()| open.journal.flush()).is_err() {
            return false;
        }
        written.into_iter().for_each(|frame| states::take(&mut self.stored, frame));
        self.put_aside = false;
        let stored = self.stored.as_ref();
        stored.is_none_or(|stored| states::rewrite_if_grown(&mut open.journal, stored).is_ok())
    }

    /// Notes lower bounds of high watermark and flushed end, as the broker does now and then. Not flushed.
    pub(crate) fn checkpoint(&mut self, high_watermark: Offset, durable_end: Offset) -> bool {
        let end = self.end();
        let (Some(open), true) = (&mut self.open, self.stored.is_some()) else { return true };
        open.noted = open.noted.next(high_watermark.min(end), durable_end);
        let frame = Frame::Checkpoint(open.noted);
        // Never before a state that was handed over earlier: it may rely on what that state says.
        if let Some((_, frames)) = open.writing.back_mut() {
            frames.push(frame);
            return true;
        }
        let noted = states::append(&mut open.journal, &frame).is_ok();
        states::take(&mut self.stored, frame);
        noted
    }

    /// Notes what is known of the log, as the broker does after so many bytes, so that the next start need not read it.
    /// `replica` is the one whose log this is, and has had all that it asked for.
    pub(crate) fn note_log(&mut self, replica: &Replica) -> Result<(), LogError> {
        match self.log_mut() {
            Some(log) if !log.is_poisoned() && log.log_end_offset() == replica.epochs().end() => {
                checkpoint_replica(log, replica.producers())
            }
            _ => Ok(()),
        }
    }

    /// The log failed: nothing is written to it any more.
    pub(crate) fn fail(&mut self) {
        self.failed = true;
        self.breaking = false;
    }
}
