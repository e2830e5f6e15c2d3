//! The controllers as brokers see them: one reliable register, driven by the production metadata rules, that may be out
//! of reach for long, whose verdicts on brokers may be false, and whose leader may change and act on what it knew.

mod upkeep;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use holdfast_core::metadata::{
    Applied, Appointment, BrokerRegistration, Command, LeaderState, Metadata, MetadataError, Register,
    TopicSpec,
};
use holdfast_core::{BrokerId, Incarnation, PartitionId, ReplicaId, Term, Timestamp, TopicId, ZoneId};

use crate::coverage::{Coverage, Sight};
use crate::node::Node;
use crate::plan::Plan;
use crate::random::Random;

/// The only topic of a simulation.
pub(crate) const TOPIC: TopicId = TopicId(0x51);

/// How long a broker may be silent.
const SESSION: Duration = Duration::from_millis(800);
/// How long a partition is left alone after it was given a new leader because the last one stalled.
const BACK_OFF: Duration = Duration::from_secs(2);
/// Commands that may be proposed once more, long after.
const REMEMBERED: usize = 24;

/// What a leader tells the controllers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Report {
    /// Counts up over the whole run.
    pub(crate) number: u64,
    /// The term led.
    pub(crate) term: Term,
    /// How far it is.
    pub(crate) state: LeaderState,
    /// Whether a change of the set is complete (R3).
    pub(crate) complete: bool,
    /// Who holds what is committed.
    pub(crate) in_sync: Vec<ReplicaId>,
}

/// The register, and what its present leader believes of the brokers.
#[derive(Debug)]
pub(crate) struct Controller {
    metadata: Metadata,
    index: u64,
    random: Random,
    /// Number of reasons why nobody reaches it.
    down: u32,
    cut: BTreeMap<usize, u32>,
    silent_since: BTreeMap<usize, Timestamp>,
    /// What each run of a broker was last told of each partition.
    told: BTreeMap<(usize, Incarnation, u32), u64>,
    left_alone_until: BTreeMap<u32, Timestamp>,
    /// By partition: who is in sync, as the leader of that term says.
    in_sync: BTreeMap<PartitionId, (Term, Vec<ReplicaId>)>,
    proposed: VecDeque<Command>,
    /// Whether replica sets change.
    moves: bool,
    /// What it came across.
    pub(crate) coverage: Coverage,
}

/// The identity of a partition by its number.
pub(crate) fn partition_id(index: usize) -> PartitionId {
    PartitionId { topic: TOPIC, index: index as u32 }
}

/// The number of a broker: they count from 1.
pub(crate) fn broker_id(node: usize) -> BrokerId {
    BrokerId(node as u32 + 1)
}

/// The node of a broker's number.
pub(crate) fn node_of(broker: BrokerId) -> usize {
    (broker.0 as usize).wrapping_sub(1)
}

impl Controller {
    /// A controller that knows all brokers, alive, and has created the topic.
    pub(crate) fn new(plan: &Plan, nodes: &[Node], random: Random) -> Controller {
        let mut controller = Controller {
            metadata: Metadata::default(),
            index: 0,
            random,
            down: 0,
            cut: BTreeMap::new(),
            silent_since: BTreeMap::new(),
            told: BTreeMap::new(),
            left_alone_until: BTreeMap::new(),
            in_sync: BTreeMap::new(),
            proposed: VecDeque::new(),
            moves: plan.moves,
            coverage: Coverage::default(),
        };
        for node in nodes {
            let registered = controller.propose(register_command(node));
            debug_assert!(registered.is_ok(), "{registered:?}");
        }
        let spec = TopicSpec {
            partitions: plan.partitions as u32,
            replication: plan.replicas as u32,
            durability: plan.durability,
            zone_waiver: plan.replicas < 3,
            ..TopicSpec::default()
        };
        let created =
            controller.propose(Command::CreateTopic { id: TOPIC, name: "simulated".to_owned(), spec });
        debug_assert!(created.is_ok(), "{created:?}");
        controller
    }

