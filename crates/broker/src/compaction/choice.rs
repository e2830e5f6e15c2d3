//! Whose turn it is.

use std::sync::Arc;

use holdfast_core::PartitionId;
use holdfast_core::compaction::{Compaction, Dirt, dirtiest};
use holdfast_core::metadata::ClusterMap;

use crate::partition::{PartitionHandle, Partitions};

/// The partition to compact, and how.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) partition: PartitionId,
    pub(super) compaction: Compaction,
    pub(super) handle: Arc<PartitionHandle>,
}

/// The dirtiest partition here of a topic that is compacted, unless it rests.
pub(super) fn next(
    map: &ClusterMap,
    partitions: &Partitions,
    rests: impl Fn(PartitionId) -> bool,
) -> Option<Choice> {
    let candidate = |partition: PartitionId| {
        let topic = map.topic(partition.topic).filter(|topic| !topic.deleted)?;
        let compaction = topic.spec.compaction.filter(|_| !rests(partition))?;
        let handle = partitions.get(partition).filter(|handle| !handle.status.borrow().failed)?;
        let dirt = dirt(&handle);
        Some((Choice { partition, compaction, handle }, dirt, compaction))
    };
    dirtiest(partitions.ids().into_iter().filter_map(candidate))
}

/// Of what a pass could look at.
fn dirt(handle: &PartitionHandle) -> Dirt {
    let below = {
        let status = handle.status.borrow();
        status.high_watermark.min(status.durable_high_watermark)
    };
    handle.reader.dirtiness(below)
}
