//! The gRPC services, and what they share: finding the partition and its leader, errors.

mod cluster;
mod events;
mod fetch;
mod held;
mod keys;
mod partition;
mod produce;
mod repair;
mod replicate;
mod topic;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_core::metadata::{Broker, ClusterMap};
use holdfast_core::record_batch::BatchError;
use holdfast_core::replication::ProduceError;
use holdfast_core::{BrokerId, ErrorCode, PartitionId, TopicId, ZoneId};
use holdfast_proto::ApiError;
use holdfast_proto::convert::ConvertError;
use holdfast_proto::transport::{Link, Tls, connect_lazy};
use holdfast_proto::v1::Routing;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

pub(crate) use cluster::ClusterApi;
#[cfg(test)]
pub(crate) use fetch::fetch_here;
pub(crate) use fetch::{FetchApi, MOST_DECOMPRESSED};
pub(crate) use held::{Room, hold_until_sent};
pub(crate) use keys::KEYS_ROOM;
pub(crate) use partition::PartitionApi;
pub(crate) use produce::ProduceApi;
pub(crate) use repair::{REPAIR_ROOM, RepairApi};
pub(crate) use replicate::{PEER_ROOM, ReplicationApi};
pub(crate) use topic::TopicApi;

use crate::clock::Clock;
use crate::compaction::CompactionStats;
use crate::config::BrokerConfig;
use crate::controllers::Controllers;
use crate::disk_space::DiskSpace;
use crate::metadata::MapHolder;
use crate::partition::{Partitions, ShardSenders};
use crate::producer_ids::ProducerIds;
use crate::repair::Repairs;

/// When a caller that met a leader change may come back: about as long as a follower needs to hear of it.
const LEADER_CHANGE_PAUSE: Duration = Duration::from_millis(20);

/// When a caller may come back whose batch found no room on the disk: about as often as the disk is asked.
const DISK_FULL_PAUSE: Duration = Duration::from_millis(250);

/// How long a batch waits at a broker that was just appointed: a takeover without a long tail to copy takes less.
const TAKEOVER_PATIENCE: Duration = Duration::from_millis(500);

/// A topic that was created through another broker a moment ago may not be in this one's map yet.
const TOPIC_PATIENCE: Duration = Duration::from_millis(500);

/// What every service works with.
pub(crate) struct ServiceContext {
    pub(crate) cluster: String,
    pub(crate) broker: BrokerId,
    pub(crate) zone: ZoneId,
    pub(crate) config: BrokerConfig,
    pub(crate) clock: Clock,
    pub(crate) map: MapHolder,
    pub(crate) partitions: Partitions,
    pub(crate) shards: ShardSenders,
    pub(crate) space: DiskSpace,
    pub(crate) controllers: Controllers,
    pub(crate) tls: Option<Tls>,
    /// Bytes of produce requests that may be under way.
    pub(crate) produce_room: Arc<Semaphore>,
    /// For batches that are decompressed to look at their keys.
    pub(crate) keys_room: Room,
    /// For answers to fetch requests.
    pub(crate) fetch_room: Room,
    /// Bytes of other brokers' messages that may wait at the shards.
    pub(crate) peer_room: Arc<Semaphore>,
    /// For batches that other brokers are given.
    pub(crate) repair_room: Room,
    pub(crate) repairs: Repairs,
    pub(crate) compaction_stats: CompactionStats,
    pub(crate) channels: Channels,
    pub(crate) producer_ids: Arc<ProducerIds>,
    /// Cancelled when the broker ends in order: what waits or streams comes to its end.
    pub(crate) ending: CancellationToken,
}

impl ServiceContext {
    /// The partition meant by a request.
    fn resolve(
        &self,
        map: &ClusterMap,
        topic: &str,
        topic_id: &[u8],
        index: u32,
    ) -> Result<PartitionId, ApiError> {
        if map.index() == 0 {
            return Err(ApiError::new(
                ErrorCode::MetadataIncomplete,
                "this broker has no complete metadata map yet: try again, or another broker",
            )
            .retry_after(Duration::from_millis(200)));
        }
        let found = map.topic_named(topic).ok_or_else(|| unknown_topic(topic))?;
        if !topic_id.is_empty() && TopicId::from_bytes(topic_id) != Some(found.id) {
            return Err(ApiError::new(
                ErrorCode::UnknownTopic,
                format!("topic {topic:?} was deleted and created anew: it has id {} now", found.id),
            ));
        }
        if index >= found.spec.partitions {
            return Err(ApiError::new(
                ErrorCode::UnknownPartition,
                format!("topic {topic:?} has partitions 0 to {}, not {index}", found.spec.partitions - 1),
            ));
        }
        Ok(PartitionId { topic: found.id, index })
    }

    /// What a caller gets that wants to be sent to the leader.
    fn not_leader(&self, map: &ClusterMap, partition: PartitionId) -> ApiError {
        let term = map.partition(partition).map_or(0, |partition| partition.register.term.0);
        match map.leader_of(partition).filter(|leader| leader.id != self.broker) {
            Some(leader) => ApiError::new(
                ErrorCode::NotLeader,
                format!(
                    "broker {} leads partition {}: send to {}",
                    leader.id, partition.index, leader.client_endpoint
                ),
            )
            .with("leader_broker", leader.id)
            .with("leader_endpoint", &leader.client_endpoint)
            .with("leader_term", term)
            .retry_after(LEADER_CHANGE_PAUSE),
            None => ApiError::new(
                ErrorCode::LeaderUnavailable,
                format!("partition {} has no active leader at the moment: try again", partition.index),
            )
            .retry_after(LEADER_CHANGE_PAUSE),
        }
    }

