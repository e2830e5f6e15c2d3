//! A disk without room: what was begun is taken back, so that the log is as it was and goes on once there is room.
//!
//! Taking back needs no room. Where it fails, the log is poisoned like after any failed write. A flush that fails for want
//! of room is a failed flush: nobody knows what of it arrived.

use std::io;

use holdfast_core::Offset;

use super::PartitionLog;
use crate::segment::{self, Segment};
use crate::{File, LogError};

impl PartitionLog {
    /// A write behind the end of the active segment failed. Where that was for want of room, its part that arrived goes.
    pub(super) fn take_back_write(
        &self,
        file: &dyn File,
        active: &Segment,
        error: io::Error,
    ) -> Result<(), LogError> {
        let path = segment::path(&self.shared.dir, active.base);
        let error = LogError::io("writing segment", &path)(error);
        if error.is_full() {
            self.or_poison(file.set_len(active.len).map_err(LogError::io("taking back a write to", &path)))?;
        }
        Err(error)
    }

    /// The active segment could not be sealed. Where that was for want of room, the one that was to follow it goes: its
    /// name would be in the way of the next attempt, and of what may be appended before that.
    pub(super) fn take_back_segment(&self, next: Offset, error: LogError) -> Result<u32, LogError> {
        if error.is_full() {
            let path = segment::path(&self.shared.dir, next);
            let removed = self.shared.fs.remove_file(&path);
            self.or_poison(removed.map_err(LogError::io("taking back segment", &path)))?;
        }
        Err(error)
    }

    /// Poisons the log for a failure, unless it was that there is no room.
    pub(super) fn poison_unless_full<T>(&self, result: Result<T, LogError>) -> Result<T, LogError> {
        if result.as_ref().is_err_and(|error| !error.is_full()) {
            self.shared.poison();
        }
        result
    }

    fn or_poison(&self, taken_back: Result<(), LogError>) -> Result<(), LogError> {
        taken_back.inspect_err(|_| self.shared.poison())
    }
}
