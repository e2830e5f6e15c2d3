//! Opening a log: what is kept of what is on disk (rule R33).
//!
//! The log ends before the first bad checksum, offset gap or decreasing epoch. Below the trusted end that is damage:
//! an error, and nothing on disk is changed. Above it is a torn tail and is cut durably, together with all that
//! follows: writes reach the disk out of order, so valid batches behind a bad one prove nothing. It is cut only behind a
//! batch whose checksum was verified, and after an orderly stop not at all.
//!
//! What a checkpoint vouches for is not looked at again ([`resume`]). What lies below the start of the log ([`log_start`])
//! is no part of it: it is removed, or where it shares a segment with what follows stepped over.
//!
//! Invariant: nothing is changed before everything was looked at.

mod resume;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crc_fast::{CrcAlgorithm, Digest};
use holdfast_core::record_batch::{BatchError, BatchHeader, CHECKSUM_OFFSET, HEADER_LEN};
use holdfast_core::replication::{EpochIndex, Position};
use holdfast_core::{LeaderEpoch, Offset, mutant};

use crate::compaction::{self, State};
use crate::error::Damage;
use crate::index::ActiveIndex;
use crate::log_start::{self, LogStart};
use crate::repair::mark;
use crate::segment::{self, Segment};
use crate::window::Window;
use crate::{Derived, File, Fs, LogConfig, LogError, OpenMode};

pub(crate) use resume::sealed;

/// Bytes read at once where checksums are verified.
const READ_AHEAD: usize = 1 << 20;

/// What the opener of a log knows about it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Offset below which all is known to be flushed or acknowledged (exclusive): the larger of the checkpoints.
    /// Damage below it is never cut.
    pub trusted_end: Offset,
    /// Offset below which all is known to be on disk (exclusive). What was acknowledged may lie above it, in the system's
    /// memory only: a killed process leaves it there, and the next one has to flush it before it counts as flushed.
    pub flushed_end: Offset,
    /// Whether the log was closed in order: then everything was flushed, so nothing is a torn tail.
    pub clean: bool,
}

/// What opening a log did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Opened {
    /// Batches kept and visited: those above the checkpoint, if there is one.
    pub batches: u64,
    /// Bytes kept.
    pub kept_bytes: u64,
    /// Bytes of a torn tail that were cut off; 0 after an orderly stop.
    pub cut_bytes: u64,
    /// Whether the log was created.
    pub created: bool,
}

/// The log as found, and what has to go.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Segments in order, as far as the log goes.
    pub(crate) segments: Vec<Segment>,
    /// Of the last of them.
    pub(crate) index: ActiveIndex,
    /// First offset of each epoch in the log.
    pub(crate) epochs: Vec<(LeaderEpoch, Offset)>,
    /// Where the log starts, which may be inside its first segment.
    pub(crate) base: Position,
    /// Where the first segment begins.
    first: Offset,
    /// Since when the last segment is appended to, as far as is known.
    pub(crate) active_since: Option<i64>,
    pub(crate) opened: Opened,
    /// Set when the last of `segments` has bytes behind its last good batch.
    torn: bool,
    /// Files behind the end of the log, in order.
    surplus: Vec<PathBuf>,
    /// Files below its start, in order: a trim that was not finished.
    trimmed: Vec<PathBuf>,
    /// What is noted of its compaction.
    pub(crate) compaction: State,
    /// Whether nothing of what was found counts.
    pub(crate) anew: bool,
}

impl Found {
    fn last_epoch(&self) -> LeaderEpoch {
        self.epochs.last().map_or(LeaderEpoch::ZERO, |(epoch, _)| *epoch)
    }

    /// Whether the end of the log was found already.
    fn has_ended(&self) -> bool {
        self.torn || !self.surplus.is_empty()
    }

    pub(crate) fn end(&self) -> Offset {
        self.segments.last().map_or(self.first, |segment| segment.end)
    }

    /// What was found does not reach the start of the log, or is of another log than the one that was trimmed there: what is
    /// left of one that began anew (R44). Nothing of it counts.
    fn begin_at_start(&mut self, dir: &Path) {
        self.opened.cut_bytes += self.segments.iter().map(|segment| segment.len).sum::<u64>();
        let gone = self.segments.drain(..).map(|segment| segment::path(dir, segment.base));
        self.surplus = gone.chain(std::mem::take(&mut self.surplus)).collect();
        (self.first, self.torn, self.active_since, self.anew) = (self.base.end, false, None, true);
        self.index = ActiveIndex::default();
        self.epochs.clear();
    }

