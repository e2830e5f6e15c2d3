//! `ControllerService`: hands each rpc to its file.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use holdfast_proto::internal::v1::controller_service_server::ControllerService;
use holdfast_proto::internal::v1::{
    AllocateProducerIdsRequest, AllocateProducerIdsResponse, HeartbeatRequest, HeartbeatResponse,
    WatchControllerMetadataRequest,
};
use holdfast_proto::v1::{
    CreateTopicRequest, CreateTopicResponse, DeleteTopicRequest, DeleteTopicResponse, MetadataUpdate,
};
use tonic::{Request, Response, Status, Streaming};

use super::{admin, check_cluster, heartbeat, watch};
use crate::shared::Shared;

/// Serves `ControllerService`.
#[derive(Debug, Clone)]
pub(crate) struct ControllerRpc(pub(crate) Arc<Shared>);

#[tonic::async_trait]
impl ControllerService for ControllerRpc {
    type HeartbeatStream = BoxStream<'static, Result<HeartbeatResponse, Status>>;
    type WatchMetadataStream = BoxStream<'static, Result<MetadataUpdate, Status>>;

    async fn heartbeat(
        &self,
        request: Request<Streaming<HeartbeatRequest>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        let answers = heartbeat::answers(Arc::clone(&self.0), request.into_inner());
        let ended = self.0.cancel.clone().cancelled_owned();
        Ok(Response::new(answers.take_until(ended).boxed()))
    }

    async fn watch_metadata(
        &self,
        request: Request<WatchControllerMetadataRequest>,
    ) -> Result<Response<Self::WatchMetadataStream>, Status> {
        check_cluster(&self.0, &request.get_ref().cluster)?;
        let updates = watch::updates(Arc::clone(self.0.quorum.serving()));
        let ended = self.0.cancel.clone().cancelled_owned();
        Ok(Response::new(updates.take_until(ended).boxed()))
    }

    async fn create_topic(
        &self,
        request: Request<CreateTopicRequest>,
    ) -> Result<Response<CreateTopicResponse>, Status> {
        Ok(Response::new(admin::create_topic(&self.0, request.into_inner()).await?))
    }

    async fn delete_topic(
        &self,
        request: Request<DeleteTopicRequest>,
    ) -> Result<Response<DeleteTopicResponse>, Status> {
        Ok(Response::new(admin::delete_topic(&self.0, request.into_inner()).await?))
    }

    async fn allocate_producer_ids(
        &self,
        request: Request<AllocateProducerIdsRequest>,
    ) -> Result<Response<AllocateProducerIdsResponse>, Status> {
        Ok(Response::new(admin::allocate_producer_ids(&self.0, request.into_inner()).await?))
    }
}
