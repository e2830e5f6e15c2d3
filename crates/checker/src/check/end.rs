//! Rules that are judged when all of a key's history is known.

use super::key::{Gap, KeyState, Unplaced, example};
use super::placements::{Placed, Placements};
use super::versions::{Marks, Versions};
use crate::anomaly::{Findings, Kind, Place};
use crate::history::Key;

/// Judges a key whose history has ended. `has_final` says whether a final phase was begun.
pub(super) fn judge(state: &mut KeyState, has_final: bool, findings: &mut Findings) {
    state.end(findings);
    let placements = Placements::of(&state.versions);
    let end = End { key: &state.key, versions: &state.versions, placements: &placements, findings };
    end.judge(state, has_final && state.read_in_final);
}

struct End<'a> {
    key: &'a Key,
    versions: &'a Versions,
    placements: &'a Placements,
    findings: &'a mut Findings,
}

impl End<'_> {
    /// `read_again`: everything was read from the beginning in the final phase.
    fn judge(mut self, state: &KeyState, read_again: bool) {
        self.check_duplicates();
        self.check_fates(read_again);
        for send in &state.failed {
            self.check_failed(send);
        }
        for send in &state.unknown {
            self.check_batch(send, read_again);
        }
        for &gap in &state.gaps {
            self.check_gap(gap);
        }
    }

    fn check_duplicates(&mut self) {
        for (value, offsets) in self.placements.duplicates() {
            self.findings.add(Kind::Duplicate, 1, || {
                let detail = format!("is at offsets {offsets:?}");
                example(self.key, offsets.first().copied(), Some(value), None, detail)
            });
        }
    }

    /// What became of acknowledged and of shown values.
    fn check_fates(&mut self, read_again: bool) {
        let read_to = self.highest(Marks::READ);
        let read_again_to = self.highest(Marks::FINAL);
        for group in self.placements.groups() {
            let has = |marks| group.marks.has(marks);
            if has(Marks::ACKED) && !has(Marks::READ) {
                let lost = at_or_below(group, read_to);
                self.report(
                    Kind::LostWrite,
                    group,
                    0,
                    lost,
                    "was acknowledged and never read, though later ones were",
                );
                if read_again && !has(Marks::SHOWN) {
                    let detail = "was acknowledged, and nothing from there on was read by the end";
                    self.report(Kind::Unseen, group, lost, group.len, detail);
                }
            } else if read_again && has(Marks::ACKED) && !has(Marks::FINAL) {
                let lost = at_or_below(group, read_again_to);
                self.report(
                    Kind::LostWrite,
                    group,
                    0,
                    lost,
                    "was acknowledged and read, and is gone in the end",
                );
            }
            if read_again && has(Marks::SHOWN) && !has(Marks::FINAL) {
                self.report(Kind::PrecommittedRead, group, 0, group.len, "was read, and is gone in the end");
            }
        }
    }

    /// The highest offset of a record met in that way; where a value is at several offsets its lowest counts.
    fn highest(&self, marks: Marks) -> Option<u64> {
        let met = self.placements.groups().filter(|group| group.marks.has(marks));
        met.map(|group| group.earliest + (group.len - 1)).max()
    }

    /// Reports the values of a group from one index to another (exclusive).
    fn report(&mut self, kind: Kind, group: Placed, from: u64, to: u64, detail: &str) {
        if from < to {
            self.findings.add(kind, to - from, || {
                let (offset, value) = (group.latest + from, group.value + from);
                let more = to - from - 1;
                let detail =
                    if more == 0 { detail.to_owned() } else { format!("{detail}; so are the next {more}") };
                example(self.key, Some(offset), Some(value), None, detail)
            });
        }
    }

    fn check_failed(&mut self, send: &Unplaced) {
        for value in send.values.iter().flat_map(|&(first, last)| first..=last) {
            if let Some(&offset) = self.placements.offsets(value).first() {
                self.findings.add(Kind::AbortedRead, 1, || {
                    let detail = "is there, though its send certainly failed".to_owned();
                    example(self.key, Some(offset), Some(value), Some(send.place), detail)
                });
            }
        }
    }

    /// The values of one send are there together, in order and beside each other, or none of them is.
    fn check_batch(&mut self, send: &Unplaced, read_again: bool) {
        let values: Vec<u64> = send.values.iter().flat_map(|&(first, last)| first..=last).collect();
        let offsets: Vec<Option<u64>> =
            values.iter().map(|&value| self.placements.offsets(value).first().copied()).collect();
        let Some(last) = offsets.iter().rposition(Option::is_some) else { return };
        // Behind the last one seen there may be more that nobody has read yet.
        let end = if read_again { offsets.len() } else { last + 1 };
        for index in 0..end {
            let before = index.checked_sub(1).and_then(|before| offsets[before]);
            let (value, offset) = (values[index], offsets[index]);
            self.check_neighbours(send.place, value, before, offset);
        }
    }

    fn check_neighbours(&mut self, place: Place, value: u64, before: Option<u64>, offset: Option<u64>) {
        let (kind, detail) = match (before, offset) {
            (_, None) => (Kind::IntSendSkip, "is missing, though others of its batch are there".to_owned()),
            (Some(before), Some(offset)) if offset <= before => (
                Kind::IntNonmonotonicSend,
                format!("is not behind offset {before} of the value sent before it"),
            ),
            (Some(before), Some(offset)) if self.versions.next_at(before + 1) != Some(offset) => {
                (Kind::IntSendSkip, format!("is not beside offset {before} of the value sent before it"))
            }
            (_, Some(_)) => return,
        };
        self.findings.add(kind, 1, || example(self.key, offset, Some(value), Some(place), detail));
    }

    fn check_gap(&mut self, gap: Gap) {
        let Some(offset) = self.versions.next_at(gap.from).filter(|&offset| offset < gap.to) else { return };
        let kind = if gap.within { Kind::IntPollSkip } else { Kind::PollSkip };
        let left_out = self.versions.count(gap.from, gap.to);
        self.findings.add(kind, 1, || {
            let detail = format!("{left_out} records left out from here on; offset {} was read next", gap.to);
            example(self.key, Some(offset), self.versions.value_at(offset), Some(gap.place), detail)
        });
    }
}

/// How many values of a group are at or below an offset.
fn at_or_below(group: Placed, offset: Option<u64>) -> u64 {
    match offset {
        Some(offset) if offset >= group.latest => (offset - group.latest + 1).min(group.len),
        _ => 0,
    }
}
