//! Topics, state and offsets: unary calls with a deadline, retried over brokers.

use std::time::Duration;

use holdfast_core::metadata::{ClusterMap, TopicChange, TopicSpec};
use holdfast_core::record_batch::ProducerRef;
use holdfast_core::{ErrorCode, Offset, PartitionId, ProducerId, TopicId};
use holdfast_proto::convert::metadata::{
    compaction_to_wire, durability_to_wire, retention_to_wire, topic_change_to_wire,
};
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
            retention: Some(retention_to_wire(spec.retention)),
            compaction: spec.compaction.map(compaction_to_wire),
            // The same in every attempt: one of which no answer came may have created it.
            topic_id: TopicId(rand::random()).to_bytes().to_vec().into(),
        };
        let called = self
            .call(None, |node, limit| {
                let request = timed(request.clone(), limit);
                async move { node.topics().create_topic(request).await }
            })
            .await;
        let id = TopicId::from_bytes(&called.result?.topic_id)
            .ok_or_else(|| ApiError::new(ErrorCode::Internal, "a broker sent a bad topic id"))?;
        self.wait_for_map(|map| map.topic(id).is_some()).await;
        Ok(id)
    }

    /// Changes how much of a topic is kept, and how it is compacted, and waits until this client's map says so. What is kept
    /// no longer goes within seconds; what compaction removes, when it is the partition's turn.
    ///
    /// # Errors
    /// As the broker gives them: then nothing is changed. An indefinite one means that it may be.
    pub async fn alter_topic(&self, name: &str, change: TopicChange) -> Result<(), ApiError> {
        let known = self.map().topic_named(name).map(|topic| topic.id);
        let topic_id = known.map_or_else(Vec::new, |id| id.to_bytes().to_vec()).into();
        let request = v1::AlterTopicRequest { topic_id, ..topic_change_to_wire(name, change) };
        let called = self
            .call(None, |node, limit| {
                let request = timed(request.clone(), limit);
                async move { node.topics().alter_topic(request).await }
            })
            .await;
        called.result?;
        if let Some(id) = known {
            let changed = |spec: &TopicSpec| change.applied_to(spec) == *spec;
            self.wait_for_map(|map| map.topic(id).is_none_or(|topic| changed(&topic.spec))).await;
        }
        Ok(())
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
        self.describe_brokers(topic).await.map(|answer| answer.partitions)
    }

    /// The same, and how the brokers that answer stand.
    ///
    /// # Errors
    /// Where no broker answers in time, or the topic does not exist.
    pub async fn describe_brokers(
        &self,
        topic: Option<&str>,
    ) -> Result<v1::DescribePartitionsResponse, ApiError> {
        let topic = topic.unwrap_or_default().to_owned();
        let request = v1::DescribePartitionsRequest { topic, local_only: false };
        let called = self.call(None, |node, limit| {
            let request = timed(request.clone(), limit);
            async move { node.cluster().describe_partitions(request).await }
        });
        called.await.result
    }

    /// What befell the cluster lately, newest first, as the controllers that can be reached have recorded it; up to
    /// `limit` events, of at most 1000.
    ///
    /// # Errors
    /// Where no broker answers in time. That no controller did is no error: the answer names those that did.
    pub async fn list_events(&self, limit: u32) -> Result<v1::ListEventsResponse, ApiError> {
        let called = self.call(None, |node, call_limit| async move {
            node.cluster().list_events(timed(v1::ListEventsRequest { limit }, call_limit)).await
        });
        called.await.result
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
    async fn every_attempt_to_create_a_topic_names_the_same_id() {
        let cluster = MockCluster::start(2, 4).await;
        let client = cluster.client().await;
        let spec = TopicSpec { partitions: 4, ..TopicSpec::default() };
        cluster.topic_error(ErrorCode::Unavailable);
        let id = client.create_topic(TOPIC, spec.clone()).await.unwrap();
        assert_eq!(client.map().topic_named(TOPIC).unwrap().id, id);
        let asked = cluster.topics_asked();
        assert!(asked.len() == 2 && asked[0] == asked[1] && asked[0].len() == 16, "{asked:?}");
        // A name that is taken is taken by somebody else, whatever happened before.
        cluster.topic_error(ErrorCode::Unavailable);
        cluster.topic_error(ErrorCode::TopicExists);
        assert_eq!(client.create_topic(TOPIC, spec).await.unwrap_err().code, ErrorCode::TopicExists);
        assert_ne!(cluster.topics_asked()[2], asked[0], "another topic has another id");
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
