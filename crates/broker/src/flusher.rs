//! Group commit: appends that arrive while a flush runs join the next one; there is no timer.
//!
//! A few dirty partitions are flushed side by side, each by its own fdatasync. From `SYNC_ALL_ABOVE` on one syncfs(2)
//! does for all: it waits for what others have written, too, and is cheaper all the same from about a hundred files on
//! (docs/adr/0019-group-commit.md).
//!
//! A file system tells of a write that failed once, to whoever asks it first, and not whose write it was. So one thread at a
//! time asks it, and after a failure none ever again: each file tells of its own.
//!
//! Invariant: at most one job per replica is here or running, so the queue is bounded by the number of replicas.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use holdfast_core::PartitionId;
use holdfast_log::{FlushTicket, Volume};

use crate::data_dir::DataDir;
use crate::fatal::Fatal;
use crate::partition::{Command, ShardSender};

const SYNC_ALL_ABOVE: usize = 100;

/// A partition's unflushed files.
#[derive(Debug)]
pub(crate) struct FlushJob {
    pub(crate) partition: PartitionId,
    pub(crate) generation: u64,
    pub(crate) ticket: FlushTicket,
    pub(crate) reply: ShardSender,
}

/// The outcome of a job.
#[derive(Debug)]
pub(crate) struct Flushed {
    pub(crate) generation: u64,
    pub(crate) ticket: FlushTicket,
    pub(crate) result: io::Result<()>,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<FlushJob>,
    /// The file system as a whole is asked no more.
    one_by_one: bool,
    closed: bool,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    ready: Condvar,
    volume: Mutex<Arc<dyn Volume>>,
    /// The folder stays locked while its files are being flushed.
    _dir: Arc<DataDir>,
}

/// Hands jobs to the flush threads.
#[derive(Debug, Clone)]
pub(crate) struct Flusher {
    shared: Arc<Shared>,
}

impl Flusher {
    pub(crate) fn start(dir: &Arc<DataDir>, threads: usize, fatal: &Fatal) -> io::Result<Flusher> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            ready: Condvar::new(),
            volume: Mutex::new(dir.fs().volume(&dir.file("partitions"))?),
            _dir: Arc::clone(dir),
        });
        for number in 0..threads {
            let (shared, watched) = (Arc::clone(&shared), fatal.watch_thread());
            thread::Builder::new().name(format!("flush-{number}")).spawn(move || {
                let _watched = watched;
                run(&shared);
            })?;
        }
        Ok(Flusher { shared })
    }

    pub(crate) fn submit(&self, job: FlushJob) {
        lock(&self.shared.queue).jobs.push_back(job);
        self.shared.ready.notify_one();
    }

    /// Ends the threads; jobs not begun are dropped, as by a killed process.
    pub(crate) fn close(&self) {
        lock(&self.shared.queue).closed = true;
        self.shared.ready.notify_all();
    }
}

fn run(shared: &Shared) {
    while let Some(jobs) = next(shared) {
        flush(shared, jobs);
    }
}

fn flush(shared: &Shared, jobs: Vec<FlushJob>) {
    let synced = jobs.len() > 1 && sync_all(shared);
    for FlushJob { partition, generation, ticket, reply } in jobs {
        let result = if synced {
            ticket.settle(true);
            Ok(())
        } else {
            ticket.run()
        };
        let flushed = Box::new(Flushed { generation, ticket, result });
        // An error says that the shard is gone, and with it whoever waited.
        let _ = reply.blocking_send(Command::Flushed(partition, flushed));
    }
}

/// Whether everything that was written before the call is on disk.
fn sync_all(shared: &Shared) -> bool {
    let volume = shared.volume.lock().unwrap_or_else(PoisonError::into_inner);
    if lock(&shared.queue).one_by_one {
        return false;
    }
    match volume.sync() {
        Ok(()) => true,
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::error!(
                error,
                "flushing the whole file system failed: each log is flushed by itself from now on"
            );
            lock(&shared.queue).one_by_one = true;
            false
        }
    }
}

