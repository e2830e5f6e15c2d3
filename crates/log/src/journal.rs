//! An append-only file of checksummed frames, for small durable state: promises of replicas, Raft's log and vote.
//!
//! The first frame says what the file is and in which version. An empty frame closes what [`Journal::rewrite`]
//! wrote and carries nothing.
//!
//! Invariants:
//! - What was flushed is read back whole or reported as damaged; it is never cut. What was not flushed may be
//!   missing after a crash, from some frame on.
//! - The one exception: damage to the very last frames of a file, those behind the last flush that a later frame
//!   tells of, cannot be told from a torn write.

mod error;
mod frame;
mod scan;

#[cfg(test)]
mod tests;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use error::JournalError;

use crate::fs::{atomic_write, is_full, parent_of, temporary_path, write_again};
use crate::{File, Fs, OpenMode};
use frame::{FRAME_OVERHEAD, FrameHead, MAX_PAYLOAD};
use scan::FrameScan;

const MAGIC: &[u8; 8] = b"hfjournl";
const VERSION: u32 = 1;
/// Bytes collected before they are written when a journal is rewritten.
const REWRITE_CHUNK: usize = 1 << 20;

/// What reading a frame back may fail with.
pub type VisitError = Box<dyn Error + Send + Sync>;

/// A journal, held by its one writer.
#[derive(Debug)]
pub struct Journal {
    fs: Arc<dyn Fs>,
    path: PathBuf,
    shared: Arc<Mutex<State>>,
}

/// What the writer shares with its flushers.
#[derive(Debug)]
struct State {
    file: Arc<dyn File>,
    /// Size of the file in bytes.
    written: u64,
    /// How much of it is known to be durable.
    flushed: u64,
    /// Counts files: a flush of an earlier one says nothing about this one.
    generation: u64,
    poisoned: bool,
}

