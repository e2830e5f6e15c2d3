//! Looking at a partition's folder from outside: batch by batch, past damage, and without changing a byte.
//!
//! Where recovery stops at the first thing wrong and decides what is kept, this goes on as far as bytes can be believed
//! and names everything that is wrong. Memory is bounded: one window of the file, and a whole batch only for who asks.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use holdfast_core::record_batch::{BatchError, BatchHeader, HEADER_LEN};
use holdfast_core::replication::Compacted;
use holdfast_core::{LeaderEpoch, Offset};

use crate::compaction::State;
use crate::error::Damage;
use crate::window::Window;
use crate::{File, Fs, LogError, OpenMode, compaction, log_start, recovery, segment};

/// Bytes read at once where only headers are looked at: small batches come many at a time, large ones are stepped over.
const HEADERS_AHEAD: usize = 64 << 10;
/// Bytes read at once where checksums are verified.
const CHECKSUMS_AHEAD: usize = 1 << 20;

/// How closely batches are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checks {
    /// Headers, offsets and epochs.
    Headers,
    /// And the checksum of every batch.
    Checksums,
}

/// What a walk comes across.
#[derive(Debug)]
pub enum Step<'a> {
    /// The next file begins.
    Segment {
        /// The file.
        path: &'a Path,
        /// Its size in bytes.
        len: u64,
    },
    /// The next batch. Its header is consistent in itself, and the batch is all there.
    Batch(FoundBatch<'a>),
    /// Something is wrong here. What cannot be made out until a batch can be is stepped over.
    Damage(FoundDamage),
}

/// A batch in its file.
#[derive(Debug)]
pub struct FoundBatch<'a> {
    /// Its header.
    pub header: BatchHeader,
    /// The file.
    pub segment: &'a Path,
    /// First byte in the file.
    pub position: u64,
    /// Whether damage of it was told just before.
    pub damaged: bool,
    file: &'a dyn File,
}

impl FoundBatch<'_> {
    /// All its bytes, header included: `header.length` of them, so the caller bounds it.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn bytes(&self) -> Result<Bytes, LogError> {
        let read = self.file.read_bytes(self.position, self.header.length as usize);
        read.map_err(LogError::io("reading segment", self.segment))
    }
}

/// Something wrong, and where.
#[derive(Debug, thiserror::Error)]
#[error("offset {offset}, byte {position} of {}", segment.display())]
pub struct FoundDamage {
    /// The file.
    pub segment: PathBuf,
    /// First byte in that file.
    pub position: u64,
    /// The offset that should be there.
    pub offset: Offset,
    /// Bytes from there on that are no batches as far as anybody can tell.
    pub unreadable: u64,
    /// What is wrong.
    #[source]
    pub source: Damage,
}

/// Where the log in `dir` starts: what is found below is no part of it. 0 where nobody can tell, which a [`walk`] says.
///
/// # Errors
/// [`LogError::Io`].
pub fn log_start(fs: &dyn Fs, dir: &Path) -> Result<Offset, LogError> {
    match log_start::read(fs, dir) {
        Ok(start) => Ok(start.base.end),
        Err(LogError::Corrupt { .. }) => Ok(Offset::ZERO),
        Err(error) => Err(error),
    }
}

/// How far the log in `dir` was compacted, as it is noted there.
///
/// # Errors
/// [`LogError::Io`], and [`LogError::Corrupt`] where the note cannot be made out.
pub fn compacted(fs: &dyn Fs, dir: &Path) -> Result<Compacted, LogError> {
    let State { cleaned_end, tombstones_gone_below, .. } = compaction::read(fs, dir)?;
    Ok(Compacted { cleaned_end, tombstones_gone_below })
}

/// Walks the log in `dir` from the segment that may hold `from` on, which is 0 for all of it. Damage does not end the
/// walk; `visit` may. A folder that is not there holds nothing.
///
/// # Errors
/// [`LogError::Io`], and whatever `visit` fails with.
pub fn walk<E: From<LogError>>(
    fs: &dyn Fs,
    dir: &Path,
    from: Offset,
    checks: Checks,
    visit: &mut dyn FnMut(Step<'_>) -> Result<ControlFlow<()>, E>,
) -> Result<(), E> {
    if !fs.exists(dir).map_err(LogError::io("looking for folder", dir))? {
        return Ok(());
    }
    let mut bases = recovery::segment_bases(fs, dir)?;
    // As in recovery: what lies below the start as a whole is no part of the log. Where nobody can tell, it starts with what
    // is there.
    let (start, unknown) = match log_start::read(fs, dir) {
        Ok(start) => (start.base.end, None),
        Err(LogError::Corrupt { segment, source, .. }) => {
            let offset = bases.first().copied().unwrap_or_default();
            (offset, Some(FoundDamage { segment, position: 0, offset, unreadable: 0, source }))
        }
        Err(error) => return Err(error.into()),
    };
    bases.drain(..recovery::below_start(&bases, start));
    for damage in [unknown, bad_compaction(fs, dir, start)?].into_iter().flatten() {
        if visit(Step::Damage(damage))?.is_break() {
            return Ok(());
        }
    }
    let first = bases.partition_point(|base| *base <= from).saturating_sub(1);
    let expected = bases.get(first).copied().filter(|base| first > 0 || *base <= start).unwrap_or(start);
    let mut walk = Walk { checks, expected, lost: false, last: None, visit };
    for base in bases.into_iter().skip(first) {
        let path = dir.join(segment::file_name(base));
        if walk.segment(fs, &path, base)?.is_break() {
            break;
        }
    }
    Ok(())
}

/// What is wrong with the note of what was compacted.
fn bad_compaction(fs: &dyn Fs, dir: &Path, offset: Offset) -> Result<Option<FoundDamage>, LogError> {
    match compaction::read(fs, dir) {
        Err(LogError::Corrupt { segment, source, .. }) => {
            Ok(Some(FoundDamage { segment, position: 0, offset, unreadable: 0, source }))
        }
        read => read.map(|_| None),
    }
}

struct Walk<'v, E> {
    checks: Checks,
    /// Offset that the next batch should have.
    expected: Offset,
    /// Bytes were stepped over: the next batch says where the log goes on.
    lost: bool,
    /// Epoch of the batch before.
    last: Option<LeaderEpoch>,
    visit: &'v mut dyn FnMut(Step<'_>) -> Result<ControlFlow<()>, E>,
}

