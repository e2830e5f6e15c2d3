//! The version order of one key: which value is at which offset, from acknowledgements and from everything any poll
//! showed.
//!
//! Kept as runs of records whose offsets and values both count up and that were met in the same ways: a log written by
//! one process takes a few runs, one with a value here and a value there takes about 40 bytes a record.

use std::collections::BTreeMap;

/// Ways in which a version was met.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Marks(u8);

impl Marks {
    /// Acknowledged to its sender.
    pub(super) const ACKED: Marks = Marks(1);
    /// Shown by any poll, also one that failed.
    pub(super) const SHOWN: Marks = Marks(2);
    /// Read by a poll that succeeded.
    pub(super) const READ: Marks = Marks(4);
    /// Read in the final phase.
    pub(super) const FINAL: Marks = Marks(8);

    pub(super) fn has(self, other: Marks) -> bool {
        self.0 & other.0 == other.0
    }

    pub(super) fn with(self, other: Marks) -> Marks {
        Marks(self.0 | other.0)
    }
}

/// Records with offsets and values that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// Offset of the first.
    pub(super) offset: u64,
    /// Value of the first.
    pub(super) value: u64,
    /// How many; at least one.
    pub(super) len: u64,
}

impl Run {
    /// Offset after the last.
    pub(super) fn end(self) -> u64 {
        self.offset + self.len
    }

    /// Whether `other` goes on where this ends.
    fn continues_with(self, other: Run) -> bool {
        self.end() == other.offset && self.value.checked_add(self.len) == Some(other.value)
    }

    /// The part from one offset to another (exclusive), both within.
    fn part(self, from: u64, to: u64) -> Run {
        Run { offset: from, value: self.value + (from - self.offset), len: to - from }
    }
}

/// Groups records into runs, in their order.
pub(super) fn runs_of(records: &[(u64, u64)]) -> impl Iterator<Item = Run> {
    let follows =
        |a: &(u64, u64), b: &(u64, u64)| a.0.checked_add(1) == Some(b.0) && a.1.checked_add(1) == Some(b.1);
    records.chunk_by(follows).map(|chunk| Run {
        offset: chunk[0].0,
        value: chunk[0].1,
        len: chunk.len() as u64,
    })
}

/// Two values at one offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Conflict {
    pub(super) offset: u64,
    pub(super) known: u64,
    pub(super) value: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stored {
    value: u64,
    len: u64,
    marks: Marks,
}

/// Which value is at which offset of a key.
#[derive(Debug, Clone, Default)]
pub(super) struct Versions {
    /// The value met first at each offset, by offset; runs do not overlap.
    runs: BTreeMap<u64, Stored>,
    /// Other values met at an offset that has one.
    others: BTreeMap<(u64, u64), Marks>,
}

