//! Orders about partitions: taken here, decided by the controllers.

use std::sync::Arc;
use std::time::Duration;

use holdfast_core::PartitionId;
use holdfast_core::metadata::Register;
use holdfast_proto::v1::partition_service_server::PartitionService;
use holdfast_proto::v1::{
    CancelMoveRequest, CancelMoveResponse, MoveLeaderRequest, MoveLeaderResponse, MoveReplicasRequest,
    MoveReplicasResponse, PartitionRef, RecoverUncleanRequest, RecoverUncleanResponse,
};
use tonic::{Request, Response, Status};

use super::ServiceContext;
use crate::controllers::ControllerClient;

/// How long a change may take to appear in this broker's map.
const MAP_PATIENCE: Duration = Duration::from_secs(5);

/// `PartitionService`.
pub(crate) struct PartitionApi {
    pub(crate) context: Arc<ServiceContext>,
}

#[tonic::async_trait]
impl PartitionService for PartitionApi {
    async fn move_replicas(
        &self,
        request: Request<MoveReplicasRequest>,
    ) -> Result<Response<MoveReplicasResponse>, Status> {
        let request = request.into_inner();
        let named = request.partition.clone();
        let call = |mut client: ControllerClient| {
            let request = request.clone();
            async move { client.move_replicas(request).await }
        };
        let answer = self.context.controllers.call_leader(call).await?;
        let wanted = |register: &Register| {
            let set = register.target.as_ref().unwrap_or(&register.set);
            set.iter().map(|replica| replica.broker.0).eq(request.brokers.iter().copied())
        };
        self.wait_for(named, wanted).await;
        Ok(answer)
    }

    async fn cancel_move(
        &self,
        request: Request<CancelMoveRequest>,
    ) -> Result<Response<CancelMoveResponse>, Status> {
        let request = request.into_inner();
        let named = request.partition.clone();
        let call = |mut client: ControllerClient| {
            let request = request.clone();
            async move { client.cancel_move(request).await }
        };
        let answer = self.context.controllers.call_leader(call).await?;
        self.wait_for(named, |register| register.target.is_none()).await;
        Ok(answer)
    }

    async fn move_leader(
        &self,
        request: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        let request = request.into_inner();
        let named = request.partition.clone();
        let call = |mut client: ControllerClient| {
            let request = request.clone();
            async move { client.move_leader(request).await }
        };
        let answer = self.context.controllers.call_leader(call).await?;
        let term = answer.get_ref().term;
        self.wait_for(named, |register| register.term.0 >= term).await;
        Ok(answer)
    }

    async fn recover_unclean(
        &self,
        request: Request<RecoverUncleanRequest>,
    ) -> Result<Response<RecoverUncleanResponse>, Status> {
        let from = request.remote_addr().map_or_else(|| "?".to_owned(), |address| address.to_string());
        let mut request = request.into_inner();
        // What the caller says of itself, and what is seen of it here.
        let says: String = request.ordered_by.chars().take(64).collect();
        request.ordered_by = format!("{says} from {from} through broker {}", self.context.broker);
        let named = request.partition.clone();
        let call = |mut client: ControllerClient| {
            let request = request.clone();
            async move { client.recover_unclean(request).await }
        };
        let answer = self.context.controllers.call_leader(call).await?;
        let term = answer.get_ref().term;
        self.wait_for(named, |register| register.term.0 >= term).await;
        Ok(answer)
    }
}

impl PartitionApi {
    /// The caller's next request, here, meets the change. Where it does not come in time the change stands all the
    /// same, and the map follows.
    async fn wait_for(&self, named: Option<PartitionRef>, holds: impl Fn(&Register) -> bool) {
        let Some(PartitionRef { topic, partition: index, .. }) = named else { return };
        let mut maps = self.context.map.subscribe();
        let seen = maps.wait_for(|map| {
            let Some(topic) = map.topic_named(&topic) else { return true };
            let id = PartitionId { topic: topic.id, index };
            map.partition(id).is_none_or(|partition| holds(&partition.register))
        });
        let _ = tokio::time::timeout(MAP_PATIENCE, seen).await;
    }
}
