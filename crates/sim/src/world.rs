//! The simulated world: brokers with their disks, the network, the controller, producers, and one virtual clock.
//!
//! ```text
//!  plan ──► faults ──► World ◄── event queue (time, then order of planning)
//!                        │  handle ──► core::replication::Replica ──► actions (node.rs)
//!                        └── oracle after every step
//! ```
//! Nothing here reads a clock or iterates in hash order: one seed is one history.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::time::Duration;

use holdfast_core::replication::RequestId;
use holdfast_core::{Incarnation, ProducerId, Timestamp};

use crate::controller::Controller;
use crate::digest::Digest;
use crate::event_queue::{EventQueue, Happening, Repair, Run};
use crate::network::Network;
use crate::node::Node;
use crate::oracle::{Oracle, Violation};
use crate::plan::{FaultKind, Plan};
use crate::random::Random;
use crate::workload::Producer;

/// How often the controller looks around.
const OBSERVE_INTERVAL: Duration = Duration::from_millis(200);
/// How long a producer waits for an answer.
pub(crate) const RESEND_INTERVAL: Duration = Duration::from_millis(1500);

/// More than any run needs: who gets here runs in circles without time going by.
const STEP_LIMIT: u64 = 5_000_000;

/// A finished run without violation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Digest of everything that happened.
    pub digest: u64,
    /// Number of things that happened.
    pub steps: u64,
    /// Batches acknowledged.
    pub acknowledged: u64,
    /// Number of faults of each kind.
    pub faults: BTreeMap<String, u64>,
    /// Virtual time from the end of the faults until all was written everywhere.
    pub settled_after: Duration,
}

/// A request on its way through a replica.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub(crate) producer: usize,
    pub(crate) sequence: i32,
}

/// The world.
#[derive(Debug)]
pub struct World {
    pub(crate) now: Timestamp,
    pub(crate) plan: Plan,
    pub(crate) random: Random,
    pub(crate) queue: EventQueue,
    pub(crate) nodes: Vec<Node>,
    pub(crate) network: Network,
    pub(crate) controller: Controller,
    pub(crate) producers: Vec<Producer>,
    pub(crate) oracles: Vec<Oracle>,
    pub(crate) requests: BTreeMap<(usize, RequestId), Request>,
    pub(crate) request_count: u64,
    pub(crate) healed: bool,
    pub(crate) faults: BTreeMap<String, u64>,
    /// A process that dies after so many more actions.
    pub(crate) doomed: Option<(usize, usize)>,
    digest: Digest,
    steps: u64,
    trace: bool,
}

impl World {
    /// The world of a seed.
    pub fn of_seed(seed: u64) -> World {
        let mut random = Random::new(seed);
        let plan = Plan::of_seed(&mut random);
        World::new(plan, random)
    }

    /// A world by plan.
    pub fn new(plan: Plan, mut random: Random) -> World {
        let nodes: Vec<Node> = (0..plan.brokers).map(|node| Node::new(&plan, node, random.word())).collect();
        let incarnations: Vec<Incarnation> = nodes.iter().map(|node| node.incarnation).collect();
        let mut producers = Vec::new();
        for partition in 0..plan.partitions {
            for _ in 0..plan.producers {
                let id = ProducerId(producers.len() as i64);
                producers.push(Producer::new(id, partition, plan.batches, random.fork()));
            }
        }
        let losing = plan.faults.iter().any(|&(kind, _)| kind == FaultKind::StorageFailure)
            || (plan.durability == holdfast_core::metadata::Durability::Memory
                && plan.faults.iter().any(|&(kind, _)| kind == FaultKind::PowerCut));
        let oracle = |partition| Oracle::new(partition, plan.durability, !losing, plan.replicas);
        World {
            now: Timestamp(1),
            network: Network::new(plan.network, random.fork()),
            controller: Controller::new(&plan, &incarnations, random.fork()),
            oracles: (0..plan.partitions).map(oracle).collect(),
            queue: EventQueue::default(),
            nodes,
            producers,
            requests: BTreeMap::new(),
            request_count: 0,
            healed: false,
            faults: BTreeMap::new(),
            doomed: None,
            digest: Digest::default(),
            steps: 0,
            trace: false,
            plan,
            random,
        }
    }

