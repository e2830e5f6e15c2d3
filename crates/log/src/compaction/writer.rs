//! A segment written anew, beside the one whose place it is to take, together with its index.
//!
//! Fillers that meet become one.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use holdfast_core::record_batch::{MAX_FILLER_OFFSETS, RecordBatch};
use holdfast_core::{LeaderEpoch, Offset};

use super::READ_AT_ONCE;
use crate::index::ActiveIndex;
use crate::segment::{self, Segment};
use crate::{File, Fs, LogError, OpenMode, index_file};

/// What stands behind the name of the file that is to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Suffix {
    /// By a pass.
    Cleaned,
    /// By a repair, which a pass may meet.
    Repaired,
}

impl Suffix {
    /// All of them: whoever opens a log removes what has one.
    pub(crate) const ALL: [Suffix; 2] = [Suffix::Cleaned, Suffix::Repaired];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Suffix::Cleaned => ".cleaned",
            Suffix::Repaired => ".repaired",
        }
    }

    /// Whether a file of that name was to become a segment or its index.
    pub(crate) fn is_of(name: &OsStr) -> bool {
        let stem = |suffix: &Suffix| name.to_str()?.strip_suffix(suffix.name());
        let known = |stem: &str| {
            [".log", ".index"].iter().any(|kind| segment::parse_name(stem.as_ref(), kind).is_some())
        };
        Suffix::ALL.iter().filter_map(stem).any(known)
    }

    /// The file that is to become `path`.
    pub(crate) fn of(self, path: &Path) -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        name.push(self.name());
        PathBuf::from(name)
    }
}

/// Writes a segment and its index. What is not [finished](Self::finish) is removed again, if the disk lets it.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    fs: Arc<dyn Fs>,
    files: Files,
    interval: u64,
    /// As it will be.
    segment: Segment,
    index: ActiveIndex,
    index_file: Arc<dyn File>,
    file: Arc<dyn File>,
    /// Bytes that are in the file.
    written: u64,
    /// Batches behind them.
    pending: Vec<Bytes>,
    pending_bytes: usize,
    /// A filler that may grow.
    filler: Option<(Offset, Offset, LeaderEpoch)>,
    last_position: u64,
    finished: bool,
}

/// Where the two files are, and where they belong.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub(crate) segment: (PathBuf, PathBuf),
    pub(crate) index: (PathBuf, PathBuf),
}

/// A segment that is on disk, whole and flushed, but not in its place.
#[derive(Debug)]
pub(crate) struct Rewritten {
    pub(crate) segment: Segment,
    pub(crate) files: Files,
    pub(crate) file: Arc<dyn File>,
    pub(crate) index_file: Arc<dyn File>,
    /// First byte of its last batch.
    pub(crate) last_position: u64,
}

impl Files {
    pub(crate) fn new(dir: &Path, base: Offset, suffix: Suffix) -> Files {
        let (segment, index) = (segment::path(dir, base), index_file::path(dir, base));
        Files { segment: (suffix.of(&segment), segment), index: (suffix.of(&index), index) }
    }

    /// What cannot be removed is, when the log is opened.
    pub(crate) fn remove(&self, fs: &dyn Fs) {
        let _ = fs.remove_file(&self.segment.0);
        let _ = fs.remove_file(&self.index.0);
    }
}

impl Rewritten {
    /// It is not wanted.
    pub(crate) fn discard(self, fs: &dyn Fs) {
        self.files.remove(fs);
    }
}

impl SegmentWriter {
    /// Begins a segment that starts at `base`. What is left of an earlier attempt is overwritten.
    pub(crate) fn create(
        fs: &Arc<dyn Fs>,
        dir: &Path,
        base: Offset,
        interval: u64,
        suffix: Suffix,
    ) -> Result<SegmentWriter, LogError> {
        let files = Files::new(dir, base, suffix);
        let create = |path: &Path| {
            fs.open(path, OpenMode::Truncate).map_err(LogError::io("creating the segment written anew", path))
        };
        let (file, index_file) = match (create(&files.segment.0), create(&files.index.0)) {
            (Ok(file), Ok(index_file)) => (file, index_file),
            (Err(error), _) | (_, Err(error)) => {
                files.remove(&**fs);
                return Err(error);
            }
        };
        Ok(SegmentWriter {
            fs: Arc::clone(fs),
            files,
            interval,
            segment: Segment::new(base),
            index: ActiveIndex::default(),
            index_file,
            file,
            written: 0,
            pending: Vec::new(),
            pending_bytes: 0,
            filler: None,
            last_position: 0,
            finished: false,
        })
    }

