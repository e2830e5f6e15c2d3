//! Leading (R19, R25-R28, R38-R41): append what clients send, push it to followers, commit what a majority holds.

use std::collections::{BTreeMap, VecDeque};

use super::action::{Acknowledged, ProduceError};
use super::contact::Contact;
use super::event::RequestId;
use super::message::{FetchKind, Message, Position};
use super::outbox::Outbox;
use super::pace::Pace;
use super::producers::SequenceCheck;
use super::quorum::committed;
use super::recovery::from_there_on;
use super::setup::MemberStatus;
use super::{Action, Replica, ReplicaConfig, Role};
use crate::metadata::{Durability, LeaderState};
use crate::mutant;
use crate::record_batch::RecordBatch;
use crate::{BrokerId, Incarnation, LeaderEpoch, Offset, ReplicaId, Timestamp};

/// `Message::Fetch`, taken apart.
pub(super) struct Fetch {
    pub(super) from: ReplicaId,
    pub(super) epoch: LeaderEpoch,
    pub(super) position: Position,
    pub(super) durable_end: Offset,
    pub(super) incarnation: Incarnation,
    pub(super) kind: FetchKind,
    pub(super) restart: bool,
    pub(super) cleaned_end: Offset,
}

/// What the leader knows of a member.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Progress {
    /// End of what it holds.
    matched: Offset,
    /// End of what it holds on disk.
    durable: Offset,
    /// The same two ends as it said last: lower after it lost something. What was counted stays counted all the same.
    pub(super) told: (Offset, Offset),
    pub(super) heard: Timestamp,
    /// Whether its position was accepted since the stream to it was last opened.
    pub(super) streaming: bool,
    /// Whether a read for it is under way.
    pub(super) reading: bool,
    /// Where tombstones were gone when that read began (R45).
    read_bound: Offset,
    /// What it said last to be cleaned; nothing as long as it has not been heard (R45).
    cleaned_end: Offset,
    /// What to send next.
    pub(super) next: Offset,
    /// Sent and not acknowledged: end offset and size of each message.
    pub(super) inflight: VecDeque<(Offset, usize)>,
    inflight_bytes: usize,
    /// High watermark, durable high watermark and log start offset that it was told.
    pub(super) announced: [Offset; 3],
    /// A rejoining process that is owed an answer (R36).
    pub(super) rejoining: Option<Incarnation>,
    /// Whether it held what was committed when this was last looked at.
    pub(super) in_sync: bool,
}

impl Progress {
    fn new(now: Timestamp) -> Progress {
        Progress {
            matched: Offset::ZERO,
            durable: Offset::ZERO,
            told: (Offset::ZERO, Offset::ZERO),
            heard: now,
            streaming: false,
            reading: false,
            read_bound: Offset::ZERO,
            cleaned_end: Offset::ZERO,
            next: Offset::ZERO,
            inflight: VecDeque::new(),
            inflight_bytes: 0,
            announced: [Offset::ZERO; 3],
            rejoining: None,
            in_sync: false,
        }
    }

    /// R25.
    fn acknowledge(&mut self, now: Timestamp, end: Offset, durable_end: Offset) {
        self.heard = now;
        self.told = (end, end.min(durable_end));
        self.matched = self.matched.max(self.told.0);
        self.durable = self.durable.max(self.told.1);
        while let Some(&(sent, bytes)) = self.inflight.front() {
            if sent > end {
                break;
            }
            self.inflight.pop_front();
            self.inflight_bytes -= bytes;
        }
    }

    fn restart_at(&mut self, next: Offset) {
        self.streaming = true;
        self.next = next;
        self.inflight.clear();
        self.inflight_bytes = 0;
    }

    fn sent(&mut self, end: Offset, bytes: usize) {
        self.next = end;
        self.inflight.push_back((end, bytes));
        self.inflight_bytes += bytes;
    }

    fn reached(&self, durability: Durability) -> Offset {
        match durability {
            Durability::Disk => self.durable,
            Durability::Memory => self.matched,
        }
    }

    /// Whether the leader counts on it no more, or not yet. A stream that was opened anew may lead to one that forgot what it
    /// acknowledged, or whose log cannot be used: not before it has told its position is it in sync again.
    fn lags(&self) -> bool {
        !self.in_sync || !self.streaming
    }

