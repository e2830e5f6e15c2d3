//! Compaction by the broker: whose turn it is, how far a pass may go, and when there is none.

use std::time::Duration;

use holdfast_core::compaction::Compaction;
use holdfast_core::metadata::{BrokerRegistration, Command as MetadataCommand, Metadata, TopicSpec};
use holdfast_core::{DirId, ZoneId};
use holdfast_log::ByteSize;

use super::repairing::flip;
use super::*;
use crate::compaction::{CompactionStats, CompactorContext, compact};

/// Bytes of a value, so that a hundred and a few fill a segment.
const VALUE: usize = 8 << 10;

/// A map with one topic of one partition, compacted like that.
fn map_of(compaction: Option<Compaction>) -> ClusterMap {
    let mut metadata = Metadata::default();
    let broker = BrokerRegistration {
        id: BrokerId(1),
        zone: ZoneId::new("a"),
        dir: DirId(1),
        incarnation: Incarnation(1),
        client_endpoint: String::new(),
        peer_endpoint: String::new(),
    };
    let spec =
        TopicSpec { partitions: 1, replication: 1, zone_waiver: true, compaction, ..TopicSpec::default() };
    let topic = MetadataCommand::CreateTopic { id: PARTITION.topic, name: "t".to_owned(), spec };
    for (index, command) in (1..).zip([MetadataCommand::RegisterBroker(broker), topic]) {
        metadata.apply(index, &command).0.unwrap();
    }
    metadata.map().clone()
}

fn always() -> Option<Compaction> {
    Some(Compaction { tombstone_delay_ms: 0, min_dirty_percent: 1 })
}

/// A node with small segments.
fn small_segments(fs: &MemFs, reserve: DiskReserve) -> Node {
    let log = LogConfig { segment_size: ByteSize(1 << 20), ..LogConfig::default() };
    Node::start_as(Arc::new(fs.clone()), ClusterMap::default(), reserve, log)
}

