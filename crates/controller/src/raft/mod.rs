//! The quorum: openraft behind an interface of our own.
//!
//! ```text
//!            propose ──►  openraft ──► log_store ──► writer thread ──► journal      (vote and log)
//! RaftService ────────►     │  ▲
//!                           │  └ gate (pre-vote), timing (who stands when), network (to the others)
//!                           └────► state_machine ──► store::{serving, table, snapshot}
//! ```
//!
//! Invariant: nothing outside this folder names openraft.

mod frame;
mod gate;
mod log_store;
mod network;
mod ping;
mod state_machine;
#[cfg(test)]
mod suite;
mod timing;
mod types;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_core::ControllerId;
use holdfast_core::metadata::{Applied, Command, MetadataError};
use holdfast_log::Fs;
use holdfast_proto::internal::v1::PingResponse;
use holdfast_proto::transport::Tls;
use openraft::error::{ClientWriteError, InitializeError};
use openraft::{Config, Raft, ServerState, SnapshotPolicy};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::{ControllerConfig, VoterConfig};
use crate::store::serving::Serving;
use crate::store::snapshot::MAX_SNAPSHOT;
use log_store::LogStore;
pub use log_store::LogStoreError;
use network::Peers;
use state_machine::{StateError, StateMachine};
use timing::ElectionTiming;
use types::{CodecError, Node, RaftError, TypeConfig, decode, encode};

/// Name of the journal in the data folder.
pub(crate) const JOURNAL: &str = "raft.journal";

/// A piece of a snapshot; far below the message limit.
const SNAPSHOT_CHUNK: u64 = 1 << 20;
/// Sending and installing one piece. openraft's 200 ms is too short for a slow disk.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(5);
/// How long a proposal may take.
const PROPOSAL_PATIENCE: Duration = Duration::from_secs(5);

/// Why this controller cannot take part.
#[derive(Debug, thiserror::Error)]
pub enum QuorumError {
    /// Vote and log cannot be read.
    #[error("opening the controller's log")]
    Log(#[from] LogStoreError),
    /// The applied state cannot be had.
    #[error("{0}")]
    State(String),
    /// openraft refuses the settings.
    #[error("raft settings: {0}")]
    Settings(String),
    /// openraft stopped.
    #[error("raft: {0}")]
    Raft(String),
}

impl From<StateError> for QuorumError {
    fn from(error: StateError) -> Self {
        QuorumError::State(error.to_string())
    }
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProposeError {
    #[error(transparent)]
    Refused(MetadataError),
    /// Definite: it is in no log, or was removed from it.
    #[error("this controller does not lead the quorum")]
    NotLeader,
    /// Indefinite: it may be carried out yet.
    #[error("no majority of the controllers answered within {PROPOSAL_PATIENCE:?}")]
    TimedOut,
    /// Indefinite: this controller's log failed.
    #[error("this controller has stopped: {0}")]
    Stopped(String),
}

/// Why a message of another controller was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MessageError {
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("a snapshot piece at {offset} reaches beyond {MAX_SNAPSHOT} bytes")]
    TooLarge { offset: u64 },
}

/// What is known of the quorum at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Raft's term; 0 before there was any.
    pub(crate) term: u64,
    /// The leader that is known.
    pub(crate) leader: Option<ControllerId>,
    /// Whether it is this controller.
    pub(crate) leads: bool,
}

/// This controller's part of the quorum. Clones share it.
#[derive(Clone)]
pub(crate) struct Quorum {
    raft: Raft<TypeConfig>,
    id: ControllerId,
    voters: Arc<[VoterConfig]>,
    peers: Peers,
    serving: Arc<Serving>,
    election_timeout: Duration,
    pristine: bool,
    /// Has the others pinged at once.
    ping_now: Arc<Notify>,
}

impl std::fmt::Debug for Quorum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quorum").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Vote, log and state as they are on disk.
pub(crate) struct Stores {
    log: LogStore,
    state: StateMachine,
}

