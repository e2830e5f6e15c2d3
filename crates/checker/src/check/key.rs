//! What is known of one key while its history is read.

use std::collections::BTreeMap;

use super::polls::{Position, Step};
use super::sends::{SendOrder, WentBack};
use super::spans::{Spans, spans_of};
use super::versions::{Marks, Run, Versions, runs_of};
use crate::anomaly::{Example, Findings, Kind, Place};
use crate::history::Key;
use crate::lag::Existence;

/// A send whose values have no offset of their own: failed, or of unknown outcome.
#[derive(Debug, Clone)]
pub(super) struct Unplaced {
    /// First and last value of each span of values, in the order sent.
    pub(super) values: Vec<(u64, u64)>,
    pub(super) place: Place,
}

/// Offsets that a poll passed over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gap {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) within: bool,
    pub(super) place: Place,
}

/// The state of one key.
#[derive(Debug)]
pub(super) struct KeyState {
    pub(super) key: Key,
    pub(super) versions: Versions,
    /// Every value that was ever sent.
    pub(super) sent: Spans,
    pub(super) failed: Vec<Unplaced>,
    /// Of unknown outcome, only those with several values.
    pub(super) unknown: Vec<Unplaced>,
    pub(super) gaps: Vec<Gap>,
    pub(super) existence: Existence,
    /// Highest epoch acknowledged, and where.
    epoch: Option<(u64, Place)>,
    senders: BTreeMap<u64, SendOrder>,
    readers: BTreeMap<u64, Position>,
    /// Whether a poll of the final phase succeeded.
    pub(super) read_in_final: bool,
}

/// What is compared when a send is acknowledged.
#[derive(Debug, Clone, Copy)]
pub(super) struct SendTicket {
    turn: u64,
    epoch: Option<(u64, Place)>,
}

impl KeyState {
    pub(super) fn new(key: Key) -> KeyState {
        KeyState {
            key,
            versions: Versions::default(),
            sent: Spans::default(),
            failed: Vec::new(),
            unknown: Vec::new(),
            gaps: Vec::new(),
            existence: Existence::default(),
            epoch: None,
            senders: BTreeMap::new(),
            readers: BTreeMap::new(),
            read_in_final: false,
        }
    }

    /// A send begins. Gives the first of its values that was sent before, if one was.
    pub(super) fn begin_send(&mut self, process: u64, values: &[u64]) -> Result<SendTicket, u64> {
        for (first, last) in spans_of(values) {
            self.sent.insert(first, last)?;
        }
        Ok(SendTicket { turn: self.senders.entry(process).or_default().begin(), epoch: self.epoch })
    }

    /// A send was acknowledged.
    pub(super) fn acked(
        &mut self,
        ticket: SendTicket,
        values: &[u64],
        base_offset: u64,
        epoch: Option<u64>,
        place: Place,
        findings: &mut Findings,
    ) {
        let mut offset = base_offset;
        for (first, last) in spans_of(values) {
            let run = Run { offset, value: first, len: last - first + 1 };
            self.meet(run, Marks::ACKED, place, findings);
            offset = run.end();
        }
        if let Some(epoch) = epoch {
            self.check_epoch(ticket, epoch, base_offset, place, findings);
        }
        let sender = self.senders.entry(place.process).or_default();
        let back = sender.acked(ticket.turn, base_offset, offset - 1, place);
        self.report_back(back, findings);
    }

    fn check_epoch(
        &mut self,
        ticket: SendTicket,
        epoch: u64,
        offset: u64,
        place: Place,
        findings: &mut Findings,
    ) {
        if let Some((known, earlier)) = ticket.epoch.filter(|&(known, _)| known > epoch) {
            findings.add(Kind::EpochRegression, 1, || {
                let detail = format!(
                    "acknowledged in epoch {epoch}, though line {} had an acknowledgement in epoch {known} before this \
                     send began",
                    earlier.line
                );
                example(&self.key, Some(offset), None, Some(place), detail)
            });
        }
        if self.epoch.is_none_or(|(known, _)| known < epoch) {
            self.epoch = Some((epoch, place));
        }
    }

    /// A send certainly was not stored.
    pub(super) fn failed(
        &mut self,
        ticket: SendTicket,
        values: &[u64],
        place: Place,
        findings: &mut Findings,
    ) {
        self.failed.push(Unplaced { values: spans_of(values).collect(), place });
        let back = self.senders.entry(place.process).or_default().skipped(ticket.turn);
        self.report_back(back, findings);
    }

