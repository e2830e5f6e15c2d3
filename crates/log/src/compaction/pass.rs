//! One pass: learns the last offset of each key of what is not clean yet, then goes over everything and takes out what is superseded.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_core::Offset;
use holdfast_core::record_batch::{Record, RecordBatch, RecordIter};

use super::key_map::KeyMap;
use super::producers::LastBatches;
use super::segments::{Bad, Batches, Epochs, HEADERS_AT_ONCE};
use super::writer::{SegmentWriter, Suffix};
use super::{Codec, CodecError, CompactionOutcome, CompactionPlan, PassEnd};
use crate::segment::Segment;
use crate::{LogError, LogReader};

/// Why a pass does not go on.
enum Halt {
    /// No whole batch is there.
    Bad(Bad),
    Stopped,
    Changed,
    Failed(LogError),
}

impl From<LogError> for Halt {
    fn from(error: LogError) -> Halt {
        Halt::Failed(error)
    }
}

impl From<Bad> for Halt {
    fn from(bad: Bad) -> Halt {
        Halt::Bad(bad)
    }
}

/// How far the keys are known.
#[derive(Debug, Clone, Copy)]
enum Learned {
    /// Of everything.
    All,
    /// As far as they fit.
    Fitting,
    /// To a segment in which something is damaged.
    ToDamage(Bad),
}

/// What going over a segment has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gone {
    /// To its end.
    Through,
    /// To the first batch that does not stay as it is.
    ToChange,
}

struct Pass<'a> {
    reader: &'a LogReader,
    plan: &'a CompactionPlan,
    codec: &'a dyn Codec,
    throttle: &'a mut dyn FnMut(u64) -> ControlFlow<()>,
    /// What it begins with, oldest first.
    segments: Vec<Segment>,
    epochs: Arc<Epochs>,
    /// How often the log was disturbed before.
    disturbed: u64,
    /// Everything below is clean.
    clean: Offset,
    /// Tombstones below go.
    gone: Offset,
    /// Nothing at or above counts, or goes.
    below: Offset,
    keys: KeyMap,
    producers: LastBatches,
    /// The first batch that cannot be read: what it holds of a key nobody knows, so no tombstone behind it goes.
    first_unreadable: Option<Offset>,
    /// The last one that was counted.
    last_unreadable: Option<Offset>,
    outcome: CompactionOutcome,
}

