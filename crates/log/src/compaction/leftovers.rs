//! What a crash in the middle of a swap has left, and what of it counts.
//!
//! Before a segment takes the place of several, that is noted. The rename of its file is the moment from which it does: whether
//! that is done, the last batch in the file tells.

use std::path::Path;

use holdfast_core::Offset;
use holdfast_core::record_batch::{BatchHeader, HEADER_LEN};

use super::state::{self, Merge, State};
use crate::recovery::{Found, all_bases};
use crate::shared::Shared;
use crate::{Fs, LogError, OpenMode, segment};

/// Those of `bases` whose segments are part of another one since a merge that was not finished.
///
/// # Errors
/// [`LogError::Io`].
pub(crate) fn leftovers(fs: &dyn Fs, dir: &Path, bases: &[Offset]) -> Result<Vec<Offset>, LogError> {
    let merge = match state::read(fs, dir) {
        Ok(State { merge: Some(merge), .. }) => merge,
        // Where nobody can tell, opening the log says so.
        Ok(_) | Err(LogError::Corrupt { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let swallowed = bases.iter().copied().filter(|base| merge.base < *base && *base < merge.end);
    let swallowed: Vec<Offset> = swallowed.collect();
    if swallowed.is_empty() || !merge.is_done(fs, dir)? {
        return Ok(Vec::new());
    }
    Ok(swallowed)
}

impl Merge {
    /// Whether the merged segment is in its place: those before it end lower.
    fn is_done(&self, fs: &dyn Fs, dir: &Path) -> Result<bool, LogError> {
        let path = segment::path(dir, self.base);
        let failed = |error| LogError::io("reading segment", &path)(error);
        if !fs.exists(&path).map_err(failed)? {
            return Ok(false);
        }
        let file = fs.open(&path, OpenMode::ReadOnly).map_err(failed)?;
        let len = file.len().map_err(failed)?;
        if len < self.last_position.saturating_add(HEADER_LEN as u64) {
            return Ok(false);
        }
        let head = file.read_bytes(self.last_position, HEADER_LEN).map_err(failed)?;
        let last = BatchHeader::decode(&head).ok();
        Ok(last.is_some_and(|last| {
            last.next_offset() == self.end && self.last_position + u64::from(last.length) == len
        }))
    }
}

/// Ends what a crash has interrupted, of a log that was looked at and cut: leftovers go. Returns what is noted now. Where more
/// was cleaned than is there it stays noted: what follows from that is up to whoever opens the log.
pub(crate) fn settle(fs: &dyn Fs, dir: &Path, found: &Found) -> Result<State, LogError> {
    let noted = &found.compaction;
    if noted.merge.is_some() {
        remove_leftovers(fs, dir)?;
    }
    let state = match found.anew {
        true => State::default(),
        false => State { merge: None, ..noted.clone() },
    };
    if state != *noted {
        state.write(fs, dir)?;
    }
    Ok(state)
}

/// Ends a merge that a crash has interrupted, in a log that nobody has open: what tells whether it was done is about to change.
///
/// # Errors
/// [`LogError::Io`], or where what is noted cannot be made out.
pub(crate) fn finish_merge(fs: &dyn Fs, dir: &Path) -> Result<(), LogError> {
    let noted = state::read(fs, dir)?;
    if noted.merge.is_none() {
        return Ok(());
    }
    remove_leftovers(fs, dir)?;
    State { merge: None, ..noted }.write(fs, dir)
}

fn remove_leftovers(fs: &dyn Fs, dir: &Path) -> Result<(), LogError> {
    for base in leftovers(fs, dir, &all_bases(fs, dir)?)? {
        let path = segment::path(dir, base);
        fs.remove_file(&path).map_err(LogError::io("removing a segment that is part of another", &path))?;
    }
    fs.sync_dir(dir).map_err(LogError::io("syncing folder", dir))
}

impl Shared {
    /// Ends a merge that met an error in the middle. While the log [stands still](Self::stand_still).
    pub(crate) fn finish_merge(&self) -> Result<(), LogError> {
        if self.compaction.state().merge.is_none() {
            return Ok(());
        }
        let (fs, dir) = (&*self.fs, &self.dir);
        // The name of the merged segment first.
        fs.sync_dir(dir).map_err(LogError::io("syncing folder", dir))?;
        remove_leftovers(fs, dir)?;
        self.compaction.change(fs, dir, |state| state.merge = None)
    }
}
