//! Three replicas on a stage: nothing happens unless the script says so, and every message waits until it is called.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use holdfast_core::metadata::Durability;
use holdfast_core::record_batch::{ProducerRef, RecordBatchBuilder};
use holdfast_core::replication::{
    Acknowledged, Action, Assignment, Envelope, Event, Loaded, Message, ProduceError, Replica, ReplicaConfig,
    RequestId,
};
use holdfast_core::{Incarnation, Offset, ProducerId, ReplicaId, Term, Timestamp};

use crate::controller::{broker_id, dir_id, node_of};
use crate::disk::Disk;
use crate::oracle::Oracle;
use crate::random::Random;

/// The nodes, as the schedules call them.
pub(crate) const A: usize = 0;
pub(crate) const B: usize = 1;
pub(crate) const C: usize = 2;

/// Which message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Fence,
    FenceOk,
    Lead,
    Fetch,
    Data,
    Diverge,
}

fn is_kind(message: &Message, kind: Kind) -> bool {
    matches!(
        (message, kind),
        (Message::Fence { .. }, Kind::Fence)
            | (Message::FenceOk { .. }, Kind::FenceOk)
            | (Message::Lead { .. }, Kind::Lead)
            | (Message::Fetch { .. }, Kind::Fetch)
            | (Message::Data { .. }, Kind::Data)
            | (Message::Diverge { .. }, Kind::Diverge)
    )
}

/// A node of the stage.
#[derive(Debug)]
struct Actor {
    disk: Disk,
    replica: Option<Replica>,
    runs: u64,
    /// Flushes wait for `flush`.
    lazy: bool,
    follow_up: VecDeque<Event>,
}

/// The stage.
#[derive(Debug)]
pub(crate) struct Stage {
    durability: Durability,
    now: Timestamp,
    actors: Vec<Actor>,
    oracle: Oracle,
    /// Sent and not delivered, oldest first.
    post: Vec<Envelope>,
    requests: u64,
    sequences: BTreeMap<RequestId, i32>,
    replies: BTreeMap<RequestId, Result<Acknowledged, ProduceError>>,
}

fn replica_id(node: usize) -> ReplicaId {
    ReplicaId { broker: broker_id(node), dir: dir_id(node) }
}

impl Stage {
    /// Three empty nodes.
    pub(crate) fn new(durability: Durability) -> Stage {
        let actor = |_| Actor {
            disk: Disk::default(),
            replica: None,
            runs: 1,
            lazy: false,
            follow_up: VecDeque::new(),
        };
        Stage {
            durability,
            now: Timestamp(1),
            actors: (0..3).map(actor).collect(),
            oracle: Oracle::new(0, durability, false, 3),
            post: Vec::new(),
            requests: 0,
            sequences: BTreeMap::new(),
            replies: BTreeMap::new(),
        }
    }

    fn config(&self) -> ReplicaConfig {
        ReplicaConfig { durability: self.durability, ..ReplicaConfig::default() }
    }

    fn incarnation(&self, node: usize) -> Incarnation {
        Incarnation(node as u64 * 100 + self.actors[node].runs)
    }

    /// The controller appoints `leader`; these nodes hear of it.
    pub(crate) fn appoint(&mut self, term: u32, leader: usize, told: &[usize]) {
        let set = (0..3).map(replica_id).collect();
        let assignment =
            Assignment { term: Term(term), leader: replica_id(leader), set, prev: None, unclean: false };
        for &node in told {
            if self.actors[node].replica.is_none() {
                let loaded = Loaded::empty(replica_id(node), self.incarnation(node), &assignment);
                self.actors[node].replica = Some(Replica::new(self.now, self.config(), loaded));
            }
            self.tell(node, Event::Assign(assignment.clone()));
        }
    }

    /// A cluster that `leader` leads in term 1, with nothing on its way.
    pub(crate) fn led_by(durability: Durability, leader: usize) -> Stage {
        let mut stage = Stage::new(durability);
        stage.appoint(1, leader, &[A, B, C]);
        stage.exchange(&[A, B, C]);
        stage
    }

