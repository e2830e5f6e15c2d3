//! Which checkpoints of a log are on disk, and taking them back before what they tell of changes.

use std::ops::Range;
use std::path::{Path, PathBuf};

use holdfast_core::Offset;

use crate::checkpoint;
use crate::{Fs, LogError};

/// The checkpoints that are on disk.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Noted {
    pub(crate) newest: Option<Place>,
    pub(crate) older: Option<Place>,
}

/// How far a checkpoint goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) offset: Offset,
    /// Base of the segment that was active.
    pub(crate) segment: Offset,
    /// Bytes that were in it.
    pub(crate) len: u64,
}

impl Noted {
    /// Of a log that nobody has open.
    pub(crate) fn read(fs: &dyn Fs, dir: &Path) -> Result<Noted, LogError> {
        Noted::forgetting(fs, dir, Offset(u64::MAX))
    }

    /// Of a log that ends at `end`: those above it are removed, durably.
    pub(crate) fn forgetting(fs: &dyn Fs, dir: &Path, end: Offset) -> Result<Noted, LogError> {
        let mut noted = Noted::default();
        let mut above = Vec::new();
        for (path, place) in noted.files(dir) {
            if !fs.exists(&path).map_err(LogError::io("looking for checkpoint", &path))? {
                continue;
            }
            *place = checkpoint::read(fs, &path).map(|checkpoint| Place {
                offset: checkpoint.offset,
                segment: checkpoint.active.base,
                len: checkpoint.active.len,
            });
            if place.is_none_or(|place| place.offset > end) {
                *place = None;
                above.push(path);
            }
        }
        remove_all(fs, dir, &above)?;
        Ok(noted)
    }

    /// Removes those above `end`, durably.
    pub(crate) fn forget_above(&mut self, fs: &dyn Fs, dir: &Path, end: Offset) -> Result<(), LogError> {
        let above = self.forget(fs, dir, |place| place.offset > end)?;
        if above { fs.sync_dir(dir).map_err(LogError::io("syncing folder", dir)) } else { Ok(()) }
    }

    /// Removes those that tell of the inside of a segment that begins within `bases`. Not durable by itself.
    pub(crate) fn forget_inside(
        &mut self,
        fs: &dyn Fs,
        dir: &Path,
        bases: Range<Offset>,
    ) -> Result<(), LogError> {
        self.forget(fs, dir, |place| bases.contains(&place.segment)).map(|_| ())
    }

    /// Whether there were any.
    fn forget(&mut self, fs: &dyn Fs, dir: &Path, which: impl Fn(&Place) -> bool) -> Result<bool, LogError> {
        let mut any = false;
        for (path, place) in self.files(dir) {
            if place.as_ref().is_some_and(&which) {
                fs.remove_file(&path).map_err(LogError::io("removing checkpoint", &path))?;
                (*place, any) = (None, true);
            }
        }
        Ok(any)
    }

    fn files(&mut self, dir: &Path) -> [(PathBuf, &mut Option<Place>); 2] {
        [(checkpoint::newest_path(dir), &mut self.newest), (checkpoint::older_path(dir), &mut self.older)]
    }
}

fn remove_all(fs: &dyn Fs, dir: &Path, paths: &[PathBuf]) -> Result<(), LogError> {
    for path in paths {
        fs.remove_file(path).map_err(LogError::io("removing checkpoint", path))?;
    }
    if paths.is_empty() { Ok(()) } else { fs.sync_dir(dir).map_err(LogError::io("syncing folder", dir)) }
}
