//! A scripted cluster for tests: brokers on loopback over one shared log, with faults on order.
//!
//! The log behaves as a replicated one does: whichever broker leads sees what was appended before, and takes of an
//! idempotent producer only the batch that follows.

mod services;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use holdfast_core::metadata::{
    Broker, ClusterMap, MapError, Object, Partition, Register, Topic, TopicSpec, Update,
};
use holdfast_core::record_batch::{BatchError, ProducerRef, Record, RecordBatch};
use holdfast_core::{
    BrokerId, DirId, ErrorCode, Incarnation, LeaderEpoch, Offset, PartitionId, ReplicaId, Term, TopicId,
    ZoneId,
};
use holdfast_proto::ApiError;
use holdfast_proto::transport::Listener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::sync::lock;

pub(crate) const TOPIC: &str = "orders";
const TOPIC_ID: TopicId = TopicId(7);

/// What a broker does with the next append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Answers with this error and appends nothing.
    Refuse(ErrorCode),
    /// Ends the stream, nothing appended.
    Cut,
    /// Appends, and ends the stream instead of answering.
    AppendThenCut,
    /// Never answers anything on this stream again; appends nothing.
    Silent,
    /// Appends this one, and never answers anything on this stream again.
    AppendThenSilent,
    /// Never answers this one, and appends nothing; those behind it are answered as ever.
    Overlooked,
}

/// What is wrong with the next fetch.
#[derive(Debug, Clone)]
pub(crate) enum FetchFault {
    Refuse(ApiError),
    /// Leaves out the first batch.
    Skip,
    /// Flips a bit.
    Garble,
    /// As a replica that has nothing new.
    Empty,
}

/// What is wrong with a broker's metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MapFault {
    /// An object is missing.
    Partial,
    /// The stream opens and says nothing.
    Silent,
}

#[derive(Default)]
pub(super) struct Log {
    pub(super) batches: Vec<RecordBatch>,
    /// By producer: the next sequence number, and base sequence and offset of the last five batches.
    pub(super) producers: HashMap<i64, (i32, VecDeque<(i32, u64)>)>,
}

impl Log {
    pub(super) fn end(&self) -> u64 {
        self.batches.last().map_or(0, |batch| batch.header().next_offset().0)
    }

    /// As rule R39 has it.
    pub(super) fn append(&mut self, bytes: Bytes, epoch: LeaderEpoch) -> Result<(u64, u64, bool), ErrorCode> {
        let batch = RecordBatch::check(bytes, 16 << 20).map_err(|_| ErrorCode::CorruptBatch)?;
        let header = *batch.header();
        let ProducerRef { id, base_sequence, .. } = header.producer.ok_or(ErrorCode::InvalidRequest)?;
        let known = self.producers.get(&id.0);
        if let Some((next, recent)) = known {
            if let Some((_, offset)) = recent.iter().find(|(sequence, _)| *sequence == base_sequence) {
                return Ok((*offset, offset + u64::from(header.last_offset_delta), true));
            }
            if *next != base_sequence {
                return Err(ErrorCode::OutOfOrderSequence);
            }
        } else if base_sequence != 0 {
            return Err(ErrorCode::UnknownProducer);
        }
        let base = self.end();
        self.batches.push(batch.stamped(Offset(base), epoch));
        let (next, recent) = self.producers.entry(id.0).or_default();
        *next = base_sequence + header.records as i32;
        recent.push_back((base_sequence, base));
        if recent.len() > 5 {
            recent.pop_front();
        }
        Ok((base, base + u64::from(header.last_offset_delta), false))
    }
}

#[derive(Default)]
pub(super) struct State {
    pub(super) endpoints: Vec<String>,
    pub(super) leaders: Vec<u32>,
    pub(super) logs: BTreeMap<u32, Log>,
    pub(super) term: u32,
    pub(super) next_producer: i64,
    pub(super) faults: HashMap<u32, VecDeque<Fault>>,
    pub(super) fetch_faults: HashMap<u32, VecDeque<FetchFault>>,
    pub(super) map_faults: HashMap<u32, MapFault>,
    /// Which broker answered each fetch.
    pub(super) fetched_from: Vec<u32>,
    /// Which broker was asked for metadata.
    pub(super) watched: Vec<u32>,
    /// Base sequence of every append that arrived, with broker and producer.
    pub(super) arrived: Vec<(u32, i64, i32)>,
    pub(super) topic_errors: VecDeque<ErrorCode>,
    /// The topic id in every request to create one.
    pub(super) topics_asked: Vec<Bytes>,
    dead: Vec<u32>,
    /// How often each broker was started.
    runs: BTreeMap<u32, u64>,
}

pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    pub(super) map: watch::Sender<Arc<ClusterMap>>,
    /// Counts appends, for long polls.
    pub(super) appended: watch::Sender<u64>,
}

pub(crate) struct MockCluster {
    shared: Arc<Shared>,
    runtimes: Vec<Option<Runtime>>,
}

impl MockCluster {
    /// Brokers 0.. in zone-a, zone-b, ...; broker `p % brokers` leads partition p of [`TOPIC`].
    pub(crate) async fn start(brokers: u32, partitions: u32) -> MockCluster {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            map: watch::Sender::new(Arc::default()),
            appended: watch::Sender::new(0),
        });
        let mut runtimes = Vec::new();
        for broker in 0..brokers {
            let (runtime, endpoint) = run_broker(&shared, broker, "127.0.0.1:0".to_owned()).await;
            lock(&shared.state).endpoints.push(endpoint);
            runtimes.push(Some(runtime));
        }
        lock(&shared.state).leaders = (0..partitions).map(|partition| partition % brokers).collect();
        let cluster = MockCluster { shared, runtimes };
        cluster.publish();
        cluster
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        lock(&self.shared.state).endpoints.clone()
    }

    /// A client in no zone.
    pub(crate) async fn client(&self) -> crate::Client {
        crate::Client::builder().bootstrap(self.endpoints()).connect().await.unwrap()
    }

    /// Makes the current state known to every watcher.
    pub(crate) fn publish(&self) {
        let mut state = lock(&self.shared.state);
        state.term += 1;
        let endpoints: Vec<&str> = state.endpoints.iter().map(String::as_str).collect();
        let map = cluster_map_at(&endpoints, &state.leaders, &state.dead, &state.runs, state.term);
        drop(state);
        self.shared.map.send_replace(Arc::new(map));
    }

    /// Moves a partition without telling anybody.
    pub(crate) fn move_leader(&self, partition: usize, broker: u32) {
        lock(&self.shared.state).leaders[partition] = broker;
    }

    /// The broker's process dies: its sockets close.
    pub(crate) fn kill(&mut self, broker: u32) {
        lock(&self.shared.state).dead.push(broker);
        if let Some(runtime) = self.runtimes[broker as usize].take() {
            runtime.shutdown_background();
        }
    }

    /// A killed broker is back at the same address, as another run. Nobody is told.
    pub(crate) async fn restart(&mut self, broker: u32) {
        let endpoint = self.endpoints()[broker as usize].clone();
        let (runtime, _) = run_broker(&self.shared, broker, endpoint).await;
        self.runtimes[broker as usize] = Some(runtime);
        let mut state = lock(&self.shared.state);
        state.dead.retain(|dead| *dead != broker);
        *state.runs.entry(broker).or_insert(1) += 1;
    }

    pub(crate) fn fault(&self, broker: u32, faults: impl IntoIterator<Item = Fault>) {
        lock(&self.shared.state).faults.entry(broker).or_default().extend(faults);
    }

    pub(crate) fn fetch_fault(&self, broker: u32, faults: impl IntoIterator<Item = FetchFault>) {
        lock(&self.shared.state).fetch_faults.entry(broker).or_default().extend(faults);
    }

    pub(crate) fn map_fault(&self, broker: u32, fault: Option<MapFault>) {
        let faults = &mut lock(&self.shared.state).map_faults;
        match fault {
            Some(fault) => faults.insert(broker, fault),
            None => faults.remove(&broker),
        };
    }

    pub(crate) fn topic_error(&self, code: ErrorCode) {
        lock(&self.shared.state).topic_errors.push_back(code);
    }

    pub(crate) fn topics_asked(&self) -> Vec<Bytes> {
        lock(&self.shared.state).topics_asked.clone()
    }

    /// Puts a batch into the log, past every check.
    pub(crate) fn put(&self, partition: u32, batch: &RecordBatch) {
        let mut state = lock(&self.shared.state);
        let log = state.logs.entry(partition).or_default();
        let stamped = batch.stamped(Offset(log.end()), LeaderEpoch::ZERO);
        log.batches.push(stamped);
        drop(state);
        self.shared.appended.send_modify(|count| *count += 1);
    }

    /// Leaves only these of a partition's records, as compaction does: batches with none left become fillers, neighbours one.
    pub(crate) fn compact(&self, partition: u32, kept: impl Fn(u64) -> bool) {
        let mut state = lock(&self.shared.state);
        let log = state.logs.entry(partition).or_default();
        let mut left: Vec<RecordBatch> = Vec::new();
        for batch in &log.batches {
            let header = *batch.header();
            let wanted = |record: &Record| kept(header.base_offset.0 + u64::from(record.offset_delta));
            let rest =
                batch.retaining(&batch.section(), wanted, |section| Ok::<_, BatchError>(section.to_vec()));
            let rest = rest.unwrap();
            if rest.header().records > 0 {
                left.push(rest);
                continue;
            }
            let before = left.pop_if(|last| last.header().is_filler());
            let first = before.map_or(header.base_offset, |filler| filler.header().base_offset);
            left.push(RecordBatch::filler(first, header.next_offset(), LeaderEpoch::ZERO).unwrap());
        }
        log.batches = left;
    }

    pub(crate) fn log(&self, partition: u32) -> Vec<RecordBatch> {
        lock(&self.shared.state).logs.get(&partition).map(|log| log.batches.clone()).unwrap_or_default()
    }

    /// The values of an uncompressed partition in order.
    pub(crate) fn values(&self, partition: u32) -> Vec<String> {
        let records = self.log(partition).into_iter().flat_map(|batch| batch.records().unwrap());
        records.map(|record| String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap()).collect()
    }

    pub(crate) fn arrived(&self) -> Vec<(u32, i64, i32)> {
        lock(&self.shared.state).arrived.clone()
    }

    pub(crate) fn fetched_from(&self) -> Vec<u32> {
        lock(&self.shared.state).fetched_from.clone()
    }

    pub(crate) fn watched(&self) -> Vec<u32> {
        lock(&self.shared.state).watched.clone()
    }
}

