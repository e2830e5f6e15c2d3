//! How far the leader of each partition is, as leaders report. A report may come before the entry that appointed its
//! leader is applied here: the new leader heard of it from another controller.

use std::collections::BTreeMap;
use std::time::Instant;

use holdfast_core::metadata::{ClusterMap, LeaderReport, LeaderState};
use holdfast_core::{BrokerId, PartitionId, ReplicaId, Term};

/// Partitions beyond those of the map that are kept: their entries are about to be applied.
const AHEAD: usize = 10_000;

/// The latest term of each partition.
#[derive(Debug)]
pub(super) struct Leaderships {
    latest: BTreeMap<PartitionId, Leadership>,
    /// Beyond so many, those that are in no map are forgotten.
    bound: usize,
}

impl Default for Leaderships {
    fn default() -> Self {
        Leaderships { latest: BTreeMap::new(), bound: AHEAD }
    }
}

/// One leader's term, by the times of the first reports that said so.
#[derive(Debug, Clone)]
pub(super) struct Leadership {
    pub(super) term: Term,
    pub(super) broker: BrokerId,
    /// The first report of all.
    pub(super) first: Instant,
    pub(super) recovered: Option<Instant>,
    pub(super) writable: Option<Instant>,
    /// Since when it is stuck, if it is.
    pub(super) stalled: Option<Instant>,
    /// What the last report said is in sync, and when it came.
    last: (Instant, Vec<ReplicaId>),
}

impl Leaderships {
    /// Takes in a report. Gives the leadership that it belongs to, unless that is over.
    pub(super) fn reported(
        &mut self,
        now: Instant,
        map: &ClusterMap,
        broker: BrokerId,
        report: &LeaderReport,
    ) -> Option<&Leadership> {
        if self.latest.len() > self.bound {
            self.latest.retain(|id, _| map.partition(*id).is_some());
            self.bound = self.latest.len() + AHEAD;
        }
        let fresh = || Leadership {
            term: report.term,
            broker,
            first: now,
            recovered: None,
            writable: None,
            stalled: None,
            last: (now, Vec::new()),
        };
        let leadership = self.latest.entry(report.partition).or_insert_with(fresh);
        if leadership.term < report.term {
            *leadership = fresh();
        }
        if leadership.term != report.term || leadership.broker != broker {
            return None;
        }
        leadership.take(now, report);
        Some(leadership)
    }

    /// What is known of a partition's leader in that term.
    pub(super) fn of(&self, partition: PartitionId, term: Term) -> Option<&Leadership> {
        self.latest.get(&partition).filter(|leadership| leadership.term == term)
    }
}

impl Leadership {
    fn take(&mut self, now: Instant, report: &LeaderReport) {
        if report.state == LeaderState::Active || report.writable {
            self.recovered.get_or_insert(now);
        }
        if report.writable {
            self.writable.get_or_insert(now);
        }
        if report.state == LeaderState::Stalled {
            self.stalled.get_or_insert(now);
        } else {
            self.stalled = None;
        }
        self.last = (now, report.in_sync.clone());
    }

    /// When it was told that all live members of the set are in sync, if they are.
    pub(super) fn in_sync(&self, map: &ClusterMap, partition: PartitionId) -> Option<Instant> {
        let register = &map.partition(partition)?.register;
        let (at, in_sync) = &self.last;
        let mut live = register.set.iter().filter(|&&replica| map.is_live(replica));
        (self.writable.is_some() && live.all(|replica| in_sync.contains(replica))).then_some(*at)
    }
}