    /// Prints everything that happens to standard error.
    pub fn with_trace(mut self) -> World {
        self.trace = true;
        self
    }

    /// Its plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Lets faults happen, heals, and waits for everything to be written everywhere.
    pub fn run(&mut self) -> Result<Outcome, Violation> {
        self.begin();
        let healing = self.now + self.plan.chaos;
        while self.now < healing {
            self.step()?;
        }
        self.heal()?;
        let (healed, deadline) = (self.now, self.now + self.plan.settle);
        while !self.is_settled() {
            if self.now > deadline {
                return Err(Violation { id: "LIVE-1", detail: self.describe_standstill() });
            }
            self.step()?;
        }
        self.judge()?;
        Ok(Outcome {
            digest: self.digest.finish(),
            steps: self.steps,
            acknowledged: self.oracles.iter().map(Oracle::acknowledged).sum(),
            faults: std::mem::take(&mut self.faults),
            settled_after: self.now.since(healed),
        })
    }

    fn begin(&mut self) {
        self.queue.plan(self.now, Happening::Observe);
        self.plan_fault();
        for producer in 0..self.producers.len() {
            self.pump(producer);
        }
    }

    /// The next thing happens.
    fn step(&mut self) -> Result<(), Violation> {
        let Some((at, happening)) = self.queue.next() else {
            return Err(Violation { id: "LIVE-1", detail: "nothing will ever happen again".to_owned() });
        };
        self.now = at.max(self.now);
        self.steps += 1;
        if self.steps > STEP_LIMIT {
            return Err(Violation { id: "LIVE-2", detail: self.describe_standstill() });
        }
        (at, &happening).hash(&mut self.digest);
        if self.trace {
            eprintln!("{:>12} {happening:?}", self.now.0);
        }
        self.perform(happening)
    }

    fn perform(&mut self, happening: Happening) -> Result<(), Violation> {
        match happening {
            Happening::Deliver { passage, partition, envelope } => self.deliver(passage, partition, envelope),
            Happening::Timer { run, partition } => self.fire_timer(run, partition),
            Happening::Persisted { run, partition, number } => self.end_persist(run, partition, number),
            Happening::Flushed { run, partition } => self.end_flush(run, partition),
            Happening::Read { run, partition, event } => self.tell_run(run, partition, event),
            Happening::Connect { one, other } => self.connect(one, other),
            Happening::Boot { node } => self.boot(node),
            Happening::Register { run } => {
                self.register(run);
                Ok(())
            }
            Happening::Observe => self.observe(),
            Happening::Assign { run, partition, register } => self.assign(run, partition, &register),
            Happening::Report { run, partition, term, state, complete } => {
                let again = Happening::Report { run, partition, term, state, complete };
                if !self.controller.report(self.now, run.node, partition, term, state, complete) && complete {
                    self.queue.plan(self.now + OBSERVE_INTERVAL, again);
                }
                Ok(())
            }
            Happening::Produce { producer, node, sequence, batch } => {
                self.produce(producer, node, sequence, batch)
            }
            Happening::Answer { producer, sequence, result } => {
                self.answer(producer, sequence, &result);
                Ok(())
            }
            Happening::Write { producer } => {
                self.pump(producer);
                Ok(())
            }
            Happening::Resend { producer } => {
                self.resend(producer);
                Ok(())
            }
            Happening::Fault => self.fault(),
            Happening::Repair(repair) => self.repair(&repair),
        }
    }

    fn observe(&mut self) -> Result<(), Violation> {
        let running: BTreeSet<usize> =
            (0..self.nodes.len()).filter(|&node| self.nodes[node].running).collect();
        self.controller.observe(self.now, &running, self.nodes.len());
        for &node in &running {
            let run = self.nodes[node].run();
            if !self.controller.believes_alive(node, run.incarnation) {
                let delay = self.random.micros(1_000, 800_000);
                self.queue.plan(self.now + delay, Happening::Register { run });
            }
            self.tell_news(run);
        }
        self.queue.plan(self.now + OBSERVE_INTERVAL, Happening::Observe);
        Ok(())
    }

