//! The epoch index of a log: where each epoch begins (docs/protocol.md §1).

use super::message::Position;
use crate::{LeaderEpoch, Offset};

/// Epochs in the order of the log, from its start to its end. Rebuilt from the log when it is opened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct EpochIndex {
    /// The log start offset, and the epoch of the batch below it: the position of a log that ends where this one starts.
    base: Position,
    /// Strictly increasing in both (REP-3). The first begins at the log start, also where its epoch is older.
    starts: Vec<(LeaderEpoch, Offset)>,
    end: Offset,
}

impl EpochIndex {
    /// Of a log that starts at `base`, with these epochs and their first offsets from there on, strictly increasing in both,
    /// and ends at `end`.
    pub fn new(base: Position, starts: Vec<(LeaderEpoch, Offset)>, end: Offset) -> EpochIndex {
        EpochIndex { base, starts, end }
    }

    /// Of an empty log at `base`: everything below was trimmed.
    pub fn starting_at(base: Position) -> EpochIndex {
        EpochIndex { base, starts: Vec::new(), end: base.end }
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

    /// Forgets everything below `start`, a batch boundary of this log (R44).
    pub fn trim(&mut self, start: Offset) {
        if start <= self.base.end {
            return;
        }
        self.base = self.position_at(start);
        if start >= self.end {
            self.starts.clear();
        }
        let below = self.starts.partition_point(|&(_, first)| first <= start);
        self.starts.drain(..below.saturating_sub(1));
        if let Some((_, first)) = self.starts.first_mut() {
            *first = start.max(*first);
        }
    }

    /// Where the log starts: its log start offset, and the epoch of the batch below it.
    pub fn base(&self) -> Position {
        self.base
    }

    /// Log end offset, exclusive.
    pub fn end(&self) -> Offset {
        self.end
    }

    /// The position of the whole log.
    pub fn position(&self) -> Position {
        Position { epoch: self.last_epoch(), end: self.end }
    }

    /// Epoch of the last batch, also if it was trimmed; `ZERO` where there never was one.
    pub fn last_epoch(&self) -> LeaderEpoch {
        self.starts.last().map_or(self.base.epoch, |&(epoch, _)| epoch)
    }

    /// The position just below `offset`, which is a batch boundary of this log and not below its start.
    pub fn position_at(&self, offset: Offset) -> Position {
        let below = self.starts.partition_point(|&(_, start)| start < offset);
        let epoch = below.checked_sub(1).map_or(self.base.epoch, |last| self.starts[last].0);
        Position { epoch, end: offset }
    }

    /// The largest epoch up to `epoch`, and the offset behind its last batch; the base if nothing of that is left. Of a
    /// position that [is below the start](Self::is_below_start) it says nothing.
    pub fn floor(&self, epoch: LeaderEpoch) -> Position {
        let upto = self.starts.partition_point(|&(start, _)| start <= epoch);
        let Some(last) = upto.checked_sub(1) else { return self.base };
        let end = self.starts.get(upto).map_or(self.end, |&(_, start)| start);
        Position { epoch: self.starts[last].0, end }
    }

    /// R44: whether a log at `position` can only go on by beginning anew at the start of this one: it lacks what was trimmed
    /// here, or it parted from this log below the start, for its last batch is older than the one just below the start.
    pub fn is_below_start(&self, position: Position) -> bool {
        position.end < self.base.end || position.epoch < self.base.epoch
    }

    /// R19: whether a log at `position` is a prefix of this one, and what follows it is here.
    pub fn accepts(&self, position: Position) -> bool {
        let floor = self.floor(position.epoch);
        let within = self.base.end <= position.end && position.end <= floor.end;
        let nothing = position.end == Offset::ZERO && self.base.end == Offset::ZERO;
        nothing || (floor.epoch == position.epoch && within)
    }

    /// R23: where to cut a log that a leader refused with `common`. Always a batch boundary of this log: an epoch
    /// that both hold has the same batches in both (REP-3); where this log lacks the epoch, it is cut behind the
    /// epoch before it and asked again. `None` if the two part below the start of this log.
    pub fn cut_for(&self, common: Position) -> Option<Offset> {
        if common.epoch < self.base.epoch {
            return None;
        }
        let floor = self.floor(common.epoch);
        let cut = if floor.epoch == common.epoch { floor.end.min(common.end) } else { floor.end };
        (cut >= self.base.end).then_some(cut)
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
        assert_eq!(index.cut_for(at(3, 11)), Some(Offset(11)));
        let behind = index.cut_for(at(2, 5));
        assert_eq!(behind, Some(Offset(10)), "epoch 2 is not here: cut behind epoch 1, ask again");
        assert_eq!(index.cut_for(at(0, 0)), Some(Offset(0)));
    }

    fn trimmed(start: u64) -> EpochIndex {
        let mut index = index();
        index.trim(Offset(start));
        index
    }

    #[test]
    fn a_trimmed_log_knows_the_epoch_below_its_start_and_what_follows() {
        let cases = [
            (4, at(1, 4), vec![(1, 4), (3, 10), (4, 12)]),
            (10, at(1, 10), vec![(3, 10), (4, 12)]),
            (12, at(3, 12), vec![(4, 12)]),
            (15, at(4, 15), vec![(4, 15)]),
            (20, at(4, 20), vec![]),
        ];
        for (start, base, starts) in cases {
            let index = trimmed(start);
            let expected: Vec<_> =
                starts.into_iter().map(|(term, first)| (epoch(term), Offset(first))).collect();
            assert_eq!((index.base(), index.starts(), index.position()), (base, &expected[..], at(4, 20)));
            assert_eq!(index, EpochIndex::new(base, expected, Offset(20)), "as if it were read from the log");
        }
        let mut index = trimmed(12);
        index.trim(Offset(4));
        assert_eq!(index, trimmed(12), "a start never goes back");
    }

    #[test]
    fn nothing_below_the_start_is_accepted_and_all_above_as_before() {
        for start in [4, 10, 12, 15, 20] {
            let (whole, index) = (index(), trimmed(start));
            for (term, end) in (0..6).flat_map(|term| (0..22).map(move |end| (term, end))) {
                let position = at(term, end);
                let here = !index.is_below_start(position);
                assert_eq!(
                    index.accepts(position),
                    here && whole.accepts(position),
                    "{position:?} of {start}"
                );
                if here {
                    let expected = whole.floor(position.epoch);
                    assert_eq!(index.floor(position.epoch), expected, "{position:?} of {start}");
                }
            }
            assert!(index.accepts(index.base()) && !index.is_below_start(index.base()));
        }
    }

    #[test]
    fn a_log_that_parts_below_its_start_cannot_be_cut() {
        let index = trimmed(12);
        assert_eq!(index.cut_for(at(4, 13)), Some(Offset(13)));
        assert_eq!(index.cut_for(at(3, 12)), Some(Offset(12)));
        assert_eq!(index.cut_for(at(3, 11)), None);
        assert_eq!(index.cut_for(at(1, 10)), None);
        let mut empty = EpochIndex::starting_at(at(3, 12));
        assert_eq!((empty.position(), empty.cut_for(at(3, 12))), (at(3, 12), Some(Offset(12))));
        empty.append(epoch(4), Offset(15));
        empty.append(epoch(4), Offset(20));
        assert_eq!(empty, index);
        empty.truncate(Offset(12));
        assert_eq!(empty, EpochIndex::starting_at(at(3, 12)));
    }
}
