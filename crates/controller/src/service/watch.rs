//! The map and its changes, for brokers.
//!
//! Updates wait in one bounded queue that all watchers read. One that falls behind its end gets a fresh snapshot: it
//! never costs memory, and never misses a state.

use std::sync::Arc;

use futures::Stream;
use holdfast_proto::v1::MetadataUpdate;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tonic::Status;

use crate::store::serving::Serving;

type Updates = broadcast::Receiver<Arc<MetadataUpdate>>;

/// A snapshot as soon as there is a map, then every update in order.
pub(crate) fn updates(serving: Arc<Serving>) -> impl Stream<Item = Result<MetadataUpdate, Status>> {
    futures::stream::unfold((serving, None::<Updates>), async |(serving, mut updates)| {
        loop {
            let Some(queue) = &mut updates else {
                serving.ready().await;
                let (snapshot, queue) = serving.watch();
                return Some((Ok(snapshot), (serving, Some(queue))));
            };
            match queue.recv().await {
                Ok(update) => return Some((Ok(Arc::unwrap_or_clone(update)), (serving, updates))),
                Err(RecvError::Lagged(missed)) => {
                    tracing::debug!(missed, "a watcher of metadata lags behind and gets a snapshot");
                    updates = None;
                }
                Err(RecvError::Closed) => return None,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use holdfast_core::metadata::{BrokerRegistration, ClusterMap, Command, Metadata};
    use holdfast_core::{BrokerId, DirId, Incarnation, ZoneId};
    use holdfast_proto::convert::metadata::update_from_wire;

    use super::*;

    fn register(serving: &Serving, index: u64) {
        let command = Command::RegisterBroker(BrokerRegistration {
            id: BrokerId(1),
            zone: ZoneId::new("a"),
            dir: DirId(1),
            incarnation: Incarnation(index),
            client_endpoint: "b:1".into(),
            peer_endpoint: "b:2".into(),
        });
        serving.apply(index, &command).0.unwrap();
    }

    #[tokio::test]
    async fn a_slow_watcher_gets_a_snapshot_and_ends_with_the_same_map() {
        let serving = Arc::new(Serving::new(Metadata::default(), true));
        let mut stream = Box::pin(updates(Arc::clone(&serving)));
        let mut map = ClusterMap::default();
        let first = stream.next().await.unwrap().unwrap();
        assert!(first.snapshot);
        for index in 1..=1000 {
            register(&serving, index);
        }
        let mut taken = 0;
        while map.index() < 1000 {
            let update = stream.next().await.unwrap().unwrap();
            assert!(taken > 0 || update.snapshot, "after a lag comes a snapshot");
            map.adopt(&update_from_wire(update).unwrap()).unwrap();
            taken += 1;
        }
        assert_eq!(taken, 1);
        register(&serving, 1001);
        let update = stream.next().await.unwrap().unwrap();
        assert_eq!((update.snapshot, update.base_index, update.index), (false, 1000, 1001));
        map.adopt(&update_from_wire(update).unwrap()).unwrap();
        serving.with_map(|served| assert_eq!(*served, map));
    }
}
