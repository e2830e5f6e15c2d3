//! The sparse index of one segment: which offset is near which byte. Kept in memory, rebuilt when a log is opened.
//!
//! Invariants: entries ascend in offset and in position; two neighbours are at least an interval apart, and every
//! batch starts less than an interval behind an entry (or is one).

/// Places and times of a segment's batches, one entry per interval.
#[derive(Debug, Clone, Default)]
pub(crate) struct OffsetIndex {
    entries: Vec<Entry>,
    max_timestamp: Option<i64>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Offset of a batch less the segment's base offset.
    relative: u32,
    /// First byte of that batch in the segment.
    position: u32,
    /// Largest timestamp of the batches before it in the segment; `i64::MIN` if there is none.
    max_before: i64,
}

impl OffsetIndex {
    /// Takes in the next batch of the segment: its relative offset, first byte and largest timestamp.
    pub(crate) fn add(&mut self, relative: u64, position: u64, timestamp: i64, interval: u64) {
        let far_enough =
            self.entries.last().is_none_or(|last| position.saturating_sub(last.position.into()) >= interval);
        // What does not fit is found from the entry before: slower, not wrong. Segments are rolled before that.
        if far_enough && let (Ok(relative), Ok(position)) = (relative.try_into(), position.try_into()) {
            let max_before = self.max_timestamp.unwrap_or(i64::MIN);
            self.entries.push(Entry { relative, position, max_before });
        }
        self.max_timestamp = self.max_timestamp.max(Some(timestamp));
    }

    /// Largest timestamp in the segment; `None` if it is empty.
    pub(crate) fn max_timestamp(&self) -> Option<i64> {
        self.max_timestamp
    }

    /// Where to start looking for the batch that holds a relative offset: the last entry not above it.
    pub(crate) fn floor(&self, relative: u64) -> u64 {
        let count = self.entries.partition_point(|entry| u64::from(entry.relative) <= relative);
        self.position_before(count)
    }

    /// First byte of the first indexed batch at or above a relative offset; `None` if none is.
    pub(crate) fn ceiling(&self, relative: u64) -> Option<u64> {
        let count = self.entries.partition_point(|entry| u64::from(entry.relative) < relative);
        self.entries.get(count).map(|entry| entry.position.into())
    }

    /// Where to start looking for the first batch whose largest timestamp is at or above `timestamp`.
    pub(crate) fn before_timestamp(&self, timestamp: i64) -> u64 {
        let count = self.entries.partition_point(|entry| entry.max_before < timestamp);
        self.position_before(count)
    }

    /// Forgets the batches from `position` on. `kept` is the largest timestamp of those that stay behind the last
    /// entry below `position`.
    pub(crate) fn truncate(&mut self, position: u64, kept: Option<i64>) {
        let count = self.entries.partition_point(|entry| u64::from(entry.position) < position);
        let at_cut = self.entries.get(count).filter(|entry| u64::from(entry.position) == position);
        let at_cut = at_cut.map(|entry| entry.max_before);
        self.entries.truncate(count);
        let before = self.entries.last().map(|entry| entry.max_before);
        // An entry right at the cut knows about all before it; nothing of it was walked then.
        self.max_timestamp = at_cut.max(before).max(kept).filter(|_| count > 0);
    }

    fn position_before(&self, count: usize) -> u64 {
        count.checked_sub(1).and_then(|last| self.entries.get(last)).map_or(0, |entry| entry.position.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Batches of 100 bytes and 10 records with times 0, 10, 20, ...; an entry every 300 bytes.
    fn index() -> OffsetIndex {
        let mut index = OffsetIndex::default();
        for batch in 0..10_u64 {
            index.add(batch * 10, batch * 100, batch as i64 * 10, 300);
        }
        index
    }

    #[test]
    fn offsets_are_found_from_the_entry_before() {
        let index = index();
        let found: Vec<u64> = [0, 29, 30, 59, 60, 95, u64::MAX].map(|offset| index.floor(offset)).into();
        assert_eq!(found, [0, 0, 300, 300, 600, 900, 900]);
        assert_eq!(
            [0, 1, 30, 31, 91].map(|o| index.ceiling(o)),
            [Some(0), Some(300), Some(300), Some(600), None]
        );
    }

    #[test]
    fn times_are_found_from_an_entry_before_the_first_match() {
        let index = index();
        assert_eq!(
            [i64::MIN, 0, 20, 21, 30, 85].map(|t| index.before_timestamp(t)),
            [0, 0, 0, 300, 300, 900]
        );
        assert_eq!(index.max_timestamp(), Some(90));
    }

    #[test]
    fn truncation_forgets_entries_and_times() {
        let mut index = index();
        index.truncate(700, Some(60));
        assert_eq!((index.floor(100), index.max_timestamp()), (600, Some(60)));
        index.truncate(600, None);
        assert_eq!((index.floor(100), index.max_timestamp()), (300, Some(50)));
        index.truncate(0, None);
        assert_eq!((index.floor(100), index.max_timestamp()), (0, None));
    }
}
