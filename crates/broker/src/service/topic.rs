//! Topics: asked here, decided by the controllers.

use std::sync::Arc;
use std::time::Duration;

use holdfast_core::{ErrorCode, TopicId};
use holdfast_proto::ApiError;
use holdfast_proto::v1::topic_service_server::TopicService;
use holdfast_proto::v1::{CreateTopicRequest, CreateTopicResponse, DeleteTopicRequest, DeleteTopicResponse};
use tonic::{Request, Response, Status};

use super::{ServiceContext, unknown_topic};

/// How long a created topic may take to appear in this broker's map.
const MAP_PATIENCE: Duration = Duration::from_secs(5);

/// `TopicService`.
pub(crate) struct TopicApi {
    pub(crate) context: Arc<ServiceContext>,
}

#[tonic::async_trait]
impl TopicService for TopicApi {
    async fn create_topic(
        &self,
        request: Request<CreateTopicRequest>,
    ) -> Result<Response<CreateTopicResponse>, Status> {
        let mut request = request.into_inner();
        if request.topic_id.is_empty() {
            // Chosen here: however often the controllers have to be asked, one topic comes of it.
            request.topic_id = bytes::Bytes::copy_from_slice(&TopicId(rand::random()).to_bytes());
        }
        let call = |mut client: crate::controllers::ControllerClient| {
            let request = request.clone();
            async move { client.create_topic(request).await }
        };
        let created = self.context.controllers.call_leader(call).await?.into_inner();
        self.wait_for(|map, id| map.topic(id).is_some(), &created.topic_id).await;
        Ok(Response::new(created))
    }

    async fn delete_topic(
        &self,
        request: Request<DeleteTopicRequest>,
    ) -> Result<Response<DeleteTopicResponse>, Status> {
        let mut request = request.into_inner();
        let map = self.context.map.current();
        let topic = map.topic_named(&request.name).ok_or_else(|| unknown_topic(&request.name))?;
        if request.topic_id.is_empty() {
            // By id from here on: a topic that is created anew meanwhile is not the one meant.
            request.topic_id = bytes::Bytes::copy_from_slice(&topic.id.to_bytes());
        } else if TopicId::from_bytes(&request.topic_id) != Some(topic.id) {
            let problem = format!("topic {:?} was created anew and has id {} now", request.name, topic.id);
            return Err(ApiError::new(ErrorCode::UnknownTopic, problem).into());
        }
        let call = |mut client: crate::controllers::ControllerClient| {
            let request = request.clone();
            async move { client.delete_topic(request).await }
        };
        self.context.controllers.call_leader(call).await?;
        let deleted =
            |map: &holdfast_core::metadata::ClusterMap, id| map.topic(id).is_none_or(|topic| topic.deleted);
        self.wait_for(deleted, &request.topic_id).await;
        Ok(Response::new(DeleteTopicResponse {}))
    }
}

impl TopicApi {
    /// The caller's next request, here, meets the change. Where it does not come in time the change stands all the
    /// same, and the map follows.
    async fn wait_for(
        &self,
        holds: impl Fn(&holdfast_core::metadata::ClusterMap, TopicId) -> bool,
        topic_id: &[u8],
    ) {
        let Some(id) = TopicId::from_bytes(topic_id) else { return };
        let mut maps = self.context.map.subscribe();
        let _ = tokio::time::timeout(MAP_PATIENCE, maps.wait_for(|map| holds(map, id))).await;
    }
}
