//! Follows the cluster's metadata: one stream to one broker, and to another when it ends, falls silent, lies or is
//! doubted. A map is adopted complete or refused (META-4); what was adopted last stays in use until a newer one is.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdfast_core::ErrorCode;
use holdfast_core::metadata::ClusterMap;
use holdfast_proto::convert::metadata::update_from_wire;
use holdfast_proto::{ApiError, v1};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use crate::retry::{Backoff, jitter};
use crate::routing::Router;
use crate::sync::lock;

/// A broker that does not send a map within this time is left for another.
const FIRST_UPDATE: Duration = Duration::from_secs(2);
/// A doubted stream is replaced no more often than this, and half as often after each time that brought no newer map:
/// an incident, or a slow cluster, must not become a storm of snapshots.
const DOUBT_INTERVAL: Duration = Duration::from_secs(2);
/// Doublings of the interval, up to half a minute.
const DOUBT_DOUBLINGS: u32 = 4;
/// A doubt waits for up to this long whether an update settles it.
const DOUBT_JITTER: Duration = Duration::from_millis(300);

/// The newest complete map, and the way to say that it seems wrong.
#[derive(Debug, Clone)]
pub(crate) struct Metadata {
    map: watch::Receiver<Arc<ClusterMap>>,
    doubt: Arc<Notify>,
    last_error: Arc<Mutex<Option<(String, ApiError)>>>,
}

impl Metadata {
    /// Starts to follow; ends with `cancel`.
    pub(crate) fn follow(router: Arc<Router>, max_age: Duration, cancel: CancellationToken) -> Metadata {
        let (sender, map) = watch::channel(Arc::default());
        let metadata = Metadata { map, doubt: Arc::default(), last_error: Arc::default() };
        let follower = Follower {
            router,
            max_age,
            map: sender,
            doubt: metadata.doubt.clone(),
            last_error: metadata.last_error.clone(),
        };
        tokio::spawn(async move {
            tokio::select! {
                () = follower.run() => {}
                () = cancel.cancelled() => {}
            }
        });
        metadata
    }

    /// The newest map. Empty until a first one was adopted.
    pub(crate) fn map(&self) -> Arc<ClusterMap> {
        self.map.borrow().clone()
    }

    /// For waiting on changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<ClusterMap>> {
        self.map.clone()
    }

    /// Says that requests fail where the map sends them. Another broker is asked unless an update comes soon.
    pub(crate) fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// The address that failed last, and why.
    pub(crate) fn last_error(&self) -> Option<(String, ApiError)> {
        lock(&self.last_error).clone()
    }

    /// Waits until the map satisfies `condition`; `None` where the follower has ended.
    pub(crate) async fn wait_for(&self, condition: impl FnMut(&Arc<ClusterMap>) -> bool) -> Option<()> {
        self.watch().wait_for(condition).await.ok().map(|_| ())
    }
}

/// Why a stream was left.
enum Left {
    /// It failed or was refused.
    Failed(ApiError),
    /// It may be out of date.
    Doubted,
}

struct Follower {
    router: Arc<Router>,
    max_age: Duration,
    map: watch::Sender<Arc<ClusterMap>>,
    doubt: Arc<Notify>,
    last_error: Arc<Mutex<Option<(String, ApiError)>>>,
}

impl Follower {
    async fn run(self) {
        let mut backoff = Backoff::default();
        let mut failures = 0;
        let mut fruitless = 0;
        let mut doubt_from = Instant::now();
        loop {
            let order = self.router.order();
            let Some(endpoint) = order.first() else { return };
            let before = self.map.borrow().index();
            let left = self.follow(endpoint, doubt_from).await;
            // The next address is another one, as long as there is another one.
            self.router.demote(endpoint);
            if self.map.borrow().index() > before {
                backoff.reset();
                (failures, fruitless) = (0, 0);
            } else if matches!(left, Left::Doubted) {
                fruitless = (fruitless + 1).min(DOUBT_DOUBLINGS);
            }
            if matches!(left, Left::Doubted) {
                doubt_from = Instant::now() + DOUBT_INTERVAL * (1 << fruitless);
            }
            let Left::Failed(error) = left else { continue };
            tracing::debug!(%endpoint, %error, "metadata stream ended");
            *lock(&self.last_error) = Some((endpoint.clone(), error));
            failures += 1;
            // One round over all addresses without a pause: a zone that died takes some of them along.
            if failures >= order.len() {
                tokio::time::sleep(backoff.next_delay(None)).await;
            }
        }
    }

