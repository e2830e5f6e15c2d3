//! What the services and the supervisor of one controller share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_core::ControllerId;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::ControllerConfig;
use crate::liveness::Tracker;
use crate::raft::Quorum;
use crate::reports::Reports;

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
    /// Ends streams and loops.
    pub(crate) cancel: CancellationToken,
    brokers: Mutex<Brokers>,
}

/// What is known of the brokers from their heartbeats.
#[derive(Debug)]
pub(crate) struct Brokers {
    /// Who lives.
    pub(crate) tracker: Tracker,
    /// What leaders have said.
    pub(crate) reports: Reports,
}

impl Shared {
    /// For a new controller.
    pub(crate) fn new(
        cluster: String,
        config: &ControllerConfig,
        quorum: Quorum,
        cancel: CancellationToken,
    ) -> Arc<Self> {
        let tracker = Tracker::new(config.session_timeout, config.reset_grace, config.zone.clone());
        let brokers = Mutex::new(Brokers { tracker, reports: Reports::default() });
        Arc::new(Shared { cluster, id: config.id, quorum, wake: Notify::new(), cancel, brokers })
    }

    /// Take it before the map's lock, never after.
    pub(crate) fn brokers(&self) -> MutexGuard<'_, Brokers> {
        // What is in it is volatile and advisory; a panic cannot make it unsafe.
        self.brokers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