    fn register(&mut self, run: Run) {
        if self.nodes[run.node].is_running(run) && self.controller.register_broker(run.node, run.incarnation)
        {
            self.tell_news(run);
        }
    }

    fn tell_news(&mut self, run: Run) {
        for (partition, register) in self.controller.news_for(run.node, run.incarnation) {
            let arrival = self.now + self.random.micros(200, 20_000);
            self.queue.plan(arrival, Happening::Assign { run, partition, register });
        }
    }

    fn repair(&mut self, repair: &Repair) -> Result<(), Violation> {
        match repair {
            Repair::Mend(links) => {
                self.network.mend(links);
                // What was sent into the cut is lost; the streams are opened again.
                for &(one, other) in links.iter().filter(|(one, other)| one < other || links.len() == 1) {
                    self.reconnect(one, other);
                }
            }
            Repair::Controller => self.controller.come_back(),
            Repair::ControllerLink(node) => self.controller.mend(*node),
            Repair::Disk(node) => self.nodes[*node].slow = false,
            Repair::Restart(node) => {
                if self.nodes[*node].has_failed_replica() {
                    self.crash_and_restart(*node, false)?;
                }
            }
        }
        Ok(())
    }

    /// Ends all faults: what is down comes up, what failed is started anew.
    fn heal(&mut self) -> Result<(), Violation> {
        self.healed = true;
        self.doomed = None;
        self.network.heal();
        self.controller.heal();
        for node in 0..self.nodes.len() {
            self.nodes[node].make_whole();
            if self.nodes[node].has_failed_replica() {
                self.crash(node, false)?;
            }
            if !self.nodes[node].running {
                self.queue.plan(self.now, Happening::Boot { node });
            }
            for other in node + 1..self.nodes.len() {
                self.reconnect(node, other);
            }
        }
        Ok(())
    }

    /// Whether every batch is acknowledged and every replica has everything and knows it.
    fn is_settled(&self) -> bool {
        self.producers.iter().all(Producer::is_done)
            && (0..self.plan.partitions).all(|partition| self.is_partition_settled(partition))
    }

    fn is_partition_settled(&self, partition: usize) -> bool {
        let mut ends = self.nodes.iter().map(|node| {
            let replica = node.slots[partition].replica.as_ref()?;
            let status = replica.status();
            let whole =
                status.high_watermark == status.log_end_offset && replica.is_voter() && !status.failed;
            whole.then_some(status.log_end_offset)
        });
        let first = ends.next().flatten();
        first.is_some() && ends.all(|end| end == first)
    }

    fn judge(&self) -> Result<(), Violation> {
        for (partition, oracle) in self.oracles.iter().enumerate() {
            let producers = self.producers.iter().filter(|producer| producer.partition == partition);
            let written = producers.map(|producer| (producer.id, producer.records())).collect();
            oracle.finish(&written)?;
        }
        Ok(())
    }

    fn describe_standstill(&self) -> String {
        let mut parts = vec![format!("not settled {:?} after the last fault", self.plan.settle)];
        for partition in 0..self.plan.partitions {
            for node in &self.nodes {
                if let Some(replica) = &node.slots[partition].replica {
                    let (status, voter) = (replica.status(), replica.is_voter());
                    parts.push(format!(
                        "partition {partition} node {}: epoch {} active {} voter {voter} hw {} end {} leader {:?}",
                        node.index,
                        status.epoch,
                        status.active,
                        status.high_watermark,
                        status.log_end_offset,
                        status.leader.map(|leader| leader.broker.0 - 1),
                    ));
                }
            }
        }
        let waiting = self.producers.iter().filter(|producer| !producer.is_done()).count();
        parts.push(format!("{waiting} producers wait"));
        parts.join("; ")
    }
}