    /// Stays with one broker; doubts do not count before `doubt_from`.
    async fn follow(&self, endpoint: &str, doubt_from: Instant) -> Left {
        let mut stream = match timeout(FIRST_UPDATE, self.open(endpoint)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Left::Failed(error),
            Err(_) => return Left::Failed(silent(endpoint)),
        };
        let opened = Instant::now();
        let mut last_update = None;
        let mut doubted = None;
        loop {
            let limit = last_update.map_or(opened + FIRST_UPDATE, |at: Instant| at + self.max_age);
            let doubt_ends = doubted.unwrap_or(limit);
            tokio::select! {
                message = stream.message() => match message {
                    Ok(Some(update)) => match self.adopt(update) {
                        Ok(newer) => {
                            last_update = Some(Instant::now());
                            doubted = doubted.filter(|_| !newer);
                        }
                        Err(error) => return Left::Failed(error),
                    },
                    Ok(None) => return Left::Failed(ended(endpoint)),
                    Err(status) => return Left::Failed(ApiError::from_status(&status)),
                },
                () = self.doubt.notified(), if doubted.is_none() => {
                    doubted = Some(doubt_from.max(Instant::now()) + jitter(DOUBT_JITTER));
                }
                () = tokio::time::sleep_until(limit.min(doubt_ends)) => {
                    return if last_update.is_none() { Left::Failed(silent(endpoint)) } else { Left::Doubted };
                }
            }
        }
    }

    async fn open(&self, endpoint: &str) -> Result<Streaming<v1::MetadataUpdate>, ApiError> {
        let mut cluster = self.router.node(endpoint)?.cluster();
        let response = cluster.watch_metadata(v1::WatchMetadataRequest {}).await;
        response.map(tonic::Response::into_inner).map_err(|status| ApiError::from_status(&status))
    }

    /// Publishes the map after `update`, if it is newer; says whether it is.
    fn adopt(&self, update: v1::MetadataUpdate) -> Result<bool, ApiError> {
        let refused = |error: &dyn std::fmt::Display| {
            tracing::warn!(%error, "metadata update refused");
            ApiError::new(ErrorCode::MetadataIncomplete, error.to_string())
        };
        let update = update_from_wire(update).map_err(|error| refused(&error))?;
        let mut next = ClusterMap::clone(&self.map.borrow());
        let newer = next.adopt(&update).map_err(|error| refused(&error))?;
        if newer {
            self.router.learn(&next);
            self.map.send_replace(Arc::new(next));
        }
        Ok(newer)
    }
}

fn silent(endpoint: &str) -> ApiError {
    ApiError::new(ErrorCode::Unavailable, format!("{endpoint} sent no metadata map in time"))
}

fn ended(endpoint: &str) -> ApiError {
    ApiError::new(ErrorCode::Unavailable, format!("{endpoint} ended the metadata stream"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mock::{MapFault, MockCluster, eventually};
    use crate::{Client, ConnectError};

    #[tokio::test]
    async fn a_partial_map_is_refused_and_another_broker_asked() {
        let cluster = MockCluster::start(2, 3).await;
        cluster.map_fault(0, Some(MapFault::Partial));
        for _ in 0..5 {
            let client = cluster.client().await;
            assert_eq!(client.map().entry_count(), 2 + 1 + 3);
        }
        assert!(cluster.watched().contains(&1));
    }

    #[tokio::test]
    async fn without_a_complete_map_there_is_no_client() {
        let cluster = MockCluster::start(1, 1).await;
        cluster.map_fault(0, Some(MapFault::Partial));
        let builder = Client::builder().bootstrap(cluster.endpoints());
        let error = builder.connect_timeout(Duration::from_millis(300)).connect().await.unwrap_err();
        let ConnectError::Unreachable { source, .. } = error else { panic!("{error}") };
        assert_eq!(source.code, ErrorCode::MetadataIncomplete);
    }

    #[tokio::test]
    async fn a_silent_broker_is_left() {
        let cluster = MockCluster::start(2, 1).await;
        cluster.map_fault(0, Some(MapFault::Silent));
        for _ in 0..2 {
            assert_eq!(cluster.client().await.map().brokers().count(), 2);
        }
    }

    #[tokio::test]
    async fn updates_arrive_and_survive_the_broker_that_sent_them() {
        let mut cluster = MockCluster::start(3, 1).await;
        let client = cluster.client().await;
        let first = client.map().index();
        cluster.publish();
        eventually("the update", || client.map().index() > first).await;
        let watched = *cluster.watched().last().unwrap();
        cluster.kill(watched);
        cluster.publish();
        eventually("the update from another broker", || client.map().index() > first + 1).await;
    }

    #[tokio::test]
    async fn a_doubted_broker_is_replaced() {
        let cluster = MockCluster::start(2, 1).await;
        let client = cluster.client().await;
        let first = cluster.watched()[0];
        client.metadata().doubt();
        eventually("the other broker being asked", || cluster.watched().contains(&(1 - first))).await;
    }

    #[tokio::test]
    async fn every_bootstrap_address_is_tried() {
        let cluster = MockCluster::start(1, 1).await;
        // Ports 1 and 2 of this machine answer nobody.
        let bootstrap = ["127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned(), cluster.endpoints()[0].clone()];
        let client = Client::builder().bootstrap(bootstrap).connect().await.unwrap();
        assert_eq!(client.map().brokers().count(), 1);
        let error = Client::builder().bootstrap(["nonsense"]).connect().await.unwrap_err();
        assert!(error.to_string().contains("not of the form host:port"), "{error}");
    }

    #[tokio::test]
    async fn tasks_end_with_the_client() {
        let cluster = MockCluster::start(1, 1).await;
        let client = cluster.client().await;
        let mut map = client.watch_map();
        drop(client);
        let ended = timeout(Duration::from_secs(5), async { while map.changed().await.is_ok() {} });
        ended.await.expect("the follower ends");
    }
}
