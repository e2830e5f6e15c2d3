//! Topics, state and offsets: unary calls with a deadline, retried over brokers.

use std::time::Duration;

use holdfast_core::metadata::{ClusterMap, TopicSpec};
use holdfast_core::record_batch::ProducerRef;
use holdfast_core::{ErrorCode, Offset, PartitionId, ProducerId, TopicId};
use holdfast_proto::convert::metadata::durability_to_wire;
use holdfast_proto::{ApiError, v1};
use tokio::time::timeout;
use tonic::Request;

use crate::Client;
use crate::client::Called;
use crate::routing::leader_of;

/// Which offset [`Client::list_offset`] is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ListOffsetAt {
    /// The first one that is still kept.
    Earliest,
    /// The high watermark: where the next committed record will be.
    Latest,
    /// The first from which on a record of this time or later is found; milliseconds since 1970.
    Timestamp(i64),
}

impl Client {
    /// Creates a topic and waits until this client's map holds it.
    ///
    /// # Errors
    /// As the broker gives them. An indefinite one means that the topic may exist.
    pub async fn create_topic(&self, name: &str, spec: TopicSpec) -> Result<TopicId, ApiError> {
        let request = v1::CreateTopicRequest {
            name: name.to_owned(),
            partitions: spec.partitions,
            replication: spec.replication,
            durability: durability_to_wire(spec.durability).into(),
            zone_waiver: spec.zone_waiver,
        };
        let called = self
            .call(None, |node, limit| {
                let request = timed(request.clone(), limit);
                async move { node.topics().create_topic(request).await }
            })
            .await;
        let id = match called {
            Called { result: Ok(answer), .. } => TopicId::from_bytes(&answer.topic_id)
                .ok_or_else(|| ApiError::new(ErrorCode::Internal, "a broker sent a bad topic id"))?,
            // An earlier attempt of ours may be what made it.
            Called { result: Err(error), unresolved: true } if error.code == ErrorCode::TopicExists => {
                self.own_topic(name, &spec).await.ok_or(error)?
            }
            Called { result: Err(error), .. } => return Err(error),
        };
        self.wait_for_map(|map| map.topic(id).is_some()).await;
        Ok(id)
    }

    /// The topic of that name, if it is what was asked for.
    async fn own_topic(&self, name: &str, spec: &TopicSpec) -> Option<TopicId> {
        self.wait_for_map(|map| map.topic_named(name).is_some()).await;
        let map = self.map();
        map.topic_named(name).filter(|topic| topic.spec == *spec).map(|topic| topic.id)
    }

    /// Deletes a topic and its records, and waits until this client's map says so.
    ///
    /// # Errors
    /// As the broker gives them. An indefinite one means that the topic may be gone.
    pub async fn delete_topic(&self, name: &str) -> Result<(), ApiError> {
        let known = self.map().topic_named(name).map(|topic| topic.id);
        // With the id, a retry never deletes a topic that was created under the name in between.
        let topic_id = known.map_or_else(Vec::new, |id| id.to_bytes().to_vec()).into();
        let request = v1::DeleteTopicRequest { name: name.to_owned(), topic_id };
        let called = self
            .call(None, |node, limit| {
                let request = timed(request.clone(), limit);
                async move { node.topics().delete_topic(request).await }
            })
            .await;
        match called {
            Called { result: Err(error), unresolved: true } if error.code == ErrorCode::UnknownTopic => {}
            Called { result, .. } => drop(result?),
        }
        if let Some(id) = known {
            self.wait_for_map(|map| map.topic(id).is_none_or(|topic| topic.deleted)).await;
        }
        Ok(())
    }

    /// The cluster as one broker knows it.
    ///
    /// # Errors
    /// Where no broker answers in time.
    pub async fn describe_cluster(&self) -> Result<v1::DescribeClusterResponse, ApiError> {
        let called = self.call(None, |node, limit| async move {
            node.cluster().describe_cluster(timed(v1::DescribeClusterRequest {}, limit)).await
        });
        called.await.result
    }

    /// Where the partitions of a topic (of all topics, for `None`) stand, as their leaders know it. A partition whose
    /// leader does not answer is missing.
    ///
    /// # Errors
    /// Where no broker answers in time, or the topic does not exist.
    pub async fn describe_partitions(
        &self,
        topic: Option<&str>,
    ) -> Result<Vec<v1::PartitionState>, ApiError> {
        let topic = topic.unwrap_or_default().to_owned();
        let request = v1::DescribePartitionsRequest { topic, local_only: false };
        let called = self.call(None, |node, limit| {
            let request = timed(request.clone(), limit);
            async move { node.cluster().describe_partitions(request).await }
        });
        called.await.result.map(|answer| answer.partitions)
    }

