//! What the rest of the broker sees of its partitions.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use holdfast_core::replication::ReplicaStatus;
use holdfast_core::{Offset, PartitionId};
use holdfast_log::LogReader;
use tokio::sync::watch;

/// A replica as readers see it.
#[derive(Debug)]
pub(crate) struct PartitionHandle {
    pub(crate) reader: LogReader,
    pub(crate) status: watch::Receiver<ReplicaStatus>,
    /// Bytes on disk, as of the last change of the status.
    pub(crate) size_bytes: watch::Receiver<u64>,
}

impl PartitionHandle {
    /// End of what consumers may read here: committed, and in the log by now.
    pub(crate) fn readable_end(&self) -> Offset {
        self.status.borrow().high_watermark.min(self.reader.log_end_offset())
    }
}

/// All replicas of this broker.
#[derive(Debug, Clone, Default)]
pub(crate) struct Partitions {
    handles: Arc<RwLock<HashMap<PartitionId, Arc<PartitionHandle>>>>,
}

impl Partitions {
    pub(crate) fn get(&self, partition: PartitionId) -> Option<Arc<PartitionHandle>> {
        self.handles.read().unwrap_or_else(PoisonError::into_inner).get(&partition).cloned()
    }

    pub(super) fn insert(&self, partition: PartitionId, handle: PartitionHandle) {
        let mut handles = self.handles.write().unwrap_or_else(PoisonError::into_inner);
        handles.insert(partition, Arc::new(handle));
    }

    pub(super) fn remove(&self, partition: PartitionId) {
        self.handles.write().unwrap_or_else(PoisonError::into_inner).remove(&partition);
    }
}
