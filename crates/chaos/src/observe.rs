//! What the cluster says of itself: who leads, who is in sync, which term. Asked as any client may ask.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdfast_client::Client;
use holdfast_core::PartitionId;
use holdfast_core::metadata::ClusterMap;
use holdfast_proto::v1::{PartitionState, ReplicaState};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::clock::Micros;
use crate::error::{ChaosError, chain};
use crate::record::lock;
use crate::zone::Zone;

/// Pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long one question may take.
const ANSWER: Duration = Duration::from_secs(3);

/// Who leads a partition, as the controllers appointed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appointment {
    /// Grows with every appointment.
    pub(crate) term: u32,
    /// Where the leader is.
    pub(crate) zone: Zone,
}

/// Appointments by partition.
pub(crate) type Appointments = BTreeMap<u32, Appointment>;

/// The controllers, as a broker hears them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Controllers {
    /// The zone of the leading one, if one leads.
    pub(crate) leader: Option<Zone>,
    /// The highest term heard of.
    pub(crate) term: u64,
    reachable: usize,
}

/// Looks at one topic of a cluster.
#[derive(Debug)]
pub(crate) struct Observer {
    client: Client,
    topic: String,
    /// Every change of a leader since the start.
    moves: Arc<Mutex<Vec<(Micros, u32)>>>,
    follower: JoinHandle<()>,
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl Observer {
    /// Begins to look.
    pub(crate) fn new(client: Client, topic: &str) -> Observer {
        let moves = Arc::new(Mutex::new(Vec::new()));
        let follower = tokio::spawn(follow(client.clone(), topic.to_owned(), moves.clone()));
        Observer { client, topic: topic.to_owned(), moves, follower }
    }

    /// Who leads, by the newest map that reached us.
    pub(crate) fn appointments(&self) -> Appointments {
        appointments(&self.client.map(), &self.topic)
    }

    /// The partitions led in a zone.
    pub(crate) fn led_in(&self, zone: Zone) -> Vec<u32> {
        let led = self.appointments().into_iter().filter(|(_, appointment)| appointment.zone == zone);
        led.map(|(partition, _)| partition).collect()
    }

    /// The most often that the leader of one partition changed since a moment.
    pub(crate) fn most_moves_since(&self, moment: Micros) -> usize {
        let mut counts = BTreeMap::<u32, usize>::new();
        for (_, partition) in lock(&self.moves).iter().filter(|(at, _)| *at >= moment) {
            *counts.entry(*partition).or_default() += 1;
        }
        counts.into_values().max().unwrap_or(0)
    }

    /// What some broker hears from the controllers.
    pub(crate) async fn controllers(&self) -> Result<Controllers, ChaosError> {
        let late = || ChaosError::Late {
            what: "an answer about the controllers".to_owned(),
            limit: ANSWER,
            seen: "silence".to_owned(),
        };
        let answer = timeout(ANSWER, self.client.describe_cluster()).await.map_err(|_| late())?;
        let answer =
            answer.map_err(|error| ChaosError::client("asking for the state of the cluster", &error))?;
        let leader = answer.controllers.iter().find(|controller| controller.leader);
        Ok(Controllers {
            leader: leader.and_then(|leader| Zone::named(&leader.zone)),
            term: answer.controllers.iter().map(|controller| controller.term).max().unwrap_or(0),
            reachable: answer.controllers.iter().filter(|controller| controller.reachable).count(),
        })
    }

    /// Waits until the map holds a live broker of every zone. A broker answers before the controllers have registered it, and
    /// until they have, a topic cannot be placed: that is no outage, and no client tries again because of it.
    pub(crate) async fn await_brokers(&self, limit: Duration) -> Result<(), ChaosError> {
        let mut maps = self.client.watch_map();
        let complete = async {
            let found = maps.wait_for(|map| homeless(map).is_empty()).await;
            found.is_ok()
        };
        if matches!(timeout(limit, complete).await, Ok(true)) {
            return Ok(());
        }
        let seen = format!("none in {}", homeless(&self.client.map()).join(", "));
        Err(ChaosError::Late { what: "a live broker in every zone".to_owned(), limit, seen })
    }

    /// Waits until every partition is led, every replica in sync, every broker alive and the controllers complete.
    pub(crate) async fn await_redundant(&self, limit: Duration) -> Result<(), ChaosError> {
        let deadline = Instant::now() + limit;
        let mut first = BTreeMap::new();
        loop {
            let missing = self.missing(&mut first).await;
            let Some(seen) = missing else { return Ok(()) };
            if Instant::now() >= deadline {
                return Err(ChaosError::Late { what: "full redundancy".to_owned(), limit, seen });
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// What full redundancy lacks. `first` holds what was committed at the first look: under load a healthy follower is
    /// always a few records behind the latest state.
    async fn missing(&self, first: &mut BTreeMap<u32, u64>) -> Option<String> {
        let controllers = match self.controllers().await {
            Ok(controllers) => controllers,
            Err(error) => return Some(chain(&error)),
        };
        if controllers.reachable < Zone::ALL.len() || controllers.leader.is_none() {
            return Some(format!("controllers: {controllers:?}"));
        }
        let map = self.client.map();
        if let Some(broker) = map.brokers().find(|broker| !broker.live) {
            return Some(format!("broker {} is not alive", broker.id));
        }
        let states = match timeout(ANSWER, self.client.describe_partitions(Some(&self.topic))).await {
            Ok(Ok(states)) => states,
            Ok(Err(error)) => return Some(chain(&error)),
            Err(_) => return Some("no answer about partitions".to_owned()),
        };
        let expected = appointments(&map, &self.topic).len();
        let whole = states.iter().filter(|state| is_whole(state, first)).count();
        (whole < expected).then(|| format!("{whole} of {expected} partitions are in sync everywhere"))
    }
}

/// Whether no replica lags, and every one holds what was committed when this was first asked.
fn is_whole(state: &PartitionState, first: &mut BTreeMap<u32, u64>) -> bool {
    if !state.active {
        return false;
    }
    let committed = *first.entry(state.partition).or_insert(state.high_watermark);
    let holds = |replica: &&ReplicaState| !replica.lags && replica.acknowledged_offset >= committed;
    state.replicas.iter().filter(holds).count() == Zone::ALL.len()
}

/// The zones of which no broker is registered and alive.
fn homeless(map: &ClusterMap) -> Vec<&'static str> {
    let lives_in =
        |zone: &Zone| map.brokers().any(|broker| broker.live && broker.zone.as_str() == zone.name());
    Zone::ALL.iter().filter(|zone| !lives_in(zone)).map(|zone| zone.name()).collect()
}

fn appointments(map: &ClusterMap, topic: &str) -> Appointments {
    let Some(topic) = map.topic_named(topic) else { return Appointments::new() };
    let appointed = map.partitions_of(topic.id).filter_map(|partition| {
        let PartitionId { index, .. } = partition.id;
        let zone = Zone::of_broker(partition.register.leader.broker.0)?;
        Some((index, Appointment { term: partition.register.term.0, zone }))
    });
    appointed.collect()
}

async fn follow(client: Client, topic: String, moves: Arc<Mutex<Vec<(Micros, u32)>>>) {
    let mut maps = client.watch_map();
    let mut known = appointments(&client.map(), &topic);
    while maps.changed().await.is_ok() {
        let now = appointments(&maps.borrow_and_update(), &topic);
        let at = Micros::now();
        for (partition, appointment) in &now {
            if known.get(partition).is_some_and(|known| known.zone != appointment.zone) {
                lock(&moves).push((at, *partition));
            }
        }
        known = now;
    }
}
