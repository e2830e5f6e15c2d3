//! Messages from other brokers, handed to their partitions.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use holdfast_core::replication::{Envelope, Event};
use holdfast_core::{BrokerId, ErrorCode, PartitionId};
use holdfast_proto::ApiError;
use holdfast_proto::convert::replication::envelope_from_wire;
use holdfast_proto::internal::v1::replication_service_server::ReplicationService;
use holdfast_proto::internal::v1::{PeerFrame, PeerFrameAck, PeerHello};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{ServiceContext, convert_error, invalid};
use crate::partition::{Command, ShardSender};
use crate::peers::size_of;

/// Bytes of other brokers' messages that wait at the shards. Enough to keep links busy that take a flush's time to be
/// answered; little enough that a fence behind them is not late.
pub(crate) const PEER_ROOM: usize = 32 << 20;

/// `ReplicationService`.
pub(crate) struct ReplicationApi {
    pub(crate) context: Arc<ServiceContext>,
}

#[tonic::async_trait]
impl ReplicationService for ReplicationApi {
    type ExchangeStream = Pin<Box<dyn Stream<Item = Result<PeerFrameAck, Status>> + Send>>;

    async fn exchange(
        &self,
        request: Request<Streaming<PeerFrame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let mut frames = request.into_inner();
        let first = frames.message().await?.and_then(|frame| frame.hello);
        let peer = self.welcome(first.ok_or_else(|| invalid("the first frame of a stream says hello"))?)?;
        // Only the end of the stream is ever sent on it: the sender is dropped when the peer's messages end.
        let (answers, receiver) = mpsc::channel(1);
        let context = Arc::clone(&self.context);
        tokio::spawn(async move {
            let taken = tokio::select! {
                taken = take(&context, peer, &mut frames) => taken,
                () = context.produce_ended() => Ok(()),
            };
            if let Err(status) = taken {
                tracing::warn!(broker = %peer, %status, "stream from broker ended");
                // An error says that the peer is gone.
                let _ = answers.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

impl ReplicationApi {
    fn welcome(&self, hello: PeerHello) -> Result<BrokerId, ApiError> {
        if hello.cluster == self.context.cluster {
            return Ok(BrokerId(hello.broker_id));
        }
        Err(ApiError::new(
            ErrorCode::WrongCluster,
            format!(
                "broker {} of cluster {:?} called a broker of cluster {:?}: check its configuration",
                hello.broker_id, hello.cluster, self.context.cluster
            ),
        ))
    }
}

async fn take(
    context: &ServiceContext,
    peer: BrokerId,
    frames: &mut Streaming<PeerFrame>,
) -> Result<(), Status> {
    while let Some(frame) = frames.message().await? {
        for message in frame.messages {
            let (partition, envelope) = envelope_from_wire(message).map_err(|error| convert_error(&error))?;
            if envelope.from.broker != peer {
                return Err(invalid("a broker speaks for itself only").into());
            }
            if !hand_over(&context.peer_room, context.shards.of(partition), partition, envelope).await {
                return Ok(()); // this broker is ending
            }
        }
    }
    Ok(())
}

/// Waits for room, in bytes and in the shard's queue: that slows the peer down where this broker cannot follow, because
/// its stream is not read on meanwhile. `false` where the shard has ended.
async fn hand_over(
    room: &Arc<Semaphore>,
    shard: &ShardSender,
    partition: PartitionId,
    envelope: Envelope,
) -> bool {
    // A message larger than all the room passes alone.
    let charge = size_of(&envelope).min(PEER_ROOM) as u32;
    let Ok(room) = Arc::clone(room).acquire_many_owned(charge).await else { return false };
    let event = Event::Receive(envelope);
    shard.send(Command::Charged { partition, event, _room: room }).await.is_ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use holdfast_core::record_batch::RecordBatchBuilder;
    use holdfast_core::replication::{Message, Position};
    use holdfast_core::{DirId, LeaderEpoch, Offset, ReplicaId, TopicId};

    use super::*;
    use crate::partition::shard_queue;

    const PARTITION: PartitionId = PartitionId { topic: TopicId(1), index: 0 };

    fn data(bytes: usize) -> Envelope {
        let mut builder = RecordBatchBuilder::new();
        builder.push(0, None, Some(&vec![0; bytes]), &[]).unwrap();
        let replica = |broker| ReplicaId { broker: BrokerId(broker), dir: DirId(1) };
        let message = Message::Data {
            echo: Position { epoch: LeaderEpoch::ZERO, end: Offset::ZERO },
            batches: vec![builder.build(None).unwrap()],
            high_watermark: Offset::ZERO,
            durable_high_watermark: Offset::ZERO,
            log_end_offset: Offset::ZERO,
            log_start_offset: Offset::ZERO,
            tombstones_gone_below: Offset::ZERO,
            incarnation: None,
        };
        Envelope { from: replica(1), to: replica(2), epoch: LeaderEpoch::ZERO, message }
    }

    /// A shard that does not keep up holds a bounded number of bytes, however few messages they are, and the peer's
    /// stream goes on as soon as it does.
    #[tokio::test]
    async fn what_waits_at_a_shard_is_bounded_by_bytes() {
        let room = Arc::new(Semaphore::new(PEER_ROOM));
        let (shard, mut queue) = shard_queue();
        let size = PEER_ROOM / 4;
        let mut taken = 0;
        let full = loop {
            let mut hand_over = Box::pin(hand_over(&room, &shard, PARTITION, data(size)));
            if tokio::time::timeout(Duration::from_millis(50), &mut hand_over).await.is_err() {
                break hand_over;
            }
            taken += 1;
        };
        assert_eq!(taken, 3, "a fourth one with its overhead does not fit");
        drop(queue.recv().await);
        assert!(full.await, "room for one more");
        // Larger than everything: it waits until it is alone, and passes.
        let huge = tokio::spawn({
            let (room, shard) = (Arc::clone(&room), shard.clone());
            async move { hand_over(&room, &shard, PARTITION, data(2 * PEER_ROOM)).await }
        });
        for _ in 0..3 {
            drop(queue.recv().await);
        }
        assert!(huge.await.unwrap());
        drop(queue);
        assert!(!hand_over(&room, &shard, PARTITION, data(1)).await, "the shard has ended");
    }
}
