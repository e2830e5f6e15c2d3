//! Compaction of a replica's log, as the broker's compactor does it: the production pass on the disk of the simulation.

use std::ops::ControlFlow;

use bytes::Bytes;
use holdfast_core::Offset;
use holdfast_core::record_batch::Compression;
use holdfast_core::replication::Compacted;
use holdfast_log::{Codec, CodecError, CompactionOutcome, CompactionPlan, LogError, PartitionLog};

use super::Disk;

/// Memory for keys: few, so that a pass has to end early now and then.
const MAP_BYTES: [usize; 2] = [400, 1 << 16];

/// Nothing is compressed here.
struct Plain;

impl Codec for Plain {
    fn decompress(&self, _: Compression, section: Bytes, _: usize) -> Result<Bytes, CodecError> {
        Ok(section)
    }

    fn compress(&self, _: Compression, section: &[u8]) -> Result<Vec<u8>, CodecError> {
        Ok(section.to_vec())
    }
}

impl Disk {
    /// Takes note of where tombstones may be gone, durably.
    pub(crate) fn note_tombstones_gone(&mut self, below: Offset) -> Result<(), LogError> {
        match self.log_mut() {
            Some(log) => log.note_tombstones_gone(below),
            None => Err(LogError::Poisoned),
        }
    }

    /// How far the log was compacted.
    pub(crate) fn compacted(&self) -> Compacted {
        self.log().map(PartitionLog::compacted).unwrap_or_default()
    }

    /// A pass over what lies below `below`, at that time, with little memory if `cramped`.
    pub(crate) fn compact(
        &mut self,
        below: Offset,
        now_ms: i64,
        cramped: bool,
    ) -> Result<CompactionOutcome, LogError> {
        let Some(log) = self.log() else { return Err(LogError::Poisoned) };
        let plan = CompactionPlan {
            below,
            now_ms,
            tombstone_delay_ms: 0,
            map_bytes: MAP_BYTES[usize::from(!cramped)],
            max_section_bytes: 1 << 20,
        };
        log.reader().compact(&plan, &Plain, &mut |_| ControlFlow::Continue(()))
    }
}
