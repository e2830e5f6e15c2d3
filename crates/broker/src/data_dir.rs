//! The data folder: whose it is, that nobody else uses it, and how the last run ended.
//!
//! ```text
//! <data-dir>/broker.json        cluster, broker id, dir id, format; written once
//!            lock               held while a process uses the folder
//!            run.json           boot id of the last run, and whether it ended in order
//!            ballast            room for run.json, where the disk is full
//!            replica-state      journal of promises (state_store)
//!            metadata-map       the last complete map (metadata)
//!            producer-ids.json  ids for new producers, in stock (producer_ids)
//!            partitions/<id>/   one folder per partition
//! ```

use std::fs::{self, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_core::replication::tail_is_lost;
use holdfast_core::{BrokerId, DirId, PartitionId};
use holdfast_log::{CachedFs, Fs, OpenMode, atomic_write, create_dir_synced, is_full};
use serde::{Deserialize, Serialize};

const IDENTITY: &str = "broker.json";
const LOCK: &str = "lock";
/// The folder of the partitions' folders.
pub(crate) const PARTITIONS: &str = "partitions";
/// Between a partition's name and a number, in the name of a folder that was put aside.
pub(crate) const QUARANTINE: &str = ".quarantine-";
/// A file that goes when there is no room to note that a run begins.
const BALLAST: &str = "ballast";
const BALLAST_LEN: usize = 64 << 10;
const FORMAT: u32 = 1;
/// A process that was just killed may hold the lock for a moment.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// Why a data folder cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// The file system said no.
    #[error("{doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Another process runs on it.
    #[error("data folder {} is in use by another process: stop that one first", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// It belongs to somebody else.
    #[error(
        "data folder {} belongs to broker {found_id} of cluster {found_cluster:?}, not to broker {id} of cluster \
         {cluster:?}: set data-dir to this broker's own folder, or to an empty one",
        path.display()
    )]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// Its cluster.
        found_cluster: String,
        /// Its broker.
        found_id: BrokerId,
        /// The cluster configured.
        cluster: String,
        /// The broker configured.
        id: BrokerId,
    },
    /// It holds something, and nothing says that it is a broker's.
    #[error(
        "data folder {} is not empty and not a broker's: {found:?} is in it; set data-dir to this broker's own folder, \
         or to an empty one",
        path.display()
    )]
    NotABrokers {
        /// The folder.
        path: PathBuf,
        /// Something that is in it.
        found: String,
    },
    /// Nothing says that it is a broker's.
    #[error("{} is not a broker's data folder: there is no broker.json in it", path.display())]
    NoIdentity {
        /// The folder.
        path: PathBuf,
    },
    /// Written by a version that this one does not know.
    #[error("{} has format {found}, this version reads format {FORMAT}: use the version that wrote it", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// Not what was written there.
    #[error("{} is damaged: {problem}; restore it from another copy of the folder, or start with an empty one", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Identity {
    format: u32,
    pub(crate) cluster: String,
    pub(crate) broker: BrokerId,
    dir: DirId,
    /// Of the rest: with another `dir` all replicas would be those of somebody else, and be deleted (R46).
    #[serde(default)]
    crc: Option<u32>,
}

impl Identity {
    fn new(cluster: &str, broker: BrokerId, dir: DirId) -> Identity {
        let identity = Identity { format: FORMAT, cluster: cluster.to_owned(), broker, dir, crc: None };
        Identity { crc: Some(identity.checksum()), ..identity }
    }