fn lock(shared: &Mutex<State>) -> MutexGuard<'_, State> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Journal {
    /// Opens the journal at `path`, or creates it, durably. Every payload goes to `visit` in order; if `visit` fails,
    /// so does this, and nothing on disk is changed. A torn tail is cut. All that was visited is durable on return.
    pub fn open(
        fs: Arc<dyn Fs>,
        path: &Path,
        visit: &mut dyn FnMut(&[u8]) -> Result<(), VisitError>,
    ) -> Result<Journal, JournalError> {
        if !fs.exists(path).map_err(JournalError::io("looking for journal", path))? {
            let first = encode_frame(0, 0, &first_payload());
            atomic_write(&*fs, path, &first).map_err(JournalError::io("creating journal", path))?;
        }
        let file = fs.open(path, OpenMode::Existing).map_err(JournalError::io("opening journal", path))?;
        let len = file.len().map_err(JournalError::io("reading size of journal", path))?;
        let Extent { flushed, end } = read_back(&*file, len, path, visit)?;
        if end < len {
            file.set_len(end).map_err(JournalError::io("cutting torn tail of journal", path))?;
        }
        // A process that was killed, or whose flush failed, leaves frames that are in the system's memory only;
        // whoever reads them may act on them.
        let synced = write_again(&*file, flushed, end)
            .and_then(|()| file.sync_data())
            .and_then(|()| fs.sync_dir(parent_of(path)));
        synced.map_err(JournalError::io("flushing journal", path))?;
        let state = State { file, written: end, flushed: end, generation: 0, poisoned: false };
        Ok(Journal { fs, path: path.to_owned(), shared: Arc::new(Mutex::new(state)) })
    }

    /// Appends one frame per payload, in one write. Durable only after a flush. A failed write poisons the journal; one for
    /// which there was no room is taken back, and may be tried again.
    pub fn append(&mut self, payloads: &[&[u8]]) -> Result<(), JournalError> {
        payloads.iter().try_for_each(|payload| check_len(payload))?;
        let mut state = lock(&self.shared);
        if state.poisoned {
            return Err(JournalError::Poisoned);
        }
        let start = state.written;
        let mut end = start;
        let mut heads = Vec::with_capacity(payloads.len());
        for payload in payloads {
            let head = FrameHead::new(end, state.flushed, payload);
            end += head.frame_len() as u64;
            heads.push(head.encode());
        }
        let buffers: Vec<&[u8]> =
            heads.iter().zip(payloads).flat_map(|(head, payload)| [&head[..], payload]).collect();
        if let Err(error) = state.file.write_all_at(&buffers, start) {
            let taken_back = is_full(&error) && state.file.set_len(start).is_ok();
            state.poisoned = !taken_back;
            return Err(JournalError::io("writing journal", &self.path)(error));
        }
        state.written = end;
        Ok(())
    }

    /// Makes all that was appended durable. A failure poisons the journal.
    pub fn flush(&mut self) -> Result<(), JournalError> {
        self.flusher().flush()
    }

    /// A handle that flushes on another thread while this one goes on appending.
    pub fn flusher(&self) -> JournalFlusher {
        JournalFlusher { path: self.path.clone(), shared: Arc::clone(&self.shared) }
    }

    /// Size of the file in bytes.
    pub fn size(&self) -> u64 {
        lock(&self.shared).written
    }

    /// Replaces the whole content, durably: after a crash at any moment the journal holds the old or the new frames.
    /// A failure before the new file takes the old one's place leaves the journal as it was.
    pub fn rewrite<P: AsRef<[u8]>>(
        &mut self,
        payloads: impl IntoIterator<Item = P>,
    ) -> Result<(), JournalError> {
        if lock(&self.shared).poisoned {
            return Err(JournalError::Poisoned);
        }
        let temporary = temporary_path(&self.path);
        let (file, written) = self.write_new(&temporary, payloads).inspect_err(|error| {
            if error.is_full() {
                // What is in the way of a full disk goes; if not, the next attempt empties it.
                let _ = self.fs.remove_file(&temporary);
            }
        })?;
        let renamed = self.fs.rename(&temporary, &self.path);
        let durable = renamed.and_then(|()| self.fs.sync_dir(parent_of(&self.path)));
        let mut state = lock(&self.shared);
        if let Err(error) = durable {
            // Nobody knows which of the two files a crash would leave.
            state.poisoned = true;
            return Err(JournalError::io("replacing journal", &self.path)(error));
        }
        let generation = state.generation + 1;
        *state = State { file, written, flushed: written, generation, poisoned: state.poisoned };
        Ok(())
    }

    fn write_new<P: AsRef<[u8]>>(
        &self,
        temporary: &Path,
        payloads: impl IntoIterator<Item = P>,
    ) -> Result<(Arc<dyn File>, u64), JournalError> {
        let failed = |error| JournalError::io("writing journal", temporary)(error);
        let file = self.fs.open(temporary, OpenMode::Truncate).map_err(failed)?;
        let mut written = 0;
        // Each frame says that all before it is durable: true at the moment the file gets its name.
        let mut chunk = encode_frame(0, 0, &first_payload());
        for payload in payloads {
            let payload = payload.as_ref();
            check_len(payload)?;
            let position = written + chunk.len() as u64;
            chunk.extend_from_slice(&encode_frame(position, position, payload));
            if chunk.len() >= REWRITE_CHUNK {
                file.write_all_at(&[&chunk], written).map_err(failed)?;
                written += chunk.len() as u64;
                chunk.clear();
            }
        }
        let position = written + chunk.len() as u64;
        chunk.extend_from_slice(&encode_frame(position, position, &[]));
        file.write_all_at(&[&chunk], written).and_then(|()| file.sync_data()).map_err(failed)?;
        Ok((file, written + chunk.len() as u64))
    }
}

