//! Brokers on a stage: nothing happens unless the script says so, and every message waits until it is called.

mod post;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use holdfast_core::metadata::Durability;
use holdfast_core::record_batch::{ProducerRef, RecordBatchBuilder};
use holdfast_core::replication::{
    Acknowledged, Action, Assignment, Envelope, Event, Loaded, ProduceError, Replica, ReplicaConfig,
    RequestId,
};
use holdfast_core::{DirId, Incarnation, Offset, ProducerId, ReplicaId, Term, Timestamp};
use holdfast_log::{ByteSize, LogConfig};

use crate::compaction::cleanable_end;
use crate::controller::broker_id;
use crate::disk::{Disk, FlushStart};
use crate::oracle::{Oracle, Site, Violation};
use crate::random::Random;
pub(crate) use post::Kind;

/// The nodes, as the schedules call them.
pub(crate) const A: usize = 0;
pub(crate) const B: usize = 1;
pub(crate) const C: usize = 2;
/// Belongs to no set at first.
pub(crate) const D: usize = 3;

const NODES: usize = 4;

/// A node of the stage.
#[derive(Debug)]
struct Actor {
    dir: DirId,
    disk: Disk,
    replica: Option<Replica>,
    runs: u64,
    /// Flushes wait for `flush`.
    lazy: bool,
    follow_up: VecDeque<Event>,
}

impl Actor {
    fn new(durability: Durability, dir: DirId, log: LogConfig) -> Actor {
        let disk = Disk::new(log, durability);
        Actor { dir, disk, replica: None, runs: 1, lazy: false, follow_up: VecDeque::new() }
    }

    /// Begins the flush that was asked for; without patience it ends at once.
    fn start_flush(&mut self) {
        loop {
            match self.disk.start_flush() {
                FlushStart::Done(event) => self.follow_up.push_back(event),
                FlushStart::UnderWay if !self.lazy => self.follow_up.extend(self.disk.end_flush()),
                FlushStart::UnderWay | FlushStart::Idle => return,
            }
        }
    }
}

/// The stage.
#[derive(Debug)]
pub(crate) struct Stage {
    durability: Durability,
    /// Whether each batch has a segment of its own, and is read on its own.
    piecemeal: bool,
    now: Timestamp,
    actors: Vec<Actor>,
    oracle: Oracle,
    /// Sent and not delivered, oldest first.
    post: Vec<Envelope>,
    requests: u64,
    sequences: BTreeMap<RequestId, i32>,
    replies: BTreeMap<RequestId, Result<Acknowledged, ProduceError>>,
    /// Terms whose leader said that its change of the set is complete.
    completed: Vec<Term>,
}

/// The data directory that a node has at first.
pub(crate) fn first_dir(node: usize) -> DirId {
    DirId(0xd0 + node as u64)
}

/// The replica of a node that has lost no disk.
pub(crate) fn replica_id(node: usize) -> ReplicaId {
    ReplicaId { broker: broker_id(node), dir: first_dir(node) }
}

/// A register that names this leader and this set.
pub(crate) fn register(term: u32, leader: usize, set: &[usize]) -> Assignment {
    Assignment {
        term: Term(term),
        leader: replica_id(leader),
        set: replicas(set),
        prev: None,
        learners: Vec::new(),
        unclean_term: None,
    }
}

/// The replicas of some nodes.
pub(crate) fn replicas(nodes: &[usize]) -> Vec<ReplicaId> {
    nodes.iter().map(|&node| replica_id(node)).collect()
}

fn log_config(piecemeal: bool) -> LogConfig {
    let config = LogConfig::default();
    if piecemeal { LogConfig { segment_size: ByteSize(1), ..config } } else { config }
}

/// A broken promise ends the schedule, and its text begins with the invariant's id.
fn expect_held(judgement: Result<(), Violation>) {
    if let Err(violation) = judgement {
        panic!("{violation}");
    }
}

impl Stage {
    /// Four empty nodes.
    pub(crate) fn new(durability: Durability) -> Stage {
        let oracle = Oracle::new(0, durability, false, NODES);
        Stage::with(durability, oracle, false)
    }

    /// Four empty nodes that durably have what is acknowledged, unless a disk fails, each batch in a segment of its own.
    pub(crate) fn piecemeal() -> Stage {
        let oracle = Oracle::new(0, Durability::Disk, false, NODES).on_failing_disks();
        Stage::with(Durability::Disk, oracle, true)
    }

    fn with(durability: Durability, oracle: Oracle, piecemeal: bool) -> Stage {
        let actor = |node| Actor::new(durability, first_dir(node), log_config(piecemeal));
        Stage {
            durability,
            piecemeal,
            now: Timestamp(1),
            actors: (0..NODES).map(actor).collect(),
            oracle,
            post: Vec::new(),
            requests: 0,
            sequences: BTreeMap::new(),
            replies: BTreeMap::new(),
            completed: Vec::new(),
        }
    }

