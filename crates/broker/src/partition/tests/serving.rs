//! What clients get of a node: its services over its shard.

use holdfast_core::replication::Message;
use holdfast_core::{DirId, ErrorCode, ZoneId};
use holdfast_proto::ApiError;
use holdfast_proto::transport::{Link, Listener, server};
use holdfast_proto::v1::fetch_service_server::{FetchService, FetchServiceServer};
use holdfast_proto::v1::produce_service_server::ProduceService;
use holdfast_proto::v1::{AppendRequest, FetchRequest, RecordFormat, Routing};
use tokio::time::Instant;
use tonic::Request;

use super::peer::{ABSENT, PEER, Peer, fetch, map, position};
use super::*;
use crate::compaction::CompactionStats;
use crate::config::BrokerConfig;
use crate::controllers::Controllers;
use crate::metadata::MapHolder;
use crate::producer_ids::ProducerIds;
use crate::service::{
    Channels, FetchApi, KEYS_ROOM, PEER_ROOM, ProduceApi, REPAIR_ROOM, Room, ServiceContext, fetch_here,
};

/// Room for fetches: the least that there may be.
const FETCH_ROOM: usize = 32 << 20;

impl Node {
    /// What the services of this node work with; `shards` in place of its own where given.
    pub(super) fn service(&self, map: ClusterMap, shards: Option<ShardSender>) -> Arc<ServiceContext> {
        let address = || "127.0.0.1:1".to_owned();
        let (zone, folder) = (ZoneId::new("z1"), "/data".into());
        let config = BrokerConfig::new(self.me.broker, zone, folder, address(), address(), Vec::new());
        self.service_as(self.me.broker, config, map, shards)
    }

    fn service_as(
        &self,
        broker: BrokerId,
        config: BrokerConfig,
        map: ClusterMap,
        shards: Option<ShardSender>,
    ) -> Arc<ServiceContext> {
        let controllers = Controllers::new(&[], None).unwrap();
        let dir = Arc::new(DataDir::in_memory(Arc::new(MemFs::new()), "boot 1").unwrap());
        let elsewhere = broker != self.me.broker;
        Arc::new(ServiceContext {
            cluster: "test".to_owned(),
            broker,
            zone: config.zone.clone(),
            clock: Clock::new(),
            map: MapHolder::of(map),
            partitions: if elsewhere { Partitions::default() } else { self.partitions.clone() },
            shards: ShardSenders::new(vec![shards.unwrap_or_else(|| self.shard.clone())]),
            space: self.space.clone(),
            controllers: controllers.clone(),
            tls: None,
            produce_room: Arc::new(Semaphore::new(config.max_inflight_produce.0 as usize)),
            keys_room: Room::new(KEYS_ROOM),
            fetch_room: Room::new(FETCH_ROOM as u64),
            peer_room: Arc::new(Semaphore::new(PEER_ROOM)),
            repair_room: Room::new(REPAIR_ROOM),
            repairs: self.repairs.clone(),
            compaction_stats: CompactionStats::default(),
            channels: Channels::default(),
            producer_ids: Arc::new(ProducerIds::load(dir, controllers)),
            ending: CancellationToken::new(),
            config,
        })
    }
}

pub(super) fn fetch_request(offset: u64) -> FetchRequest {
    FetchRequest { topic: "t".to_owned(), offset, max_wait_ms: 10, ..FetchRequest::default() }
}

/// A consumer is told that what it asks for cannot be read here, and where nobody has it that it may be had later. The rest of
/// the log is served.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_is_told_of_what_cannot_be_read() {
    let fs = MemFs::new();
    let node = Node::start(Arc::new(fs.clone()));
    let handle = node.lead(1).await;
    answer(node.produce("kept").await).await.unwrap();
    let api = FetchApi { context: node.service(map(node.me, "127.0.0.1:1"), None) };
    // As plain records, which are always read from the disk.
    let fetch_request =
        |offset| FetchRequest { format: RecordFormat::Records.into(), ..fetch_request(offset) };
    let fetched = api.fetch(Request::new(fetch_request(0))).await.unwrap().into_inner();
    assert!(!fetched.records.is_empty());
    fs.inject(Fault { kind: Some(OperationKind::Read), after: 0, lasting: true });
    let refused = api.fetch(Request::new(fetch_request(0))).await.unwrap_err();
    let refused = ApiError::from_status(&refused);
    assert_eq!(refused.code, ErrorCode::StorageFailed);
    assert!(refused.retry_after.is_some());
    fs.clear_faults();
    let fetched = api.fetch(Request::new(fetch_request(0))).await.unwrap().into_inner();
    assert!(!fetched.records.is_empty() && !handle.status.borrow().failed);
    node.kill().await;
}

