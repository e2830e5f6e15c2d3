//! What the owner of a log knows by its batches.

use holdfast_core::record_batch::BatchHeader;

/// What is built from a log's batches, in order, when it is opened: a function of the log below an offset.
pub trait Derived {
    /// Becomes what it was when it gave `snapshot` to [`PartitionLog::checkpoint`](crate::PartitionLog::checkpoint);
    /// the batches behind are visited then. If it cannot, it stays as it is and returns false: every batch is visited.
    fn restore(&mut self, snapshot: &[u8]) -> bool;

    /// Takes in the next batch.
    fn visit(&mut self, header: &BatchHeader);
}

/// Keeps no snapshot, so it sees every batch.
pub(crate) struct EveryBatch<'a>(pub(crate) &'a mut dyn FnMut(&BatchHeader));

impl Derived for EveryBatch<'_> {
    fn restore(&mut self, _snapshot: &[u8]) -> bool {
        false
    }

    fn visit(&mut self, header: &BatchHeader) {
        (self.0)(header);
    }
}
