//! Reads a history from its first event to its last and says what is wrong with it.
//!
//! ```text
//!  event ──► operations under way ──► state of its key ──┬─► at once: order, conflicts, phantoms, epochs, watermarks
//!                                                        └─► at the end: losses, duplicates, gaps, batches (end.rs)
//! ```
//! It reads no clock and iterates in no hash order: one history has one report. Memory: what is under way, one run per
//! piece of log that was written in one go (`versions`), and the sends that failed. Events are forgotten.

mod end;
mod key;
mod malformed;
mod placements;
mod polls;
mod sends;
mod spans;
#[cfg(test)]
mod tests;
mod versions;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::anomaly::{Findings, Kind, Place};
use crate::faults::Faults;
use crate::history::{Event, Key, Poll, PollStage, Send, SendStage, What, error_code};
use crate::lag::LagMeter;
use crate::report::{Counts, Report};
use crate::rto::GapMeter;
pub use malformed::Malformed;

use key::{KeyState, SendTicket};
use versions::Marks;

/// Offsets from here on are refused: no log has them, and sums of them must not overflow.
const LARGEST_OFFSET: u64 = 1 << 62;
/// Error codes that are counted by name; others together.
const CODES: usize = 64;

/// An operation under way.
#[derive(Debug)]
enum Open {
    Send { key: Key, values: Vec<u64>, deadline_us: Option<u64>, ticket: SendTicket, place: Place },
    Poll { key: Key, began_us: u64, in_final: bool },
}

/// Judges a history, event by event.
#[derive(Debug)]
pub struct Checker {
    keys: BTreeMap<Key, KeyState>,
    /// By process and operation.
    open: BTreeMap<(u64, u64), Open>,
    faults: Faults,
    gaps: GapMeter,
    lag: LagMeter,
    findings: Findings,
    counts: Counts,
    final_begun: bool,
}

impl Default for Checker {
    fn default() -> Self {
        Checker::new()
    }
}

/// Judges a history in memory; its lines are counted from 1.
///
/// # Errors
/// The history contradicts itself.
pub fn judge(history: &[Event]) -> Result<Report, Malformed> {
    let mut checker = Checker::new();
    for (event, line) in history.iter().zip(1..) {
        checker.observe(line, event)?;
    }
    let mut report = checker.finish();
    report.locate(history.iter().zip(1..).map(|(event, line)| (line, event)));
    Ok(report)
}

impl Checker {
    /// Knows nothing yet.
    pub fn new() -> Checker {
        Checker {
            keys: BTreeMap::new(),
            open: BTreeMap::new(),
            faults: Faults::default(),
            gaps: GapMeter::new(),
            lag: LagMeter::new(),
            findings: Findings::default(),
            counts: Counts::default(),
            final_begun: false,
        }
    }

    /// Takes the next event; `line` is how a person finds it again.
    ///
    /// # Errors
    /// It contradicts those before. The checker is of no use then.
    pub fn observe(&mut self, line: u64, event: &Event) -> Result<(), Malformed> {
        self.counts.events += 1;
        let place = Place { line, process: event.process, op: event.op };
        match &event.what {
            What::Send(send) => self.send(place, event.at_us, send),
            What::Poll(poll) => self.poll(place, event.at_us, poll),
            What::Assign { key, offset } => {
                check_offset(line, *offset)?;
                self.key(key).assign(event.process, *offset);
                Ok(())
            }
            What::Crash => {
                self.crash(event.process);
                Ok(())
            }
            What::Fault { name, zone, edge } => {
                if self.faults.edge(name, zone.as_ref(), *edge, event.at_us) {
                    return Ok(());
                }
                Err(Malformed::FaultNeverBegan { line, name: Arc::clone(name) })
            }
            What::Final => {
                self.final_begun = true;
                Ok(())
            }
        }
    }

    /// How much it was given so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The highest offset of a key that any event named so far: how far a final phase has to read.
    pub fn highest_offset(&self, key: &str) -> Option<u64> {
        self.keys.get(key)?.versions.last_offset()
    }

