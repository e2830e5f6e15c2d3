//! What one happening makes of a node. It depends on that node alone, so each pair of node and happening is worked out
//! once. What can be judged by looking at one node is judged here; the rest is handed on as facts.

use std::collections::VecDeque;
use std::time::Duration;

use holdfast_core::metadata::Durability;
use holdfast_core::record_batch::{ProducerRef, RecordBatch, RecordBatchBuilder};
use holdfast_core::replication::{
    Action, Assignment, Compacted, Envelope, Event, Loaded, Message, Replica, ReplicaConfig, RequestId,
};
use holdfast_core::{DirId, Offset, ProducerId, ReplicaId, Term};

use super::disk::Disk;
use super::node::{Entry, Fact, NOW, Node, entries};
use super::step::{Happening, Local};
use super::{Bounds, Sets};
use crate::controller::broker_id;
use crate::oracle::{Violation, ensure};

/// Requests of a record are numbered this far apart.
const ATTEMPTS: u64 = 100;

/// What came of a happening.
#[derive(Debug)]
pub(super) struct Effect {
    pub(super) node: Node,
    pub(super) sent: Vec<Envelope>,
    pub(super) facts: Vec<Fact>,
    /// Number of actions performed.
    pub(super) actions: u8,
}

fn replica_id(node: usize) -> ReplicaId {
    ReplicaId { broker: broker_id(node), dir: DirId(0xd0 + node as u64) }
}

fn config(durability: Durability) -> ReplicaConfig {
    let (never, always) = (Duration::from_secs(3600), Duration::ZERO);
    ReplicaConfig {
        durability,
        flush_interval: always,
        retry_interval: always,
        lead_interval: always,
        calm_lead_interval: always,
        quorum_timeout: never,
        stall_timeout: never,
        ..ReplicaConfig::default()
    }
}

fn assignment(bounds: &Bounds, term: u8) -> Assignment {
    let leader = replica_id(bounds.leaders[usize::from(term) - 1]);
    let Sets { set, prev } = bounds.sets_of(term.into());
    let replicas = |nodes: &[usize]| nodes.iter().copied().map(replica_id).collect();
    let prev = (!prev.is_empty()).then(|| replicas(prev));
    Assignment {
        term: Term(term.into()),
        leader,
        set: replicas(set),
        prev,
        learners: Vec::new(),
        unclean_term: None,
    }
}

/// Every record has a producer of its own, so that one sent twice and written twice shows.
fn batch_of(record: u8) -> RecordBatch {
    let mut builder = RecordBatchBuilder::new();
    let producer = ProducerRef { id: ProducerId(record.into()), epoch: 0, base_sequence: 0 };
    builder
        .push(0, None, Some(&[record]), &[])
        .and_then(|()| builder.build(Some(producer)))
        .expect("one byte fits a batch")
}

/// A happening being worked out.
struct Performance<'a> {
    bounds: &'a Bounds,
    effect: Effect,
    follow_up: VecDeque<Event>,
    killed_after: Option<u8>,
}

/// Works out what `local` makes of `node`. `message` is the one received, if one is.
pub(super) fn perform(
    bounds: &Bounds,
    node: &Node,
    local: Local,
    message: Option<&Envelope>,
) -> Result<Effect, Violation> {
    let effect = Effect { node: node.clone(), sent: Vec::new(), facts: Vec::new(), actions: 0 };
    let killed_after = local.killed_after;
    let mut performance = Performance { bounds, effect, follow_up: VecDeque::new(), killed_after };
    performance.begin(local.happening, message)?;
    performance.drain()?;
    Ok(performance.effect)
}

