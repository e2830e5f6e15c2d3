//! The order of one process's sends to one key.

use std::collections::VecDeque;

use crate::anomaly::Place;

/// Number of a send among those of its process and key.
pub(super) type Turn = u64;

#[derive(Debug, Clone, Copy)]
enum Fate {
    Waiting,
    Acked {
        first: u64,
        last: u64,
        place: Place,
    },
    /// Failed, unknown, or ended with its process: says nothing of the order.
    Skipped,
}

/// An acknowledged send at a lower offset than one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WentBack {
    pub(super) first: u64,
    pub(super) place: Place,
    pub(super) earlier_last: u64,
    pub(super) earlier: Place,
}

/// Sends of a process that wait for an answer, and those behind them. Memory: what is in flight.
#[derive(Debug, Clone, Default)]
pub(super) struct SendOrder {
    waiting: VecDeque<Fate>,
    /// Turn of the first of `waiting`.
    begin: Turn,
    /// Highest offset acknowledged before, and where.
    highest: Option<(u64, Place)>,
}

impl SendOrder {
    /// A send begins.
    pub(super) fn begin(&mut self) -> Turn {
        self.waiting.push_back(Fate::Waiting);
        self.begin + self.waiting.len() as u64 - 1
    }

    /// A send is acknowledged at these offsets. Gives those that turn out to have gone back.
    pub(super) fn acked(&mut self, turn: Turn, first: u64, last: u64, place: Place) -> Vec<WentBack> {
        self.set(turn, Fate::Acked { first, last, place })
    }

    /// A send has no offset.
    pub(super) fn skipped(&mut self, turn: Turn) -> Vec<WentBack> {
        self.set(turn, Fate::Skipped)
    }

    /// The process ends, or the history: what waits still has no offset.
    pub(super) fn end(&mut self) -> Vec<WentBack> {
        for fate in &mut self.waiting {
            if matches!(fate, Fate::Waiting) {
                *fate = Fate::Skipped;
            }
        }
        self.drain()
    }

    fn set(&mut self, turn: Turn, fate: Fate) -> Vec<WentBack> {
        let index = turn.checked_sub(self.begin).and_then(|index| usize::try_from(index).ok());
        if let Some(waiting) = index.and_then(|index| self.waiting.get_mut(index)) {
            *waiting = fate;
        }
        self.drain()
    }

    /// Judges in order of the sends, as far as all before are known.
    fn drain(&mut self) -> Vec<WentBack> {
        let mut back = Vec::new();
        while let Some(&fate) = self.waiting.front().filter(|fate| !matches!(fate, Fate::Waiting)) {
            self.waiting.pop_front();
            self.begin += 1;
            let Fate::Acked { first, last, place } = fate else { continue };
            match self.highest {
                Some((earlier_last, earlier)) if first <= earlier_last => {
                    back.push(WentBack { first, place, earlier_last, earlier });
                    self.highest = Some((earlier_last.max(last), place));
                }
                _ => self.highest = Some((last, place)),
            }
        }
        back
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(op: u64) -> Place {
        Place { line: op, process: 1, op }
    }

    #[test]
    fn sends_are_judged_in_their_own_order_not_in_that_of_answers() {
        let mut order = SendOrder::default();
        let turns = [order.begin(), order.begin(), order.begin()];
        assert_eq!(order.acked(turns[2], 20, 20, place(2)), []);
        assert_eq!(order.skipped(turns[1]), []);
        assert_eq!(order.acked(turns[0], 10, 12, place(0)), [], "10 was sent before 20");
        let turn = order.begin();
        let back = WentBack { first: 15, place: place(3), earlier_last: 20, earlier: place(2) };
        assert_eq!(order.acked(turn, 15, 16, place(3)), [back]);
    }

    #[test]
    fn what_never_had_an_answer_holds_nothing_up_in_the_end() {
        let mut order = SendOrder::default();
        let turns = [order.begin(), order.begin(), order.begin()];
        assert_eq!(order.acked(turns[1], 9, 9, place(1)), []);
        assert_eq!(order.acked(turns[2], 8, 8, place(2)), []);
        assert_eq!(order.end().len(), 1);
    }
}