    /// Whether it holds what lies below `end`, by what it said last.
    fn holds(&self, end: Offset, durability: Durability) -> bool {
        let (written, durable) = self.told;
        end <= if durability == Durability::Disk { durable } else { written }
    }
}

/// A request whose batch is not committed yet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Pending {
    base_offset: Offset,
    bytes: usize,
    duplicate: bool,
}

/// An active leader, of the epoch that the replica promised.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Leader {
    /// Offset of the marker.
    pub(super) start: Offset,
    pub(super) peers: BTreeMap<ReplicaId, Progress>,
    /// By offset of the last record.
    pending: BTreeMap<(Offset, RequestId), Pending>,
    pending_bytes: usize,
    pub(super) pace: Pace,
    pub(super) stalled_at: Timestamp,
    /// Whether the controllers were told that it does not get on, and not yet that it does again.
    pub(super) stall_told: bool,
    /// Whether the marker is committed.
    pub(super) settled: bool,
    /// The high watermark when the leader last made itself heard: who has not come so far since is behind.
    pub(super) due: Offset,
}

impl Leader {
    pub(super) fn new(
        now: Timestamp,
        config: &ReplicaConfig,
        start: Offset,
        peers: impl Iterator<Item = ReplicaId>,
    ) -> Leader {
        Leader {
            start,
            peers: peers.map(|peer| (peer, Progress::new(now))).collect(),
            pending: BTreeMap::new(),
            pending_bytes: 0,
            pace: Pace::new(now),
            stalled_at: now + config.stall_timeout,
            stall_told: false,
            settled: false,
            due: start + 1,
        }
    }

    /// The leader and those that hold what is committed, in order.
    pub(super) fn in_sync(&self, me: ReplicaId) -> Vec<ReplicaId> {
        let peers = self.peers.iter().filter(|(_, peer)| peer.in_sync).map(|(&id, _)| id);
        let mut in_sync: Vec<ReplicaId> = peers.chain([me]).collect();
        in_sync.sort_unstable();
        in_sync
    }

    /// What all that follow said to be cleaned; `None` where nobody does.
    pub(super) fn cleaned_by_peers(&self) -> Option<Offset> {
        self.peers.values().map(|peer| peer.cleaned_end).min()
    }

    /// When a member was heard from last.
    pub(super) fn heard(&self, replica: ReplicaId) -> Option<Timestamp> {
        self.peers.get(&replica).map(|peer| peer.heard)
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Answers all that waits for its commit. What was appended stays in the log.
    pub(super) fn fail_pending(&mut self, outbox: &mut Outbox, error: ProduceError) {
        self.pending_bytes = 0;
        for ((last_offset, request), pending) in std::mem::take(&mut self.pending) {
            let Pending { base_offset, duplicate, .. } = pending;
            let told = Acknowledged { base_offset, last_offset, epoch: LeaderEpoch::ZERO, duplicate };
            let result = if mutant!(AcknowledgeOnStepDown) { Ok(told) } else { Err(error) };
            outbox.push(Action::Reply { request, result });
        }
    }
}

impl Replica {
    /// Whether the batch needs room in the log if it is produced now: not where another leads, nor where it is in the log. One
    /// that would be refused for its place in the sequence counts as well: what belongs before it may have been refused for
    /// want of room.
    pub fn needs_room(&self, batch: &RecordBatch) -> bool {
        let known = matches!(self.producers.check(batch.header()), SequenceCheck::Duplicate { .. });
        matches!(self.role, Role::Active(_)) && !known
    }

    /// Appends a client's batch, or says why not (R28, R39, R40).
    pub(super) fn handle_produce(&mut self, now: Timestamp, request: RequestId, batch: &RecordBatch) {
        if let Err(error) = self.admit(now, request, batch) {
            self.outbox.push(Action::Reply { request, result: Err(error) });
        }
    }

