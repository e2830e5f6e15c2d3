//! The metadata that this controller has applied, for everybody to read, and its updates for watchers.
//!
//! Invariant: updates are published under the write lock. Whoever takes a snapshot and subscribes under the read lock
//! therefore misses none and gets none twice.

use std::sync::{Arc, PoisonError, RwLock};

use holdfast_core::metadata::{Applied, ClusterMap, Command, Metadata, MetadataError, Update};
use holdfast_proto::convert::metadata::update_to_wire;
use holdfast_proto::v1::MetadataUpdate;
use tokio::sync::{broadcast, watch};

/// Updates that a watcher may lag behind; one that lags further gets a snapshot instead.
const QUEUE: usize = 64;

/// Shared by the state machine, which writes, and all others, who read.
#[derive(Debug)]
pub(crate) struct Serving {
    metadata: RwLock<Metadata>,
    updates: broadcast::Sender<Arc<MetadataUpdate>>,
    /// Whether anything was ever applied: before, an empty map says nothing.
    ready: watch::Sender<bool>,
}

impl Serving {
    /// Begins with `metadata`; `ready` where it comes from an applied log.
    pub(crate) fn new(metadata: Metadata, ready: bool) -> Self {
        Serving {
            metadata: RwLock::new(metadata),
            updates: broadcast::Sender::new(QUEUE),
            ready: watch::Sender::new(ready),
        }
    }

    /// Looks at the map. Keep it short: `apply` waits.
    pub(crate) fn with_map<T>(&self, look: impl FnOnce(&ClusterMap) -> T) -> T {
        look(self.read().map())
    }

    /// A copy of everything.
    pub(crate) fn metadata(&self) -> Metadata {
        self.read().clone()
    }

    /// Looks at everything.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&Metadata) -> T) -> T {
        look(&self.read())
    }

    /// Applies a command and tells the watchers.
    pub(crate) fn apply(
        &self,
        index: u64,
        command: &Command,
    ) -> (Result<Applied, MetadataError>, Option<Update>) {
        let mut metadata = self.metadata.write().unwrap_or_else(PoisonError::into_inner);
        let (result, update) = metadata.apply(index, command);
        if let Some(update) = &update {
            self.publish(update);
        }
        (result, update)
    }

    /// Replaces everything and gives the watchers a snapshot.
    pub(crate) fn replace(&self, replacement: Metadata) {
        let mut metadata = self.metadata.write().unwrap_or_else(PoisonError::into_inner);
        *metadata = replacement;
        self.publish(&metadata.map().snapshot());
    }

    fn publish(&self, update: &Update) {
        // An error only says that nobody watches.
        let _ = self.updates.send(Arc::new(update_to_wire(update)));
    }

    /// Says that the log has been applied.
    pub(crate) fn set_ready(&self) {
        self.ready.send_if_modified(|ready| !std::mem::replace(ready, true));
    }

    /// Waits until something was applied.
    pub(crate) async fn ready(&self) {
        // The sender lives as long as `self`.
        let _ = self.ready.subscribe().wait_for(|&ready| ready).await;
    }

    /// The whole map, and every update after it.
    pub(crate) fn watch(&self) -> (MetadataUpdate, broadcast::Receiver<Arc<MetadataUpdate>>) {
        let metadata = self.read();
        let updates = self.updates.subscribe();
        (update_to_wire(&metadata.map().snapshot()), updates)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Metadata> {
        // `Metadata::apply` is total; a panic elsewhere cannot leave it half changed.
        self.metadata.read().unwrap_or_else(PoisonError::into_inner)
    }
}
