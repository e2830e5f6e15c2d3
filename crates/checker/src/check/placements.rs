//! The version order the other way round: at which offsets each value of a key is.

use std::collections::BTreeMap;

use super::versions::{Marks, Run, Versions};

/// Values that follow each other, each at one offset (also following), or one value at several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placed {
    /// First value.
    pub(super) value: u64,
    /// How many values.
    pub(super) len: u64,
    /// Lowest offset of the first value.
    pub(super) earliest: u64,
    /// Highest offset of the first value; higher than `earliest` only where `len` is 1.
    pub(super) latest: u64,
    /// All ways in which they were met, at whichever offset.
    pub(super) marks: Marks,
}

/// At which offsets the values of a key are.
#[derive(Debug, Default)]
pub(super) struct Placements {
    /// Sorted by value, without overlap.
    first: Vec<(Run, Marks)>,
    /// Further places of values, with their offsets.
    copies: BTreeMap<u64, Vec<(u64, Marks)>>,
}

impl Placements {
    /// Of a version order.
    pub(super) fn of(versions: &Versions) -> Placements {
        let mut all: Vec<(Run, Marks)> = versions.iter().collect();
        all.sort_by_key(|(run, _)| (run.value, run.offset));
        let mut placements = Placements::default();
        for (run, marks) in all {
            placements.add(run, marks);
        }
        placements
    }

    /// Adds a run whose first value is not below those of all before.
    fn add(&mut self, run: Run, marks: Marks) {
        let known = self.first.last().map_or(0, |(last, _)| {
            let last_value = last.value + (last.len - 1);
            if last_value < run.value { 0 } else { (last_value - run.value + 1).min(run.len) }
        });
        for index in 0..known {
            self.copies.entry(run.value + index).or_default().push((run.offset + index, marks));
        }
        if known < run.len {
            let rest = Run { offset: run.offset + known, value: run.value + known, len: run.len - known };
            self.first.push((rest, marks));
        }
    }

    /// Values at more than one offset, with all their offsets in order.
    pub(super) fn duplicates(&self) -> impl Iterator<Item = (u64, Vec<u64>)> {
        self.copies.keys().map(|&value| (value, self.offsets(value)))
    }

    /// All offsets of a value, in order.
    pub(super) fn offsets(&self, value: u64) -> Vec<u64> {
        let after = self.first.partition_point(|(run, _)| run.value <= value);
        let place = after.checked_sub(1).and_then(|index| self.first.get(index));
        let place = place.filter(|(run, _)| value - run.value < run.len);
        let mut offsets: Vec<u64> =
            place.map(|(run, _)| run.offset + (value - run.value)).into_iter().collect();
        offsets.extend(self.copies.get(&value).into_iter().flatten().map(|&(offset, _)| offset));
        offsets.sort_unstable();
        offsets
    }

    /// All values in order, as groups of equal fate.
    pub(super) fn groups(&self) -> impl Iterator<Item = Placed> {
        self.first.iter().flat_map(|&(run, marks)| self.groups_of(run, marks))
    }

    fn groups_of(&self, run: Run, marks: Marks) -> Vec<Placed> {
        let mut groups = Vec::new();
        let mut begin = 0;
        let plain = |begin: u64, end: u64| Placed {
            value: run.value + begin,
            len: end - begin,
            earliest: run.offset + begin,
            latest: run.offset + begin,
            marks,
        };
        for (&value, copies) in self.copies.range(run.value..=run.value + (run.len - 1)) {
            let index = value - run.value;
            if begin < index {
                groups.push(plain(begin, index));
            }
            let mut one = plain(index, index + 1);
            for &(offset, marks) in copies {
                one.earliest = one.earliest.min(offset);
                one.latest = one.latest.max(offset);
                one.marks = one.marks.with(marks);
            }
            groups.push(one);
            begin = index + 1;
        }
        if begin < run.len {
            groups.push(plain(begin, run.len));
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_at_two_offsets_is_a_group_of_its_own() {
        let mut versions = Versions::default();
        versions.add(Run { offset: 0, value: 100, len: 10 }, Marks::ACKED);
        versions.add(Run { offset: 10, value: 104, len: 2 }, Marks::READ);
        let placements = Placements::of(&versions);
        assert_eq!(placements.duplicates().collect::<Vec<_>>(), [(104, vec![4, 10]), (105, vec![5, 11])]);
        let groups: Vec<_> =
            placements.groups().map(|group| (group.value, group.len, group.latest)).collect();
        assert_eq!(groups, [(100, 4, 0), (104, 1, 10), (105, 1, 11), (106, 4, 6)]);
        assert_eq!((placements.offsets(107), placements.offsets(110)), (vec![7], vec![]));
    }
}
