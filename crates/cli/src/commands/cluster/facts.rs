//! What is known of the cluster, as values.

use std::collections::BTreeMap;

use serde::Serialize;

/// A controller as the answering broker hears it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ControllerFact {
    pub(crate) id: u64,
    pub(crate) zone: String,
    pub(crate) endpoint: String,
    pub(crate) reachable: bool,
    pub(crate) leader: bool,
    pub(crate) term: u64,
}

impl ControllerFact {
    pub(crate) fn state(&self) -> &'static str {
        match (self.reachable, self.leader) {
            (false, _) => "unreachable",
            (true, true) => "leader",
            (true, false) => "up",
        }
    }
}

/// A broker.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct BrokerFact {
    pub(crate) id: u32,
    pub(crate) zone: String,
    pub(crate) endpoint: String,
    /// What the controllers believe, or last believed.
    pub(crate) live: bool,
    /// Whether it answers this command.
    pub(crate) answers: bool,
    /// Whether it counts as working. Where no controller can tell, only an answer does.
    pub(crate) up: bool,
    pub(crate) leaders: usize,
    pub(crate) replicas: usize,
    #[serde(rename = "replicas_in_sync")]
    pub(crate) in_sync: usize,
    /// Replicas that are out of service because their log failed, as far as it says.
    #[serde(rename = "replicas_failed")]
    pub(crate) failed: u32,
    /// Replicas whose logs are damaged, and that wait for others to give what is missing.
    #[serde(rename = "replicas_damaged")]
    pub(crate) damaged: u32,
    /// Damaged places that were repaired since it started.
    pub(crate) repaired_places: u64,
    /// What compaction did since it started.
    pub(crate) compaction: CompactionFact,
    /// Whether it says that it takes no records for want of room.
    pub(crate) disk_full: bool,
}

/// What compaction did on a broker.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct CompactionFact {
    pub(crate) passes: u64,
    pub(crate) removed_records: u64,
    /// Bytes by which logs became smaller.
    pub(crate) freed_bytes: u64,
}

impl BrokerFact {
    pub(crate) fn state(&self) -> &'static str {
        match (self.up, self.answers) {
            (true, true) if self.disk_full => "up, disk full",
            (true, true) if self.failed > 0 => "up, logs failed",
            (true, true) if self.damaged > 0 => "up, logs damaged",
            (true, true) => "up",
            (true, false) => "up, silent to us",
            (false, true) => "fenced, answers us",
            (false, false) => "lost",
        }
    }
}

/// A replica of a partition.
#[derive(Debug, Clone)]
pub(crate) struct ReplicaFact {
    pub(crate) broker: u32,
    pub(crate) zone: String,
    /// Whether its broker works and holds what was committed.
    pub(crate) good: bool,
}

/// A partition.
#[derive(Debug, Clone)]
pub(crate) struct PartitionFact {
    pub(crate) topic: String,
    /// Whether its topic accepted to lose a zone.
    pub(crate) waived: bool,
    /// Broker whose leadership is active, if there is one.
    pub(crate) leader: Option<u32>,
    /// Whether that one takes no records for want of room.
    pub(crate) full: bool,
    pub(crate) replicas: Vec<ReplicaFact>,
}

/// A zone, summed up.
#[derive(Debug, Clone, Default)]
pub(crate) struct ZoneFact {
    pub(crate) name: String,
    pub(crate) brokers: usize,
    pub(crate) brokers_live: usize,
    pub(crate) controllers: usize,
    pub(crate) controllers_reachable: usize,
    pub(crate) leaders: usize,
    pub(crate) replicas: usize,
    pub(crate) in_sync: usize,
}

impl ZoneFact {
    pub(crate) fn state(&self) -> &'static str {
        let (up, all) = (self.brokers_live + self.controllers_reachable, self.brokers + self.controllers);
        match up {
            0 => "lost",
            _ if up == all => "up",
            _ => "partly",
        }
    }
}

/// Everything found out.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClusterState {
    pub(crate) cluster: String,
    pub(crate) seen_by: u32,
    pub(crate) seen_from: String,
    pub(crate) version: String,
    pub(crate) controllers: Vec<ControllerFact>,
    pub(crate) brokers: Vec<BrokerFact>,
    pub(crate) partitions: Vec<PartitionFact>,
}

impl ClusterState {
    /// Every zone that has a broker or a controller, by name.
    pub(crate) fn zones(&self) -> Vec<ZoneFact> {
        let mut zones: BTreeMap<&str, ZoneFact> = BTreeMap::new();
        for broker in &self.brokers {
            let zone = zones.entry(&broker.zone).or_default();
            zone.brokers += 1;
            zone.brokers_live += usize::from(broker.up);
            zone.leaders += broker.leaders;
            zone.replicas += broker.replicas;
            zone.in_sync += broker.in_sync;
        }
        for controller in &self.controllers {
            let zone = zones.entry(&controller.zone).or_default();
            zone.controllers += 1;
            zone.controllers_reachable += usize::from(controller.reachable);
        }
        let named = |(name, zone): (&str, ZoneFact)| ZoneFact { name: name.to_owned(), ..zone };
        zones.into_iter().map(named).collect()
    }
}