/// A replica that is deleted while it is read from is no failed disk of the one that comes after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_fails_for_a_deletion_is_no_storage_failure() {
    let fs = MemFs::new();
    let node = Node::start(Arc::new(fs.clone()));
    let first = node.lead(1).await;
    answer(node.produce("kept").await).await.unwrap();
    // Whoever reads has the first replica still when it is gone and the second one is there.
    node.shard.send(Command::DeleteReplica(PARTITION, Term(1))).await.unwrap();
    let second = async {
        while node.partitions.get(PARTITION).is_some() {
            tokio::task::yield_now().await;
        }
        node.lead(2).await
    };
    let second = timeout(LONG, second).await.unwrap();
    fs.inject(Fault { kind: Some(OperationKind::Read), after: 0, lasting: false });
    let context = node.service(map(node.me, "127.0.0.1:1"), None);
    let soon = Instant::now() + LONG;
    let request = FetchRequest { format: RecordFormat::Records.into(), ..fetch_request(0) };
    let refused = fetch_here(&context, PARTITION, first, &request, soon).await;
    assert_eq!(refused.unwrap_err().code, ErrorCode::LeaderUnavailable);
    answer(node.produce("of the second").await).await.unwrap();
    assert!(!second.status.borrow().failed);
    node.kill().await;
}

/// Clients that give up early do not make room for more while the disk hangs: the batches are still in memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_waits_for_its_shard_holds_its_room_when_nobody_waits_for_it() {
    let node = Node::start(Arc::new(MemFs::new()));
    node.lead(1).await;
    let (hanging, mut queue) = shard_queue();
    let context = node.service(map(node.me, "127.0.0.1:1"), Some(hanging));
    let all = context.produce_room.available_permits();
    let request = AppendRequest {
        topic: "t".to_owned(),
        routing: Routing::Redirect.into(),
        timeout_ms: 1,
        batch: batch("waits").bytes().clone(),
        ..AppendRequest::default()
    };
    let api = ProduceApi::new(Arc::clone(&context));
    let given_up = api.append(Request::new(request)).await.unwrap_err();
    assert_eq!(ApiError::from_status(&given_up).code, ErrorCode::DeadlineExceeded);
    assert!(context.produce_room.available_permits() < all, "the batch still waits for the shard");
    drop(queue.recv().await);
    assert_eq!(context.produce_room.available_permits(), all);
    node.kill().await;
}

/// Whoever reads at the end of a log gets what its leader just appended, consumers and followers alike, and needs no disk.
#[tokio::test(flavor = "multi_thread")]
async fn the_newest_batches_are_served_from_memory() {
    let fs = MemFs::new();
    let mut peer = Peer::start().await;
    let me = ReplicaId { broker: BrokerId(1), dir: DirId(1) };
    let node = Node::start_among(Arc::new(fs.clone()), map(me, &peer.endpoint));
    node.newest.allow(1 << 20);
    let handle = node.assign(node.together(1, node.me)).await;
    let asks = |message: &Message| matches!(message, Message::Fence { .. }).then_some(());
    peer.hears("the fence", asks).await;
    node.receive(ABSENT, 1, Message::FenceOk { position: position(1, 0), voter: true }).await;
    until(&handle, "it leads", |status| status.active).await;
    fs.inject(Fault { kind: Some(OperationKind::Read), after: 0, lasting: true });
    let sent = |message: &Message| match message {
        Message::Data { batches, .. } => Some(batches.len()),
        _ => None,
    };
    let told = async {
        loop {
            node.receive(PEER, 1, fetch(position(1, 0))).await;
            if let Ok(batches) = timeout(Duration::from_millis(200), peer.hears("data", sent)).await {
                return batches;
            }
        }
    };
    assert_eq!(timeout(LONG, told).await.expect("data in the end"), 1, "the marker, for a follower");
    node.receive(PEER, 1, fetch(position(1, 1))).await;
    until(&handle, "its marker is committed", |status| status.settled).await;
    let api = FetchApi { context: node.service(map(node.me, "127.0.0.1:1"), None) };
    let fetched = api.fetch(Request::new(fetch_request(0))).await.unwrap().into_inner();
    assert!(!fetched.batches.is_empty() && fetched.next_offset == 1, "the same for a consumer");
    node.kill().await;
}

