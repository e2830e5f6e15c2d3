//! The cluster as this broker sees it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use futures::{Stream, StreamExt as _};
use holdfast_core::PartitionId;
use holdfast_core::metadata::{Broker, ClusterMap};
use holdfast_core::replication::MemberStatus;
use holdfast_proto::convert::metadata::update_to_wire;
use holdfast_proto::v1::cluster_service_client::ClusterServiceClient;
use holdfast_proto::v1::cluster_service_server::ClusterService;
use holdfast_proto::v1::{
    BrokerState, ControllerState, DescribeClusterRequest, DescribeClusterResponse, DescribePartitionsRequest,
    DescribePartitionsResponse, ListEventsRequest, ListEventsResponse, MetadataUpdate, PartitionState,
    ReplicaState, WatchMetadataRequest,
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::{ServiceContext, events, unknown_topic};

/// How long another broker may take to describe its partitions.
const PEER_PATIENCE: Duration = Duration::from_secs(1);

/// `ClusterService`.
pub(crate) struct ClusterApi {
    pub(crate) context: Arc<ServiceContext>,
}

#[tonic::async_trait]
impl ClusterService for ClusterApi {
    type WatchMetadataStream = Pin<Box<dyn Stream<Item = Result<MetadataUpdate, Status>> + Send>>;

    async fn watch_metadata(
        &self,
        _request: Request<WatchMetadataRequest>,
    ) -> Result<Response<Self::WatchMetadataStream>, Status> {
        let ending = self.context.ending.clone().cancelled_owned();
        Ok(Response::new(Box::pin(updates(self.context.map.subscribe()).take_until(ending))))
    }

    async fn describe_cluster(
        &self,
        _request: Request<DescribeClusterRequest>,
    ) -> Result<Response<DescribeClusterResponse>, Status> {
        let context = &self.context;
        let leader = context.controllers.leader();
        let controllers = context.controllers.iter().map(|controller| {
            let view = controller.view();
            ControllerState {
                id: controller.config.id.0,
                zone: controller.config.zone.as_str().to_owned(),
                endpoint: controller.config.endpoint.clone(),
                reachable: view.is_reachable(),
                leader: view.is_reachable() && leader == Some(controller.config.id),
                term: view.term,
            }
        });
        Ok(Response::new(DescribeClusterResponse {
            cluster: context.cluster.clone(),
            broker_id: context.broker.0,
            zone: context.zone.as_str().to_owned(),
            metadata: Some(update_to_wire(&context.map.current().snapshot())),
            controllers: controllers.collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }))
    }

    async fn describe_partitions(
        &self,
        request: Request<DescribePartitionsRequest>,
    ) -> Result<Response<DescribePartitionsResponse>, Status> {
        let request = request.into_inner();
        let map = self.context.map.current();
        if !request.topic.is_empty() && map.topic_named(&request.topic).is_none() {
            return Err(unknown_topic(&request.topic).into());
        }
        let mut partitions = self.local(&map, &request.topic);
        let mut brokers = vec![self.state()];
        if !request.local_only {
            let others = map.brokers().filter(|broker| broker.live && broker.id != self.context.broker);
            for answer in join_all(others.map(|broker| self.remote(broker, &request.topic))).await {
                partitions.extend(answer.partitions);
                brokers.extend(answer.brokers);
            }
        }
        brokers.sort_by_key(|broker| broker.broker_id);
        partitions.sort_by(|a, b| (&a.topic_id, a.partition).cmp(&(&b.topic_id, b.partition)));
        Ok(Response::new(DescribePartitionsResponse { partitions, brokers }))
    }

    async fn list_events(
        &self,
        request: Request<ListEventsRequest>,
    ) -> Result<Response<ListEventsResponse>, Status> {
        Ok(Response::new(events::list(&self.context.controllers, request.into_inner()).await))
    }
}

impl ClusterApi {
    /// What is led here.
    fn local(&self, map: &ClusterMap, topic: &str) -> Vec<PartitionState> {
        let wanted = map.topic_named(topic).map(|topic| topic.id);
        let partitions =
            map.partitions().filter(|partition| wanted.is_none_or(|id| partition.id.topic == id));
        partitions.filter_map(|partition| self.describe(partition.id)).collect()
    }

    /// How this broker stands.
    fn state(&self) -> BrokerState {
        let (room, partitions) = (self.context.space.room(), &self.context.partitions);
        let replicas = partitions.ids().into_iter().filter_map(|id| partitions.get(id));
        BrokerState {
            broker_id: self.context.broker.0,
            disk_free: room.free,
            disk_reserve: room.reserve,
            disk_full: room.is_short(),
            failed_replicas: replicas.filter(|handle| handle.status.borrow().failed).count() as u32,
            damaged_replicas: self.context.repairs.damaged() as u32,
            repaired_places: self.context.repairs.count(),
            compaction_passes: self.context.compaction_stats.passes(),
            compacted_records: self.context.compaction_stats.removed_records(),
            compacted_bytes: self.context.compaction_stats.freed_bytes(),
        }
    }

    fn describe(&self, partition: PartitionId) -> Option<PartitionState> {
        let handle = self.context.partitions.get(partition)?;
        let status = handle.status.borrow().clone();
        if !status.active {
            return None;
        }
        let replica = |member: &MemberStatus| ReplicaState {
            broker_id: member.replica.broker.0,
            acknowledged_offset: member.reached.0,
            in_sync: !member.lags && member.reached >= status.high_watermark,
            lags: member.lags,
        };
        Some(PartitionState {
            topic_id: partition.topic.to_bytes().to_vec().into(),
            partition: partition.index,
            leader: self.context.broker.0,
            leader_epoch: status.epoch.to_wire(),
            active: status.settled,
            log_start_offset: handle.reader.log_start_offset().0,
            high_watermark: status.high_watermark.0,
            log_end_offset: status.log_end_offset.0,
            size_bytes: *handle.size_bytes.borrow(),
            replicas: status.members.iter().map(replica).collect(),
            cleaned_end: handle.reader.compacted().cleaned_end.0,
            cleaned_by_all: status.cleaned_by_all.0,
        })
    }

    /// What another broker leads, and how it stands; nothing where it does not answer.
    pub(crate) async fn remote(&self, broker: &Broker, topic: &str) -> DescribePartitionsResponse {
        let Ok(channel) = self.context.channel_to(broker) else {
            return DescribePartitionsResponse::default();
        };
        let mut client = ClusterServiceClient::new(channel);
        let request = DescribePartitionsRequest { topic: topic.to_owned(), local_only: true };
        match tokio::time::timeout(PEER_PATIENCE, client.describe_partitions(request)).await {
            Ok(Ok(response)) => response.into_inner(),
            _ => DescribePartitionsResponse::default(),
        }
    }
}

/// A snapshot, then changes. A slow reader gets several changes in one: nothing queues up for it.
fn updates(
    maps: watch::Receiver<Arc<ClusterMap>>,
) -> impl Stream<Item = Result<MetadataUpdate, Status>> + Send + 'static {
    futures::stream::unfold((maps, None), |(mut maps, sent)| async move {
        let (map, update) = loop {
            let map = Arc::clone(&maps.borrow_and_update());
            match sent {
                None if map.index() > 0 => break (Arc::clone(&map), map.snapshot()),
                Some(base) if map.index() > base => break (Arc::clone(&map), map.changes_since(base)),
                _ => maps.changed().await.ok()?,
            }
        };
        Some((Ok(update_to_wire(&update)), (maps, Some(map.index()))))
    })
}
