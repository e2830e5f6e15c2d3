//! A cluster under load, and what every fault needs to be put on it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holdfast_checker::history::Edge;
use holdfast_client::Client;
use holdfast_core::metadata::TopicSpec;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::{Instant, sleep};

use crate::clock::Micros;
use crate::cluster::{Cluster, Setting, Which};
use crate::error::ChaosError;
use crate::history::History;
use crate::load::probe::{Pace, Probe};
use crate::load::reader::Readers;
use crate::load::{Load, PARTITIONS, connect, finale};
use crate::network::Network;
use crate::observe::Observer;
use crate::zone::Zone;

/// The probed topic.
const TOPIC: &str = "probe";
/// The history's file in the folder of a run.
pub(crate) const HISTORY: &str = "history.jsonl";
/// How long a whole cluster may take to be whole again.
pub(crate) const HEAL_LIMIT: Duration = Duration::from_secs(120);
/// How long records on their way may take when the probe ends.
const CLOSE_PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks at acknowledgements.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// One cluster, its load, and the seed that decides what is struck when.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    /// Ends with the stage, before the network does.
    pub(crate) cluster: Cluster,
    pub(crate) network: &'a Network,
    pub(crate) load: Arc<Load>,
    pub(crate) observer: Observer,
    pub(crate) client: Client,
    pub(crate) random: StdRng,
    pub(crate) folder: PathBuf,
    probe: Option<Probe>,
    readers: Option<Readers>,
}

impl<'a> Stage<'a> {
    /// Starts six processes, makes the topic, starts load, and waits until everything is in sync.
    pub(crate) async fn set(setting: Setting<'a>, pace: Pace, seed: u64) -> Result<Stage<'a>, ChaosError> {
        let Setting { network, folder, .. } = setting;
        let mut cluster = Cluster::new(&setting)?;
        cluster.start(network, Which::ALL).await?;
        let client = connect(&network.bootstrap(), None).await?;
        let observer = Observer::new(client.clone(), TOPIC);
        observer.await_brokers(HEAL_LIMIT).await?;
        let spec = TopicSpec { partitions: PARTITIONS, ..TopicSpec::default() };
        let created = client.create_topic(TOPIC, spec).await;
        created.map_err(|error| ChaosError::client("creating the topic", &error))?;
        let history = History::create(&folder.join(HISTORY), TOPIC, PARTITIONS)?;
        let load = Arc::new(Load::new(TOPIC, PARTITIONS, history));
        observer.await_redundant(HEAL_LIMIT).await?;
        let mut stage = Stage {
            cluster,
            network,
            load,
            observer,
            client,
            random: StdRng::seed_from_u64(seed),
            folder: folder.to_owned(),
            probe: None,
            readers: None,
        };
        stage.probe = Some(Probe::start(&stage.client, &stage.load, pace).await?);
        let mut readers = Vec::new();
        for zone in Zone::ALL {
            readers.push(connect(&network.bootstrap(), Some(zone.name())).await?);
        }
        stage.readers = Some(Readers::start(&readers, &stage.load, &stage.positions()));
        Ok(stage)
    }

    /// Ends load, and reads everything back with fresh clients; the partitions whose end was not reached.
    pub(crate) async fn close(&mut self) -> Result<Vec<u32>, ChaosError> {
        if let Some(probe) = self.probe.take() {
            probe.stop(CLOSE_PATIENCE).await;
        }
        if let Some(readers) = self.readers.take() {
            readers.stop().await;
        }
        let short = finale::read_back(&self.network.bootstrap(), &self.load).await;
        self.load.history.finish()?;
        Ok(short)
    }

    /// Quiet time of a seeded length, so that faults meet every phase of everybody's timers. New consumers begin in it.
    pub(crate) async fn quiet_time(&mut self) {
        let back = self.random.random_range(0..200);
        if let Some(readers) = &self.readers {
            readers.renew(back);
        }
        let length = self.random.random_range(2000..4000);
        sleep(Duration::from_millis(length)).await;
    }

    /// One of the zones, by the seed; of those that lead partitions, where any does: without there would be nothing to
    /// measure.
    pub(crate) fn choose(&mut self, zones: &[Zone]) -> Zone {
        let leads = |zone: &Zone| !self.observer.led_in(*zone).is_empty();
        let leading: Vec<Zone> = zones.iter().copied().filter(leads).collect();
        let among = if leading.is_empty() { zones } else { &leading };
        among.get(self.random.random_range(0..among.len().max(1))).copied().unwrap_or(Zone::A)
    }

    /// Notes that a fault begins now.
    pub(crate) fn begin(&self, fault: &str, zone: Option<Zone>) -> Micros {
        self.load.history.fault(fault, zone, Edge::Begin)
    }

    /// Notes that it is over now.
    pub(crate) fn end(&self, fault: &str, zone: Option<Zone>) -> Micros {
        self.load.history.fault(fault, zone, Edge::End)
    }

    /// Waits until each of the partitions has acknowledged something since `moment`; whether that was within `limit`.
    pub(crate) async fn acks_again(&self, partitions: &[u32], moment: Micros, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let acks = &self.load.acks;
        while !partitions.iter().all(|partition| acks.first_since(*partition, moment).is_some()) {
            if Instant::now() >= deadline {
                return false;
            }
            sleep(LOOK_AGAIN).await;
        }
        true
    }

    /// Consumers of every partition that prefer the replicas of a zone, from the present end on.
    pub(crate) async fn attach(&self, zone: Zone) -> Result<Readers, ChaosError> {
        let client = connect(&self.network.bootstrap(), Some(zone.name())).await?;
        Ok(Readers::start(&[client], &self.load, &self.positions()))
    }

    /// The same from the beginning on: all that is stored is read.
    pub(crate) async fn attach_from_beginning(&self, zone: Zone) -> Result<Readers, ChaosError> {
        let client = connect(&self.network.bootstrap(), Some(zone.name())).await?;
        Ok(Readers::start(&[client], &self.load, &vec![0; self.load.partitions as usize]))
    }

    /// Everything whole again.
    pub(crate) async fn healed(&mut self) -> Result<Micros, ChaosError> {
        let redundant = self.observer.await_redundant(HEAL_LIMIT).await;
        match self.cluster.fallen() {
            // What fell is why the rest did not come about.
            Some(error) => Err(error),
            None => redundant.map(|()| Micros::now()),
        }
    }

    /// All partitions.
    pub(crate) fn partitions(&self) -> Vec<u32> {
        (0..self.load.partitions).collect()
    }

    fn positions(&self) -> Vec<u64> {
        self.partitions().into_iter().map(|partition| self.load.seen.end(partition)).collect()
    }
}
