//! Wiring, start and end of one controller.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_core::metadata::ClusterMap;
use holdfast_core::{BrokerId, ControllerId, Incarnation};
use holdfast_log::{Fs, RealFs};
use holdfast_proto::internal::v1::PingResponse;
use holdfast_proto::internal::v1::controller_service_server::ControllerServiceServer;
use holdfast_proto::internal::v1::raft_service_server::RaftServiceServer;
use holdfast_proto::transport::{Link, Listener, MAX_PEER_MESSAGE, Tls, TlsError, server};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::config::{ConfigError, ControllerConfig, VoterConfig};
use crate::folder::{FolderError, FolderLock, check_identity, write_identity};
use crate::knock;
use crate::ledger::{LedgerTask, Observation};
use crate::losses;
use crate::raft::{Quorum, QuorumError, Stores};
use crate::service::{ControllerRpc, RaftRpc};
use crate::shared::Shared;
use crate::supervisor;

/// How long the lock of a process that is just ending is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// How long requests in flight may take to end at shutdown.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(5);

/// Why a controller could not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Raft and its storage.
    #[error(transparent)]
    Quorum(#[from] QuorumError),
    /// The certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The listener.
    #[error("listening for controllers and brokers")]
    Listen(#[source] std::io::Error),
    /// Opening the files was interrupted.
    #[error("opening the data folder was interrupted")]
    Interrupted,
}

/// A running controller. Dropping it stops it at once, as a crash would; `shutdown` lets requests end first.
#[derive(Debug)]
pub struct Controller {
    shared: Arc<Shared>,
    address: SocketAddr,
    tasks: TaskTracker,
    health: HealthReporter,
    failure: watch::Receiver<Option<String>>,
    _stop: DropGuard,
}

impl Controller {
    /// Opens the data folder and takes part in the quorum, on the current tokio runtime.
    ///
    /// # Errors
    /// Where the configuration, the data folder or the certificates cannot be used. A folder of somebody else is not
    /// changed.
    pub async fn start(
        cluster: String,
        config: ControllerConfig,
        tls: Option<Tls>,
        listener: Listener,
    ) -> Result<Controller, ControllerError> {
        Controller::start_on(Arc::new(RealFs), cluster, config, tls, listener).await
    }

    /// The same with vote, log and snapshots on files that behave differently from the system's: for tests of what a bad
    /// disk does.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_on(
        fs: Arc<dyn Fs>,
        cluster: String,
        config: ControllerConfig,
        tls: Option<Tls>,
        listener: Listener,
    ) -> Result<Controller, ControllerError> {
        config.validate()?;
        let address = listener.local_addr().map_err(ControllerError::Listen)?;
        let (stores, ledger) = open(fs, cluster.clone(), config.clone()).await?;
        let quorum = Quorum::start(&cluster, &config, tls.clone(), stores).await?;
        let cancel = CancellationToken::new();
        let shared = Shared::new(cluster, &config, quorum, &ledger, cancel.clone());
        let tasks = TaskTracker::new();
        let health = serve(&shared, &tasks, listener, tls.as_ref()).await?;
        tasks.spawn(supervisor::run(Arc::clone(&shared)));
        tasks.spawn(ledger.run(cancel.clone()));
        tasks.spawn(losses::run(Arc::clone(&shared)));
        tasks.spawn(knock::at_strangers(Arc::clone(&shared)));
        let failure = watch_over(&shared, &tasks, health.clone());
        tasks.close();
        tracing::info!(controller = %config.id, %address, "controller started");
        Ok(Controller { shared, address, tasks, health, failure, _stop: cancel.drop_guard() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its number.
    pub fn id(&self) -> ControllerId {
        self.shared.id
    }

    /// The leader that it knows.
    pub fn leader(&self) -> Option<ControllerId> {
        self.shared.quorum.standing().leader
    }

    /// A copy of the map that it has applied.
    pub fn map(&self) -> ClusterMap {
        self.shared.quorum.serving().with_map(ClusterMap::clone)
    }

    /// Waits until it has stopped by itself, which it does when its storage fails, and says why. Restart the process:
    /// what is on disk is judged anew.
    pub async fn failed(&self) -> String {
        let mut failure = self.failure.clone();
        match failure.wait_for(Option::is_some).await.map(|reason| reason.clone()) {
            Ok(Some(reason)) => reason,
            // Only shutdown ends the task without a reason.
            _ => std::future::pending().await,
        }
    }

    /// Ends streams, lets calls in flight end, and stops. Everything acknowledged is durable before and after.
    pub async fn shutdown(self) {
        self.health.set_service_status("", ServingStatus::NotServing).await;
        self.shared.cancel.cancel();
        if tokio::time::timeout(SHUTDOWN_PATIENCE, self.tasks.wait()).await.is_err() {
            tracing::warn!("calls in flight did not end in time");
        }
        self.shared.quorum.shutdown().await;
        tracing::info!(controller = %self.shared.id, "controller stopped");
    }
}

/// Opens all files, off the runtime's workers.
async fn open(
    fs: Arc<dyn Fs>,
    cluster: String,
    config: ControllerConfig,
) -> Result<(Stores, LedgerTask), ControllerError> {
    let opening = tokio::task::spawn_blocking(move || {
        let dir = config.data_dir.as_path();
        let lock = Arc::new(FolderLock::take(&*fs, dir, LOCK_PATIENCE)?);
        check_identity(&*fs, dir, &cluster, config.id)?;
        let mut stores = Stores::open(Arc::clone(&fs), dir, Arc::clone(&lock) as _)?;
        write_identity(&*fs, dir, &cluster, config.id)?;
        let ledger = LedgerTask::open(&config, &mut stores, lock);
        Ok((stores, ledger))
    });
    opening.await.unwrap_or(Err(ControllerError::Interrupted))
}

/// Serves raft, controller and health services until cancelled.
async fn serve(
    shared: &Arc<Shared>,
    tasks: &TaskTracker,
    listener: Listener,
    tls: Option<&Tls>,
) -> Result<HealthReporter, ControllerError> {
    let raft = RaftServiceServer::new(RaftRpc(Arc::clone(shared)))
        .max_decoding_message_size(MAX_PEER_MESSAGE)
        .max_encoding_message_size(MAX_PEER_MESSAGE);
    let controller = ControllerServiceServer::new(ControllerRpc(Arc::clone(shared)))
        .max_decoding_message_size(MAX_PEER_MESSAGE)
        .max_encoding_message_size(MAX_PEER_MESSAGE);
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<RaftServiceServer<RaftRpc>>().await;
    health.set_serving::<ControllerServiceServer<ControllerRpc>>().await;
    let incoming = listener.incoming(tls)?;
    let cancelled = shared.cancel.clone().cancelled_owned();
    let serving = server(Link::Peer)
        .add_service(raft)
        .add_service(controller)
        .add_service(health_service)
        .serve_with_incoming_shutdown(incoming, cancelled);
    tasks.spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, "serving controllers and brokers ended");
        }
    });
    Ok(health)
}