    fn checksum(&self) -> u32 {
        let Identity { format, cluster, broker, dir, crc: _ } = self;
        crc32c(format!("{format} {broker} {} {cluster}", dir.0).as_bytes())
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct LastRun {
    boot_id: String,
    clean: bool,
}

/// A folder that is ours as long as this lives.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    dir: DirId,
    /// How the run before ended.
    clean: bool,
    same_boot: bool,
    /// Of this run.
    boot_id: String,
    fs: Arc<dyn Fs>,
    /// None where the files are in memory: nobody else can have them.
    _lock: Option<fs::File>,
}

impl DataDir {
    /// Locks the folder, makes it if it is not there, and checks whose it is.
    /// `files` are kept open between uses.
    pub(crate) fn open(
        files: Arc<dyn Fs>,
        path: &Path,
        cluster: &str,
        id: BrokerId,
    ) -> Result<DataDir, DataDirError> {
        // A folder whose name is gone after a power cut has lost everything that was acknowledged.
        create_dir_synced(&*files, path).map_err(io_error("creating", path))?;
        let lock = lock(path)?;
        let fs = Arc::new(CachedFs::of_process(files));
        DataDir::load(fs, path, cluster, id, boot_id(), Some(lock))
    }

    /// On files in memory, in a boot of that name.
    #[cfg(test)]
    pub(crate) fn in_memory(fs: Arc<dyn Fs>, boot_id: &str) -> Result<DataDir, DataDirError> {
        let path = Path::new("/data");
        create_dir_synced(&*fs, path).map_err(io_error("creating", path))?;
        DataDir::load(fs, path, "test", BrokerId(1), boot_id.to_owned(), None)
    }

    fn load(
        fs: Arc<dyn Fs>,
        path: &Path,
        cluster: &str,
        id: BrokerId,
        boot_id: String,
        lock: Option<fs::File>,
    ) -> Result<DataDir, DataDirError> {
        let identity = identity(&*fs, path, cluster, id)?;
        let partitions = path.join(PARTITIONS);
        let used = fs.exists(&partitions).map_err(io_error("looking for", &partitions))?;
        create_dir_synced(&*fs, &partitions).map_err(io_error("creating", path))?;
        DataDir::of(fs, path, identity.dir, boot_id, used, lock)
    }

    fn of(
        fs: Arc<dyn Fs>,
        path: &Path,
        dir: DirId,
        boot_id: String,
        used: bool,
        lock: Option<fs::File>,
    ) -> Result<DataDir, DataDirError> {
        let last: Option<LastRun> = read_json(&*fs, &path.join("run.json"))?;
        Ok(DataDir {
            path: path.to_owned(),
            dir,
            // A folder that was never used lost nothing. Of one that was, and does not say how that ended, the worst is
            // assumed.
            clean: last.as_ref().map_or(!used, |last| last.clean),
            same_boot: last.map_or(!used, |last| last.boot_id == boot_id),
            boot_id,
            fs,
            _lock: lock,
        })
    }

    /// The folder of a broker that does not run, to look at: nothing in it is made or changed. `lock` is what keeps a
    /// broker from starting on it meanwhile.
    pub(crate) fn look_at(
        fs: Arc<dyn Fs>,
        path: &Path,
        lock: Option<fs::File>,
    ) -> Result<(DataDir, Identity), DataDirError> {
        let missing = || DataDirError::NoIdentity { path: path.to_owned() };
        let identity = read_identity(&*fs, path)?.ok_or_else(missing)?;
        let dir = DataDir::of(fs, path, identity.dir, boot_id(), true, lock)?;
        Ok((dir, identity))
    }

    /// From here on a crash is a crash: the clean mark goes, durably, before anything is written. Called once it is
    /// durable which replicas may have lost their tail (R34), because afterwards that cannot be told any more.
    pub(crate) fn begin_run(&self) -> Result<(), DataDirError> {
        let run = LastRun { boot_id: self.boot_id.clone(), clean: false };
        match self.write_run(&run) {
            Err(DataDirError::Io { source, .. }) if is_full(&source) => {
                // What is stored can be read, and deleted, only by a broker that runs.
                let ballast = self.file(BALLAST);
                self.fs.remove_file(&ballast).map_err(io_error("making room by removing", &ballast))?;
                self.write_run(&run)?;
            }
            written => written?,
        }
        self.keep_ballast();
        Ok(())
    }

