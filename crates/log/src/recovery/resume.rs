//! Where looking at a log can begin: what a checkpoint and the seals of indexes say of the part before is believed, or
//! there is none and everything is looked at.

use std::path::Path;

use holdfast_core::Offset;
use holdfast_core::replication::Position;

use super::{Found, Recovery, open_segment};
use crate::checkpoint::{self, Checkpoint};
use crate::index_file::{self, IndexFile};
use crate::segment::{Segment, SegmentFile};
use crate::{Derived, Fs, OpenMode};

/// The log up to the newest checkpoint that can be believed. The last segment may go on. `None` if there is none.
pub(super) fn resume(
    fs: &dyn Fs,
    dir: &Path,
    recovery: Recovery,
    bases: &[Offset],
    base: Position,
    derived: &mut dyn Derived,
) -> Option<Found> {
    // Where the first segment is missing, nothing that is said of the log can be.
    bases.first().filter(|first| **first <= base.end)?;
    [checkpoint::newest_path(dir), checkpoint::older_path(dir)].iter().find_map(|path| {
        let checkpoint = checkpoint::read(fs, path)?;
        let segments = segments_below(fs, dir, recovery, bases, &checkpoint)?;
        // It may know of a start that was not noted in the end: then it lacks the epochs from the one that was.
        let known = checkpoint.epochs.first().map_or(checkpoint.offset, |(_, first)| *first);
        if known > base.end {
            return None;
        }
        // Last, because there is no way back.
        derived.restore(&checkpoint.snapshot).then(|| {
            let Checkpoint { index, epochs, active_since, .. } = checkpoint;
            Found { segments, index, epochs, active_since, ..Found::default() }
        })
    })
}

/// The segments up to a checkpoint's offset; `None` if it cannot be believed.
fn segments_below(
    fs: &dyn Fs,
    dir: &Path,
    recovery: Recovery,
    bases: &[Offset],
    checkpoint: &Checkpoint,
) -> Option<Vec<Segment>> {
    let Checkpoint { offset, active, index, .. } = checkpoint;
    // Above what is known to be flushed everything has to be verified, after a stop that was not in order.
    let flushed = recovery.clean || *offset <= recovery.flushed_end;
    if !flushed || !checkpoint.is_of_this_log(fs, dir) {
        return None;
    }
    let count = bases.iter().position(|base| *base == active.base)?;
    let (file, _) = open_segment(fs, dir, active.base).ok()?;
    let about_it = index.last().is_none_or(|last| u64::from(last) < active.len);
    if file.len().ok()? < active.len || !about_it || !has_blocks(fs, dir, recovery, checkpoint) {
        return None;
    }
    let mut segments = Vec::with_capacity(count + 1);
    let mut expected = *bases.first()?;
    for base in &bases[..count] {
        let segment = Some(*base)
            .filter(|base| *base == expected)
            .and_then(|base| sealed(fs, dir, recovery, base).or_else(|| walked(fs, dir, base)))?;
        expected = segment.end;
        segments.push(segment);
    }
    segments.push(*active);
    (expected == active.base).then_some(segments)
}

/// Whether what the checkpoint says is in the index file is in it. After an orderly stop it was flushed, so its size tells.
fn has_blocks(fs: &dyn Fs, dir: &Path, recovery: Recovery, checkpoint: &Checkpoint) -> bool {
    let (base, written) = (checkpoint.active.base, checkpoint.index.written);
    if written.blocks == 0 {
        return true;
    }
    let Ok(file) = fs.open(&index_file::path(dir, base), OpenMode::Existing) else { return false };
    if recovery.clean {
        return file.len().is_ok_and(|len| len >= index_file::position(written.blocks));
    }
    IndexFile { file: &*file, base }.holds(written)
}

/// A sealed segment as its index says. `None` if the index is missing, bad, or not certain to be of what is in the
/// segment now.
pub(crate) fn sealed(fs: &dyn Fs, dir: &Path, recovery: Recovery, base: Offset) -> Option<Segment> {
    let file = fs.open(&index_file::path(dir, base), OpenMode::Existing).ok()?;
    let segment = IndexFile { file: &*file, base }.seal()?;
    // A flush that began after the segment was sealed took the index along; one that began before did not.
    let flushed = recovery.clean || segment.end < recovery.flushed_end;
    let len = open_segment(fs, dir, base)
        .and_then(|(file, path)| file.len().map_err(crate::LogError::io("reading size of segment", &path)));
    (flushed && len.is_ok_and(|len| len == segment.len)).then_some(segment)
}

/// A sealed segment as its batches say; its index has to be built. `None` if they are damaged.
fn walked(fs: &dyn Fs, dir: &Path, base: Offset) -> Option<Segment> {
    let (file, path) = open_segment(fs, dir, base).ok()?;
    let mut segment = Segment::new(base);
    let whole = Segment { len: file.len().ok()?, ..segment };
    let file = SegmentFile { segment: whole, file: &*file, path: &path };
    let strange = file.walk(0, |found| {
        let follows = found.header.base_offset == segment.end;
        segment.push(&found.header);
        !follows
    });
    (strange.ok()?.is_none() && segment.len == whole.len).then_some(segment)
}