/// Goes over a log.
pub(super) fn run(
    reader: &LogReader,
    plan: &CompactionPlan,
    codec: &dyn Codec,
    throttle: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<CompactionOutcome, LogError> {
    let shared = &reader.shared;
    let still = shared.stand_still();
    let disturbed = shared.compaction.disturbed();
    if *still {
        shared.finish_merge()?;
        // The start of the log, say, may have its name from a process that died before that was durable.
        shared.fs.sync_dir(&shared.dir).map_err(LogError::io("syncing folder", &shared.dir))?;
    }
    drop(still);
    let segments = reader.sealed_below(plan.below);
    let compacted = shared.compacted();
    let (clean, epochs) = {
        let view = shared.read();
        (compacted.cleaned_end, Arc::new(Epochs { start: view.start(), starts: view.epochs.clone() }))
    };
    let below = segments.last().map_or(Offset::ZERO, |segment| segment.end);
    let bytes = segments.iter().map(|segment| segment.len).sum();
    let pass = Pass {
        reader,
        plan,
        codec,
        throttle,
        keys: KeyMap::new(plan.map_bytes, below - clean),
        segments,
        epochs,
        disturbed,
        clean,
        gone: compacted.tombstones_gone_below.min(clean),
        below,
        producers: LastBatches::default(),
        first_unreadable: None,
        last_unreadable: None,
        outcome: CompactionOutcome {
            cleaned_end: clean,
            bytes_before: bytes,
            bytes_after: bytes,
            removed_records: 0,
            replaced_segments: 0,
            unreadable_batches: 0,
            ended: PassEnd::Complete,
        },
    };
    pass.run()
}

impl Pass<'_> {
    fn run(mut self) -> Result<CompactionOutcome, LogError> {
        if self.reader.shared.trimming.noted() < self.epochs.start {
            // What was trimmed may be there again after a crash, and its keys are not to be had any more.
            return Ok(CompactionOutcome { ended: PassEnd::Changed, ..self.outcome });
        }
        let ended = match self.learn().and_then(|learned| self.clean_all().map(|()| learned)) {
            Ok(_) if !self.note_clean()? => PassEnd::Changed,
            Ok(Learned::All) => PassEnd::Complete,
            Ok(Learned::Fitting) => PassEnd::MapFull,
            Ok(Learned::ToDamage(bad)) => self.end_at(bad),
            Err(Halt::Bad(bad)) => self.end_at(bad),
            Err(Halt::Stopped) => PassEnd::Stopped,
            Err(Halt::Changed) => PassEnd::Changed,
            // A file that is gone, say.
            Err(Halt::Failed(_)) if self.has_changed() => PassEnd::Changed,
            Err(Halt::Failed(error)) => return Err(error),
        };
        Ok(CompactionOutcome { ended, ..self.outcome })
    }

    /// Whether the log was cut at either end, repaired or closed since the pass began.
    fn has_changed(&self) -> bool {
        let shared = &self.reader.shared;
        let owned = *shared.stand_still();
        !owned
            || shared.compaction.disturbed() != self.disturbed
            || shared.read().start() != self.epochs.start
    }

    /// What is wrong there, if it still is.
    fn end_at(&self, Bad(offset): Bad) -> PassEnd {
        let verified = self.reader.verify(offset, Offset(offset.0.saturating_add(1)), 0);
        let damage = verified.ok().and_then(|verified| verified.damage);
        damage.map_or(PassEnd::Changed, |damage| PassEnd::Damaged(Box::new(damage)))
    }

    /// Takes in the keys, and whose the batches are. Where something is damaged, or the memory is full, the pass goes no
    /// further than that.
    fn learn(&mut self) -> Result<Learned, Halt> {
        for number in 0..self.segments.len() {
            let segment = self.segments[number];
            let learned = if segment.end <= self.clean {
                self.learn_headers(segment).map(|()| true)
            } else {
                self.learn_batches(segment)
            };
            match learned {
                Ok(true) => {}
                Ok(false) => return Ok(Learned::Fitting),
                Err(Halt::Bad(bad)) => {
                    self.segments.truncate(number);
                    self.below = segment.base;
                    return Ok(Learned::ToDamage(bad));
                }
                Err(halt) => return Err(halt),
            }
        }
        Ok(Learned::All)
    }

    fn learn_headers(&mut self, segment: Segment) -> Result<(), Halt> {
        let held = self.reader.shared.hold(segment)?;
        let mut batches = Batches::headers(held, segment, Arc::clone(&self.epochs));
        while let Some(header) = batches.next_header()? {
            self.throttle(HEADERS_AT_ONCE.min(header.length as usize))?;
            self.producers.add(&header);
        }
        Ok(())
    }

    /// False if the memory is full.
    fn learn_batches(&mut self, segment: Segment) -> Result<bool, Halt> {
        let mut batches = self.batches(segment)?;
        while let Some(batch) = batches.next_batch()? {
            if !self.learn_batch(&batch)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn batches(&self, segment: Segment) -> Result<Batches, LogError> {
        Ok(Batches::new(self.reader.shared.hold(segment)?, segment, Arc::clone(&self.epochs)))
    }

    fn learn_batch(&mut self, batch: &RecordBatch) -> Result<bool, Halt> {
        self.throttle(batch.bytes().len())?;
        let header = batch.header();
        self.producers.add(header);
        if header.is_control() || header.next_offset() <= self.clean {
            return Ok(true);
        }
        // What cannot be made out to its end supersedes nothing: nobody may be able to read it.
        let section = self.section(batch).ok();
        let whole =
            section.filter(|section| RecordIter::new(*header, section.clone()).all(|record| record.is_ok()));
        let Some(section) = whole else { return Ok(true) };
        for Record { offset_delta, key, .. } in RecordIter::new(*header, section).flatten() {
            let offset = header.base_offset + u64::from(offset_delta);
            let Some(key) = key.filter(|_| offset >= self.clean) else { continue };
            if !self.keys.insert(&key, offset) {
                self.below = offset;
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn section(&self, batch: &RecordBatch) -> Result<Bytes, CodecError> {
        let compression = batch.header().compression();
        self.codec.decompress(compression, batch.section(), self.plan.max_section_bytes)
    }

    fn throttle(&mut self, bytes: usize) -> Result<(), Halt> {
        match (self.throttle)(bytes as u64) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Halt::Stopped),
        }
    }

    /// Goes over all segments, one output after the other.
    fn clean_all(&mut self) -> Result<(), Halt> {
        let mut number = 0;
        while self.segments.get(number).is_some_and(|segment| segment.base < self.below) {
            number += self.clean_from(number)?;
        }
        Ok(())
    }

    /// Writes the segment of that number anew, if something goes from it or if the ones behind it fit beside what is left;
    /// with as many of those as do. Returns how many it took.
    fn clean_from(&mut self, number: usize) -> Result<usize, Halt> {
        let first = self.segments[number];
        let mut writer = None;
        if self.clean_segment(first, None)? == Gone::ToChange {
            writer = Some(self.begin(first)?);
        }
        let mut taken = 1;
        while let Some(next) = self.segments.get(number + taken).copied() {
            let len = writer.as_ref().map_or(first.len, SegmentWriter::len);
            let fits =
                len + next.len <= self.reader.segment_size && next.end - first.base <= u64::from(u32::MAX);
            if next.base >= self.below || !fits {
                break;
            }
            let mut merged = match writer.take() {
                Some(writer) => writer,
                None => self.begin(first)?,
            };
            self.clean_segment(next, Some(&mut merged))?;
            writer = Some(merged);
            taken += 1;
        }
        if let Some(writer) = writer {
            let old = self.segments[number..number + taken].to_vec();
            self.replace(&old, writer)?;
        }
        Ok(taken)
    }

    /// Begins an output with what is left of a segment.
    fn begin(&mut self, first: Segment) -> Result<SegmentWriter, Halt> {
        let shared = &self.reader.shared;
        let interval = self.reader.index_interval();
        let mut writer =
            SegmentWriter::create(&shared.fs, &shared.dir, first.base, interval, Suffix::Cleaned)?;
        self.clean_segment(first, Some(&mut writer))?;
        Ok(writer)
    }

    /// Passes what is left of a segment to `writer`; without one, looks whether something goes.
    fn clean_segment(
        &mut self,
        segment: Segment,
        mut writer: Option<&mut SegmentWriter>,
    ) -> Result<Gone, Halt> {
        let mut batches = self.batches(segment)?;
        while let Some(batch) = batches.next_batch()? {
            if self.clean_batch(&batch, writer.as_deref_mut())? == Gone::ToChange {
                return Ok(Gone::ToChange);
            }
        }
        Ok(Gone::Through)
    }

    fn clean_batch(&mut self, batch: &RecordBatch, writer: Option<&mut SegmentWriter>) -> Result<Gone, Halt> {
        self.throttle(batch.bytes().len())?;
        let left = self.left_of(batch);
        let removed = batch.header().records - left.header().records;
        let Some(writer) = writer else {
            return Ok(if removed == 0 { Gone::Through } else { Gone::ToChange });
        };
        writer.push(&left)?;
        self.outcome.removed_records += u64::from(removed);
        self.throttle(left.bytes().len())?;
        Ok(Gone::Through)
    }

    /// What is left of a batch. One without any record that nobody asks for becomes a filler.
    fn left_of(&mut self, batch: &RecordBatch) -> RecordBatch {
        let header = batch.header();
        if header.is_control() || header.base_offset >= self.below {
            return batch.clone();
        }
        let left = if header.records == 0 { Ok(batch.clone()) } else { self.retained(batch) };
        let Ok(left) = left else {
            self.note_unreadable(header.base_offset);
            return batch.clone();
        };
        if left.header().records > 0 || self.producers.need(header) {
            return left;
        }
        let filler = header
            .epoch
            .and_then(|epoch| RecordBatch::filler(header.base_offset, header.next_offset(), epoch));
        filler.unwrap_or(left)
    }

    fn retained(&self, batch: &RecordBatch) -> Result<RecordBatch, CodecError> {
        let section = self.section(batch)?;
        let (base, compression) = (batch.header().base_offset, batch.header().compression());
        let compress = |section: &[u8]| self.codec.compress(compression, section);
        batch.retaining(&section, |record| self.stays(base, record), compress)
    }

    /// Whether a record stays: the last of its key, but for a tombstone that is noted to be gone.
    fn stays(&self, base: Offset, record: &Record) -> bool {
        let offset = base + u64::from(record.offset_delta);
        let Some(key) = record.key.as_ref().filter(|_| offset < self.below) else { return true };
        if self.keys.last(key).is_some_and(|last| last > offset) {
            return false;
        }
        let hides_nothing = self.first_unreadable.is_none_or(|first| offset < first);
        !(record.value.is_none() && offset < self.gone && hides_nothing)
    }

    fn note_unreadable(&mut self, offset: Offset) {
        if self.last_unreadable.is_none_or(|last| last < offset) {
            self.last_unreadable = Some(offset);
            self.outcome.unreadable_batches += 1;
        }
        self.first_unreadable.get_or_insert(offset);
    }

    /// Puts an output in the place of the segments that it was made of.
    fn replace(&mut self, old: &[Segment], writer: SegmentWriter) -> Result<(), Halt> {
        let new = writer.finish()?;
        let (before, after) = (old.iter().map(|segment| segment.len).sum::<u64>(), new.segment.len);
        let shared = &self.reader.shared;
        let still = shared.stand_still();
        if shared.compaction.disturbed() != self.disturbed {
            new.discard(&*shared.fs);
            return Err(Halt::Changed);
        }
        if !shared.replace_segments(&still, old, new)? {
            return Err(Halt::Changed);
        }
        self.outcome.replaced_segments += old.len() as u64;
        self.outcome.bytes_after = self.outcome.bytes_after.saturating_sub(before).saturating_add(after);
        Ok(())
    }

    /// Notes what is clean now. False if the log was disturbed meanwhile: then that is not known.
    fn note_clean(&mut self) -> Result<bool, LogError> {
        let shared = &self.reader.shared;
        let still = shared.stand_still();
        if !*still || shared.compaction.disturbed() != self.disturbed {
            return Ok(false);
        }
        let (below, plan) = (self.below, self.plan);
        if below > self.clean {
            shared.compaction.change(&*shared.fs, &shared.dir, |state| {
                state.cleaned_end = state.cleaned_end.max(below);
                state.marks.push(below, plan.now_ms, plan.tombstone_delay_ms);
            })?;
        }
        self.outcome.cleaned_end = shared.compacted().cleaned_end;
        Ok(true)
    }
}