impl Versions {
    /// Adds records that were met. Gives the conflicts that are new.
    pub(super) fn add(&mut self, run: Run, marks: Marks) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        let mut at = run.offset;
        while at < run.end() {
            at = match self.run_at(at) {
                Some((known, known_marks)) => {
                    let end = known.end().min(run.end());
                    let part = run.part(at, end);
                    if known.part(at, end) == part {
                        if !known_marks.has(marks) {
                            self.mark(part, marks);
                        }
                    } else {
                        self.add_others(known.part(at, end), part, marks, &mut conflicts);
                    }
                    end
                }
                None => {
                    let end = self.next_at(at).unwrap_or(u64::MAX).min(run.end());
                    let part = run.part(at, end);
                    self.runs.insert(at, Stored { value: part.value, len: part.len, marks });
                    end
                }
            };
        }
        self.join(run.offset, run.end());
        conflicts
    }

    /// The first offset from `offset` on that has a record.
    pub(super) fn next_at(&self, offset: u64) -> Option<u64> {
        if self.run_at(offset).is_some() {
            return Some(offset);
        }
        self.runs.range(offset..).next().map(|(&offset, _)| offset)
    }

    /// The highest offset that has a record.
    pub(super) fn last_offset(&self) -> Option<u64> {
        self.runs.last_key_value().map(|(&offset, run)| offset + (run.len - 1))
    }

    /// The value first met at an offset.
    pub(super) fn value_at(&self, offset: u64) -> Option<u64> {
        self.run_at(offset).map(|(run, _)| run.value + (offset - run.offset))
    }

    /// How many offsets from `from` to `to` (exclusive) have a record.
    pub(super) fn count(&self, from: u64, to: u64) -> u64 {
        let first = self.run_at(from).map_or(from, |(run, _)| run.offset);
        let within = |(&offset, run): (&u64, &Stored)| (offset + run.len).min(to) - offset.max(from);
        self.runs.range(first..to.max(first)).map(within).sum()
    }

    /// All records with the ways they were met, other values last.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Run, Marks)> {
        let runs = self
            .runs
            .iter()
            .map(|(&offset, run)| (Run { offset, value: run.value, len: run.len }, run.marks));
        let other =
            |(&(offset, value), &marks): (&(u64, u64), &Marks)| (Run { offset, value, len: 1 }, marks);
        runs.chain(self.others.iter().map(other))
    }

    fn run_at(&self, offset: u64) -> Option<(Run, Marks)> {
        let (&first, run) = self.runs.range(..=offset).next_back()?;
        let found = Run { offset: first, value: run.value, len: run.len };
        (found.end() > offset).then_some((found, run.marks))
    }

    fn add_others(&mut self, known: Run, met: Run, marks: Marks, conflicts: &mut Vec<Conflict>) {
        for index in 0..met.len {
            let (offset, value) = (met.offset + index, met.value + index);
            let other = self.others.entry((offset, value)).or_insert_with(|| {
                conflicts.push(Conflict { offset, known: known.value + index, value });
                Marks::default()
            });
            *other = other.with(marks);
        }
    }

    /// Marks a part of one run.
    fn mark(&mut self, part: Run, marks: Marks) {
        self.split(part.offset);
        self.split(part.end());
        if let Some(run) = self.runs.get_mut(&part.offset) {
            run.marks = run.marks.with(marks);
        }
    }

    /// Makes a run begin at an offset, if one goes across it.
    fn split(&mut self, offset: u64) {
        let Some((run, marks)) = self.run_at(offset).filter(|(run, _)| run.offset < offset) else { return };
        let (head, tail) = (run.part(run.offset, offset), run.part(offset, run.end()));
        self.runs.insert(head.offset, Stored { value: head.value, len: head.len, marks });
        self.runs.insert(tail.offset, Stored { value: tail.value, len: tail.len, marks });
    }

    /// Joins runs from the one before `from` to the one that begins at `to`.
    fn join(&mut self, from: u64, to: u64) {
        let first = self.runs.range(..from).next_back().map_or(from, |(&offset, _)| offset);
        let mut last: Option<(Run, Marks)> = None;
        let mut joined = Vec::new();
        for (&offset, stored) in self.runs.range(first..=to) {
            let run = Run { offset, value: stored.value, len: stored.len };
            match &mut last {
                Some((before, marks)) if before.continues_with(run) && *marks == stored.marks => {
                    before.len += run.len;
                    joined.push((before.offset, before.len, offset));
                }
                _ => last = Some((run, stored.marks)),
            }
        }
        for (offset, len, gone) in joined {
            self.runs.remove(&gone);
            if let Some(run) = self.runs.get_mut(&offset) {
                run.len = len;
            }
        }
    }

    #[cfg(test)]
    fn run_count(&self) -> usize {
        self.runs.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(offset: u64, value: u64, len: u64) -> Run {
        Run { offset, value, len }
    }

    #[test]
    fn a_log_written_in_order_takes_one_run() {
        let mut versions = Versions::default();
        for batch in 0..100 {
            assert!(versions.add(run(batch * 3, 1000 + batch * 3, 3), Marks::ACKED).is_empty());
        }
        assert_eq!(versions.run_count(), 1);
        for batch in 0..100 {
            assert!(versions.add(run(batch * 3, 1000 + batch * 3, 3), Marks::READ).is_empty());
            assert!(versions.run_count() <= 2);
        }
        assert_eq!(
            versions.iter().collect::<Vec<_>>(),
            [(run(0, 1000, 300), Marks::ACKED.with(Marks::READ))]
        );
    }

    #[test]
    fn another_value_at_an_offset_is_a_conflict_once() {
        let mut versions = Versions::default();
        versions.add(run(10, 100, 5), Marks::ACKED);
        let conflict = Conflict { offset: 14, known: 104, value: 7 };
        assert_eq!(versions.add(run(14, 7, 2), Marks::SHOWN), [conflict]);
        assert_eq!(versions.add(run(14, 7, 2), Marks::READ), []);
        assert_eq!(versions.value_at(14), Some(104));
        assert_eq!(versions.value_at(15), Some(8));
        let all: Vec<_> = versions.iter().collect();
        assert_eq!(all.last(), Some(&(run(14, 7, 1), Marks::SHOWN.with(Marks::READ))));
    }

    #[test]
    fn holes_are_seen() {
        let mut versions = Versions::default();
        versions.add(run(0, 0, 5), Marks::READ);
        versions.add(run(6, 5, 4), Marks::READ);
        assert_eq!(
            (versions.next_at(4), versions.next_at(5), versions.next_at(10)),
            (Some(4), Some(6), None)
        );
        assert_eq!((versions.count(0, 10), versions.count(3, 8), versions.count(5, 6)), (9, 4, 0));
    }

    #[test]
    fn runs_agree_with_a_plain_map() {
        // Every way to add three short runs at offsets 0 to 5, against a map of single records.
        let runs: Vec<Run> = (0..5).flat_map(|at| (1..4).map(move |len| run(at, at + 10, len))).collect();
        let marks = [Marks::ACKED, Marks::READ, Marks::ACKED];
        for picks in (0..runs.len().pow(3)).map(|n| [n % 15, n / 15 % 15, n / 225]) {
            let (mut versions, mut plain) = (Versions::default(), BTreeMap::<u64, Marks>::new());
            for (pick, marks) in picks.into_iter().zip(marks) {
                let run = runs[pick];
                assert!(versions.add(run, marks).is_empty());
                for offset in run.offset..run.end() {
                    let known = plain.entry(offset).or_default();
                    *known = known.with(marks);
                }
            }
            let single =
                |(run, marks): (Run, Marks)| (run.offset..run.end()).map(move |offset| (offset, marks));
            assert_eq!(versions.iter().flat_map(single).collect::<BTreeMap<_, _>>(), plain, "{picks:?}");
        }
    }
}
