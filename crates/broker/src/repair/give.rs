//! What other brokers are given for their repairs: whole batches, committed, verified just now.

use bytes::{Bytes, BytesMut};
use holdfast_core::record_batch::RecordBatch;
use holdfast_core::{Offset, PartitionId};
use holdfast_log::LogError;
use holdfast_log::inspect::compacted;
use holdfast_log::repair::{WholeBatches, read_closed};
use holdfast_proto::internal::v1::BatchesMissing;

use super::{Repairs, is_repairable, lock};

/// What another broker asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) from: Offset,
    /// Exclusive.
    pub(crate) to: Offset,
    pub(crate) max_bytes: usize,
    /// Tombstones below may be gone from its log.
    pub(crate) gone: Offset,
}

impl Repairs {
    /// Up to `max_bytes` of batches from the one that contains `from` on, none that begins at `to` or above. Of a log that
    /// is open all below the high watermark; of one that cannot be opened because it is damaged itself, below what was
    /// noted of that: so two replicas that are damaged at different places mend each other.
    ///
    /// Whoever asks has dropped tombstones below `gone`. What is older than those must not come back to it, so nothing
    /// below is given of a log that was not cleaned so far.
    pub(crate) async fn give(
        &self,
        partition: PartitionId,
        Wanted { from, to, max_bytes, gone }: Wanted,
    ) -> Result<Bytes, BatchesMissing> {
        let WholeBatches { bytes, batches } = match self.inner.partitions.get(partition) {
            Some(handle) => {
                let below = handle.readable_end();
                let reading = move || {
                    let cleaned = || from >= gone || handle.reader.compacted().cleaned_end >= gone;
                    // A repair of this log may put back what was cleaned, so that it is asked before and after.
                    let before = cleaned();
                    let read = handle.reader.read_verified(from, below, max_bytes);
                    read.map(|whole| (before && cleaned()).then_some(whole))
                };
                match tokio::task::spawn_blocking(reading).await {
                    Ok(Ok(Some(whole))) => whole,
                    Ok(Ok(None)) => return Err(BatchesMissing::NotCleaned),
                    Ok(Err(LogError::OutOfRange { requested, start, .. })) if requested < start => {
                        return Err(BatchesMissing::Trimmed);
                    }
                    Ok(Err(error)) if is_repairable(&error) => {
                        // So it has to be repaired here as well.
                        self.repair_soon(partition, from);
                        return Err(BatchesMissing::Damaged);
                    }
                    Ok(Err(_)) | Err(_) => return Err(BatchesMissing::NotCommitted),
                }
            }
            None => self.give_closed(partition, from, max_bytes, gone).await?,
        };
        let wanted = &batches[..batches.partition_point(|batch| batch.header().base_offset < to)];
        let len = wanted.iter().map(|batch| batch.bytes().len()).sum::<usize>();
        self.inner.stats.given_bytes.add(len as u64);
        if len == 0 {
            return Err(BatchesMissing::NotCommitted);
        }
        Ok(beginning_at(from, wanted).unwrap_or_else(|| bytes.slice(..len)))
    }

    async fn give_closed(
        &self,
        partition: PartitionId,
        from: Offset,
        max_bytes: usize,
        gone: Offset,
    ) -> Result<WholeBatches, BatchesMissing> {
        let below = lock(&self.inner.closed).get(&partition).copied();
        let Some(below) = below else {
            // Of what may be here and was not looked at yet nothing is known.
            let may_hold = self.inner.dir.may_hold(partition);
            return Err(if may_hold { BatchesMissing::NotOpen } else { BatchesMissing::NoReplica });
        };
        if from >= below {
            return Err(BatchesMissing::NotCommitted);
        }
        let (fs, folder) = (self.inner.dir.fs(), self.inner.dir.partition(partition));
        let reading = move || {
            // Nothing of it is cleaned, and nothing repaired without that being noted first.
            let given = read_closed(&*fs, &folder, from, below, max_bytes)?;
            let cleaned = from >= gone || compacted(&*fs, &folder)?.cleaned_end >= gone;
            Ok::<_, LogError>(cleaned.then_some(given))
        };
        match tokio::task::spawn_blocking(reading).await {
            Ok(Ok(Some(batches))) if !batches.is_empty() => {
                Ok(WholeBatches { bytes: joined(&batches), batches })
            }
            Ok(Ok(None)) => Err(BatchesMissing::NotCleaned),
            _ => Err(BatchesMissing::Damaged),
        }
    }
}

/// The batches with the first cut so that it begins there, where it begins lower and may be cut.
fn beginning_at(from: Offset, batches: &[RecordBatch]) -> Option<Bytes> {
    let (first, rest) = batches.split_first().filter(|(first, _)| first.header().base_offset < from)?;
    let cut = first.clipped(from, Offset(u64::MAX))?;
    Some(joined(&[&[cut], rest].concat()))
}

fn joined(batches: &[RecordBatch]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(batches.iter().map(|batch| batch.bytes().len()).sum());
    batches.iter().for_each(|batch| bytes.extend_from_slice(batch.bytes()));
    bytes.freeze()
}
