//! The data folder: whose it is, and that only one process uses it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_core::ControllerId;
use holdfast_log::{Fs, OpenMode, atomic_write, create_dir_synced};
use serde::{Deserialize, Serialize};

use crate::raft::JOURNAL;

const IDENTITY: &str = "controller.json";
const BROKERS_IDENTITY: &str = "broker.json";
const LOCK: &str = "lock";
const FORMAT: u32 = 1;
/// Bytes of `controller.json` that are read at most.
const MAX_IDENTITY: usize = 64 << 10;
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// Why a data folder cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The system refuses.
    #[error("data folder {}", path.display())]
    Io {
        /// The folder or a file in it.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process has it.
    #[error("data folder {} is in use by another process", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// It belongs to somebody else.
    #[error(
        "data folder {} belongs to controller {found_id} of cluster {found_cluster:?}, \
         not to controller {id} of cluster {cluster:?}",
        path.display()
    )]
    NotOurs {
        /// The folder.
        path: PathBuf,
        /// The cluster on record.
        found_cluster: String,
        /// The controller on record.
        found_id: ControllerId,
        /// The cluster configured.
        cluster: String,
        /// The controller configured.
        id: ControllerId,
    },
    /// It belongs to a broker.
    #[error("data folder {} belongs to a broker: give this controller a folder of its own", path.display())]
    ABrokers {
        /// The folder.
        path: PathBuf,
    },
    /// The record of whose it is cannot be read.
    #[error("{} is damaged or of another version: {problem}", path.display())]
    BadIdentity {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The log is gone.
    #[error(
        "{} is missing: this controller has forgotten what it promised and must not come back as it was; \
         replace it by one with a new id and an empty data-dir",
        path.display()
    )]
    LogMissing {
        /// The missing file.
        path: PathBuf,
    },
}

/// What `controller.json` says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Identity {
    format: u32,
    cluster: String,
    id: ControllerId,
}

/// The lock on a data folder, free again when this is dropped or the process ends.
#[derive(Debug)]
pub(crate) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Takes the lock, waiting up to `patience` for a holder that is just ending. Creates the folder if need be.
    pub(crate) fn take(fs: &dyn Fs, dir: &Path, patience: Duration) -> Result<Self, FolderError> {
        let path = dir.join(LOCK);
        let failed = |source| FolderError::Io { path: path.clone(), source };
        create_dir_synced(fs, dir).map_err(failed)?;
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        let until = Instant::now() + patience;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(FolderLock { _file: file }),
                Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(LOCK_RETRY),
                Err(TryLockError::WouldBlock) => return Err(FolderError::InUse { path: dir.to_owned() }),
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
        }
    }
}

/// Checks that the folder is new or belongs to this controller.
pub(crate) fn check_identity(
    fs: &dyn Fs,
    dir: &Path,
    cluster: &str,
    id: ControllerId,
) -> Result<(), FolderError> {
    let path = dir.join(IDENTITY);
    let failed = |source| FolderError::Io { path: path.clone(), source };
    if !fs.exists(&path).map_err(failed)? {
        // Our own name is written last, a broker's first: nothing else tells a new folder from somebody else's.
        return match fs.exists(&dir.join(BROKERS_IDENTITY)).map_err(failed)? {
            true => Err(FolderError::ABrokers { path: dir.to_owned() }),
            false => Ok(()),
        };
    }
    let text = read(fs, &path).map_err(failed)?;
    let bad = |problem: String| FolderError::BadIdentity { path: path.clone(), problem };
    let identity: Identity = serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
    if identity.format != FORMAT {
        return Err(bad(format!("format {} is not {FORMAT}", identity.format)));
    }
    if identity.cluster != cluster || identity.id != id {
        return Err(FolderError::NotOurs {
            path: dir.to_owned(),
            found_cluster: identity.cluster,
            found_id: identity.id,
            cluster: cluster.to_owned(),
            id,
        });
    }
    let journal = dir.join(JOURNAL);
    if fs.exists(&journal).map_err(failed)? { Ok(()) } else { Err(FolderError::LogMissing { path: journal }) }
}

fn read(fs: &dyn Fs, path: &Path) -> io::Result<Bytes> {
    let file = fs.open(path, OpenMode::ReadOnly)?;
    let length = file.len()?;
    file.read_bytes(0, usize::try_from(length).unwrap_or(usize::MAX).min(MAX_IDENTITY))
}

/// Writes down whose the folder is, once there is a log in it.
pub(crate) fn write_identity(
    fs: &dyn Fs,
    dir: &Path,
    cluster: &str,
    id: ControllerId,
) -> Result<(), FolderError> {
    let path = dir.join(IDENTITY);
    let failed = |source| FolderError::Io { path: path.clone(), source };
    if fs.exists(&path).map_err(failed)? {
        return Ok(());
    }
    let identity = Identity { format: FORMAT, cluster: cluster.to_owned(), id };
    let text = serde_json::to_string_pretty(&identity).map_err(|error| failed(error.into()))?;
    atomic_write(fs, &path, text.as_bytes()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use holdfast_log::RealFs;

    use super::*;

    #[test]
    fn a_second_holder_is_refused_until_the_first_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let first = FolderLock::take(&RealFs, dir.path(), Duration::ZERO).unwrap();
        let second = FolderLock::take(&RealFs, dir.path(), Duration::ZERO);
        assert!(matches!(second, Err(FolderError::InUse { .. })));
        drop(first);
        FolderLock::take(&RealFs, dir.path(), Duration::ZERO).unwrap();
    }

    #[test]
    fn folder_of_another_and_folder_without_log_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let check = |cluster: &str, id| check_identity(&RealFs, dir.path(), cluster, ControllerId(id));
        check("a", 1).unwrap();
        std::fs::write(dir.path().join(JOURNAL), b"").unwrap();
        write_identity(&RealFs, dir.path(), "a", ControllerId(1)).unwrap();
        check("a", 1).unwrap();
        assert!(matches!(check("b", 1), Err(FolderError::NotOurs { .. })));
        assert!(matches!(check("a", 2), Err(FolderError::NotOurs { .. })));
        std::fs::remove_file(dir.path().join(JOURNAL)).unwrap();
        assert!(matches!(check("a", 1), Err(FolderError::LogMissing { .. })));
    }
}