    fn admit(&mut self, now: Timestamp, request: RequestId, batch: &RecordBatch) -> Result<(), ProduceError> {
        self.check_leading(now)?;
        let (epoch, base) = (self.promise, self.epochs.end());
        match self.producers.check(batch.header()) {
            SequenceCheck::Accept => {}
            SequenceCheck::Duplicate { base_offset, last_offset } => {
                // Counted like a first request: retries must not wait without a bound.
                let bytes = batch.bytes().len();
                if mutant!(AcknowledgeDuplicate) {
                    let told = Acknowledged { base_offset, last_offset, epoch, duplicate: true };
                    self.outbox.push(Action::Reply { request, result: Ok(told) });
                    return Ok(());
                }
                self.await_commit(request, base_offset, last_offset, bytes, true);
                self.answer_committed();
                return Ok(());
            }
            SequenceCheck::OutOfOrder { expected } => {
                let given = batch.header().producer.map_or(0, |producer| producer.base_sequence);
                return Err(ProduceError::OutOfOrderSequence { expected, given });
            }
            SequenceCheck::Unknown => return Err(ProduceError::UnknownProducer),
            SequenceCheck::Fenced { current } => {
                let given = batch.header().producer.map_or(0, |producer| producer.epoch);
                return Err(ProduceError::FencedProducer { current, given });
            }
        }
        if self.high_watermark == base {
            // Nothing waited until now: the clock of R41 starts here.
            self.restart_stall_clock(now);
        }
        let stamped = batch.stamped(base, epoch);
        let (last, bytes) = (stamped.header().last_offset(), stamped.bytes().len());
        self.append(now, vec![stamped.clone()]);
        if mutant!(AcknowledgeAtOnce) {
            let told = Acknowledged { base_offset: base, last_offset: last, epoch, duplicate: false };
            self.outbox.push(Action::Reply { request, result: Ok(told) });
        } else {
            self.await_commit(request, base, last, bytes, false);
        }
        self.push_appended(stamped);
        if self.config.durability == Durability::Memory {
            self.advance(now); // a set of one commits at once
        }
        Ok(())
    }

    fn check_leading(&self, now: Timestamp) -> Result<(), ProduceError> {
        let Role::Active(leader) = &self.role else {
            let leader = self.known_leader().filter(|&leader| leader != self.me);
            return Err(ProduceError::NotLeader { leader: leader.map(|leader| leader.broker) });
        };
        let Contact { heard, needed, .. } = self.contact(now, leader);
        if heard < needed {
            return Err(ProduceError::NotEnoughReplicas { heard, needed });
        }
        if leader.pending_bytes >= self.config.pending_limit {
            let (bytes, limit) = (leader.pending_bytes, self.config.pending_limit);
            return Err(ProduceError::Overloaded { bytes, limit });
        }
        Ok(())
    }

    fn await_commit(
        &mut self,
        request: RequestId,
        base: Offset,
        last: Offset,
        bytes: usize,
        duplicate: bool,
    ) {
        let Role::Active(leader) = &mut self.role else { return };
        leader.pending_bytes += bytes;
        leader.pending.insert((last, request), Pending { base_offset: base, bytes, duplicate });
    }

    /// A batch that was just appended goes straight to every follower that has everything before it.
    fn push_appended(&mut self, batch: RecordBatch) {
        let base = batch.header().base_offset;
        let limit = self.config.inflight_limit;
        let Role::Active(leader) = &self.role else { return };
        let ready: Vec<ReplicaId> = leader
            .peers
            .iter()
            .filter(|(_, peer)| peer.streaming && !peer.reading && peer.next == base)
            .filter(|(_, peer)| peer.inflight_bytes < limit)
            .map(|(&to, _)| to)
            .collect();
        for to in ready {
            self.send_data(to, vec![batch.clone()]);
        }
    }

    /// Sends batches that start at the peer's `next`; none at all carry the watermarks.
    fn send_data(&mut self, to: ReplicaId, batches: Vec<RecordBatch>) {
        let (announced, tombstones_gone_below) = (self.announcement(), self.told_gone_below());
        let Role::Active(leader) = &mut self.role else { return };
        let Some(peer) = leader.peers.get_mut(&to) else { return };
        let echo = self.epochs.position_at(peer.next);
        if let Some(last) = batches.last() {
            let bytes = batches.iter().map(|batch| batch.bytes().len()).sum();
            peer.sent(last.header().next_offset(), bytes);
        }
        peer.announced = announced;
        let data = Message::Data {
            echo,
            batches,
            high_watermark: self.high_watermark,
            durable_high_watermark: self.durable_high_watermark,
            log_end_offset: self.epochs.end(),
            log_start_offset: self.epochs.base().end,
            tombstones_gone_below,
            incarnation: peer.rejoining.take(),
        };
        self.send(to, self.promise, data);
    }

