//! An operator's orders about partitions.
//!
//! An order is made on the register as this client's map has it: where that has changed meanwhile, it is refused with
//! CONFLICTING_CHANGE.

use holdfast_core::{BrokerId, ErrorCode, PartitionId, Term};
use holdfast_proto::{ApiError, v1};

use crate::Client;
use crate::admin::timed;

impl Client {
    /// Has the replicas of a partition move to these brokers; the first is where it is at home. Answers when the new
    /// ones begin to catch up. The map shows the rest: `Register::target`, then `prev`, then neither.
    ///
    /// # Errors
    /// As the controllers give them: brokers that are unknown or break the zone rule, another move under way.
    pub async fn move_replicas(
        &self,
        topic: &str,
        partition: u32,
        brokers: &[BrokerId],
    ) -> Result<(), ApiError> {
        let named = self.order(topic, partition).await?;
        let brokers = brokers.iter().map(|broker| broker.0).collect();
        let request = v1::MoveReplicasRequest { partition: Some(named), brokers };
        let called = self.call(None, |node, limit| {
            let request = timed(request.clone(), limit);
            async move { node.partitions().move_replicas(request).await }
        });
        called.await.result.map(drop)
    }

    /// Calls a move of replicas off.
    ///
    /// # Errors
    /// As the controllers give them. CONFLICTING_CHANGE where nothing moves.
    pub async fn cancel_move(&self, topic: &str, partition: u32) -> Result<(), ApiError> {
        let named = self.order(topic, partition).await?;
        let request = v1::CancelMoveRequest { partition: Some(named) };
        let called = self.call(None, |node, limit| {
            let request = timed(request.clone(), limit);
            async move { node.partitions().cancel_move(request).await }
        });
        called.await.result.map(drop)
    }

    /// Has a broker lead a partition, and says in which term.
    ///
    /// # Errors
    /// As the controllers give them: the broker has to be a live member of the replica set that is not about to stop.
    pub async fn move_leader(&self, topic: &str, partition: u32, broker: BrokerId) -> Result<Term, ApiError> {
        let named = self.order(topic, partition).await?;
        let request = v1::MoveLeaderRequest { partition: Some(named), broker: broker.0 };
        let called = self.call(None, |node, limit| {
            let request = timed(request.clone(), limit);
            async move { node.partitions().move_leader(request).await }
        });
        called.await.result.map(|answer| Term(answer.term))
    }

    /// Has a partition recover from replicas that may have forgotten what they acknowledged, or from those that are left
    /// where the disks of a majority are lost (rule R37), led by `leader` or by the first live member that still has its
    /// data. Acknowledged records that no majority has on disk may be lost by it. Says which term it is and who leads.
    ///
    /// # Errors
    /// As the controllers give them. Refused where the partition takes records.
    pub async fn recover_unclean(
        &self,
        topic: &str,
        partition: u32,
        leader: Option<BrokerId>,
        ordered_by: &str,
    ) -> Result<(Term, BrokerId), ApiError> {
        let named = self.order(topic, partition).await?;
        let broker = leader.map_or(0, |leader| leader.0);
        let ordered_by = ordered_by.to_owned();
        let request = v1::RecoverUncleanRequest { partition: Some(named), broker, ordered_by };
        let called = self.call(None, |node, limit| {
            let request = timed(request.clone(), limit);
            async move { node.partitions().recover_unclean(request).await }
        });
        called.await.result.map(|answer| (Term(answer.term), BrokerId(answer.broker)))
    }

    /// The partition as this client knows it.
    async fn order(&self, topic: &str, index: u32) -> Result<v1::PartitionRef, ApiError> {
        let (id, _) = self.resolve(topic).await?;
        let map = self.map();
        let known = map.partition(PartitionId { topic: id, index }).ok_or_else(|| {
            let message = format!("topic {topic:?} has no partition {index}");
            ApiError::new(ErrorCode::UnknownPartition, message)
        })?;
        Ok(v1::PartitionRef {
            topic: topic.to_owned(),
            topic_id: id.to_bytes().to_vec().into(),
            partition: index,
            expected_term: known.register.term.0,
        })
    }
}
