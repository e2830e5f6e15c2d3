//! One partition's replica: what it promises, how it becomes leader, what it appends and what it calls committed.
//!
//! ```text
//!                 Assign: I lead term t                quorum of FenceOk, own log wins
//!   ┌──────────┐ ─────────────────────► ┌─────────┐ ───────────────────────────────► ┌────────┐
//!   │ Follower │                        │ Fencing │ ── another log wins ─► ┌───────┐ │ Active │
//!   └──────────┘ ◄───────────────────── └─────────┘ ◄── source lost ────── │Copying│►└────────┘
//!        ▲          a higher epoch                                         └───────┘      │
//!        └────────────────────────────────────────────────────────────────────────────────┘
//! ```
//! A value that is fed with events and drained of actions; it does no I/O and reads no clock. `raise` is the only
//! writer of the promise, `truncate` the only way to shorten the log, `advance` the only writer of a leader's high
//! watermark. Rule numbers (R..) are those of docs/protocol.md.
//!
//! Invariants (docs/invariants.md; checked by `invariants::violation` after every event in debug builds):
//!   REP-1  a committed batch stays at its offset in the log of every later leader
//!   REP-2  below the high watermark every replica holds the committed sequence
//!   REP-3  same epoch and offset: same batch, same prefix; epochs in a log never decrease
//!   REP-4  at most one active replica per epoch
//!   REP-5  nothing below the own high watermark is truncated
//!   REP-6  the promise never decreases, and nothing of an epoch leaves before its promise is durable
//!   REP-7  high watermarks ≤ log end offset; a leader's moves only past its own marker
//!   REP-8  committed records of a producer are in its order, without gap or repeat; what was acknowledged stays
//!   REP-9  nothing above the high watermark is trimmed, and the log start never goes back
//!   REP-10 of each key the record committed last is there, and no older one whose tombstone is gone

mod action;
mod compaction;
mod contact;
mod epochs;
mod event;
mod follower;
mod invariants;
mod leader;
mod message;
mod outbox;
mod pace;
mod producers;
mod quorum;
mod recovery;
mod setup;
mod stored;
#[cfg(test)]
mod tests;
mod trimming;

pub use action::{Acknowledged, Action, DurableState, ProduceError};
pub use epochs::EpochIndex;
pub use event::{Event, RequestId};
pub use message::{Assignment, Envelope, FetchKind, Message, Position};
pub use producers::{Appended, KnownProducer, ProducerTable, REMEMBERED, SequenceCheck};
pub use quorum::{committed, is_quorum, is_recovery_quorum};

pub use setup::{Loaded, MemberStatus, ReplicaConfig, ReplicaStatus};
pub use stored::{Checkpoint, Compacted, FoundLog, StoredReplica, tail_is_lost};

use follower::Follower;
use leader::Leader;
use outbox::Outbox;
use recovery::Recovery;

use crate::metadata::{Durability, LeaderState};
use crate::mutant;
use crate::record_batch::RecordBatch;
use crate::{Incarnation, LeaderEpoch, Offset, ReplicaId, Term, Timestamp};

/// What a replica is doing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Role {
    Follower(Follower),
    Recovering(Recovery),
    Active(Leader),
    /// The log failed: mute until the process starts anew.
    Failed,
}

/// The replica. `handle` what happens, then perform every `next_action`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Replica {
    me: ReplicaId,
    incarnation: Incarnation,
    config: ReplicaConfig,
    promise: LeaderEpoch,
    assignment: Option<Assignment>,
    nonvoter: bool,
    /// The last unclean term that it led (R37).
    recovered: Option<Term>,
    epochs: EpochIndex,
    producers: ProducerTable,
    compacted: Compacted,
    durable_end: Offset,
    /// Counts truncations, so that a flush from before one proves nothing after it.
    generation: u64,
    flush_at: Option<Timestamp>,
    high_watermark: Offset,
    durable_high_watermark: Offset,
    /// The position told in the last FenceOk, and to which epoch (R15).
    reported: Option<(LeaderEpoch, Position)>,
    role: Role,
    outbox: Outbox,
}

