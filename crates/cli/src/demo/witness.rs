//! Keeps the history of a demo: the checker sees every event at once, and a file has them all where one is wanted.
//!
//! ```text
//!  writers, settlers, readers ──► Witness ──┬─► checker   forgets events; memory for what is under way
//!                                           └─► recorder  only with a file: about 250 bytes a record
//! ```
//! Every record is a send of its own, whatever batches the producer makes. Values of a partition count up, so that the
//! checker holds a log of any length in a few runs.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use holdfast_checker::history::{RecordError, Recording};
use holdfast_checker::{Checker, Counts, Event, Key, Malformed, Recorder, Report, locate_in_file};

/// Values of one partition: the number of the partition is above this many bits.
const PARTITION_SHIFT: u32 = 40;

/// The value of a record, unique in the topic.
pub(super) fn value(partition: u32, number: u64) -> u64 {
    (u64::from(partition) << PARTITION_SHIFT) | number
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub(super) enum WitnessError {
    /// The file cannot be made.
    #[error("making the history's file: {0}")]
    Create(#[source] std::io::Error),
    /// The file is not whole.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The demo recorded nonsense.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The file cannot be read again.
    #[error(transparent)]
    Locate(#[from] holdfast_checker::FileError),
}

/// Takes what clients do and see, in the order of the calls.
#[derive(Debug)]
pub(super) struct Witness {
    begun: Instant,
    keys: Vec<Key>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    checker: Checker,
    lines: u64,
    processes: u64,
    file: Option<HistoryFile>,
    /// The first thing that went wrong; nothing is taken from then on.
    failed: Option<WitnessError>,
}

#[derive(Debug)]
struct HistoryFile {
    path: PathBuf,
    recorder: Recorder,
    recording: Recording,
}

impl HistoryFile {
    fn create(path: &Path) -> Result<HistoryFile, WitnessError> {
        let (recorder, recording) = Recorder::create(path).map_err(WitnessError::Create)?;
        Ok(HistoryFile { path: path.to_owned(), recorder, recording })
    }
}

impl Witness {
    /// Of a topic, with a file where a path is given.
    pub(super) fn new(topic: &str, partitions: u32, path: Option<&Path>) -> Result<Witness, WitnessError> {
        let file = path.map(HistoryFile::create).transpose()?;
        let state = State { checker: Checker::new(), lines: 0, processes: 0, file, failed: None };
        Ok(Witness {
            begun: Instant::now(),
            keys: (0..partitions).map(|partition| format!("{topic}/{partition}").into()).collect(),
            state: Mutex::new(state),
        })
    }

    /// Microseconds since the beginning.
    pub(super) fn now_us(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The key of a partition.
    pub(super) fn key(&self, partition: u32) -> Option<&Key> {
        self.keys.get(partition as usize)
    }

    /// The keys of all partitions.
    pub(super) fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// The number of a process that was never there before.
    pub(super) fn new_process(&self) -> u64 {
        let mut state = self.lock();
        state.processes += 1;
        state.processes
    }

    /// Takes events. Waits for the disk only where the history goes to a file that is slower than the load, and no
    /// longer than a recorder does.
    pub(super) fn note(&self, events: impl IntoIterator<Item = Event>) {
        let mut state = self.lock();
        for event in events {
            if state.failed.is_none()
                && let Err(error) = state.take(&event)
            {
                state.failed = Some(error);
            }
        }
    }

    /// How much was taken.
    pub(super) fn counts(&self) -> Counts {
        self.lock().checker.counts().clone()
    }

    /// The highest offset of a partition that anybody was told of.
    pub(super) fn highest_offset(&self, key: &str) -> Option<u64> {
        self.lock().checker.highest_offset(key)
    }

    /// The verdict on all that was taken; nothing is taken afterwards.
    pub(super) fn finish(&self) -> Result<Report, WitnessError> {
        let mut state = self.lock();
        let file = state.file.take().map(|file| (file.path, file.recording.finish()));
        if let Some(error) = state.failed.take() {
            return Err(error);
        }
        let mut report = std::mem::take(&mut state.checker).finish();
        if let Some((path, finished)) = file {
            finished?;
            locate_in_file(&mut report, &path)?;
        }
        Ok(report)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, event: &Event) -> Result<(), WitnessError> {
        self.lines += 1;
        if let Some(file) = &self.file {
            file.recorder.record(event)?;
        }
        Ok(self.checker.observe(self.lines, event)?)
    }
}

#[cfg(test)]
mod tests {
    use holdfast_checker::Verdict;
    use holdfast_checker::history::{PollStage, SendStage};

    use super::*;

    #[test]
    fn the_verdict_is_that_of_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let witness = Witness::new("demo", 2, Some(file.path())).unwrap();
        let key = witness.key(1).unwrap().clone();
        let process = witness.new_process();
        let send = |op, stage| Event::send(op, process, op, &key, vec![value(1, op)], stage);
        for op in 0..3 {
            witness.note([send(op, SendStage::Invoke { deadline_us: None })]);
            witness.note([send(op, SendStage::Ok { base_offset: op, epoch: Some(1) })]);
        }
        assert_eq!((witness.highest_offset(&key), witness.counts().values.acked), (Some(2), 3));
        let reader = witness.new_process();
        witness.note([Event::begin_final(10), Event::assign(11, reader, 0, &key, 0)]);
        let records = vec![(0, value(1, 0)), (2, value(1, 2))];
        witness.note([
            Event::poll(12, reader, 1, &key, PollStage::Invoke),
            Event::poll(13, reader, 1, &key, PollStage::Ok { records, high_watermark: Some(3) }),
        ]);
        let report = witness.finish().unwrap();
        assert_eq!(report.verdict, Verdict::Invalid);
        assert_eq!(report, holdfast_checker::judge_file(file.path()).unwrap());
    }

    #[test]
    fn values_of_partitions_differ() {
        assert_ne!(value(0, 1), value(1, 0));
        assert_eq!(value(3, 7) + 1, value(3, 8));
    }
}