    /// Whether what lies below the start is of another log than the one that was trimmed there.
    fn parts_below_start(&self) -> bool {
        let below = self.epochs.partition_point(|(_, first)| *first < self.base.end);
        below.checked_sub(1).is_some_and(|last| self.epochs[last].0 != self.base.epoch)
    }

    /// Makes the cut durable. Files go last first: a crash in between leaves no gap that was not there.
    pub(crate) fn cut(&self, fs: &dyn Fs, dir: &Path) -> Result<(), LogError> {
        if self.opened.cut_bytes > 0 {
            mark::before_cut(fs, dir)?;
        }
        for path in self.trimmed.iter().chain(self.surplus.iter().rev()) {
            fs.remove_file(path).map_err(LogError::io("removing segment", path))?;
        }
        if !self.surplus.is_empty() || !self.trimmed.is_empty() {
            fs.sync_dir(dir).map_err(LogError::io("syncing folder", dir))?;
        }
        match self.segments.last() {
            Some(last) if self.torn => {
                let (file, path) = open_segment(fs, dir, last.base)?;
                let cut = file.set_len(last.len).and_then(|()| file.sync_data());
                cut.map_err(LogError::io("cutting torn tail of segment", &path))
            }
            _ => Ok(()),
        }
    }
}

/// Looks at every segment in `dir`, in order, that no checkpoint vouches for, and passes each batch that is kept to
/// `derived`.
pub(crate) fn scan(
    fs: &dyn Fs,
    dir: &Path,
    config: &LogConfig,
    recovery: Recovery,
    derived: &mut dyn Derived,
) -> Result<Found, LogError> {
    let LogStart { base, snapshot } = log_start::read(fs, dir)?;
    let compaction = compaction::read(fs, dir)?;
    if base.end > Offset::ZERO || compaction.merge.is_some() {
        // The process before may have died before the names were durable by which others are superfluous, and are removed.
        fs.sync_dir(dir).map_err(LogError::io("syncing folder", dir))?;
    }
    let mut bases = segment_bases(fs, dir)?;
    let trimmed = bases.drain(..below_start(&bases, base.end)).map(|base| segment::path(dir, base)).collect();
    let resumed = resume::resume(fs, dir, recovery, &bases, base, derived);
    let visit_from = if resumed.is_some() { Offset::ZERO } else { base.end };
    if resumed.is_none() && !snapshot.is_empty() {
        // Who cannot read it does without: the batches that told the same are gone.
        derived.restore(&snapshot);
    }
    let begun = bases.first().copied().filter(|first| *first <= base.end);
    let first = begun.unwrap_or(base.end);
    let found = Found { base, trimmed, first, compaction, ..resumed.unwrap_or_default() };
    let first = found.segments.len().saturating_sub(1);
    let interval = config.index_interval.0;
    let mut scanner = Scanner { found, recovery, visit_from, unverified: None, interval, derived };
    for (number, base) in bases.iter().enumerate().skip(first) {
        let (file, path) = open_segment(fs, dir, *base)?;
        let len = file.len().map_err(LogError::io("reading size of segment", &path))?;
        let next_base = bases.get(number + 1).copied();
        scanner.segment(*base, &*file, path, len, next_base)?;
    }
    let Scanner { mut found, derived, .. } = scanner;
    // A checkpoint is removed before a log begins anew.
    if found.end() < base.end || (visit_from == base.end && found.parts_below_start()) {
        found.begin_at_start(dir);
        derived.restore(&snapshot);
    }
    let end = found.end();
    trim_epochs(&mut found.epochs, base.end, end);
    if found.end() < recovery.trusted_end && !mutant!(CutDamage) {
        let last = found.segments.last();
        return Err(LogError::Corrupt {
            offset: found.end(),
            segment: last.map_or_else(|| dir.to_owned(), |segment| segment::path(dir, segment.base)),
            position: last.map_or(0, |segment| segment.len),
            source: Damage::Missing { trusted_end: recovery.trusted_end },
        });
    }
    Ok(found)
}

fn open_segment(fs: &dyn Fs, dir: &Path, base: Offset) -> Result<(Arc<dyn File>, PathBuf), LogError> {
    let path = segment::path(dir, base);
    let file = fs.open(&path, OpenMode::Existing).map_err(LogError::io("opening segment", &path))?;
    Ok((file, path))
}

