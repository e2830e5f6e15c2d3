//! The order of what one process reads from one key.

use super::versions::{Run, runs_of};

/// Something out of order in a poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Offsets from `from` to `to` (exclusive) were passed over. Whether a record was there is known in the end.
    Over { from: u64, to: u64, within: bool },
    /// `offset` came though `expected` was next.
    Back { expected: u64, offset: u64, within: bool },
}

/// A process's position in a key.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Position {
    /// Offset after the last record shown, or assigned.
    next: Option<u64>,
    /// Highest high watermark seen.
    watermark: Option<u64>,
}

impl Position {
    /// The process goes on from there.
    pub(super) fn assign(&mut self, offset: u64) {
        self.next = Some(offset);
    }

    /// Offset after the last record shown.
    pub(super) fn next(&self) -> Option<u64> {
        self.next
    }

    /// A high watermark came. Gives the one before if that was higher.
    pub(super) fn see_watermark(&mut self, watermark: u64) -> Option<u64> {
        let before = self.watermark;
        self.watermark = self.watermark.max(Some(watermark));
        before.filter(|&before| before > watermark)
    }

    /// Records were shown, by a poll that succeeded or not: the process has them.
    pub(super) fn advance(&mut self, records: &[(u64, u64)], mut found: impl FnMut(Run, Step)) {
        for (index, run) in runs_of(records).enumerate() {
            let within = index > 0;
            match self.next {
                Some(next) if run.offset > next => {
                    found(run, Step::Over { from: next, to: run.offset, within });
                }
                Some(next) if run.offset < next => {
                    found(run, Step::Back { expected: next, offset: run.offset, within });
                }
                _ => {}
            }
            self.next = Some(run.end());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(position: &mut Position, records: &[(u64, u64)]) -> Vec<Step> {
        let mut steps = Vec::new();
        position.advance(records, |_, step| steps.push(step));
        steps
    }

    #[test]
    fn steps_within_and_between_polls_are_told_apart() {
        let mut position = Position::default();
        assert_eq!(steps(&mut position, &[(5, 50), (6, 51)]), [], "where it began is not known");
        let expected = [
            Step::Over { from: 7, to: 9, within: false },
            Step::Back { expected: 10, offset: 9, within: true },
            Step::Over { from: 10, to: 12, within: true },
        ];
        assert_eq!(steps(&mut position, &[(9, 54), (9, 54), (12, 57)]), expected);
        let back = Step::Back { expected: 13, offset: 12, within: false };
        assert_eq!(steps(&mut position, &[(12, 57)]), [back]);
        position.assign(3);
        assert_eq!(steps(&mut position, &[(3, 1), (4, 77)]), [], "the value does not matter");
    }

    #[test]
    fn a_watermark_that_falls_is_told() {
        let mut position = Position::default();
        assert_eq!(position.see_watermark(10), None);
        assert_eq!(position.see_watermark(9), Some(10));
        assert_eq!(position.see_watermark(10), None);
    }
}
