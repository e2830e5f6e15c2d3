//! The newest batches of the partitions that this broker leads, in memory: who reads at the end of a log is served from
//! here, consumers and followers alike, without a read and without a second look at checksums.
//!
//! Only appends fill it, and the oldest append makes room for the next one: nobody who reads far behind takes anything away
//! from those at the end. What a follower takes from its leader is not kept, because it shares memory with whatever came in
//! the same message.
//!
//! Invariants:
//! - Of a partition it holds batches that are in its log right now, without a gap, up to its end; as they were before a pass of
//!   compaction, until that has ended.
//! - It holds no more than its bytes, and at most two notes for every batch held.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_core::record_batch::RecordBatch;
use holdfast_core::{Offset, PartitionId};

/// Notes that are kept without asking how many of them are of use.
const FEW_NOTES: usize = 64;

/// The batches of one shard's partitions. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Newest {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    /// The most that may be held, in bytes of batches.
    limit: usize,
    held: usize,
    batches: usize,
    logs: HashMap<PartitionId, VecDeque<Kept>>,
    /// Numbers of what was appended, oldest first. Some of it may have been cut off again since.
    appended: VecDeque<(PartitionId, u64)>,
    /// The number of the next batch.
    next: u64,
}

#[derive(Debug)]
struct Kept {
    number: u64,
    batch: RecordBatch,
}

impl Kept {
    fn base(&self) -> Offset {
        self.batch.header().base_offset
    }

    fn end(&self) -> Offset {
        self.batch.header().next_offset()
    }

    fn len(&self) -> usize {
        self.batch.bytes().len()
    }
}

impl Newest {
    /// Nothing yet, and up to `limit` bytes of batches.
    pub(crate) fn new(limit: usize) -> Newest {
        let (logs, appended) = (HashMap::new(), VecDeque::new());
        let inner = Inner { limit, held: 0, batches: 0, logs, appended, next: 0 };
        Newest { inner: Arc::new(Mutex::new(inner)) }
    }

    #[cfg(test)]
    pub(super) fn allow(&self, limit: usize) {
        self.lock().limit = limit;
    }

    /// Takes in batches that now stand at the end of the partition's log.
    pub(super) fn append(&self, partition: PartitionId, batches: &[RecordBatch]) {
        let mut inner = self.lock();
        for batch in batches {
            inner.append(partition, batch.clone());
        }
        inner.make_room();
    }

    /// The log ends there from now on.
    pub(super) fn truncate(&self, partition: PartitionId, end: Offset) {
        self.lock().drop_while(partition, |log| log.pop_back_if(|kept| kept.end() > end));
    }

    /// Nothing of the partition that begins below `start` is served from here.
    pub(super) fn forget_below(&self, partition: PartitionId, start: Offset) {
        self.lock().drop_while(partition, |log| log.pop_front_if(|kept| kept.base() < start));
    }

    /// Nothing of the partition is served from here.
    pub(super) fn forget(&self, partition: PartitionId) {
        self.lock().drop_while(partition, VecDeque::pop_back);
    }

