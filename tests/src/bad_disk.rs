//! Real files on a disk that a test may fill, or break.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_log::{File, Fs, OpenMode, RealFs, Space, Volume};

/// What is wrong with the disk.
#[derive(Debug, Default)]
struct Faults {
    /// Bytes that are said to be free; `None`: those that are.
    free: Option<u64>,
    /// Whether nothing gets longer and no name is made.
    full: bool,
    /// Whether the next flush of a partition fails.
    flush_fails: bool,
}

/// A disk. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct BadDisk {
    faults: Arc<Mutex<Faults>>,
}

impl BadDisk {
    /// It says that so many bytes are free.
    pub fn says_free(&self, bytes: u64) {
        self.lock().free = Some(bytes);
    }

    /// Nothing fits any more.
    pub fn fill(&self) {
        *self.lock() = Faults { free: Some(0), full: true, ..Faults::default() };
    }

    /// It is as good as new.
    pub fn mend(&self) {
        *self.lock() = Faults::default();
    }

    /// The next flush of a partition fails, and the ones after it go well.
    pub fn fail_next_flush(&self) {
        self.lock().flush_fails = true;
    }

    fn lock(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_room(&self) -> io::Result<()> {
        if self.lock().full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    /// Once.
    fn flush_fails(&self) -> bool {
        std::mem::take(&mut self.lock().flush_fails)
    }
}

#[derive(Debug)]
struct BadFile {
    inner: Arc<dyn File>,
    disk: BadDisk,
    of_a_partition: bool,
}

impl File for BadFile {
    fn read_exact_at(&self, buffer: &mut [u8], position: u64) -> io::Result<()> {
        self.inner.read_exact_at(buffer, position)
    }

    fn write_all_at(&self, buffers: &[&[u8]], position: u64) -> io::Result<()> {
        let bytes = buffers.concat();
        let fitting =
            if self.disk.lock().full { self.inner.len()?.saturating_sub(position) } else { u64::MAX };
        let fitting = usize::try_from(fitting).unwrap_or(usize::MAX).min(bytes.len());
        self.inner.write_all_at(&[&bytes[..fitting]], position)?;
        if fitting < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.of_a_partition && self.disk.flush_fails() {
            return Err(io::Error::other("a flush that a test lets fail"));
        }
        self.inner.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }
}

#[derive(Debug)]
struct BadVolume {
    inner: Arc<dyn Volume>,
    disk: BadDisk,
}

impl Volume for BadVolume {
    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }

    fn space(&self) -> io::Result<Space> {
        let space = self.inner.space()?;
        Ok(Space { free: self.disk.lock().free.unwrap_or(space.free), ..space })
    }
}

impl Fs for BadDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.check_room()?;
        RealFs.create_dir_all(dir)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        if matches!(mode, OpenMode::CreateNew | OpenMode::Truncate) {
            self.check_room()?;
        }
        let of_a_partition = path.iter().any(|part| part == "partitions");
        Ok(Arc::new(BadFile { inner: RealFs.open(path, mode)?, disk: self.clone(), of_a_partition }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealFs.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        RealFs.remove_file(path)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        RealFs.remove_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        RealFs.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealFs.sync_dir(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        RealFs.exists(path)
    }

    fn volume(&self, dir: &Path) -> io::Result<Arc<dyn Volume>> {
        Ok(Arc::new(BadVolume { inner: RealFs.volume(dir)?, disk: self.clone() }))
    }
}
