//! The controllers as this broker knows them, and calls to whoever leads them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use holdfast_core::{ControllerId, ErrorCode};
use holdfast_proto::internal::v1::controller_service_client::ControllerServiceClient;
use holdfast_proto::transport::{ChannelError, Link, MAX_PEER_MESSAGE, Tls, connect_lazy};
use holdfast_proto::{ApiError, never_sent};
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::Channel;

use crate::config::ControllerEndpoint;

/// A controller that did not answer a heartbeat for this long is shown as unreachable.
const REACHABLE_WITHIN: Duration = Duration::from_secs(1);
/// How long a call looks for a leader.
const LEADER_PATIENCE: Duration = Duration::from_secs(5);
/// How long one controller may take: a dark one must not use up the time in which another could answer.
const ATTEMPT_PATIENCE: Duration = Duration::from_secs(2);
/// Pause before the controllers are asked again.
const LEADER_PAUSE: Duration = Duration::from_millis(50);

pub(crate) type ControllerClient = ControllerServiceClient<Channel>;

/// What a controller said last.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ControllerView {
    pub(crate) answered: Option<Instant>,
    pub(crate) term: u64,
    /// The leader that it knows.
    pub(crate) leader: Option<ControllerId>,
}

impl ControllerView {
    pub(crate) fn is_reachable(&self) -> bool {
        self.answered.is_some_and(|at| at.elapsed() < REACHABLE_WITHIN)
    }
}

/// One controller.
#[derive(Debug)]
pub(crate) struct Controller {
    pub(crate) config: ControllerEndpoint,
    client: ControllerClient,
    view: Mutex<ControllerView>,
}

impl Controller {
    pub(crate) fn client(&self) -> ControllerClient {
        self.client.clone()
    }

    pub(crate) fn view(&self) -> ControllerView {
        *lock(&self.view)
    }

    pub(crate) fn set_view(&self, view: ControllerView) {
        *lock(&self.view) = view;
    }
}

/// All controllers.
#[derive(Debug, Clone)]
pub(crate) struct Controllers {
    all: Arc<[Arc<Controller>]>,
}

impl Controllers {
    pub(crate) fn new(config: &[ControllerEndpoint], tls: Option<&Tls>) -> Result<Controllers, ChannelError> {
        let connect = |config: &ControllerEndpoint| {
            let channel = connect_lazy(&config.endpoint, Link::Peer, tls)?;
            let client = ControllerClient::new(channel)
                .max_decoding_message_size(MAX_PEER_MESSAGE)
                .max_encoding_message_size(MAX_PEER_MESSAGE);
            Ok(Arc::new(Controller { config: config.clone(), client, view: Mutex::default() }))
        };
        let all = config.iter().map(connect).collect::<Result<Vec<_>, ChannelError>>()?;
        Ok(Controllers { all: all.into() })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Controller>> {
        self.all.iter()
    }

    /// The leader that reachable controllers of the highest term name.
    pub(crate) fn leader(&self) -> Option<ControllerId> {
        let views = self.all.iter().map(|controller| controller.view());
        let named = views.filter(|view| view.is_reachable() && view.leader.is_some());
        named.max_by_key(|view| view.term)?.leader
    }

    /// Calls the leader, looking for it where it changed or does not answer. Only for calls that may be repeated: a
    /// controller that dies in the middle of one may have carried it out.
    pub(crate) async fn call_leader<T, F>(
        &self,
        mut call: impl FnMut(ControllerClient) -> F,
    ) -> Result<T, ApiError>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let give_up = Instant::now() + LEADER_PATIENCE;
        // Of an attempt that may have been carried out: from then on giving up leaves the outcome unknown.
        let mut unresolved = None;
        loop {
            for controller in self.leader_first() {
                let error = match timeout(ATTEMPT_PATIENCE, call(controller.client())).await {
                    Ok(Ok(answer)) => return Ok(answer),
                    Ok(Err(status)) if never_sent(&status) => continue,
                    Ok(Err(status)) => ApiError::from_status(&status),
                    Err(_) => silent(&controller.config),
                };
                match error.code {
                    ErrorCode::ControllerUnavailable => {}
                    ErrorCode::Unavailable | ErrorCode::DeadlineExceeded => unresolved = Some(error),
                    _ => return Err(error),
                }
            }
            if Instant::now() >= give_up {
                return Err(unresolved.unwrap_or_else(unavailable));
            }
            tokio::time::sleep(LEADER_PAUSE).await;
        }
    }

