//! Which batches of producers have to stay known: as many of each as its last ones count as duplicates (R38).

use std::collections::BTreeMap;

use holdfast_core::record_batch::BatchHeader;
use holdfast_core::replication::REMEMBERED;
use holdfast_core::{Offset, ProducerId, mutant};

/// The last batches of each producer, of those that were shown, in order.
#[derive(Debug, Default)]
pub(super) struct LastBatches(BTreeMap<ProducerId, [Option<Offset>; REMEMBERED]>);

impl LastBatches {
    /// Takes in the next batch.
    pub(super) fn add(&mut self, header: &BatchHeader) {
        let (Some(producer), Some(_)) = (header.producer, header.last_sequence()) else { return };
        let last = self.0.entry(producer.id).or_default();
        last.rotate_left(1);
        last[REMEMBERED - 1] = Some(header.base_offset);
    }

    /// Whether somebody may still ask whose batch it was, also if it has no record left.
    pub(super) fn need(&self, header: &BatchHeader) -> bool {
        let known = header.producer.and_then(|producer| self.0.get(&producer.id));
        let last = known.is_some_and(|last| last.contains(&Some(header.base_offset)));
        last && !mutant!(ForgetCompactedProducers)
    }
}