    fn config(&self) -> ReplicaConfig {
        let config = ReplicaConfig { durability: self.durability, ..ReplicaConfig::default() };
        if self.piecemeal { ReplicaConfig { read_size: 1, inflight_limit: 1, ..config } } else { config }
    }

    /// The identity of a node's replica.
    fn id(&self, node: usize) -> ReplicaId {
        ReplicaId { broker: broker_id(node), dir: self.actors[node].dir }
    }

    fn incarnation(&self, node: usize) -> Incarnation {
        Incarnation(node as u64 * 100 + self.actors[node].runs)
    }

    /// The controller appoints `leader` of A, B and C; these nodes hear of it.
    pub(crate) fn appoint(&mut self, term: u32, leader: usize, told: &[usize]) {
        self.assign(&register(term, leader, &[A, B, C]), told);
    }

    /// These nodes hear of a register; a replica that it names and that is not there is made (R46).
    pub(crate) fn assign(&mut self, assignment: &Assignment, told: &[usize]) {
        for &node in told {
            if self.actors[node].replica.is_none() {
                let loaded = Loaded::empty(self.id(node), self.incarnation(node), assignment);
                self.actors[node].disk.create().unwrap();
                self.actors[node].replica = Some(Replica::new(self.now, self.config(), loaded));
                self.drain(node);
            }
            self.tell(node, Event::Assign(assignment.clone()));
        }
    }

    /// The register names the node no longer: its replica is deleted (R46).
    pub(crate) fn delete(&mut self, node: usize) {
        self.lose_disk(node, self.actors[node].dir);
    }

    /// The node comes back empty, with that data directory.
    pub(crate) fn lose_disk(&mut self, node: usize, dir: DirId) {
        let runs = self.actors[node].runs + 1;
        self.actors[node] = Actor { runs, ..Actor::new(self.durability, dir, log_config(self.piecemeal)) };
        self.oracle.wiped(node);
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
        let site = |(other, actor): (usize, _)| {
            let actor: &Actor = actor;
            Site { id: self.id(other), disk: &actor.disk }
        };
        let sites: Vec<Site<'_>> = self.actors.iter().enumerate().map(site).collect();
        let incarnation = self.incarnation(node);
        if let Some(replica) = &self.actors[node].replica {
            expect_held(self.oracle.observe(node, incarnation, replica, &sites));
        }
    }

    fn act(&mut self, node: usize, action: Action) {
        let actor = &mut self.actors[node];
        let Actor { dir, disk, replica, follow_up, .. } = actor;
        match action {
            Action::Persist { number, state } => {
                let watermark = replica.as_ref().map(|replica| replica.status().high_watermark);
                disk.begin_persist(number, state, watermark.unwrap_or_default());
                assert!(disk.end_persist(number), "no fault was asked for");
                follow_up.push_back(Event::Persisted { number });
            }
            Action::Append { batches } => {
                expect_held(self.oracle.appending(node, disk, &batches));
                disk.append(&batches).unwrap();
            }
            Action::Truncate { end } => {
                let assignment = replica.as_ref().and_then(Replica::assignment);
                let unclean_term = assignment.and_then(|assignment| assignment.unclean_term);
                expect_held(self.oracle.truncating(node, end, unclean_term));
                disk.truncate(end).unwrap();
            }
            Action::Trim { start, producers } => {
                expect_held(self.oracle.trimming(node, start));
                disk.trim(start, &producers).unwrap();
                disk.end_trims();
            }
            Action::Reset { start, producers } => {
                let id = ReplicaId { broker: broker_id(node), dir: *dir };
                expect_held(self.oracle.resetting(node, start, Site { id, disk }));
                disk.reset(start, &producers).unwrap();
            }
            Action::NoteTombstonesGone { below } => disk.note_tombstones_gone(below).unwrap(),
            Action::Flush { generation } => {
                disk.want_flush(generation);
                actor.start_flush();
            }
            Action::Read { to, epoch, from, max_bytes } => {
                let batches = disk.read(from, max_bytes).unwrap();
                follow_up.push_back(Event::Read { to, epoch, from, batches });
            }
            Action::Send(envelope) => {
                expect_held(self.oracle.sending(node, disk, &envelope));
                self.post.push(envelope);
            }
            Action::Reply { request, result } => {
                if let Ok(acknowledged) = &result {
                    let sequence = self.sequences[&request];
                    let told = self.oracle.acknowledging(node, ProducerId(1), sequence, acknowledged);
                    expect_held(told);
                }
                self.replies.insert(request, result);
            }
            Action::Report { term, complete, .. } => {
                if complete {
                    self.completed.push(term);
                }
            }
        }
    }