    /// Finds an offset of a partition.
    ///
    /// # Errors
    /// Where the topic or partition does not exist, or nobody answers in time.
    pub async fn list_offset(
        &self,
        topic: &str,
        partition: u32,
        at: ListOffsetAt,
    ) -> Result<Offset, ApiError> {
        let (id, _) = self.resolve(topic).await?;
        let leader = leader_of(&self.map(), PartitionId { topic: id, index: partition });
        let request = v1::ListOffsetRequest {
            topic: topic.to_owned(),
            topic_id: id.to_bytes().to_vec().into(),
            partition,
            routing: v1::Routing::Forward.into(),
            at: Some(match at {
                ListOffsetAt::Earliest => v1::list_offset_request::At::Earliest(true),
                ListOffsetAt::Latest => v1::list_offset_request::At::Latest(true),
                ListOffsetAt::Timestamp(ms) => v1::list_offset_request::At::TimestampMs(ms),
            }),
        };
        let called = self.call(leader.map(|leader| leader.endpoint), |node, limit| {
            let request = timed(request.clone(), limit);
            async move { node.offsets().list_offset(request).await }
        });
        called.await.result.map(|answer| Offset(answer.offset))
    }

    /// A fresh producer id; sequence numbers start at 0 in every partition.
    pub(crate) async fn init_producer(&self) -> Result<ProducerRef, ApiError> {
        let called = self.call(None, |node, limit| async move {
            node.produce().init_producer(timed(v1::InitProducerRequest {}, limit)).await
        });
        let answer = called.await.result?;
        let epoch = i16::try_from(answer.producer_epoch).ok().filter(|epoch| *epoch >= 0);
        match epoch {
            Some(epoch) if answer.producer_id >= 0 => {
                Ok(ProducerRef { id: ProducerId(answer.producer_id), epoch, base_sequence: 0 })
            }
            _ => Err(ApiError::new(ErrorCode::Internal, "a broker sent a bad producer id")),
        }
    }

    /// Waits for the map to follow what a broker said is done; not at all costs, since it is done.
    async fn wait_for_map(&self, mut condition: impl FnMut(&ClusterMap) -> bool) {
        let waited = self.metadata().wait_for(|map| condition(map));
        if timeout(self.config().request_timeout, waited).await.is_err() {
            tracing::warn!("the metadata map does not show a change that a broker reported as done");
        }
    }
}

/// A request that says how long its caller waits.
pub(crate) fn timed<T>(message: T, limit: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mock::{MockCluster, TOPIC};

    #[tokio::test]
    async fn a_topic_made_by_an_attempt_without_answer_counts_as_made() {
        let cluster = MockCluster::start(2, 4).await;
        let client = cluster.client().await;
        let spec = TopicSpec { partitions: 4, ..TopicSpec::default() };
        cluster.topic_error(ErrorCode::Unavailable);
        cluster.topic_error(ErrorCode::TopicExists);
        let id = client.create_topic(TOPIC, spec.clone()).await.unwrap();
        assert_eq!(client.map().topic_named(TOPIC).unwrap().id, id);
        // Without an attempt of doubt, or with other settings, it is somebody else's.
        cluster.topic_error(ErrorCode::TopicExists);
        assert_eq!(client.create_topic(TOPIC, spec).await.unwrap_err().code, ErrorCode::TopicExists);
        cluster.topic_error(ErrorCode::Unavailable);
        cluster.topic_error(ErrorCode::TopicExists);
        let other = client.create_topic(TOPIC, TopicSpec::default()).await;
        assert_eq!(other.unwrap_err().code, ErrorCode::TopicExists);
    }

    #[tokio::test]
    async fn a_dead_broker_does_not_hold_up_calls() {
        let mut cluster = MockCluster::start(3, 1).await;
        let client = cluster.client().await;
        cluster.kill(0);
        for _ in 0..5 {
            assert_ne!(client.describe_cluster().await.unwrap().broker_id, 0);
        }
        assert!(client.describe_partitions(None).await.unwrap().is_empty());
        assert_eq!(client.list_offset(TOPIC, 0, ListOffsetAt::Latest).await.unwrap(), Offset(0));
        assert_eq!(client.delete_topic(TOPIC).await.unwrap_err().code, ErrorCode::UnknownTopic);
    }
}