    /// Says what is wrong, once the history has ended.
    pub fn finish(mut self) -> Report {
        let open = std::mem::take(&mut self.open);
        for open in open.into_values() {
            self.never_answered(open);
        }
        let mut not_read = Vec::new();
        for state in self.keys.values_mut() {
            end::judge(state, self.final_begun, &mut self.findings);
            if !state.read_in_final {
                not_read.push(Key::clone(&state.key));
            }
        }
        self.counts.keys = self.keys.len() as u64;
        let faults = self.faults.all();
        let (rto, lag) = (self.gaps.finish(faults), self.lag.finish(faults));
        let not_read = self.final_begun.then_some(not_read);
        Report::new(self.findings, not_read, self.counts, rto, lag)
    }

    fn key(&mut self, key: &Key) -> &mut KeyState {
        state_of(&mut self.keys, key)
    }

    fn send(&mut self, place: Place, at_us: u64, send: &Send) -> Result<(), Malformed> {
        self.gaps.note(at_us, &send.key, &send.stage, self.faults.all());
        if let SendStage::Invoke { deadline_us } = send.stage {
            return self.begin_send(place, send, deadline_us);
        }
        let (ticket, deadline_us) = self.close_send(place, send)?;
        let state = state_of(&mut self.keys, &send.key);
        let records = send.values.len() as u64;
        match &send.stage {
            SendStage::Invoke { .. } => {}
            SendStage::Ok { base_offset, epoch } => {
                check_offset(place.line, base_offset.saturating_add(records))?;
                self.counts.sends.ok += 1;
                self.counts.values.acked += records;
                state.existence.acked(base_offset + records, at_us);
                state.acked(ticket, &send.values, *base_offset, *epoch, place, &mut self.findings);
                if let Some(deadline) = deadline_us.filter(|&deadline| deadline < at_us) {
                    self.findings.add(Kind::LateAck, 1, || {
                        let detail =
                            format!("acknowledged at {at_us} µs, after the deadline at {deadline} µs");
                        key::example(
                            &send.key,
                            Some(*base_offset),
                            send.values.first().copied(),
                            Some(place),
                            detail,
                        )
                    });
                }
            }
            SendStage::Fail { error } => {
                self.counts.sends.fail += 1;
                self.counts.values.failed += records;
                count_code(&mut self.counts.errors.send_fail, error);
                state.failed(ticket, &send.values, place, &mut self.findings);
            }
            SendStage::Info { error } => {
                self.counts.sends.info += 1;
                self.counts.values.unknown += records;
                count_code(&mut self.counts.errors.send_info, error);
                state.unknown(ticket, &send.values, place, &mut self.findings);
            }
        }
        Ok(())
    }

    fn begin_send(&mut self, place: Place, send: &Send, deadline_us: Option<u64>) -> Result<(), Malformed> {
        self.counts.sends.begun += 1;
        let begun = self.key(&send.key).begin_send(place.process, &send.values);
        let ticket = begun.map_err(|value| Malformed::ValueReused {
            line: place.line,
            key: Key::clone(&send.key),
            value,
        })?;
        let (key, values) = (Key::clone(&send.key), send.values.clone());
        self.begin(place, Open::Send { key, values, deadline_us, ticket, place })
    }

    fn close_send(&mut self, place: Place, send: &Send) -> Result<(SendTicket, Option<u64>), Malformed> {
        match self.close(place)? {
            Open::Send { key, values, deadline_us, ticket, .. }
                if key == send.key && values == send.values =>
            {
                Ok((ticket, deadline_us))
            }
            _ => Err(changed(place)),
        }
    }

