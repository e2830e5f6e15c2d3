//! Following a leader (R18, R22, R23, R29, R36): accept what continues the log, cut where the epochs part, acknowledge
//! what is held.

use super::message::{FetchKind, Message, Position};
use super::{Replica, Role};
use crate::metadata::Durability;
use crate::mutant;
use crate::record_batch::RecordBatch;
use crate::{Incarnation, LeaderEpoch, Offset, ReplicaId, Timestamp};

/// A follower; of nobody, where there is no leader.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Follower {
    /// The active leader of the promised epoch.
    pub(super) leader: Option<ReplicaId>,
    /// Who waits for the log to be flushed, to be told its position (R12).
    pub(super) fenced_by: Option<ReplicaId>,
    /// Data was asked for and none has been accepted since: ask again then.
    retry_at: Option<Timestamp>,
    /// Whether data was accepted since the leader made itself heard last.
    progressed: bool,
    /// Where a non-voter must come to be a voter again (R36).
    pub(super) rejoin_target: Option<Offset>,
    /// When the leader last made itself heard at the current position.
    pub(super) heard: Option<Timestamp>,
    /// Where the leader's log starts, as it said with the data that was accepted last.
    pub(super) leader_start: Offset,
    /// What the leader knows to be cleaned by all (R45).
    pub(super) cleaned_by_all: Offset,
}

impl Follower {
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.retry_at
    }

    /// The log is to be copied from its start on, and what a non-voter has to come to asked for anew.
    pub(super) fn lose_log(&mut self) {
        (self.retry_at, self.rejoin_target) = (None, None);
    }
}

/// `Message::Lead`, taken apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lead {
    pub(super) high_watermark: Offset,
    pub(super) log_end_offset: Offset,
    pub(super) cleaned_by_all: Offset,
}

/// What became of batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Applied {
    /// They are in the log.
    Yes,
    /// They do not continue it.
    No,
    /// They do, and what is there does not go with them: it was given up (R45).
    BegunAnew,
}

/// `Message::Data`, taken apart.
pub(super) struct Data {
    pub(super) echo: Position,
    pub(super) batches: Vec<RecordBatch>,
    pub(super) high_watermark: Offset,
    pub(super) durable_high_watermark: Offset,
    pub(super) log_end_offset: Offset,
    pub(super) log_start_offset: Offset,
    pub(super) tombstones_gone_below: Offset,
    pub(super) incarnation: Option<Incarnation>,
}

impl Replica {
    /// R18.
    pub(super) fn handle_lead(&mut self, now: Timestamp, from: ReplicaId, epoch: LeaderEpoch, lead: Lead) {
        let Lead { high_watermark, log_end_offset, .. } = lead;
        if epoch > self.promise {
            self.raise(epoch);
        }
        let met = matches!(&self.role, Role::Follower(follower) if follower.leader != Some(from));
        if mutant!(CutToWatermark) && met && self.high_watermark < self.epochs.end() {
            self.truncate(self.high_watermark);
        }
        if mutant!(WatermarkFromLead) {
            self.high_watermark = self.high_watermark.max(high_watermark.min(self.epochs.end()));
        }
        let behind = log_end_offset > self.epochs.end() || high_watermark > self.high_watermark;
        let cleaned_by_all = lead.cleaned_by_all;
        let Role::Follower(follower) = &mut self.role else { return };
        if follower.leader == Some(from) {
            // Data, or the news of a watermark, may have been lost on the way; an acknowledgement too.
            let stuck = !follower.progressed && behind;
            (follower.progressed, follower.cleaned_by_all) = (false, cleaned_by_all);
            if !stuck && follower.retry_at.is_none() {
                follower.heard = Some(now);
            }
            self.send_fetch(now, stuck);
        } else {
            *follower = Follower { leader: Some(from), cleaned_by_all, ..Follower::default() };
            self.send_fetch(now, true);
        }
    }

    /// Tells the leader the own position; with `restart`, asks it to send from there.
    pub(super) fn send_fetch(&mut self, now: Timestamp, restart: bool) {
        let (position, nonvoter, retry) = (self.position(), self.nonvoter, self.config.retry_interval);
        let Role::Follower(follower) = &mut self.role else { return };
        let Some(leader) = follower.leader else { return };
        let restart = restart || follower.retry_at.is_some();
        if restart {
            follower.retry_at = Some(now + retry);
        }
        let rejoins = nonvoter && follower.rejoin_target.is_none();
        let kind = if rejoins { FetchKind::Rejoin } else { FetchKind::Follow };
        let unflushed = if mutant!(FollowerAcksBeforeFlush) { position.end } else { self.durable_end };
        let fetch = Message::Fetch {
            position,
            durable_end: unflushed,
            incarnation: self.incarnation,
            kind,
            restart,
            cleaned_end: self.cleaned_end(),
        };
        self.send(leader, self.promise, fetch);
    }

    /// R22: an answer counts only in the promised epoch, from the one asked, and at the current position.
    pub(super) fn handle_data(&mut self, now: Timestamp, from: ReplicaId, epoch: LeaderEpoch, data: Data) {
        if epoch != self.promise && !mutant!(ObeyOldEpochs) {
            return;
        }
        match &self.role {
            Role::Recovering(_) => self.handle_copied(now, from, data),
            Role::Follower(follower) if follower.leader == Some(from) => self.follow(now, data),
            _ => {}
        }
    }

