//! What is said of a history in the end.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::anomaly::{Findings, Place};
use crate::history::{Event, Key, PollStage, SendStage, What};
use crate::lag::Lag;
use crate::rto::Rto;

/// Events that are named with an example.
pub const MENTIONS: usize = 8;
/// Keys that are named as not read.
const NAMED: usize = 5;

/// What a history says of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Everything was read back in a final phase, and nothing was wrong.
    Valid,
    /// A promise was broken.
    Invalid,
    /// Nothing was wrong so far; what was lost cannot be told, since not everything was read back.
    Incomplete,
}

/// How operations of one kind ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Ends {
    /// Began.
    pub begun: u64,
    /// Happened.
    pub ok: u64,
    /// Certainly did not happen.
    pub fail: u64,
    /// Unknown, as the client was told.
    pub info: u64,
    /// Unknown, since nobody heard of an end.
    pub unanswered: u64,
}

/// What became of the values sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Values {
    /// Acknowledged.
    pub acked: u64,
    /// Certainly not stored.
    pub failed: u64,
    /// Of unknown outcome.
    pub unknown: u64,
}

/// Errors by their codes, definite and indefinite apart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Errors {
    /// Sends that certainly failed.
    pub send_fail: BTreeMap<String, u64>,
    /// Sends of unknown outcome.
    pub send_info: BTreeMap<String, u64>,
    /// Polls that were refused.
    pub poll_fail: BTreeMap<String, u64>,
    /// Polls without an answer.
    pub poll_info: BTreeMap<String, u64>,
}

/// How much a history is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Events.
    pub events: u64,
    /// Keys.
    pub keys: u64,
    /// Sends.
    pub sends: Ends,
    /// Values of the sends.
    pub values: Values,
    /// Polls.
    pub polls: Ends,
    /// Records that polls showed, each time counted.
    pub records_shown: u64,
    /// Errors.
    pub errors: Errors,
}

/// The report of a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether the verdict is `Valid`.
    pub valid: bool,
    /// What it comes to.
    pub verdict: Verdict,
    /// Why it may be incomplete.
    pub not_judged: Vec<String>,
    /// Broken promises, by name.
    pub anomalies: Findings,
    /// How much it is about.
    pub counts: Counts,
    /// Recovery times.
    pub rto: Rto,
    /// Staleness of polls.
    pub lag: Lag,
}

impl Report {
    /// `not_read`: the keys that were not read in the final phase, if there was one.
    pub(crate) fn new(
        anomalies: Findings,
        not_read: Option<Vec<Key>>,
        counts: Counts,
        rto: Rto,
        lag: Lag,
    ) -> Report {
        let not_judged = not_judged(not_read);
        let verdict = match (anomalies.is_empty(), not_judged.is_empty()) {
            (false, _) => Verdict::Invalid,
            (true, false) => Verdict::Incomplete,
            (true, true) => Verdict::Valid,
        };
        Report { valid: verdict == Verdict::Valid, verdict, not_judged, anomalies, counts, rto, lag }
    }

    /// Finds the events that name the values and offsets of the examples: reads the history once more.
    pub fn locate<'a>(&mut self, history: impl IntoIterator<Item = (u64, &'a Event)>) {
        if self.anomalies.is_empty() {
            return;
        }
        for (line, event) in history {
            self.locate_in(line, event);
        }
    }

    /// The same, event by event, for histories that are not in memory.
    pub fn locate_in(&mut self, line: u64, event: &Event) {
        let place = Place { line, process: event.process, op: event.op };
        for example in self.anomalies.examples_mut() {
            let wanted = example.mentions.len() < MENTIONS;
            if wanted && mentions(event, &example.key, example.offset, example.value) {
                example.mentions.push(place);
            }
        }
    }
}

fn not_judged(not_read: Option<Vec<Key>>) -> Vec<String> {
    let Some(keys) = not_read else {
        return vec![
            "no final phase: what was not read yet and what is lost cannot be told apart".to_owned(),
        ];
    };
    let more = keys.len().saturating_sub(NAMED);
    let mut reasons: Vec<String> =
        keys.iter().take(NAMED).map(|key| format!("{key} was not read in the final phase")).collect();
    if more > 0 {
        reasons.push(format!("{more} more keys were not read in the final phase"));
    }
    reasons
}

/// Whether an event is about that value or, where none is given, that offset.
fn mentions(event: &Event, key: &Key, offset: Option<u64>, value: Option<u64>) -> bool {
    match &event.what {
        What::Send(send) if send.key == *key => {
            let has_offset = |offset: u64| match send.stage {
                SendStage::Ok { base_offset, .. } => {
                    offset >= base_offset && offset - base_offset < send.values.len() as u64
                }
                _ => false,
            };
            match value {
                Some(value) => send.values.contains(&value) || offset.is_some_and(has_offset),
                None => offset.is_some_and(has_offset),
            }
        }
        What::Poll(poll) if poll.key == *key => {
            let records = match &poll.stage {
                PollStage::Invoke => return false,
                PollStage::Ok { records, .. }
                | PollStage::Fail { records, .. }
                | PollStage::Info { records, .. } => records,
            };
            records.iter().any(|&(at, shown)| Some(shown) == value || Some(at) == offset)
        }
        _ => false,
    }
}