    /// Something happens to a replica; it is done with what follows on its own node.
    pub(crate) fn tell(&mut self, node: usize, event: Event) {
        let now = self.now;
        if let Some(replica) = &mut self.actors[node].replica {
            replica.handle(now, event);
        }
        self.drain(node);
    }

    fn drain(&mut self, node: usize) {
        loop {
            let actor = &mut self.actors[node];
            let Some(replica) = &mut actor.replica else { return };
            if let Some(action) = replica.next_action() {
                if matches!(action, Action::Send(_) | Action::Reply { .. }) {
                    self.observe(node);
                }
                self.act(node, action);
            } else if let Some(event) = actor.follow_up.pop_front() {
                replica.handle(self.now, event);
            } else {
                return self.observe(node);
            }
        }
    }

    fn observe(&mut self, node: usize) {
        let disks: Vec<&Disk> = self.actors.iter().map(|actor| &actor.disk).collect();
        let incarnation = Incarnation(node as u64 * 100 + self.actors[node].runs);
        if let Some(replica) = &self.actors[node].replica {
            self.oracle.observe(node, incarnation, replica, &disks).unwrap();
        }
    }

    fn act(&mut self, node: usize, action: Action) {
        let Actor { disk, follow_up, lazy, .. } = &mut self.actors[node];
        match action {
            Action::Persist { number, state } => {
                disk.begin_persist(number, state);
                disk.end_persist(number);
                follow_up.push_back(Event::Persisted { number });
            }
            Action::Append { batches } => {
                self.oracle.appending(node, disk, &batches).unwrap();
                disk.append(batches);
            }
            Action::Truncate { end } => {
                self.oracle.truncating(node, end).unwrap();
                disk.truncate(end);
            }
            Action::Flush { generation } => {
                disk.begin_flush(generation);
                if !*lazy {
                    Stage::end_flushes(disk, follow_up);
                }
            }
            Action::Read { to, epoch, from, max_bytes } => {
                let batches = disk.read(from, max_bytes);
                follow_up.push_back(Event::Read { to, epoch, from, batches });
            }
            Action::Send(envelope) => {
                self.oracle.sending(node, disk, &envelope).unwrap();
                self.post.push(envelope);
            }
            Action::Reply { request, result } => {
                if let Ok(acknowledged) = &result {
                    let sequence = self.sequences[&request];
                    self.oracle.acknowledging(node, ProducerId(1), sequence, acknowledged).unwrap();
                }
                self.replies.insert(request, result);
            }
            Action::Report { .. } => {}
        }
    }

    fn end_flushes(disk: &mut Disk, follow_up: &mut VecDeque<Event>) {
        while let Some((flush, _)) = disk.end_flush() {
            follow_up.push_back(Event::Flushed { generation: flush.generation, end: flush.end });
        }
    }

    /// From now on this node's flushes wait for `flush`.
    pub(crate) fn hold_flushes(&mut self, node: usize) {
        self.actors[node].lazy = true;
    }

    /// The flushes of this node end, and no more wait.
    pub(crate) fn flush(&mut self, node: usize) {
        let Actor { disk, follow_up, lazy, .. } = &mut self.actors[node];
        *lazy = false;
        Stage::end_flushes(disk, follow_up);
        self.drain(node);
    }

