//! The sparse index of one segment: which offset, and which time, is near which byte.
//!
//! Entries are collected in memory; whenever a block of them is full it goes to the index file ([`crate::index_file`]).
//! So an index takes at most a block in memory, however large the segment.
//!
//! Invariants: entries ascend in offset and in position, their times do not descend; two neighbours are at least an
//! interval apart, and every batch starts less than an interval behind an entry (or is one).

use std::io;

use holdfast_core::Offset;

use crate::File;
use crate::index_file::{self, BLOCK_ENTRIES, BLOCK_LEN};

/// Where one batch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Offset of the batch less the segment's base offset.
    pub(crate) relative: u32,
    /// First byte of the batch in the segment.
    pub(crate) position: u32,
    /// Largest timestamp of the batches before it in the segment; `i64::MIN` if there is none.
    pub(crate) max_before: i64,
}

/// What of an index is in its file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// Number of blocks.
    pub(crate) blocks: u32,
    /// Checksum of the last of them, which covers that of the one before, and so on; 0 before the first.
    pub(crate) chain: u32,
}

/// The two entries between which what is looked for begins: the last one that is before it, and the first that is not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Between {
    pub(crate) before: Option<Entry>,
    pub(crate) at: Option<Entry>,
}

/// The index of the segment that is appended to.
#[derive(Debug, Clone, Default)]
pub(crate) struct ActiveIndex {
    pub(crate) written: Written,
    /// The newest entries, not in the file yet.
    tail: Vec<Entry>,
    /// Position of the newest entry of all.
    last: Option<u32>,
}

impl ActiveIndex {
    /// One of which `tail` is not in the file. `last` is the position of the newest entry of all.
    pub(crate) fn resumed(written: Written, tail: Vec<Entry>, last: Option<u32>) -> ActiveIndex {
        ActiveIndex { written, tail, last }
    }

    /// Position of the newest entry.
    pub(crate) fn last(&self) -> Option<u32> {
        self.last
    }

    /// Takes in the next batch of the segment: its relative offset, its first byte, and the largest timestamp of those
    /// before it.
    pub(crate) fn add(&mut self, relative: u64, position: u64, max_before: Option<i64>, interval: u64) {
        let far_enough = self.last.is_none_or(|last| position.saturating_sub(last.into()) >= interval);
        // What does not fit is found from the entry before: slower, not wrong. Segments are rolled before that.
        if far_enough && let (Ok(relative), Ok(position)) = (relative.try_into(), position.try_into()) {
            self.tail.push(Entry { relative, position, max_before: max_before.unwrap_or(i64::MIN) });
            self.last = Some(position);
        }
    }

    /// Entries that are not in the file yet.
    pub(crate) fn tail(&self) -> &[Entry] {
        &self.tail
    }

    /// Looks among the entries in memory. `None` where the answer is in the file.
    pub(crate) fn search_tail(&self, before: impl Fn(&Entry) -> bool) -> Option<Between> {
        let between = search(&self.tail, before);
        (between.before.is_some() || self.written.blocks == 0).then_some(between)
    }

    /// The next block for the file, of the segment that starts at `base`: a full one or, where `partial`, whatever there
    /// is. `None` if there is nothing to write.
    pub(crate) fn next_block(&self, base: Offset, partial: bool) -> Option<[u8; BLOCK_LEN]> {
        let least = if partial { 1 } else { BLOCK_ENTRIES };
        let entries =
            self.tail.get(..self.tail.len().min(BLOCK_ENTRIES)).filter(|some| some.len() >= least)?;
        Some(index_file::encode_block(base, self.written, entries))
    }

    /// Moves full blocks of the segment at `base`, or all there is, to its file.
    pub(crate) fn write_blocks(&mut self, file: &dyn File, base: Offset, all: bool) -> io::Result<()> {
        while let Some(block) = self.next_block(base, all) {
            file.write_all_at(&[&block], index_file::position(self.written.blocks))?;
            self.block_written(&block);
        }
        Ok(())
    }

    /// The block is in the file.
    pub(crate) fn block_written(&mut self, block: &[u8; BLOCK_LEN]) {
        self.tail.drain(..self.tail.len().min(BLOCK_ENTRIES));
        self.written = Written { blocks: self.written.blocks + 1, chain: index_file::checksum_of(block) };
    }
}

/// The entries around the point where `before` stops to hold.
pub(crate) fn search(entries: &[Entry], before: impl Fn(&Entry) -> bool) -> Between {
    let count = entries.partition_point(before);
    let last = count.checked_sub(1).and_then(|last| entries.get(last));
    Between { before: last.copied(), at: entries.get(count).copied() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Batches of 100 bytes and 10 records with times 0, 10, 20, ...; an entry every 300 bytes.
    fn index() -> ActiveIndex {
        let mut index = ActiveIndex::default();
        for batch in 0..10_u64 {
            let max_before = batch.checked_sub(1).map(|before| before as i64 * 10);
            index.add(batch * 10, batch * 100, max_before, 300);
        }
        index
    }

    fn positions(between: Between) -> (Option<u32>, Option<u32>) {
        (between.before.map(|entry| entry.position), between.at.map(|entry| entry.position))
    }

    #[test]
    fn offsets_are_found_between_two_entries() {
        let index = index();
        let found = |relative| positions(search(index.tail(), |entry| u64::from(entry.relative) <= relative));
        assert_eq!(found(0), (Some(0), Some(300)));
        assert_eq!(found(29), (Some(0), Some(300)));
        assert_eq!(found(30), (Some(300), Some(600)));
        assert_eq!(found(u64::MAX), (Some(900), None));
    }

    #[test]
    fn times_are_found_from_an_entry_before_the_first_match() {
        let index = index();
        let from = |time| positions(search(index.tail(), |entry| entry.max_before < time)).0;
        assert_eq!(
            [i64::MIN, 0, 20, 21, 30, 85].map(from),
            [None, Some(0), Some(0), Some(300), Some(300), Some(900)]
        );
    }

    #[test]
    fn what_went_to_the_file_is_not_answered_from_memory() {
        let mut index = ActiveIndex::default();
        for batch in 0..100 {
            index.add(batch, batch * 300, None, 300);
        }
        let block = index.next_block(Offset(7), false).unwrap();
        index.block_written(&block);
        assert_eq!((index.written.blocks, index.tail().len()), (1, 100 - BLOCK_ENTRIES));
        assert!(index.search_tail(|entry| entry.relative <= 3).is_none());
        assert_eq!(
            positions(index.search_tail(|entry| entry.relative <= 99).unwrap()),
            (Some(99 * 300), None)
        );
        assert!(index.next_block(Offset(7), false).is_none());
        // The interval counts from the entry that went.
        let block = index.next_block(Offset(7), true).unwrap();
        index.block_written(&block);
        index.add(100, 99 * 300 + 1, None, 300);
        assert!(index.tail().is_empty());
    }
}
