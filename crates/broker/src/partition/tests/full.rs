//! A disk that is full, or nearly: what is refused, what waits, what goes on, and that it ends by itself.

use std::path::Path;

use holdfast_core::record_batch::ProducerRef;
use holdfast_core::replication::Message;
use holdfast_core::{DirId, ErrorCode, LeaderEpoch, ProducerId};
use holdfast_log::ByteSize;
use holdfast_proto::ApiError;
use holdfast_proto::v1::produce_service_server::ProduceService;
use holdfast_proto::v1::{AppendRequest, Routing};
use tonic::Request;

use super::disk::{follower_as, follower_with};
use super::peer::{PEER, map_led_at, position};
use super::*;
use crate::disk_space::Room;
use crate::service::ProduceApi;

/// Far more than what a test writes; a quarter of it, too.
const RESERVE: u64 = 400_000;
/// Nothing is kept in reserve: the disk says itself that it is full.
const NONE: DiskReserve = DiskReserve::Size(ByteSize(0));

fn some() -> DiskReserve {
    DiskReserve::Size(ByteSize(RESERVE))
}

/// So many bytes fit from now on.
fn leave(fs: &MemFs, bytes: u64) {
    fs.set_capacity(Some(fs.used() + bytes));
}

fn is_full(answer: &Result<Acknowledged, ProduceError>) -> bool {
    matches!(answer, Err(ProduceError::DiskFull { .. }))
}

impl Node {
    /// Waits until the watch of the disk has seen it.
    async fn sees(&self, what: impl FnMut(&Room) -> bool) {
        let mut room = self.space.subscribe();
        self.space.look();
        timeout(LONG, room.wait_for(what)).await.expect("it is seen").unwrap();
    }

    async fn produce_batch(&self, batch: RecordBatch) -> Result<Acknowledged, ProduceError> {
        let (reply, told) = oneshot::channel();
        let room = Arc::new(Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap());
        let command = Command::Produce { partition: PARTITION, batch, reply, _room: room };
        self.shard.send(command).await.unwrap();
        answer(told).await
    }
}

/// A batch of an idempotent producer.
fn numbered(base_sequence: i32) -> RecordBatch {
    let mut builder = RecordBatchBuilder::new();
    builder.push(0, None, Some(b"numbered"), &[]).unwrap();
    builder.build(Some(ProducerRef { id: ProducerId(5), epoch: 0, base_sequence })).unwrap()
}

/// Nothing of a client is appended, and everything else goes on: reading, what needs no room, promises, another leadership.
#[tokio::test(flavor = "multi_thread")]
async fn below_the_reserve_records_are_refused_until_there_is_room() {
    let fs = MemFs::new();
    let node = Node::start_with(Arc::new(fs.clone()), ClusterMap::default(), some());
    let handle = node.lead(1).await;
    let kept = node.produce_batch(numbered(0)).await.unwrap();
    leave(&fs, RESERVE / 2);
    node.sees(Room::is_short).await;
    let end = handle.reader.log_end_offset();
    let refused = node.produce_batch(numbered(1)).await;
    let Err(ProduceError::DiskFull { free, reserve: RESERVE }) = refused else { panic!("{refused:?}") };
    assert!(free <= RESERVE / 2);
    assert!(is_full(&node.produce_batch(batch("without a producer")).await));
    // What belongs behind it does not end the producer's session.
    assert!(is_full(&node.produce_batch(numbered(2)).await));
    assert_eq!(handle.reader.log_end_offset(), end);
    let again = node.produce_batch(numbered(0)).await.unwrap();
    assert_eq!((again.base_offset, again.duplicate), (kept.base_offset, true));
    assert!(!handle.reader.read(Offset::ZERO, end, 1 << 20).unwrap().is_empty());
    let handle = node.assign(node.alone(2)).await;
    until(&handle, "it leads again", |status| status.settled && status.epoch.term == Term(2)).await;
    assert!(is_full(&node.produce_batch(numbered(1)).await));
    fs.set_capacity(None);
    node.sees(|room| !room.is_short()).await;
    assert!(!node.produce_batch(numbered(1)).await.unwrap().duplicate);
    node.kill().await;
}