    /// Keeps a little room for the next start. Nothing depends on it.
    fn keep_ballast(&self) {
        let path = self.file(BALLAST);
        if self.fs.exists(&path).unwrap_or(true) {
            return;
        }
        let file = self.fs.open(&path, OpenMode::Truncate);
        if let Err(error) = file.and_then(|file| file.write_all_at(&[&[0; BALLAST_LEN]], 0)) {
            tracing::debug!(%error, "no room is kept for the next start");
            // It would only be in the way.
            let _ = self.fs.remove_file(&path);
        }
    }

    pub(crate) fn dir_id(&self) -> DirId {
        self.dir
    }

    pub(crate) fn fs(&self) -> Arc<dyn Fs> {
        Arc::clone(&self.fs)
    }

    /// Whether the run before ended in order.
    pub(crate) fn was_clean(&self) -> bool {
        self.clean
    }

    /// R34: whether what was written and not flushed may be gone.
    pub(crate) fn tail_lost(&self) -> bool {
        tail_is_lost(self.clean, self.same_boot)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Content of one of the files directly in the folder; `None` where there is none.
    pub(crate) fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        read(&*self.fs, &self.file(name))
    }

    pub(crate) fn partition(&self, id: PartitionId) -> PathBuf {
        self.path.join(PARTITIONS).join(id.to_string())
    }

    /// Whether the partition has a folder, as far as can be told.
    pub(crate) fn may_hold(&self, id: PartitionId) -> bool {
        self.fs.exists(&self.partition(id)).unwrap_or(true)
    }

    /// Partitions that have a folder.
    pub(crate) fn partitions(&self) -> Result<Vec<PartitionId>, DataDirError> {
        let dir = self.path.join(PARTITIONS);
        let names = self.fs.list(&dir).map_err(io_error("listing", &dir))?;
        Ok(names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect())
    }

    /// Removes a partition's folder for good.
    pub(crate) fn delete_partition(&self, id: PartitionId) -> Result<(), DataDirError> {
        let path = self.partition(id);
        match self.fs.remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("deleting", &path)(error)),
            _ => Ok(()),
        }
    }

    /// Makes durable which partitions have a folder.
    pub(crate) fn sync_partitions(&self) -> Result<(), DataDirError> {
        let parent = self.path.join(PARTITIONS);
        self.fs.sync_dir(&parent).map_err(io_error("syncing", &parent))
    }

    /// Puts a damaged partition aside, for a human to look at.
    pub(crate) fn quarantine_partition(&self, id: PartitionId) -> Result<PathBuf, DataDirError> {
        let path = self.partition(id);
        for number in 1..u32::MAX {
            let aside = self.path.join(PARTITIONS).join(format!("{id}{QUARANTINE}{number}"));
            if !self.fs.exists(&aside).map_err(io_error("looking for", &aside))? {
                self.fs.rename(&path, &aside).map_err(io_error("putting aside", &path))?;
                self.sync_partitions()?;
                return Ok(aside);
            }
        }
        Ok(path)
    }

    /// The run ends in order: everything is flushed.
    pub(crate) fn mark_clean(&self) -> Result<(), DataDirError> {
        self.write_run(&LastRun { boot_id: self.boot_id.clone(), clean: true })
    }

    fn write_run(&self, run: &LastRun) -> Result<(), DataDirError> {
        write_json(&*self.fs, &self.path.join("run.json"), run)
    }
}

fn lock(path: &Path) -> Result<fs::File, DataDirError> {
    let path_of_lock = path.join(LOCK);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path_of_lock)
        .map_err(io_error("opening", &path_of_lock))?;
    let give_up = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < give_up => {
                // The kernel offers no lock with a time limit.
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => return Err(DataDirError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(io_error("locking", &path_of_lock)(source)),
        }
    }
}

