//! The quorum: openraft behind an interface of our own.
//!
//! ```text
//!            propose ──►  openraft ──► log_store ──► writer thread ──► journal      (vote and log)
//! RaftService ────────►     │  ▲
//!                           │  └ network (to the others)
//!             campaign ─────┤    elects when `election` says so, out of what `poll` and the messages tell
//!                           └────► state_machine ──► store::{serving, table, snapshot}
//! ```
//!
//! Invariant: nothing outside this folder names openraft.

mod account;
mod campaign;
mod election;
mod frame;
mod log_store;
mod network;
mod poll;
mod room;
mod state_machine;
#[cfg(test)]
mod suite;
mod types;
mod writer;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_core::ControllerId;
use holdfast_core::metadata::{Applied, Command, MetadataError};
use holdfast_log::Fs;
use holdfast_proto::internal::v1::PingResponse;
use holdfast_proto::transport::Tls;
use openraft::error::{CheckIsLeaderError, ClientWriteError, InitializeError};
use openraft::network::RPCOption;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, VoteRequest};
use openraft::{Config, Raft, ServerState, SnapshotPolicy};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::config::{ControllerConfig, VoterConfig};
use crate::ledger::Observer;
use crate::liveness::Run;
use crate::store::serving::Serving;
use crate::store::snapshot::MAX_SNAPSHOT;
use account::{LastLog, News};
use election::{Election, Facts, Timing};
pub(crate) use frame::{Frame, Mirror};
use log_store::LogStore;
pub use log_store::LogStoreError;
use network::Peers;
use room::Room;
use state_machine::{StateError, StateMachine};
use types::{CodecError, RaftError};
pub(crate) use types::{Entry, LogId, Node, TypeConfig, Vote, decode, encode};

/// Name of the journal in the data folder.
pub(crate) const JOURNAL: &str = "raft.journal";

/// A piece of a snapshot; far below the message limit.
const SNAPSHOT_CHUNK: u64 = 1 << 20;
/// Sending and installing one piece. openraft's 200 ms is too short for a slow disk.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(5);
/// Between two attempts to hear from a majority.
const CATCH_UP_PAUSE: Duration = Duration::from_millis(10);
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
    #[error("this controller has no room on its disk")]
    NoRoom,
}

/// What is known of the quorum at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Raft's term; 0 before there was any.
    pub(crate) term: u64,
    /// The leader that may be believed in: it was heard lately, or is this controller and a majority has answered it
    /// lately.
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
    pristine: bool,
    timing: Timing,
    election: Arc<Mutex<Election>>,
    room: Room,
    /// Has `campaign` look before its time.
    look_again: Arc<Notify>,
    /// What this controller says of itself.
    news: Arc<watch::Sender<News>>,
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
    room: Room,
}

impl Stores {
    /// Opens them; blocks. `hold` is let go when the last write is done.
    pub(crate) fn open(fs: Arc<dyn Fs>, dir: &Path, hold: Arc<dyn Send + Sync>) -> Result<Self, QuorumError> {
        let room = Room::new();
        let log = LogStore::open(Arc::clone(&fs), &dir.join(JOURNAL), room.clone(), Arc::clone(&hold))?;
        let state = StateMachine::open(fs, dir, log.purged(), room.clone(), hold)?;
        Ok(Stores { log, state, room })
    }

    /// The applied state, as everybody reads it.
    pub(crate) fn serving(&self) -> Arc<Serving> {
        self.state.serving()
    }

    /// Has `observer` told of every entry that is applied from now on.
    pub(crate) fn observe(&mut self, observer: Observer) {
        self.state.observe(observer);
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
        let timing = Timing::of(config.election_timeout);
        let settings = raft_config(cluster, config, timing)?;
        let ids = voters.iter().map(|voter| voter.id);
        let election = Arc::new(Mutex::new(Election::new(Instant::now(), config.id, ids, timing)));
        let peers = Peers::new(cluster, config.id.0, &voters, tls, Arc::clone(&election));
        let serving = stores.state.serving();
        let (pristine, room) = (stores.log.is_pristine(), stores.room);
        let raft = Raft::new(config.id.0, Arc::new(settings), peers.clone(), stores.log, stores.state).await;
        Ok(Quorum {
            raft: raft.map_err(|error| QuorumError::Raft(error.to_string()))?,
            id: config.id,
            voters: voters.into(),
            peers,
            serving,
            pristine,
            timing,
            election,
            room,
            look_again: Arc::default(),
            news: Arc::new(watch::Sender::new(News::default())),
        })
    }

    /// What everybody reads.
    pub(crate) fn serving(&self) -> &Arc<Serving> {
        &self.serving
    }

    /// What is known of the quorum at this moment.
    pub(crate) fn standing(&self) -> Standing {
        self.election(|election, now| {
            let account = election.account(now);
            Standing { term: account.term, leader: account.leader, leads: account.leader == Some(self.id) }
        })
    }

    /// The answer to another controller's question, with the brokers that this one has lost.
    pub(crate) fn answer(&self, lost: &BTreeSet<Run>) -> PingResponse {
        self.election(|election, now| election.account(now)).to_wire(lost)
    }