    /// Bytes that it has so far, roughly.
    pub(crate) fn len(&self) -> u64 {
        self.segment.len
    }

    /// Appends a batch that follows on.
    pub(crate) fn push(&mut self, batch: &RecordBatch) -> Result<(), LogError> {
        let header = batch.header();
        let (first, next) = (header.base_offset, header.next_offset());
        if let Some(epoch) = header.epoch.filter(|_| header.is_filler()) {
            let fits = |(from, end, of): &(Offset, Offset, LeaderEpoch)| {
                *end == first && *of == epoch && next - *from <= MAX_FILLER_OFFSETS
            };
            let grown = self.filler.filter(fits).map(|(from, ..)| (from, next, epoch));
            if grown.is_none() {
                self.write_filler()?;
            }
            self.filler = Some(grown.unwrap_or((first, next, epoch)));
            return Ok(());
        }
        self.write_filler()?;
        self.write(batch)
    }

    fn write_filler(&mut self) -> Result<(), LogError> {
        let filler =
            self.filler.take().and_then(|(first, next, epoch)| RecordBatch::filler(first, next, epoch));
        filler.map_or(Ok(()), |filler| self.write(&filler))
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), LogError> {
        let Segment { base, len, max_timestamp, .. } = self.segment;
        self.index.add(batch.header().base_offset - base, len, max_timestamp, self.interval);
        self.last_position = len;
        self.segment.push(batch.header());
        self.pending.push(batch.bytes().clone());
        self.pending_bytes += batch.bytes().len();
        if self.pending_bytes >= READ_AT_ONCE { self.write_out() } else { Ok(()) }
    }

    fn write_out(&mut self) -> Result<(), LogError> {
        let buffers: Vec<&[u8]> = self.pending.iter().map(|bytes| &bytes[..]).collect();
        let written = self.file.write_all_at(&buffers, self.written);
        written.map_err(LogError::io("writing a segment anew", &self.files.segment.0))?;
        self.pending.clear();
        self.written += std::mem::take(&mut self.pending_bytes) as u64;
        self.write_index(false)
    }

    fn write_index(&mut self, all: bool) -> Result<(), LogError> {
        let written = self.index.write_blocks(&*self.index_file, self.segment.base, all);
        written.map_err(LogError::io("writing the index of a segment written anew", &self.files.index.0))
    }

    /// Writes what is left, and flushes all of it.
    pub(crate) fn finish(mut self) -> Result<Rewritten, LogError> {
        self.write_filler()?;
        self.write_out()?;
        self.write_index(true)?;
        let blocks = self.index.written.blocks;
        let seal = index_file::encode_seal(&self.segment, self.index.written);
        let sealed = self.index_file.write_all_at(&[&seal], index_file::position(blocks));
        let flush = |result: io::Result<()>, file: &dyn File, path: &Path| {
            let flushed = result.and_then(|()| file.sync_data());
            flushed.map_err(LogError::io("flushing a segment written anew", path))
        };
        flush(sealed, &*self.index_file, &self.files.index.0)?;
        flush(Ok(()), &*self.file, &self.files.segment.0)?;
        self.finished = true;
        Ok(Rewritten {
            segment: Segment { blocks, ..self.segment },
            files: self.files.clone(),
            file: Arc::clone(&self.file),
            index_file: Arc::clone(&self.index_file),
            last_position: self.last_position,
        })
    }
}

impl Drop for SegmentWriter {
    fn drop(&mut self) {
        if !self.finished {
            self.files.remove(&*self.fs);
        }
    }
}