    /// R19, R20, R25.
    pub(super) fn handle_fetch(&mut self, now: Timestamp, fetch: Fetch) {
        let Fetch { from, epoch, position, .. } = fetch;
        if fetch.kind == FetchKind::Recover {
            self.handle_recover_fetch(from, epoch, position);
            return;
        }
        let Role::Active(leader) = &mut self.role else { return };
        if epoch != self.promise && !mutant!(ObeyOldEpochs) {
            return;
        }
        // R20: refused; only a defect or a damaged disk can say so. A longer log of an EARLIER epoch is neither: it
        // is the tail of a deposed leader, and must hear where it parts (R19).
        let ahead = position.epoch == epoch && position.end > self.epochs.end();
        if ahead || position.epoch > epoch {
            return;
        }
        let Some(peer) = leader.peers.get_mut(&from) else { return };
        peer.cleaned_end = fetch.cleaned_end;
        if self.epochs.is_below_start(position) {
            peer.streaming = false;
            peer.heard = now;
            self.send_reset(from, epoch, position);
            return;
        }
        if !self.epochs.accepts(position) && !mutant!(AcceptAnyPosition) {
            peer.streaming = false;
            peer.heard = now;
            let common = self.epochs.floor(position.epoch);
            self.send(from, epoch, Message::Diverge { echo: position, common });
            return;
        }
        peer.acknowledge(now, position.end, fetch.durable_end);
        let restart = fetch.restart || !peer.streaming;
        // R36: owed an answer even if data flows; the one that carried it may have been lost.
        let rejoins = fetch.kind == FetchKind::Rejoin;
        if restart {
            peer.restart_at(position.end);
        }
        if restart || rejoins {
            peer.rejoining = rejoins.then_some(fetch.incarnation);
        }
        self.advance(now);
        self.note_caught_up(from);
        if (restart || rejoins) && position.end == self.epochs.end() {
            self.send_data(from, Vec::new()); // says that the position was accepted
        }
        self.read_for(from);
    }

    /// A replica that lagged has everything committed now: the controllers may count on it (R5, R6).
    fn note_caught_up(&mut self, replica: ReplicaId) {
        let (high_watermark, durability) = (self.high_watermark, self.config.durability);
        let Role::Active(leader) = &mut self.role else { return };
        let settled = leader.settled;
        let Some(peer) = leader.peers.get_mut(&replica) else { return };
        if settled && !peer.in_sync && peer.holds(high_watermark, durability) {
            peer.in_sync = true;
            self.report_standing();
        }
    }

    /// With every heartbeat: who has not reached what was committed at the one before, or is silent, lags.
    fn review_in_sync(&mut self, now: Timestamp) {
        let (high_watermark, durability) = (self.high_watermark, self.config.durability);
        let patience = self.config.quorum_timeout;
        let Role::Active(leader) = &mut self.role else { return };
        if !leader.settled {
            return;
        }
        let due = std::mem::replace(&mut leader.due, high_watermark);
        let mut changed = false;
        for peer in leader.peers.values_mut() {
            let in_sync = peer.holds(due, durability) && now.since(peer.heard) <= patience;
            changed |= in_sync != peer.in_sync;
            peer.in_sync = in_sync;
        }
        if changed {
            self.report_standing();
        }
    }

    /// The register names other replicas in the same term: learners come or go, a set that was left is forgotten.
    pub(super) fn lead_new_audience(&mut self, now: Timestamp) {
        let (Role::Active(leader), Some(assignment)) = (&mut self.role, &self.assignment) else { return };
        let audience = assignment.audience();
        leader.peers.retain(|peer, _| audience.contains(peer));
        let new: Vec<ReplicaId> = audience
            .into_iter()
            .filter(|&replica| replica != self.me && !leader.peers.contains_key(&replica))
            .collect();
        leader.peers.extend(new.iter().map(|&replica| (replica, Progress::new(now))));
        self.lead_to(new);
    }