    /// Waits while this broker is on its way to lead the partition, and says whether it does. Clients hear of an
    /// appointment when it does: whoever is early would have to come back, and come back later than it could.
    async fn leads(&self, map: &ClusterMap, partition: PartitionId, deadline: Instant) -> bool {
        let Some(handle) = self.partitions.get(partition) else { return false };
        let mut status = handle.status.clone();
        let appointed =
            map.partition(partition).is_some_and(|known| known.register.leader.broker == self.broker);
        if appointed {
            let settled = status.wait_for(|status| status.active || status.failed);
            let limit = deadline.min(Instant::now() + TAKEOVER_PATIENCE);
            // However it ends, the status says how things stand.
            drop(tokio::time::timeout_at(limit, settled).await);
        }
        status.borrow().active
    }

    /// The other broker that leads the partition.
    fn remote_leader<'a>(&self, map: &'a ClusterMap, partition: PartitionId) -> Option<&'a Broker> {
        map.leader_of(partition).filter(|leader| leader.id != self.broker)
    }

    /// Waits until the broker ends and no batch waits here for its commit: until then acknowledgements of followers are
    /// listened to.
    async fn produce_ended(&self) {
        self.ending.cancelled().await;
        let all = usize::try_from(self.config.max_inflight_produce.0).unwrap_or(usize::MAX);
        let all = u32::try_from(all.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        // Given back at once, for the next one who waits. An error says that it was closed, which nobody does.
        drop(self.produce_room.acquire_many(all).await);
    }

    fn channel_to(&self, broker: &Broker) -> Result<Channel, ApiError> {
        self.channels.get(&broker.peer_endpoint, self.tls.as_ref())
    }
}

/// Tries again while the leadership moves or a new topic spreads, for callers that leave finding the leader to us. Only for what was refused
/// before anything happened.
async fn through_leader_changes<T, F: Future<Output = Result<T, ApiError>>>(
    routing: Routing,
    deadline: Instant,
    mut attempt: impl FnMut() -> F,
) -> Result<T, ApiError> {
    let topic_deadline = Instant::now() + TOPIC_PATIENCE;
    loop {
        let error = match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let moving = match error.code {
            ErrorCode::NotLeader | ErrorCode::LeaderUnavailable => true,
            ErrorCode::UnknownTopic => Instant::now() < topic_deadline,
            _ => false,
        };
        let retry_at = Instant::now() + LEADER_CHANGE_PAUSE;
        if routing == Routing::Redirect || !moving || retry_at >= deadline {
            return Err(error);
        }
        tokio::time::sleep_until(retry_at).await;
    }
}

fn unknown_topic(topic: &str) -> ApiError {
    let name: String = topic.chars().take(250).collect();
    ApiError::new(
        ErrorCode::UnknownTopic,
        format!("no topic {name:?}: create it with `holdfast topic create`, or see `holdfast topic ls`"),
    )
}

fn invalid(problem: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, problem)
}

fn ending() -> ApiError {
    ApiError::new(ErrorCode::LeaderUnavailable, "this broker is shutting down: send to another")
        .retry_after(LEADER_CHANGE_PAUSE)
}

/// A request that makes no sense.
fn convert_error(error: &ConvertError) -> ApiError {
    invalid(error.to_string())
}

fn batch_error(error: &BatchError) -> ApiError {
    let code = match error {
        BatchError::TooLarge { .. } => ErrorCode::BatchTooLarge,
        _ => ErrorCode::CorruptBatch,
    };
    ApiError::new(code, format!("record batch refused, nothing was appended: {error}"))
}

fn produce_error(error: ProduceError) -> ApiError {
    let api = ApiError::new(error.code(), error.to_string());
    match error {
        ProduceError::NotEnoughReplicas { .. } | ProduceError::NotEnoughReplicasAfterAppend { .. } => {
            api.retry_after(Duration::from_millis(200))
        }
        ProduceError::Overloaded { .. } => api.retry_after(Duration::from_millis(50)),
        ProduceError::DiskFull { .. } => api.retry_after(DISK_FULL_PAUSE),
        ProduceError::LeaderLost | ProduceError::NotLeader { .. } => api.retry_after(LEADER_CHANGE_PAUSE),
        ProduceError::OutOfOrderSequence { expected, .. } => api.with("expected_sequence", expected),
        _ => api,
    }
}

/// Channels to other brokers, for forwarding: by their peer endpoints, because what clients are given may lead nowhere
/// from inside the cluster's networks.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    open: Mutex<BTreeMap<String, Channel>>,
}

impl Channels {
    pub(crate) fn get(&self, endpoint: &str, tls: Option<&Tls>) -> Result<Channel, ApiError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = open.get(endpoint) {
            return Ok(channel.clone());
        }
        let channel = connect_lazy(endpoint, Link::Peer, tls)
            .map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?;
        open.insert(endpoint.to_owned(), channel.clone());
        Ok(channel)
    }
}
