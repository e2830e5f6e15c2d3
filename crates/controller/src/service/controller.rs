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
    AlterTopicRequest, AlterTopicResponse, CancelMoveRequest, CancelMoveResponse, CreateTopicRequest,
    CreateTopicResponse, DeleteTopicRequest, DeleteTopicResponse, ListEventsRequest, ListEventsResponse,
    MetadataUpdate, MoveLeaderRequest, MoveLeaderResponse, MoveReplicasRequest, MoveReplicasResponse,
    RecoverUncleanRequest, RecoverUncleanResponse,
};
use tonic::{Request, Response, Status, Streaming};

use super::{admin, check_cluster, events, heartbeat, partition, watch};
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

    async fn alter_topic(
        &self,
        request: Request<AlterTopicRequest>,
    ) -> Result<Response<AlterTopicResponse>, Status> {
        Ok(Response::new(admin::alter_topic(&self.0, request.into_inner()).await?))
    }

    async fn delete_topic(
        &self,
        request: Request<DeleteTopicRequest>,
    ) -> Result<Response<DeleteTopicResponse>, Status> {
        Ok(Response::new(admin::delete_topic(&self.0, request.into_inner()).await?))
    }

    async fn move_replicas(
        &self,
        request: Request<MoveReplicasRequest>,
    ) -> Result<Response<MoveReplicasResponse>, Status> {
        Ok(Response::new(partition::move_replicas(&self.0, request.into_inner()).await?))
    }

    async fn cancel_move(
        &self,
        request: Request<CancelMoveRequest>,
    ) -> Result<Response<CancelMoveResponse>, Status> {
        Ok(Response::new(partition::cancel_move(&self.0, request.into_inner()).await?))
    }

    async fn move_leader(
        &self,
        request: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        Ok(Response::new(partition::move_leader(&self.0, request.into_inner()).await?))
    }

    async fn recover_unclean(
        &self,
        request: Request<RecoverUncleanRequest>,
    ) -> Result<Response<RecoverUncleanResponse>, Status> {
        Ok(Response::new(partition::recover_unclean(&self.0, request.into_inner()).await?))
    }

    async fn allocate_producer_ids(
        &self,
        request: Request<AllocateProducerIdsRequest>,
    ) -> Result<Response<AllocateProducerIdsResponse>, Status> {
        Ok(Response::new(admin::allocate_producer_ids(&self.0, request.into_inner()).await?))
    }

    async fn list_events(
        &self,
        request: Request<ListEventsRequest>,
    ) -> Result<Response<ListEventsResponse>, Status> {
        Ok(Response::new(events::list_events(&self.0, request.get_ref())))
    }
}