    /// Puts a command into the controllers' log, unless nobody reaches them.
    fn propose(&mut self, command: Command) -> Result<Applied, MetadataError> {
        if self.down > 0 {
            return Ok(Applied::Done);
        }
        self.index += 1;
        let (result, _) = self.metadata.apply(self.index, &command);
        self.proposed.push_back(command);
        if self.proposed.len() > REMEMBERED {
            self.proposed.pop_front();
        }
        result
    }

    /// A controller that led before, or a broker that asked it, repeats a command that was proposed already.
    pub(crate) fn propose_again(&mut self) {
        let repeatable: Vec<&Command> =
            self.proposed.iter().filter(|command| !matches!(command, Command::CreateTopic { .. })).collect();
        let Some(command) = self.random.pick(&repeatable).cloned() else { return };
        let before = self.metadata.map().index();
        // Refused or not: both are fine.
        let _ = self.propose(command);
        let taken = self.metadata.map().index() != before;
        self.coverage.see(if taken { Sight::StaleCommandTaken } else { Sight::StaleCommandIgnored });
    }

    /// Another controller leads: it knows the register, and has heard of no broker yet.
    pub(crate) fn fail_over(&mut self) {
        self.silent_since.clear();
        self.left_alone_until.clear();
        self.in_sync.clear();
    }

    /// The register of a partition.
    pub(crate) fn register(&self, partition: usize) -> Option<&Register> {
        self.metadata.map().partition(partition_id(partition)).map(|partition| &partition.register)
    }

    /// Whether any broker could reach it.
    pub(crate) fn is_up(&self) -> bool {
        self.down == 0
    }

    /// Whether a broker reaches it.
    pub(crate) fn is_reachable(&self, node: usize) -> bool {
        self.down == 0 && self.cut.get(&node).is_none_or(|&count| count == 0)
    }

    /// A broker presents itself. False if it did not get through.
    pub(crate) fn register_broker(&mut self, node: &Node) -> bool {
        if !self.is_reachable(node.index) {
            return false;
        }
        self.silent_since.remove(&node.index);
        let registered = self.propose(register_command(node));
        debug_assert!(registered.is_ok(), "{registered:?}");
        true
    }

    /// Whether this run of the broker counts as alive.
    pub(crate) fn believes_alive(&self, node: usize, incarnation: Incarnation) -> bool {
        let broker = self.metadata.map().broker(broker_id(node));
        broker.is_some_and(|broker| broker.live && broker.incarnation == incarnation)
    }

    /// Takes note of which brokers are heard from, and fences those that were silent for too long.
    pub(crate) fn observe(&mut self, now: Timestamp, heard: &BTreeSet<usize>, brokers: usize) {
        if self.down > 0 {
            return;
        }
        let mut dead = Vec::new();
        for node in 0..brokers {
            if heard.contains(&node) && self.is_reachable(node) {
                self.silent_since.remove(&node);
                continue;
            }
            let since = *self.silent_since.entry(node).or_insert(now);
            if now.since(since) >= SESSION {
                dead.push(node);
            }
        }
        self.fence(&dead);
        if self.moves {
            self.keep_up(now);
        }
    }

    /// Takes brokers for dead, rightly or not.
    pub(crate) fn fence(&mut self, nodes: &[usize]) {
        let map = self.metadata.map();
        let live = nodes.iter().filter_map(|&node| map.broker(broker_id(node)).filter(|broker| broker.live));
        let dead: Vec<(BrokerId, Incarnation)> = live.map(|broker| (broker.id, broker.incarnation)).collect();
        if !dead.is_empty() {
            let fenced = self.propose(Command::FenceBrokers(dead));
            debug_assert!(fenced.is_ok(), "{fenced:?}");
        }
    }