    /// From now on this node's flushes wait for `flush`.
    pub(crate) fn hold_flushes(&mut self, node: usize) {
        self.actors[node].lazy = true;
    }

    /// The flushes of this node end, and no more wait.
    pub(crate) fn flush(&mut self, node: usize) {
        let actor = &mut self.actors[node];
        actor.lazy = false;
        actor.follow_up.extend(actor.disk.end_flush());
        actor.start_flush();
        self.drain(node);
    }

    /// A record, to the node that is said to lead. Gives the request.
    pub(crate) fn produce(&mut self, node: usize, sequence: i32) -> RequestId {
        let value = format!("{sequence} from request {}", self.requests + 1);
        self.produce_keyed(node, sequence, None, Some(&value))
    }

    /// The same, with that key and value; without a value it is a tombstone.
    pub(crate) fn produce_keyed(
        &mut self,
        node: usize,
        sequence: i32,
        key: Option<&str>,
        value: Option<&str>,
    ) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        let mut builder = RecordBatchBuilder::new();
        builder.push(0, key.map(str::as_bytes), value.map(str::as_bytes), &[]).unwrap();
        let producer = ProducerRef { id: ProducerId(1), epoch: 0, base_sequence: sequence };
        self.sequences.insert(request, sequence);
        let batch = builder.build(Some(producer)).unwrap();
        self.tell(node, Event::Produce { request, batch });
        request
    }

    /// A pass of the compaction over the node's log.
    pub(crate) fn compact(&mut self, node: usize) {
        let below = cleanable_end(self.replica(node));
        let disk = &mut self.actors[node].disk;
        disk.compact(below, 0, false).unwrap();
        let (found, cleaned_end) = (disk.read_all().unwrap(), disk.compacted().cleaned_end);
        expect_held(self.oracle.compacted(node, &found));
        self.tell(node, Event::Cleaned { cleaned_end });
    }

    /// All tombstones are old enough; what is gone by now is said, and a pass goes over the node's log.
    pub(crate) fn drop_tombstones(&mut self, node: usize) -> Offset {
        self.tell(node, Event::DropTombstones { below: self.end(node) });
        self.compact(node);
        self.actors[node].disk.compacted().tombstones_gone_below
    }

    /// The records with a key in the node's log, as who reads it from its start sees them; `-` for a tombstone.
    pub(crate) fn keyed(&mut self, node: usize) -> Vec<String> {
        let batches = self.actors[node].disk.read_all().unwrap();
        let written = batches.iter().filter(|batch| !batch.header().is_control());
        let records = written.flat_map(|batch| batch.records().unwrap());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let keyed = records.filter_map(|record| {
            let record = record.unwrap();
            let value = record.value.as_deref().map_or("-".to_owned(), text);
            record.key.as_deref().map(|key| format!("{} {value}", text(key)))
        });
        keyed.collect()
    }

    /// What the node has below is kept no longer.
    pub(crate) fn trim(&mut self, node: usize, to: Offset) {
        self.tell(node, Event::Trim { to });
    }

    /// Where the node's log starts.
    pub(crate) fn start(&self, node: usize) -> Offset {
        let start = self.replica(node).epochs().base().end;
        assert_eq!(self.actors[node].disk.start(), start);
        start
    }

    /// The answer to a request, if there is one.
    pub(crate) fn reply(&self, request: RequestId) -> Option<Result<Acknowledged, ProduceError>> {
        self.replies.get(&request).copied()
    }

    /// Whether the request was answered with success.
    pub(crate) fn is_acknowledged(&self, request: RequestId) -> bool {
        matches!(self.reply(request), Some(Ok(_)))
    }

    /// Whether the leader of a term said that its change of the set is complete (R3).
    pub(crate) fn is_complete(&self, term: u32) -> bool {
        self.completed.contains(&Term(term))
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

    /// The process starts again, and finds that what it had noted as flushed is gone.
    pub(crate) fn find_damage(&mut self, node: usize) {
        let status = self.replica(node).status();
        let disk = &mut self.actors[node].disk;
        assert!(disk.checkpoint(status.high_watermark, status.log_end_offset));
        disk.crash_and_lose_all();
        self.boot(node);
    }

    fn boot(&mut self, node: usize) {
        self.actors[node].runs += 1;
        let (me, incarnation, config) = (self.id(node), self.incarnation(node), self.config());
        let actor = &mut self.actors[node];
        actor.follow_up.clear();
        let (kept, trimmed) = (actor.disk.flushed(), actor.disk.trimmed());
        let found = actor.disk.open(me, incarnation).unwrap().expect("it had been assigned");
        expect_held(self.oracle.reloaded(node, kept, trimmed, &found));
        actor.replica = Some(Replica::new(self.now, config, found.loaded));
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
