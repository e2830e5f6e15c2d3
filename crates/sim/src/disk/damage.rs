//! What happens to a disk: its process dies, its machine loses power, its operations fail, its bits turn.

use holdfast_core::Offset;
use holdfast_core::replication::Replica;
use holdfast_log::fs::mem::{Fault, OperationKind};
use holdfast_log::{Fs, OpenMode};

use super::Disk;
use super::states;
use crate::random::Random;

/// An operation that will fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Break {
    /// The next write to the log; half of it arrives.
    Write,
    /// The next flush of the log; what it was to flush is lost, although it can still be read.
    Flush,
    /// The next read of the log.
    Read,
    /// The next cut of the log.
    Cut,
    /// The next write to the journal of promises.
    Promise,
    /// The next flush of the journal of promises.
    PromiseFlush,
}

impl Break {
    /// All of them.
    pub(crate) const ALL: [Break; 6] =
        [Break::Write, Break::Flush, Break::Read, Break::Cut, Break::Promise, Break::PromiseFlush];
}

impl Disk {
    /// An operation that comes soon will fail.
    pub(crate) fn break_next(&mut self, what: Break) {
        let (files, kind) = match what {
            Break::Write => (&self.log_files, OperationKind::Write),
            Break::Flush => (&self.log_files, OperationKind::SyncData),
            Break::Read => (&self.log_files, OperationKind::Read),
            Break::Cut => (&self.log_files, OperationKind::SetLen),
            Break::Promise => (&self.state_files, OperationKind::Write),
            Break::PromiseFlush => (&self.state_files, OperationKind::SyncData),
        };
        files.inject(Fault { kind: Some(kind), after: 0, lasting: false });
        self.breaking |= !matches!(what, Break::Promise | Break::PromiseFlush);
    }

    /// No operation fails any more.
    pub(crate) fn mend(&mut self) {
        self.log_files.clear_faults();
        self.state_files.clear_faults();
        self.breaking = false;
    }

    /// From the `after`th change on the disk is gone, as if the machine lost power in the middle of what it does.
    pub(crate) fn break_after(&mut self, after: u64) {
        for files in [&self.log_files, &self.state_files] {
            files.inject(Fault { kind: None, after, lasting: true });
        }
    }

    /// The process dies. What it wrote stays; states on their way to the journal may have been written or not.
    pub(crate) fn crash(&mut self, random: &mut Random) {
        self.log_files.clear_faults();
        self.state_files.clear_faults();
        self.left = self.end();
        let Some(mut open) = self.open.take() else { return };
        for _ in 0..random.below(open.writing.len() + 1) {
            for frame in open.writing.pop_front().into_iter().flat_map(|(_, frames)| frames) {
                // A write that fails leaves half a frame, and what comes behind it does not count: as it should be.
                let _ = states::append(&mut open.journal, &frame);
            }
        }
    }

    /// The machine loses power: any part of what was not flushed may be gone, in no order.
    pub(crate) fn cut_power(&mut self, random: &mut Random) {
        self.crash(random);
        self.left = self.flushed;
        self.boot += 1;
        self.powerless = true;
        for files in [&self.log_files, &self.state_files] {
            if random.chance(300) { files.crash() } else { files.crash_keeping(random.word()) }
        }
    }

    /// The process ends in order: everything is flushed, and the next one may rely on it. False where it is not.
    pub(crate) fn close(&mut self, replica: &Replica) -> bool {
        while self.open.as_ref().is_some_and(|open| open.flushing.is_some()) {
            self.end_flush();
        }
        let last = self.open.as_ref().and_then(|open| open.writing.back().map(|&(number, _)| number));
        if !last.is_none_or(|number| self.end_persist(number)) {
            return false;
        }
        let Some(open) = &mut self.open else { return false };
        let Some(log) = &mut open.log else { return self.note_run(true).is_ok() };
        let flushed = log.take_flush().is_none_or(|ticket| ticket.run().is_ok());
        if !flushed || log.is_poisoned() || self.note_log(replica).is_err() {
            return false;
        }
        let Some(log) = self.log_mut() else { return false };
        if log.take_flush().is_some_and(|ticket| ticket.run().is_err()) {
            return false;
        }
        self.flushed = log.log_end_offset();
        let end = self.flushed;
        let noted = self.checkpoint(replica.status().high_watermark, replica.durable_end());
        let Some(open) = &mut self.open else { return false };
        let closed = noted && open.journal.flush().is_ok() && self.note_run(true).is_ok();
        self.left = end;
        self.open = None;
        closed
    }

    /// A bit of the log turns while nobody holds it: below what was noted as flushed if `below`, else above what is
    /// flushed. In between it could not be told from a torn write, and acknowledged data would go (protocol §9). True if
    /// there was such a place.
    pub(crate) fn rot(&mut self, below: bool, random: &mut Random) -> bool {
        let Some(stored) = self.stored.as_ref().filter(|_| self.open.is_none()) else { return false };
        let trusted = stored.checkpoint.durable_end;
        let (low, high) = if below { (Offset::ZERO, trusted) } else { (self.flushed, Offset(u64::MAX)) };
        let mut places = Vec::new();
        for (path, len) in self.log_files() {
            let Ok(file) = self.log_files.open(&path, OpenMode::Existing) else { continue };
            let Ok(bytes) = file.read_bytes(0, len as usize) else { continue };
            places.extend(batches_between(&bytes, low, high).map(|range| (path.clone(), range)));
        }
        let Some((path, range)) = places.get(random.below(places.len())).cloned() else { return false };
        // The epoch is stamped behind the checksum's back, as in Kafka: a bit turned there shows only where it breaks the
        // order of epochs.
        let within = random.below((range.end - range.start) as usize) as u64;
        let at = range.start + if (12..16).contains(&within) { within + 12 } else { within };
        let Ok(file) = self.log_files.open(&path, OpenMode::Existing) else { return false };
        let Ok(byte) = file.read_bytes(at, 1) else { return false };
        let turned = byte[0] ^ (1 << random.below(8));
        self.rotten |= below;
        file.write_all_at(&[&[turned]], at).is_ok()
    }

    /// Everything was read and is whole.
    pub(crate) fn is_whole(&mut self) {
        self.rotten = false;
    }

    /// The machine loses power, and everything that was not flushed is gone.
    #[cfg(any(test, feature = "mutants"))]
    pub(crate) fn cut_power_fully(&mut self) {
        self.open = None;
        self.boot += 1;
        self.log_files.crash();
        self.state_files.crash();
    }

    /// The process dies after its log failed, and all of the log is gone.
    #[cfg(any(test, feature = "mutants"))]
    pub(crate) fn crash_and_lose_all(&mut self) {
        self.open = None;
        self.remove_log().expect("the folder is there");
    }
}

/// Where in a segment the batches are whose offsets lie in `low..high`.
fn batches_between(bytes: &[u8], low: Offset, high: Offset) -> impl Iterator<Item = std::ops::Range<u64>> {
    use holdfast_core::record_batch::BatchHeader;
    let mut ranges = Vec::new();
    let mut at = 0;
    while let Ok(header) = BatchHeader::decode(bytes.get(at..).unwrap_or_default()) {
        let end = at + header.length as usize;
        if header.base_offset >= low && header.next_offset() <= high && end <= bytes.len() {
            ranges.push(at as u64..end as u64);
        }
        at = end;
    }
    ranges.into_iter()
}
