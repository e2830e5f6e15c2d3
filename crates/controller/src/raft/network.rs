//! Raft messages to other controllers, over the same channels as the questions of `poll`.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use holdfast_core::ControllerId;
use holdfast_proto::internal::v1::raft_service_client::RaftServiceClient;
use holdfast_proto::internal::v1::{PingRequest, PingResponse, RaftRequest, RaftResponse};
use holdfast_proto::transport::{ChannelError, Link, MAX_PEER_MESSAGE, Tls, connect_lazy};
use openraft::error::{InstallSnapshotError, NetworkError, RPCError, RemoteError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use super::election::Election;
use super::types::{Node, RaftError, TypeConfig, decode, encode};
use crate::config::VoterConfig;

/// Pauses before an unreachable controller is tried again. Short: one that is back should hear the leader soon.
const BACKOFF_MS: [u64; 3] = [20, 50, 100];

type Client = RaftServiceClient<Channel>;
type Outcome<T, E = openraft::error::Infallible> = Result<T, RPCError<u64, Node, RaftError<E>>>;

/// Channels to the other controllers. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Peers {
    cluster: Arc<str>,
    id: u64,
    tls: Option<Tls>,
    /// Where the configuration says they are. It counts, not the address that the quorum was formed with: a controller
    /// that comes back elsewhere is found again.
    endpoints: Arc<BTreeMap<u64, String>>,
    clients: Arc<Mutex<BTreeMap<u64, (String, Client)>>>,
    /// Hears who obeys and who votes.
    election: Arc<Mutex<Election>>,
}

impl Peers {
    /// For the controller `id` of `cluster`.
    pub(crate) fn new(
        cluster: &str,
        id: u64,
        voters: &[VoterConfig],
        tls: Option<Tls>,
        election: Arc<Mutex<Election>>,
    ) -> Self {
        let endpoints = voters.iter().map(|voter| (voter.id.0, voter.endpoint.clone())).collect();
        let (cluster, endpoints) = (cluster.into(), Arc::new(endpoints));
        Peers { cluster, id, tls, endpoints, clients: Arc::default(), election }
    }

    fn client(&self, target: u64, endpoint: &str) -> Result<Client, ChannelError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, client)) = clients.get(&target)
            && known == endpoint
        {
            return Ok(client.clone());
        }
        let channel = connect_lazy(endpoint, Link::Peer, self.tls.as_ref())?;
        let client = RaftServiceClient::new(channel)
            .max_decoding_message_size(MAX_PEER_MESSAGE)
            .max_encoding_message_size(MAX_PEER_MESSAGE);
        clients.insert(target, (endpoint.to_owned(), client.clone()));
        Ok(client)
    }

    /// Asks a controller how it sees the quorum; `seen` is the tag of its last answer.
    pub(crate) async fn ping(&self, target: u64, endpoint: &str, seen: u64) -> Result<PingResponse, Status> {
        let mut client =
            self.client(target, endpoint).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let request = PingRequest { cluster: self.cluster.to_string(), from: self.id, seen };
        Ok(client.ping(request).await?.into_inner())
    }

    /// Raft's line to one of them.
    pub(super) fn peer(&self, target: u64, endpoint: String) -> Peer {
        Peer { peers: self.clone(), target, endpoint }
    }

    /// A controller obeyed or elected this one in `term`.
    fn acked(&self, by: u64, term: u64, sent: Instant) {
        let mut election = self.election.lock().unwrap_or_else(PoisonError::into_inner);
        election.acked(ControllerId(by), term, sent);
    }
}

impl RaftNetworkFactory<TypeConfig> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &Node) -> Peer {
        let endpoint = self.endpoints.get(&target).unwrap_or(&node.endpoint).clone();
        self.peer(target, endpoint)
    }
}

/// One other controller.
pub(crate) struct Peer {
    peers: Peers,
    target: u64,
    endpoint: String,
}

impl Peer {
    fn client(&self) -> Result<Client, Unreachable> {
        self.peers.client(self.target, &self.endpoint).map_err(|error| Unreachable::new(&error))
    }

    fn request<T: Serialize>(
        &self,
        rpc: &T,
        option: &RPCOption,
    ) -> Result<Request<RaftRequest>, NetworkError> {
        let payload = encode(rpc).map_err(|error| NetworkError::new(&error))?;
        let mut request = Request::new(RaftRequest {
            cluster: self.peers.cluster.to_string(),
            from: self.peers.id,
            to: self.target,
            payload: payload.into(),
        });
        request.set_timeout(option.hard_ttl());
        Ok(request)
    }

    /// Asks for a vote, which says nothing yet of an election.
    pub(super) async fn ask_for_vote(
        &self,
        rpc: &VoteRequest<u64>,
        option: &RPCOption,
    ) -> Outcome<VoteResponse<u64>> {
        let request = self.request(rpc, option)?;
        let answer = self.client()?.vote(request).await;
        self.outcome(answer)
    }

    #[allow(clippy::result_large_err, reason = "openraft's trait gives the type")]
    fn outcome<T, E>(&self, answer: Result<Response<RaftResponse>, Status>) -> Outcome<T, E>
    where
        T: DeserializeOwned,
        E: Error + DeserializeOwned,
    {
        let answer = answer.map_err(|status| rpc_error(&status))?.into_inner();
        let result: Result<T, RaftError<E>> =
            decode(&answer.payload).map_err(|error| Unreachable::new(&error))?;
        result.map_err(|error| RemoteError::new(self.target, error).into())
    }
}

/// openraft tries again at once after a network error, and after a pause where a controller is unreachable. Only what
/// took its time may be tried at once: a refusal must not be hammered at.
fn rpc_error<E: Error>(status: &Status) -> RPCError<u64, Node, E> {
    match status.code() {
        Code::DeadlineExceeded | Code::Cancelled => NetworkError::new(status).into(),
        _ => Unreachable::new(status).into(),
    }
}

impl RaftNetwork<TypeConfig> for Peer {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Outcome<AppendEntriesResponse<u64>> {
        let (request, sent) = (self.request(&rpc, &option)?, Instant::now());
        let answer = self.client()?.append_entries(request).await;
        let answer = self.outcome(answer)?;
        if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
            self.peers.acked(self.target, rpc.vote.leader_id.term, sent);
        }
        Ok(answer)
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<TypeConfig>,
        option: RPCOption,
    ) -> Outcome<InstallSnapshotResponse<u64>, InstallSnapshotError> {
        let (request, sent) = (self.request(&rpc, &option)?, Instant::now());
        let answer = self.client()?.install_snapshot(request).await;
        let answer: InstallSnapshotResponse<u64> = self.outcome(answer)?;
        if answer.vote == rpc.vote {
            self.peers.acked(self.target, rpc.vote.leader_id.term, sent);
        }
        Ok(answer)
    }

    async fn vote(&mut self, rpc: VoteRequest<u64>, option: RPCOption) -> Outcome<VoteResponse<u64>> {
        let sent = Instant::now();
        let answer = self.ask_for_vote(&rpc, &option).await?;
        if answer.vote_granted {
            self.peers.acked(self.target, rpc.vote.leader_id.term, sent);
        }
        Ok(answer)
    }

    fn backoff(&self) -> Backoff {
        let longest = BACKOFF_MS[BACKOFF_MS.len() - 1];
        Backoff::new(BACKOFF_MS.into_iter().chain(std::iter::repeat(longest)).map(Duration::from_millis))
    }
}