    /// Reads on for a follower that lags, within what may be in flight.
    fn read_for(&mut self, to: ReplicaId) {
        let (end, epoch) = (self.epochs.end(), self.promise);
        let Role::Active(leader) = &mut self.role else { return };
        let Some(peer) = leader.peers.get_mut(&to) else { return };
        let room = peer.inflight_bytes < self.config.inflight_limit;
        if peer.streaming && !peer.reading && room && peer.next < end {
            peer.reading = true;
            peer.read_bound = self.compacted.tombstones_gone_below;
            let (from, max_bytes) = (peer.next, self.config.read_size);
            self.outbox.push(Action::Read { to, epoch, from, max_bytes });
        }
    }

    pub(super) fn leader_read(
        &mut self,
        _now: Timestamp,
        to: ReplicaId,
        from: Offset,
        batches: Vec<RecordBatch>,
    ) {
        let Role::Active(leader) = &mut self.role else { return };
        let Some(peer) = leader.peers.get_mut(&to) else { return };
        peer.reading = false;
        // What was read before more tombstones might go is not told as if it had been read since (R45).
        let timely = peer.read_bound == self.compacted.tombstones_gone_below;
        if peer.streaming && peer.next == from && timely && !batches.is_empty() {
            let batches = from_there_on(from, batches);
            // Where nothing is left, the position is inside of a batch, as no sound log's is.
            peer.streaming = !batches.is_empty();
            if peer.streaming {
                self.send_data(to, batches);
            }
        }
        self.read_for(to);
    }

    /// The only writer of a leader's high watermark (R26, R27).
    pub(super) fn advance(&mut self, now: Timestamp) {
        let (me, end, durable_end) = (self.me, self.epochs.end(), self.durable_end);
        let durability = self.config.durability;
        let (Role::Active(leader), Some(assignment)) = (&mut self.role, &self.assignment) else { return };
        let reached = |replica: ReplicaId, durability: Durability| {
            if replica == me {
                let flushed = durability == Durability::Disk && !mutant!(LeaderAcksBeforeFlush);
                return if flushed { durable_end } else { end };
            }
            let of = |peer| leader.peers.get(peer).map_or(Offset::ZERO, |peer| peer.reached(durability));
            if mutant!(CountLearners) {
                return assignment.learners.iter().map(of).fold(of(&replica), Offset::max);
            }
            of(&replica)
        };
        let flushed = if mutant!(DurableBeforeFlush) { Durability::Memory } else { Durability::Disk };
        let durable = committed(&assignment.set, |replica| reached(replica, flushed));
        let high_watermark = committed(&assignment.set, |replica| reached(replica, durability));
        // Batches of earlier epochs become committed together with the marker, never alone.
        if durable > leader.start {
            self.durable_high_watermark = self.durable_high_watermark.max(durable);
        }
        let old = high_watermark <= leader.start && !mutant!(CountOldEpochs);
        if old || high_watermark <= self.high_watermark {
            return;
        }
        self.high_watermark = high_watermark;
        let settles = !leader.settled;
        let completes = settles && assignment.prev.is_some();
        leader.settled = true;
        // R41: what was told must not move a leader that has got going again.
        let goes_on = std::mem::take(&mut leader.stall_told);
        self.producers.settle(high_watermark);
        self.restart_stall_clock(now);
        self.answer_committed();
        if settles || goes_on {
            self.report(self.promise, LeaderState::Active, completes);
        }
    }

    /// R28: answers whatever lies below the high watermark.
    fn answer_committed(&mut self) {
        let (high_watermark, epoch) = (self.high_watermark, self.promise);
        let Role::Active(leader) = &mut self.role else { return };
        while let Some(entry) = leader.pending.first_entry() {
            let (last_offset, request) = *entry.key();
            if last_offset >= high_watermark {
                break;
            }
            let Pending { base_offset, bytes, duplicate } = entry.remove();
            leader.pending_bytes -= bytes;
            let acknowledged = Acknowledged { base_offset, last_offset, epoch, duplicate };
            self.outbox.push(Action::Reply { request, result: Ok(acknowledged) });
        }
    }

    /// What every follower has to know.
    pub(super) fn announcement(&self) -> [Offset; 3] {
        [self.high_watermark, self.durable_high_watermark, self.epochs.base().end]
    }

