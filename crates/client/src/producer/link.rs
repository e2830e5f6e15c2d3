//! One AppendStream to one broker. It opens while requests already wait in it, and is never reused after a failure.

use std::sync::Arc;

use futures::future::BoxFuture;
use holdfast_core::ErrorCode;
use holdfast_proto::{ApiError, v1};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming};

use crate::retry::Failure;
use crate::routing::{Node, Target};

type Answer = v1::AppendStreamResponse;

/// An open, or opening, stream.
pub(super) struct Link {
    pub(super) target: Target,
    pub(super) node: Arc<Node>,
    /// When it was opened or last answered.
    pub(super) last_answer: Instant,
    requests: mpsc::Sender<v1::AppendStreamRequest>,
    answers: Answers,
}

enum Answers {
    Opening(BoxFuture<'static, Result<Response<Streaming<Answer>>, Status>>),
    Open(Box<Streaming<Answer>>),
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Link {
    /// Opens a stream that takes `capacity` requests ahead of the network. Room for the in-flight limit is enough: a
    /// request that is answered has left the queue.
    pub(super) fn open(node: Arc<Node>, target: Target, capacity: usize) -> Link {
        let (requests, queue) = mpsc::channel(capacity);
        let mut service = node.produce();
        let opening = async move { service.append_stream(ReceiverStream::new(queue)).await };
        Link {
            target,
            node,
            last_answer: Instant::now(),
            requests,
            answers: Answers::Opening(Box::pin(opening)),
        }
    }

    /// Queues a request; `false` where the stream has ended.
    pub(super) fn send(&self, request: v1::AppendStreamRequest) -> bool {
        self.requests.try_send(request).is_ok()
    }

    /// The next answer. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Result<Answer, Failure> {
        if let Answers::Opening(opening) = &mut self.answers {
            let stream = opening.await?;
            self.answers = Answers::Open(Box::new(stream.into_inner()));
        }
        let Answers::Open(stream) = &mut self.answers else { return Err(ended()) };
        match stream.message().await {
            Ok(Some(answer)) => {
                self.last_answer = Instant::now();
                Ok(answer)
            }
            Ok(None) => Err(ended()),
            Err(status) => Err(status.into()),
        }
    }
}

fn ended() -> Failure {
    Failure::reached(ApiError::new(ErrorCode::Unavailable, "the leader ended the stream"))
}
