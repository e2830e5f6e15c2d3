//! What a fault cost: for each key the longest time between two acknowledgements that overlaps it.
//!
//! ```text
//!   acks of a key   | | | | |                  | | | | |
//!   fault                   [begin ───────── end]
//!   raw                     |◄─── longest ────►|          corrected: less the gap exceeded once in a thousand
//!                                                         without any fault
//! ```
//! It means something where every key is written to all the time, such as by a probe every 20 ms. A key that was still
//! written to and never acknowledged again has a gap that is open, up to its last attempt.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::faults::{Fault, Window};
use crate::figures::{Quantiles, histogram};
use crate::history::{Event, Key, SendStage, What};

/// A time in which a key had no acknowledgement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// From the acknowledgement before it (µs).
    pub from_us: u64,
    /// To the one behind it (µs).
    pub to_us: u64,
    /// There is none behind it: to the last attempt.
    pub open: bool,
}

impl Gap {
    /// How long (µs).
    pub fn length_us(&self) -> u64 {
        self.to_us.saturating_sub(self.from_us)
    }
}

/// Gaps between acknowledgements while a history is read.
#[derive(Debug, Clone, Copy, Default)]
struct Pulse {
    acked_us: Option<u64>,
    /// Last time that something else was heard of a send: it began, or failed.
    tried_us: u64,
}

impl Pulse {
    /// Takes an event of a send; gives the gap that it ends.
    fn beat(&mut self, at_us: u64, stage: &SendStage) -> Option<Gap> {
        if !matches!(stage, SendStage::Ok { .. }) {
            self.tried_us = at_us;
            return None;
        }
        let from_us = self.acked_us.replace(at_us)?;
        Some(Gap { from_us, to_us: at_us, open: false })
    }

    /// The gap that never ended.
    fn open_gap(&self) -> Option<Gap> {
        let from_us = self.acked_us.filter(|&acked| acked < self.tried_us)?;
        Some(Gap { from_us, to_us: self.tried_us, open: true })
    }
}

/// The longest gap of every key that overlaps a span of time.
pub fn measure<'a>(history: impl IntoIterator<Item = &'a Event>, window: &Window) -> BTreeMap<Key, Gap> {
    let (mut pulses, mut longest) = (BTreeMap::<Key, Pulse>::new(), BTreeMap::new());
    for event in history {
        if let What::Send(send) = &event.what {
            let pulse = pulses.entry(Key::clone(&send.key)).or_default();
            if let Some(gap) = pulse.beat(event.at_us, &send.stage) {
                keep_longest(&mut longest, window, &send.key, gap);
            }
        }
    }
    for (key, pulse) in &pulses {
        if let Some(gap) = pulse.open_gap() {
            keep_longest(&mut longest, window, key, gap);
        }
    }
    longest
}

fn keep_longest(longest: &mut BTreeMap<Key, Gap>, window: &Window, key: &Key, gap: Gap) {
    if window.overlaps(gap.from_us, gap.to_us) {
        let known = longest.entry(Key::clone(key)).or_insert(gap);
        if known.length_us() < gap.length_us() {
            *known = gap;
        }
    }
}

/// Collects gaps by fault.
#[derive(Debug, Clone)]
pub(crate) struct GapMeter {
    pulses: BTreeMap<Key, Pulse>,
    /// By number of the fault.
    longest: Vec<BTreeMap<Key, Gap>>,
    quiet: Histogram<u64>,
}

impl GapMeter {
    pub(crate) fn new() -> GapMeter {
        GapMeter { pulses: BTreeMap::new(), longest: Vec::new(), quiet: histogram(3) }
    }

    /// Something was heard of a send.
    pub(crate) fn note(&mut self, at_us: u64, key: &Key, stage: &SendStage, faults: &[Fault]) {
        let pulse = match self.pulses.get_mut(key) {
            Some(pulse) => pulse,
            None => self.pulses.entry(Key::clone(key)).or_default(),
        };
        if let Some(gap) = pulse.beat(at_us, stage) {
            self.add(key, gap, faults);
        }
    }

    fn add(&mut self, key: &Key, gap: Gap, faults: &[Fault]) {
        self.longest.resize(faults.len(), BTreeMap::new());
        let mut quiet = true;
        for (fault, longest) in faults.iter().zip(&mut self.longest) {
            if fault.window.overlaps(gap.from_us, gap.to_us) {
                quiet = false;
                keep_longest(longest, &fault.window, key, gap);
            }
        }
        if quiet && !gap.open {
            self.quiet.saturating_record(gap.length_us());
        }
    }

