//! Batches of a peer in the place of others of another length: what is around them is copied (R45).
//!
//! A log that was compacted does not hold the bytes that its peers hold. What a peer gives for a damaged part may be longer or
//! shorter than the part; then the segment is written anew beside itself, and takes its own place.

use std::cmp::Ordering;
use std::io;
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use holdfast_core::Offset;
use holdfast_core::record_batch::RecordBatch;

use super::mend::{MendError, Misfit};
use crate::compaction::{Files, Rewritten, Suffix};
use crate::error::Damage;
use crate::index::{ActiveIndex, Entry};
use crate::index_file::{self, IndexFile};
use crate::segment::Segment;
use crate::{File, Fs, LogError, OpenMode};

/// Bytes copied at once.
const PIECE: u64 = 1 << 20;
/// Where those cannot be read, so many are tried.
const SMALL_PIECE: u64 = 4 << 10;

/// Those parts of the batches that lie from `from` up to `to` (exclusive). Only fillers can be cut: others that reach beyond stay
/// as they are, and fit nowhere.
pub(super) fn within(batches: &[RecordBatch], from: Offset, to: Offset) -> Vec<RecordBatch> {
    let touching = batches.iter().filter(|batch| {
        let header = batch.header();
        header.next_offset() > from && header.base_offset < to
    });
    touching.map(|batch| batch.clipped(from, to).unwrap_or_else(|| batch.clone())).collect()
}

/// A segment in which bytes are replaced by batches.
pub(super) struct Splice<'a> {
    pub(super) file: &'a dyn File,
    /// Bytes of the segment.
    pub(super) len: u64,
    /// Those that are replaced.
    pub(super) hole: Range<u64>,
    pub(super) batches: &'a [RecordBatch],
}