    /// A record, to the node that is said to lead. Gives the request.
    pub(crate) fn produce(&mut self, node: usize, sequence: i32) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        let mut builder = RecordBatchBuilder::new();
        let value = format!("{sequence} from request {}", self.requests);
        builder.push(0, None, Some(value.as_bytes()), &[]).unwrap();
        let producer = ProducerRef { id: ProducerId(1), epoch: 0, base_sequence: sequence };
        self.sequences.insert(request, sequence);
        let batch = builder.build(Some(producer)).unwrap();
        self.tell(node, Event::Produce { request, batch });
        request
    }

    /// The answer to a request, if there is one.
    pub(crate) fn reply(&self, request: RequestId) -> Option<Result<Acknowledged, ProduceError>> {
        self.replies.get(&request).copied()
    }

    /// Whether the request was answered with success.
    pub(crate) fn is_acknowledged(&self, request: RequestId) -> bool {
        matches!(self.reply(request), Some(Ok(_)))
    }

    /// Takes the oldest such message out of the post.
    pub(crate) fn take(&mut self, from: usize, to: usize, kind: Kind) -> Envelope {
        let ends = (broker_id(from), broker_id(to));
        let matching = |envelope: &Envelope| {
            (envelope.from.broker, envelope.to.broker) == ends && is_kind(&envelope.message, kind)
        };
        let at = self.post.iter().position(matching);
        let at = at.unwrap_or_else(|| panic!("no {kind:?} from {from} to {to} in {:?}", self.post));
        self.post.remove(at)
    }

    /// Delivers the oldest such message, and gives a copy of it for later.
    pub(crate) fn deliver(&mut self, from: usize, to: usize, kind: Kind) -> Envelope {
        let envelope = self.take(from, to, kind);
        self.receive(envelope.clone());
        envelope
    }

    /// Delivers a message that was taken, or delivers it again.
    pub(crate) fn receive(&mut self, envelope: Envelope) {
        self.tell(node_of(envelope.to.broker), Event::Receive(envelope));
    }

    /// Delivers everything between these nodes until nothing more is said.
    pub(crate) fn exchange(&mut self, nodes: &[usize]) {
        for _ in 0..1000 {
            let between = |envelope: &Envelope| {
                nodes.contains(&node_of(envelope.from.broker)) && nodes.contains(&node_of(envelope.to.broker))
            };
            let Some(at) = self.post.iter().position(between) else { return };
            let envelope = self.post.remove(at);
            self.receive(envelope);
        }
        panic!("they never stop talking: {:?}", self.post);
    }

    /// Everything in the post is lost.
    pub(crate) fn lose_post(&mut self) {
        self.post.clear();
    }

    /// Time goes by, and this node's timer fires.
    pub(crate) fn wait(&mut self, node: usize, milliseconds: u64) {
        self.now = self.now + Duration::from_millis(milliseconds);
        self.tell(node, Event::Timer);
    }

    /// The process dies and starts again; what it wrote is there.
    pub(crate) fn restart(&mut self, node: usize) {
        self.actors[node].disk.crash(&mut Random::new(0));
        self.boot(node);
    }

    /// The machine loses all that was not flushed, and starts again.
    pub(crate) fn lose_power(&mut self, node: usize) {
        self.actors[node].disk.cut_power_fully();
        self.boot(node);
    }

    /// The log fails, the process starts again, and finds the log empty.
    pub(crate) fn lose_log(&mut self, node: usize) {
        self.actors[node].disk.fail();
        self.tell(node, Event::StorageFailed);
        self.actors[node].disk.crash_and_lose_all();
        self.boot(node);
    }

    fn boot(&mut self, node: usize) {
        let (me, config) = (replica_id(node), self.config());
        let actor = &mut self.actors[node];
        actor.runs += 1;
        actor.follow_up.clear();
        let (state, epochs, producers) = actor.disk.load().expect("it had been assigned");
        self.oracle.reloaded(node, &actor.disk).unwrap();
        let loaded = Loaded {
            me,
            incarnation: Incarnation(node as u64 * 100 + actor.runs),
            state,
            epochs,
            producers,
            high_watermark: actor.disk.watermark(),
            tail_lost: actor.disk.tail_lost(),
        };
        actor.replica = Some(Replica::new(self.now, config, loaded));
        self.drain(node);
    }

    /// The replica of a node.
    pub(crate) fn replica(&self, node: usize) -> &Replica {
        self.actors[node].replica.as_ref().expect("it was assigned")
    }

    /// Whether the node leads.
    pub(crate) fn leads(&self, node: usize) -> bool {
        self.replica(node).status().active
    }

    /// Number of batches on the node's disk, markers included.
    pub(crate) fn end(&self, node: usize) -> Offset {
        self.actors[node].disk.end()
    }

    /// Its high watermark.
    pub(crate) fn watermark(&self, node: usize) -> Offset {
        self.replica(node).status().high_watermark
    }
}