impl Replica {
    /// A replica as loaded. Nothing of the log counts as flushed until the first flush has ended.
    pub fn new(now: Timestamp, config: ReplicaConfig, loaded: Loaded) -> Replica {
        let (start, end) = (loaded.epochs.base().end, loaded.epochs.end());
        let life = if mutant!(HearForEarlierLife) { 0 } else { loaded.life };
        let first_number = u64::from(life) << 32;
        let mut replica = Replica {
            me: loaded.me,
            incarnation: loaded.incarnation,
            config,
            promise: loaded.state.promise,
            assignment: loaded.state.assignment,
            nonvoter: loaded.state.nonvoter,
            recovered: loaded.state.recovered,
            epochs: loaded.epochs,
            producers: if mutant!(ForgetSequences) { ProducerTable::default() } else { loaded.producers },
            compacted: loaded.compacted,
            durable_end: Offset::ZERO,
            generation: first_number,
            flush_at: None,
            // What was trimmed was committed, and durably so.
            high_watermark: loaded.high_watermark.max(start).min(end),
            durable_high_watermark: start,
            reported: None,
            role: Role::Follower(Follower::default()),
            outbox: Outbox::numbered_from(first_number),
        };
        replica.producers.settle(replica.high_watermark);
        // R35: only mode replicated acknowledges what a power cut can take.
        let forgets = replica.config.durability == Durability::Memory && !mutant!(VoteAfterTailLoss);
        let tail_lost = loaded.tail_lost && forgets;
        let forgot = tail_lost || (loaded.damaged && !mutant!(VoteAfterDamage));
        // R45: records below the end are gone for the sake of later ones that were flushed, and are not here.
        let cut_short = loaded.compacted.cleaned_end > end;
        let forgot = forgot || cut_short;
        let demoted = forgot && !replica.nonvoter && !mutant!(ForgetTailLoss);
        replica.nonvoter |= forgot;
        // R8, R46: a new replica promises its first term without having been asked; that too must be on disk before
        // anybody hears from it, or the next run of the process could obey an earlier term.
        let created = replica.assignment.is_none() && replica.promise > LeaderEpoch::ZERO;
        let created = created && !mutant!(CreateWithoutPersist);
        if (demoted && !cut_short) || created {
            replica.outbox.persist_first(replica.durable_state());
        }
        if cut_short {
            replica.forget_log();
        } else if end > Offset::ZERO {
            replica.outbox.push(Action::Flush { generation: replica.generation });
        }
        // R10: a leader that restarts goes on without the controller.
        replica.lead_if_assigned(now);
        replica
    }

    /// Takes in one event. `now` never goes backwards.
    pub fn handle(&mut self, now: Timestamp, event: Event) {
        match (&self.role, event) {
            (_, Event::Persisted { number }) => self.outbox.persisted(number),
            (Role::Failed, event) => self.handle_failed(event),
            (_, Event::Assign(assignment)) => self.handle_assign(now, assignment),
            (_, Event::Receive(envelope)) => self.handle_receive(now, envelope),
            (_, Event::Produce { request, batch }) => self.handle_produce(now, request, &batch),
            (_, Event::Flushed { generation, end }) => self.handle_flushed(now, generation, end),
            (_, Event::Read { to, epoch, from, batches }) => self.handle_read(now, to, epoch, from, batches),
            (_, Event::Trim { to }) => self.handle_trim(to),
            (_, Event::Cleaned { cleaned_end }) => self.handle_cleaned(cleaned_end),
            (_, Event::DropTombstones { below }) => self.handle_drop_tombstones(below),
            (_, Event::StorageFailed) => self.handle_storage_failed(),
            (_, Event::PeerConnected { broker }) => self.handle_peer_connected(now, broker),
            (_, Event::Timer) => self.handle_timer(now),
        }
        if cfg!(debug_assertions)
            && let Some(violation) = invariants::violation(self)
        {
            panic!("{violation}");
        }
    }

    /// The next action. Perform actions in the order given.
    pub fn next_action(&mut self) -> Option<Action> {
        if self.outbox.is_drained() {
            self.announce_watermark();
        }
        self.outbox.next()
    }

