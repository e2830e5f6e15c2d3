//! Room for answers, in bytes: taken before an answer is read, given back once it has been handed to the connection.
//! A client that asks for much and reads little holds its answers back, and its room with them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use holdfast_core::ErrorCode;
use holdfast_proto::ApiError;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tonic::body::Body;
use tonic::{Response, Status};

/// A request waits for room for this long at least, also where its own time is up.
const PATIENCE: Duration = Duration::from_secs(1);

/// Bytes that answers may take.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    bytes: Arc<Semaphore>,
    all: usize,
}

/// A part of the room.
#[derive(Debug)]
pub(crate) struct Held {
    permit: OwnedSemaphorePermit,
}

impl Room {
    pub(crate) fn new(bytes: u64) -> Room {
        let all =
            usize::try_from(bytes).unwrap_or(usize::MAX).min(u32::MAX as usize).min(Semaphore::MAX_PERMITS);
        Room { bytes: Arc::new(Semaphore::new(all)), all }
    }

    /// Waits for room for `bytes`, first come, first served.
    pub(crate) async fn take(&self, bytes: usize, deadline: Instant) -> Result<Held, ApiError> {
        let limit = deadline.max(Instant::now() + PATIENCE);
        let charge = bytes.min(self.all) as u32;
        match timeout_at(limit, Arc::clone(&self.bytes).acquire_many_owned(charge)).await {
            Ok(Ok(permit)) => Ok(Held { permit }),
            _ => Err(ApiError::new(
                ErrorCode::Overloaded,
                "too many bytes are being fetched from this broker: try again, or ask for fewer at once",
            )
            .retry_after(Duration::from_millis(50))),
        }
    }
}

impl Held {
    /// Gives back what an answer of `bytes` does not need.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        let spare = self.permit.num_permits().saturating_sub(bytes);
        drop(self.permit.split(spare));
    }

    /// Goes with the response; see [`hold_until_sent`].
    pub(crate) fn attach<T>(self, response: &mut Response<T>) {
        response.extensions_mut().insert(Arc::new(self));
    }
}

/// What every server does with its responses: room that goes with one is held as long as its body.
pub(crate) fn hold_until_sent(response: http::Response<Body>) -> http::Response<Body> {
    let (mut parts, body) = response.into_parts();
    match parts.extensions.remove::<Arc<Held>>() {
        Some(held) => http::Response::from_parts(parts, Body::new(HeldBody { body, _held: held })),
        None => http::Response::from_parts(parts, body),
    }
}

struct HeldBody {
    body: Body,
    _held: Arc<Held>,
}

impl HttpBody for HeldBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + PATIENCE
    }

    /// A thousand large answers at once would be more than the memory there is: they wait for each other.
    #[tokio::test]
    async fn room_is_held_until_the_body_is_gone_and_waited_for_in_order() {
        let room = Room::new(100);
        let mut first = room.take(80, soon()).await.unwrap();
        first.shrink_to(60);
        let second = room.take(40, soon()).await.unwrap();
        let mut response = Response::new(());
        first.attach(&mut response);
        let (_, (), extensions) = response.into_parts();
        let mut sent = http::Response::new(Body::new("an answer".to_owned()));
        *sent.extensions_mut() = extensions;
        let sent = hold_until_sent(sent);
        let waiting = tokio::spawn({
            let room = room.clone();
            async move { room.take(50, soon()).await }
        });
        tokio::task::yield_now().await;
        drop(second);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "60 bytes are on their way, 50 do not fit");
        drop(sent);
        assert!(waiting.await.unwrap().is_ok());
        assert_eq!(room.bytes.available_permits(), 100);
    }

    #[tokio::test]
    async fn whoever_waits_too_long_is_sent_away_and_an_answer_larger_than_all_passes_alone() {
        let room = Room::new(100);
        let all = room.take(1000, soon()).await.unwrap();
        let refused = room.take(1, Instant::now()).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Overloaded);
        assert!(refused.retry_after.is_some());
        drop(all);
        assert!(room.take(1000, soon()).await.is_ok());
    }
}