/// Reads the journal at `path` and changes nothing: every payload goes to `visit` in order. Returns the bytes behind the
/// last whole frame, which [`Journal::open`] would cut as a torn tail.
///
/// # Errors
/// Those of [`Journal::open`]; a journal that is missing is one of them.
pub fn read(
    fs: &dyn Fs,
    path: &Path,
    visit: &mut dyn FnMut(&[u8]) -> Result<(), VisitError>,
) -> Result<u64, JournalError> {
    let file = fs.open(path, OpenMode::ReadOnly).map_err(JournalError::io("opening journal", path))?;
    let len = file.len().map_err(JournalError::io("reading size of journal", path))?;
    Ok(len - read_back(&*file, len, path, visit)?.end)
}

/// Flushes a journal apart from its writer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct JournalFlusher {
    path: PathBuf,
    shared: Arc<Mutex<State>>,
}

impl JournalFlusher {
    /// Makes durable all that was appended before the call. The journal can be appended to meanwhile. A failure
    /// poisons the journal.
    pub fn flush(&self) -> Result<(), JournalError> {
        let (file, written, generation) = {
            let state = lock(&self.shared);
            if state.poisoned {
                return Err(JournalError::Poisoned);
            }
            if state.flushed == state.written {
                return Ok(());
            }
            (Arc::clone(&state.file), state.written, state.generation)
        };
        let synced = file.sync_data();
        let mut state = lock(&self.shared);
        if let Err(error) = synced {
            state.poisoned = true;
            return Err(JournalError::io("flushing journal", &self.path)(error));
        }
        // A rewrite in between made everything durable already.
        if state.generation == generation {
            state.flushed = state.flushed.max(written);
        }
        Ok(())
    }
}

/// How far a journal goes.
struct Extent {
    /// Bytes that its frames say were durable.
    flushed: u64,
    /// First byte behind the last whole frame. What follows is a torn tail.
    end: u64,
}

/// Visits the frames of a journal and says how far they go.
fn read_back(
    file: &dyn File,
    len: u64,
    path: &Path,
    visit: &mut dyn FnMut(&[u8]) -> Result<(), VisitError>,
) -> Result<Extent, JournalError> {
    let failed = |error| JournalError::io("reading journal", path)(error);
    let mut scan = FrameScan::new(file, len);
    match scan.next_frame().map_err(failed)? {
        Some(first) => check_first(first.payload, path)?,
        // It was created whole, so this is damage or no journal.
        None if len >= FRAME_OVERHEAD as u64 => {
            return Err(JournalError::Corrupt { path: path.into(), position: 0 });
        }
        None => return Err(JournalError::NotAJournal { path: path.into() }),
    }
    while let Some(frame) = scan.next_frame().map_err(failed)? {
        if !frame.payload.is_empty() {
            let (path, position) = (path.to_owned(), frame.position);
            visit(frame.payload).map_err(|source| JournalError::Visit { path, position, source })?;
        }
    }
    if scan.is_flushed_data_behind().map_err(failed)? {
        return Err(JournalError::Corrupt { path: path.into(), position: scan.position() });
    }
    Ok(Extent { flushed: scan.flushed(), end: scan.position() })
}

fn first_payload() -> Vec<u8> {
    [&MAGIC[..], &VERSION.to_be_bytes()].concat()
}

fn check_first(payload: &[u8], path: &Path) -> Result<(), JournalError> {
    let version = payload.strip_prefix(MAGIC).and_then(|rest| rest.first_chunk::<4>());
    match version.map(|bytes| u32::from_be_bytes(*bytes)) {
        None => Err(JournalError::NotAJournal { path: path.into() }),
        Some(VERSION) => Ok(()),
        Some(found) => Err(JournalError::UnsupportedVersion { path: path.into(), found, supported: VERSION }),
    }
}

fn check_len(payload: &[u8]) -> Result<(), JournalError> {
    match payload.len() {
        1..=MAX_PAYLOAD => Ok(()),
        len => Err(JournalError::FrameLength { len, limit: MAX_PAYLOAD }),
    }
}

fn encode_frame(position: u64, flushed: u64, payload: &[u8]) -> Vec<u8> {
    [&FrameHead::new(position, flushed, payload).encode()[..], payload].concat()
}
