//! Becoming leader (R10-R17): promise, ask a majority, take over the best log, open the epoch with a marker.

use std::collections::{BTreeMap, BTreeSet};

use super::follower::Applied;
use super::leader::Leader;
use super::message::{FetchKind, Message, Position};
use super::producers::ProducerTable;
use super::quorum::is_recovery_quorum;
use super::{Action, Replica, ReplicaConfig, Role, follower};
use crate::metadata::{Durability, LeaderState};
use crate::mutant;
use crate::record_batch::RecordBatch;
use crate::{BrokerId, LeaderEpoch, Offset, ReplicaId, Timestamp};

/// Members that do not answer are asked again less and less often, down to one in so many retry intervals: where thousands of
/// replicas are still being opened, asking is most of what there is to do.
const SELDOM: u32 = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct FenceReply {
    position: Position,
    voter: bool,
}

/// One attempt, of the epoch that the replica promised.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Recovery {
    replies: BTreeMap<ReplicaId, FenceReply>,
    /// Whose log is being copied, and where it ends.
    copying: Option<(ReplicaId, Position)>,
    /// Whether the copy got on since the last retry.
    progressed: bool,
    retry_at: Timestamp,
    /// Until the retry after that one, in retry intervals.
    retry_after: u32,
    stalled_at: Timestamp,
}

impl Recovery {
    fn new(now: Timestamp, config: &ReplicaConfig) -> Recovery {
        Recovery {
            replies: BTreeMap::new(),
            copying: None,
            progressed: false,
            retry_at: now + config.retry_interval,
            retry_after: 2,
            stalled_at: now + config.stall_timeout,
        }
    }

    pub(super) fn deadline(&self) -> Timestamp {
        self.retry_at.min(self.stalled_at)
    }
}

impl Replica {
    /// R10, R11.
    pub(super) fn begin_recovery(&mut self, now: Timestamp, epoch: LeaderEpoch) {
        self.raise(epoch);
        self.role = Role::Recovering(Recovery::new(now, &self.config));
        self.report(epoch, LeaderState::Fencing, false);
        self.resend_fence(None);
        if self.durable_end == self.epochs.end() {
            self.recovery_flushed(now);
        } else {
            self.outbox.push(Action::Flush { generation: self.generation });
        }
    }

    /// Asks those who have not answered yet; only the replicas of `broker` where given.
    pub(super) fn resend_fence(&mut self, broker: Option<BrokerId>) {
        let (Role::Recovering(recovery), Some(assignment)) = (&self.role, &self.assignment) else { return };
        let missing: Vec<ReplicaId> = assignment
            .members()
            .into_iter()
            .filter(|&member| member != self.me && !recovery.replies.contains_key(&member))
            .filter(|member| broker.is_none_or(|broker| member.broker == broker))
            .collect();
        let fence = Message::Fence { set: assignment.set.clone(), prev: assignment.prev.clone() };
        for member in missing {
            self.send(member, self.promise, fence.clone());
        }
    }

    /// R12: promise, flush, tell the position. From here on only the leader of that epoch or a later one changes the
    /// log.
    pub(super) fn handle_fence(&mut self, from: ReplicaId, epoch: LeaderEpoch) {
        if epoch > self.promise {
            self.raise(epoch);
        }
        let Role::Follower(follower) = &mut self.role else { return };
        if self.durable_end == self.epochs.end() || mutant!(FenceBeforeFlush) {
            self.answer_fence(from);
        } else {
            follower.fenced_by = Some(from);
            self.outbox.push(Action::Flush { generation: self.generation });
        }
    }

    pub(super) fn answer_fence(&mut self, to: ReplicaId) {
        let position = self.position();
        self.reported = Some((self.promise, position));
        self.send(to, self.promise, Message::FenceOk { position, voter: !self.nonvoter });
    }

    pub(super) fn handle_fence_ok(
        &mut self,
        now: Timestamp,
        from: ReplicaId,
        epoch: LeaderEpoch,
        position: Position,
        voter: bool,
    ) {
        let named = self.assignment.as_ref().is_some_and(|assignment| assignment.names(from));
        let Role::Recovering(recovery) = &mut self.role else { return };
        if epoch != self.promise || !named {
            return;
        }
        recovery.replies.insert(from, FenceReply { position, voter });
        self.try_to_lead(now);
    }

    /// The own log is flushed: it counts like the others'.
    pub(super) fn recovery_flushed(&mut self, now: Timestamp) {
        let own = FenceReply { position: self.position(), voter: !self.nonvoter };
        let (me, flushed) = (self.me, self.durable_end == self.epochs.end());
        let Role::Recovering(recovery) = &mut self.role else { return };
        if flushed && recovery.copying.is_none() {
            recovery.replies.insert(me, own);
            self.try_to_lead(now);
        }
    }

