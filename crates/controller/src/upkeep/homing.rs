//! Leaders go home: to the first replica of their set, slowly, and only while all is calm.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use holdfast_core::metadata::{Appointment, ClusterMap, home_moves};
use holdfast_core::{BrokerId, PartitionId, Term};

use crate::reports::Reports;

/// Leaders that go home at once, and how often: each move costs its partition a moment.
const BATCH: usize = 10;
const BATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Nobody goes home for this long after a broker came or went, a leader got stuck, or this controller was elected.
const CALM: Duration = Duration::from_secs(10);
/// A leader that was sent home and is not heard of is not waited for any longer.
const ARRIVAL_PATIENCE: Duration = Duration::from_secs(10);
/// How long a partition stays away at most from a home where its leaders get stuck.
const AWAY_LAST: Duration = Duration::from_secs(3600);
/// Where a leader went home so often without getting stuck, the first pause counts again.
const AWAY_FORGOTTEN: u32 = 2;

#[derive(Debug)]
pub(super) struct Homing {
    home_after: Duration,
    /// What makes for a pause happened last.
    troubled: Option<Instant>,
    /// The last batch, until those leaders take records.
    underway: Vec<(PartitionId, Term)>,
    sent: Option<Instant>,
    away: BTreeMap<PartitionId, Away>,
}

/// A leader got stuck at home.
#[derive(Debug)]
struct Away {
    since: Instant,
    pause: Duration,
}

impl Homing {
    pub(super) fn new(home_after: Duration) -> Self {
        Homing { home_after, troubled: None, underway: Vec::new(), sent: None, away: BTreeMap::new() }
    }

    pub(super) fn home_after(&self) -> Duration {
        self.home_after
    }

    pub(super) fn follow(&mut self) {
        *self = Homing::new(self.home_after);
    }

    pub(super) fn troubled(&mut self, now: Instant) {
        self.troubled = Some(now);
    }

    /// It is not sent there again at once, and the next time even later.
    pub(super) fn stuck_at_home(&mut self, now: Instant, partition: PartitionId) {
        let pause = self.away.get(&partition).map_or(self.home_after, |away| away.pause.saturating_mul(2));
        self.away.insert(partition, Away { since: now, pause: pause.min(AWAY_LAST) });
    }

    /// Who may go home now.
    pub(super) fn candidates(
        &mut self,
        now: Instant,
        map: &ClusterMap,
        reports: &Reports,
        stable: impl Fn(BrokerId) -> bool,
    ) -> Vec<Appointment> {
        self.away.retain(|_, away| {
            now.saturating_duration_since(away.since) < away.pause.saturating_mul(1 + AWAY_FORGOTTEN)
        });
        if !self.is_calm(now) || !self.arrived(now, map, reports) {
            return Vec::new();
        }
        let welcome = |id: PartitionId| {
            let over = |away: &Away| now.saturating_duration_since(away.since) >= away.pause;
            self.away.get(&id).is_none_or(over)
        };
        let in_sync = |id, term, replica| {
            welcome(id) && reports.writable(id, term) && reports.in_sync(id, term, replica)
        };
        home_moves(map, stable, in_sync, BATCH)
    }

    pub(super) fn sent(&mut self, now: Instant, moves: &[Appointment]) {
        self.sent = Some(now);
        self.underway = moves.iter().map(|sent| (sent.partition, sent.expected_term.next())).collect();
    }

    fn is_calm(&mut self, now: Instant) -> bool {
        // The first look of a new leader: it was elected just now.
        let troubled = *self.troubled.get_or_insert(now);
        now.saturating_duration_since(troubled) >= CALM.min(self.home_after)
    }

    /// Whether the last batch is home, or not to be waited for.
    fn arrived(&mut self, now: Instant, map: &ClusterMap, reports: &Reports) -> bool {
        let Some(sent) = self.sent else { return true };
        let since = now.saturating_duration_since(sent);
        self.underway.retain(|&(id, term)| {
            let stands = map.partition(id).is_some_and(|known| known.register.term <= term);
            stands && !reports.writable(id, term)
        });
        since >= BATCH_INTERVAL && (self.underway.is_empty() || since >= ARRIVAL_PATIENCE)
    }
}