    /// Index of the last entry of this controller's log; 0 for none.
    pub(crate) fn last_entry(&self) -> u64 {
        self.raft.data_metrics().borrow().last_log.map_or(0, |last| last.index)
    }

    /// Changes when the answer does, but for the lost brokers.
    pub(crate) fn news(&self) -> watch::Receiver<News> {
        self.news.subscribe()
    }

    /// How long a question that has the last answer already may wait for another.
    pub(crate) fn hold(&self) -> Duration {
        self.timing.hold
    }

    /// The election, with what raft says now.
    fn election<T>(&self, with: impl FnOnce(&mut Election, Instant) -> T) -> T {
        // A panic while it was held cannot leave it worse than behind the times.
        let mut election = self.election.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        election.note(now, self.facts());
        with(&mut election, now)
    }

    fn facts(&self) -> Facts {
        let last = self.raft.data_metrics().borrow().last_log;
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow();
        Facts {
            term: metrics.vote.leader_id.term,
            leader: metrics.current_leader.map(ControllerId),
            leading: metrics.state == ServerState::Leader,
            voter: metrics.membership_config.membership().voter_ids().any(|voter| voter == self.id.0),
            last_log: last.map(LastLog::from),
            stands_still: self.room.is_lacking(),
        }
    }

    /// Whether this controller's log stands still for want of room.
    pub(crate) fn stands_still(&self) -> bool {
        self.room.is_lacking()
    }

    /// Where a controller is reached.
    pub(crate) fn endpoint(&self, id: ControllerId) -> Option<&str> {
        self.voters.iter().find(|voter| voter.id == id).map(|voter| voter.endpoint.as_str())
    }

