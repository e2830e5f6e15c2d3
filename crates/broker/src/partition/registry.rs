//! What the rest of the broker sees of its partitions.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use holdfast_core::record_batch::RecordBatch;
use holdfast_core::replication::ReplicaStatus;
use holdfast_core::{Offset, PartitionId};
use holdfast_log::LogReader;
use tokio::sync::watch;

use super::Newest;

/// A replica as readers see it.
#[derive(Debug)]
pub(crate) struct PartitionHandle {
    pub(super) partition: PartitionId,
    pub(super) newest: Newest,
    pub(crate) reader: LogReader,
    pub(crate) status: watch::Receiver<ReplicaStatus>,
    /// Bytes on disk, as of the last change of the status.
    pub(crate) size_bytes: watch::Receiver<u64>,
}

impl PartitionHandle {
    /// As [`LogReader::read`], of batches that are in memory and need no look at their checksums; `None` where the first of
    /// them is not.
    pub(crate) fn read_newest(
        &self,
        from: Offset,
        below: Offset,
        max_bytes: usize,
    ) -> Option<Vec<RecordBatch>> {
        // Of a replica that was deleted there is nothing: what is here by now is another's.
        let deleted = self.status.has_changed().is_err();
        if deleted { None } else { self.newest.read(self.partition, from, below, max_bytes) }
    }

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

    /// All of them, in order.
    pub(crate) fn ids(&self) -> Vec<PartitionId> {
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        let mut ids: Vec<PartitionId> = handles.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    pub(super) fn insert(&self, partition: PartitionId, handle: PartitionHandle) {
        let mut handles = self.handles.write().unwrap_or_else(PoisonError::into_inner);
        handles.insert(partition, Arc::new(handle));
    }

    pub(super) fn remove(&self, partition: PartitionId) {
        self.handles.write().unwrap_or_else(PoisonError::into_inner).remove(&partition);
    }
}
