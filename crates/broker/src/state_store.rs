//! Promises of all partitions in one journal: a round of fences over thousands of partitions costs one flush.
//!
//! Two kinds of facts: a replica's `DurableState`, which is on disk before the replica hears so, and checkpoints of its
//! watermarks, which are written lazily and only ever lag.
//!
//! Where the disk has no room, everything waits until it has: a replica that hears of no promise says nothing.
//!
//! Invariant: what waits here is bounded by the number of partitions, because a later state replaces an earlier one.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use holdfast_core::PartitionId;
use holdfast_core::replication::{Checkpoint, DurableState, Event, StoredReplica};
use holdfast_log::{Journal, JournalError, journal};
use serde::{Deserialize, Serialize};

use crate::data_dir::{DataDir, DataDirError};
use crate::fatal::Fatal;
use crate::partition::{Command, ShardSender};

/// Its file in the data folder.
const JOURNAL: &str = "replica-state";
/// The journal is written anew when it is larger than this and four times what a fresh one would be.
const REWRITE_ABOVE: u64 = 4 << 20;
/// Between two attempts to write where there was no room.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);
/// A generous estimate of one partition's frames.
const BYTES_PER_PARTITION: u64 = 512;

/// Why the journal of promises cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateStoreError {
    /// The file.
    #[error("the journal of replica states")]
    Journal(#[from] JournalError),
    /// The note that a run began.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The thread that writes it.
    #[error("starting the thread of the journal of replica states")]
    Thread(#[source] std::io::Error),
}

/// A frame of the journal. Variants are added at the end, never changed.
#[derive(Debug, Serialize, Deserialize)]
enum Frame {
    State(PartitionId, DurableState),
    Checkpoint(PartitionId, Checkpoint),
    Removed(PartitionId),
    TailLost(PartitionId),
}

/// What a partition asked for since the journal was written last.
#[derive(Debug, Default)]
struct Request {
    /// The state, and who is to be told of which number.
    state: Option<(u64, DurableState, ShardSender)>,
    checkpoint: Option<Checkpoint>,
    removed: bool,
}

impl Request {
    /// Joins this one with another that was to be written before it.
    fn follow(&mut self, earlier: Request) {
        if !self.removed {
            self.removed = earlier.removed;
            self.state = self.state.take().or(earlier.state);
            self.checkpoint = self.checkpoint.or(earlier.checkpoint);
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    requests: BTreeMap<PartitionId, Request>,
    closed: bool,
}

/// The journal, opened.
pub(crate) struct Opened {
    pub(crate) store: StateStore,
    /// The thread that writes it; says in the end whether everything asked for is written.
    pub(crate) thread: JoinHandle<bool>,
    /// What it holds.
    pub(crate) stored: BTreeMap<PartitionId, StoredReplica>,
}

/// Hands states to the journal's thread.
#[derive(Debug, Clone)]
pub(crate) struct StateStore {
    queue: Arc<(Mutex<Queue>, Condvar)>,
}

impl StateStore {
    /// Opens the journal, notes that a run has begun, and starts the journal's thread.
    ///
    /// When a write or flush fails, promises can no longer be kept: that is fatal. A write for which there is no room is
    /// tried until there is.
    pub(crate) fn open(dir: &Arc<DataDir>, fatal: &Fatal) -> Result<Opened, StateStoreError> {
        let mut stored = BTreeMap::new();
        let path = dir.file(JOURNAL);
        let mut journal = Journal::open(dir.fs(), &path, &mut |payload| {
            replay(&mut stored, postcard::from_bytes(payload)?);
            Ok(())
        })?;
        if dir.tail_lost() {
            mark_tails_lost(&mut journal, &mut stored)?;
        }
        dir.begin_run()?;
        let queue = Arc::new((Mutex::new(Queue::default()), Condvar::new()));
        let store = StateStore { queue: Arc::clone(&queue) };
        let mut writer =
            Writer { journal, stored: stored.clone(), rewrite_again_at: 0, _dir: Arc::clone(dir) };
        let (fatal, watched) = (fatal.clone(), fatal.watch_thread());
        let thread = thread::Builder::new()
            .name("replica-state".to_owned())
            .spawn(move || {
                let _watched = watched;
                let ended = writer.run(&queue);
                if let Err(error) = &ended {
                    fatal.report(format!("promises cannot be kept any more: {error}"));
                }
                ended.unwrap_or(false)
            })
            .map_err(StateStoreError::Thread)?;
        Ok(Opened { store, thread, stored })
    }

    /// Makes the state durable, and with it the checkpoint that it takes back to, if any; then tells the partition that
    /// everything up to `number` is.
    pub(crate) fn persist(
        &self,
        partition: PartitionId,
        number: u64,
        state: DurableState,
        taken_back: Option<Checkpoint>,
        reply: ShardSender,
    ) {
        self.ask(partition, |request| {
            request.state = Some((number, state, reply));
            request.checkpoint = taken_back.or(request.checkpoint);
        });
    }

    /// Notes watermarks, at leisure.
    pub(crate) fn checkpoint(&self, partition: PartitionId, checkpoint: Checkpoint) {
        self.ask(partition, |request| request.checkpoint = Some(checkpoint));
    }

    /// Forgets a partition.
    pub(crate) fn remove(&self, partition: PartitionId) {
        self.ask(partition, |request| *request = Request { removed: true, ..Request::default() });
    }

    /// Ends the thread once everything asked for is written.
    pub(crate) fn close(&self) {
        lock(&self.queue.0).closed = true;
        self.queue.1.notify_one();
    }

    fn ask(&self, partition: PartitionId, note: impl FnOnce(&mut Request)) {
        note(lock(&self.queue.0).requests.entry(partition).or_default());
        self.queue.1.notify_one();
    }
}

struct Writer {
    journal: Journal,
    stored: BTreeMap<PartitionId, StoredReplica>,
    /// There was no room to write the journal anew: not before it has this size.
    rewrite_again_at: u64,
    /// The folder stays locked while this writes into it.
    _dir: Arc<DataDir>,
}

impl Writer {
    /// Returns whether all that was asked for is written.
    fn run(&mut self, queue: &(Mutex<Queue>, Condvar)) -> Result<bool, JournalError> {
        let mut waits = false;
        while let Some(requests) = next(queue) {
            let frames = frames_of(&requests);
            match self.append(&frames) {
                Err(error) if error.is_full() => {
                    if !std::mem::replace(&mut waits, true) {
                        let error = &error as &dyn std::error::Error;
                        tracing::error!(error, "no room on the disk: promises wait until there is some");
                    }
                    if !wait_for_room(queue, requests) {
                        return Ok(false);
                    }
                    continue;
                }
                appended => appended?,
            }
            if std::mem::take(&mut waits) {
                tracing::info!("promises are written again after they waited for room on the disk");
            }
            // Checkpoints alone may wait for the next flush.
            if requests.values().any(|request| request.state.is_some() || request.removed) {
                self.journal.flush()?;
            }
            for frame in frames {
                replay(&mut self.stored, frame);
            }
            for (partition, request) in requests {
                if let Some((number, _, reply)) = request.state {
                    // An error says that the shard is gone, and with it whoever waited.
                    let _ = reply.blocking_send(Command::Event(partition, Event::Persisted { number }));
                }
            }
            self.rewrite_if_grown()?;
        }
        Ok(true)
    }

    fn append(&mut self, frames: &[Frame]) -> Result<(), JournalError> {
        let payloads: Vec<Vec<u8>> = frames.iter().map(encode).collect();
        self.journal.append(&payloads.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    fn rewrite_if_grown(&mut self) -> Result<(), JournalError> {
        let live = self.stored.len() as u64 * BYTES_PER_PARTITION;
        if self.journal.size() < REWRITE_ABOVE.max(4 * live).max(self.rewrite_again_at) {
            return Ok(());
        }
        let frames = self.stored.iter().flat_map(|(&partition, stored)| {
            let state = Frame::State(partition, stored.state.clone());
            let lost = stored.tail_lost.then(|| encode(&Frame::TailLost(partition)));
            [encode(&state), encode(&Frame::Checkpoint(partition, stored.checkpoint))].into_iter().chain(lost)
        });
        match self.journal.rewrite(frames) {
            // The journal is as it was, only larger than it need be.
            Err(error) if error.is_full() => {
                self.rewrite_again_at = self.journal.size() + REWRITE_ABOVE;
                Ok(())
            }
            rewritten => {
                self.rewrite_again_at = 0;
                rewritten
            }
        }
    }
}

fn frames_of(requests: &BTreeMap<PartitionId, Request>) -> Vec<Frame> {
    let mut frames = Vec::new();
    for (&partition, request) in requests {
        if request.removed {
            frames.push(Frame::Removed(partition));
        }
        if let Some((_, state, _)) = &request.state {
            frames.push(Frame::State(partition, state.clone()));
        }
        if let Some(checkpoint) = request.checkpoint {
            frames.push(Frame::Checkpoint(partition, checkpoint));
        }
    }
    frames
}

/// What the journal holds, read without changing it, as a start now would find it. Nothing where there is no journal.
pub(crate) fn look_at(dir: &DataDir) -> Result<BTreeMap<PartitionId, StoredReplica>, JournalError> {
    let mut stored = BTreeMap::new();
    let (fs, path) = (dir.fs(), dir.file(JOURNAL));
    if !fs.exists(&path).unwrap_or(true) {
        return Ok(stored);
    }
    journal::read(&*fs, &path, &mut |payload| {
        replay(&mut stored, postcard::from_bytes(payload)?);
        Ok(())
    })?;
    if dir.tail_lost() {
        stored.values_mut().for_each(StoredReplica::lose_tail);
    }
    Ok(stored)
}

/// Before the boot is noted as seen: a crash in between must not make it look as if nothing was lost.
fn mark_tails_lost(
    journal: &mut Journal,
    stored: &mut BTreeMap<PartitionId, StoredReplica>,
) -> Result<(), JournalError> {
    let payloads: Vec<Vec<u8>> =
        stored.keys().map(|&partition| encode(&Frame::TailLost(partition))).collect();
    if payloads.is_empty() {
        return Ok(());
    }
    journal.append(&payloads.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
    journal.flush()?;
    stored.values_mut().for_each(StoredReplica::lose_tail);
    Ok(())
}

fn next(queue: &(Mutex<Queue>, Condvar)) -> Option<BTreeMap<PartitionId, Request>> {
    let mut guard = lock(&queue.0);
    while guard.requests.is_empty() && !guard.closed {
        guard = queue.1.wait(guard).unwrap_or_else(PoisonError::into_inner);
    }
    (!guard.requests.is_empty()).then(|| std::mem::take(&mut guard.requests))
}

/// Puts back what could not be written, joined with what came since, and waits a moment. `false` where the end is asked for
/// meanwhile: nobody waits for room then.
fn wait_for_room(queue: &(Mutex<Queue>, Condvar), requests: BTreeMap<PartitionId, Request>) -> bool {
    let mut guard = lock(&queue.0);
    for (partition, earlier) in requests {
        guard.requests.entry(partition).or_default().follow(earlier);
    }
    let waited = queue.1.wait_timeout_while(guard, RETRY_INTERVAL, |queue| !queue.closed);
    let (guard, _) = waited.unwrap_or_else(PoisonError::into_inner);
    !guard.closed
}

fn replay(stored: &mut BTreeMap<PartitionId, StoredReplica>, frame: Frame) {
    match frame {
        Frame::State(partition, state) => match stored.get_mut(&partition) {
            Some(known) => known.take_state(state),
            None => _ = stored.insert(partition, StoredReplica::new(state)),
        },
        Frame::Checkpoint(partition, checkpoint) => {
            if let Some(known) = stored.get_mut(&partition) {
                known.checkpoint = checkpoint;
            }
        }
        Frame::Removed(partition) => {
            stored.remove(&partition);
        }
        Frame::TailLost(partition) => {
            if let Some(known) = stored.get_mut(&partition) {
                known.lose_tail();
            }
        }
    }
}

fn encode(frame: &Frame) -> Vec<u8> {
    postcard::to_stdvec(frame).expect("plain data always has an encoding")
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