/// Keeps brokers away from a folder of theirs while somebody looks at it, and lets others look, too. Writes nothing: where
/// there is no lock, no broker ever ran.
pub(crate) fn lock_to_look(path: &Path) -> Result<Option<fs::File>, DataDirError> {
    if !path.join(IDENTITY).exists() {
        return Err(DataDirError::NoIdentity { path: path.to_owned() });
    }
    let path_of_lock = path.join(LOCK);
    let file = match fs::File::open(&path_of_lock) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("opening", &path_of_lock)(error)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(DataDirError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(io_error("locking", &path_of_lock)(source)),
    }
}

fn identity(fs: &dyn Fs, path: &Path, cluster: &str, id: BrokerId) -> Result<Identity, DataDirError> {
    let Some(found) = read_identity(fs, path)? else {
        refuse_foreign(fs, path)?;
        let made = Identity::new(cluster, id, DirId(rand::random_range(1..=u64::MAX)));
        write_json(fs, &path.join(IDENTITY), &made)?;
        return Ok(made);
    };
    if found.cluster != cluster || found.broker != id {
        return Err(DataDirError::Foreign {
            path: path.to_owned(),
            found_cluster: found.cluster,
            found_id: found.broker,
            cluster: cluster.to_owned(),
            id,
        });
    }
    Ok(found)
}

/// Whose the folder is; `None` where nothing says so.
fn read_identity(fs: &dyn Fs, path: &Path) -> Result<Option<Identity>, DataDirError> {
    let file = path.join(IDENTITY);
    match read_json::<Identity>(fs, &file)? {
        Some(found) if found.format != FORMAT => {
            Err(DataDirError::Format { path: file, found: found.format })
        }
        Some(found) if found.crc.is_some_and(|crc| crc != found.checksum()) => {
            Err(DataDirError::Damaged { path: file, problem: "wrong checksum".to_owned() })
        }
        found => Ok(found),
    }
}

/// A new folder has nothing in it but our lock, and what a new file system brings.
fn refuse_foreign(fs: &dyn Fs, path: &Path) -> Result<(), DataDirError> {
    let names = fs.list(path).map_err(io_error("listing", path))?;
    let strange = names.into_iter().find(|name| name != LOCK && name != "lost+found");
    match strange {
        None => Ok(()),
        Some(name) => Err(DataDirError::NotABrokers {
            path: path.to_owned(),
            found: name.to_string_lossy().into_owned(),
        }),
    }
}

fn read(fs: &dyn Fs, path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match fs.open(path, OpenMode::ReadOnly) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let len = usize::try_from(file.len()?).map_err(io::Error::other)?;
    Ok(Some(file.read_bytes(0, len)?.to_vec()))
}

fn read_json<T: for<'de> Deserialize<'de>>(fs: &dyn Fs, path: &Path) -> Result<Option<T>, DataDirError> {
    let damaged = |error: serde_json::Error| DataDirError::Damaged {
        path: path.to_owned(),
        problem: error.to_string(),
    };
    match read(fs, path) {
        Ok(bytes) => bytes.map(|bytes| serde_json::from_slice(&bytes).map_err(damaged)).transpose(),
        Err(error) => Err(io_error("reading", path)(error)),
    }
}

fn write_json(fs: &dyn Fs, path: &Path, value: &impl Serialize) -> Result<(), DataDirError> {
    let bytes = serde_json::to_vec_pretty(value)
        .map_err(|error| DataDirError::Damaged { path: path.to_owned(), problem: error.to_string() })?;
    atomic_write(fs, path, &bytes).map_err(io_error("writing", path))
}

/// CRC-32C, which fits 32 bits; the library's type serves longer ones too.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    let path = path.to_owned();
    move |source| DataDirError::Io { doing, path, source }
}

