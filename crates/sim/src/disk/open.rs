//! What a starting process finds, and what follows from it (R33 to R35): the broker's steps in their order.

use std::path::Path;
use std::sync::Arc;

use holdfast_core::record_batch::RecordBatch;
use holdfast_core::replication::{Checkpoint, FoundLog, Loaded, StoredReplica, tail_is_lost};
use holdfast_core::{Incarnation, Offset, ReplicaId, mutant};
use holdfast_log::{
    Fs, Journal, LogError, OpenMode, Opened, PartitionLog, ReplicaLogError, atomic_write, create_dir_synced,
    open_replica,
};

use super::states::{self, Frame};
use super::{Disk, Open};

const PARTITIONS: &str = "/data/partitions";
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
    /// What it starts from.
    pub(crate) loaded: Loaded,
    /// Every batch from the log start on, as read from the files; `None` where one cannot be read.
    pub(crate) batches: Option<Vec<RecordBatch>>,
    /// Bytes of a torn tail that were cut off.
    pub(crate) torn_bytes: u64,
    /// Whether the log was read from a checkpoint on only.
    pub(crate) resumed: bool,
    /// Whether the process before ended in order.
    pub(crate) clean: bool,
}

impl Found {
    /// In a line, for the trace.
    pub(crate) fn summary(&self) -> String {
        let Found { loaded, torn_bytes, clean, .. } = self;
        let Loaded { state, epochs, high_watermark, tail_lost, damaged, .. } = loaded;
        let (promise, nonvoter) = (state.promise, state.nonvoter);
        let (start, end) = (epochs.base().end, epochs.end());
        format!(
            "promise {promise} nonvoter {nonvoter} start {start} end {end} watermark {high_watermark} tail lost {tail_lost} \
             torn {torn_bytes} put aside {damaged} clean {clean}"
        )
    }
}

impl Disk {
    /// That run of the process starts: opens the journal and, if there is a replica, its log. `None` if there never was
    /// one.
    pub(crate) fn open(
        &mut self,
        me: ReplicaId,
        incarnation: Incarnation,
    ) -> Result<Option<Found>, OpenError> {
        self.failed = false;
        self.breaking = false;
        let clean = self.open_journal()?;
        self.powerless = false;
        let Some(stored) = self.stored.clone() else { return Ok(None) };
        let found = self.find(me, incarnation, &stored, clean)?;
        // Whatever was to break off the start came too late.
        self.mend();
        Ok(Some(found))
    }

    /// The register names this replica for the first time (R46): an empty log is made.
    pub(crate) fn create(&mut self) -> Result<(), OpenError> {
        if self.open.is_none() {
            self.open_journal()?;
        }
        let (log, ..) = self.open_log(None, false).map_err(OpenError::of)?;
        self.hold(log);
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
        if tail_is_lost(clean, last_boot == self.boot) && stored.is_some() {
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
            trims: Vec::new(),
            flushing: None,
            wanted: None,
            writing: std::collections::VecDeque::new(),
            noted: Checkpoint::default(),
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

    fn find(
        &mut self,
        me: ReplicaId,
        incarnation: Incarnation,
        stored: &StoredReplica,
        clean: bool,
    ) -> Result<Found, OpenError> {
        let (log, found, opened) = match self.open_log(Some(stored), clean) {
            Err(damage) if damage.is_damage() => {
                self.remove_log().map_err(OpenError::of)?;
                self.put_aside = true;
                let (log, found, opened) = self.open_log(None, clean).map_err(OpenError::of)?;
                (log, FoundLog { put_aside: true, ..found }, opened)
            }
            opened => opened.map_err(OpenError::of)?,
        };
        self.flushed = self.flushed.min(log.log_end_offset());
        self.hold(log);
        // Below the trusted end of sealed segments only headers were read: damage there is found when it is asked for.
        let batches = self.read_all();
        let loaded = Loaded::found(me, incarnation, stored, found);
        self.note_start(stored, &loaded)?;
        let resumed = batches.as_ref().is_some_and(|batches| (opened.batches as usize) < batches.len());
        Ok(Found { loaded, batches, torn_bytes: opened.cut_bytes, resumed, clean })
    }

    fn note_start(&mut self, stored: &StoredReplica, loaded: &Loaded) -> Result<(), OpenError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        open.noted = stored.checkpoint_of(loaded);
        if open.noted != stored.checkpoint {
            let frame = Frame::Checkpoint(open.noted);
            states::append(&mut open.journal, &frame).map_err(OpenError::of)?;
            states::take(&mut self.stored, frame);
        }
        Ok(())
    }

    /// As the broker does: `stored` says how far the log is trusted.
    fn open_log(
        &self,
        stored: Option<&StoredReplica>,
        clean: bool,
    ) -> Result<(PartitionLog, FoundLog, Opened), ReplicaLogError> {
        let fs: Arc<dyn Fs> = Arc::new(self.log_files.clone());
        let (folder, parent) = (Path::new(FOLDER), Path::new(PARTITIONS));
        let io = |source| LogError::Io { doing: "creating folder", path: parent.to_owned(), source };
        create_dir_synced(&*fs, parent).map_err(|source| ReplicaLogError::Log(io(source)))?;
        open_replica(fs, folder, self.config.clone(), stored, clean)
    }

    pub(super) fn remove_log(&mut self) -> std::io::Result<()> {
        self.log_files.remove_dir_all(Path::new(FOLDER))?;
        self.log_files.sync_dir(Path::new(PARTITIONS))?;
        (self.flushed, self.trimmed) = (Offset::ZERO, Offset::ZERO);
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
