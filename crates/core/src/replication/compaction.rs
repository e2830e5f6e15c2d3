//! Compaction (R45): what of it replicas have to agree upon.
//!
//! Each replica compacts its own log. That a later record of a key takes the place of earlier ones needs no agreement: who
//! copies a part of a compacted log gets the later one, too. A tombstone that goes leaves nothing behind: who holds an
//! earlier record of its key, and copies from here what follows, would show that record for ever. So a log knows up to
//! where its tombstones may be gone, and two things hold of that bound, in every log, at any moment:
//! - every tombstone that is missing, without a later record of its key, lies below the bound;
//! - the log holds no record that is older than a tombstone below the bound, of the same key.
//!
//! The sender of batches tells its bound. A log below it takes them only with the very same bound: then what is behind, what
//! comes, and what has gone fit each other. Else it begins anew, and takes the bound over while it is empty.

use std::cmp::Ordering;

use super::{Action, Compacted, Position, ProducerTable, Replica, Role};
use crate::{Offset, mutant};

impl Replica {
    /// How far its log was compacted.
    pub fn compacted(&self) -> Compacted {
        self.compacted
    }

    /// Offset below which its log was cleaned; below its start nothing is left to clean.
    pub(super) fn cleaned_end(&self) -> Offset {
        self.compacted.cleaned_end.max(self.epochs.base().end)
    }

    /// Offset below which the logs of all that follow were cleaned, as far as is known here: a leader has it from what they
    /// say, a follower from its leader.
    pub(super) fn cleaned_by_all(&self) -> Offset {
        let others = match &self.role {
            Role::Active(leader) => leader.cleaned_by_peers(),
            Role::Follower(follower) => Some(follower.cleaned_by_all),
            Role::Recovering(_) | Role::Failed => Some(Offset::ZERO),
        };
        others.map_or(self.cleaned_end(), |others| others.min(self.cleaned_end()))
    }

    /// The log was cleaned, or a part of it is not clean any more.
    pub(super) fn handle_cleaned(&mut self, cleaned_end: Offset) {
        self.compacted.cleaned_end = cleaned_end.min(self.epochs.end());
    }

    /// The driver offers to drop tombstones below `below`. Not above what was cleaned here: an older record may be left
    /// there. Nor above what was cleaned by all: a follower that is behind would have to begin anew.
    pub(super) fn handle_drop_tombstones(&mut self, below: Offset) {
        let own = if mutant!(DropUncleaned) { self.high_watermark } else { self.cleaned_end() };
        let all = if mutant!(DropTombstonesAlone) { own } else { self.cleaned_by_all() };
        let all = if mutant!(DropUncleaned) { own } else { all };
        let below = below.min(own).min(all);
        if below > self.compacted.tombstones_gone_below {
            self.note_tombstones_gone(below);
        }
    }

    fn note_tombstones_gone(&mut self, below: Offset) {
        self.compacted.tombstones_gone_below = below;
        self.outbox.push(Action::NoteTombstonesGone { below });
    }

    /// The bound that is told with batches.
    pub(super) fn told_gone_below(&self) -> Offset {
        if mutant!(ForgetGone) { Offset::ZERO } else { self.compacted.tombstones_gone_below }
    }

    /// Whether batches may follow that come from a log whose tombstones may be gone below `gone_below`; the own bound is
    /// from then on what holds for both together.
    pub(super) fn fits_tombstones(&mut self, gone_below: Offset) -> bool {
        let (base, end) = (self.epochs.base().end, self.epochs.end());
        let joint = gone_below.max(end);
        match joint.cmp(&self.compacted.tombstones_gone_below) {
            Ordering::Equal => {}
            // Nothing that comes lies below the other's bound.
            Ordering::Greater if end >= gone_below => {}
            Ordering::Greater if end == base || mutant!(TakeAnyCopy) => self.note_tombstones_gone(gone_below),
            Ordering::Greater => return false,
            // What comes may hold a record and its tombstone below the own bound.
            Ordering::Less if mutant!(KeepBound) => {}
            Ordering::Less => self.note_tombstones_gone(joint),
        }
        true
    }

    /// A leader appends what nobody has dropped anything of.
    pub(super) fn bound_own_tombstones(&mut self) {
        let end = self.epochs.end();
        if self.compacted.tombstones_gone_below > end {
            self.note_tombstones_gone(end);
        }
    }

    /// Gives up the whole log, to be copied anew. It may have been counted on for what it held (R35): it votes no more until
    /// it has caught up (R36).
    pub(super) fn forget_log(&mut self) {
        self.nonvoter = true;
        (self.high_watermark, self.durable_high_watermark) = (Offset::ZERO, Offset::ZERO);
        self.outbox.persist_first(self.durable_state());
        if let Role::Follower(follower) = &mut self.role {
            follower.lose_log();
        }
        self.reset(Position::default(), ProducerTable::default());
    }
}
