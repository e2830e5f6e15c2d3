//! The file system as the log needs it: positional reads and writes, and explicit durability.
//!
//! Invariant for users: bytes are durable after `sync_data` of the file, names after `sync_dir` of their folder,
//! nothing before.

pub mod cached;
#[cfg(test)]
pub(crate) mod hooked;
pub mod mem;
pub mod real;

use std::ffi::OsString;
use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

/// Bytes that are written again at once.
const WRITE_AGAIN_CHUNK: usize = 1 << 20;

/// Whether a file must exist, or must not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// It must exist.
    Existing,
    /// It must exist, and is only read: writing to it fails.
    ReadOnly,
    /// It must exist, and nobody else is given this handle: what is told of failed writes to whoever flushes it is missed
    /// by none of the others.
    Apart,
    /// It must not exist and is created empty.
    CreateNew,
    /// It is created, or emptied if it exists.
    Truncate,
}

/// An open file. Usable from many threads at once; calls do not share a position.
pub trait File: Send + Sync + Debug {
    /// Fills `buffer` from `position` on; `UnexpectedEof` if the file ends before.
    fn read_exact_at(&self, buffer: &mut [u8], position: u64) -> io::Result<()>;

    /// Reads exactly `len` bytes from `position` on; `UnexpectedEof` if the file ends before. The caller bounds `len`.
    fn read_bytes(&self, position: u64, len: usize) -> io::Result<Bytes> {
        let mut buffer = vec![0; len];
        self.read_exact_at(&mut buffer, position)?;
        Ok(Bytes::from(buffer))
    }

    /// Writes all `buffers`, one behind the other, from `position` on. After an error any part may be written.
    fn write_all_at(&self, buffers: &[&[u8]], position: u64) -> io::Result<()>;

    /// Makes content and size durable. After an error nothing is known of what was written since the last success,
    /// and trying again proves nothing.
    fn sync_data(&self) -> io::Result<()>;

    /// Size in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the size is 0.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts the file, or extends it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Bytes that are flushed, and that nobody will read soon, need not be kept in memory: the next read of them asks the
    /// disk. A hint.
    fn forget(&self, _position: u64, _len: u64) {}
}

/// A mounted file system, held open so that it reports every write error since (Linux 5.8 and later).
pub trait Volume: Send + Sync + Debug {
    /// Makes everything on it durable, other people's data included: syncfs(2).
    fn sync(&self) -> io::Result<()>;

    /// How much fits, and how much of that is free: fstatvfs(2).
    fn space(&self) -> io::Result<Space>;
}

/// Bytes of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// All of them.
    pub total: u64,
    /// Those that this process may still take.
    pub free: u64,
}

/// Whether the file system, or what this process may take of it, is full.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Names of files and folders.
pub trait Fs: Send + Sync + Debug {
    /// Creates a folder and those above it where they are missing. Not durable: see [`create_dir_synced`].
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Opens a file for reading and, in all modes but one, writing.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;

    /// Renames within one folder, replacing what is there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Handles that are open keep working.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes a folder and all in it.
    fn remove_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// The names in a folder, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>>;

    /// Makes durable what was created, renamed and removed directly in this folder.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Whether there is a file or folder of that name.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// The file system that holds `dir`, for flushing many files at once.
    fn volume(&self, dir: &Path) -> io::Result<Arc<dyn Volume>>;
}

/// Creates `dir` and the missing folders above it, durably.
pub fn create_dir_synced(fs: &dyn Fs, dir: &Path) -> io::Result<()> {
    let mut missing = Vec::new();
    for ancestor in dir.ancestors().filter(|ancestor| !ancestor.as_os_str().is_empty()) {
        if fs.exists(ancestor)? {
            break;
        }
        missing.push(ancestor);
    }
    if missing.is_empty() {
        return Ok(());
    }
    fs.create_dir_all(dir)?;
    // From the top down: a folder is no use while the name above it may vanish.
    for created in missing.iter().rev() {
        fs.sync_dir(parent_of(created))?;
    }
    Ok(())
}

/// Replaces the file at `path`: after a crash at any moment it holds the old or the new content, whole.
/// The new content is durable on return.
pub fn atomic_write(fs: &dyn Fs, path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = temporary_path(path);
    let file = fs.open(&temporary, OpenMode::Truncate)?;
    file.write_all_at(&[content], 0)?;
    file.sync_data()?;
    fs.rename(&temporary, path)?;
    fs.sync_dir(parent_of(path))
}

/// Writes the bytes from `from` up to `to` (exclusive) over themselves, so that the next sync really writes them.
///
/// After a failed sync the system may hold bytes in memory as if they were on disk, and whoever opens the file later
/// reads them. Only writing them again makes a later successful sync mean anything.
pub(crate) fn write_again(file: &dyn File, mut from: u64, to: u64) -> io::Result<()> {
    while from < to {
        let len = usize::try_from(to - from).unwrap_or(usize::MAX).min(WRITE_AGAIN_CHUNK);
        let bytes = file.read_bytes(from, len)?;
        file.write_all_at(&[&bytes], from)?;
        from += len as u64;
    }
    Ok(())
}

/// Where the new content of `path` is prepared. Leftovers of a crash are overwritten by the next attempt.
pub(crate) fn temporary_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    PathBuf::from(name)
}

/// The folder that holds `path`'s name.
pub(crate) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}