    /// R13, R14: with a quorum of voters, the highest position wins.
    pub(super) fn try_to_lead(&mut self, now: Timestamp) {
        let (Role::Recovering(recovery), Some(assignment)) = (&mut self.role, &self.assignment) else {
            return;
        };
        if recovery.copying.is_some() || !recovery.replies.contains_key(&self.me) {
            return;
        }
        // An unclean recovery is over once there was a leader: what that one acknowledged is lost to no later run of it.
        let over = self.recovered == Some(assignment.term) && !mutant!(UncleanInLaterRuns);
        let all_count = assignment.is_unclean() && !over;
        let counts = |reply: &FenceReply| reply.voter || all_count || mutant!(CountNonVoters);
        let counted: BTreeMap<ReplicaId, Position> = recovery
            .replies
            .iter()
            .filter(|(_, reply)| counts(reply))
            .map(|(&replica, reply)| (replica, reply.position))
            .collect();
        let members: BTreeSet<ReplicaId> = counted.keys().copied().collect();
        if !is_recovery_quorum(assignment, &members) {
            return;
        }
        let winner = counted.iter().max_by_key(|&(_, &position)| rank(position));
        let Some((&source, &target)) = winner else { return };
        if rank(target) == rank(self.epochs.position()) || mutant!(LeadBeforeCopy) {
            self.become_active(now);
        } else {
            recovery.copying = Some((source, target));
            recovery.progressed = true;
            (recovery.retry_at, recovery.retry_after) = (now + self.config.retry_interval, 1);
            self.fetch_copy(source);
        }
    }

    /// R15: asks the winner for what the own log lacks.
    fn fetch_copy(&mut self, source: ReplicaId) {
        let fetch = Message::Fetch {
            position: self.position(),
            durable_end: self.durable_end,
            incarnation: self.incarnation,
            kind: FetchKind::Recover,
            restart: true,
            cleaned_end: self.cleaned_end(),
        };
        self.send(source, self.promise, fetch);
    }

    /// R15 at the source: only while the log is the one that was reported.
    pub(super) fn handle_recover_fetch(&mut self, to: ReplicaId, epoch: LeaderEpoch, position: Position) {
        if !self.is_reported_source(epoch) {
            return;
        }
        if self.epochs.is_below_start(position) {
            self.send_reset(to, epoch, position);
        } else if self.epochs.accepts(position) {
            let max_bytes = self.config.read_size;
            self.outbox.push(Action::Read { to, epoch, from: position.end, max_bytes });
        } else {
            let common = self.epochs.floor(position.epoch);
            self.send(to, epoch, Message::Diverge { echo: position, common });
        }
    }

    fn is_reported_source(&self, epoch: LeaderEpoch) -> bool {
        let may_vote = !self.nonvoter || self.in_unclean_term();
        let same = may_vote && self.reported == Some((epoch, self.position()));
        epoch == self.promise && (same || mutant!(ServeAnotherLog))
    }

    pub(super) fn source_read(&mut self, to: ReplicaId, from: Offset, batches: Vec<RecordBatch>) {
        let trimmed = from < self.epochs.base().end;
        let batches = from_there_on(from, batches);
        if !self.is_reported_source(self.promise) || trimmed || batches.is_empty() {
            return;
        }
        let data = Message::Data {
            echo: self.epochs.position_at(from),
            batches,
            high_watermark: self.high_watermark,
            durable_high_watermark: self.durable_high_watermark,
            log_end_offset: self.epochs.end(),
            log_start_offset: self.epochs.base().end,
            tombstones_gone_below: self.told_gone_below(),
            incarnation: None,
        };
        self.send(to, self.promise, data);
    }

    /// A piece of the winner's log.
    pub(super) fn handle_copied(&mut self, now: Timestamp, from: ReplicaId, data: follower::Data) {
        let Role::Recovering(recovery) = &mut self.role else { return };
        let Some((source, target)) = recovery.copying.filter(|&(source, _)| source == from) else { return };
        recovery.progressed = true;
        if self.apply(now, data.echo, data.batches, data.tombstones_gone_below) != Applied::No {
            self.go_on_copying(now, source, target);
        }
    }

    pub(super) fn copied_diverge(
        &mut self,
        now: Timestamp,
        from: ReplicaId,
        echo: Position,
        common: Position,
    ) {
        let Role::Recovering(recovery) = &mut self.role else { return };
        let Some((source, target)) = recovery.copying.filter(|&(source, _)| source == from) else { return };
        recovery.progressed = true;
        if self.cut_back(echo, common) {
            self.go_on_copying(now, source, target);
        }
    }

