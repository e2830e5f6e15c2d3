//! The controllers as this broker knows them, and calls to whoever leads them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use holdfast_core::{ControllerId, ErrorCode};
use holdfast_proto::ApiError;
use holdfast_proto::internal::v1::controller_service_client::ControllerServiceClient;
use holdfast_proto::transport::{ChannelError, Link, MAX_PEER_MESSAGE, Tls, connect_lazy};
use tonic::Status;
use tonic::transport::Channel;

use crate::config::ControllerEndpoint;

/// A controller that did not answer a heartbeat for this long is shown as unreachable.
const REACHABLE_WITHIN: Duration = Duration::from_secs(1);
/// How long a call looks for a leader.
const LEADER_PATIENCE: Duration = Duration::from_secs(5);
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

    /// Calls the leader, looking for it where it changed. Only for calls that a controller refuses before it does
    /// anything, which it says with CONTROLLER_UNAVAILABLE.
    pub(crate) async fn call_leader<T, F>(
        &self,
        mut call: impl FnMut(ControllerClient) -> F,
    ) -> Result<T, ApiError>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let give_up = Instant::now() + LEADER_PATIENCE;
        loop {
            for controller in self.leader_first() {
                match call(controller.client()).await {
                    Ok(answer) => return Ok(answer),
                    Err(status) => {
                        let error = ApiError::from_status(&status);
                        // A dead controller did nothing either: its connection was never made.
                        let refused = matches!(error.code, ErrorCode::ControllerUnavailable)
                            || (error.code == ErrorCode::Unavailable && !controller.view().is_reachable());
                        if !refused {
                            return Err(error);
                        }
                    }
                }
            }
            if Instant::now() >= give_up {
                return Err(unavailable());
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
