//! Leader epochs (docs/protocol.md §1).

use std::fmt;

use serde::{Deserialize, Serialize};

/// Given by the controller with each appointment of a leader; grows by one per change of a partition's register.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Term(pub u32);

impl Term {
    /// The largest term that fits the 23 bits which a batch header leaves for it.
    pub const MAX: Term = Term((1 << 23) - 1);

    /// The term after this one.
    pub fn next(self) -> Term {
        Term(self.0 + 1)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of one leadership: `term` from the controller, `run` counted by the leader of that term for each
/// recovery it makes on its own (rule R10). One broker leads a term, so every epoch has at most one leader.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeaderEpoch {
    /// Which appointment.
    pub term: Term,
    /// Which attempt of that leader, 0 first.
    pub run: u8,
}

impl LeaderEpoch {
    /// Lower than every epoch that was ever led.
    pub const ZERO: LeaderEpoch = LeaderEpoch { term: Term(0), run: 0 };

    /// The first attempt of a term's leader.
    pub fn first(term: Term) -> LeaderEpoch {
        LeaderEpoch { term, run: 0 }
    }

    /// The next attempt in the same term; `None` when the 255 of a term are used up and a new term is needed.
    pub fn next_run(self) -> Option<LeaderEpoch> {
        Some(LeaderEpoch { term: self.term, run: self.run.checked_add(1)? })
    }

    /// As batch headers and clients carry it: `term << 8 | run`.
    pub fn to_wire(self) -> i32 {
        ((self.term.0 << 8) | u32::from(self.run)) as i32
    }

    /// Reads the wire form; `None` for a negative number (which a batch header holds before a leader stamped it).
    pub fn from_wire(wire: i32) -> Option<LeaderEpoch> {
        let bits = u32::try_from(wire).ok()?;
        Some(LeaderEpoch { term: Term(bits >> 8), run: (bits & 0xff) as u8 })
    }
}

impl fmt::Display for LeaderEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_form_keeps_order_and_reads_back() {
        let epochs = [
            LeaderEpoch::ZERO,
            LeaderEpoch { term: Term(0), run: 255 },
            LeaderEpoch::first(Term(1)),
            LeaderEpoch { term: Term::MAX, run: 255 },
        ];
        for pair in epochs.windows(2) {
            assert!(pair[0] < pair[1] && pair[0].to_wire() < pair[1].to_wire());
        }
        for epoch in epochs {
            assert_eq!(LeaderEpoch::from_wire(epoch.to_wire()), Some(epoch));
        }
        assert_eq!(LeaderEpoch::from_wire(-1), None);
    }

    #[test]
    fn runs_of_a_term_end() {
        assert_eq!(LeaderEpoch { term: Term(3), run: 255 }.next_run(), None);
    }
}
