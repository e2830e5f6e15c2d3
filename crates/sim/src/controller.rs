//! The controller as brokers see it: a reliable register, driven by the production metadata rules, that may be out of
//! reach for long and whose verdicts on brokers may be false.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_core::metadata::{
    Appointment, BrokerRegistration, Command, LeaderState, Metadata, Register, TopicSpec,
};
use holdfast_core::{BrokerId, DirId, Incarnation, PartitionId, Term, Timestamp, TopicId, ZoneId};

use crate::plan::Plan;
use crate::random::Random;

/// The only topic of a simulation.
pub(crate) const TOPIC: TopicId = TopicId(0x51);

/// How long a broker may be silent.
const SESSION: Duration = Duration::from_millis(800);
/// How long a partition is left alone after it was given a new leader because the last one stalled.
const BACK_OFF: Duration = Duration::from_secs(2);

/// The register, and what it believes of the brokers.
#[derive(Debug, Clone)]
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

/// The data directory of a broker.
pub(crate) fn dir_id(node: usize) -> DirId {
    DirId(0xd0 + node as u64)
}

impl Controller {
    /// A controller that knows all brokers, alive, and has created the topic.
    pub(crate) fn new(plan: &Plan, incarnations: &[Incarnation], random: Random) -> Controller {
        let mut controller = Controller {
            metadata: Metadata::default(),
            index: 0,
            random,
            down: 0,
            cut: BTreeMap::new(),
            silent_since: BTreeMap::new(),
            told: BTreeMap::new(),
            left_alone_until: BTreeMap::new(),
        };
        for (node, &incarnation) in incarnations.iter().enumerate() {
            controller.apply(&register_command(node, incarnation));
        }
        let spec = TopicSpec {
            partitions: plan.partitions as u32,
            replication: plan.replicas as u32,
            durability: plan.durability,
            zone_waiver: plan.replicas < 3,
        };
        controller.apply(&Command::CreateTopic { id: TOPIC, name: "simulated".to_owned(), spec });
        controller
    }

    fn apply(&mut self, command: &Command) {
        self.index += 1;
        let (result, _) = self.metadata.apply(self.index, command);
        debug_assert!(result.is_ok(), "{command:?}: {result:?}");
    }

    /// The register of a partition.
    pub(crate) fn register(&self, partition: usize) -> Option<&Register> {
        self.metadata.map().partition(partition_id(partition)).map(|partition| &partition.register)
    }

    /// Whether a broker reaches it.
    pub(crate) fn is_reachable(&self, node: usize) -> bool {
        self.down == 0 && self.cut.get(&node).is_none_or(|&count| count == 0)
    }

    /// A broker presents itself. False if it did not get through.
    pub(crate) fn register_broker(&mut self, node: usize, incarnation: Incarnation) -> bool {
        if !self.is_reachable(node) {
            return false;
        }
        self.silent_since.remove(&node);
        self.apply(&register_command(node, incarnation));
        true
    }

    /// Whether this run of the broker counts as alive.
    pub(crate) fn believes_alive(&self, node: usize, incarnation: Incarnation) -> bool {
        let broker = self.metadata.map().broker(broker_id(node));
        broker.is_some_and(|broker| broker.live && broker.incarnation == incarnation)
    }

    /// Takes note of which brokers are heard from, and fences those that were silent for too long.
    pub(crate) fn observe(&mut self, now: Timestamp, running: &BTreeSet<usize>, brokers: usize) {
        if self.down > 0 {
            return;
        }
        let mut dead = Vec::new();
        for node in 0..brokers {
            if running.contains(&node) && self.is_reachable(node) {
                self.silent_since.remove(&node);
                continue;
            }
            let since = *self.silent_since.entry(node).or_insert(now);
            if now.since(since) >= SESSION {
                dead.push(node);
            }
        }
        self.fence(&dead);
    }

    /// Takes brokers for dead, rightly or not.
    pub(crate) fn fence(&mut self, nodes: &[usize]) {
        let map = self.metadata.map();
        let live = nodes.iter().filter_map(|&node| map.broker(broker_id(node)).filter(|broker| broker.live));
        let dead: Vec<(BrokerId, Incarnation)> = live.map(|broker| (broker.id, broker.incarnation)).collect();
        if self.down == 0 && !dead.is_empty() {
            self.apply(&Command::FenceBrokers(dead));
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
        set.iter().filter(|&&replica| map.is_live(replica)).map(|replica| node_of(replica.broker)).collect()
    }

    fn appoint(&mut self, partition: usize, leader: usize) {
        let Some(register) = self.register(partition) else { return };
        let appointment = Appointment {
            partition: partition_id(partition),
            expected_term: register.term,
            leader: broker_id(leader),
        };
        if self.down == 0 {
            self.apply(&Command::Appoint(vec![appointment]));
        }
    }

    /// A leader tells how it gets on. False if that did not get through.
    pub(crate) fn report(
        &mut self,
        now: Timestamp,
        node: usize,
        partition: usize,
        term: Term,
        state: LeaderState,
        complete: bool,
    ) -> bool {
        if !self.is_reachable(node) {
            return false;
        }
        if complete {
            self.apply(&Command::CompleteChange { partition: partition_id(partition), term });
        }
        let current = self.register(partition).is_some_and(|register| register.term == term);
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

    /// What this run of a broker does not know yet: partitions with their registers. They count as told.
    pub(crate) fn news_for(&mut self, node: usize, incarnation: Incarnation) -> Vec<(usize, Register)> {
        if !self.is_reachable(node) {
            return Vec::new();
        }
        let mut news = Vec::new();
        for partition in self.metadata.map().partitions() {
            let key = (node, incarnation, partition.id.index);
            let names = partition.register.set.iter().any(|replica| replica.broker == broker_id(node));
            if names && self.told.get(&key) != Some(&partition.version) {
                self.told.insert(key, partition.version);
                news.push((partition.id.index as usize, partition.register.clone()));
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

fn register_command(node: usize, incarnation: Incarnation) -> Command {
    Command::RegisterBroker(BrokerRegistration {
        id: broker_id(node),
        zone: ZoneId::new(&format!("zone-{node}")),
        dir: dir_id(node),
        incarnation,
        client_endpoint: format!("broker-{node}:9092"),
        peer_endpoint: format!("broker-{node}:9093"),
    })
}