impl<E: From<LogError>> Walk<'_, E> {
    fn segment(&mut self, fs: &dyn Fs, path: &Path, base: Offset) -> Result<ControlFlow<()>, E> {
        let file = fs.open(path, OpenMode::ReadOnly).map_err(LogError::io("opening segment", path))?;
        let len = file.len().map_err(LogError::io("reading size of segment", path))?;
        if (self.visit)(Step::Segment { path, len })?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        if let Some(gap) = self.gap(base)
            && self.damage(path, 0, 0, gap)?.is_break()
        {
            return Ok(ControlFlow::Break(()));
        }
        (self.expected, self.lost) = (base, false);
        self.batches(&*file, path, len)
    }

    fn batches(&mut self, file: &dyn File, path: &Path, len: u64) -> Result<ControlFlow<()>, E> {
        let reading = |error| LogError::io("reading segment", path)(error);
        let verify = self.checks == Checks::Checksums;
        let mut window = Window::new(file, len, if verify { CHECKSUMS_AHEAD } else { HEADERS_AHEAD });
        let mut position = 0;
        while position < len {
            let mut seen = None;
            let checked = recovery::check_batch(&mut window, position, |header| {
                seen = Some(*header);
                verify
            });
            let problem = checked.map_err(reading)?.err();
            let (next, told) = match (seen, problem) {
                (Some(header), problem) => {
                    let damaged = problem.is_some();
                    let batch = FoundBatch { header, segment: path, position, damaged, file };
                    (position + u64::from(header.length), self.batch(batch, problem)?)
                }
                (None, problem) => {
                    let next = next_batch(&mut window, position).map_err(reading)?.unwrap_or(len);
                    let problem = problem.unwrap_or(BatchError::Empty);
                    let told = self.damage(path, position, next - position, problem.into())?;
                    self.lost = true;
                    (next, told)
                }
            };
            if told.is_break() {
                return Ok(told);
            }
            position = next;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// A batch that is all there; `problem` says what its checksum revealed. One bad batch is reported once: where its
    /// offset is wrong, or where it ends may be, the next one is not measured by it.
    fn batch(
        &mut self,
        mut batch: FoundBatch<'_>,
        problem: Option<BatchError>,
    ) -> Result<ControlFlow<()>, E> {
        let FoundBatch { header, segment, position, .. } = batch;
        let mut lost = false;
        if let Some(damage) = problem.map(Damage::from).or_else(|| self.does_not_follow(&header)) {
            lost = !matches!(damage, Damage::Epoch { .. });
            let unreadable = if batch.damaged { header.length } else { 0 };
            batch.damaged = true;
            if self.damage(segment, position, unreadable.into(), damage)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        (self.expected, self.lost) = (header.next_offset(), lost);
        self.last = header.epoch.or(self.last);
        (self.visit)(Step::Batch(batch))
    }

    fn does_not_follow(&self, header: &BatchHeader) -> Option<Damage> {
        let last = self.last.unwrap_or(LeaderEpoch::ZERO);
        let falls = header.epoch.is_none_or(|epoch| epoch < last);
        let epoch = falls.then_some(Damage::Epoch { last, found: header.epoch });
        self.gap(header.base_offset).or(epoch)
    }

    fn gap(&self, found: Offset) -> Option<Damage> {
        let expected = self.expected;
        (found != expected && !self.lost).then_some(Damage::Gap { expected, found })
    }

    fn damage(
        &mut self,
        segment: &Path,
        position: u64,
        unreadable: u64,
        source: Damage,
    ) -> Result<ControlFlow<()>, E> {
        let (segment, offset) = (segment.to_owned(), self.expected);
        (self.visit)(Step::Damage(FoundDamage { segment, position, offset, unreadable, source }))
    }
}

/// Where the batch behind the one at `position` begins, which has a header that cannot be: its length is believed if a
/// batch stands there, or the file ends.
fn next_batch(window: &mut Window<'_>, position: u64) -> std::io::Result<Option<u64>> {
    let Some(length) = claimed_length(window.get(position, HEADER_LEN)?) else { return Ok(None) };
    let next = position + u64::from(length);
    Ok(match window.remaining(next) {
        0 if window.remaining(position) == u64::from(length) => Some(next),
        0 => None,
        _ => BatchHeader::decode(window.get(next, HEADER_LEN)?).is_ok().then_some(next),
    })
}

/// The length of a whole batch by its length field, which counts what is behind itself.
pub(crate) fn claimed_length(head: &[u8]) -> Option<u32> {
    let field = i32::from_be_bytes(*head.get(8..)?.first_chunk()?);
    u32::try_from(field).ok()?.checked_add(12).filter(|length| *length as usize >= HEADER_LEN)
}

#[cfg(test)]
mod tests;