    fn follow(&mut self, now: Timestamp, data: Data) {
        let Data { echo, batches, high_watermark, durable_high_watermark, .. } = data;
        let Data { log_end_offset, log_start_offset, tombstones_gone_below, incarnation, .. } = data;
        let appended = !batches.is_empty();
        match self.apply(now, echo, batches, tombstones_gone_below) {
            Applied::Yes => {}
            Applied::No => return self.ask_again_after_gap(now, echo),
            Applied::BegunAnew => return self.send_fetch(now, true),
        }
        let end = self.epochs.end();
        // R29: the log is verified up to its end now, so the watermark holds for it as far as it reaches.
        let verified = if mutant!(WatermarkAhead) { high_watermark } else { high_watermark.min(end) };
        self.high_watermark = self.high_watermark.max(verified);
        self.durable_high_watermark = self.durable_high_watermark.max(durable_high_watermark.min(end));
        self.producers.settle(self.high_watermark);
        let answers_me = match incarnation {
            Some(_) if mutant!(TargetOfEarlierRun) => true,
            incarnation => incarnation == Some(self.incarnation),
        };
        let nonvoter = self.nonvoter;
        let Role::Follower(follower) = &mut self.role else { return };
        follower.retry_at = None;
        follower.progressed = true;
        follower.heard = Some(now);
        follower.leader_start = log_start_offset;
        if nonvoter && (answers_me || mutant!(RejoinAtOnce)) && follower.rejoin_target.is_none() {
            let target = if mutant!(RejoinAtOnce) { Offset::ZERO } else { log_end_offset };
            follower.rejoin_target = Some(target);
        }
        self.vote_again();
        self.follow_start();
        // Mode fsync acknowledges when the flush has ended.
        let unflushed = self.config.durability == Durability::Memory || mutant!(FollowerAcksBeforeFlush);
        if appended && unflushed {
            self.send_fetch(now, false);
        }
    }

    /// Something in between was lost: ask once, and again when that is not answered.
    fn ask_again_after_gap(&mut self, now: Timestamp, echo: Position) {
        let ahead = echo.end > self.epochs.end();
        let Role::Follower(follower) = &self.role else { return };
        if ahead && follower.retry_at.is_none() {
            self.send_fetch(now, true);
        }
    }

    /// Appends batches that continue the log at `echo`; changes nothing where they do not (R20, R21, R22). They come from a log
    /// whose tombstones may be gone below `gone_below` (R45).
    pub(super) fn apply(
        &mut self,
        now: Timestamp,
        echo: Position,
        batches: Vec<RecordBatch>,
        gone_below: Offset,
    ) -> Applied {
        if (echo != self.position() && !mutant!(ApplyAnywhere)) || !self.continues(&batches) {
            return Applied::No;
        }
        if !batches.is_empty() {
            if !self.fits_tombstones(gone_below) {
                self.forget_log();
                return Applied::BegunAnew;
            }
            self.append(now, batches);
        }
        Applied::Yes
    }

    fn continues(&self, batches: &[RecordBatch]) -> bool {
        let mut at = self.position();
        for batch in batches {
            let header = batch.header();
            let Some(epoch) = header.epoch else { return false };
            let gap = header.base_offset != at.end && !mutant!(ApplyAnywhere);
            if gap || epoch < at.epoch || epoch > self.promise {
                return false;
            }
            at = Position { epoch, end: header.next_offset() };
        }
        true
    }

    /// R19's answer.
    pub(super) fn handle_diverge(
        &mut self,
        now: Timestamp,
        from: ReplicaId,
        epoch: LeaderEpoch,
        echo: Position,
        common: Position,
    ) {
        if epoch != self.promise {
            return;
        }
        let follows = matches!(&self.role, Role::Follower(follower) if follower.leader == Some(from));
        if matches!(self.role, Role::Recovering(_)) {
            self.copied_diverge(now, from, echo, common);
        } else if follows && self.cut_back(echo, common) {
            self.send_fetch(now, true);
        }
    }

    /// R23: cuts the log back towards what it shares with the sender's; `false` where the answer is old, or where it
    /// would take back what is committed (REP-5), which only damage can ask for.
    pub(super) fn cut_back(&mut self, echo: Position, common: Position) -> bool {
        if echo != self.position() && !mutant!(ObeyLateDiverge) {
            return false;
        }
        let Some(cut) = self.epochs.cut_for(common) else { return self.give_up_log() };
        let allowed = cut >= self.high_watermark || self.may_hold_what_was_given_up();
        if cut >= self.epochs.end() || !allowed {
            return false;
        }
        // R45, in an unclean term only: records below the cut are gone for the sake of later ones that were given up.
        if cut < self.compacted.cleaned_end && !mutant!(CutCleaned) {
            self.forget_log();
            return true;
        }
        self.truncate(if mutant!(CutTooDeep) { Offset(cut.0.saturating_sub(1)) } else { cut });
        true
    }

    /// The flush that an acknowledgement or a fence waits for has ended.
    pub(super) fn follower_flushed(&mut self) {
        let flushed = self.durable_end == self.epochs.end();
        self.follow_start();
        let Role::Follower(follower) = &mut self.role else { return };
        if flushed && let Some(leader_to_be) = follower.fenced_by.take() {
            self.answer_fence(leader_to_be);
            return;
        }
        let Some(leader) = follower.leader else { return };
        let fetch = Message::Fetch {
            position: self.position(),
            durable_end: self.durable_end,
            incarnation: self.incarnation,
            kind: FetchKind::Follow,
            restart: false,
            cleaned_end: self.cleaned_end(),
        };
        self.send(leader, self.promise, fetch);
    }

    pub(super) fn follower_timer(&mut self, now: Timestamp) {
        let Role::Follower(follower) = &self.role else { return };
        if follower.retry_at.is_some_and(|at| at <= now) {
            self.send_fetch(now, true);
        }
    }
}