    fn leader_first(&self) -> Vec<Arc<Controller>> {
        let leader = self.leader();
        let mut all: Vec<Arc<Controller>> = self.all.to_vec();
        all.sort_by_key(|controller| Some(controller.config.id) != leader);
        all
    }
}

fn silent(controller: &ControllerEndpoint) -> ApiError {
    let ControllerEndpoint { id, endpoint, .. } = controller;
    let message = format!("controller {id} at {endpoint} did not answer within {ATTEMPT_PATIENCE:?}");
    ApiError::new(ErrorCode::DeadlineExceeded, message)
}

fn unavailable() -> ApiError {
    ApiError::new(
        ErrorCode::ControllerUnavailable,
        "no controller quorum answered within 5 s: topics cannot be changed now, existing ones go on; \
         see `holdfast cluster status`",
    )
    .retry_after(Duration::from_secs(1))
}

fn lock(view: &Mutex<ControllerView>) -> MutexGuard<'_, ControllerView> {
    view.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use holdfast_core::ZoneId;

    use super::*;

    fn controllers() -> Controllers {
        let endpoint = |id: u64| ControllerEndpoint {
            id: ControllerId(id),
            zone: ZoneId::new("a"),
            endpoint: format!("127.0.0.1:{id}"),
        };
        let controllers = Controllers::new(&[endpoint(1), endpoint(2)], None).unwrap();
        for controller in controllers.iter() {
            let answered = Some(Instant::now());
            controller.set_view(ControllerView { answered, term: 1, leader: Some(ControllerId(1)) });
        }
        controllers
    }

    /// A controller that was heard a moment ago and dies in the middle of a call may have carried it out: another is
    /// asked, and what it says counts.
    #[tokio::test]
    async fn a_call_that_a_dying_controller_left_open_is_repeated() {
        let attempts = AtomicUsize::new(0);
        let controllers = controllers();
        let answer = controllers
            .call_leader(|_| {
                let attempt = attempts.fetch_add(1, Ordering::Relaxed);
                async move { if attempt == 0 { Err(Status::unavailable("cut")) } else { Ok(attempt) } }
            })
            .await;
        assert_eq!(answer, Ok(1));
    }

    #[tokio::test]
    async fn a_refusal_ends_the_search() {
        let refusal = ApiError::new(ErrorCode::TopicExists, "taken");
        let controllers = controllers();
        let answer = controllers.call_leader(|_| {
            let refusal = refusal.clone().into_status();
            async move { Err::<(), _>(refusal) }
        });
        assert_eq!(answer.await.unwrap_err().code, ErrorCode::TopicExists);
    }

    /// Definite only where no attempt can have been carried out.
    #[tokio::test]
    async fn giving_up_says_whether_it_may_have_happened() {
        let dying = controllers();
        let cut = dying.call_leader(|_| async { Err::<(), _>(Status::unavailable("cut")) });
        let follower = ApiError::new(ErrorCode::ControllerUnavailable, "no leader").into_status();
        let controllers = controllers();
        let none = controllers.call_leader(|_| {
            let follower = follower.clone();
            async move { Err::<(), _>(follower) }
        });
        let (cut, none) = tokio::join!(cut, none);
        assert_eq!(cut.unwrap_err().code, ErrorCode::Unavailable);
        assert_eq!(none.unwrap_err().code, ErrorCode::ControllerUnavailable);
    }
}
