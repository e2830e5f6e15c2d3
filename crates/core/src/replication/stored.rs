//! What is known of a replica besides its log when a process starts, and what follows from it (R33 to R35).
//!
//! The driver reads and writes files; what may be believed of them is decided here, for the broker and the simulator
//! alike. What is to be verified in the log itself, `holdfast-log` decides by the same `StoredReplica`.

use serde::{Deserialize, Serialize};

use super::action::DurableState;
use super::epochs::EpochIndex;
use super::producers::ProducerTable;
use super::setup::Loaded;
use crate::{Incarnation, LeaderEpoch, Offset, ReplicaId};

/// R34: whether what the last run wrote and did not flush may be gone: it did not end in order, and the machine was booted
/// since.
pub fn tail_is_lost(ended_in_order: bool, same_boot: bool) -> bool {
    !ended_in_order && !same_boot
}

/// Lower bounds of a replica's watermarks, as of some moment; noted lazily, so they lag.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Of the high watermark (exclusive).
    pub high_watermark: Offset,
    /// Of the end of what is flushed (exclusive). Never above `high_watermark`: what lies there may be truncated, and
    /// must not be missed after a crash.
    pub durable_end: Offset,
}

impl Checkpoint {
    /// What to note next of a log with these watermarks. What an earlier run noted as flushed stays true until it is
    /// taken back, also while this run has flushed less: below it nothing may be taken for a torn tail.
    #[must_use]
    pub fn next(self, high_watermark: Offset, durable_end: Offset) -> Checkpoint {
        Checkpoint { high_watermark, durable_end: durable_end.max(self.durable_end).min(high_watermark) }
    }

    /// What to note with a state that is persisted, where the high watermark has fallen below what was noted: after
    /// damage, and in an unclean term (R35, R37). Before the log is written to: else what comes there would be taken for
    /// flushed, or a replica that has forgotten something for one that never held it.
    #[must_use]
    pub fn taken_back(self, high_watermark: Offset) -> Option<Checkpoint> {
        (high_watermark < self.high_watermark).then(|| self.at_most(high_watermark))
    }

    fn at_most(self, end: Offset) -> Checkpoint {
        let Checkpoint { high_watermark, durable_end } = self;
        Checkpoint { high_watermark: high_watermark.min(end), durable_end: durable_end.min(end) }
    }
}

/// What is on disk about one replica besides its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredReplica {
    /// What was persisted last.
    pub state: DurableState,
    /// What was noted last.
    pub checkpoint: Checkpoint,
    /// Whether a power cut may have taken what was written and not flushed (R34), and no state says yet what follows.
    pub tail_lost: bool,
}

impl StoredReplica {
    /// One of which nothing but its state is noted.
    pub fn new(state: DurableState) -> StoredReplica {
        StoredReplica { state, checkpoint: Checkpoint::default(), tail_lost: false }
    }

    /// A state was persisted. The first after a loss says what follows from it: the mark has done its work.
    pub fn take_state(&mut self, state: DurableState) {
        (self.state, self.tail_lost) = (state, false);
    }

    /// What is above the flushed end may be gone, so it is no longer to be missed.
    pub fn lose_tail(&mut self) {
        self.tail_lost = true;
        self.checkpoint = self.checkpoint.at_most(self.checkpoint.durable_end);
    }

    /// A promise is durable before anything of its epoch is written (R8): the epoch, if the log ends with a later one. A
    /// batch's epoch lies outside of its checksum; a bit that flips there is seen here, or where it makes epochs fall.
    pub fn overreach(&self, epochs: &EpochIndex) -> Option<LeaderEpoch> {
        let found = epochs.last_epoch();
        (found > self.state.promise).then_some(found)
    }

    /// What is noted of it when it starts as `loaded`. Of one that may have forgotten something no more than it holds: it
    /// has no state to persist that would take the rest back.
    pub fn checkpoint_of(&self, loaded: &Loaded) -> Checkpoint {
        if self.state.nonvoter {
            self.checkpoint.at_most(loaded.high_watermark.min(loaded.epochs.end()))
        } else {
            self.checkpoint
        }
    }
}

/// How far a log was compacted (R45).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Compacted {
    /// Offset below which everything was cleaned (exclusive): of each key no more than the last record below it is left there.
    /// Where it lies above the log end, records are gone for the sake of later ones that are not there (any more).
    pub cleaned_end: Offset,
    /// Offset below which tombstones may be gone (exclusive). No older record of their keys is left. Above the log end where
    /// the log is being copied from one that lacks them.
    pub tombstones_gone_below: Offset,
}

/// A replica's log as it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundLog {
    /// Its epochs.
    pub epochs: EpochIndex,
    /// Its producers.
    pub producers: ProducerTable,
    /// How far it was compacted.
    pub compacted: Compacted,
    /// Whether it took the place of one that was damaged, and is empty.
    pub put_aside: bool,
    /// Whether it was damaged, and some of what it may have held is not in it any more, although all that is known to have
    /// been acknowledged is.
    pub shortened: bool,
}

