//! Compaction of topics with keys: how a topic is compacted, and which of a broker's partitions is next.
//!
//! What a pass over one partition may remove is in `replication` and in the log; here is only whose turn it is.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

/// That of each partition of a topic the last record of every key stays, and earlier ones go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Compaction {
    /// A record without a value, which says that its key is gone, stays for so many milliseconds at least after everything
    /// below it was cleaned: who reads the topic from its start within that time hears of it.
    pub tombstone_delay_ms: u64,
    /// So many percent of a partition's sealed bytes have to be new since the last pass before there is another; 1 to 100.
    pub min_dirty_percent: u8,
}

impl Default for Compaction {
    fn default() -> Self {
        Compaction { tombstone_delay_ms: 24 * 3_600_000, min_dirty_percent: 50 }
    }
}

/// How much of a partition a pass would look at for the first time. Sealed segments only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dirt {
    /// Bytes of batches below what was cleaned.
    pub clean_bytes: u64,
    /// Bytes of batches from there on.
    pub dirty_bytes: u64,
}

impl Dirt {
    /// Whether so many percent, or more, are dirty. Nothing at all never is.
    pub fn reaches(&self, percent: u8) -> bool {
        self.dirty_bytes > 0 && u128::from(self.dirty_bytes) * 100 >= self.all() * u128::from(percent)
    }

    fn all(&self) -> u128 {
        u128::from(self.clean_bytes.saturating_add(self.dirty_bytes))
    }

    /// By the dirty share, of equals by dirty bytes. Products instead of quotients: exact, and without a division by nothing.
    fn share_cmp(&self, other: &Dirt) -> Ordering {
        let mine = u128::from(self.dirty_bytes) * other.all();
        let theirs = u128::from(other.dirty_bytes) * self.all();
        mine.cmp(&theirs).then(self.dirty_bytes.cmp(&other.dirty_bytes))
    }
}

/// Which of these is compacted next: the one with the highest dirty share, among those that have as much as their topics ask
/// for. Of equals the first.
pub fn dirtiest<T>(candidates: impl IntoIterator<Item = (T, Dirt, Compaction)>) -> Option<T> {
    let wanted = |(_, dirt, compaction): &(T, Dirt, Compaction)| dirt.reaches(compaction.min_dirty_percent);
    let mut best: Option<(T, Dirt)> = None;
    for (id, dirt, _) in candidates.into_iter().filter(wanted) {
        if best.as_ref().is_none_or(|(_, known)| dirt.share_cmp(known) == Ordering::Greater) {
            best = Some((id, dirt));
        }
    }
    best.map(|(id, _)| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dirt(clean_bytes: u64, dirty_bytes: u64) -> Dirt {
        Dirt { clean_bytes, dirty_bytes }
    }

    fn next(candidates: &[(u64, u64, u8)]) -> Option<usize> {
        let candidates = candidates.iter().enumerate().map(|(number, &(clean, dirty, percent))| {
            (number, dirt(clean, dirty), Compaction { min_dirty_percent: percent, ..Compaction::default() })
        });
        dirtiest(candidates)
    }

    #[test]
    fn the_highest_dirty_share_comes_first_and_none_below_what_its_topic_asks_for() {
        assert_eq!(next(&[]), None);
        assert_eq!(next(&[(50, 49, 50), (0, 0, 1)]), None, "one too clean, one empty");
        assert_eq!(next(&[(50, 50, 50)]), Some(0), "as much is enough");
        assert_eq!(next(&[(100, 900, 50), (1, 99, 50), (0, 10, 100)]), Some(2));
        assert_eq!(next(&[(100, 900, 95), (1000, 1000, 50)]), Some(1), "each by its own topic");
        assert_eq!(next(&[(10, 10, 1), (500, 500, 1), (20, 20, 1)]), Some(1), "of one share the larger");
        assert_eq!(next(&[(10, 10, 1), (10, 10, 1)]), Some(0));
    }

    #[test]
    fn sizes_that_no_disk_has_are_compared_all_the_same() {
        let max = u64::MAX;
        assert!(dirt(0, max).reaches(100) && dirt(max, max).reaches(50));
        assert!(!dirt(max, 1).reaches(1));
        assert_eq!(next(&[(max, max - 1, 1), (0, max, 100)]), Some(1));
    }
}
