//! A shard on files in memory that fail, hang and crash: what a bad disk makes of acknowledgements, and of the mark that
//! says that a run ended in order.

mod compacting;
mod disk;
mod full;
mod gate;
mod lives;
mod noted;
mod peer;
mod rebuild;
mod repairing;
mod serving;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use holdfast_core::metadata::{ClusterMap, Durability, LeaderState};
use holdfast_core::record_batch::{RecordBatch, RecordBatchBuilder};
use holdfast_core::replication::{Acknowledged, Assignment, ProduceError, ReplicaConfig, ReplicaStatus};
use holdfast_core::{Incarnation, Offset, PartitionId, ReplicaId, Term, TopicId};
use holdfast_log::fs::mem::{Fault, OperationKind};
use holdfast_log::{Fs, LogConfig, MemFs};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::clock::Clock;
use crate::data_dir::DataDir;
use crate::disk_space::{DiskReserve, DiskSpace};
use crate::fatal::Fatal;
use crate::flusher::Flusher;
use crate::peers::{PeerContext, Peers};
use crate::repair::{RepairContext, Repairs};
use crate::reports::Reports;
use crate::state_store::StateStore;
use gate::GatedFs;

const PARTITION: PartitionId = PartitionId { topic: TopicId(1), index: 0 };
const LONG: Duration = Duration::from_secs(20);

/// A broker's data side with one shard.
struct Node {
    me: ReplicaId,
    shard: ShardSender,
    partitions: Partitions,
    reports: Reports,
    states: StateStore,
    writer: JoinHandle<bool>,
    stored_nonvoter: bool,
    killed: CancellationToken,
    fatal: Fatal,
    read_room: Arc<Semaphore>,
    newest: Newest,
    space: DiskSpace,
    repairs: Repairs,
}

impl Node {
    fn start(fs: Arc<dyn Fs>) -> Node {
        Node::start_among(fs, ClusterMap::default())
    }

    /// Among the brokers of a map, which it sends its messages to.
    fn start_among(fs: Arc<dyn Fs>, map: ClusterMap) -> Node {
        Node::start_with(fs, map, DiskReserve::Auto)
    }

    /// The same with that reserve on its disk.
    fn start_with(fs: Arc<dyn Fs>, map: ClusterMap, reserve: DiskReserve) -> Node {
        Node::start_as(fs, map, reserve, LogConfig::default())
    }

    /// The same with logs kept like that.
    fn start_as(fs: Arc<dyn Fs>, map: ClusterMap, reserve: DiskReserve, log: LogConfig) -> Node {
        Node::start_hearing(fs, watch::channel(Arc::new(map)).1, reserve, log)
    }

