//! A log that cannot be opened, because something below what is trusted is damaged (R33).

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_core::record_batch::{BatchHeader, HEADER_LEN, RecordBatch};
use holdfast_core::{LeaderEpoch, Offset};

use super::mark;
use super::mend::{MendError, Misfit, check_epochs, fitting, write_durably};
use super::run::{Place, Run};
use super::splice::{Splice, within};
use super::verify::DamagedRange;
use crate::error::Damage;
use crate::inspect::{self, Checks, Step};
use crate::segment::Segment;
use crate::window::Window;
use crate::{File, Fs, LogError, OpenMode, Recovery, ReplicaLogError, compaction, recovery, segment};

/// Bytes read at once where only headers are looked at.
const HEADERS_AHEAD: usize = 64 << 10;
/// No batch is larger: what claims to be is damaged, and not read into memory.
const LARGEST_BATCH: u32 = 32 << 20;

/// A replica's log that cannot be opened, while what is damaged of it is written anew, from where opening it met damage to
/// the end of that segment. Nobody else may have the folder open.
#[derive(Debug)]
pub struct DamagedLog {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    /// First offsets of the segments.
    bases: Vec<Offset>,
    /// Which of them is looked at.
    number: usize,
    /// Everything before it in that segment is as it should be, as far as opening a log looks.
    place: Place,
    /// The epoch of the batch before, and where the first batch of that epoch is: in which segment, and its place there.
    before: Option<(LeaderEpoch, usize, Place)>,
    /// What is to be there.
    recovery: Recovery,
    /// No later epoch may be in the log.
    promise: LeaderEpoch,
    found: Option<Found>,
    short: bool,
    /// Whether it is noted in the folder that it is being repaired.
    marked: bool,
}

/// The damage at the place.
#[derive(Debug, Clone)]
struct Found {
    range: DamagedRange,
    /// Where the log goes on for certain.
    end: Option<Place>,
}

