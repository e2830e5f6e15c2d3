//! How much fits: a file system in memory may be full from some byte on, as a disk is.

use std::io;

use super::names::Names;
use super::{Space, lock};

/// Bytes of files that fit; `None` for as many as there is memory for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Capacity(pub(super) Option<u64>);

impl Capacity {
    /// Bytes that files may still grow by.
    pub(super) fn room(self, names: &Names) -> Option<u64> {
        self.0.map(|capacity| capacity.saturating_sub(used(names)))
    }

    /// A name takes room as well: there is none for it where nothing else fits.
    pub(super) fn check_any(self, names: &Names) -> io::Result<()> {
        if self.room(names) == Some(0) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    pub(super) fn space(self, names: &Names) -> Space {
        let total = self.0.unwrap_or(u64::MAX);
        Space { total, free: total.saturating_sub(used(names)) }
    }
}

/// Bytes in all files that have a name.
pub(super) fn used(names: &Names) -> u64 {
    names.files().iter().map(|inode| lock(inode).len()).sum()
}

/// How many of `len` bytes at `position` fit in a file of `size` that may grow by `room`.
pub(super) fn fitting(size: u64, room: Option<u64>, position: u64, len: usize) -> usize {
    let Some(room) = room else { return len };
    let end = size.saturating_add(room);
    usize::try_from(end.saturating_sub(position)).unwrap_or(usize::MAX).min(len)
}
