//! The cluster's metadata as this client knows it. A map is adopted complete or refused (META-4); what was adopted last
//! stays in use until a newer one is.

mod follower;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdfast_core::metadata::ClusterMap;
use holdfast_proto::ApiError;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::routing::Router;
use crate::sync::lock;
use follower::Follower;

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
        let (doubt, last_error) = (metadata.doubt.clone(), metadata.last_error.clone());
        let follower = Follower::new(router, max_age, sender, doubt, last_error);
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

#[cfg(test)]
mod tests {
    use holdfast_core::ErrorCode;
    use tokio::time::{Instant, timeout};

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

    /// No request doubts the map, and no keepalive has run out: the other stream alone brings the news.
    #[tokio::test]
    async fn a_stream_that_falls_silent_keeps_no_news_back() {
        let cluster = MockCluster::start(3, 1).await;
        let client = cluster.client().await;
        eventually("a second stream", || cluster.watched().len() == 2).await;
        let watched = cluster.watched();
        assert_ne!(watched[0], watched[1], "two streams to one broker prove nothing");
        for silent in watched {
            cluster.map_fault(silent, Some(MapFault::Silent));
            let before = client.map().index();
            let published = Instant::now();
            cluster.publish();
            eventually("the update", || client.map().index() > before).await;
            assert!(published.elapsed() < Duration::from_millis(500), "took {:?}", published.elapsed());
            cluster.map_fault(silent, None);
        }
    }

    #[tokio::test]
    async fn one_broker_gets_one_stream() {
        let mut cluster = MockCluster::start(2, 1).await;
        cluster.kill(1);
        let client = Client::builder().bootstrap([cluster.endpoints()[0].clone()]).connect().await.unwrap();
        tokio::time::sleep(2 * follower::STANDBY_AFTER).await;
        assert_eq!(cluster.watched(), [0]);
        assert_eq!(client.map().brokers().count(), 2);
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