/// Takes in which brokers another controller has lost, and how far its log reaches.
fn note_lost(shared: &Shared, voter: &VoterConfig, answer: &PingResponse) {
    let runs = answer.lost.iter().map(|lost| (BrokerId(lost.broker_id), Incarnation(lost.incarnation)));
    if let Some(last) = &answer.last_entry {
        shared.observer.note(Observation::Reaches(voter.id, last.index));
    }
    shared.brokers().tracker.witnessed(Instant::now(), voter.id, &voter.zone, runs.collect());
    if !answer.lost.is_empty() {
        shared.wake.notify_one();
    }
}

/// Runs the quorum's own loops, and notes when it stops by itself.
fn watch_over(
    shared: &Arc<Shared>,
    tasks: &TaskTracker,
    health: HealthReporter,
) -> watch::Receiver<Option<String>> {
    let (sender, failure) = watch::channel(None);
    let (shared, quorum) = (Arc::clone(shared), shared.quorum.clone());
    let cancel = shared.cancel.clone();
    tasks.spawn(async move {
        let answered = |voter: &VoterConfig, answer: &PingResponse| note_lost(&shared, voter, answer);
        let changed = || shared.wake.notify_one();
        if let Err(error) = quorum.run(cancel.clone(), &answered, &changed).await {
            tracing::error!(%error, "this controller has stopped; restart it");
            health.set_service_status("", ServingStatus::NotServing).await;
            sender.send_replace(Some(error.to_string()));
            cancel.cancelled().await;
        }
    });
    failure
}