/// A thousand followers that lag are not read for all at once.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_for_other_replicas_waits_for_room() {
    let mut peer = Peer::start().await;
    let me = ReplicaId { broker: BrokerId(1), dir: DirId(1) };
    let node = Node::start_among(Arc::new(MemFs::new()), map(me, &peer.endpoint));
    let handle = node.assign(node.together(1, node.me)).await;
    let asks = |message: &Message| matches!(message, Message::Fence { .. }).then_some(());
    peer.hears("the fence", asks).await;
    node.receive(ABSENT, 1, Message::FenceOk { position: position(1, 0), voter: true }).await;
    until(&handle, "it leads", |status| status.active).await;
    let others = Arc::clone(&node.read_room).try_acquire_many_owned(READ_ROOM as u32).unwrap();
    node.receive(PEER, 1, fetch(position(1, 0))).await;
    let sent = |message: &Message| match message {
        Message::Data { batches, .. } => Some(batches.len()),
        _ => None,
    };
    let early = timeout(Duration::from_millis(100), peer.hears("data", sent)).await;
    assert!(early.is_err(), "read without room");
    drop(others);
    // Asked again, as followers do: what came before the stream was open is forgotten when it is.
    let told = async {
        loop {
            node.receive(PEER, 1, fetch(position(1, 0))).await;
            if let Ok(batches) = timeout(Duration::from_millis(200), peer.hears("data", sent)).await {
                return batches;
            }
        }
    };
    assert_eq!(timeout(LONG, told).await.expect("data in the end"), 1);
    until_given_back(&node.read_room).await;
    node.kill().await;
}

async fn until_given_back(room: &Arc<Semaphore>) {
    let all = Arc::clone(room).acquire_many_owned(READ_ROOM as u32);
    drop(timeout(LONG, all).await.expect("the room is given back"));
}

/// A fetch that was sent to another broker than the leader: answered as by the leader, within the room of both.
#[tokio::test(flavor = "multi_thread")]
async fn a_forwarded_fetch_waits_for_room_before_its_answer_is_taken() {
    let node = Node::start(Arc::new(MemFs::new()));
    node.lead(1).await;
    answer(node.produce("kept").await).await.unwrap();
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let leads_here = super::peer::map_led_at(node.me, &endpoint);
    let leader = FetchApi { context: node.service(leads_here.clone(), None) };
    let incoming = listener.incoming(None).unwrap();
    let serving = server(Link::Peer).add_service(FetchServiceServer::new(leader));
    tokio::spawn(serving.serve_with_incoming(incoming));

    let config = node.service(leads_here.clone(), None).config.clone();
    let context = node.service_as(PEER.broker, config, leads_here, None);
    let api = FetchApi { context: Arc::clone(&context) };
    let fetched = api.fetch(Request::new(fetch_request(0))).await.unwrap().into_inner();
    assert!(!fetched.batches.is_empty() && fetched.high_watermark == 2);
    let beyond = api.fetch(Request::new(fetch_request(99))).await.unwrap_err();
    let beyond = ApiError::from_status(&beyond);
    assert_eq!((beyond.code, beyond.detail("high_watermark")), (ErrorCode::OffsetOutOfRange, Some("2")));
    let soon = Instant::now() + LONG;
    let all = context.fetch_room.take(FETCH_ROOM, soon).await.unwrap();
    let refused = api.fetch(Request::new(fetch_request(0))).await.unwrap_err();
    assert_eq!(ApiError::from_status(&refused).code, ErrorCode::Overloaded);
    drop(all);
    api.fetch(Request::new(fetch_request(0))).await.unwrap();
    node.kill().await;
}
