//! The note in the folder of a log that it is being repaired, and whether more of it may be gone than is known (R33, R35).
//!
//! Repairing takes away what shows that something is missing: the log is whole again, and a torn tail behind is cut as any other.
//! So that is noted durably first, and stays noted until the replica says it itself.
//!
//! Only one content says that nothing is gone. What cannot be read, or has changed on the disk, counts as the other.

use std::path::{Path, PathBuf};

use crate::{Fs, LogError, OpenMode, atomic_write};

const NOTHING_GONE: &[u8] = b"hfrepair: nothing is known to be gone\n";
const MORE_GONE: &[u8] = b"hfrepair: more may be gone than is known\n";

fn path(dir: &Path) -> PathBuf {
    dir.join("repair")
}

fn is_there(fs: &dyn Fs, dir: &Path) -> Result<bool, LogError> {
    let path = path(dir);
    fs.exists(&path).map_err(LogError::io("looking for the note of a repair", &path))
}

fn write(fs: &dyn Fs, dir: &Path, content: &[u8]) -> Result<(), LogError> {
    let path = path(dir);
    atomic_write(fs, &path, content).map_err(LogError::io("noting a repair", &path))
}

/// Notes that the log is being repaired. What an earlier repair noted stays.
pub(super) fn begin(fs: &dyn Fs, dir: &Path) -> Result<(), LogError> {
    if !is_there(fs, dir)? {
        return write(fs, dir, NOTHING_GONE);
    }
    // The process before may have died between writing the name and syncing it.
    fs.sync_dir(dir).map_err(LogError::io("syncing folder", dir))
}

/// Notes that more may be gone than is known: before the write that hides it.
pub(super) fn note_more_gone(fs: &dyn Fs, dir: &Path) -> Result<(), LogError> {
    write(fs, dir, MORE_GONE)
}

/// A torn tail is about to be cut: if the log was repaired in front of it, it may have been damage, too.
pub(crate) fn before_cut(fs: &dyn Fs, dir: &Path) -> Result<(), LogError> {
    if is_there(fs, dir)? { note_more_gone(fs, dir) } else { Ok(()) }
}

/// Whether more of the log may be gone than is known, now that it could be opened. If not, it is repaired for good.
pub(crate) fn more_is_gone(fs: &dyn Fs, dir: &Path) -> Result<bool, LogError> {
    if !is_there(fs, dir)? {
        return Ok(false);
    }
    let path = path(dir);
    let nothing_gone = fs.open(&path, OpenMode::ReadOnly).and_then(|file| {
        let whole = file.len()? == NOTHING_GONE.len() as u64;
        Ok(whole && file.read_bytes(0, NOTHING_GONE.len())? == NOTHING_GONE)
    });
    if nothing_gone.unwrap_or(false) {
        return remove(fs, dir).map(|()| false);
    }
    Ok(true)
}

/// Takes the note back, durably.
pub(crate) fn remove(fs: &dyn Fs, dir: &Path) -> Result<(), LogError> {
    let path = path(dir);
    match fs.remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(LogError::io("removing the note of a repair", &path)(error))
        }
        _ => fs.sync_dir(dir).map_err(LogError::io("syncing folder", dir)),
    }
}