    pub(crate) fn finish(mut self, faults: &[Fault]) -> Rto {
        let open: Vec<(Key, Gap)> = self
            .pulses
            .iter()
            .filter_map(|(key, pulse)| Some((Key::clone(key), pulse.open_gap()?)))
            .collect();
        for (key, gap) in open {
            self.add(&key, gap, faults);
        }
        self.longest.resize(faults.len(), BTreeMap::new());
        let quiet_p999_us = if self.quiet.is_empty() { 0 } else { self.quiet.value_at_quantile(0.999) };
        let of_fault =
            |(fault, longest): (&Fault, BTreeMap<Key, Gap>)| FaultRto::new(fault, longest, quiet_p999_us);
        let faults: Vec<FaultRto> = faults.iter().zip(self.longest).map(of_fault).collect();
        let all = Rto {
            quiet_p999_us,
            quiet_gaps: self.quiet.len(),
            raw: Quantiles::default(),
            corrected: Quantiles::default(),
            faults,
        };
        let (raw, corrected) = (all.quantiles(|_, _| true, false), all.quantiles(|_, _| true, true));
        Rto { raw, corrected, ..all }
    }
}

/// Recovery times of a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rto {
    /// The gap exceeded once in a thousand without a fault (µs), over all keys; 0 where there was no such time.
    pub quiet_p999_us: u64,
    /// How many gaps that is of.
    pub quiet_gaps: u64,
    /// Longest gaps as measured, over all faults and keys.
    pub raw: Quantiles,
    /// The same, less the quiet gap.
    pub corrected: Quantiles,
    /// Each fault.
    pub faults: Vec<FaultRto>,
}

/// Recovery times of one fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FaultRto {
    /// Which.
    #[serde(flatten)]
    pub fault: Fault,
    /// Longest gaps as measured, over all keys.
    pub raw: Quantiles,
    /// The same, less the quiet gap.
    pub corrected: Quantiles,
    /// The longest gap of each key.
    pub keys: BTreeMap<Key, KeyRto>,
}

/// Recovery time of one key from one fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct KeyRto {
    /// The longest gap that overlaps the fault.
    #[serde(flatten)]
    pub gap: Gap,
    /// Its length (µs).
    pub raw_us: u64,
    /// Less the quiet gap (µs).
    pub corrected_us: u64,
}

impl FaultRto {
    fn new(fault: &Fault, longest: BTreeMap<Key, Gap>, quiet_us: u64) -> FaultRto {
        let of_key = |(key, gap): (Key, Gap)| {
            let raw_us = gap.length_us();
            (key, KeyRto { gap, raw_us, corrected_us: raw_us.saturating_sub(quiet_us) })
        };
        let keys: BTreeMap<Key, KeyRto> = longest.into_iter().map(of_key).collect();
        let raw = Quantiles::of(keys.values().map(|key| key.raw_us).collect());
        let corrected = Quantiles::of(keys.values().map(|key| key.corrected_us).collect());
        FaultRto { fault: fault.clone(), raw, corrected, keys }
    }
}

impl Rto {
    /// Figures over the pairs of fault and key that are picked, such as the keys that were led where the fault was.
    pub fn quantiles(&self, pick: impl Fn(&Fault, &Key) -> bool, corrected: bool) -> Quantiles {
        let mut times = Vec::new();
        for fault in &self.faults {
            let picked = fault.keys.iter().filter(|(key, _)| pick(&fault.fault, key));
            times.extend(picked.map(|(_, key)| if corrected { key.corrected_us } else { key.raw_us }));
        }
        Quantiles::of(times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Send;

    fn ack(at_us: u64, key: &str) -> Event {
        let stage = SendStage::Ok { base_offset: 0, epoch: None };
        Event {
            at_us,
            process: 1,
            op: at_us,
            what: What::Send(Send { key: key.into(), values: vec![1], stage }),
        }
    }

    fn attempt(at_us: u64, key: &str) -> Event {
        let stage = SendStage::Invoke { deadline_us: None };
        Event {
            at_us,
            process: 1,
            op: at_us,
            what: What::Send(Send { key: key.into(), values: vec![1], stage }),
        }
    }

    #[test]
    fn the_longest_gap_that_overlaps_the_window_counts() {
        let acks = [0, 100, 900, 1000, 2000, 2050];
        let history: Vec<Event> = acks.iter().map(|&at| ack(at, "t/0")).collect();
        let longest = |begin_us, end_us| {
            let window = Window { begin_us, end_us: Some(end_us) };
            measure(&history, &window).values().map(Gap::length_us).collect::<Vec<_>>()
        };
        assert_eq!(longest(950, 990), [100], "only the gap from 900 to 1000");
        assert_eq!(longest(950, 1500), [1000], "it goes on after the fault");
        assert_eq!(longest(2040, 9000), [50]);
        assert_eq!(longest(3000, 9000), [0u64; 0]);
    }

    #[test]
    fn a_key_that_was_never_acknowledged_again_has_an_open_gap() {
        let window = Window { begin_us: 50, end_us: None };
        let mut history = vec![ack(0, "t/0"), ack(0, "t/1"), ack(100, "t/1")];
        assert!(!measure(&history, &window).contains_key("t/0"), "nobody wrote to it");
        history.push(attempt(700, "t/0"));
        let gap = Gap { from_us: 0, to_us: 700, open: true };
        assert_eq!(measure(&history, &window).get("t/0"), Some(&gap));
    }
}
