//! The thread that owns the journal: whatever was asked for meanwhile shares one flush.
//!
//! Jobs are carried out in the order in which they were sent, so a later vote or entry is never durable before an
//! earlier one. The thread ends by itself when the last `Writer` is gone, and only then lets go of what it was given to
//! `hold` (the lock on the folder). After a failed write or flush nothing is written any more and every job is
//! answered with an error. A write for which there is no room is no failed one: it waits, and all jobs behind it.

use std::io;
use std::sync::Arc;

use holdfast_log::{Journal, JournalError};
use openraft::storage::LogFlushed;
use tokio::sync::{mpsc, oneshot};

use super::frame::{Encoded, Mirror};
use super::room::Room;
use super::types::TypeConfig;

/// Jobs that wait for the thread; more make the sender wait.
const QUEUE: usize = 1024;
/// Jobs that share a flush at most.
const BATCH: usize = 256;
/// A smaller journal is not worth a checkpoint.
const CHECKPOINT_FROM: u64 = 4 << 20;

/// Who is told that a job is durable.
pub(crate) enum Done {
    /// openraft, for appended entries.
    Appended(LogFlushed<TypeConfig>),
    /// A caller that waits.
    Reply(oneshot::Sender<io::Result<()>>),
    /// Nobody: it need not be durable.
    Lazy,
}

impl Done {
    fn needs_flush(&self) -> bool {
        !matches!(self, Done::Lazy)
    }

    fn tell(self, result: io::Result<()>) {
        match self {
            Done::Appended(callback) => callback.log_io_completed(result),
            Done::Reply(reply) => {
                // The caller may have been dropped with its runtime.
                let _ = reply.send(result);
            }
            Done::Lazy => {}
        }
    }
}

struct Job {
    frames: Vec<Encoded>,
    done: Done,
}

/// Sends jobs to the thread.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    jobs: mpsc::Sender<Job>,
}

impl Writer {
    /// Starts the thread. `hold` is dropped when it ends, after its last write.
    pub(crate) fn spawn(
        journal: Journal,
        mirror: Mirror,
        room: Room,
        hold: impl Send + 'static,
    ) -> io::Result<Writer> {
        let (jobs, receiver) = mpsc::channel(QUEUE);
        std::thread::Builder::new().name("controller-log".to_owned()).spawn(move || {
            Thread { journal, mirror, room, rewrite_again_at: 0, failed: None }.run(receiver);
            drop(hold);
        })?;
        Ok(Writer { jobs })
    }

    /// Queues frames; `done` hears of them.
    pub(crate) async fn send(&self, frames: Vec<Encoded>, done: Done) -> io::Result<()> {
        self.jobs.send(Job { frames, done }).await.map_err(|_| ended())
    }

    /// Writes frames; they are durable on return.
    pub(crate) async fn write(&self, frames: Vec<Encoded>) -> io::Result<()> {
        let (reply, answer) = oneshot::channel();
        self.send(frames, Done::Reply(reply)).await?;
        answer.await.unwrap_or_else(|_| Err(ended()))
    }
}

fn ended() -> io::Error {
    io::Error::other("the log's writer thread has ended")
}

struct Thread {
    journal: Journal,
    mirror: Mirror,
    room: Room,
    /// There was no room for a checkpoint: not before the journal has this size.
    rewrite_again_at: u64,
    /// Why nothing is written any more.
    failed: Option<Arc<str>>,
}

impl Thread {
    fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut batch = Vec::new();
        while jobs.blocking_recv_many(&mut batch, BATCH) > 0 {
            let result = self.carry_out(&mut batch, &jobs);
            for job in batch.drain(..) {
                job.done.tell(result.as_ref().copied().map_err(|reason| io::Error::other(&**reason)));
            }
        }
        if self.failed.is_none() {
            // What was lazy. A failure loses nothing that was promised.
            let _ = self.journal.flush();
        }
    }

    /// One write and at most one flush for all jobs.
    fn carry_out(&mut self, batch: &mut [Job], jobs: &mpsc::Receiver<Job>) -> Result<(), Arc<str>> {
        if let Some(reason) = &self.failed {
            return Err(Arc::clone(reason));
        }
        let result = self.try_carry_out(batch, jobs).map_err(|error| Arc::from(error.to_string()));
        if let Err(reason) = &result {
            tracing::error!(%reason, "writing the controller's log failed: this controller stops");
            self.failed = Some(Arc::clone(reason));
        }
        result
    }

    fn try_carry_out(&mut self, batch: &mut [Job], jobs: &mpsc::Receiver<Job>) -> Result<(), JournalError> {
        let frames = batch.iter().flat_map(|job| &job.frames);
        let payloads: Vec<&[u8]> = frames.map(|frame| &*frame.bytes).collect();
        if !payloads.is_empty() {
            self.append(&payloads, jobs)?;
        }
        if batch.iter().any(|job| job.done.needs_flush()) {
            self.journal.flush()?;
        }
        for frame in batch.iter_mut().flat_map(|job| job.frames.drain(..)) {
            self.mirror.take(frame);
        }
        self.checkpoint_if_mostly_dead()
    }

    /// Appends once there is room. What waits is in nobody's log, and nobody was told of it.
    fn append(&mut self, payloads: &[&[u8]], jobs: &mpsc::Receiver<Job>) -> Result<(), JournalError> {
        loop {
            match self.journal.append(payloads) {
                Err(error) if error.is_full() => {
                    if !self.room.is_lacking() {
                        let error = &error as &dyn std::error::Error;
                        tracing::error!(
                            error,
                            "no room on the disk: this controller stands still until there is some"
                        );
                    }
                    self.room.lacks();
                    if jobs.is_closed() || !self.room.wait() {
                        return Err(error);
                    }
                }
                appended => {
                    if self.room.found() && appended.is_ok() {
                        tracing::info!("there is room on the disk again: this controller goes on");
                    }
                    return appended;
                }
            }
        }
    }

    fn checkpoint_if_mostly_dead(&mut self) -> Result<(), JournalError> {
        let size = self.journal.size();
        if size < CHECKPOINT_FROM.max(self.rewrite_again_at) || size / 4 < self.mirror.live_bytes() {
            return Ok(());
        }
        match self.journal.rewrite(self.mirror.checkpoint()) {
            // The journal is as it was, only larger than it need be.
            Err(error) if error.is_full() => {
                self.rewrite_again_at = size + CHECKPOINT_FROM;
                return Ok(());
            }
            rewritten => rewritten?,
        }
        self.rewrite_again_at = 0;
        tracing::debug!(before = size, after = self.journal.size(), "controller log checkpointed");
        Ok(())
    }
}