    /// Whole batches from the one that contains `from` on, up to `max_bytes` of them but at least one, none of which reaches
    /// beyond `below` (exclusive): as a read of the log. `None` where the first of them is not here.
    pub(crate) fn read(
        &self,
        partition: PartitionId,
        from: Offset,
        below: Offset,
        max_bytes: usize,
    ) -> Option<Vec<RecordBatch>> {
        let inner = self.lock();
        let log = inner.logs.get(&partition)?;
        let first = log.partition_point(|kept| kept.end() <= from);
        log.get(first).filter(|kept| kept.base() <= from)?;
        let mut bytes = 0;
        let fits = |kept: &&Kept| {
            bytes += kept.len();
            kept.end() <= below && (bytes <= max_bytes || bytes == kept.len())
        };
        Some(log.range(first..).take_while(fits).map(|kept| kept.batch.clone()).collect())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn append(&mut self, partition: PartitionId, batch: RecordBatch) {
        let kept = Kept { number: self.next, batch };
        let last = self.logs.get(&partition).and_then(VecDeque::back);
        if last.is_some_and(|last| last.end() != kept.base()) {
            self.drop_while(partition, VecDeque::pop_back);
        }
        self.next += 1;
        self.appended.push_back((partition, kept.number));
        (self.held, self.batches) = (self.held + kept.len(), self.batches + 1);
        self.logs.entry(partition).or_default().push_back(kept);
    }

    fn make_room(&mut self) {
        while self.held > self.limit {
            let Some((partition, number)) = self.appended.pop_front() else { return };
            self.drop_while(partition, |log| log.pop_front_if(|kept| kept.number <= number));
        }
        if self.appended.len() > FEW_NOTES.max(2 * self.batches) {
            let logs = &self.logs;
            self.appended.retain(|(partition, number)| {
                let log = logs.get(partition);
                log.is_some_and(|log| log.binary_search_by_key(number, |kept| kept.number).is_ok())
            });
        }
    }

    fn drop_while(
        &mut self,
        partition: PartitionId,
        mut next: impl FnMut(&mut VecDeque<Kept>) -> Option<Kept>,
    ) {
        let Some(log) = self.logs.get_mut(&partition) else { return };
        while let Some(kept) = next(log) {
            self.held -= kept.len();
            self.batches -= 1;
        }
        if log.is_empty() {
            self.logs.remove(&partition);
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_core::record_batch::RecordBatchBuilder;
    use holdfast_core::{LeaderEpoch, Term, TopicId};
    use proptest::prelude::*;

    use super::*;

    fn id(index: u32) -> PartitionId {
        PartitionId { topic: TopicId(1), index }
    }

    /// One record at that offset.
    fn batch(offset: u64) -> RecordBatch {
        let mut builder = RecordBatchBuilder::new();
        builder.push(0, None, Some(b"some value"), &[]).unwrap();
        builder.build(None).unwrap().stamped(Offset(offset), LeaderEpoch::first(Term(1)))
    }

    fn size() -> usize {
        batch(0).bytes().len()
    }

    fn offsets(read: Option<Vec<RecordBatch>>) -> Option<Vec<u64>> {
        read.map(|batches| batches.iter().map(|batch| batch.header().base_offset.0).collect())
    }

    fn all(newest: &Newest, partition: u32, from: u64) -> Option<Vec<u64>> {
        offsets(newest.read(id(partition), Offset(from), Offset(u64::MAX), usize::MAX))
    }

    #[test]
    fn what_is_read_is_what_a_log_would_give_or_nothing() {
        let newest = Newest::new(1 << 20);
        newest.append(id(1), &[batch(5), batch(6), batch(7)]);
        let read = |from, below, max| offsets(newest.read(id(1), Offset(from), Offset(below), max));
        assert_eq!(read(4, 9, 1 << 20), None, "only the log has it");
        assert_eq!(read(8, 9, 1 << 20), None);
        assert_eq!(read(5, 9, 1 << 20), Some(vec![5, 6, 7]));
        assert_eq!(read(6, 7, 1 << 20), Some(vec![6]));
        assert_eq!(read(6, 6, 1 << 20), Some(vec![]));
        assert_eq!(read(5, 9, 2 * size() + 1), Some(vec![5, 6]));
        assert_eq!(read(5, 9, 1), Some(vec![5]), "one at least");
        assert_eq!(all(&newest, 2, 5), None);
    }

    #[test]
    fn the_oldest_append_makes_room_whatever_is_read() {
        let newest = Newest::new(3 * size());
        newest.append(id(1), &[batch(0)]);
        newest.append(id(2), &[batch(0), batch(1)]);
        all(&newest, 1, 0).unwrap();
        newest.append(id(2), &[batch(2)]);
        assert_eq!((all(&newest, 1, 0), all(&newest, 2, 0)), (None, Some(vec![0, 1, 2])));
        newest.append(id(2), &[batch(3)]);
        assert_eq!((all(&newest, 2, 0), all(&newest, 2, 1)), (None, Some(vec![1, 2, 3])));
    }

    #[test]
    fn what_is_cut_off_is_gone_and_what_leaves_a_gap_begins_anew() {
        let newest = Newest::new(1 << 20);
        newest.append(id(1), &[batch(0), batch(1), batch(2)]);
        newest.truncate(id(1), Offset(1));
        assert_eq!((all(&newest, 1, 0), all(&newest, 1, 1)), (Some(vec![0]), None));
        newest.append(id(1), &[batch(4)]);
        assert_eq!((all(&newest, 1, 0), all(&newest, 1, 4)), (None, Some(vec![4])));
        newest.forget(id(1));
        assert_eq!(all(&newest, 1, 4), None);
        let inner = newest.lock();
        assert_eq!((inner.held, inner.batches), (0, 0));
    }

    proptest! {
        /// Against the logs themselves: what it gives is what they hold, and its counts are right.
        #[test]
        fn it_agrees_with_the_logs_and_keeps_its_bounds(steps in proptest::collection::vec((0..3_u32, 0..5_u8, 0..5_u64), 1..300)) {
            let newest = Newest::new(7 * size());
            let mut ends = [0_u64; 3];
            for (partition, what, number) in steps {
                let end = &mut ends[partition as usize];
                match what {
                    0 => newest.forget(id(partition)),
                    1 => {
                        *end = end.saturating_sub(number);
                        newest.truncate(id(partition), Offset(*end));
                    }
                    2 => {
                        let start = end.saturating_sub(number);
                        newest.forget_below(id(partition), Offset(start));
                        prop_assert!((0..start).all(|from| all(&newest, partition, from).is_none()));
                    }
                    _ => {
                        let batches: Vec<RecordBatch> = (*end..*end + number).map(batch).collect();
                        newest.append(id(partition), &batches);
                        *end += number;
                    }
                }
                let inner = newest.lock();
                let held: usize = inner.logs.values().map(VecDeque::len).sum();
                prop_assert!(inner.held <= inner.limit && inner.batches == held && inner.held == held * size());
                prop_assert!(inner.appended.len() <= FEW_NOTES.max(2 * inner.batches) + 5);
                drop(inner);
                for from in 0..ends[partition as usize] {
                    if let Some(read) = all(&newest, partition, from) {
                        prop_assert_eq!(read, (from..ends[partition as usize]).collect::<Vec<_>>());
                    }
                }
            }
        }
    }
}
