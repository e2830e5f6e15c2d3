//! A segment written anew takes the place of the one, or of the neighbours, that it was made of.
//!
//! ```text
//! 1 the new segment and its index are on disk, whole and flushed, under names of their own
//! 2 that it takes the place of several is noted, durably
//! 3 readers look at the new one from now on, by its handle
//! 4 checkpoints that tell of the inside of the old ones go, and their indexes; the folder is flushed
//! 5 its file takes the name of the first of them; the folder is flushed       (from here on it counts, also after a crash)
//! 6 its index takes its name; the others go; the folder is flushed; the note of 2 is cleared
//! ```
//! A crash before 5 leaves the log as it was, after 5 as it is to be ([`leftovers`](super::leftovers)). A failure before 5 is taken back.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, MutexGuard};

use holdfast_core::Offset;

use super::state::Merge;
use super::writer::Rewritten;
use crate::noted::Noted;
use crate::recovery::below_start;
use crate::segment::{self, Segment};
use crate::shared::{Replaced, Shared};
use crate::{Fs, LogError, index_file};

impl Shared {
    /// Puts `new` in the place of the sealed segments `old`, neighbours that it covers. False if they are not what they were any
    /// more; `new` is removed then. `still` shows that the log [stands still](Self::stand_still).
    ///
    /// # Errors
    /// The log is one or the other, and none the worse for it.
    pub(crate) fn replace_segments(
        &self,
        still: &MutexGuard<'_, bool>,
        old: &[Segment],
        new: Rewritten,
    ) -> Result<bool, LogError> {
        let (fs, dir) = (&*self.fs, &self.dir);
        let unchanged = **still && self.read().sealed(old).is_some();
        if !unchanged || self.is_poisoned() {
            new.discard(fs);
            return Ok(false);
        }
        let Segment { base, end, .. } = new.segment;
        let merge = Merge { base, end, last_position: new.last_position };
        let noted = match old.len() {
            1 => Ok(()),
            _ => self.compaction.change(fs, dir, |state| state.merge = Some(merge)),
        };
        if let Err(error) = noted {
            new.discard(fs);
            return Err(error);
        }
        self.show(old, &new);
        // Of what is noted nobody holds the lock when the view is asked for.
        let placed = put_in_place(fs, dir, old, &new, &mut self.noted());
        if let Err(error) = placed {
            self.take_back(old, &new);
            new.discard(fs);
            return Err(error);
        }
        let settled = settle(fs, dir, old, &new);
        self.write().replaced = None;
        settled?;
        if old.len() > 1 {
            self.compaction.change(fs, dir, |state| state.merge = None)?;
        }
        Ok(true)
    }

    /// Readers look at `new` from now on, by its handles: its files do not have their names yet.
    fn show(&self, old: &[Segment], new: &Rewritten) {
        let replaced = Replaced {
            base: new.segment.base,
            file: Arc::clone(&new.file),
            index_file: Arc::clone(&new.index_file),
        };
        let mut view = self.write();
        if let Some(range) = view.sealed(old) {
            view.replace(range, &[new.segment], Some(replaced));
        }
    }

    /// Readers look at what was there before. Its indexes may be gone: it is walked over until the log is opened again.
    fn take_back(&self, old: &[Segment], new: &Rewritten) {
        let mut view = self.write();
        view.replaced = None;
        let Some(range) = view.sealed(&[new.segment]) else { return };
        let old: Vec<Segment> = old.iter().map(|segment| Segment { blocks: 0, ..*segment }).collect();
        view.replace(range, &old, None);
        // The log may have been trimmed meanwhile.
        let bases: Vec<Offset> = view.segments.iter().map(|segment| segment.base).collect();
        let gone = below_start(&bases, view.start());
        view.segments.drain(..gone);
    }
}

/// Steps 4 and 5, but for the last flush.
fn put_in_place(
    fs: &dyn Fs,
    dir: &Path,
    old: &[Segment],
    new: &Rewritten,
    noted: &mut Noted,
) -> Result<(), LogError> {
    let inside: Range<Offset> = new.segment.base..new.segment.end;
    noted.forget_inside(fs, dir, inside)?;
    for segment in old {
        let index = index_file::path(dir, segment.base);
        remove_if_there(fs, &index).map_err(LogError::io("removing index", &index))?;
    }
    fs.sync_dir(dir).map_err(LogError::io("syncing folder", dir))?;
    let (written, place) = &new.files.segment;
    fs.rename(written, place).map_err(LogError::io("putting a segment written anew in place of", place))
}

/// The rest.
fn settle(fs: &dyn Fs, dir: &Path, old: &[Segment], new: &Rewritten) -> Result<(), LogError> {
    let sync = || fs.sync_dir(dir).map_err(LogError::io("syncing folder", dir));
    sync()?;
    let (written, place) = &new.files.index;
    fs.rename(written, place).map_err(LogError::io("putting the index in place of", place))?;
    let Some((_, swallowed)) = old.split_first().filter(|(_, swallowed)| !swallowed.is_empty()) else {
        return Ok(());
    };
    for segment in swallowed {
        let path = segment::path(dir, segment.base);
        let removed = remove_if_there(fs, &path);
        removed.map_err(LogError::io("removing a segment that is part of another", &path))?;
    }
    sync()
}

/// Puts a segment that was written anew in the place of the one at its base, in a log that nobody has open.
///
/// # Errors
/// The log is one or the other, and none the worse for it.
pub(crate) fn install(fs: &dyn Fs, dir: &Path, new: Rewritten) -> Result<(), LogError> {
    let mut noted = Noted::read(fs, dir)?;
    let old = [new.segment];
    let placed = put_in_place(fs, dir, &old, &new, &mut noted);
    if let Err(error) = placed {
        new.discard(fs);
        return Err(error);
    }
    settle(fs, dir, &old, &new)
}

fn remove_if_there(fs: &dyn Fs, path: &Path) -> io::Result<()> {
    match fs.remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
