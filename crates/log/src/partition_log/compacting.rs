//! What the owner of a log knows, and says, of its compaction.

use holdfast_core::Offset;
use holdfast_core::replication::Compacted;

use super::PartitionLog;
use crate::LogError;

impl PartitionLog {
    /// How far the log was compacted, as it is noted on disk. A truncation lowers the cleaned end, and so does a repair;
    /// where the log starts higher, and that is on disk, everything below its start counts as cleaned.
    pub fn compacted(&self) -> Compacted {
        self.shared.compacted()
    }

    /// Tombstones below `below` may be gone from now on, here or in what is copied from elsewhere, in place of what was noted
    /// before, be it higher or lower; durable on return. It may lie above the end of a log that is being copied.
    ///
    /// # Errors
    /// Nothing is noted then, and the log is none the worse for it.
    pub fn note_tombstones_gone(&mut self, below: Offset) -> Result<(), LogError> {
        self.shared.check_alive()?;
        let _still = self.shared.stand_still();
        self.shared.compaction.note_tombstones_gone(&*self.shared.fs, &self.shared.dir, below)
    }
}
