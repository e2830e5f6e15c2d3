//! Since when a log has been cleaned how far: a tombstone may go once that is long enough ago.

use holdfast_core::Offset;

/// Most marks that are kept. A tombstone waits up to a share of the delay longer for there being no more.
const MOST: usize = 64;

/// Everything below an offset was cleaned at that time, or before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Exclusive.
    pub(crate) end: Offset,
    /// Milliseconds since 1970.
    pub(crate) at_ms: i64,
}

/// Ascending in offset and in time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Marks(Vec<Mark>);

impl Marks {
    /// `None` unless they ascend.
    pub(crate) fn new(marks: Vec<Mark>) -> Option<Marks> {
        let ascend = |pair: &[Mark]| pair[0].end < pair[1].end && pair[0].at_ms <= pair[1].at_ms;
        marks.windows(2).all(ascend).then_some(Marks(marks))
    }

    pub(crate) fn all(&self) -> &[Mark] {
        &self.0
    }

    /// The end of what was cleaned longer ago than `delay_ms`; 0 if nothing was. A clock that was set back lets more time
    /// pass, one that was set forward less.
    pub(crate) fn older_than(&self, delay_ms: u64, now_ms: i64) -> Offset {
        let old =
            |mark: &&Mark| now_ms.saturating_sub(mark.at_ms) > i64::try_from(delay_ms).unwrap_or(i64::MAX);
        self.0.iter().rfind(old).map_or(Offset::ZERO, |mark| mark.end)
    }

    /// The log was cleaned up to `end`.
    pub(crate) fn push(&mut self, end: Offset, now_ms: i64, delay_ms: u64) {
        let Some(last) = self.0.last().copied() else { return self.0.push(Mark { end, at_ms: now_ms }) };
        if end <= last.end {
            return;
        }
        self.0.push(Mark { end, at_ms: now_ms.max(last.at_ms) });
        // One of the old ones says all that the others do.
        let old = self.older_than(delay_ms, now_ms);
        self.0.retain(|mark| mark.end >= old);
        if self.0.len() > MOST {
            let gap = |number: &usize| self.0[number + 1].at_ms.saturating_sub(self.0[*number].at_ms);
            let closest = (0..self.0.len() - 1).min_by_key(gap);
            closest.map(|number| self.0.remove(number));
        }
    }

    /// Nothing at or above `end` counts as cleaned any more.
    pub(crate) fn lower(&mut self, end: Offset) {
        let kept = self.0.partition_point(|mark| mark.end < end);
        self.0.truncate(kept + 1);
        if let Some(last) = self.0.get_mut(kept) {
            last.end = end;
        }
        self.0.retain(|mark| mark.end > Offset::ZERO);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(marks: &Marks) -> Vec<u64> {
        marks.all().iter().map(|mark| mark.end.0).collect()
    }

    #[test]
    fn a_tombstone_is_as_old_as_the_first_mark_behind_it() {
        let mut marks = Marks::default();
        for (end, now) in [(10, 1000), (20, 2000), (20, 2500), (30, 3000)] {
            marks.push(Offset(end), now, 1_000_000);
        }
        let older = |now| marks.older_than(1000, now).0;
        assert_eq!([1500, 2000, 2001, 3000, 3001, 9000].map(older), [0, 0, 10, 10, 20, 30]);
        assert_eq!(marks.older_than(u64::MAX, i64::MAX), Offset::ZERO, "never");
        assert_eq!(marks.older_than(0, 1000), Offset::ZERO, "not before it is older");
    }

    #[test]
    fn old_marks_become_one_and_there_are_never_many() {
        let mut marks = Marks::default();
        for step in 1..=40 {
            marks.push(Offset(step), step as i64 * 100, 1000);
        }
        assert_eq!(ends(&marks), (29..=40).collect::<Vec<_>>());
        for step in 41..1000 {
            marks.push(Offset(step), step as i64 * 100, u64::MAX);
            assert!(marks.all().len() <= MOST);
        }
        assert_eq!(Marks::new(marks.all().to_vec()), Some(marks.clone()));
        // What is left is never older than it was.
        for mark in marks.all() {
            assert!(mark.end.0 <= 29 || mark.at_ms == mark.end.0 as i64 * 100);
        }
    }

    #[test]
    fn a_clock_that_was_set_back_lets_more_time_pass() {
        let mut marks = Marks::default();
        marks.push(Offset(10), 5000, 1000);
        marks.push(Offset(20), 1000, 1000);
        assert_eq!(marks.older_than(1000, 2500), Offset::ZERO);
        assert_eq!(marks.older_than(1000, 6001), Offset(20));
    }

    #[test]
    fn what_is_not_clean_any_more_has_no_mark() {
        let mut marks = Marks::default();
        for end in [10, 20, 30] {
            marks.push(Offset(end), end as i64, 1000);
        }
        let lowered = |end| {
            let mut marks = marks.clone();
            marks.lower(Offset(end));
            ends(&marks)
        };
        assert_eq!(lowered(30), [10, 20, 30]);
        assert_eq!(lowered(25), [10, 20, 25]);
        assert_eq!(lowered(20), [10, 20]);
        assert_eq!(lowered(5), [5]);
        assert_eq!(lowered(0), [0; 0]);
    }
}