/// First offsets of the segments in `dir`, ascending, without those that are part of another one since a merge.
pub(crate) fn segment_bases(fs: &dyn Fs, dir: &Path) -> Result<Vec<Offset>, LogError> {
    let mut bases = all_bases(fs, dir)?;
    let leftovers = compaction::leftovers(fs, dir, &bases)?;
    bases.retain(|base| !leftovers.contains(base));
    Ok(bases)
}

/// First offsets of all the segments in `dir`, ascending.
pub(crate) fn all_bases(fs: &dyn Fs, dir: &Path) -> Result<Vec<Offset>, LogError> {
    let names = fs.list(dir).map_err(LogError::io("listing folder", dir))?;
    let mut bases: Vec<Offset> = names.iter().filter_map(|name| segment::parse_file_name(name)).collect();
    bases.sort();
    Ok(bases)
}

/// How many of the segments lie below `start` as a whole. Never the last.
pub(crate) fn below_start(bases: &[Offset], start: Offset) -> usize {
    bases.iter().skip(1).take_while(|base| **base <= start).count()
}

/// Forgets the epochs below `start` of a log that ends at `end`.
pub(crate) fn trim_epochs(epochs: &mut Vec<(LeaderEpoch, Offset)>, start: Offset, end: Offset) {
    let mut index = EpochIndex::new(Position::default(), std::mem::take(epochs), end);
    index.trim(start);
    *epochs = index.starts().to_vec();
}

struct Scanner<'a> {
    found: Found,
    recovery: Recovery,
    /// What lies below is known otherwise.
    visit_from: Offset,
    /// First offset and first byte of the batch looked at last, where its checksum was not verified.
    unverified: Option<(Offset, u64)>,
    interval: u64,
    derived: &'a mut dyn Derived,
}

/// A segment's file while it is looked at.
struct Scanned<'a> {
    file: &'a dyn File,
    path: PathBuf,
    /// Bytes in the file.
    len: u64,
    is_last: bool,
}

