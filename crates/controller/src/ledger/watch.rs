//! What the supervisor of every controller, leader or not, tells the ledger as it looks.

use std::collections::BTreeSet;
use std::time::Instant;

use holdfast_core::metadata::ClusterMap;
use holdfast_core::{BrokerId, ControllerId};

use super::SLEPT;
use super::observation::{Observation, Observer};
use crate::liveness::{Run, Tracker};
use crate::raft::Standing;

/// What was told already.
#[derive(Debug)]
pub(crate) struct Watch {
    observer: Observer,
    looked: Option<Instant>,
    standing: Option<Standing>,
    gone: BTreeSet<Run>,
}

impl Watch {
    pub(crate) fn new(observer: Observer) -> Watch {
        Watch { observer, looked: None, standing: None, gone: BTreeSet::new() }
    }

    /// Tells what changed. `reaches` is the last entry of this controller's log.
    pub(crate) fn look(
        &mut self,
        now: Instant,
        standing: Standing,
        reaches: impl FnOnce() -> (ControllerId, u64),
    ) {
        if self.looked.replace(now).is_some_and(|looked| now.saturating_duration_since(looked) >= SLEPT) {
            // The ledger has forgotten it.
            self.standing = None;
        }
        self.observer.note(Observation::Looked);
        let told = |standing: Standing| (standing.term, standing.leader);
        if self.standing.replace(standing).map(told) != Some(told(standing)) {
            let Standing { term, leader, .. } = standing;
            self.observer.note(Observation::Standing { term, leader });
            if leader.is_some() {
                let (me, index) = reaches();
                self.observer.note(Observation::Reaches(me, index));
            }
        }
    }

    /// Tells whom this controller judges dead, whether its judgement counts or not.
    pub(crate) fn judge(&mut self, now: Instant, tracker: &Tracker, map: &ClusterMap) {
        let gone = tracker.gone(now, map);
        for &(run, reason) in &gone {
            if !self.gone.contains(&run) {
                self.observer.note(Observation::Gone(run, reason));
            }
        }
        self.gone = gone.into_iter().map(|(run, _)| run).collect();
    }

    /// The leader's verdicts begin to hold brokers back.
    pub(crate) fn held_back(&self, brokers: &[BrokerId]) {
        self.observer.note(Observation::HeldBack(brokers.to_vec()));
    }
}