impl Performance<'_> {
    fn begin(&mut self, happening: Happening, message: Option<&Envelope>) -> Result<(), Violation> {
        match happening {
            Happening::Told { term } => self.assign(term),
            Happening::Received { .. } => self.tell(message.cloned().map(Event::Receive)),
            Happening::Produced { record, again } => {
                let request = RequestId(u64::from(record) + if again { ATTEMPTS } else { 0 });
                self.tell(Some(Event::Produce { request, batch: batch_of(record) }));
            }
            Happening::Flushed => self.follow_up.extend(self.effect.node.disk.end_flush()),
            Happening::Timer => self.tell(Some(Event::Timer)),
            Happening::Connected { peer } => {
                self.tell(Some(Event::PeerConnected { broker: broker_id(peer.into()) }));
            }
            Happening::Killed => {
                self.effect.node.disk.lose_process();
                self.boot()?;
            }
            Happening::PowerLost { kept } => {
                let disk = &mut self.effect.node.disk;
                disk.lose_power(kept.into());
                // Mode disk acknowledges nothing that power can take, and asks for no such mark.
                disk.tail_lost = self.bounds.durability == Durability::Memory;
                self.boot()?;
            }
        }
        Ok(())
    }

    fn tell(&mut self, event: Option<Event>) {
        if let (Some(replica), Some(event)) = (&mut self.effect.node.replica, event) {
            replica.handle(NOW, event);
        }
    }

    fn assign(&mut self, term: u8) {
        let assignment = assignment(self.bounds, term);
        let node = &mut self.effect.node;
        node.told = term;
        if node.replica.is_none() {
            let loaded = Loaded::empty(replica_id(node.index), node.incarnation(), &assignment);
            node.replica = Some(Replica::new(NOW, config(self.bounds.durability), loaded));
        }
        self.tell(Some(Event::Assign(assignment)));
    }

    /// A process starts from what its disk holds.
    fn boot(&mut self) -> Result<(), Violation> {
        self.follow_up.clear();
        let durability = self.bounds.durability;
        let node = &mut self.effect.node;
        node.run += 1;
        node.watermark = Offset::ZERO;
        node.active = None;
        node.replica = None;
        let (name, promise, obeyed) = (node.name(), node.durable_promise(), node.obeyed);
        ensure(promise >= obeyed, "REP-6", || format!("{name} obeyed {obeyed} and finds promise {promise}"))?;
        let Some(state) = node.disk.state().cloned() else {
            // Nobody has heard of it: it will be told again.
            node.told = 0;
            node.disk = Disk::default();
            return Ok(());
        };
        let (epochs, producers) = node.disk.load();
        let loaded = Loaded {
            me: replica_id(node.index),
            incarnation: node.incarnation(),
            state,
            epochs,
            producers,
            compacted: Compacted::default(),
            high_watermark: Offset::ZERO,
            tail_lost: node.disk.tail_lost,
            damaged: false,
            life: 0,
        };
        node.replica = Some(Replica::new(NOW, config(durability), loaded));
        Ok(())
    }

    fn drain(&mut self) -> Result<(), Violation> {
        loop {
            if self.killed_after.is_some_and(|after| after <= self.effect.actions) {
                self.killed_after = None;
                self.effect.node.disk.lose_process();
                self.boot()?;
            }
            let Some(replica) = &mut self.effect.node.replica else { return Ok(()) };
            if let Some(action) = replica.next_action() {
                if matches!(action, Action::Send(_) | Action::Reply { .. }) {
                    self.observe()?; // before anybody learns of it
                }
                self.act(action)?;
                self.effect.actions += 1;
            } else if let Some(event) = self.follow_up.pop_front() {
                replica.handle(NOW, event);
            } else {
                return self.observe();
            }
        }
    }

    fn act(&mut self, action: Action) -> Result<(), Violation> {
        let disk = &mut self.effect.node.disk;
        match action {
            Action::Persist { number, state } => {
                disk.persist(state);
                self.follow_up.push_back(Event::Persisted { number });
                Ok(())
            }
            Action::Append { batches } => self.append(batches),
            Action::Truncate { end } => self.truncate(end),
            // Nobody offers it.
            Action::Trim { .. } | Action::Reset { .. } | Action::NoteTombstonesGone { .. } => Ok(()),
            Action::Flush { generation } => {
                let ended = if self.bounds.slow_flushes {
                    disk.flush_later(generation)
                } else {
                    Some(disk.flush_now(generation))
                };
                self.follow_up.extend(ended);
                Ok(())
            }
            Action::Read { to, epoch, from, .. } => {
                let batches = disk.read(from);
                self.follow_up.push_back(Event::Read { to, epoch, from, batches });
                Ok(())
            }
            Action::Send(envelope) => self.send(envelope),
            Action::Reply { request, result: Ok(acknowledged) } => {
                let record = (request.0 % ATTEMPTS) as u8;
                self.effect.facts.push(Fact::Acknowledged { record, offset: acknowledged.base_offset });
                Ok(())
            }
            Action::Report { term, complete: true, .. } => {
                self.effect.facts.push(Fact::Completed { term: term.0 });
                Ok(())
            }
            Action::Reply { .. } | Action::Report { .. } => Ok(()),
        }
    }

    fn append(&mut self, batches: Vec<RecordBatch>) -> Result<(), Violation> {
        let node = &mut self.effect.node;
        let (name, promise, before) = (node.name(), node.durable_promise(), node.disk.batches().len());
        for batch in batches {
            let header = batch.header();
            let (epoch, base, end) = (header.epoch.unwrap_or_default(), header.base_offset, node.disk.end());
            ensure(promise >= epoch, "REP-6", || {
                format!("{name} appends in {epoch} with durable promise {promise}")
            })?;
            ensure(base == end, "REP-3", || format!("{name} appends {base} at log end {end}"))?;
            node.obeyed = node.obeyed.max(epoch);
            node.disk.append(vec![batch]);
        }
        let log = entries(node.disk.batches());
        ensure(log.windows(2).all(|pair| pair[0].epoch <= pair[1].epoch), "REP-3", || {
            format!("epochs decrease in the log of {name}")
        })?;
        self.effect.facts.extend(log[before..].iter().copied().map(Fact::Wrote));
        Ok(())
    }

    fn truncate(&mut self, end: Offset) -> Result<(), Violation> {
        let node = &mut self.effect.node;
        let (name, watermark) = (node.name(), node.watermark);
        ensure(end >= watermark, "REP-5", || {
            format!("{name} truncates to {end} below its high watermark {watermark}")
        })?;
        node.disk.truncate(end);
        Ok(())
    }

    fn send(&mut self, envelope: Envelope) -> Result<(), Violation> {
        let node = &mut self.effect.node;
        let (name, promise, epoch) = (node.name(), node.durable_promise(), envelope.epoch);
        ensure(promise >= epoch, "REP-6", || {
            format!("{name} speaks in {epoch} with durable promise {promise}: {:?}", envelope.message)
        })?;
        let (end, on_disk) = (node.disk.end(), node.disk.flushed());
        let (written, flushed) = match &envelope.message {
            Message::FenceOk { position, .. } => (position.end, position.end),
            Message::Fetch { position, durable_end, .. } => (position.end, *durable_end),
            // A hint that no replica acts upon.
            Message::Stale { .. } => return Ok(()),
            _ => (Offset::ZERO, Offset::ZERO),
        };
        ensure(written <= end && flushed <= on_disk, "REP-6", || {
            format!("{name} claims {written} written, {flushed} flushed; has {end}, {on_disk}")
        })?;
        node.obeyed = node.obeyed.max(epoch);
        self.effect.sent.push(envelope);
        Ok(())
    }

    /// Role and watermark as others may see them. A replica is mute until its promise is durable.
    fn observe(&mut self) -> Result<(), Violation> {
        let node = &mut self.effect.node;
        let Some(status) = node.replica.as_ref().map(Replica::status) else { return Ok(()) };
        if node.durable_promise() < status.epoch {
            return Ok(());
        }
        let log = entries(node.disk.batches());
        let active = status.active.then_some(status.epoch);
        if let Some(epoch) = active.filter(|_| node.active != active) {
            self.effect.facts.push(Fact::Leads { epoch, run: node.run, log: log.clone() });
        }
        node.active = active;
        let (name, known, flushed) = (node.name(), node.watermark, node.disk.flushed());
        ensure(status.high_watermark >= known, "REP-7", || {
            format!("the high watermark of {name} fell from {known} to {}", status.high_watermark)
        })?;
        let watermark = status.high_watermark.min(node.disk.end());
        if watermark > known {
            node.watermark = watermark;
            let shown: Vec<Entry> = log.into_iter().filter(|entry| entry.next <= watermark).collect();
            self.effect.facts.push(Fact::Shows { log: shown, active, flushed });
        }
        Ok(())
    }
}
