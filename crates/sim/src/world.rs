//! The simulated world: brokers with their disks, the network, the controllers, producers, and one virtual clock.
//!
//! ```text
//!  plan ──► faults ──► World ◄── event queue (time, then order of planning)
//!                        │  handle ──► core::replication::Replica ──► actions (node.rs) ──► log, journal (disk.rs)
//!                        └── oracle after every step
//! ```
//! Nothing here reads a clock or iterates in hash order: one seed is one history.

mod healing;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::time::Duration;

use holdfast_core::metadata::{Register, majority};
use holdfast_core::replication::{Event, RequestId};
use holdfast_core::{ProducerId, ReplicaId, Timestamp};

use crate::controller::{Controller, Report, node_of};
use crate::coverage::{Coverage, Sight};
use crate::digest::Digest;
use crate::event_queue::{EventQueue, Happening, Run};
use crate::network::Network;
use crate::node::Node;
use crate::oracle::{Oracle, Violation};
use crate::plan::Plan;
use crate::random::Random;
use crate::witness::Witness;
use crate::workload::Producer;

/// How often the controllers look around.
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
    /// What the run came across.
    pub coverage: Coverage,
    /// Virtual time from the end of the faults until all was written wherever it can be.
    pub settled_after: Duration,
}

/// A request on its way through a replica.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub(crate) producer: usize,
    pub(crate) id: ProducerId,
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
    pub(crate) witness: Witness,
    pub(crate) requests: BTreeMap<(usize, RequestId), Request>,
    pub(crate) request_count: u64,
    pub(crate) report_count: u64,
    pub(crate) healed: bool,
    pub(crate) faults: BTreeMap<String, u64>,
    pub(crate) coverage: Coverage,
    /// A process that dies after so many more actions.
    pub(crate) doomed: Option<(usize, usize)>,
    /// Partitions that lack a majority at this moment.
    without_majority: BTreeSet<usize>,
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
        let mut producers = Vec::new();
        for partition in 0..plan.partitions {
            for _ in 0..plan.producers {
                let id = ProducerId(producers.len() as i64);
                producers.push(Producer::new(id, partition, &plan, random.fork()));
            }
        }
        let oracle = |partition| {
            let oracle = Oracle::new(partition, plan.durability, !plan.loses(), plan.brokers);
            if plan.destroys() { oracle.on_failing_disks() } else { oracle }
        };
        World {
            now: Timestamp(1),
            network: Network::new(plan.network, random.fork()),
            controller: Controller::new(&plan, &nodes, random.fork()),
            oracles: (0..plan.partitions).map(oracle).collect(),
            witness: Witness::default(),
            queue: EventQueue::default(),
            nodes,
            producers,
            requests: BTreeMap::new(),
            request_count: 0,
            report_count: 0,
            healed: false,
            faults: BTreeMap::new(),
            coverage: Coverage::default(),
            doomed: None,
            without_majority: BTreeSet::new(),
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

    /// Lets faults happen, heals, and waits for everything to be written everywhere; then once more with a zone dead and
    /// no controllers.
    pub fn run(&mut self) -> Result<Outcome, Violation> {
        self.begin();
        let healing = self.now + self.plan.chaos;
        while self.now < healing {
            self.step()?;
        }
        let settled_after = self.recover()?;
        self.judge()?;
        let mut coverage = std::mem::take(&mut self.coverage);
        coverage.add(&self.controller.coverage);
        self.oracles.iter().for_each(|oracle| coverage.add(&oracle.coverage));
        Ok(Outcome {
            digest: self.digest.finish(),
            steps: self.steps,
            acknowledged: self.oracles.iter().map(Oracle::acknowledged).sum(),
            faults: std::mem::take(&mut self.faults),
            coverage,
            settled_after,
        })
    }

    fn begin(&mut self) {
        for node in &mut self.nodes {
            let (me, incarnation) = (node.replica_id(), node.incarnation);
            for slot in &mut node.slots {
                // A new journal on a whole disk.
                let opened = slot.disk.open(me, incarnation);
                debug_assert!(matches!(opened, Ok(None)), "{opened:?}");
            }
        }
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
        self.trace(|| format!("{happening:?}"));
        self.perform(happening)
    }

    pub(crate) fn trace(&self, line: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>12} {}", self.now.0, line());
        }
    }

    pub(crate) fn perform(&mut self, happening: Happening) -> Result<(), Violation> {
        if let Some(host) = happening.host().map(|host| &mut self.nodes[host])
            && host.paused > 0
        {
            host.backlog.push_back(happening);
            return Ok(());
        }
        match happening {
            Happening::Deliver { passage, partition, envelope } => self.deliver(passage, partition, envelope),
            Happening::Timer { run, partition } => self.fire_timer(run, partition),
            Happening::Persisted { run, partition, number } => self.end_persist(run, partition, number),
            Happening::Flushed { run, partition } => self.end_flush(run, partition),
            Happening::Read { run, partition, event } => self.end_read(run, partition, event),
            Happening::Connect { one, other } => self.connect(one, other),
            Happening::Greeted { run, peer } => self.greet(run, peer),
            Happening::Boot { node } => self.boot(node),
            Happening::Observe => self.observe(),
            Happening::Assign { run, partition, version, register } => {
                self.assign(run, partition, version, &register)
            }
            Happening::Produce { producer, node, sequence, batch } => {
                self.produce(producer, node, sequence, batch)
            }
            Happening::Compact { run, partition } => self.compact(run, partition),
            Happening::Fault => self.fault(),
            Happening::Repair(repair) => self.repair(&repair),
            told => {
                self.take_note(told);
                Ok(())
            }
        }
    }

    /// What happens at controllers and producers.
    fn take_note(&mut self, happening: Happening) {
        match happening {
            Happening::Register { run } => self.register(run),
            Happening::Report { run, partition, report } => self.report(run, partition, report),
            Happening::Answer { producer, id, sequence, result } => {
                self.answer(producer, id, sequence, &result);
            }
            Happening::Write { producer } => self.pump(producer),
            Happening::Resend { producer } => self.resend(producer),
            _ => {}
        }
    }

    fn observe(&mut self) -> Result<(), Violation> {
        let heard: BTreeSet<usize> = self
            .nodes
            .iter()
            .filter(|node| node.running && node.paused == 0)
            .map(|node| node.index)
            .collect();
        self.controller.observe(self.now, &heard, self.nodes.len());
        for &node in &heard {
            let run = self.nodes[node].run();
            if !self.controller.believes_alive(node, run.incarnation) {
                let delay = self.random.micros(1_000, 800_000);
                self.queue.plan(self.now + delay, Happening::Register { run });
            }
            self.tell_news(run);
        }
        for partition in 0..self.plan.partitions {
            self.watch_majority(partition, &heard);
            self.offer_trim(partition, &heard)?;
            self.offer_compaction(partition, &heard)?;
            if self.plan.unclean {
                self.order_unclean_recovery(partition, &heard);
            }
        }
        self.queue.plan(self.now + OBSERVE_INTERVAL, Happening::Observe);
        Ok(())
    }

    /// Those who lead, or think so, are told that some of their log is kept no longer.
    fn offer_trim(&mut self, partition: usize, running: &BTreeSet<usize>) -> Result<(), Violation> {
        if !self.plan.trims || !self.random.chance(150) {
            return Ok(());
        }
        for &node in running {
            let slot = &self.nodes[node].slots[partition];
            if !slot.replica.as_ref().is_some_and(|replica| replica.status().active) {
                continue;
            }
            if let Some(to) = self.random.pick(&slot.disk.boundaries()) {
                self.tell(node, partition, Event::Trim { to })?;
            }
        }
        Ok(())
    }

    fn watch_majority(&mut self, partition: usize, running: &BTreeSet<usize>) {
        let set = self.controller.register(partition).map_or(&[][..], |register| &register.set);
        let here =
            set.iter().filter(|&&replica| self.home_of(replica).is_some_and(|node| running.contains(&node)));
        if here.count() < majority(set.len()) {
            self.without_majority.insert(partition);
        } else if self.without_majority.remove(&partition) {
            self.coverage.see(Sight::QuorumBack);
        }
    }

    /// Where the brokers are all there, and too few of a set vote or have their disks, waiting does not help: an operator
    /// gives the order (R37).
    fn order_unclean_recovery(&mut self, partition: usize, running: &BTreeSet<usize>) {
        let Some(before) = self.controller.register(partition).cloned() else { return };
        let mut members = before.set.iter().chain(before.prev.iter().flatten());
        let all_here = members.all(|replica| running.contains(&node_of(replica.broker)));
        // Seldom: an operator takes his time.
        if !all_here || !self.is_stuck(partition, &before) || !self.random.chance(200) {
            return;
        }
        self.controller.recover_unclean(partition);
        let Some(after) = self.controller.register(partition).filter(|after| after.term > before.term) else {
            return;
        };
        if (&after.set, &after.prev) != (&before.set, &before.prev) {
            let left = after.prev.iter().flatten().filter_map(|&replica| self.home_of(replica)).collect();
            self.oracles[partition].give_up(after.term, left);
        }
    }

    /// Whether no leader gets on, and none will.
    fn is_stuck(&self, partition: usize, register: &Register) -> bool {
        let too_few = |set: &Vec<ReplicaId>, counts: &dyn Fn(usize) -> bool| {
            let homes = set.iter().filter_map(|&replica| self.home_of(replica));
            homes.filter(|&node| counts(node)).count() < majority(set.len())
        };
        let has_disk = |_| true;
        let votes = |node: usize| !self.nodes[node].is_at_risk(partition);
        let leads = |replica: &ReplicaId| {
            let home = self.home_of(*replica).map(|node| &self.nodes[node].slots[partition]);
            home.and_then(|slot| slot.replica.as_ref()).is_some_and(|replica| replica.status().active)
        };
        let led = register.set.iter().chain(register.prev.iter().flatten()).any(leads);
        let mut sets = std::iter::once(&register.set).chain(&register.prev);
        // Who leads already may do so in vain.
        too_few(&register.set, &has_disk) || (!led && sets.any(|set| too_few(set, &votes)))
    }

    fn register(&mut self, run: Run) {
        let node = &self.nodes[run.node];
        if node.is_running(run) && self.controller.register_broker(node) {
            self.tell_news(run);
        }
    }

    /// A report that does not get through is told again. One that does not hold any more is not told.
    fn report(&mut self, run: Run, partition: usize, report: Report) {
        let newest = self.nodes[run.node].slots[partition].report.as_ref();
        let newest = newest.is_some_and(|newest| newest.number == report.number);
        let holds = report.complete || (newest && self.nodes[run.node].is_running(run));
        if holds && !self.controller.report(self.now, run.node, partition, &report, newest) {
            self.queue.plan(self.now + OBSERVE_INTERVAL, Happening::Report { run, partition, report });
        }
    }

    fn tell_news(&mut self, run: Run) {
        for (partition, version, register) in self.controller.news_for(run.node, run.incarnation) {
            let arrival = self.now + self.random.micros(200, 20_000);
            self.queue.plan(arrival, Happening::Assign { run, partition, version, register });
        }
    }
}