impl DamagedLog {
    /// The log in `dir` that could not be opened because of `error`, by what was known of it; no later epoch than `promise` was
    /// promised. `None` where the error does not say where it is damaged, or where nothing of it is left.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn new(
        fs: Arc<dyn Fs>,
        dir: &Path,
        recovery: Recovery,
        promise: LeaderEpoch,
        error: &ReplicaLogError,
    ) -> Result<Option<DamagedLog>, LogError> {
        let bases = recovery::segment_bases(&*fs, dir)?;
        let number_of = |base: Option<Offset>| bases.iter().position(|known| Some(*known) == base);
        let number_of = |segment: &Path| number_of(segment.file_name().and_then(segment::parse_file_name));
        let (number, place, suspect) = match error {
            ReplicaLogError::Damaged(LogError::Corrupt { offset, segment, position, .. }) => {
                let Some(number) = number_of(segment) else { return Ok(None) };
                (number, Place { position: *position, offset: *offset }, None)
            }
            ReplicaLogError::Overreach { found, at, .. } => {
                let number = bases.partition_point(|base| base <= at).checked_sub(1);
                let Some(number) = number else { return Ok(None) };
                let place = Place { position: 0, offset: bases[number] };
                (number, place, Some((*at, Damage::Epoch { last: promise, found: Some(*found) })))
            }
            // What cannot be read of it may be anywhere in that file.
            ReplicaLogError::Log(LogError::Io { path, .. }) => {
                let Some(number) = number_of(path) else { return Ok(None) };
                (number, Place { position: 0, offset: bases[number] }, None)
            }
            ReplicaLogError::Damaged(_) | ReplicaLogError::Log(_) => return Ok(None),
        };
        let (dir, found, before, short, marked) = (dir.to_owned(), None, None, false, false);
        let mut log =
            DamagedLog { fs, dir, bases, number, place, before, recovery, promise, found, short, marked };
        let sensible = match suspect {
            Some((at, damage)) => log.suspect(at, damage)?,
            None => log.find_hole()?,
        };
        if let ReplicaLogError::Damaged(LogError::Corrupt { source: Damage::Epoch { last, .. }, .. }) = error
        {
            log.look_further_back(*last)?;
        }
        Ok(sensible.then_some(log))
    }

    /// Notes in the folder that the log is being repaired, before others are asked: to the next run a log that was closed in
    /// order may look like one with a torn tail. Where there is no room for it, it is noted with what is written.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn begin(&mut self) -> Result<(), LogError> {
        match self.mark() {
            Err(full) if full.is_full() => Ok(()),
            marked => marked,
        }
    }

    /// Durable before what is damaged is written anew.
    fn mark(&mut self) -> Result<(), LogError> {
        if !self.marked {
            mark::begin(&*self.fs, &self.dir)?;
            self.marked = true;
        }
        Ok(())
    }

    /// Notes that the log had ended below what is trusted, before it does not any more.
    fn mark_short(&mut self) -> Result<(), LogError> {
        if !self.short {
            mark::note_more_gone(&*self.fs, &self.dir)?;
            self.short = true;
        }
        Ok(())
    }

    /// Where a file begins behind the offset that comes next, files before it are missing or too short: the one before is to
    /// go on. False where files overlap.
    fn find_hole(&mut self) -> Result<bool, LogError> {
        let (expected, base) = (self.place.offset, self.bases[self.number]);
        if self.place.position == 0 && expected > base {
            return Ok(false);
        }
        if self.place.position > 0 || expected == base {
            self.go_back()?;
            return Ok(true);
        }
        let Some(before) = self.number.checked_sub(1) else {
            self.bases.insert(0, expected);
            return Ok(true);
        };
        self.number = before;
        self.place.position = self.len()?;
        self.go_back()?;
        Ok(true)
    }

    /// Opening a log looks at headers only where it may. So what it found may be the fault of a batch in front, that is not as
    /// long as it says: goes back to the one whose checksum is wrong or, where headers do not lead to the place, to the
    /// segment's begin.
    fn go_back(&mut self) -> Result<(), LogError> {
        let start = Place { position: 0, offset: self.bases[self.number] };
        let file = self.open()?;
        while let Some(file) = file.as_deref().filter(|_| self.place != start) {
            let Some(last) = self.find_before()? else {
                self.place = start;
                break;
            };
            let promised = |header: &BatchHeader| {
                let beyond = header.epoch.is_none_or(|epoch| epoch > self.promise);
                beyond.then_some(Damage::Epoch { last: self.promise, found: header.epoch })
            };
            match Run::new(file, self.len()?).check(last, &promised) {
                Ok(header) if last.behind(&header) == self.place => return Ok(()),
                _ => self.place = last,
            }
        }
        self.find_before()?;
        Ok(())
    }

    /// Looks at the headers in front of the place, and returns where the last of them is. `None` if there is none, or if they
    /// do not lead to the place.
    fn find_before(&mut self) -> Result<Option<Place>, LogError> {
        let (until, start) = (self.place, Place { position: 0, offset: self.bases[self.number] });
        let (mut before, mut last): (Option<(LeaderEpoch, usize, Place)>, Option<Place>) = (None, None);
        let arrived = self.headers(start, |place, header| {
            let in_front = place.position < until.position;
            let again = before.is_some_and(|(epoch, ..)| Some(epoch) == header.epoch);
            if in_front {
                last = Some(place);
            }
            if in_front && !again {
                before = header.epoch.map(|epoch| (epoch, self.number, place));
            }
            in_front
        })?;
        self.before = before.filter(|_| arrived == until);
        Ok(last.filter(|_| arrived == until))
    }

    /// A segment that begins with a falling epoch: the one that is wrong may be in the segment before.
    fn look_further_back(&mut self, last: LeaderEpoch) -> Result<(), LogError> {
        let Some(number) = self.number.checked_sub(1).filter(|_| self.before.is_none()) else {
            return Ok(());
        };
        let this = std::mem::replace(&mut self.number, number);
        let mut first = None;
        let start = Place { position: 0, offset: self.bases[number] };
        let walked = self.headers(start, |place, header| {
            match header.epoch == Some(last) {
                true => _ = first.get_or_insert(place),
                false => first = None,
            }
            true
        });
        self.number = this;
        walked?;
        self.before = first.map(|first| (last, number, first));
        Ok(())
    }

    /// The batch at that offset, whole as it is, is taken for the damaged one. False where there is none.
    fn suspect(&mut self, at: Offset, source: Damage) -> Result<bool, LogError> {
        let place = self.headers(self.place, |place, _| place.offset < at)?;
        let there = place.offset == at && at < self.limit();
        if there {
            self.begin_at(self.number, place, source)?;
        }
        Ok(there)
    }

    fn begin_at(&mut self, number: usize, place: Place, source: Damage) -> Result<(), LogError> {
        (self.number, self.place, self.before) = (number, place, None);
        self.find_before()?;
        let range = self.range(self.end(), 0, source);
        self.found = Some(Found { range, end: None });
        Ok(())
    }

    /// Walks from one header to the next as long as `go_on` holds of them, and returns the place of the first of which it
    /// does not, or that is none.
    fn headers(
        &self,
        start: Place,
        mut go_on: impl FnMut(Place, &BatchHeader) -> bool,
    ) -> Result<Place, LogError> {
        let mut place = start;
        let Some(file) = self.open()? else { return Ok(place) };
        let mut window = Window::new(&*file, self.len()?, HEADERS_AHEAD);
        loop {
            let Ok(bytes) = window.get(place.position, HEADER_LEN) else { return Ok(place) };
            let Ok(header) = BatchHeader::decode(bytes) else { return Ok(place) };
            if header.base_offset != place.offset || !go_on(place, &header) {
                return Ok(place);
            }
            place = place.behind(&header);
        }
    }

    /// What is damaged next, in this segment and below what is trusted. `None` where it is whole to there: the log may be
    /// opened again.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn next_damage(&mut self) -> Result<Option<DamagedRange>, LogError> {
        if let Some(found) = &self.found {
            return Ok(Some(found.range.clone()));
        }
        let (file, len) = (self.open()?, self.len()?);
        let damaged = file.and_then(|file| self.run_on(&*file, len));
        if damaged.is_some() {
            return Ok(damaged);
        }
        let trusted_end = self.next_base().unwrap_or(self.recovery.trusted_end);
        if self.place.offset >= trusted_end.min(self.limit()) {
            return Ok(None);
        }
        let range = self.range(trusted_end, 0, Damage::Missing { trusted_end });
        self.found = Some(Found { range: range.clone(), end: None });
        Ok(Some(range))
    }

    /// Goes on over whole batches, up to the first that is not, or the end of the file.
    fn run_on(&mut self, file: &dyn File, len: u64) -> Option<DamagedRange> {
        let (limit, next_base) = (self.limit(), self.next_base());
        let mut run = Run::new(file, len);
        while self.place.offset < limit && self.place.position < len {
            let checked = run.check(self.place, &|header| self.wrong(header));
            match checked {
                Ok(header) => self.pass(&header),
                Err(bad) => {
                    let end = run.behind(self.place, &bad, next_base, &|header| self.wrong(header));
                    let bytes = end.map_or(len, |end| end.position) - self.place.position;
                    let range = self.range(end.map_or(self.end(), |end| end.offset), bytes, bad.damage);
                    self.found = Some(Found { range: range.clone(), end });
                    return Some(range);
                }
            }
        }
        None
    }

    /// Puts batches of a peer, which it holds as committed, where the damage is that was [found](Self::next_damage) last.
    /// They need not fill all of it. Durable, and read back from the disk.
    ///
    /// # Errors
    /// As [`LogReader::mend`](crate::LogReader::mend).
    pub fn fill(&mut self, batches: &[RecordBatch]) -> Result<Offset, MendError> {
        let Some(Found { range, end }) = self.found.clone() else {
            return Err(MendError::DoesNotFit { offset: self.place.offset, problem: Misfit::Nothing });
        };
        let limit = self.limit();
        let to = end.map(|end| end.offset).or(self.next_base()).unwrap_or(Offset(u64::MAX));
        let batches = within(batches, self.place.offset, to);
        let ours = batches.partition_point(|batch| batch.header().base_offset < limit);
        // What the peer got in a later epoch is not what was here.
        let later = |batch: &RecordBatch| batch.header().epoch > Some(self.promise);
        let ours = batches[..ours].iter().position(later).map_or(ours, |later| later.max(1));
        self.mark()?;
        let (file, len) = (self.open_or_create()?, self.len()?);
        // A falling epoch may be the fault of the one before.
        let falls = matches!(range.source, Damage::Epoch { .. });
        if falls && self.is_there(&*file, &batches[..ours.min(1)]) {
            return self.suspect_the_one_before(range);
        }
        let mut run = Run::new(&*file, len);
        let fits = fitting(&mut run, self.place, end, &batches[..ours], &|header| self.wrong(header));
        if matches!(fits, Err(MendError::DoesNotFit { problem: Misfit::End { .. }, .. })) {
            let end = end.map_or(len, |end| end.position);
            return self.splice(&*file, len, end, to, &batches[..ours]);
        }
        let (batches, behind) = fits?;
        if behind.position < len && self.ends_at(behind.offset) {
            let goes_on = run.check(behind, &|header| self.wrong(header)).is_ok();
            if !goes_on {
                return self.splice(&*file, len, len, behind.offset, batches);
            }
        }
        let path = self.path();
        self.forget_clean()?;
        // Where the file had ended below what is trusted, what came behind may have been acknowledged, too.
        if self.next_base().is_none() && behind.position > len {
            self.mark_short()?;
        }
        write_durably(&*self.fs, &path, self.place, batches)?;
        self.found = None;
        for batch in batches {
            self.pass(batch.header());
        }
        Ok(self.place.offset)
    }

    /// Writes the segment anew with the batches in the place of everything up to byte `end`, offset `to`.
    fn splice(
        &mut self,
        file: &dyn File,
        len: u64,
        end: u64,
        to: Offset,
        batches: &[RecordBatch],
    ) -> Result<Offset, MendError> {
        check_epochs(batches, &|header| self.wrong(header))?;
        let splice = Splice { file, len, hole: self.place.position..end, batches };
        splice.check_reaches(to)?;
        self.forget_clean()?;
        compaction::finish_merge(&*self.fs, &self.dir)?;
        // Opening the log makes its index.
        let old = Segment { end: self.end(), len, ..Segment::new(self.bases[self.number]) };
        let new = splice.rewrite(&*self.fs, &self.dir, old, u64::MAX)?;
        compaction::install(&*self.fs, &self.dir, new)?;
        self.found = None;
        for batch in batches {
            self.pass(batch.header());
        }
        Ok(self.place.offset)
    }

    /// What was cleaned here may not have been where the batches come from. Noted before they are written.
    fn forget_clean(&self) -> Result<(), LogError> {
        let known = compaction::read(&*self.fs, &self.dir)?;
        let mut lowered = known.clone();
        lowered.lower(self.place.offset);
        if lowered == known { Ok(()) } else { lowered.write(&*self.fs, &self.dir) }
    }

    fn is_there(&self, file: &dyn File, batches: &[RecordBatch]) -> bool {
        batches.first().is_some_and(|batch| {
            let there = file.read_bytes(self.place.position, batch.bytes().len());
            there.is_ok_and(|there| there == *batch.bytes())
        })
    }

    /// The epoch of this batch is right, so that of the one with which the higher epoch begins is not.
    fn suspect_the_one_before(&mut self, range: DamagedRange) -> Result<Offset, MendError> {
        let offset = self.place.offset;
        match self.before {
            Some((_, number, first)) => {
                self.begin_at(number, first, range.source)?;
                // If that one is right, too, nothing is to be made of it.
                self.before = None;
                Ok(offset)
            }
            None => Err(MendError::DoesNotFit { offset, problem: Misfit::Same }),
        }
    }

    /// Whether the log had ended below what was trusted: then what it held above may have been acknowledged, and is gone
    /// (R35). Who opens it is [told](crate::PartitionLog::is_shortened), also in another run.
    pub fn was_short(&self) -> bool {
        self.short
    }

    /// Why a batch cannot be the next one.
    fn wrong(&self, header: &BatchHeader) -> Option<Damage> {
        let last = self.before.map_or(LeaderEpoch::ZERO, |(epoch, ..)| epoch);
        let fits = header.epoch.is_some_and(|epoch| epoch >= last && epoch <= self.promise);
        if !fits {
            return Some(Damage::Epoch { last, found: header.epoch });
        }
        let expected = self.next_base().filter(|next_base| header.next_offset() > *next_base)?;
        Some(Damage::Gap { expected, found: header.next_offset() })
    }

    fn pass(&mut self, header: &BatchHeader) {
        let again = self.before.is_some_and(|(epoch, ..)| Some(epoch) == header.epoch);
        if let Some(epoch) = header.epoch.filter(|_| !again) {
            self.before = Some((epoch, self.number, self.place));
        }
        self.place = self.place.behind(header);
    }

    fn range(&self, to: Offset, bytes: u64, source: Damage) -> DamagedRange {
        DamagedRange {
            from: self.place.offset,
            to,
            segment: self.path(),
            position: self.place.position,
            bytes,
            source,
            base: self.bases[self.number],
            truncations: 0,
        }
    }

    /// First offset of the segment behind.
    fn next_base(&self) -> Option<Offset> {
        self.bases.get(self.number + 1).copied()
    }

    /// Up to where this segment has to be whole.
    fn limit(&self) -> Offset {
        // After an orderly stop everything was flushed, so everything has to be whole.
        let trusted = if self.recovery.clean { Offset(u64::MAX) } else { self.recovery.trusted_end };
        self.next_base().map_or(trusted, |next| next.min(trusted))
    }

    /// Whether nothing that counts of this segment is behind that offset.
    fn ends_at(&self, offset: Offset) -> bool {
        let Recovery { trusted_end, flushed_end, clean } = self.recovery;
        // What is torn off otherwise is cut when the log is opened.
        let ends = clean && offset >= trusted_end.max(flushed_end);
        self.next_base().map_or(ends, |next| offset == next)
    }

    /// Where this segment ends, as far as that is known.
    fn end(&self) -> Offset {
        self.next_base().unwrap_or(self.recovery.trusted_end.max(self.place.offset + 1))
    }

    fn path(&self) -> PathBuf {
        segment::path(&self.dir, self.bases[self.number])
    }

    /// `None` where the file is missing.
    fn open(&self) -> Result<Option<Arc<dyn File>>, LogError> {
        let path = self.path();
        match self.fs.open(&path, OpenMode::ReadOnly) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some).map_err(LogError::io("opening segment", &path)),
        }
    }

    fn open_or_create(&self) -> Result<Arc<dyn File>, LogError> {
        if let Some(file) = self.open()? {
            return Ok(file);
        }
        let path = self.path();
        let file =
            self.fs.open(&path, OpenMode::CreateNew).map_err(LogError::io("creating segment", &path))?;
        self.fs.sync_dir(&self.dir).map_err(LogError::io("syncing folder", &self.dir))?;
        Ok(file)
    }

    fn len(&self) -> Result<u64, LogError> {
        let Some(file) = self.open()? else { return Ok(0) };
        file.len().map_err(LogError::io("reading size of segment", &self.path()))
    }
}

