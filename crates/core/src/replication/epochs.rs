//! The epoch index of a log: where each epoch begins (docs/protocol.md §1).

use super::message::Position;
use crate::{LeaderEpoch, Offset};

/// Epochs in the order of the log, and its end. Rebuilt from the log when it is opened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct EpochIndex {
    /// Strictly increasing in both (REP-3).
    starts: Vec<(LeaderEpoch, Offset)>,
    end: Offset,
}

impl EpochIndex {
    /// Of a log with these epochs and their first offsets, strictly increasing in both, that ends at `end`.
    pub fn new(starts: Vec<(LeaderEpoch, Offset)>, end: Offset) -> EpochIndex {
        EpochIndex { starts, end }
    }

    /// Takes note of a batch at the end of the log that was appended in `epoch` and ends before `next`.
    pub fn append(&mut self, epoch: LeaderEpoch, next: Offset) {
        if self.starts.last().is_none_or(|&(last, _)| last < epoch) {
            self.starts.push((epoch, self.end));
        }
        self.end = next;
    }

    /// Forgets everything from `end` on.
    pub fn truncate(&mut self, end: Offset) {
        self.end = self.end.min(end);
        while self.starts.last().is_some_and(|&(_, start)| start >= end) {
            self.starts.pop();
        }
    }

    /// Log end offset, exclusive.
    pub fn end(&self) -> Offset {
        self.end
    }

    /// The position of the whole log.
    pub fn position(&self) -> Position {
        Position { epoch: self.last_epoch(), end: self.end }
    }

    /// Epoch of the last batch; `ZERO` for an empty log.
    pub fn last_epoch(&self) -> LeaderEpoch {
        self.starts.last().map_or(LeaderEpoch::ZERO, |&(epoch, _)| epoch)
    }

    /// The position just below `offset`, which is a batch boundary of this log.
    pub fn position_at(&self, offset: Offset) -> Position {
        let below = self.starts.partition_point(|&(_, start)| start < offset);
        let epoch = below.checked_sub(1).map_or(LeaderEpoch::ZERO, |last| self.starts[last].0);
        Position { epoch, end: offset }
    }

    /// The largest epoch up to `epoch`, and the offset behind its last batch; `(ZERO, 0)` if there is none.
    pub fn floor(&self, epoch: LeaderEpoch) -> Position {
        let upto = self.starts.partition_point(|&(start, _)| start <= epoch);
        let Some(last) = upto.checked_sub(1) else { return Position::default() };
        let end = self.starts.get(upto).map_or(self.end, |&(_, start)| start);
        Position { epoch: self.starts[last].0, end }
    }

    /// R19: whether a log at `position` is a prefix of this one.
    pub fn accepts(&self, position: Position) -> bool {
        let floor = self.floor(position.epoch);
        position.end == Offset::ZERO || (floor.epoch == position.epoch && position.end <= floor.end)
    }

    /// R23: where to cut a log that a leader refused with `common`. Always a batch boundary of this log: an epoch
    /// that both hold has the same batches in both (REP-3); where this log lacks the epoch, it is cut behind the
    /// epoch before it and asked again.
    pub fn cut_for(&self, common: Position) -> Offset {
        let floor = self.floor(common.epoch);
        if floor.epoch == common.epoch { floor.end.min(common.end) } else { floor.end }
    }

    /// Epochs with their first offsets.
    pub fn starts(&self) -> &[(LeaderEpoch, Offset)] {
        &self.starts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Term;

    fn epoch(term: u32) -> LeaderEpoch {
        LeaderEpoch::first(Term(term))
    }

    fn at(term: u32, end: u64) -> Position {
        let epoch = if term == 0 { LeaderEpoch::ZERO } else { epoch(term) };
        Position { epoch, end: Offset(end) }
    }

    /// Epoch 1 from 0, 3 from 10, 4 from 12; end 20.
    fn index() -> EpochIndex {
        let mut index = EpochIndex::default();
        for (term, next) in [(1, 4), (1, 10), (3, 12), (4, 15), (4, 20)] {
            index.append(epoch(term), Offset(next));
        }
        index
    }

    #[test]
    fn floor_finds_the_end_of_the_largest_epoch_below() {
        let index = index();
        assert_eq!(index.floor(LeaderEpoch::ZERO), at(0, 0));
        assert_eq!(index.floor(epoch(1)), at(1, 10));
        assert_eq!(index.floor(epoch(2)), at(1, 10));
        assert_eq!(index.floor(epoch(3)), at(3, 12));
        assert_eq!(index.floor(epoch(9)), at(4, 20));
    }

    #[test]
    fn position_at_names_the_batch_below() {
        let index = index();
        let cases = [(0, at(0, 0)), (4, at(1, 4)), (10, at(1, 10)), (12, at(3, 12)), (15, at(4, 15))];
        for (offset, expected) in cases {
            assert_eq!(index.position_at(Offset(offset)), expected);
        }
    }

    #[test]
    fn accepts_only_prefixes() {
        let index = index();
        for position in [at(0, 0), at(1, 4), at(1, 10), at(3, 12), at(4, 20)] {
            assert!(index.accepts(position), "{position:?}");
        }
        for position in [at(1, 11), at(2, 5), at(3, 13), at(4, 21), at(5, 20)] {
            assert!(!index.accepts(position), "{position:?}");
        }
    }

    #[test]
    fn truncate_drops_epochs_that_begin_at_or_behind_the_cut() {
        let mut index = index();
        index.truncate(Offset(12));
        assert_eq!(index.position(), at(3, 12));
        index.truncate(Offset(0));
        assert_eq!(index, EpochIndex::default());
    }

    #[test]
    fn cut_shrinks_to_a_shared_boundary() {
        let index = index();
        assert_eq!(index.cut_for(at(3, 11)), Offset(11));
        assert_eq!(index.cut_for(at(2, 5)), Offset(10), "epoch 2 is not here: cut behind epoch 1, ask again");
        assert_eq!(index.cut_for(at(0, 0)), Offset(0));
    }
}