/// Whoever asks hears what, why, and what to do; and that nothing happened.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_told_whose_disk_is_full() {
    let fs = MemFs::new();
    let node = Node::start_with(Arc::new(fs.clone()), ClusterMap::default(), some());
    node.lead(1).await;
    leave(&fs, 0);
    node.sees(Room::is_short).await;
    let context = node.service(map_led_at(node.me, "127.0.0.1:1"), None);
    let request = AppendRequest {
        topic: "t".to_owned(),
        routing: Routing::Redirect.into(),
        batch: batch("refused").bytes().clone(),
        ..AppendRequest::default()
    };
    let refused = ProduceApi::new(context).append(Request::new(request)).await.unwrap_err();
    let refused = ApiError::from_status(&refused);
    assert_eq!(refused.code, ErrorCode::DiskFull);
    assert!(refused.code.is_retriable() && !refused.code.is_indefinite() && refused.retry_after.is_some());
    assert_eq!(refused.message.lines().count(), 3, "{}", refused.message);
    assert!(refused.message.contains("broker 1") && refused.detail("broker") == Some("1"));
    node.kill().await;
}

/// Somebody else filled the disk. What was taken waits, and is acknowledged once it is written; the rest is refused at
/// once.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_finds_no_room_stands_still_and_goes_on_by_itself() {
    for room in [0, 1, 30, 60] {
        let fs = MemFs::new();
        let node = Node::start_with(Arc::new(fs.clone()), ClusterMap::default(), NONE);
        let handle = node.lead(1).await;
        answer(node.produce("kept").await).await.unwrap();
        leave(&fs, room);
        let mut waits = node.produce("waits for room").await;
        node.sees(Room::is_short).await;
        for _ in 0..3 {
            assert!(is_full(&answer(node.produce("refused").await).await), "room for {room} bytes");
        }
        assert!(waits.try_recv().is_err(), "acknowledged, and not written");
        let end = handle.readable_end();
        assert_eq!((end, handle.reader.log_end_offset()), (Offset(2), Offset(2)));
        assert!(!handle.reader.read(Offset::ZERO, end, 1 << 20).unwrap().is_empty());
        fs.set_capacity(None);
        assert_eq!(answer(waits).await.unwrap().base_offset, Offset(2));
        assert_eq!(answer(node.produce("taken again").await).await.unwrap().base_offset, Offset(3));
        assert!(!handle.status.borrow().failed);
        timeout(LONG, node.close().await).await.unwrap().unwrap();
        node.kill().await;
    }
}

/// What it had not written it never had: the next run finds what was acknowledged, in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_may_end_while_a_replica_waits_for_room() {
    for orderly in [true, false] {
        let fs = MemFs::new();
        let node = Node::start_with(Arc::new(fs.clone()), ClusterMap::default(), NONE);
        node.lead(1).await;
        answer(node.produce("kept").await).await.unwrap();
        leave(&fs, 30);
        let waits = node.produce("waits for room").await;
        node.sees(Room::is_short).await;
        assert!(is_full(&answer(node.produce("refused").await).await));
        if orderly {
            timeout(LONG, node.close().await).await.unwrap().expect("all that it holds is flushed");
        }
        node.kill().await;
        assert!(waits.await.is_err(), "never acknowledged");
        fs.crash_keeping(7);
        fs.set_capacity(None);
        let node = Node::start(Arc::new(fs));
        assert!(!node.stored_nonvoter, "a full disk takes nothing from anybody");
        let handle = node.lead(2).await;
        assert_eq!(handle.reader.log_end_offset(), Offset(3), "two markers and a batch");
        node.kill().await;
    }
}

/// It is as slow as a process that is paused: what it is told meanwhile is lost on its way, and its leader says it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_finds_no_room_acknowledges_when_it_has_written() {
    let fs = MemFs::new();
    let (node, mut peer, handle) = follower_with(&fs, NONE).await;
    leave(&fs, 30);
    node.is_sent(1, position(1, 1), Some("waits for room")).await;
    node.sees(Room::is_short).await;
    // Of a later term; it is lost.
    node.receive(PEER, 2, Message::Fence { set: node.together(2, PEER).set, prev: None }).await;
    let elsewhere = answer(node.produce("not here").await).await;
    assert!(matches!(elsewhere, Err(ProduceError::NotLeader { .. })), "{elsewhere:?}");
    let acknowledged = peer.acknowledged();
    assert!(acknowledged.iter().all(|&(end, _)| end <= Offset(1)), "{acknowledged:?}");
    fs.set_capacity(None);
    peer.hears_of_flushed(2).await;
    assert!(!handle.status.borrow().failed);
    node.receive(PEER, 2, Message::Fence { set: node.together(2, PEER).set, prev: None }).await;
    let votes = |message: &Message| match message {
        Message::FenceOk { position, voter } => Some((position.end, *voter)),
        _ => None,
    };
    assert_eq!(peer.hears("its vote", votes).await, (Offset(2), true));
    node.kill().await;
}