/// Changes with every boot of the machine. Where the kernel does not tell, every run counts as another boot.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| format!("unknown-{:016x}", rand::random::<u64>()), |id| id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path, cluster: &str, id: BrokerId) -> Result<DataDir, DataDirError> {
        DataDir::open(Arc::new(holdfast_log::RealFs), path, cluster, id)
    }

    #[test]
    fn a_folder_with_something_else_in_it_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("controller.json"), "{}").unwrap();
        let error = open(folder.path(), "one", BrokerId(1)).unwrap_err();
        assert!(matches!(error, DataDirError::NotABrokers { .. }), "{error}");
        assert!(!folder.path().join("broker.json").exists());
    }

    #[test]
    fn a_used_folder_that_does_not_say_how_its_last_run_ended_may_have_lost_its_tail() {
        let fs = Arc::new(holdfast_log::MemFs::new());
        let fresh = DataDir::in_memory(fs.clone(), "boot").unwrap();
        assert!(fresh.was_clean() && !fresh.tail_lost());
        fresh.mark_clean().unwrap();
        fs.remove_file(Path::new("/data/run.json")).unwrap();
        let used = DataDir::in_memory(fs, "boot").unwrap();
        assert!(!used.was_clean() && used.tail_lost());
    }

    #[test]
    fn a_new_folder_keeps_its_name_in_a_power_cut() {
        // The lock is a file of the operating system all the same.
        let (folder, fs) = (tempfile::tempdir().unwrap(), holdfast_log::MemFs::new());
        let open =
            || DataDir::open(Arc::new(fs.clone()), folder.path(), "one", BrokerId(1)).unwrap().dir_id();
        let dir = open();
        fs.crash();
        assert_eq!(open(), dir);
    }

    #[test]
    fn a_run_begins_on_a_full_disk_too() {
        let fs = Arc::new(holdfast_log::MemFs::new());
        DataDir::in_memory(fs.clone(), "boot").unwrap().begin_run().unwrap();
        for boot in ["boot 2", "boot 3"] {
            fs.set_capacity(Some(fs.used()));
            let begun = DataDir::in_memory(fs.clone(), boot).unwrap().begin_run();
            // The room is used up when the disk is still full at the next start.
            assert_eq!(begun.is_ok(), boot == "boot 2");
            let known = DataDir::in_memory(fs.clone(), boot).unwrap();
            assert!(!known.was_clean() && known.tail_lost() == (boot == "boot 3"));
        }
        fs.set_capacity(None);
        DataDir::in_memory(fs.clone(), "boot 3").unwrap().begin_run().unwrap();
        assert!(fs.exists(Path::new("/data/ballast")).unwrap());
    }

    /// With another data directory id, or another format, everything in the folder would be somebody else's.
    #[test]
    fn a_flipped_bit_never_makes_another_identity() {
        let fs = Arc::new(holdfast_log::MemFs::new());
        let dir = DataDir::in_memory(fs.clone(), "boot").unwrap().dir_id();
        let path = Path::new("/data/broker.json");
        let good = read(&*fs, path).unwrap().unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            atomic_write(&*fs, path, &bad).unwrap();
            if let Ok(opened) = DataDir::in_memory(fs.clone(), "boot") {
                assert_eq!(opened.dir_id(), dir, "bit {bit}");
            }
        }
    }

    #[test]
    fn a_folder_keeps_its_identity_and_refuses_others() {
        let folder = tempfile::tempdir().unwrap();
        let first = open(folder.path(), "one", BrokerId(1)).unwrap();
        let dir = first.dir_id();
        first.mark_clean().unwrap();
        drop(first);
        let again = open(folder.path(), "one", BrokerId(1)).unwrap();
        assert_eq!((again.dir_id(), again.was_clean()), (dir, true));
        again.begin_run().unwrap();
        drop(again);
        let killed = open(folder.path(), "one", BrokerId(1)).unwrap();
        assert!(!killed.was_clean() && !killed.tail_lost(), "the same boot loses nothing that was written");
        drop(killed);
        for (cluster, id) in [("two", 1), ("one", 2)] {
            let error = open(folder.path(), cluster, BrokerId(id)).unwrap_err();
            assert!(matches!(error, DataDirError::Foreign { .. }), "{error}");
        }
    }
}