impl Stores {
    /// Opens them; blocks. `hold` is let go when the last write is done.
    pub(crate) fn open(fs: Arc<dyn Fs>, dir: &Path, hold: Arc<dyn Send + Sync>) -> Result<Self, QuorumError> {
        let log = LogStore::open(Arc::clone(&fs), &dir.join(JOURNAL), Arc::clone(&hold))?;
        let state = StateMachine::open(fs, dir, log.purged(), hold)?;
        Ok(Stores { log, state })
    }
}

impl Quorum {
    /// Starts taking part. Messages are taken through `handle_*`; `run` does the rest.
    pub(crate) async fn start(
        cluster: &str,
        config: &ControllerConfig,
        tls: Option<Tls>,
        stores: Stores,
    ) -> Result<Self, QuorumError> {
        let voters = config.sorted_voters();
        let position = voters.iter().position(|voter| voter.id == config.id).unwrap_or(0);
        let timing = ElectionTiming::of(config.election_timeout, position, voters.len());
        let settings = raft_config(cluster, config, timing)?;
        let peers = Peers::new(cluster, config.id.0, &voters, tls);
        let serving = stores.state.serving();
        let pristine = stores.log.is_pristine();
        let raft = Raft::new(config.id.0, Arc::new(settings), peers.clone(), stores.log, stores.state).await;
        Ok(Quorum {
            raft: raft.map_err(|error| QuorumError::Raft(error.to_string()))?,
            id: config.id,
            voters: voters.into(),
            peers,
            serving,
            election_timeout: config.election_timeout,
            pristine,
            ping_now: Arc::default(),
        })
    }

    /// What everybody reads.
    pub(crate) fn serving(&self) -> &Arc<Serving> {
        &self.serving
    }

    /// What is known of the quorum at this moment.
    pub(crate) fn standing(&self) -> Standing {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        Standing {
            term: metrics.current_term,
            leader: metrics.current_leader.map(ControllerId),
            leads: metrics.state == ServerState::Leader,
        }
    }

    /// Where a controller is reached.
    pub(crate) fn endpoint(&self, id: ControllerId) -> Option<&str> {
        self.voters.iter().find(|voter| voter.id == id).map(|voter| voter.endpoint.as_str())
    }

    /// Has a command carried out by the quorum; answers when it is applied here.
    pub(crate) async fn propose(&self, command: Command) -> Result<Applied, ProposeError> {
        let write = tokio::time::timeout(PROPOSAL_PATIENCE, self.raft.client_write(command));
        match write.await {
            Ok(Ok(response)) => response.data.result.map_err(ProposeError::Refused),
            // Also the answer where a new leader removed the entry; one that stays in the log is answered when applied.
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => {
                Err(ProposeError::NotLeader)
            }
            Ok(Err(error)) => Err(ProposeError::Stopped(error.to_string())),
            Err(_) => Err(ProposeError::TimedOut),
        }
    }

    /// Waits until everything that an earlier leader committed is applied here; false where this is not the leader.
    pub(crate) async fn catch_up(&self) -> bool {
        let caught_up = tokio::time::timeout(PROPOSAL_PATIENCE, self.raft.ensure_linearizable());
        matches!(caught_up.await, Ok(Ok(_)))
    }

    /// Takes an encoded `AppendEntriesRequest`, gives the encoded result.
    pub(crate) async fn handle_append_entries(&self, payload: &[u8]) -> Result<Bytes, MessageError> {
        Ok(encode(&self.raft.append_entries(decode(payload)?).await)?.into())
    }

    /// Takes an encoded `VoteRequest`, gives the encoded result.
    pub(crate) async fn handle_vote(&self, payload: &[u8]) -> Result<Bytes, MessageError> {
        Ok(encode(&self.raft.vote(decode(payload)?).await)?.into())
    }