    /// Appoints any live member of the set, the present leader or another.
    pub(crate) fn reappoint(&mut self, partition: usize) {
        let live: Vec<usize> = self.live_members(partition);
        if let Some(leader) = self.random.pick(&live) {
            self.appoint(partition, leader);
        }
    }

    fn live_members(&self, partition: usize) -> Vec<usize> {
        let map = self.metadata.map();
        let set = self.register(partition).map_or(&[][..], |register| &register.set);
        set.iter().filter(|&&replica| map.may_lead(replica)).map(|replica| node_of(replica.broker)).collect()
    }

    fn appoint(&mut self, partition: usize, leader: usize) {
        let Some(register) = self.register(partition) else { return };
        let appointment = Appointment {
            partition: partition_id(partition),
            expected_term: register.term,
            leader: broker_id(leader),
        };
        // A compare-and-set: a conflict changes nothing.
        let _ = self.propose(Command::Appoint(vec![appointment]));
    }

    /// A leader tells how it gets on. False if that did not get through. Of one that is not the leader's `newest` only
    /// what stays true counts.
    pub(crate) fn report(
        &mut self,
        now: Timestamp,
        node: usize,
        partition: usize,
        report: &Report,
        newest: bool,
    ) -> bool {
        if !self.is_reachable(node) {
            return false;
        }
        let Report { term, state, complete, .. } = *report;
        if complete {
            self.complete(partition, term);
        }
        let current = newest && self.register(partition).is_some_and(|register| register.term == term);
        if current {
            self.in_sync.insert(partition_id(partition), (term, report.in_sync.clone()));
        }
        let key = partition as u32;
        let left_alone = self.left_alone_until.get(&key).is_some_and(|&until| now < until);
        if state == LeaderState::Stalled && current && !left_alone {
            self.left_alone_until.insert(key, now + BACK_OFF);
            let mut others = self.live_members(partition);
            others.retain(|&other| other != node);
            if let Some(leader) = self.random.pick(&others) {
                self.appoint(partition, leader);
            }
        }
        true
    }

    /// What this run of a broker does not know yet: partitions with version and register. They count as told.
    pub(crate) fn news_for(&mut self, node: usize, incarnation: Incarnation) -> Vec<(usize, u64, Register)> {
        if !self.is_reachable(node) {
            return Vec::new();
        }
        let mut news = Vec::new();
        for partition in self.metadata.map().partitions() {
            let key = (node, incarnation, partition.id.index);
            if self.told.get(&key) != Some(&partition.version) {
                self.told.insert(key, partition.version);
                news.push((partition.id.index as usize, partition.version, partition.register.clone()));
            }
        }
        news
    }

    /// The news did not arrive: it will be told again.
    pub(crate) fn forget_told(&mut self, node: usize, incarnation: Incarnation, partition: usize) {
        self.told.remove(&(node, incarnation, partition as u32));
    }

    /// Nobody reaches it until as many calls of `come_back`.
    pub(crate) fn go_down(&mut self) {
        self.down += 1;
    }

    /// See `go_down`.
    pub(crate) fn come_back(&mut self) {
        self.down = self.down.saturating_sub(1);
    }

    /// One broker does not reach it.
    pub(crate) fn cut(&mut self, node: usize) {
        *self.cut.entry(node).or_insert(0) += 1;
    }

    /// Takes back one `cut`.
    pub(crate) fn mend(&mut self, node: usize) {
        if let Some(count) = self.cut.get_mut(&node) {
            *count = count.saturating_sub(1);
        }
    }

    /// No more faults.
    pub(crate) fn heal(&mut self) {
        self.down = 0;
        self.cut.clear();
    }
}

fn register_command(node: &Node) -> Command {
    let index = node.index;
    Command::RegisterBroker(BrokerRegistration {
        id: broker_id(index),
        zone: ZoneId::new(&format!("zone-{}", node.zone)),
        dir: node.dir,
        incarnation: node.incarnation,
        client_endpoint: format!("broker-{index}:9092"),
        peer_endpoint: format!("broker-{index}:9093"),
    })
}
