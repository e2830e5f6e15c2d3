//! A cluster for tests of what is proposed for one: just its metadata.

use holdfast_core::metadata::{BrokerRegistration, ClusterMap, Command, Metadata, Partition, TopicSpec};
use holdfast_core::{BrokerId, DirId, Incarnation, PartitionId, TopicId, ZoneId};

pub(crate) const TOPIC: TopicId = TopicId(5);

pub(crate) struct Cluster {
    metadata: Metadata,
    zones: Vec<(u32, &'static str)>,
}

impl Cluster {
    /// Brokers with their zones, all in their first run.
    pub(crate) fn new(zones: &[(u32, &'static str)]) -> Cluster {
        let mut cluster = Cluster { metadata: Metadata::default(), zones: zones.to_vec() };
        zones.iter().for_each(|&(id, _)| cluster.start(id, 1, 1));
        cluster
    }

    pub(crate) fn map(&self) -> &ClusterMap {
        self.metadata.map()
    }

    pub(crate) fn apply(&mut self, command: Command) {
        let next = self.metadata.map().index() + 1;
        self.metadata.apply(next, &command).0.unwrap();
    }

    /// A broker registers, on that data directory.
    pub(crate) fn start(&mut self, id: u32, incarnation: u64, dir: u64) {
        let zone = self.zones.iter().find(|(known, _)| *known == id).unwrap().1;
        self.apply(Command::RegisterBroker(BrokerRegistration {
            id: BrokerId(id),
            zone: ZoneId::new(zone),
            dir: DirId(dir),
            incarnation: Incarnation(incarnation),
            client_endpoint: "b:1".into(),
            peer_endpoint: "b:2".into(),
        }));
    }

    /// A broker is declared dead.
    pub(crate) fn fence(&mut self, id: u32) {
        let incarnation = self.map().broker(BrokerId(id)).unwrap().incarnation;
        self.apply(Command::FenceBrokers(vec![(BrokerId(id), incarnation)]));
    }

    pub(crate) fn create(&mut self, partitions: u32) {
        let spec = TopicSpec { partitions, ..TopicSpec::default() };
        self.apply(Command::CreateTopic { id: TOPIC, name: "t".into(), spec });
    }

    pub(crate) fn partition(&self, index: u32) -> &Partition {
        self.map().partition(PartitionId { topic: TOPIC, index }).unwrap()
    }
}
