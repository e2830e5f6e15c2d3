//! Files in memory that forget at a crash whatever was not synced, and fail when told to.
//!
//! Harsher than most disks on purpose: after [`MemFs::crash_keeping`] an arbitrary part of the unsynced writes (in
//! blocks of 512 bytes), sizes and names survives, in no order. A failed sync loses what it was to sync for good,
//! while reads go on showing it; where the whole file system was to be synced, each file says so when it is synced next.
//! It may be made so small that it is full from some byte on.
//! Deterministic: the same calls and the same seed leave the same bytes.

mod capacity;
mod fault;
mod inode;
mod names;

use std::ffi::OsString;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use fault::{Fault, OperationKind};

use super::{File, Fs, OpenMode, Space, Volume};
use capacity::Capacity;
use fault::Faults;
use inode::Inode;
use names::{Names, Node};

/// A file system in memory. Clones share it.
#[derive(Clone, Default)]
pub struct MemFs {
    state: Arc<Mutex<State>>,
}

impl std::fmt::Debug for MemFs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the content: whatever is on it would be in every message of a failed test.
        f.write_str("MemFs")
    }
}

#[derive(Debug, Default)]
struct State {
    names: Names,
    capacity: Capacity,
    faults: Faults,
    /// Counts crashes: handles of an earlier life are dead.
    generation: u64,
}

impl MemFs {
    /// An empty one.
    pub fn new() -> MemFs {
        MemFs::default()
    }

    /// Loses everything that was not synced. Faults that were injected are gone, open handles fail from now on.
    pub fn crash(&self) {
        self.crash_with(&mut None);
    }

    /// As [`crash`](Self::crash), but an arbitrary part of what was not synced survives; `seed` decides which.
    pub fn crash_keeping(&self, seed: u64) {
        self.crash_with(&mut Some(Random(seed)));
    }

    fn crash_with(&self, random: &mut Option<Random>) {
        let mut state = self.lock();
        state.generation += 1;
        state.faults = Faults::default();
        state.names.crash(random);
        for inode in state.names.files() {
            lock(&inode).crash(random);
        }
    }

    /// Lets a coming operation fail.
    pub fn inject(&self, fault: Fault) {
        self.lock().faults.inject(fault);
    }

    /// These bytes of a file cannot be read any more until they are written anew, as on a disk with a bad sector.
    ///
    /// # Errors
    /// Where there is no such file.
    pub fn spoil(&self, path: &Path, bytes: Range<u64>) -> io::Result<()> {
        let inode = self.lock().names.file(path)?.ok_or(io::ErrorKind::NotFound)?;
        lock(&inode).spoil(bytes);
        Ok(())
    }

    /// Takes back every fault that was injected and has not happened.
    pub fn clear_faults(&self) {
        self.lock().faults = Faults::default();
    }

    /// How many operations that change something were asked for since creation or the last crash.
    pub fn operations(&self) -> u64 {
        self.lock().faults.operations()
    }

    /// No more than so many bytes of files fit from now on; what is there stays. `None`: as many as there is memory for.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity = Capacity(bytes);
    }

    /// Bytes in all files.
    pub fn used(&self) -> u64 {
        capacity::used(&self.lock().names)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Bytes that files may still grow by.
    fn room(&self) -> Option<u64> {
        let state = self.lock();
        state.capacity.room(&state.names)
    }

    fn begin(&self, kind: OperationKind) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.lock();
        state.faults.check(kind)?;
        Ok(state)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// splitmix64: small, and the same on every machine.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn coin(&mut self) -> bool {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) & 1 == 1
    }
}