    /// The outcome of a send is not known.
    pub(super) fn unknown(
        &mut self,
        ticket: SendTicket,
        values: &[u64],
        place: Place,
        findings: &mut Findings,
    ) {
        if values.len() > 1 {
            self.unknown.push(Unplaced { values: spans_of(values).collect(), place });
        }
        let back = self.senders.entry(place.process).or_default().skipped(ticket.turn);
        self.report_back(back, findings);
    }

    /// A poll showed records; `marks` say how it ended.
    pub(super) fn shown(
        &mut self,
        records: &[(u64, u64)],
        marks: Marks,
        place: Place,
        findings: &mut Findings,
    ) {
        for run in runs_of(records) {
            if let Some(value) = self.sent.first_missing(run.value, run.value + (run.len - 1)) {
                let offset = run.offset + (value - run.value);
                findings.add(Kind::Phantom, 1, || {
                    let detail = "was read, and nobody had sent it".to_owned();
                    example(&self.key, Some(offset), Some(value), Some(place), detail)
                });
            }
            self.meet(run, marks, place, findings);
        }
        let position = self.readers.entry(place.process).or_default();
        let (key, gaps) = (&self.key, &mut self.gaps);
        position.advance(records, |run, step| match step {
            Step::Over { from, to, within } => gaps.push(Gap { from, to, within, place }),
            Step::Back { expected, offset, within } => {
                let kind = if within { Kind::IntNonmonotonicPoll } else { Kind::NonmonotonicPoll };
                findings.add(kind, 1, || {
                    let detail = format!("offset {offset} was read where {expected} was next");
                    example(key, Some(offset), Some(run.value), Some(place), detail)
                });
            }
        });
    }

    /// A high watermark came with records.
    pub(super) fn see_watermark(
        &mut self,
        watermark: u64,
        records: &[(u64, u64)],
        place: Place,
        findings: &mut Findings,
    ) {
        if let Some(&(offset, value)) = records.iter().find(|&&(offset, _)| offset >= watermark) {
            findings.add(Kind::ReadAboveWatermark, 1, || {
                let detail = format!("was read with high watermark {watermark}");
                example(&self.key, Some(offset), Some(value), Some(place), detail)
            });
        }
        if let Some(before) = self.readers.entry(place.process).or_default().see_watermark(watermark) {
            findings.add(Kind::WatermarkRegression, 1, || {
                let detail = format!("high watermark {watermark} came after {before}");
                example(&self.key, Some(watermark), None, Some(place), detail)
            });
        }
    }

    /// A process goes on from there.
    pub(super) fn assign(&mut self, process: u64, offset: u64) {
        self.readers.entry(process).or_default().assign(offset);
    }

    /// Offset after the last record that a process was shown.
    pub(super) fn position(&self, process: u64) -> Option<u64> {
        self.readers.get(&process).and_then(Position::next)
    }

    /// A process ended.
    pub(super) fn process_ended(&mut self, process: u64, findings: &mut Findings) {
        self.readers.remove(&process);
        if let Some(mut sender) = self.senders.remove(&process) {
            let back = sender.end();
            self.report_back(back, findings);
        }
    }

    /// The history ended.
    pub(super) fn end(&mut self, findings: &mut Findings) {
        let senders = std::mem::take(&mut self.senders);
        for mut sender in senders.into_values() {
            let back = sender.end();
            self.report_back(back, findings);
        }
    }

    fn meet(&mut self, run: Run, marks: Marks, place: Place, findings: &mut Findings) {
        for conflict in self.versions.add(run, marks) {
            findings.add(Kind::InconsistentOffsets, 1, || {
                let detail = format!("value {} is there too", conflict.known);
                example(&self.key, Some(conflict.offset), Some(conflict.value), Some(place), detail)
            });
        }
    }

    fn report_back(&self, back: Vec<WentBack>, findings: &mut Findings) {
        for WentBack { first, place, earlier_last, earlier } in back {
            findings.add(Kind::NonmonotonicSend, 1, || {
                let detail = format!(
                    "acknowledged at offset {first}, though an earlier send of the process (line {}) has {earlier_last}",
                    earlier.line
                );
                example(&self.key, Some(first), None, Some(place), detail)
            });
        }
    }
}

/// An example that was not looked up yet.
pub(super) fn example(
    key: &Key,
    offset: Option<u64>,
    value: Option<u64>,
    place: Option<Place>,
    detail: String,
) -> Example {
    Example { key: Key::clone(key), offset, value, place, detail, mentions: Vec::new() }
}