/// Whole batches of a log that is not open, from the one that contains `from` on: contiguous, up to `max_bytes` of them but
/// at least one, none that reaches beyond `below`, of which fillers are cut. None where there are none that can be believed.
///
/// # Errors
/// [`LogError::Io`].
pub fn read_closed(
    fs: &dyn Fs,
    dir: &Path,
    from: Offset,
    below: Offset,
    max_bytes: usize,
) -> Result<Vec<RecordBatch>, LogError> {
    let (mut found, mut size, mut expected) = (Vec::new(), 0, None);
    inspect::walk::<LogError>(fs, dir, from, Checks::Headers, &mut |step| {
        let Step::Batch(batch) = step else { return Ok(ControlFlow::Continue(())) };
        let header = batch.header;
        if header.next_offset() <= from || (batch.damaged && found.is_empty()) {
            return Ok(ControlFlow::Continue(()));
        }
        let follows = expected.map_or(header.base_offset <= from, |expected| header.base_offset == expected);
        let len = header.length as usize;
        let fits = found.is_empty() || size + len <= max_bytes;
        let below_it = header.next_offset() <= below || (header.is_filler() && header.base_offset < below);
        let usable = follows && !batch.damaged && below_it && header.length <= LARGEST_BATCH;
        if !usable || !fits {
            return Ok(ControlFlow::Break(()));
        }
        let whole = RecordBatch::check_crc(batch.bytes()?).ok();
        let Some(whole) = whole.and_then(|whole| whole.clipped(Offset::ZERO, below)) else {
            return Ok(ControlFlow::Break(()));
        };
        found.push(whole);
        (size, expected) = (size + len, Some(header.next_offset()));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}
