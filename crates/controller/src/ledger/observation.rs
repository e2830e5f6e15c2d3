//! What a controller tells its ledger, and how: over a bounded queue that nobody ever waits for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use holdfast_core::metadata::{Command, LeaderReport, Update};
use holdfast_core::{BrokerId, ControllerId};
use tokio::sync::mpsc;

use super::record::Reason;
use crate::liveness::Run;

/// Observations that may wait; further ones are dropped and counted.
const QUEUE: usize = 16 << 10;

/// When something was seen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// Never goes backwards; all durations come from it.
    pub(crate) now: Instant,
    /// Milliseconds since 1970, for display only.
    pub(crate) wall_ms: i64,
}

impl Moment {
    pub(crate) fn now() -> Moment {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Moment { now: Instant::now(), wall_ms: i64::try_from(wall.as_millis()).unwrap_or(i64::MAX) }
    }

    /// The wall clock of an earlier instant.
    pub(super) fn wall_of(self, earlier: Instant) -> i64 {
        let ago = self.now.saturating_duration_since(earlier).as_millis();
        self.wall_ms.saturating_sub(i64::try_from(ago).unwrap_or(i64::MAX))
    }
}

/// An entry that was applied.
#[derive(Debug, Clone)]
pub(crate) struct AppliedEntry {
    pub(crate) index: u64,
    /// The term of the leader that wrote it.
    pub(crate) term: u64,
    /// What it asked for and what changed; `None` for entries that change no map.
    pub(crate) change: Option<(Command, Update)>,
}

/// What can be seen.
#[derive(Debug, Clone)]
pub(crate) enum Observation {
    /// A run of a broker was heard.
    Heard(Run),
    /// Its last stream to this controller ended.
    Cut(Run),
    /// This controller judges it dead, whether it leads or not.
    Gone(Run, Reason),
    /// A leader's report.
    Reported(BrokerId, LeaderReport),
    /// An entry was applied.
    Applied(Box<AppliedEntry>),
    /// The map was replaced by a snapshot.
    Replaced,
    /// The standing of the quorum changed.
    Standing { term: u64, leader: Option<ControllerId> },
    /// A controller's log, this one's included, reaches to that entry.
    Reaches(ControllerId, u64),
    /// Silent brokers are not fenced (LIV-3).
    HeldBack(Vec<BrokerId>),
    /// The supervisor looked, as it does all the time while this process runs.
    Looked,
}

/// Takes observations. Clones feed the same ledger; one by default feeds none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observer {
    queue: Option<mpsc::Sender<(Moment, Observation)>>,
    dropped: Arc<AtomicU64>,
}

/// The other end.
#[derive(Debug)]
pub(crate) struct Observations {
    pub(super) queue: mpsc::Receiver<(Moment, Observation)>,
    dropped: Arc<AtomicU64>,
}

impl Observer {
    /// Both ends.
    pub(crate) fn new() -> (Observer, Observations) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let observations = Observations { queue: receiver, dropped: Arc::clone(&dropped) };
        (Observer { queue: Some(sender), dropped }, observations)
    }

    /// Never waits: where the ledger does not keep up, it is told so instead.
    pub(crate) fn note(&self, observation: Observation) {
        if let Some(queue) = &self.queue
            && queue.try_send((Moment::now(), observation)).is_err()
        {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Observations {
    /// How many were dropped since the last call.
    pub(super) fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }
}