/// One job, or all of them where they are many.
fn next(shared: &Shared) -> Option<Vec<FlushJob>> {
    let mut queue = lock(&shared.queue);
    loop {
        if queue.closed {
            return None;
        }
        if queue.jobs.len() >= SYNC_ALL_ABOVE && !queue.one_by_one {
            return Some(queue.jobs.drain(..).collect());
        }
        if let Some(job) = queue.jobs.pop_front() {
            return Some(vec![job]);
        }
        queue = shared.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use holdfast_core::record_batch::RecordBatchBuilder;
    use holdfast_core::{LeaderEpoch, Offset, Term, TopicId};
    use holdfast_log::fs::mem::{Fault, OperationKind};
    use holdfast_log::{LogConfig, MemFs, PartitionLog, Recovery};

    use super::*;
    use crate::partition::shard_queue;

    /// Logs that hold a batch each, which nobody has flushed.
    fn written(dir: &DataDir, indexes: Range<u32>) -> Vec<(PartitionId, PartitionLog)> {
        let mut builder = RecordBatchBuilder::new();
        builder.push(0, None, Some(b"value"), &[]).unwrap();
        let batch = builder.build(None).unwrap().stamped(Offset::ZERO, LeaderEpoch::first(Term(1)));
        let write = |index| {
            let id = PartitionId { topic: TopicId(1), index };
            let (fs, folder) = (dir.fs(), dir.partition(id));
            let opened =
                PartitionLog::open(fs, &folder, LogConfig::default(), Recovery::default(), &mut |_| {});
            let mut log = opened.unwrap().0;
            log.append(std::slice::from_ref(&batch)).unwrap();
            (id, log)
        };
        indexes.map(write).collect()
    }

    /// Flushes these logs at once, and says of how many that went well.
    fn flushed(flusher: &Flusher, logs: &mut [(PartitionId, PartitionLog)]) -> usize {
        let (reply, mut told) = shard_queue();
        let job = |(partition, log): &mut (PartitionId, PartitionLog)| FlushJob {
            partition: *partition,
            generation: 0,
            ticket: log.take_flush().unwrap(),
            reply: reply.clone(),
        };
        flush(&flusher.shared, logs.iter_mut().map(job).collect());
        let results = logs.iter().map(|_| match told.blocking_recv() {
            Some(Command::Flushed(_, flushed)) => flushed.result.is_ok(),
            other => panic!("{other:?}"),
        });
        results.filter(|&well| well).count()
    }

    #[test]
    fn many_logs_are_flushed_at_once() {
        let fs = MemFs::new();
        let dir = Arc::new(DataDir::in_memory(Arc::new(fs.clone()), "boot 1").unwrap());
        let flusher = Flusher::start(&dir, 0, &Fatal::new()).unwrap();
        let mut logs = written(&dir, 0..4);
        let before = fs.operations();
        assert_eq!(flushed(&flusher, &mut logs), 4);
        assert_eq!(fs.operations() - before, 1, "one flush for all");
    }

    /// The file system said once that something could not be written, to those who asked first. What others had written is
    /// gone as well, and they must hear of it when they ask.
    #[test]
    fn a_failed_flush_of_everything_is_not_forgotten_by_those_who_ask_later() {
        let fs = MemFs::new();
        let dir = Arc::new(DataDir::in_memory(Arc::new(fs.clone()), "boot 1").unwrap());
        let flusher = Flusher::start(&dir, 0, &Fatal::new()).unwrap();
        let mut logs = written(&dir, 0..4);
        let (first, later) = logs.split_at_mut(2);
        fs.inject(Fault { kind: Some(OperationKind::SyncData), after: 0, lasting: false });
        assert_eq!(flushed(&flusher, first), 0);
        assert_eq!(flushed(&flusher, later), 0, "what they wrote is not on disk");
        assert!(logs.iter().all(|(_, log)| log.is_poisoned()));
        // Whoever writes after that is flushed as ever.
        let mut fresh = written(&dir, 4..6);
        assert_eq!(flushed(&flusher, &mut fresh), 2);
    }
}