impl Drop for MockCluster {
    fn drop(&mut self) {
        for runtime in self.runtimes.drain(..).flatten() {
            runtime.shutdown_background();
        }
    }
}

/// A broker on threads of its own, and where it listens.
async fn run_broker(shared: &Arc<Shared>, broker: u32, address: String) -> (Runtime, String) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let shared = shared.clone();
    let endpoint = runtime.spawn(async move {
        let listener = Listener::bind(&address).await.unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        tokio::spawn(services::serve(shared, broker, listener));
        endpoint
    });
    let endpoint = endpoint.await.unwrap();
    (runtime, endpoint)
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A map of brokers 0.. in zone-a.., with one topic whose partitions are led as given.
pub(crate) fn cluster_map(endpoints: &[&str], leaders: &[u32], dead: &[u32]) -> ClusterMap {
    cluster_map_at(endpoints, leaders, dead, &BTreeMap::new(), 1)
}

/// `runs` are those of brokers that were started more than once.
pub(crate) fn cluster_map_at(
    endpoints: &[&str],
    leaders: &[u32],
    dead: &[u32],
    runs: &BTreeMap<u32, u64>,
    index: u32,
) -> ClusterMap {
    let version = u64::from(index);
    let replica = |broker| ReplicaId { broker: BrokerId(broker), dir: DirId(u64::from(broker)) };
    let ids = 0..endpoints.len() as u32;
    let mut objects: Vec<Object> = ids
        .clone()
        .zip(endpoints)
        .map(|(id, endpoint)| {
            let zone = char::from(b'a' + id as u8);
            Object::Broker(Broker {
                id: BrokerId(id),
                zone: ZoneId::new(&format!("zone-{zone}")),
                dir: DirId(u64::from(id)),
                incarnation: Incarnation(runs.get(&id).copied().unwrap_or(1)),
                client_endpoint: (*endpoint).to_owned(),
                peer_endpoint: (*endpoint).to_owned(),
                live: !dead.contains(&id),
                draining: false,
                version,
            })
        })
        .collect();
    let spec = TopicSpec { partitions: leaders.len() as u32, ..TopicSpec::default() };
    let name = TOPIC.to_owned();
    objects.push(Object::Topic(Topic { id: TOPIC_ID, name, spec, deleted: false, version }));
    objects.extend(leaders.iter().enumerate().map(|(partition, leader)| {
        let register = Register {
            term: Term(index),
            leader: replica(*leader),
            set: ids.clone().map(replica).collect(),
            prev: None,
            target: None,
            unclean_term: None,
        };
        let id = PartitionId { topic: TOPIC_ID, index: partition as u32 };
        Object::Partition(Partition { id, register, version })
    }));
    whole(objects, version)
}

/// A map of exactly these objects: the refusal tells the digest that it should have been offered with.
fn whole(objects: Vec<Object>, index: u64) -> ClusterMap {
    let mut map = ClusterMap::default();
    let mut update = Update { base: None, index, entry_count: 0, digest: 0, objects };
    if let Err(MapError::Partial { count, digest, .. }) = map.adopt(&update) {
        (update.entry_count, update.digest) = (count, digest);
        map.adopt(&update).unwrap();
    }
    map
}