impl Splice<'_> {
    /// Whether the batches take all offsets up to `to`.
    pub(super) fn check_reaches(&self, to: Offset) -> Result<(), MendError> {
        let offset = self.batches.first().map_or(to, |batch| batch.header().base_offset);
        let upto = self.batches.last().map_or(offset, |batch| batch.header().next_offset());
        let problem = match upto.cmp(&to) {
            Ordering::Equal => return Ok(()),
            Ordering::Less => Misfit::Short { upto, to },
            Ordering::Greater => Misfit::End { offset: upto, position: self.hole.start + self.given() },
        };
        Err(MendError::DoesNotFit { offset, problem })
    }

    /// Bytes of the batches.
    fn given(&self) -> u64 {
        self.batches.iter().map(|batch| batch.bytes().len() as u64).sum()
    }

    /// Bytes of the segment as it will be.
    pub(super) fn new_len(&self) -> u64 {
        self.len - (self.hole.end - self.hole.start) + self.given()
    }

    /// Writes the segment at `old.base` as it will be, with its index, beside itself: on disk, whole and flushed, but not in its
    /// place.
    pub(super) fn rewrite(
        &self,
        fs: &dyn Fs,
        dir: &Path,
        old: Segment,
        interval: u64,
    ) -> Result<Rewritten, LogError> {
        let files = Files::new(dir, old.base, Suffix::Repaired);
        let written = self.write_files(fs, dir, old, interval, &files);
        written.inspect_err(|_| files.remove(fs))
    }

    fn write_files(
        &self,
        fs: &dyn Fs,
        dir: &Path,
        old: Segment,
        interval: u64,
        files: &Files,
    ) -> Result<Rewritten, LogError> {
        let create = |path: &Path| {
            fs.open(path, OpenMode::Truncate).map_err(LogError::io("creating the segment written anew", path))
        };
        let (path, index_path) = (&files.segment.0, &files.index.0);
        let (file, index_file) = (create(path)?, create(index_path)?);
        self.write(&*file, path)?;
        let given = self.batches.iter().map(|batch| batch.header().max_timestamp).max();
        let max_timestamp = old.max_timestamp.max(given);
        let segment = Segment { len: self.new_len(), max_timestamp, ..old };
        let mut index = self.index(&segment, &entries(fs, dir, old), interval);
        let written = index.write_blocks(&*index_file, segment.base, true).and_then(|()| {
            let seal = index_file::encode_seal(&segment, index.written);
            index_file.write_all_at(&[&seal], index_file::position(index.written.blocks))?;
            index_file.sync_data()
        });
        written.map_err(LogError::io("writing the index of a segment written anew", index_path))?;
        // Only who puts several segments into one is asked for it.
        let last_position = 0;
        let segment = Segment { blocks: index.written.blocks, ..segment };
        Ok(Rewritten { segment, files: files.clone(), file, index_file, last_position })
    }

    /// Writes all of it to `target`, durably, and reads the batches back from the disk. What cannot be read of the segment is
    /// zeros there: it was damaged, and still is.
    pub(super) fn write(&self, target: &dyn File, path: &Path) -> Result<(), LogError> {
        let written = self.copy_to(target).and_then(|()| target.sync_data());
        written.map_err(LogError::io("writing a segment around what was repaired", path))?;
        target.forget(self.hole.start, self.given());
        let mut position = self.hole.start;
        for batch in self.batches {
            let read = target.read_bytes(position, batch.bytes().len());
            if read.map_err(LogError::io("reading what was repaired in", path))? != *batch.bytes() {
                let problem = "the disk does not keep what is written to it".to_owned();
                let (offset, segment) = (batch.header().base_offset, path.to_owned());
                return Err(LogError::Corrupt {
                    offset,
                    segment,
                    position,
                    source: Damage::Unreadable { problem },
                });
            }
            position += batch.bytes().len() as u64;
        }
        Ok(())
    }

    fn copy_to(&self, target: &dyn File) -> io::Result<()> {
        copy(self.file, 0..self.hole.start, target, 0)?;
        let buffers: Vec<&[u8]> = self.batches.iter().map(|batch| &batch.bytes()[..]).collect();
        target.write_all_at(&buffers, self.hole.start)?;
        copy(self.file, self.hole.end..self.len, target, self.hole.start + self.given())
    }

    /// The index of the segment as it will be, from that of the segment as it is. None where nothing is known of that.
    fn index(&self, segment: &Segment, entries: &[Entry], interval: u64) -> ActiveIndex {
        let mut index = ActiveIndex::default();
        if entries.is_empty() {
            return index;
        }
        let before = entries.partition_point(|entry| u64::from(entry.position) < self.hole.start);
        let behind = entries.partition_point(|entry| u64::from(entry.position) < self.hole.end);
        for entry in &entries[..before] {
            index.add(entry.relative.into(), entry.position.into(), Some(entry.max_before), 0);
        }
        // No smaller than it is where that is not known: a search by time begins too early, and finds the same.
        let known = entries.get(before).map(|entry| entry.max_before);
        let (mut position, mut latest) = (self.hole.start, known.or(segment.max_timestamp));
        for header in self.batches.iter().map(RecordBatch::header) {
            index.add(header.base_offset - segment.base, position, latest, interval);
            latest = latest.max(Some(header.max_timestamp));
            position += u64::from(header.length);
        }
        for entry in &entries[behind..] {
            let moved = u64::from(entry.position) - self.hole.end + position;
            index.add(entry.relative.into(), moved, latest.max(Some(entry.max_before)), 0);
        }
        index
    }
}

/// All entries of a segment's index; none where it is of no use.
fn entries(fs: &dyn Fs, dir: &Path, segment: Segment) -> Vec<Entry> {
    let path = index_file::path(dir, segment.base);
    let Ok(file) = fs.open(&path, OpenMode::ReadOnly) else { return Vec::new() };
    let index = IndexFile { file: &*file, base: segment.base };
    let blocks = (0..segment.blocks).map(|number| index.entries(number));
    blocks.collect::<Option<Vec<_>>>().unwrap_or_default().concat()
}

fn copy(from: &dyn File, bytes: Range<u64>, to: &dyn File, mut at: u64) -> io::Result<()> {
    let mut position = bytes.start;
    while position < bytes.end {
        let piece = PIECE.min(bytes.end - position);
        for read in pieces(from, position, piece) {
            to.write_all_at(&[&read], at)?;
            at += read.len() as u64;
        }
        position += piece;
    }
    Ok(())
}

/// `len` bytes, in one piece or, where they cannot be read so, in several.
fn pieces(from: &dyn File, position: u64, len: u64) -> Vec<Bytes> {
    if let Ok(read) = from.read_bytes(position, len as usize) {
        return vec![read];
    }
    let starts = (position..position + len).step_by(SMALL_PIECE as usize);
    let small = starts.map(|start| {
        let len = SMALL_PIECE.min(position + len - start) as usize;
        from.read_bytes(start, len).unwrap_or_else(|_| Bytes::from(vec![0; len]))
    });
    small.collect()
}