    /// Takes an encoded `InstallSnapshotRequest`, gives the encoded result.
    pub(crate) async fn handle_install_snapshot(&self, payload: &[u8]) -> Result<Bytes, MessageError> {
        let request: openraft::raft::InstallSnapshotRequest<TypeConfig> = decode(payload)?;
        let offset = request.offset;
        if offset.saturating_add(request.data.len() as u64) > MAX_SNAPSHOT {
            return Err(MessageError::TooLarge { offset });
        }
        Ok(encode(&self.raft.install_snapshot(request).await)?.into())
    }

    /// Pings, and forms the quorum where it is new. Returns when cancelled or when raft has stopped by itself. Every
    /// answer to a ping goes to `answered`.
    pub(crate) async fn run(
        &self,
        cancel: CancellationToken,
        answered: &(dyn Fn(&VoterConfig, &PingResponse) + Sync),
    ) -> Result<(), QuorumError> {
        let position = self.voters.iter().position(|voter| voter.id == self.id).unwrap_or(0);
        let timing = ElectionTiming::of(self.election_timeout, position, self.voters.len());
        tokio::select! {
            () = cancel.cancelled() => Ok(()),
            () = ping::run(self, timing.gate, answered) => Ok(()),
            error = self.stopped() => Err(error),
        }
    }

    /// Asks the other controllers now instead of with the next regular ping.
    pub(crate) fn ping_now(&self) {
        self.ping_now.notify_waiters();
    }

    /// Waits until raft stops, which it does only when its storage failed or it was shut down.
    async fn stopped(&self) -> QuorumError {
        let mut metrics = self.raft.metrics();
        let stopped = metrics.wait_for(|metrics| metrics.running_state.is_err()).await;
        let fatal =
            stopped.ok().and_then(|metrics| metrics.running_state.as_ref().err().map(ToString::to_string));
        QuorumError::Raft(fatal.unwrap_or_else(|| "its task has ended".to_owned()))
    }

    /// Allows or forbids this controller to stand for election.
    fn may_stand(&self, allowed: bool) {
        self.raft.runtime_config().elect(allowed);
    }

    /// Whether this voter is the one that forms a quorum which has never been.
    fn forms_quorum(&self) -> bool {
        self.pristine && self.voters.first().is_some_and(|voter| voter.id == self.id)
    }

    /// Makes all configured voters the quorum. Safe to repeat.
    async fn initialize(&self) -> Result<(), QuorumError> {
        let members = self.voters.iter().map(|voter| {
            let node = Node { endpoint: voter.endpoint.clone(), zone: voter.zone.as_str().to_owned() };
            (voter.id.0, node)
        });
        let members: std::collections::BTreeMap<u64, Node> = members.collect();
        match self.raft.initialize(members).await {
            // Somebody else's leader was quicker: there is a quorum.
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(QuorumError::Raft(error.to_string())),
        }
    }

    /// Stops taking part; what is acknowledged is durable anyway.
    pub(crate) async fn shutdown(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "raft did not stop cleanly");
        }
    }
}

fn raft_config(
    cluster: &str,
    config: &ControllerConfig,
    timing: ElectionTiming,
) -> Result<Config, QuorumError> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let settings = Config {
        cluster_name: cluster.to_owned(),
        heartbeat_interval: millis(config.heartbeat_interval),
        election_timeout_min: timing.min_ms,
        election_timeout_max: timing.max_ms,
        install_snapshot_timeout: millis(SNAPSHOT_PATIENCE),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_after),
        snapshot_max_chunk_size: SNAPSHOT_CHUNK,
        // A follower that is further behind gets a snapshot; must exceed the snapshot's own distance.
        replication_lag_threshold: config.snapshot_after.saturating_mul(2),
        max_in_snapshot_log_to_keep: config.snapshot_after / 5,
        purge_batch_size: 256.min(config.snapshot_after / 5).max(1),
        // The gate opens it.
        enable_elect: false,
        ..Config::default()
    };
    settings.validate().map_err(|error| QuorumError::Settings(error.to_string()))
}
