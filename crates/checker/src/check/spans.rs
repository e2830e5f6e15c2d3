//! A set of numbers as spans: numbers that were given out in order take next to no memory.

use std::collections::BTreeMap;

/// Numbers, as spans from first to last (inclusive) that neither touch nor overlap.
#[derive(Debug, Clone, Default)]
pub(super) struct Spans {
    last_by_first: BTreeMap<u64, u64>,
}

impl Spans {
    /// Adds the numbers from `first` to `last`. Gives the first that was there already; then nothing is added.
    pub(super) fn insert(&mut self, first: u64, last: u64) -> Result<(), u64> {
        let before = self.last_by_first.range(..=last).next_back().map(|(&first, &last)| (first, last));
        if let Some((known_first, known_last)) = before
            && known_last >= first
        {
            return Err(known_first.max(first));
        }
        let mut span = (first, last);
        if let Some((known_first, known_last)) = before
            && known_last.checked_add(1) == Some(first)
        {
            span.0 = known_first;
        }
        if let Some(next) = last.checked_add(1)
            && let Some(known_last) = self.last_by_first.remove(&next)
        {
            span.1 = known_last;
        }
        self.last_by_first.insert(span.0, span.1);
        Ok(())
    }

    /// The first of the numbers from `first` to `last` that is missing.
    pub(super) fn first_missing(&self, first: u64, last: u64) -> Option<u64> {
        match self.last_by_first.range(..=first).next_back() {
            Some((_, &known_last)) if known_last >= last => None,
            Some((_, &known_last)) if known_last >= first => Some(known_last + 1),
            _ => Some(first),
        }
    }
}

/// Groups values that follow each other: `(first, last)`, both inclusive.
pub(super) fn spans_of(values: &[u64]) -> impl Iterator<Item = (u64, u64)> {
    let follows = |a: &u64, b: &u64| a.checked_add(1) == Some(*b);
    values.chunk_by(follows).filter_map(|chunk| Some((*chunk.first()?, *chunk.last()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_join_and_refuse_what_they_have() {
        let mut spans = Spans::default();
        assert_eq!(spans.insert(10, 19), Ok(()));
        assert_eq!(spans.insert(30, 39), Ok(()));
        assert_eq!(spans.insert(20, 29), Ok(()));
        assert_eq!(spans.last_by_first, BTreeMap::from([(10, 39)]));
        assert_eq!(spans.insert(5, 10), Err(10));
        assert_eq!(spans.insert(15, 50), Err(15));
        assert_eq!(spans.insert(39, 39), Err(39));
        assert_eq!(spans.insert(u64::MAX, u64::MAX), Ok(()));
        assert_eq!((spans.first_missing(10, 39), spans.first_missing(9, 12)), (None, Some(9)));
        assert_eq!((spans.first_missing(38, 41), spans.first_missing(50, 50)), (Some(40), Some(50)));
    }

    #[test]
    fn values_that_follow_each_other_are_one_group() {
        let groups: Vec<_> = spans_of(&[1, 2, 3, 7, 6, u64::MAX]).collect();
        assert_eq!(groups, [(1, 3), (7, 7), (6, 6), (u64::MAX, u64::MAX)]);
        assert_eq!(spans_of(&[]).count(), 0);
    }
}