    /// Has a command carried out by the quorum; answers when it is applied here.
    pub(crate) async fn propose(&self, command: Command) -> Result<Applied, ProposeError> {
        // Raft would keep it until there is room.
        if self.room.is_lacking() {
            return Err(ProposeError::NotLeader);
        }
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

    /// Waits until everything that was committed is applied here; false where this is not the leader.
    pub(crate) async fn catch_up(&self) -> bool {
        if self.room.is_lacking() {
            return false;
        }
        let caught_up = async {
            loop {
                match self.raft.ensure_linearizable().await {
                    Ok(_) => return true,
                    // openraft gives the others one heartbeat interval to answer, which a busy disk takes longer than.
                    Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_)))
                        if self.standing().leads =>
                    {
                        tokio::time::sleep(CATCH_UP_PAUSE).await;
                    }
                    Err(_) => return false,
                }
            }
        };
        tokio::time::timeout(PROPOSAL_PATIENCE, caught_up).await.unwrap_or(false)
    }

    /// Waits until all that this controller has as leader of `term` is applied here, which is all that leaders before it
    /// committed. Asks nobody: that it still leads is for `standing` to say. False where it does not come to that.
    pub(crate) async fn takes_over(&self, term: u64) -> bool {
        let mut data = self.raft.data_metrics();
        let taken_over = async {
            // A leader begins its term with an entry.
            let begun = data.wait_for(|data| data.last_log.is_some_and(|last| last.leader_id.term == term));
            let last = begun.await.ok()?.last_log;
            data.wait_for(|data| data.last_applied >= last).await.ok().map(drop)
        };
        matches!(tokio::time::timeout(PROPOSAL_PATIENCE, taken_over).await, Ok(Some(())))
    }

    /// Takes an encoded `AppendEntriesRequest`, gives the encoded result.
    pub(crate) async fn handle_append_entries(&self, payload: &[u8]) -> Result<Bytes, MessageError> {
        let request: AppendEntriesRequest<TypeConfig> = decode(payload)?;
        let vote = request.vote;
        self.heard_if_known(&vote);
        self.check_room()?;
        let result = self.raft.append_entries(request).await;
        if !matches!(result, Err(_) | Ok(AppendEntriesResponse::HigherVote(_))) {
            self.heard(&vote);
        }
        Ok(encode(&result)?.into())
    }

    /// A message of the known leader tells that it lives, however long this controller's disk takes over it.
    fn heard_if_known(&self, vote: &Vote) {
        let (leader, term) = (ControllerId(vote.leader_id.node_id), vote.leader_id.term);
        self.election(|election, now| {
            if election.knows(leader, term) {
                election.heard(now, leader);
            }
        });
    }

    /// While the log stands still, so does Raft, which would keep every message until it goes on. They count as lost.
    fn check_room(&self) -> Result<(), MessageError> {
        if self.room.is_lacking() { Err(MessageError::NoRoom) } else { Ok(()) }
    }

    fn heard(&self, vote: &Vote) {
        let regained = self.election(|election, now| {
            let before = election.leader(now);
            election.heard(now, ControllerId(vote.leader_id.node_id));
            election.leader(now) != before
        });
        if regained {
            self.look_again.notify_one();
        }
    }

    /// Takes an encoded `VoteRequest`, gives the encoded result.
    pub(crate) async fn handle_vote(&self, payload: &[u8]) -> Result<Bytes, MessageError> {
        let request: VoteRequest<u64> = decode(payload)?;
        let (by, last_log) = (request.vote.leader_id, request.last_log_id.map(LastLog::from));
        self.election(|election, now| {
            election.courted(now, ControllerId(by.node_id), by.term, last_log);
        });
        self.check_room()?;
        Ok(encode(&self.raft.vote(request).await)?.into())
    }

    /// Asks a controller to promise its vote in the next term. Raft here knows nothing of it: when it asks for that vote
    /// itself, the voter's disk has it already.
    async fn ask_for_promise(&self, voter: &VoterConfig) {
        let (patience, term) = (self.timing.round(), self.standing().term + 1);
        let last_log = self.raft.data_metrics().borrow().last_log;
        let request = VoteRequest::new(Vote::new(term, self.id.0), last_log);
        let (peer, option) = (self.peers.peer(voter.id.0, voter.endpoint.clone()), RPCOption::new(patience));
        let answer = tokio::time::timeout(patience, peer.ask_for_vote(&request, &option)).await;
        // Where no answer comes, the next question is the same.
        let Ok(Ok(answer)) = answer else { return };
        self.election(|election, _| {
            if answer.vote_granted {
                election.promised(voter.id, term);
            } else if answer.vote > request.vote {
                election.outbid();
            }
        });
        self.look_again.notify_one();
    }

    /// Takes an encoded `InstallSnapshotRequest`, gives the encoded result.
    pub(crate) async fn handle_install_snapshot(&self, payload: &[u8]) -> Result<Bytes, MessageError> {
        let request: InstallSnapshotRequest<TypeConfig> = decode(payload)?;
        let (offset, vote) = (request.offset, request.vote);
        if offset.saturating_add(request.data.len() as u64) > MAX_SNAPSHOT {
            return Err(MessageError::TooLarge { offset });
        }
        self.check_room()?;
        let result = self.raft.install_snapshot(request).await;
        if result.as_ref().is_ok_and(|answer| answer.vote == vote) {
            self.heard(&vote);
        }
        Ok(encode(&result)?.into())
    }

    /// Asks the others, elects, and forms the quorum where it is new. Returns when cancelled or when raft has stopped by
    /// itself. Every answer goes to `answered`; `changed` is called when there is another leader or term.
    pub(crate) async fn run(
        &self,
        cancel: CancellationToken,
        answered: &(dyn Fn(&VoterConfig, &PingResponse) + Sync),
        changed: &(dyn Fn() + Sync),
    ) -> Result<(), QuorumError> {
        tokio::select! {
            () = cancel.cancelled() => Ok(()),
            () = poll::run(self, answered) => Ok(()),
            () = campaign::run(self, changed) => Ok(()),
            () = self.watch_room() => Ok(()),
            error = self.stopped() => Err(error),
        }
    }

    /// For ever: tells raft's clock and the election when the log stands still, and when it goes on.
    async fn watch_room(&self) {
        let mut room = self.room.subscribe();
        // The sender lives as long as `self`.
        while room.changed().await.is_ok() {
            let lacking = *room.borrow_and_update();
            // Ticks would pile up in front of a raft that does not look at them.
            self.raft.runtime_config().tick(!lacking);
            self.look_again.notify_one();
        }
    }

    /// Waits until raft stops, which it does only when its storage failed or it was shut down.
    async fn stopped(&self) -> QuorumError {
        let mut metrics = self.raft.metrics();
        let stopped = metrics.wait_for(|metrics| metrics.running_state.is_err()).await;
        let fatal =
            stopped.ok().and_then(|metrics| metrics.running_state.as_ref().err().map(ToString::to_string));
        QuorumError::Raft(fatal.unwrap_or_else(|| "its task has ended".to_owned()))
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
        // Raft ends only when its log has answered.
        self.room.give_up();
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "raft did not stop cleanly");
        }
    }
}

fn raft_config(cluster: &str, config: &ControllerConfig, timing: Timing) -> Result<Config, QuorumError> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let settings = Config {
        cluster_name: cluster.to_owned(),
        heartbeat_interval: millis(config.heartbeat_interval),
        // All that is left of these: how long votes are waited for, and the lease of a voter that heard the leader.
        election_timeout_min: millis(timing.votes),
        election_timeout_max: millis(timing.votes) + 1,
        install_snapshot_timeout: millis(SNAPSHOT_PATIENCE),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_after),
        snapshot_max_chunk_size: SNAPSHOT_CHUNK,
        // A follower that is further behind gets a snapshot; must exceed the snapshot's own distance.
        replication_lag_threshold: config.snapshot_after.saturating_mul(2),
        max_in_snapshot_log_to_keep: config.snapshot_after / 5,
        purge_batch_size: 256.min(config.snapshot_after / 5).max(1),
        // `campaign` does it.
        enable_elect: false,
        ..Config::default()
    };
    settings.validate().map_err(|error| QuorumError::Settings(error.to_string()))
}
