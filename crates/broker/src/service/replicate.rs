//! Messages from other brokers, handed to their partitions.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use holdfast_core::replication::Event;
use holdfast_core::{BrokerId, ErrorCode};
use holdfast_proto::ApiError;
use holdfast_proto::convert::replication::envelope_from_wire;
use holdfast_proto::internal::v1::replication_service_server::ReplicationService;
use holdfast_proto::internal::v1::{PeerFrame, PeerFrameAck, PeerHello};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{ServiceContext, convert_error, invalid};
use crate::partition::Command;

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
            let command = Command::Event(partition, Event::Receive(envelope));
            // Waiting here is what slows the peer down where this broker cannot follow.
            if context.shards.of(partition).send(command).await.is_err() {
                return Ok(()); // this broker is ending
            }
        }
    }
    Ok(())
}
