//! What other controllers have lost: a broker is dead by a reset only if controllers in two zones have seen it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use holdfast_core::{BrokerId, ControllerId, Incarnation, ZoneId};

/// One run of a broker.
pub(crate) type Run = (BrokerId, Incarnation);

/// The last word of each other controller.
#[derive(Debug)]
pub(super) struct Witnesses {
    /// Of this controller: a witness must be in another one.
    zone: ZoneId,
    /// How long a word counts.
    life: Duration,
    words: BTreeMap<ControllerId, Word>,
}

#[derive(Debug)]
struct Word {
    zone: ZoneId,
    said: Instant,
    lost: BTreeSet<Run>,
}

impl Witnesses {
    /// For a controller in `zone`; what was said longer ago than `life` does not count.
    pub(super) fn new(zone: ZoneId, life: Duration) -> Self {
        Witnesses { zone, life, words: BTreeMap::new() }
    }

    /// A controller in `zone` has lost these.
    pub(super) fn said(&mut self, now: Instant, by: ControllerId, zone: &ZoneId, lost: BTreeSet<Run>) {
        self.words.insert(by, Word { zone: zone.clone(), said: now, lost });
    }

    /// Whether a controller in another zone has lost that run.
    pub(super) fn confirm(&self, now: Instant, run: &Run) -> bool {
        self.words.values().any(|word| {
            word.zone != self.zone
                && now.saturating_duration_since(word.said) < self.life
                && word.lost.contains(run)
        })
    }
}