impl Loaded {
    /// A replica of which something is stored.
    pub fn found(me: ReplicaId, incarnation: Incarnation, stored: &StoredReplica, log: FoundLog) -> Loaded {
        let FoundLog { epochs, producers, compacted, put_aside, shortened } = log;
        Loaded {
            me,
            incarnation,
            state: stored.state.clone(),
            epochs,
            producers,
            compacted,
            high_watermark: if put_aside { Offset::ZERO } else { stored.checkpoint.high_watermark },
            tail_lost: stored.tail_lost,
            damaged: put_aside || shortened,
            life: 0,
        }
    }

    /// This new replica, where a log was found without anything stored: the journal was lost, and it may have
    /// acknowledged anything. The log is a lower bound of what was promised (REP-6).
    #[must_use]
    pub fn with_unexplained_log(mut self, log: FoundLog) -> Loaded {
        self.damaged = log.epochs.end() > Offset::ZERO;
        self.state.promise = self.state.promise.max(log.epochs.last_epoch());
        Loaded { epochs: log.epochs, producers: log.producers, compacted: log.compacted, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Term;

    fn checkpoint(high_watermark: u64, durable_end: u64) -> Checkpoint {
        Checkpoint { high_watermark: Offset(high_watermark), durable_end: Offset(durable_end) }
    }

    fn epoch(term: u32) -> LeaderEpoch {
        LeaderEpoch::first(Term(term))
    }

    fn stored(promised: u32, nonvoter: bool) -> StoredReplica {
        let state = DurableState { promise: epoch(promised), assignment: None, nonvoter, recovered: None };
        StoredReplica { checkpoint: checkpoint(8, 5), ..StoredReplica::new(state) }
    }

    fn log(term: u32, end: u64) -> FoundLog {
        let mut log = FoundLog::default();
        log.epochs.append(epoch(term), Offset(end));
        log
    }

    fn found(stored: &StoredReplica, log: FoundLog) -> Loaded {
        let me = ReplicaId { broker: crate::BrokerId(1), dir: crate::DirId(1) };
        Loaded::found(me, Incarnation(1), stored, log)
    }

    #[test]
    fn only_another_boot_after_a_disorderly_end_takes_a_tail() {
        assert!(tail_is_lost(false, false));
        assert!(!tail_is_lost(false, true) && !tail_is_lost(true, false) && !tail_is_lost(true, true));
    }

    #[test]
    fn what_was_noted_as_flushed_stays_until_it_is_taken_back() {
        let noted = checkpoint(8, 5);
        assert_eq!(noted.next(Offset(9), Offset(0)), checkpoint(9, 5), "this run has flushed nothing yet");
        assert_eq!(noted.next(Offset(9), Offset(12)), checkpoint(9, 9), "what is above may be truncated");
        assert_eq!(noted.taken_back(Offset(8)), None);
        assert_eq!(noted.taken_back(Offset(3)), Some(checkpoint(3, 3)));
        assert_eq!(
            checkpoint(3, 3).next(Offset(6), Offset(4)),
            checkpoint(6, 4),
            "written again, flushed in part"
        );
    }

    #[test]
    fn a_lost_tail_is_missed_no_more_and_marked_until_a_state_is_persisted() {
        let mut replica = stored(3, false);
        replica.lose_tail();
        assert!(replica.tail_lost && replica.checkpoint == checkpoint(5, 5));
        replica.take_state(DurableState { nonvoter: true, ..replica.state.clone() });
        assert!(!replica.tail_lost && replica.state.nonvoter);
    }

    #[test]
    fn a_damaged_log_leaves_nothing_to_believe() {
        let replica = stored(3, false);
        assert_eq!(replica.overreach(&log(3, 8).epochs), None);
        assert_eq!(replica.overreach(&log(4, 8).epochs), Some(epoch(4)));
        let whole = found(&replica, log(3, 8));
        assert!(!whole.damaged && whole.high_watermark == Offset(8));
        assert_eq!(replica.checkpoint_of(&whole), replica.checkpoint);
        let aside = found(&replica, FoundLog { put_aside: true, ..FoundLog::default() });
        assert!(aside.damaged && aside.high_watermark == Offset::ZERO);
        assert_eq!(
            replica.checkpoint_of(&aside),
            replica.checkpoint,
            "taken back with the state that says so"
        );
        let short = found(&replica, FoundLog { shortened: true, ..log(3, 8) });
        assert!(short.damaged && short.high_watermark == Offset(8), "what is repaired is there");
        let again = stored(3, true);
        assert_eq!(again.checkpoint_of(&found(&again, log(3, 4))), checkpoint(4, 4), "it has said so before");
    }

    #[test]
    fn a_log_without_a_journal_may_have_acknowledged_anything() {
        let fresh = found(&StoredReplica::new(stored(0, false).state), FoundLog::default());
        let empty = fresh.clone().with_unexplained_log(FoundLog::default());
        assert!(!empty.damaged && empty.state.promise == LeaderEpoch::first(Term(0)));
        let full = fresh.with_unexplained_log(log(7, 2));
        assert!(full.damaged && full.state.promise == epoch(7));
    }
}