    /// Followers that have everything learn of a new high watermark, or log start, at once; the others with their next data.
    pub(super) fn announce_watermark(&mut self) {
        let (news, end) = (self.announcement(), self.epochs.end());
        let Role::Active(leader) = &self.role else { return };
        let behind: Vec<ReplicaId> = leader
            .peers
            .iter()
            .filter(|(_, peer)| peer.streaming && !peer.reading && peer.next == end)
            .filter(|(_, peer)| peer.announced != news)
            .map(|(&to, _)| to)
            .collect();
        for to in behind {
            self.send_data(to, Vec::new());
        }
    }

    /// The log starts higher than it did: what was to be sent next to some is not there any more (R44). They tell their
    /// position again, and hear so.
    pub(super) fn part_from_the_trimmed(&mut self) {
        let start = self.epochs.base().end;
        let Role::Active(leader) = &mut self.role else { return };
        let mut behind = Vec::new();
        for (&id, peer) in leader.peers.iter_mut().filter(|(_, peer)| peer.streaming && peer.next < start) {
            peer.streaming = false;
            behind.push(id);
        }
        self.lead_to(behind);
    }

    /// R17, and the heartbeat of R41.
    pub(super) fn send_lead(&mut self) {
        let Role::Active(leader) = &self.role else { return };
        let peers: Vec<ReplicaId> = leader.peers.keys().copied().collect();
        self.lead_to(peers);
    }

    fn lead_to(&mut self, peers: Vec<ReplicaId>) {
        let lead = Message::Lead {
            high_watermark: self.high_watermark,
            log_end_offset: self.epochs.end(),
            cleaned_by_all: self.cleaned_by_all(),
        };
        for peer in peers {
            self.send(peer, self.promise, lead.clone());
        }
    }

    /// A new stream to that broker: what was in flight may be lost.
    pub(super) fn greet_peer(&mut self, broker: BrokerId) {
        let Role::Active(leader) = &mut self.role else { return };
        let mut greeted = Vec::new();
        for (&id, peer) in leader.peers.iter_mut().filter(|(id, _)| id.broker == broker) {
            peer.streaming = false;
            greeted.push(id);
        }
        self.lead_to(greeted);
    }

    fn restart_stall_clock(&mut self, now: Timestamp) {
        let timeout = self.config.stall_timeout;
        if let Role::Active(leader) = &mut self.role {
            leader.stalled_at = now + timeout;
        }
    }

    /// Says again how it stands, with who is in sync: a leader that is stuck does not get on by that.
    fn report_standing(&mut self) {
        let stuck = matches!(&self.role, Role::Active(leader) if leader.stall_told);
        let state = if stuck { LeaderState::Stalled } else { LeaderState::Active };
        self.report(self.promise, state, false);
    }

    fn note_stall_told(&mut self) {
        if let Role::Active(leader) = &mut self.role {
            leader.stall_told = true;
        }
    }

    pub(super) fn leader_timer(&mut self, now: Timestamp) {
        let Role::Active(leader) = &self.role else { return };
        let (lead, stalled) = (self.lead_due(leader) <= now, leader.stalled_at <= now);
        let calm = self.is_calm(leader);
        self.answer_cut_off(now);
        if lead {
            self.review_in_sync(now);
            self.begin_round(now, calm);
            self.send_lead();
        }
        if stalled {
            self.restart_stall_clock(now);
            if self.high_watermark < self.epochs.end() {
                self.note_stall_told();
                self.report(self.promise, LeaderState::Stalled, false);
            }
        }
    }

    /// Where the members of the set stand.
    pub(super) fn member_status(&self) -> Vec<MemberStatus> {
        let (Role::Active(leader), Some(assignment)) = (&self.role, &self.assignment) else {
            return Vec::new();
        };
        let durability = self.config.durability;
        let own = if durability == Durability::Disk { self.durable_end } else { self.epochs.end() };
        let member = |&replica: &ReplicaId| match leader.peers.get(&replica) {
            Some(peer) => MemberStatus { replica, reached: peer.reached(durability), lags: peer.lags() },
            None => MemberStatus { replica, reached: own, lags: false },
        };
        assignment.set.iter().map(member).collect()
    }
}