    fn poll(&mut self, place: Place, at_us: u64, poll: &Poll) -> Result<(), Malformed> {
        let (records, watermark) = match &poll.stage {
            PollStage::Invoke => {
                self.counts.polls.begun += 1;
                self.key(&poll.key);
                let open =
                    Open::Poll { key: Key::clone(&poll.key), began_us: at_us, in_final: self.final_begun };
                return self.begin(place, open);
            }
            PollStage::Ok { records, high_watermark } => {
                self.counts.polls.ok += 1;
                (records, *high_watermark)
            }
            PollStage::Fail { records, error } => {
                self.counts.polls.fail += 1;
                count_code(&mut self.counts.errors.poll_fail, error);
                (records, None)
            }
            PollStage::Info { records, error } => {
                self.counts.polls.info += 1;
                count_code(&mut self.counts.errors.poll_info, error);
                (records, None)
            }
        };
        let (began_us, in_final) = match self.close(place)? {
            Open::Poll { key, began_us, in_final } if key == poll.key => (began_us, in_final),
            _ => return Err(changed(place)),
        };
        for &(offset, _) in records {
            check_offset(place.line, offset)?;
        }
        self.counts.records_shown += records.len() as u64;
        let ok = matches!(poll.stage, PollStage::Ok { .. });
        let state = state_of(&mut self.keys, &poll.key);
        state.shown(records, marks(ok, in_final), place, &mut self.findings);
        if let Some(watermark) = watermark {
            state.see_watermark(watermark, records, place, &mut self.findings);
        }
        state.read_in_final |= ok && in_final;
        if ok && !in_final {
            self.note_lag(place.process, began_us, &poll.key, records, watermark);
        }
        Ok(())
    }

    /// A poll that was at the end missed whatever was acknowledged before it began.
    fn note_lag(
        &mut self,
        process: u64,
        began_us: u64,
        key: &Key,
        records: &[(u64, u64)],
        watermark: Option<u64>,
    ) {
        let Some(state) = self.keys.get(key) else { return };
        let Some(position) = state.position(process) else { return };
        let at_end = records.is_empty() || watermark.is_none_or(|watermark| position >= watermark);
        if at_end {
            self.lag.note(state.existence.age(position, began_us), self.faults.active());
        }
    }

    fn crash(&mut self, process: u64) {
        let ended: Vec<(u64, u64)> =
            self.open.range((process, 0)..=(process, u64::MAX)).map(|(&id, _)| id).collect();
        for id in ended {
            if let Some(open) = self.open.remove(&id) {
                self.never_answered(open);
            }
        }
        for state in self.keys.values_mut() {
            state.process_ended(process, &mut self.findings);
        }
    }

    fn begin(&mut self, place: Place, open: Open) -> Result<(), Malformed> {
        match self.open.insert((place.process, place.op), open) {
            None => Ok(()),
            Some(_) => Err(Malformed::BeganTwice { line: place.line, process: place.process, op: place.op }),
        }
    }

    fn close(&mut self, place: Place) -> Result<Open, Malformed> {
        let Place { line, process, op } = place;
        self.open.remove(&(process, op)).ok_or(Malformed::NeverBegan { line, process, op })
    }

    /// Its outcome is not known and never will be.
    fn never_answered(&mut self, open: Open) {
        match open {
            Open::Send { key, values, ticket, place, .. } => {
                self.counts.sends.unanswered += 1;
                self.counts.values.unknown += values.len() as u64;
                state_of(&mut self.keys, &key).unknown(ticket, &values, place, &mut self.findings);
            }
            Open::Poll { .. } => self.counts.polls.unanswered += 1,
        }
    }
}

fn state_of<'a>(keys: &'a mut BTreeMap<Key, KeyState>, key: &Key) -> &'a mut KeyState {
    if !keys.contains_key(key) {
        keys.insert(Key::clone(key), KeyState::new(Key::clone(key)));
    }
    keys.get_mut(key).expect("was inserted just now")
}

fn marks(ok: bool, in_final: bool) -> Marks {
    match (ok, in_final) {
        (false, _) => Marks::SHOWN,
        (true, false) => Marks::SHOWN.with(Marks::READ),
        (true, true) => Marks::SHOWN.with(Marks::READ).with(Marks::FINAL),
    }
}

fn changed(place: Place) -> Malformed {
    Malformed::Changed { line: place.line, process: place.process, op: place.op }
}

fn check_offset(line: u64, offset: u64) -> Result<(), Malformed> {
    if offset < LARGEST_OFFSET { Ok(()) } else { Err(Malformed::OffsetTooLarge { line, offset }) }
}

fn count_code(codes: &mut BTreeMap<String, u64>, error: &str) {
    let code = error_code(error);
    let known = codes.contains_key(code) || codes.len() < CODES;
    *codes.entry(if known { code } else { "others" }.to_owned()).or_default() += 1;
}
