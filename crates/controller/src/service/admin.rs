//! Changes that somebody asks for: topics and producer ids. The leader takes them, others say who leads.

use holdfast_core::metadata::{Applied, Command, TopicChange};
use holdfast_core::{ErrorCode, TopicId};
use holdfast_proto::ApiError;
use holdfast_proto::convert::metadata::{topic_change_from_wire, topic_spec_from_wire};
use holdfast_proto::internal::v1::{AllocateProducerIdsRequest, AllocateProducerIdsResponse};
use holdfast_proto::v1::{
    AlterTopicRequest, AlterTopicResponse, CreateTopicRequest, CreateTopicResponse, DeleteTopicRequest,
    DeleteTopicResponse,
};

use super::{not_leader, propose_error};
use crate::config::MAX_NAME;
use crate::shared::Shared;

pub(super) async fn create_topic(
    shared: &Shared,
    request: CreateTopicRequest,
) -> Result<CreateTopicResponse, ApiError> {
    check_name(&request.name)?;
    let spec = topic_spec_from_wire(&request);
    let command = Command::CreateTopic { id: topic_id(&request.topic_id)?, name: request.name, spec };
    match propose(shared, command).await? {
        Applied::TopicCreated(id) => Ok(CreateTopicResponse { topic_id: id.to_bytes().to_vec().into() }),
        other => Err(unexpected(&other)),
    }
}

/// The id that the caller chose, so that it can ask again without creating two.
fn topic_id(chosen: &[u8]) -> Result<TopicId, ApiError> {
    if chosen.is_empty() {
        return Ok(TopicId(rand::random()));
    }
    TopicId::from_bytes(chosen)
        .ok_or_else(|| ApiError::new(ErrorCode::InvalidRequest, "a topic id has 16 bytes, or is left out"))
}

pub(super) async fn alter_topic(
    shared: &Shared,
    request: AlterTopicRequest,
) -> Result<AlterTopicResponse, ApiError> {
    check_name(&request.name)?;
    // As for a deletion.
    if !shared.quorum.catch_up().await {
        return Err(not_leader(&shared.quorum, shared.id));
    }
    let named = shared.quorum.serving().with_map(|map| map.topic_named(&request.name).map(|topic| topic.id));
    let id = named.filter(|id| request.topic_id.is_empty() || id.to_bytes()[..] == request.topic_id[..]);
    let Some(id) = id else { return Err(not_named(&request.name, named)) };
    let change = topic_change_from_wire(&request);
    if change != TopicChange::default() {
        propose(shared, Command::AlterTopic { id, change }).await?;
    }
    Ok(AlterTopicResponse {})
}

fn not_named(name: &str, id: Option<TopicId>) -> ApiError {
    let message = match id {
        None => format!("no topic named {name:?}"),
        Some(id) => format!("topic {name:?} has id {id}, not the one given"),
    };
    ApiError::new(ErrorCode::UnknownTopic, message)
}

pub(super) async fn delete_topic(
    shared: &Shared,
    request: DeleteTopicRequest,
) -> Result<DeleteTopicResponse, ApiError> {
    check_name(&request.name)?;
    // The name is looked up in what is committed, not in what happens to be applied.
    if !shared.quorum.catch_up().await {
        return Err(not_leader(&shared.quorum, shared.id));
    }
    let named = shared.quorum.serving().with_map(|map| map.topic_named(&request.name).map(|topic| topic.id));
    let wanted = |id: &TopicId| request.topic_id.is_empty() || id.to_bytes()[..] == request.topic_id[..];
    let Some(id) = named.filter(wanted) else {
        let deleted = shared.quorum.serving().with_map(|map| {
            let topic = TopicId::from_bytes(&request.topic_id).and_then(|id| map.topic(id));
            topic.is_some_and(|topic| topic.deleted && topic.name == request.name)
        });
        if deleted {
            return Ok(DeleteTopicResponse {}); // the caller did not hear the first answer
        }
        return Err(not_named(&request.name, named));
    };
    propose(shared, Command::DeleteTopic { id }).await?;
    Ok(DeleteTopicResponse {})
}

pub(super) async fn allocate_producer_ids(
    shared: &Shared,
    request: AllocateProducerIdsRequest,
) -> Result<AllocateProducerIdsResponse, ApiError> {
    match propose(shared, Command::AllocateProducerIds { count: request.count }).await? {
        Applied::ProducerIds { first, count } => Ok(AllocateProducerIdsResponse { first, count }),
        other => Err(unexpected(&other)),
    }
}

pub(super) async fn propose(shared: &Shared, command: Command) -> Result<Applied, ApiError> {
    if !shared.quorum.standing().leads {
        return Err(not_leader(&shared.quorum, shared.id));
    }
    shared.quorum.propose(command).await.map_err(|error| propose_error(shared, error))
}

/// Nothing huge goes into the log; what a name may be is decided where it is applied.
pub(super) fn check_name(name: &str) -> Result<(), ApiError> {
    if name.len() <= MAX_NAME {
        return Ok(());
    }
    let message = format!("topic name of {} bytes is longer than 249", name.len());
    Err(ApiError::new(ErrorCode::InvalidRequest, message))
}

fn unexpected(applied: &Applied) -> ApiError {
    ApiError::new(ErrorCode::Internal, format!("the quorum answered {applied:?} to another command"))
}
