//! What a starting process finds, and what follows from it (R33 to R35): the broker's steps in their order.

use std::path::Path;
use std::sync::Arc;

use holdfast_core::record_batch::RecordBatch;
use holdfast_core::replication::{DurableState, EpochIndex, ProducerTable};
use holdfast_core::{LeaderEpoch, Offset, mutant};
use holdfast_log::{
    Fs, Journal, LogError, OpenMode, PartitionLog, Recovery, atomic_write, create_dir_synced,
};

use super::states::{self, Frame};
use super::{Disk, Open};

const FOLDER: &str = "/data/partitions/0";
const JOURNAL: &str = "/data/replica-state";
const RUN: &str = "/data/run";

/// The files could not be opened: the process ends.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct OpenError(String);

impl OpenError {
    fn of(error: impl std::fmt::Display) -> OpenError {
        OpenError(error.to_string())
    }
}

/// A replica that was found.
#[derive(Debug)]
pub(crate) struct Found {
    /// What it had promised.
    pub(crate) state: DurableState,
    /// Epochs of the log.
    pub(crate) epochs: EpochIndex,
    /// Producers of the log.
    pub(crate) producers: ProducerTable,
    /// A lower bound of the high watermark.
    pub(crate) watermark: Offset,
    /// Whether unflushed data may be gone (R34).
    pub(crate) tail_lost: bool,
    /// Every batch, as read from the files; `None` where one cannot be read.
    pub(crate) batches: Option<Vec<RecordBatch>>,
    /// Bytes of a torn tail that were cut off.
    pub(crate) torn_bytes: u64,
    /// Whether the log was put aside for damage below what was acknowledged.
    pub(crate) quarantined: bool,
    /// Whether the process before ended in order.
    pub(crate) clean: bool,
}

impl Found {
    /// In a line, for the trace.
    pub(crate) fn summary(&self) -> String {
        let Found { state, epochs, watermark, tail_lost, torn_bytes, quarantined, clean, .. } = self;
        let (promise, nonvoter, end) = (state.promise, state.nonvoter, epochs.end());
        format!(
            "promise {promise} nonvoter {nonvoter} end {end} watermark {watermark} tail lost {tail_lost} \
             torn {torn_bytes} put aside {quarantined} clean {clean}"
        )
    }
}

/// The log as opened.
struct Opened {
    log: PartitionLog,
    epochs: EpochIndex,
    producers: ProducerTable,
    torn_bytes: u64,
}

impl Disk {
    /// A process starts: opens the journal and, if there is a replica, its log. `None` if there never was one.
    pub(crate) fn open(&mut self) -> Result<Option<Found>, OpenError> {
        self.failed = false;
        self.breaking = false;
        let clean = self.open_journal()?;
        self.powerless = false;
        if self.stored.is_none() {
            return Ok(None);
        }
        let found = self.find(clean)?;
        // Whatever was to break off the start came too late.
        self.mend();
        Ok(Some(found))
    }

    /// The register names this replica for the first time (R46): an empty log is made.
    pub(crate) fn create(&mut self) -> Result<(), OpenError> {
        if self.open.is_none() {
            self.open_journal()?;
        }
        let opened = self.open_log(Recovery::default()).map_err(OpenError::of)?;
        self.hold(opened.log);
        Ok(())
    }

    /// Opens the journal, and notes which boot this is. Whether the run before ended in order.
    fn open_journal(&mut self) -> Result<bool, OpenError> {
        let fs: Arc<dyn Fs> = Arc::new(self.state_files.clone());
        let mut stored = None;
        create_dir_synced(&*fs, Path::new("/data")).map_err(OpenError::of)?;
        let mut journal = Journal::open(Arc::clone(&fs), Path::new(JOURNAL), &mut |payload| {
            states::take(&mut stored, postcard::from_bytes(payload)?);
            Ok(())
        })
        .map_err(OpenError::of)?;
        let (last_boot, clean) = self.last_run()?;
        if !clean && last_boot != self.boot && stored.is_some() {
            // Durable before the boot is noted: a crash in between must find the loss again.
            if !mutant!(NoteTailLossInMemory) {
                let marked = states::append(&mut journal, &Frame::TailLost).and_then(|()| journal.flush());
                marked.map_err(OpenError::of)?;
            }
            states::take(&mut stored, Frame::TailLost);
        }
        self.stored = stored;
        self.open = Some(Open {
            log: None,
            journal,
            flushing: None,
            wanted: None,
            writing: std::collections::VecDeque::new(),
        });
        self.note_run(false)?;
        Ok(clean)
    }

    /// Number of the boot that the last run was in, and whether it ended in order. A disk that was never used lost
    /// nothing.
    fn last_run(&self) -> Result<(u64, bool), OpenError> {
        let path = Path::new(RUN);
        if !self.state_files.exists(path).map_err(OpenError::of)? {
            return Ok((self.boot, true));
        }
        let file = self.state_files.open(path, OpenMode::Existing).map_err(OpenError::of)?;
        let bytes = file.read_bytes(0, 9).map_err(OpenError::of)?;
        let boot = bytes.first_chunk::<8>().map_or(0, |boot| u64::from_be_bytes(*boot));
        Ok((boot, bytes.get(8) == Some(&1)))
    }

