//! What the services and the supervisor of one controller share.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_core::ControllerId;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::config::ControllerConfig;
use crate::handover::Leaving;
use crate::ledger::{Book, LedgerTask, Observer};
use crate::liveness::{Run, Tracker};
use crate::raft::Quorum;
use crate::reports::Reports;
use crate::upkeep::Upkeep;

/// One controller, as its services see it.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Name of the cluster; others' processes are refused.
    pub(crate) cluster: String,
    /// This controller.
    pub(crate) id: ControllerId,
    /// The quorum it takes part in.
    pub(crate) quorum: Quorum,
    /// Tells the supervisor that there is something to do before its next tick.
    pub(crate) wake: Notify,
    /// Tells `losses` that a broker's port refused.
    pub(crate) refusal: Notify,
    /// Ends streams and loops.
    pub(crate) cancel: CancellationToken,
    /// Brokers that this controller has lost; kept by `losses`.
    pub(crate) lost: watch::Sender<BTreeSet<Run>>,
    /// Tells the ledger what is seen.
    pub(crate) observer: Observer,
    /// What the ledger has recorded.
    pub(crate) book: Arc<Book>,
    brokers: Mutex<Brokers>,
}

/// What is known of the brokers from their heartbeats.
#[derive(Debug)]
pub(crate) struct Brokers {
    /// Who lives.
    pub(crate) tracker: Tracker,
    /// What leaders have said.
    pub(crate) reports: Reports,
    /// Who is about to stop.
    pub(crate) leaving: Leaving,
    /// What is done once the worst is over.
    pub(crate) upkeep: Upkeep,
}

impl Shared {
    /// For a new controller.
    pub(crate) fn new(
        cluster: String,
        config: &ControllerConfig,
        quorum: Quorum,
        ledger: &LedgerTask,
        cancel: CancellationToken,
    ) -> Arc<Self> {
        let tracker = Tracker::new(config.session_timeout, config.reset_grace, config.zone.clone());
        let upkeep = Upkeep::new(config.replace_after, config.home_after);
        let (reports, leaving) = (Reports::default(), Leaving::default());
        let brokers = Mutex::new(Brokers { tracker, reports, leaving, upkeep });
        let (wake, refusal, lost) = (Notify::new(), Notify::new(), watch::Sender::default());
        let (observer, book) = (ledger.observer(), ledger.book());
        let id = config.id;
        Arc::new(Shared { cluster, id, quorum, wake, refusal, cancel, lost, observer, book, brokers })
    }

    /// Take it before the map's lock, never after.
    pub(crate) fn brokers(&self) -> MutexGuard<'_, Brokers> {
        // What is in it is volatile and advisory; a panic cannot make it unsafe.
        self.brokers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