/// The broker's compaction over a node.
struct Compacting {
    stats: CompactionStats,
    map: watch::Sender<Arc<ClusterMap>>,
    ending: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Compacting {
    fn start(node: &Node, compaction: Option<Compaction>, rate: u64) -> Compacting {
        let (stats, ending) = (CompactionStats::default(), CancellationToken::new());
        let (map, maps) = watch::channel(Arc::new(map_of(compaction)));
        let context = CompactorContext {
            dir: Arc::new(DataDir::in_memory(Arc::new(MemFs::new()), "boot 1").unwrap()),
            map: maps,
            partitions: node.partitions.clone(),
            shards: ShardSenders::new(vec![node.shard.clone()]),
            repairs: node.repairs.clone(),
            space: node.space.clone(),
            stats: stats.clone(),
            fatal: node.fatal.clone(),
            ending: ending.clone(),
            rate,
            map_bytes: 1 << 20,
            interval: Duration::from_millis(10),
        };
        Compacting { stats, map, ending, task: tokio::spawn(compact(context)) }
    }

    async fn end(self) {
        self.ending.cancel();
        timeout(LONG, self.task).await.expect("it ends when it is told to").unwrap();
    }
}

async fn overwrite(node: &Node, times: usize) {
    let value = vec![0x5a; VALUE];
    for number in 0..times {
        let key = (number % 10).to_string();
        let mut builder = RecordBatchBuilder::new();
        builder.push(0, Some(key.as_bytes()), Some(&value), &[]).unwrap();
        let (reply, answer) = oneshot::channel();
        let room = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        let batch = builder.build(None).unwrap();
        let command = Command::Produce { partition: PARTITION, batch, reply, _room: Arc::new(room) };
        node.shard.send(command).await.unwrap();
        timeout(LONG, answer).await.unwrap().unwrap().unwrap();
    }
}

async fn eventually(missing: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, waiting).await.unwrap_or_else(|_| panic!("not in time: {missing}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dirty_partition_is_compacted_and_the_rules_and_readers_learn_of_it() {
    let node = small_segments(&MemFs::new(), DiskReserve::Auto);
    node.newest.allow(64 << 20);
    let handle = node.lead(1).await;
    overwrite(&node, 400).await;
    let compacting = Compacting::start(&node, None, 1 << 40);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(compacting.stats.passes(), 0, "its topic is not");
    compacting.map.send_replace(Arc::new(map_of(always())));
    until(&handle, "the rules know how far it is cleaned", |status| status.cleaned_by_all > Offset(300))
        .await;
    assert!(compacting.stats.freed_bytes() > 2 << 20 && compacting.stats.removed_records() > 300);
    eventually("what was removed is not served from memory", || {
        handle.read_newest(Offset(0), handle.readable_end(), 1 << 20).is_none()
    })
    .await;
    let passes = compacting.stats.passes();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(compacting.stats.passes(), passes, "nothing is dirty any more");
    compacting.end().await;
    node.kill().await;
}

/// A pass of which nobody sees the end otherwise: 64 KiB a second.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_pass_ends_with_the_run_with_its_replica_and_when_the_disk_is_short() {
    let fs = MemFs::new();
    let node = small_segments(&fs, DiskReserve::Size(ByteSize(1 << 20)));
    let handle = node.lead(1).await;
    overwrite(&node, 400).await;
    let begun = || Arc::strong_count(&handle) == 3;
    let compacting = Compacting::start(&node, always(), 64 << 10);
    eventually("a pass has begun", begun).await;
    compacting.end().await;
    assert_eq!(Arc::strong_count(&handle), 2);

    let compacting = Compacting::start(&node, always(), 64 << 10);
    eventually("a pass has begun", begun).await;
    node.space.denied();
    eventually("it has ended", || compacting.stats.passes() == 1).await;
    compacting.end().await;
    node.space.granted();

    let compacting = Compacting::start(&node, always(), 64 << 10);
    eventually("a pass has begun", begun).await;
    let deleted = Command::DeleteTopic { topic: PARTITION.topic, folders: Vec::new() };
    node.shard.send(deleted).await.unwrap();
    eventually("the replica is gone", || handle.status.has_changed().is_err()).await;
    eventually("the pass has ended", || Arc::strong_count(&handle) == 1).await;
    assert!(!handle.status.borrow().failed);
    compacting.end().await;
    node.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_pass_begins_while_the_disk_is_short_of_room() {
    let fs = MemFs::new();
    let node = small_segments(&fs, DiskReserve::Size(ByteSize(1 << 20)));
    let handle = node.lead(1).await;
    overwrite(&node, 400).await;
    node.space.denied();
    let compacting = Compacting::start(&node, always(), 1 << 40);
    let short = async {
        while node.space.room().is_short() {
            assert_eq!(compacting.stats.passes(), 0);
            node.space.denied();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(Duration::from_millis(500), short).await.is_err(), "it is short all the time");
    node.space.granted();
    until(&handle, "it goes on by itself", |status| status.cleaned_by_all > Offset(300)).await;
    compacting.end().await;
    node.kill().await;
}

/// What is damaged is not cleaned over: the repair is told, and nothing in front of it or behind is taken for the last of its key.
#[tokio::test(flavor = "multi_thread")]
async fn damage_in_the_way_of_a_pass_is_for_the_repair() {
    let fs = MemFs::new();
    let node = small_segments(&fs, DiskReserve::Auto);
    let handle = node.lead(1).await;
    overwrite(&node, 400).await;
    flip(&fs, 5);
    let compacting = Compacting::start(&node, always(), 1 << 40);
    eventually("the repair knows of it", || node.repairs.damaged() == 1).await;
    assert_eq!(compacting.stats.removed_records(), 0);
    assert!(!handle.status.borrow().failed, "the others can still give what is missing");
    // Nobody gives it: passes go on to come to nothing, and an orderly end does not wait for one.
    compacting.end().await;
    node.kill().await;
}