    /// The same where other maps may come.
    fn start_hearing(
        fs: Arc<dyn Fs>,
        map: watch::Receiver<Arc<ClusterMap>>,
        reserve: DiskReserve,
        log: LogConfig,
    ) -> Node {
        let dir = Arc::new(DataDir::in_memory(fs, "boot 1").unwrap());
        let (fatal, killed) = (Fatal::new(), CancellationToken::new());
        let opened = StateStore::open(&dir, &fatal).unwrap();
        let (shard, queue) = shard_queue();
        let me = ReplicaId { broker: BrokerId(1), dir: dir.dir_id() };
        let (partitions, reports) = (Partitions::default(), Reports::default());
        let shards = ShardSenders::new(vec![shard.clone()]);
        let repairs = Repairs::new(RepairContext {
            cluster: "test".to_owned(),
            me,
            tls: None,
            dir: Arc::clone(&dir),
            map: map.clone(),
            partitions: partitions.clone(),
            shards: shards.clone(),
            runtime: Handle::current(),
        });
        let peers = Peers::new(PeerContext {
            cluster: "test".to_owned(),
            me: me.broker,
            incarnation: Incarnation(1),
            tls: None,
            map,
            shards,
            queue_bytes: 1 << 20,
            runtime: Handle::current(),
        });
        // None: whoever reads, reads from the disk.
        let newest = Newest::new(0);
        let read_room = Arc::new(Semaphore::new(READ_ROOM));
        let space = DiskSpace::open(&dir, reserve).unwrap();
        tokio::spawn(space.clone().run());
        let context = ShardContext {
            clock: Clock::new(),
            flusher: Flusher::start(&dir, 1, &fatal).unwrap(),
            space: space.clone(),
            dir,
            me,
            incarnation: Incarnation(1),
            log,
            replica: ReplicaConfig::default(),
            states: opened.store.clone(),
            peers,
            newest: newest.clone(),
            reports: reports.clone(),
            partitions: partitions.clone(),
            repairs: repairs.clone(),
            blocking: Handle::current(),
            read_room: Arc::clone(&read_room),
            removals: Arc::new(Semaphore::new(REMOVALS)),
            own: shard.clone(),
            killed: killed.clone(),
            fatal: fatal.clone(),
        };
        let stored_nonvoter = opened.stored.get(&PARTITION).is_some_and(|stored| stored.state.nonvoter);
        Shard::start(0, context, opened.stored, queue).unwrap();
        let (states, writer) = (opened.store, opened.thread);
        Node {
            me,
            shard,
            partitions,
            reports,
            states,
            writer,
            stored_nonvoter,
            killed,
            fatal,
            read_room,
            newest,
            space,
            repairs,
        }
    }

    /// The only replica of its set, and so the leader: its flush alone commits.
    async fn lead(&self, term: u32) -> Arc<PartitionHandle> {
        let handle = self.assign(self.alone(term)).await;
        until(&handle, "it leads", |status| status.settled).await;
        handle
    }

    /// Tells the shard of a register, and waits until the replica is there.
    async fn assign(&self, assignment: Assignment) -> Arc<PartitionHandle> {
        let command = Command::Assign { partition: PARTITION, durability: Durability::Disk, assignment };
        self.shard.send(command).await.unwrap();
        let opened = async {
            while self.partitions.get(PARTITION).is_none() {
                tokio::task::yield_now().await;
            }
        };
        timeout(LONG, opened).await.expect("the replica opens");
        self.partitions.get(PARTITION).unwrap()
    }

    /// The register of a term in which this replica is the only one.
    fn alone(&self, term: u32) -> Assignment {
        Assignment {
            term: Term(term),
            leader: self.me,
            set: vec![self.me],
            prev: None,
            learners: Vec::new(),
            unclean_term: None,
        }
    }

    async fn produce(&self, value: &str) -> oneshot::Receiver<Result<Acknowledged, ProduceError>> {
        let (reply, answer) = oneshot::channel();
        let room = Arc::new(Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap());
        let command = Command::Produce { partition: PARTITION, batch: batch(value), reply, _room: room };
        self.shard.send(command).await.unwrap();
        answer
    }

    /// Says whether everything is flushed, so that the end may be called orderly.
    async fn close(&self) -> oneshot::Receiver<()> {
        let (done, closed) = oneshot::channel();
        self.shard.send(Command::Close(done)).await.unwrap();
        closed
    }

    /// Waits until the controllers are to hear that it is stuck.
    async fn asks_for_a_successor(&self) {
        let mut news = self.reports.news();
        let asked = async {
            while self.reports.since(0).0.iter().all(|(report, _)| report.state != LeaderState::Stalled) {
                news.changed().await.unwrap();
            }
        };
        timeout(LONG, asked).await.expect("it asks for a successor");
    }

    /// As the end of the process.
    async fn kill(self) {
        self.killed.cancel();
        self.states.close();
        tokio::task::spawn_blocking(|| self.writer.join().unwrap()).await.unwrap();
    }
}

/// Waits for a status.
async fn until(
    handle: &PartitionHandle,
    what: &str,
    holds: impl FnMut(&ReplicaStatus) -> bool,
) -> ReplicaStatus {
    let mut status = handle.status.clone();
    let status = timeout(LONG, status.wait_for(holds)).await;
    status.unwrap_or_else(|_| panic!("not in time: {what}")).unwrap().clone()
}