/// Some of what came together has room in the segment, and the next one cannot be begun: each batch is written once.
#[tokio::test(flavor = "multi_thread")]
async fn what_had_room_is_not_written_again() {
    let fs = MemFs::new();
    let log = LogConfig { segment_size: ByteSize(1000), ..LogConfig::default() };
    let (node, mut peer, handle) = follower_as(&fs, NONE, log).await;
    let epoch = LeaderEpoch::first(Term(1));
    let batches: Vec<RecordBatch> =
        (1..4).map(|offset| batch(&"x".repeat(300)).stamped(Offset(offset), epoch)).collect();
    leave(&fs, batches[..2].iter().map(|batch| batch.bytes().len() as u64).sum());
    let data = Message::Data {
        echo: position(1, 1),
        batches,
        high_watermark: Offset::ZERO,
        durable_high_watermark: Offset::ZERO,
        log_start_offset: Offset::ZERO,
        tombstones_gone_below: Offset::ZERO,
        log_end_offset: Offset(4),
        incarnation: None,
    };
    node.receive(PEER, 1, data).await;
    node.sees(Room::is_short).await;
    assert_eq!(handle.reader.log_end_offset(), Offset(3), "two had room");
    fs.set_capacity(None);
    peer.hears_of_flushed(4).await;
    assert!(!handle.status.borrow().failed);
    node.kill().await;
}

/// The register that it was told meanwhile counts from then on, and clients go there at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_waits_for_room_hears_of_its_successor_afterwards() {
    let fs = MemFs::new();
    let node = Node::start_with(Arc::new(fs.clone()), ClusterMap::default(), NONE);
    let handle = node.lead(1).await;
    leave(&fs, 30);
    let waits = node.produce("waits for room").await;
    node.sees(Room::is_short).await;
    assert!(is_full(&answer(node.produce("refused").await).await));
    for term in [2, 3] {
        node.assign(node.together(term, PEER)).await;
    }
    let elsewhere = answer(node.produce("not here").await).await;
    assert!(matches!(elsewhere, Err(ProduceError::NotLeader { .. })), "{elsewhere:?}");
    let status = handle.status.borrow().clone();
    assert_eq!((status.active, status.leader), (false, Some(PEER)));
    fs.set_capacity(None);
    assert_eq!(answer(waits).await, Err(ProduceError::LeaderLost));
    assert_eq!(handle.reader.log_end_offset(), Offset(2), "what was taken stays in the log, once");
    node.kill().await;
}

/// The flush of what came before fails while it waits: it is out of service, and whoever waits hears so.
#[tokio::test(flavor = "multi_thread")]
async fn a_flush_that_fails_ends_the_wait_for_room() {
    let fs = MemFs::new();
    let gated = GatedFs::new(fs.clone());
    let node = Node::start_with(Arc::new(gated.clone()), ClusterMap::default(), NONE);
    let handle = node.lead(1).await;
    gated.shut();
    let flushing = node.produce("is being flushed").await;
    let hanging = gated.clone();
    tokio::task::spawn_blocking(move || hanging.wait_until_one_hangs(LONG)).await.unwrap();
    leave(&fs, 30);
    let waits = node.produce("waits for room").await;
    node.sees(Room::is_short).await;
    assert!(is_full(&answer(node.produce("refused").await).await));
    fs.inject(Fault { kind: Some(OperationKind::SyncData), after: 0, lasting: false });
    gated.open();
    assert_eq!(answer(flushing).await, Err(ProduceError::StorageFailed));
    assert_eq!(answer(waits).await, Err(ProduceError::StorageFailed));
    until(&handle, "it leaves", |status| status.failed).await;
    fs.set_capacity(None);
    node.asks_for_a_successor().await;
    node.kill().await;
}

