//! The data folder of a broker that does not run, to look at: whose it is, which logs are in it, and what those have to
//! bear out. Nothing is changed, and no broker starts on the folder meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_core::metadata::ClusterMap;
use holdfast_core::replication::StoredReplica;
use holdfast_core::{BrokerId, LeaderEpoch, Offset, PartitionId};
use holdfast_log::{Fs, JournalError, RealFs, Recovery};

use crate::data_dir::{self, DataDir, DataDirError, Identity, QUARANTINE};
use crate::metadata;
use crate::state_store;

/// A data folder that nobody uses as long as this lives.
#[derive(Debug)]
pub struct StoppedBroker {
    dir: DataDir,
    identity: Identity,
    map: ClusterMap,
    stored: Result<BTreeMap<PartitionId, StoredReplica>, JournalError>,
}

/// A folder with a log in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFolder {
    /// Whose log.
    pub partition: PartitionId,
    /// The number under which it was put aside as damaged; `None` where it is in use.
    pub quarantine: Option<u32>,
    /// Where it is.
    pub path: PathBuf,
}

/// What a log has to bear out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// The highest epoch that it may hold.
    pub promise: LeaderEpoch,
    /// All below is acknowledged or flushed, and has to be there (exclusive).
    pub trusted_end: Offset,
    /// All below is known to be flushed (exclusive).
    pub flushed_end: Offset,
    /// Whether it may have forgotten what it acknowledged (R35): it answers for nothing.
    pub nonvoter: bool,
}

impl StoppedBroker {
    /// Looks at the folder at `path`.
    ///
    /// # Errors
    /// [`DataDirError::InUse`] while a broker runs on it, [`DataDirError::NoIdentity`] where it is no broker's.
    pub fn open(path: &Path) -> Result<StoppedBroker, DataDirError> {
        let lock = data_dir::lock_to_look(path)?;
        StoppedBroker::load(Arc::new(RealFs), path, lock)
    }

    /// The same on files that nobody else can have.
    ///
    /// # Errors
    /// As [`open`](Self::open), but for [`DataDirError::InUse`].
    pub fn on(fs: Arc<dyn Fs>, path: &Path) -> Result<StoppedBroker, DataDirError> {
        StoppedBroker::load(fs, path, None)
    }

    fn load(
        fs: Arc<dyn Fs>,
        path: &Path,
        lock: Option<std::fs::File>,
    ) -> Result<StoppedBroker, DataDirError> {
        let (dir, identity) = DataDir::look_at(fs, path, lock)?;
        // Names are for people; without them there are ids.
        let map = metadata::saved(&dir).unwrap_or_default();
        let stored = state_store::look_at(&dir);
        Ok(StoppedBroker { dir, identity, map, stored })
    }

    /// Whose the folder is.
    pub fn broker(&self) -> BrokerId {
        self.identity.broker
    }

    /// Its cluster.
    pub fn cluster(&self) -> &str {
        &self.identity.cluster
    }

    /// Whether the last run ended in order: then all that is there was flushed.
    pub fn was_clean(&self) -> bool {
        self.dir.was_clean()
    }

    /// The files that the logs are read from.
    pub fn fs(&self) -> Arc<dyn Fs> {
        self.dir.fs()
    }

    /// Why the journal of promises cannot be read, if it cannot: nothing is known then of what logs have to bear out.
    pub fn journal_error(&self) -> Option<&JournalError> {
        self.stored.as_ref().err()
    }

    /// The topic's name, as of the map that was saved last.
    pub fn topic_name(&self, partition: PartitionId) -> Option<&str> {
        self.map.topic(partition.topic).map(|topic| topic.name.as_str())
    }

    /// The folders with logs, by partition, those put aside last. One that holds acknowledged records and is missing is
    /// among them.
    ///
    /// # Errors
    /// [`DataDirError::Io`].
    pub fn logs(&self) -> Result<Vec<LogFolder>, DataDirError> {
        let parent = self.dir.file(data_dir::PARTITIONS);
        let names = match self.dir.fs().list(&parent) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(DataDirError::Io { doing: "listing", path: parent, source }),
        };
        let mut logs: Vec<LogFolder> =
            names.iter().filter_map(|name| LogFolder::named(&parent, name.to_str()?)).collect();
        let found: BTreeSet<PartitionId> =
            logs.iter().filter(|log| log.quarantine.is_none()).map(|log| log.partition).collect();
        let stored = self.stored.iter().flatten();
        let missing = stored.filter(|(id, stored)| !found.contains(id) && self.has_to_be_there(**id, stored));
        logs.extend(missing.map(|(&partition, _)| LogFolder {
            partition,
            quarantine: None,
            path: parent.join(partition.to_string()),
        }));
        logs.sort_by_key(|log| (log.partition, log.quarantine));
        Ok(logs)
    }

    /// Not that of a topic whose deletion was cut off.
    fn has_to_be_there(&self, id: PartitionId, stored: &StoredReplica) -> bool {
        let deleted = self.map.topic(id.topic).is_some_and(|topic| topic.deleted);
        !deleted && Recovery::of(Some(stored), self.was_clean()).trusted_end > Offset::ZERO
    }

    /// From where on whatever is wrong with the log is a torn tail, which the next start of the broker cuts (R33); `None`
    /// where everything that is wrong is damage.
    pub fn torn_from(&self, log: &LogFolder) -> Option<Offset> {
        let may_be_torn = log.quarantine.is_none() && !self.was_clean() && self.stored.is_ok();
        may_be_torn.then(|| self.expected(log).map_or(Offset::ZERO, |expected| expected.trusted_end))
    }

    /// What the log has to bear out; `None` where nothing was ever promised for it, and for one that was put aside.
    pub fn expected(&self, log: &LogFolder) -> Option<Expected> {
        let stored = self.stored.as_ref().ok()?.get(&log.partition)?;
        log.quarantine.is_none().then(|| {
            let recovery = Recovery::of(Some(stored), self.was_clean());
            Expected {
                promise: stored.state.promise,
                trusted_end: recovery.trusted_end,
                flushed_end: recovery.flushed_end,
                nonvoter: stored.state.nonvoter,
            }
        })
    }
}

impl LogFolder {
    fn named(parent: &Path, name: &str) -> Option<LogFolder> {
        let (partition, quarantine) = match name.split_once(QUARANTINE) {
            Some((partition, number)) => (partition, Some(number.parse().ok()?)),
            None => (name, None),
        };
        Some(LogFolder { partition: partition.parse().ok()?, quarantine, path: parent.join(name) })
    }
}

impl fmt::Display for LogFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.quarantine {
            None => self.partition.fmt(f),
            Some(number) => write!(f, "{}{QUARANTINE}{number}", self.partition),
        }
    }
}