    pub(super) fn note_run(&self, clean: bool) -> Result<(), OpenError> {
        let mut content = self.boot.to_be_bytes().to_vec();
        content.push(u8::from(clean));
        atomic_write(&self.state_files, Path::new(RUN), &content).map_err(OpenError::of)
    }

    fn find(&mut self, clean: bool) -> Result<Found, OpenError> {
        let mut quarantined = false;
        let opened = match self.open_log(self.recovery(clean)) {
            Err(LogError::Corrupt { .. }) => {
                quarantined = true;
                self.put_aside()?
            }
            opened => opened.map_err(OpenError::of)?,
        };
        let stored = self.stored.clone().ok_or_else(|| OpenError("no state is stored".to_owned()))?;
        let end = opened.log.log_end_offset();
        self.flushed = self.flushed.min(end);
        self.hold(opened.log);
        // Below the trusted end of sealed segments only headers were read: damage there is found when it is asked for.
        let batches = self.read_all();
        // A log never holds an epoch above the promise (REP-6).
        let promise = stored.state.promise.max(opened.epochs.last_epoch());
        Ok(Found {
            state: DurableState { promise, ..stored.state },
            epochs: opened.epochs,
            producers: opened.producers,
            watermark: if quarantined { Offset::ZERO } else { stored.checkpoint.high_watermark },
            tail_lost: stored.tail_lost,
            batches,
            torn_bytes: opened.torn_bytes,
            quarantined,
            clean,
        })
    }

    /// What is known of the log (R33).
    fn recovery(&self, clean: bool) -> Recovery {
        let Some(stored) = &self.stored else { return Recovery::default() };
        let checkpoint = stored.checkpoint;
        let trusted_end = if stored.state.nonvoter {
            // It answers for nothing, so there is nothing to miss: everything is verified, and cut where it is bad.
            Offset::ZERO
        } else if stored.tail_lost {
            checkpoint.durable_end
        } else {
            checkpoint.durable_end.max(checkpoint.high_watermark)
        };
        let flushed_end = if stored.state.nonvoter { Offset::ZERO } else { checkpoint.durable_end };
        Recovery { trusted_end, flushed_end, clean: clean && !stored.state.nonvoter }
    }

    fn open_log(&self, recovery: Recovery) -> Result<Opened, LogError> {
        let fs: Arc<dyn Fs> = Arc::new(self.log_files.clone());
        let (mut epochs, mut producers) = (EpochIndex::default(), ProducerTable::default());
        let folder = Path::new(FOLDER);
        let io = |source| LogError::Io { doing: "creating folder", path: folder.to_owned(), source };
        create_dir_synced(&*fs, Path::new("/data/partitions")).map_err(io)?;
        let (log, opened) = PartitionLog::open(fs, folder, self.config.clone(), recovery, &mut |header| {
            epochs.append(header.epoch.unwrap_or(LeaderEpoch::ZERO), header.next_offset());
            producers.append(header);
        })?;
        Ok(Opened { log, epochs, producers, torn_bytes: opened.cut_bytes })
    }

    /// Acknowledged data is gone: the log is put aside, and the replica votes no more, durably, before anything else
    /// (R35).
    fn put_aside(&mut self) -> Result<Opened, OpenError> {
        if let (Some(open), Some(stored)) = (&mut self.open, &self.stored) {
            let state = DurableState { nonvoter: true, ..stored.state.clone() };
            let noted = states::append(&mut open.journal, &Frame::State(state.clone()));
            noted.and_then(|()| open.journal.flush()).map_err(OpenError::of)?;
            states::take(&mut self.stored, Frame::State(state));
        }
        self.remove_log().map_err(OpenError::of)?;
        self.open_log(Recovery::default()).map_err(OpenError::of)
    }

    pub(super) fn remove_log(&mut self) -> std::io::Result<()> {
        self.log_files.remove_dir_all(Path::new(FOLDER))?;
        self.log_files.sync_dir(Path::new("/data/partitions"))?;
        self.flushed = Offset::ZERO;
        self.rotten = false;
        Ok(())
    }

    fn hold(&mut self, log: PartitionLog) {
        if let Some(open) = &mut self.open {
            open.log = Some(log);
        }
    }

    /// Files of the log in order, with the number of bytes in each.
    pub(super) fn log_files(&self) -> Vec<(std::path::PathBuf, u64)> {
        let names = self.log_files.list(Path::new(FOLDER)).unwrap_or_default();
        let sized = names.into_iter().filter_map(|name| {
            let path = Path::new(FOLDER).join(name);
            let len = self.log_files.open(&path, OpenMode::Existing).ok()?.len().ok()?;
            Some((path, len))
        });
        sized.collect()
    }
}