impl Fs for MemFs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.begin(OperationKind::Create)?;
        let missing = !state.names.exists(dir);
        if missing {
            state.capacity.check_any(&state.names)?;
        }
        state.names.create_dir_all(dir)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut state = self.lock();
        let existing = state.names.file(path)?;
        let inode = match (existing, mode) {
            (Some(_), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (None, OpenMode::Existing | OpenMode::ReadOnly | OpenMode::Apart) => {
                return Err(io::ErrorKind::NotFound.into());
            }
            (Some(inode), OpenMode::Existing | OpenMode::ReadOnly | OpenMode::Apart) => inode,
            (Some(inode), OpenMode::Truncate) => {
                state.faults.check(OperationKind::SetLen)?;
                lock(&inode).set_len(0);
                inode
            }
            (None, OpenMode::CreateNew | OpenMode::Truncate) => {
                state.faults.check(OperationKind::Create)?;
                state.capacity.check_any(&state.names)?;
                let inode = Arc::new(Mutex::new(Inode::default()));
                state.names.link(path, Node::File(Arc::clone(&inode)))?;
                inode
            }
        };
        let writable = mode != OpenMode::ReadOnly;
        Ok(Arc::new(MemFile { fs: self.clone(), inode, generation: state.generation, writable }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.begin(OperationKind::Rename)?.names.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.begin(OperationKind::Remove)?.names.remove_file(path)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.begin(OperationKind::Remove)?.names.remove_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.lock().names.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.begin(OperationKind::SyncDir)?.names.sync_dir(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.lock().names.exists(path))
    }

    fn volume(&self, _dir: &Path) -> io::Result<Arc<dyn Volume>> {
        Ok(Arc::new(MemVolume(self.clone())))
    }
}

#[derive(Debug)]
struct MemVolume(MemFs);

impl Volume for MemVolume {
    fn sync(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        let allowed = state.faults.check(OperationKind::SyncData);
        for inode in state.names.files() {
            lock(&inode).sync_with_all(allowed.is_ok());
        }
        allowed?;
        state.names.sync_all();
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        let state = self.0.lock();
        Ok(state.capacity.space(&state.names))
    }
}

struct MemFile {
    fs: MemFs,
    inode: Arc<Mutex<Inode>>,
    generation: u64,
    writable: bool,
}

impl std::fmt::Debug for MemFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemFile").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl MemFile {
    /// Checks handle and fault plan. The inner error is an injected one.
    fn begin(&self, kind: OperationKind) -> io::Result<(MutexGuard<'_, Inode>, io::Result<()>)> {
        let mut state = self.fs.lock();
        if state.generation != self.generation {
            return Err(io::Error::other("file was opened before the crash"));
        }
        if !self.writable && matches!(kind, OperationKind::Write | OperationKind::SetLen) {
            return Err(io::Error::other("file was opened for reading only"));
        }
        let allowed = state.faults.check(kind);
        Ok((lock(&self.inode), allowed))
    }
}

impl File for MemFile {
    fn read_exact_at(&self, buffer: &mut [u8], position: u64) -> io::Result<()> {
        let (inode, allowed) = self.begin(OperationKind::Read)?;
        allowed?;
        inode.read(buffer, position)
    }

    fn write_all_at(&self, buffers: &[&[u8]], position: u64) -> io::Result<()> {
        let room = self.fs.room();
        let (mut inode, allowed) = self.begin(OperationKind::Write)?;
        let mut bytes = buffers.concat();
        if allowed.is_err() {
            // Part of it arrives.
            bytes.truncate(bytes.len() / 2);
        }
        let fitting = capacity::fitting(inode.len(), room, position, bytes.len());
        let fits = fitting == bytes.len();
        bytes.truncate(fitting);
        if !bytes.is_empty() {
            inode.write(bytes, position)?;
        }
        allowed?;
        if fits { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    fn sync_data(&self) -> io::Result<()> {
        let (mut inode, allowed) = self.begin(OperationKind::SyncData)?;
        inode.sync(allowed.is_ok());
        allowed?;
        if inode.take_failure() { Err(io::Error::other("an earlier write was lost")) } else { Ok(()) }
    }

    fn len(&self) -> io::Result<u64> {
        let (inode, allowed) = self.begin(OperationKind::Read)?;
        allowed?;
        Ok(inode.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let (mut inode, allowed) = self.begin(OperationKind::SetLen)?;
        allowed?;
        inode.set_len(len);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
