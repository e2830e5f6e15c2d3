//! Raft messages of the other controllers.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_core::{ControllerId, ErrorCode};
use holdfast_proto::ApiError;
use holdfast_proto::internal::v1::raft_service_server::RaftService;
use holdfast_proto::internal::v1::{PingRequest, PingResponse, RaftRequest, RaftResponse};
use tonic::{Request, Response, Status};

use super::check_cluster;
use crate::raft::MessageError;
use crate::shared::Shared;

/// Serves `RaftService`.
#[derive(Debug, Clone)]
pub(crate) struct RaftRpc(pub(crate) Arc<Shared>);

impl RaftRpc {
    /// The payload, if it comes from a controller of this quorum and is meant for this one.
    fn payload(&self, request: Request<RaftRequest>) -> Result<Bytes, ApiError> {
        let request = request.into_inner();
        self.check_sender(&request.cluster, request.from)?;
        if request.to != self.0.id.0 {
            let message = format!("this is controller {}, not {}", self.0.id, request.to);
            return Err(ApiError::new(ErrorCode::InvalidRequest, message));
        }
        Ok(request.payload)
    }

    fn check_sender(&self, cluster: &str, from: u64) -> Result<(), ApiError> {
        check_cluster(&self.0, cluster)?;
        if self.0.quorum.endpoint(ControllerId(from)).is_none() {
            let message = format!("controller {from} is not a voter of this quorum");
            return Err(ApiError::new(ErrorCode::InvalidRequest, message));
        }
        Ok(())
    }
}

fn respond(result: Result<Bytes, MessageError>) -> Result<Response<RaftResponse>, Status> {
    match result {
        Ok(payload) => Ok(Response::new(RaftResponse { payload })),
        // To the other this controller is out of reach, and is tried again after a pause.
        Err(error @ MessageError::NoRoom) => {
            Err(ApiError::new(ErrorCode::Unavailable, error.to_string()).into())
        }
        Err(error) => Err(ApiError::new(ErrorCode::InvalidRequest, error.to_string()).into()),
    }
}

#[tonic::async_trait]
impl RaftService for RaftRpc {
    async fn append_entries(&self, request: Request<RaftRequest>) -> Result<Response<RaftResponse>, Status> {
        respond(self.0.quorum.handle_append_entries(&self.payload(request)?).await)
    }

    async fn vote(&self, request: Request<RaftRequest>) -> Result<Response<RaftResponse>, Status> {
        respond(self.0.quorum.handle_vote(&self.payload(request)?).await)
    }

    async fn install_snapshot(
        &self,
        request: Request<RaftRequest>,
    ) -> Result<Response<RaftResponse>, Status> {
        respond(self.0.quorum.handle_install_snapshot(&self.payload(request)?).await)
    }

    async fn ping(&self, request: Request<PingRequest>) -> Result<Response<PingResponse>, Status> {
        let PingRequest { cluster, from, seen } = request.into_inner();
        self.check_sender(&cluster, from)?;
        Ok(Response::new(news(&self.0, seen).await))
    }
}

/// Waits until the answer is not the one that was seen, for a moment at most.
async fn news(shared: &Shared, seen: u64) -> PingResponse {
    let (mut news, mut lost) = (shared.quorum.news(), shared.lost.subscribe());
    let end = tokio::time::sleep(shared.quorum.hold());
    tokio::pin!(end);
    loop {
        news.mark_unchanged();
        let answer = shared.quorum.answer(&lost.borrow_and_update());
        if answer.tag != seen || end.is_elapsed() || shared.cancel.is_cancelled() {
            return answer;
        }
        // The senders live as long as `shared`.
        tokio::select! {
            () = &mut end => {}
            () = shared.cancel.cancelled() => {}
            _ = news.changed() => {}
            _ = lost.changed() => {}
        }
    }
}
