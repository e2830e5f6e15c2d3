//! Reading the log for other replicas, on threads that may wait for the disk.

use std::time::Duration;

use holdfast_core::record_batch::RecordBatch;
use holdfast_core::{Offset, PartitionId};
use holdfast_log::{LogError, LogReader};
use tokio::time::Instant;

use crate::repair::{Repairs, is_repairable};

/// How long the repair of what is damaged is waited for. Longer than what is not known to be committed may take: a leader
/// gives up its place only where it is the only one that should have what it cannot read.
const REPAIR_PATIENCE: Duration = Duration::from_secs(8);

/// Whole batches from `from` on: what is damaged is repaired before it is read again. `None` where the runtime ends.
pub(super) async fn read_for_replica(
    repairs: &Repairs,
    partition: PartitionId,
    reader: &LogReader,
    from: Offset,
    max_bytes: usize,
) -> Option<Result<Vec<RecordBatch>, LogError>> {
    let first = read(reader, from, max_bytes).await?;
    if !first.as_ref().is_err_and(is_repairable) {
        return Some(first);
    }
    // However that ends, what is read then says how things stand.
    repairs.repair(partition, from, Instant::now() + REPAIR_PATIENCE).await;
    read(reader, from, max_bytes).await
}

async fn read(
    reader: &LogReader,
    from: Offset,
    max_bytes: usize,
) -> Option<Result<Vec<RecordBatch>, LogError>> {
    let reader = reader.clone();
    let reading = move || match reader.read_verified(from, reader.log_end_offset(), max_bytes) {
        Ok(whole) => Ok(whole.batches),
        // Whoever asked has another epoch by now.
        Err(LogError::TruncatedWhileReading { .. } | LogError::OutOfRange { .. }) => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    tokio::task::spawn_blocking(reading).await.ok()
}