    /// Call `handle(.., Event::Timer)` no later than this.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let role = match &self.role {
            Role::Follower(follower) => follower.deadline(),
            Role::Recovering(recovery) => Some(recovery.deadline()),
            Role::Active(leader) => Some(self.leader_deadline(leader)),
            Role::Failed => None,
        };
        [role, self.flush_at].into_iter().flatten().min()
    }

    /// What others may see.
    pub fn status(&self) -> ReplicaStatus {
        ReplicaStatus {
            active: matches!(self.role, Role::Active(_)),
            failed: matches!(self.role, Role::Failed),
            leader: self.known_leader(),
            epoch: self.promise,
            high_watermark: if mutant!(ServeAboveWatermark) {
                self.epochs.end()
            } else {
                self.high_watermark
            },
            durable_high_watermark: self.durable_high_watermark,
            log_end_offset: self.epochs.end(),
            members: self.member_status(),
            settled: matches!(&self.role, Role::Active(leader) if leader.settled),
            cleaned_by_all: self.cleaned_by_all(),
            heard: match &self.role {
                Role::Follower(follower) => follower.heard,
                _ => None,
            },
        }
    }

    /// What is, or will be, durable besides the log.
    pub fn durable_state(&self) -> DurableState {
        DurableState {
            promise: self.promise,
            assignment: self.assignment.clone(),
            nonvoter: self.nonvoter,
            recovered: self.recovered,
        }
    }

    /// Whether the [durable state](Self::durable_state) is on disk.
    pub fn is_persisted(&self) -> bool {
        self.outbox.is_persisted()
    }

    /// What an acknowledgement means.
    pub fn durability(&self) -> Durability {
        self.config.durability
    }

    /// End of what is known to be flushed here.
    pub fn durable_end(&self) -> Offset {
        self.durable_end
    }

    /// The epochs of its log.
    pub fn epochs(&self) -> &EpochIndex {
        &self.epochs
    }

    /// The producers of its log.
    pub fn producers(&self) -> &ProducerTable {
        &self.producers
    }

    /// Whether it leads, and takes records.
    pub fn is_active(&self) -> bool {
        matches!(self.role, Role::Active(_))
    }

    /// Whether it may be counted in a recovery.
    pub fn is_voter(&self) -> bool {
        !self.nonvoter
    }

    /// The register as last seen.
    pub fn assignment(&self) -> Option<&Assignment> {
        self.assignment.as_ref()
    }

    fn position(&self) -> Position {
        self.epochs.position()
    }

    fn known_leader(&self) -> Option<ReplicaId> {
        match &self.role {
            Role::Active(_) => Some(self.me),
            Role::Follower(Follower { leader: Some(leader), .. }) => Some(*leader),
            _ => self.assignment.as_ref().map(|assignment| assignment.leader),
        }
    }

    /// The register changed, or is told again.
    fn handle_assign(&mut self, now: Timestamp, assignment: Assignment) {
        debug_assert!(!assignment.set.is_empty(), "a register names its replicas");
        if self.assignment.as_ref().is_some_and(|known| known.term > assignment.term) {
            return;
        }
        let changed = self.assignment.as_ref() != Some(&assignment);
        let leads_older = self.led_epoch().is_some_and(|epoch| epoch.term < assignment.term);
        let elsewhere = assignment.leader != self.me;
        self.assignment = Some(assignment);
        if leads_older && elsewhere {
            self.step_down();
        }
        if !self.lead_if_assigned(now) && changed {
            self.lead_new_audience(now);
            self.outbox.persist(self.durable_state());
            // A set that was left needs no majority any more, and those who answered are not asked again.
            self.try_to_lead(now);
        }
    }

    /// The epoch of the own leadership, recovering or active.
    fn led_epoch(&self) -> Option<LeaderEpoch> {
        matches!(self.role, Role::Recovering(_) | Role::Active(_)).then_some(self.promise)
    }

    /// R10: begins an attempt if the register says "I lead" and an epoch is there that was never used.
    fn lead_if_assigned(&mut self, now: Timestamp) -> bool {
        let Some(assignment) = &self.assignment else { return false };
        if assignment.leader != self.me || self.led_epoch().is_some_and(|epoch| epoch.term >= assignment.term)
        {
            return false;
        }
        let first = LeaderEpoch::first(assignment.term);
        let epoch = if first > self.promise {
            Some(first)
        } else if self.promise.term == assignment.term && !mutant!(NoRunAfterRestart) {
            if mutant!(ReenterEpoch) { Some(self.promise) } else { self.promise.next_run() }
        } else {
            None // a later term is about; the register that we know is old
        };
        if let Some(epoch) = epoch {
            self.begin_recovery(now, epoch);
        }
        epoch.is_some()
    }

    /// R8: the only writer of `promise`. Everything that follows waits until it is durable.
    fn raise(&mut self, epoch: LeaderEpoch) {
        debug_assert!(epoch > self.promise || mutant!(ReenterEpoch), "REP-6: the promise never decreases");
        if !mutant!(LeadOnAfterPromise) {
            self.step_down();
        }
        self.promise = epoch;
        if !mutant!(ForgetPromise) {
            self.outbox.persist_first(self.durable_state());
        }
    }

    /// R9: no longer leader or follower of anybody. What waits for its commit has an unknown outcome.
    fn step_down(&mut self) {
        let role = std::mem::replace(&mut self.role, Role::Follower(Follower::default()));
        if let Role::Active(mut leader) = role {
            leader.fail_pending(&mut self.outbox, ProduceError::LeaderLost);
        }
    }

    fn handle_receive(&mut self, now: Timestamp, envelope: Envelope) {
        let Envelope { from, to, epoch, message } = envelope;
        if to != self.me || from == self.me {
            return;
        }
        if epoch < self.promise && !mutant!(ObeyOldEpochs) {
            // A Stale would only be answered by another.
            if !matches!(message, Message::Stale { .. }) {
                self.send(from, self.promise, Message::Stale { promise: self.promise });
            }
            return;
        }
        match message {
            Message::Fence { .. } => self.handle_fence(from, epoch),
            Message::FenceOk { position, voter } => self.handle_fence_ok(now, from, epoch, position, voter),
            Message::Lead { high_watermark, log_end_offset, cleaned_by_all } => {
                let lead = follower::Lead { high_watermark, log_end_offset, cleaned_by_all };
                self.handle_lead(now, from, epoch, lead);
            }
            Message::Fetch { position, durable_end, incarnation, kind, restart, cleaned_end } => {
                let fetch = leader::Fetch {
                    from,
                    epoch,
                    position,
                    durable_end,
                    incarnation,
                    kind,
                    restart,
                    cleaned_end,
                };
                self.handle_fetch(now, fetch);
            }
            Message::Diverge { echo, common } => self.handle_diverge(now, from, epoch, echo, common),
            Message::Reset { echo, start, producers } => {
                self.handle_reset(now, from, epoch, echo, start, producers);
            }
            Message::Stale { .. } => {}
            Message::Data {
                echo,
                batches,
                high_watermark,
                durable_high_watermark,
                log_end_offset,
                log_start_offset,
                tombstones_gone_below,
                incarnation,
            } => {
                let data = follower::Data {
                    echo,
                    batches,
                    high_watermark,
                    durable_high_watermark,
                    log_end_offset,
                    log_start_offset,
                    tombstones_gone_below,
                    incarnation,
                };
                self.handle_data(now, from, epoch, data);
            }
        }
    }

    fn handle_flushed(&mut self, now: Timestamp, generation: u64, end: Offset) {
        if generation != self.generation && !mutant!(CountStaleFlush) {
            return;
        }
        self.durable_end = self.durable_end.max(end.min(self.epochs.end()));
        self.vote_again();
        match &self.role {
            Role::Follower(_) => self.follower_flushed(),
            Role::Recovering(_) => self.recovery_flushed(now),
            Role::Active(_) => self.advance(now),
            Role::Failed => {}
        }
    }

    /// Batches for somebody else: the active leader's follower, or the copier that won this replica's log (R15).
    fn handle_read(
        &mut self,
        now: Timestamp,
        to: ReplicaId,
        epoch: LeaderEpoch,
        from: Offset,
        batches: Vec<RecordBatch>,
    ) {
        if epoch != self.promise {
            return;
        }
        if matches!(self.role, Role::Active(_)) {
            self.leader_read(now, to, from, batches);
        } else {
            self.source_read(to, from, batches);
        }
    }

    /// R35: no second try. The flag is durable before anybody hears of it; a leader asks to be replaced.
    fn handle_storage_failed(&mut self) {
        if mutant!(GoOnAfterFailure) {
            return;
        }
        let led = self.led_epoch();
        let role = std::mem::replace(&mut self.role, Role::Failed);
        if let Role::Active(mut leader) = role {
            leader.fail_pending(&mut self.outbox, ProduceError::StorageFailed);
        }
        self.nonvoter |= !mutant!(VoteAfterFailure);
        self.flush_at = None;
        if !mutant!(SpeakAfterFailure) {
            self.outbox.abandon();
        }
        self.outbox.persist_first(self.durable_state());
        if let Some(epoch) = led {
            self.report(epoch, LeaderState::Stalled, false);
        }
    }

    /// A failed replica answers clients and asks to be replaced; else it is mute.
    fn handle_failed(&mut self, event: Event) {
        match event {
            Event::Produce { request, .. } => {
                let leader = self.assignment.as_ref().map(|assignment| assignment.leader);
                let leader = leader.filter(|&leader| leader != self.me).map(|leader| leader.broker);
                self.outbox.push(Action::Reply { request, result: Err(ProduceError::NotLeader { leader }) });
            }
            Event::Assign(assignment) => {
                if self.assignment.as_ref().is_some_and(|known| known.term > assignment.term) {
                    return;
                }
                let epoch = LeaderEpoch::first(assignment.term);
                let asked_to_lead = assignment.leader == self.me;
                self.assignment = Some(assignment);
                if asked_to_lead {
                    self.report(epoch, LeaderState::Stalled, false);
                }
            }
            _ => {}
        }
    }

    /// What was sent to that broker may be lost: say again what matters.
    fn handle_peer_connected(&mut self, now: Timestamp, broker: crate::BrokerId) {
        match &mut self.role {
            Role::Follower(follower) => {
                if follower.leader.is_some_and(|leader| leader.broker == broker) {
                    self.send_fetch(now, false);
                }
            }
            Role::Recovering(_) => self.resend_fence(Some(broker)),
            Role::Active(_) => self.greet_peer(broker),
            Role::Failed => {}
        }
    }

    fn handle_timer(&mut self, now: Timestamp) {
        if self.flush_at.is_some_and(|at| at <= now) {
            self.flush_at = None;
            self.outbox.push(Action::Flush { generation: self.generation });
        }
        match &self.role {
            Role::Follower(_) => self.follower_timer(now),
            Role::Recovering(_) => self.recovery_timer(now),
            Role::Active(_) => self.leader_timer(now),
            Role::Failed => {}
        }
    }

    /// Puts batches at the end of the log. The caller made sure that they continue it.
    fn append(&mut self, now: Timestamp, batches: Vec<RecordBatch>) {
        for batch in &batches {
            let header = batch.header();
            let epoch = header.epoch.unwrap_or(LeaderEpoch::ZERO);
            self.epochs.append(epoch, header.next_offset());
            self.producers.append(header);
        }
        self.outbox.push(Action::Append { batches });
        match self.config.durability {
            Durability::Disk => self.outbox.push(Action::Flush { generation: self.generation }),
            Durability::Memory => {
                self.flush_at.get_or_insert(now + self.config.flush_interval);
            }
        }
    }

    /// The only way to shorten the log (R23).
    fn truncate(&mut self, end: Offset) {
        self.epochs.truncate(end);
        if !mutant!(KeepCutSequences) {
            self.producers.truncate(end);
        }
        self.durable_end = self.durable_end.min(end);
        self.compacted.cleaned_end = self.compacted.cleaned_end.min(end);
        self.durable_high_watermark = self.durable_high_watermark.min(end);
        if end < self.high_watermark {
            // R37, in an unclean term only: what was noted of the watermark is taken back first.
            self.high_watermark = end;
            self.outbox.persist_first(self.durable_state());
        }
        self.generation += 1;
        self.outbox.push(Action::Truncate { end });
        self.outbox.push(Action::Flush { generation: self.generation });
    }

    fn send(&mut self, to: ReplicaId, epoch: LeaderEpoch, message: Message) {
        self.outbox.push(Action::Send(Envelope { from: self.me, to, epoch, message }));
    }

    fn report(&mut self, epoch: LeaderEpoch, state: LeaderState, complete: bool) {
        let (writable, in_sync) = match &self.role {
            Role::Active(leader) if leader.settled => (true, leader.in_sync(self.me)),
            _ => (false, Vec::new()),
        };
        self.outbox.push(Action::Report { term: epoch.term, state, complete, writable, in_sync });
    }

    /// Whether the term that this replica is in is an unclean one (R37).
    fn in_unclean_term(&self) -> bool {
        self.assignment
            .as_ref()
            .is_some_and(|assignment| assignment.is_unclean() && assignment.term == self.promise.term)
    }

    /// R37: whether what this replica holds as committed may have been given up: nothing in its log is of a term later
    /// than the last unclean one.
    fn may_hold_what_was_given_up(&self) -> bool {
        let last_unclean = self.assignment.as_ref().and_then(|assignment| assignment.unclean_term);
        let last_epoch = self.epochs.last_epoch();
        last_unclean.is_some_and(|term| term <= self.promise.term && last_epoch.term <= term)
    }
}
