//! The start of the log (R44): a leader trims what is kept no longer, followers trim after it, and whose log lacks what was
//! trimmed begins anew where the leader's starts.
//!
//! What lies below a log start is committed, on the disks of a majority, and flushed here. So an empty log at the start of
//! another is worth as much as one that had replicated all of it and was trimmed: it has the same position, and what is
//! known of the producers comes along.

use super::message::{Message, Position};
use super::producers::ProducerTable;
use super::{Action, Compacted, EpochIndex, Replica, Role};
use crate::{LeaderEpoch, Offset, ReplicaId, Timestamp, mutant};

impl Replica {
    /// The driver offers to give up what lies below `to`, a batch boundary.
    pub(super) fn handle_trim(&mut self, to: Offset) {
        if !matches!(self.role, Role::Active(_)) {
            return;
        }
        let start = if mutant!(TrimAboveWatermark) { to } else { to.min(self.trimmable_end()) };
        if self.trim(start) {
            self.part_from_the_trimmed();
        }
    }

    /// A follower's log starts where its leader's does, once it holds all below as the leader did.
    pub(super) fn follow_start(&mut self) {
        let Role::Follower(follower) = &self.role else { return };
        let start = follower.leader_start;
        if start <= self.trimmable_end() {
            self.trim(start);
        }
    }

    /// Nothing above may be trimmed. A batch boundary, as all of them are.
    fn trimmable_end(&self) -> Offset {
        self.high_watermark.min(self.durable_high_watermark).min(self.durable_end)
    }

    fn trim(&mut self, start: Offset) -> bool {
        if start <= self.epochs.base().end {
            return false;
        }
        let producers = self.producers.below(start);
        self.epochs.trim(start);
        self.outbox.push(Action::Trim { start: self.epochs.base(), producers });
        true
    }

    /// For a position that [is below the start](EpochIndex::is_below_start) of this log.
    pub(super) fn send_reset(&mut self, to: ReplicaId, epoch: LeaderEpoch, position: Position) {
        let start = self.epochs.base();
        let producers = self.producers.below(start.end);
        self.send(to, epoch, Message::Reset { echo: position, start, producers });
    }

    pub(super) fn handle_reset(
        &mut self,
        now: Timestamp,
        from: ReplicaId,
        epoch: LeaderEpoch,
        echo: Position,
        start: Position,
        producers: ProducerTable,
    ) {
        if epoch != self.promise {
            return;
        }
        let follows = matches!(&self.role, Role::Follower(follower) if follower.leader == Some(from));
        if matches!(self.role, Role::Recovering(_)) {
            self.copied_reset(now, from, echo, start, producers);
        } else if follows && self.begin_anew(echo, start, producers) {
            self.send_fetch(now, true);
        }
    }

    /// Begins anew at the start of the sender's log; `false` where the answer is old (R22), or where it would take back what
    /// is committed (REP-5), which only damage can ask for.
    pub(super) fn begin_anew(&mut self, echo: Position, start: Position, producers: ProducerTable) -> bool {
        let own = self.position();
        let lacks = EpochIndex::starting_at(start).is_below_start(own);
        let allowed = start.end >= self.high_watermark || self.may_hold_what_was_given_up();
        if echo != own || !lacks || !allowed || start.epoch > self.promise {
            return false;
        }
        self.reset(start, producers);
        true
    }

    /// R37: the leader's log parts from this one below the start of this one: what was trimmed here was given up. Nothing of
    /// it can stay.
    pub(super) fn give_up_log(&mut self) -> bool {
        let allowed = self.may_hold_what_was_given_up();
        if allowed {
            self.reset(Position::default(), ProducerTable::default());
        }
        allowed
    }

    /// It counts for what it holds once that is flushed, as after any cut.
    pub(super) fn reset(&mut self, start: Position, producers: ProducerTable) {
        let taken_back = start.end < self.high_watermark;
        self.epochs = EpochIndex::starting_at(start);
        self.producers = producers.clone();
        self.durable_end = self.durable_end.min(start.end);
        self.high_watermark = start.end;
        self.durable_high_watermark = start.end;
        self.compacted = Compacted { cleaned_end: start.end, tombstones_gone_below: Offset::ZERO };
        if taken_back {
            self.outbox.persist_first(self.durable_state());
        }
        self.generation += 1;
        self.outbox.push(Action::Reset { start, producers });
        self.outbox.push(Action::Flush { generation: self.generation });
    }
}
