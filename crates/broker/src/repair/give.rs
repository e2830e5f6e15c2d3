//! What other brokers are given for their repairs: whole batches, committed, verified just now.

use bytes::{Bytes, BytesMut};
use holdfast_core::record_batch::RecordBatch;
use holdfast_core::{Offset, PartitionId};
use holdfast_log::LogError;
use holdfast_log::repair::{WholeBatches, read_closed};
use holdfast_proto::internal::v1::BatchesMissing;

use super::{Repairs, is_repairable, lock};

impl Repairs {
    /// Up to `max_bytes` of batches from the one that contains `from` on, none that begins at `to` or above. Of a log that
    /// is open all below the high watermark; of one that cannot be opened because it is damaged itself, below what was
    /// noted of that: so two replicas that are damaged at different places mend each other.
    pub(crate) async fn give(
        &self,
        partition: PartitionId,
        from: Offset,
        to: Offset,
        max_bytes: usize,
    ) -> Result<Bytes, BatchesMissing> {
        let WholeBatches { bytes, batches } = match self.inner.partitions.get(partition) {
            Some(handle) => {
                let below = handle.readable_end();
                let reading = move || handle.reader.read_verified(from, below, max_bytes);
                match tokio::task::spawn_blocking(reading).await {
                    Ok(Ok(whole)) => whole,
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
            None => self.give_closed(partition, from, max_bytes).await?,
        };
        let wanted = batches.iter().take_while(|batch| batch.header().base_offset < to);
        let len = wanted.map(|batch| batch.bytes().len()).sum::<usize>();
        self.inner.stats.given_bytes.add(len as u64);
        if len == 0 { Err(BatchesMissing::NotCommitted) } else { Ok(bytes.slice(..len)) }
    }

    async fn give_closed(
        &self,
        partition: PartitionId,
        from: Offset,
        max_bytes: usize,
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
        let reading = move || read_closed(&*fs, &folder, from, below, max_bytes);
        match tokio::task::spawn_blocking(reading).await {
            Ok(Ok(batches)) if !batches.is_empty() => Ok(WholeBatches { bytes: joined(&batches), batches }),
            _ => Err(BatchesMissing::Damaged),
        }
    }
}

fn joined(batches: &[RecordBatch]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(batches.iter().map(|batch| batch.bytes().len()).sum());
    batches.iter().for_each(|batch| bytes.extend_from_slice(batch.bytes()));
    bytes.freeze()
}