    pub(super) fn copied_reset(
        &mut self,
        now: Timestamp,
        from: ReplicaId,
        echo: Position,
        start: Position,
        producers: ProducerTable,
    ) {
        let Role::Recovering(recovery) = &mut self.role else { return };
        let Some((source, target)) = recovery.copying.filter(|&(source, _)| source == from) else { return };
        recovery.progressed = true;
        if self.begin_anew(echo, start, producers) {
            self.go_on_copying(now, source, target);
        }
    }

    /// R15: the copy is done when the own position is the one reported; a cut alone may bring it there.
    fn go_on_copying(&mut self, now: Timestamp, source: ReplicaId, target: Position) {
        if self.position() == target {
            self.become_active(now);
        } else {
            self.fetch_copy(source);
        }
    }

    /// R16: the epoch opens with its marker, and whoever holds all that can be committed may vote again.
    fn become_active(&mut self, now: Timestamp) {
        if self.in_unclean_term() && self.recovered != Some(self.promise.term) {
            self.recovered = Some(self.promise.term);
            self.outbox.persist_first(self.durable_state());
        }
        self.bound_own_tombstones();
        let start = self.epochs.end();
        let marker = RecordBatch::marker(start, self.promise, self.me.broker);
        let audience = self.assignment.as_ref().map(super::Assignment::audience).unwrap_or_default();
        let peers = audience.into_iter().filter(|&replica| replica != self.me);
        self.role = Role::Active(Leader::new(now, &self.config, start, peers));
        self.append(now, vec![marker]);
        self.vote_again();
        self.send_lead();
        self.report(self.promise, LeaderState::Active, mutant!(CompleteBeforeMarker));
        self.advance(now);
    }

    /// R16, R36: a non-voter that holds all that it may have acknowledged votes again. In mode fsync it must hold it
    /// on disk: else a power cut would take the records and leave the vote.
    pub(super) fn vote_again(&mut self) {
        let target = match &self.role {
            Role::Active(leader) => Some(leader.start),
            Role::Follower(follower) => follower.rejoin_target,
            Role::Recovering(_) | Role::Failed => None,
        };
        let held = match self.config.durability {
            Durability::Disk if !mutant!(RejoinBeforeFlush) => self.durable_end,
            Durability::Disk | Durability::Memory => self.epochs.end(),
        };
        if self.nonvoter && target.is_some_and(|target| held >= target) {
            self.nonvoter = false;
            self.outbox.persist(self.durable_state());
        }
    }

    /// Lost messages are sent again; a source that does not answer is forgotten (R15), and the controller hears of an
    /// attempt that takes too long (R17).
    pub(super) fn recovery_timer(&mut self, now: Timestamp) {
        let promise = self.promise;
        let Role::Recovering(recovery) = &mut self.role else { return };
        let stalled = recovery.stalled_at <= now;
        if stalled {
            recovery.stalled_at = now + self.config.stall_timeout;
        }
        if recovery.retry_at <= now {
            recovery.retry_at = now + self.config.retry_interval * recovery.retry_after;
            if recovery.copying.is_none() {
                recovery.retry_after = (recovery.retry_after * 2).min(SELDOM);
            }
            let lost = recovery.copying.filter(|_| !recovery.progressed);
            recovery.progressed = false;
            if let Some((source, _)) = lost {
                recovery.copying = None;
                // The own log may have grown by the copy: its position is told anew.
                recovery.replies.remove(&source);
                recovery.replies.remove(&self.me);
                self.outbox.push(Action::Flush { generation: self.generation });
            }
            self.resend_fence(None);
        }
        if stalled {
            self.report(promise, LeaderState::Stalled, false);
        }
    }
}

/// Batches that were read for another replica: of the first one what lies at `from` or above. Only a filler goes on below
/// (R21, R45); nothing is left where another one does.
pub(super) fn from_there_on(from: Offset, mut batches: Vec<RecordBatch>) -> Vec<RecordBatch> {
    let Some(first) = batches.first_mut().filter(|first| first.header().base_offset < from) else {
        return batches;
    };
    match first.clipped(from, first.header().next_offset()) {
        Some(rest) => *first = rest,
        None => batches.clear(),
    }
    batches
}

/// R14: what makes one log win over another.
fn rank(position: Position) -> Position {
    let epoch = if mutant!(ElectByLength) { LeaderEpoch::ZERO } else { position.epoch };
    Position { epoch, ..position }
}