impl Scanner<'_> {
    /// Looks at the next file. `next_base` is the start of the one after it.
    fn segment(
        &mut self,
        base: Offset,
        file: &dyn File,
        path: PathBuf,
        len: u64,
        next_base: Option<Offset>,
    ) -> Result<(), LogError> {
        let expected = self.found.end();
        let resumed = self.found.segments.last().is_some_and(|last| last.base == base);
        let follows = base == expected || resumed;
        let scanned = Scanned { file, path, len, is_last: next_base.is_none() };
        if !self.found.has_ended() && !follows {
            let damage = Damage::Gap { expected, found: base };
            self.refuse_unless_torn(expected.min(base), &scanned, 0, damage)?;
        }
        if self.found.has_ended() || !follows {
            self.found.opened.cut_bytes += len;
            self.found.surplus.push(scanned.path);
            return Ok(());
        }
        if !resumed {
            self.found.segments.push(Segment::new(base));
            (self.found.index, self.found.active_since) = (ActiveIndex::default(), None);
        }
        if let Some(damage) = self.batches(&scanned)? {
            let (end, kept) = (self.found.end(), self.active().len);
            self.refuse_unless_torn(end, &scanned, kept, damage)?;
            self.check_last(&scanned)?;
            self.found.torn = true;
            self.found.opened.cut_bytes += len - kept;
        } else if next_base != Some(self.found.end()) {
            // How far the last batch of a file reaches nothing behind it bears out.
            self.check_last(&scanned)?;
        }
        Ok(())
    }

    /// The segment that is looked at.
    fn active(&mut self) -> &mut Segment {
        let segments = &mut self.found.segments;
        segments.last_mut().expect("batches are looked at only in a segment that was taken in")
    }

    /// Where the log would be cut, or ends, the batch before says: it may be its length that is damaged, or its offsets.
    fn check_last(&self, scanned: &Scanned<'_>) -> Result<(), LogError> {
        let Some((offset, position)) = self.unverified.filter(|_| !mutant!(TrustChecksums)) else {
            return Ok(());
        };
        let mut window = Window::new(scanned.file, scanned.len, READ_AHEAD);
        let checked = check_batch(&mut window, position, |_| true);
        match checked.map_err(LogError::io("reading segment", &scanned.path))? {
            Ok(_) => Ok(()),
            Err(damage) => self.refuse_unless_torn(offset, scanned, position, damage.into()),
        }
    }

    fn refuse_unless_torn(
        &self,
        offset: Offset,
        scanned: &Scanned<'_>,
        position: u64,
        source: Damage,
    ) -> Result<(), LogError> {
        let may_be_torn = offset >= self.recovery.trusted_end && !self.recovery.clean;
        if may_be_torn || mutant!(CutDamage) {
            return Ok(());
        }
        Err(LogError::Corrupt { offset, segment: scanned.path.clone(), position, source })
    }

    /// Takes in the batches of a segment, from what is known of it on, up to the first damage, which is returned.
    fn batches(&mut self, scanned: &Scanned<'_>) -> Result<Option<Damage>, LogError> {
        let Scanned { file, path, len, is_last } = scanned;
        let mut window = Window::new(*file, *len, READ_AHEAD);
        self.unverified = None;
        loop {
            let Segment { base, end, len: position, max_timestamp, .. } = *self.active();
            if position >= *len {
                return Ok(None);
            }
            let (recovery, visit_from) = (self.recovery, self.visit_from);
            let mut verified = false;
            let checked = check_batch(&mut window, position, |header| {
                // What is derived of it rests on more of a header than leads from batch to batch.
                let visited = header.base_offset >= visit_from;
                let may_be_torn =
                    !recovery.clean && (*is_last || header.next_offset() > recovery.trusted_end);
                verified = (visited || may_be_torn) && !mutant!(TrustChecksums);
                verified
            });
            let header = match checked.map_err(LogError::io("reading segment", path))? {
                Ok(header) => header,
                Err(damage) => return Ok(Some(damage.into())),
            };
            if let Some(damage) = self.does_not_follow(end, &header) {
                return Ok(Some(damage));
            }
            self.found.index.add(header.base_offset - base, position, max_timestamp, self.interval);
            self.active().push(&header);
            self.unverified = (!verified).then_some((header.base_offset, position));
            if header.base_offset >= self.visit_from {
                self.found.opened.batches += 1;
                self.derived.visit(&header);
            }
        }
    }

    /// Why the batch cannot come next at `expected`. Where it can, its epoch is taken in.
    fn does_not_follow(&mut self, expected: Offset, header: &BatchHeader) -> Option<Damage> {
        if header.base_offset != expected {
            return Some(Damage::Gap { expected, found: header.base_offset });
        }
        let Found { base, .. } = self.found;
        if expected < base.end && header.next_offset() > base.end && !header.is_filler() {
            // The start of the log is a batch boundary, of this log or of those that were compacted less.
            return Some(Damage::Gap { expected: base.end, found: expected });
        }
        let mut last = self.found.last_epoch();
        if expected >= base.end {
            let parts = expected == base.end && self.visit_from == base.end && self.found.parts_below_start();
            if parts {
                return Some(Damage::Epoch { last: base.epoch, found: header.epoch });
            }
            last = last.max(base.epoch);
        }
        match header.epoch {
            Some(epoch) if epoch > last || (epoch == last && self.found.epochs.is_empty()) => {
                self.found.epochs.push((epoch, header.base_offset));
                None
            }
            Some(epoch) if epoch == last => None,
            found => Some(Damage::Epoch { last, found }),
        }
    }
}

/// Reads the batch header at `position` and, where wanted, verifies the checksum, without holding the whole batch.
/// The outer error is the file's, the inner one the batch's.
pub(crate) fn check_batch(
    window: &mut Window<'_>,
    position: u64,
    verify: impl FnOnce(&BatchHeader) -> bool,
) -> std::io::Result<Result<BatchHeader, BatchError>> {
    let header = match BatchHeader::decode(window.get(position, HEADER_LEN)?) {
        Ok(header) => header,
        Err(error) => return Ok(Err(error)),
    };
    let remaining = window.remaining(position);
    if remaining < u64::from(header.length) {
        let have = usize::try_from(remaining).unwrap_or(usize::MAX);
        return Ok(Err(BatchError::Truncated { have, need: header.length as usize }));
    }
    if !verify(&header) {
        return Ok(Ok(header));
    }
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    let mut at = position + CHECKSUM_OFFSET as u64;
    let end = position + u64::from(header.length);
    while at < end {
        let len = usize::try_from(end - at).unwrap_or(usize::MAX).min(READ_AHEAD);
        digest.update(window.get(at, len)?);
        at += len as u64;
    }
    let computed = digest.finalize() as u32;
    if computed == header.crc {
        Ok(Ok(header))
    } else {
        Ok(Err(BatchError::Checksum { stored: header.crc, computed }))
    }
}
