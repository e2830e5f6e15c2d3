//! The rpcs, one file per service or shape of call.

mod admin;
mod controller;
mod events;
mod heartbeat;
mod partition;
mod raft;
mod watch;

use std::time::Duration;

use holdfast_core::{ControllerId, ErrorCode};
use holdfast_proto::ApiError;

use crate::raft::{ProposeError, Quorum};
use crate::shared::Shared;

pub(crate) use controller::ControllerRpc;
pub(crate) use raft::RaftRpc;

/// When a caller should look for the leader again: an election takes a few of these.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Refuses processes of other clusters.
fn check_cluster(shared: &Shared, theirs: &str) -> Result<(), ApiError> {
    if theirs == shared.cluster {
        return Ok(());
    }
    let theirs: String = theirs.chars().take(crate::config::MAX_NAME).collect();
    let message = format!("this is a controller of cluster {:?}, not of {theirs:?}", shared.cluster);
    Err(ApiError::new(ErrorCode::WrongCluster, message).with("cluster", &shared.cluster))
}

/// A controller that does not lead says who does.
fn not_leader(quorum: &Quorum, id: ControllerId) -> ApiError {
    let leader = quorum.standing().leader.filter(|&leader| leader != id);
    let error = match leader {
        Some(leader) => {
            let message = format!("controller {id} does not lead; controller {leader} does");
            let endpoint = quorum.endpoint(leader).unwrap_or_default();
            ApiError::new(ErrorCode::ControllerUnavailable, message)
                .with("leader_id", leader)
                .with("leader_endpoint", endpoint)
        }
        None if quorum.stands_still() => {
            let message = format!(
                "controller {id} has no room on its disk, and takes nothing until there is some; it hears of no other leader"
            );
            ApiError::new(ErrorCode::ControllerUnavailable, message)
        }
        None => {
            ApiError::new(ErrorCode::ControllerUnavailable, "the controllers have no leader at the moment")
        }
    };
    error.retry_after(RETRY_AFTER)
}

/// What a caller hears of a proposal that failed.
fn propose_error(shared: &Shared, error: ProposeError) -> ApiError {
    match error {
        ProposeError::Refused(refused) => ApiError::new(refused.code(), refused.to_string()),
        ProposeError::NotLeader => not_leader(&shared.quorum, shared.id),
        // It may be carried out yet: these two codes are indefinite.
        ProposeError::TimedOut => {
            ApiError::new(ErrorCode::DeadlineExceeded, error.to_string()).retry_after(RETRY_AFTER)
        }
        ProposeError::Stopped(_) => {
            ApiError::new(ErrorCode::Unavailable, error.to_string()).retry_after(RETRY_AFTER)
        }
    }
}