/// The last of the reserve is for promises: it votes, and takes no records that it would have no room to flush and note.
#[tokio::test(flavor = "multi_thread")]
async fn on_the_last_of_its_reserve_a_follower_votes_and_takes_nothing() {
    let fs = MemFs::new();
    let (node, mut peer, handle) = follower_with(&fs, some()).await;
    leave(&fs, RESERVE / 2);
    node.sees(Room::is_short).await;
    node.is_sent(1, position(1, 1), Some("taken by a leader")).await;
    peer.hears_of_flushed(2).await;
    leave(&fs, RESERVE / 8);
    node.sees(|room| !room.takes_replicas()).await;
    node.is_sent(1, position(1, 2), Some("no more")).await;
    node.receive(PEER, 2, Message::Fence { set: node.together(2, PEER).set, prev: None }).await;
    let votes = |message: &Message| match message {
        Message::FenceOk { position, .. } => Some(position.end),
        _ => None,
    };
    assert_eq!(peer.hears("its vote", votes).await, Offset(2));
    node.is_led(2).await;
    until(&handle, "it follows", |status| status.leader == Some(PEER) && status.epoch.term == Term(2)).await;
    fs.set_capacity(None);
    node.sees(Room::takes_replicas).await;
    let asks = |message: &Message| matches!(message, Message::Fetch { restart: true, .. }).then_some(());
    peer.hears("it asks for what it lacks", asks).await;
    node.is_sent(2, position(1, 2), Some("now")).await;
    peer.hears_of_flushed(3).await;
    node.kill().await;
}

/// Neither does the process end, nor does anybody hear of a leadership that is not on disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_promise_waits_for_room() {
    let fs = MemFs::new();
    let node = Node::start_with(Arc::new(fs.clone()), ClusterMap::default(), NONE);
    node.lead(1).await;
    leave(&fs, 10);
    let before = fs.operations();
    let handle = node.assign(node.alone(2)).await;
    let tried = async {
        while fs.operations() == before {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, tried).await.expect("it is tried");
    let mut early = node.produce("of a leadership that is not there yet").await;
    assert!(node.reports.since(0).0.iter().all(|(report, _)| report.term == Term(1)));
    assert!(timeout(Duration::ZERO, node.fatal.wait()).await.is_err(), "the process goes on");
    assert!(early.try_recv().is_err(), "nobody hears of it");
    fs.set_capacity(None);
    until(&handle, "it leads", |status| status.settled && status.epoch.term == Term(2)).await;
    answer(node.produce("taken").await).await.unwrap();
    node.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_cannot_be_made_for_want_of_room_is_made_later() {
    let fs = MemFs::new();
    let node = Node::start_with(Arc::new(fs.clone()), ClusterMap::default(), NONE);
    leave(&fs, 0);
    let command = |term| {
        let (durability, assignment) = (Durability::Disk, node.alone(term));
        Command::Assign { partition: PARTITION, durability, assignment }
    };
    node.shard.send(command(1)).await.unwrap();
    let nowhere = answer(node.produce("nowhere").await).await;
    assert_eq!(nowhere, Err(ProduceError::NotLeader { leader: None }));
    // One that is not to be made any more is forgotten.
    node.shard.send(Command::DeleteReplica(PARTITION, Term(1))).await.unwrap();
    node.shard.send(command(4)).await.unwrap();
    answer(node.produce("nowhere").await).await.unwrap_err();
    fs.set_capacity(None);
    let opened = async {
        while node.partitions.get(PARTITION).is_none() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, opened).await.expect("it is made");
    let handle = node.partitions.get(PARTITION).unwrap();
    until(&handle, "it leads", |status| status.settled && status.epoch.term == Term(4)).await;
    node.kill().await;
}

/// What a start would build to find records faster can wait; what it reads is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_opened_on_a_full_disk() {
    let fs = MemFs::new();
    let node = Node::start(Arc::new(fs.clone()));
    node.lead(1).await;
    answer(node.produce("kept").await).await.unwrap();
    node.kill().await;
    fs.crash();
    // The note that a run began takes the place of the one before.
    leave(&fs, 200);
    let me = ReplicaId { broker: BrokerId(1), dir: DirId(1) };
    let node = Node::start_with(Arc::new(fs.clone()), map_led_at(me, "127.0.0.1:1"), NONE);
    fs.set_capacity(Some(fs.used()));
    let handle = node.assign(node.together(1, PEER)).await;
    assert_eq!(handle.reader.log_end_offset(), Offset(2));
    assert!(fs.exists(Path::new("/data/partitions")).unwrap());
    node.kill().await;
}