fn batch(value: &str) -> RecordBatch {
    let mut builder = RecordBatchBuilder::new();
    builder.push(0, None, Some(value.as_bytes()), &[]).unwrap();
    builder.build(None).unwrap()
}

async fn answer(
    answer: oneshot::Receiver<Result<Acknowledged, ProduceError>>,
) -> Result<Acknowledged, ProduceError> {
    timeout(LONG, answer).await.expect("an answer in time").expect("an answer")
}

/// The system may have dropped what it could not flush: whatever a later flush says, it proves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_flush_is_never_acknowledged_and_its_replica_leaves() {
    let fs = MemFs::new();
    let node = Node::start(Arc::new(fs.clone()));
    let handle = node.lead(1).await;
    answer(node.produce("kept").await).await.unwrap();
    fs.inject(Fault { kind: Some(OperationKind::SyncData), after: 0, lasting: false });
    let lost = answer(node.produce("lost").await).await;
    assert_eq!(lost, Err(ProduceError::StorageFailed));
    let mut status = handle.status.clone();
    let failed =
        timeout(LONG, status.wait_for(|status| status.failed)).await.expect("it leaves").unwrap().clone();
    assert!(!failed.active);
    let later = answer(node.produce("later").await).await;
    assert!(matches!(later, Err(ProduceError::NotLeader { .. })), "{later:?}");
    node.asks_for_a_successor().await;
    assert!(timeout(LONG, node.close().await).await.unwrap().is_err(), "no orderly end over a failed flush");
    node.kill().await;
    fs.crash();
    assert!(Node::start(Arc::new(fs)).stored_nonvoter, "it may have forgotten what it acknowledged");
}

/// What a flush that still runs has taken over is flushed only when it has ended well.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_run_waits_for_the_flush_that_still_runs() {
    for fails in [false, true] {
        let fs = MemFs::new();
        let gated = GatedFs::new(fs.clone());
        let node = Node::start(Arc::new(gated.clone()));
        node.lead(1).await;
        gated.shut();
        let produced = node.produce("in the middle of it").await;
        let hanging = gated.clone();
        tokio::task::spawn_blocking(move || hanging.wait_until_one_hangs(LONG)).await.unwrap();
        let mut closed = node.close().await;
        let early = timeout(Duration::from_millis(100), &mut closed).await;
        assert!(early.is_err(), "the run ended in order over a flush that runs");
        if fails {
            fs.inject(Fault { kind: Some(OperationKind::SyncData), after: 0, lasting: false });
        }
        gated.open();
        let flushed = timeout(LONG, closed).await.expect("an end in time").is_ok();
        assert_eq!(flushed, !fails);
        assert!(timeout(LONG, produced).await.is_ok(), "nobody waits for ever");
        node.kill().await;
    }
}

/// Power cuts at every moment of a run with many batches: what was acknowledged is read back in its place.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_a_power_cut() {
    for seed in 0..20 {
        let fs = MemFs::new();
        let node = Node::start(Arc::new(fs.clone()));
        node.lead(1).await;
        let mut acknowledged = Vec::new();
        for number in 0..10 + seed % 7 {
            let value = format!("value {number}");
            acknowledged.push((value.clone(), answer(node.produce(&value).await).await.unwrap().base_offset));
        }
        let _unanswered = node.produce("may be lost").await;
        fs.crash_keeping(seed);
        node.kill().await;
        let node = Node::start(Arc::new(fs));
        let reader = &node.lead(2).await.reader;
        for (value, offset) in acknowledged {
            let bytes = reader.read(offset, Offset(offset.0 + 1), 1 << 20).unwrap();
            let batch = RecordBatch::split(bytes).unwrap().remove(0);
            let record = batch.records().unwrap().next().unwrap().unwrap();
            assert_eq!(record.value.as_deref(), Some(value.as_bytes()), "seed {seed}");
        }
        node.kill().await;
    }
}
