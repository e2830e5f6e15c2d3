//! What the disk lost comes from another broker: before it is served, before the log is opened, and while nobody asks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use holdfast_core::metadata::TopicSpec;
use holdfast_core::record_batch::BatchHeader;
use holdfast_core::replication::Message;
use holdfast_core::{DirId, ErrorCode, LeaderEpoch};
use holdfast_log::{Damage, File, LogError, OpenMode, Recovery, ReplicaLogError};
use holdfast_proto::ApiError;
use holdfast_proto::internal::v1::repair_service_server::{RepairService, RepairServiceServer};
use holdfast_proto::internal::v1::{BatchesMissing, FetchBatchesRequest, FetchBatchesResponse};
use holdfast_proto::transport::{Link, Listener, server};
use holdfast_proto::v1::fetch_service_server::FetchService;
use holdfast_proto::v1::list_offset_request::At;
use holdfast_proto::v1::offset_service_server::OffsetService;
use holdfast_proto::v1::{FetchRequest, ListOffsetRequest};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::peer::{ABSENT, PEER, Peer, fetch, map_of, map_with, position};
use super::serving::fetch_request;
use super::*;
use crate::repair::{Damaged, Outcome, scrub};
use crate::service::{FetchApi, RepairApi};

const NOBODY: &str = "127.0.0.1:1";
/// Batches in the log of a test, each of one record, behind a marker.
const BATCHES: u64 = 6;

fn folder() -> PathBuf {
    Path::new("/data/partitions").join(PARTITION.to_string())
}

fn segment() -> PathBuf {
    folder().join("00000000000000000000.log")
}

fn open(fs: &MemFs, path: &Path) -> Arc<dyn File> {
    fs.open(path, OpenMode::Existing).unwrap()
}

fn content(fs: &MemFs, path: &Path) -> Vec<u8> {
    let file = open(fs, path);
    file.read_bytes(0, file.len().unwrap() as usize).unwrap().to_vec()
}

/// First byte and end of the batch at that offset.
fn place(fs: &MemFs, offset: u64) -> (u64, u64) {
    let (bytes, mut at) = (content(fs, &segment()), 0);
    loop {
        let header = BatchHeader::decode(&bytes[at..]).unwrap();
        let end = at + header.length as usize;
        if header.base_offset == Offset(offset) {
            return (at as u64, end as u64);
        }
        at = end;
    }
}

/// Turns a bit in the records of the batch at that offset.
pub(super) fn flip(fs: &MemFs, offset: u64) {
    let (_, end) = place(fs, offset);
    let file = open(fs, &segment());
    let byte = file.read_bytes(end - 3, 1).unwrap()[0];
    file.write_all_at(&[&[byte ^ 0x10]], end - 3).unwrap();
    file.sync_data().unwrap();
}

/// The files of a broker that does not run.
fn copy(fs: &MemFs) -> MemFs {
    let copy = MemFs::new();
    copy.create_dir_all(&folder()).unwrap();
    let files = ["broker.json", "run.json", "replica-state"].map(|name| Path::new("/data").join(name));
    let logs = fs.list(&folder()).unwrap().into_iter().map(|name| folder().join(name));
    for path in files.into_iter().chain(logs) {
        let file = copy.open(&path, OpenMode::CreateNew).unwrap();
        file.write_all_at(&[&content(fs, &path)], 0).unwrap();
        file.sync_data().unwrap();
    }
    for dir in [Path::new("/"), Path::new("/data"), Path::new("/data/partitions"), &folder()] {
        copy.sync_dir(dir).unwrap();
    }
    copy
}

/// A broker that was stopped, with [`BATCHES`] batches of which all is known to be committed.
async fn stopped() -> MemFs {
    let fs = MemFs::new();
    let node = Node::start(Arc::new(fs.clone()));
    node.lead(1).await;
    for number in 0..BATCHES {
        answer(node.produce(&format!("value {number}, and so that it is not too short")).await)
            .await
            .unwrap();
    }
    timeout(LONG, node.close().await).await.unwrap().unwrap();
    node.kill().await;
    fs
}

/// Another broker that gives what it has. It listens as long as the test runs.
async fn donor(node: &Node) -> String {
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let service = RepairServiceServer::new(RepairApi { context: node.service(ClusterMap::default(), None) });
    let incoming = listener.incoming(None).unwrap();
    tokio::spawn(server(Link::Peer).add_service(service).serve_with_incoming(incoming));
    endpoint
}

/// The same of one that counts how often it is asked.
async fn counting_donor(node: &Node, asked: watch::Sender<u32>) -> String {
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let api = RepairApi { context: node.service(ClusterMap::default(), None) };
    let service = RepairServiceServer::new(Counting { api, asked });
    let incoming = listener.incoming(None).unwrap();
    tokio::spawn(server(Link::Peer).add_service(service).serve_with_incoming(incoming));
    endpoint
}

struct Counting {
    api: RepairApi,
    asked: watch::Sender<u32>,
}

#[tonic::async_trait]
impl RepairService for Counting {
    async fn fetch_batches(
        &self,
        request: Request<FetchBatchesRequest>,
    ) -> Result<Response<FetchBatchesResponse>, Status> {
        self.asked.send_modify(|times| *times += 1);
        self.api.fetch_batches(request).await
    }
}

/// The map of three brokers, of which the second and the third listen there.
fn among(second: &str, third: &str) -> ClusterMap {
    let me = ReplicaId { broker: BrokerId(1), dir: DirId(1) };
    map_of([(me, NOBODY), (PEER, second), (ABSENT, third)])
}

impl Node {
    /// What a consumer gets from that offset on.
    async fn consumed(&self, offset: u64) -> Result<Vec<RecordBatch>, ApiError> {
        let api = FetchApi { context: self.service(among(NOBODY, NOBODY), None) };
        let request = FetchRequest { max_bytes: 1, ..fetch_request(offset) };
        let fetched =
            api.fetch(Request::new(request)).await.map_err(|status| ApiError::from_status(&status))?;
        Ok(RecordBatch::split(fetched.into_inner().batches).unwrap())
    }

    async fn assert_serves(&self, whole: &[u8]) {
        let all = RecordBatch::split(whole.to_vec().into()).unwrap();
        for batch in &all {
            let offset = batch.header().base_offset.0;
            // Where a repair takes longer than a consumer is made to wait, it is told to ask again.
            let asked = async {
                loop {
                    match self.consumed(offset).await {
                        Err(error) if error.retry_after.is_some() => tokio::task::yield_now().await,
                        answered => break answered,
                    }
                }
            };
            let served = timeout(LONG, asked).await.expect("it is repaired").unwrap();
            assert_eq!(served, std::slice::from_ref(batch));
        }
    }
}

/// Two brokers with the same log, of which the second gives what the first one lacks.
async fn pair() -> (MemFs, Node, Node) {
    let fs = stopped().await;
    let other = Node::start(Arc::new(copy(&fs)));
    other.lead(2).await;
    let node = Node::start_among(Arc::new(fs.clone()), among(NOBODY, &donor(&other).await));
    node.lead(2).await;
    (fs, node, other)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_is_served_what_another_broker_still_holds() {
    let (fs, node, other) = pair().await;
    let whole = content(&fs, &segment());
    for offset in [1, 3, 4, BATCHES] {
        flip(&fs, offset);
    }
    assert_ne!(content(&fs, &segment()), whole);
    node.assert_serves(&whole).await;
    assert_eq!(content(&fs, &segment()), whole);
    // A sector that the disk does not give is written anew.
    let (first, end) = place(&fs, 2);
    fs.spoil(&segment(), first + 10..end - 10).unwrap();
    node.assert_serves(&whole).await;
    assert_eq!(content(&fs, &segment()), whole);
    let handle = node.partitions.get(PARTITION).unwrap();
    assert!(!handle.status.borrow().failed && handle.status.borrow().active);
    node.kill().await;
    other.kill().await;
}

/// In the log of a broker that does not run, the batches from 2 to 4 have become a filler.
fn compact(fs: &MemFs) {
    let mut batches = RecordBatch::split(content(fs, &segment()).into()).unwrap();
    let first = batches.iter().position(|batch| batch.header().base_offset == Offset(2)).unwrap();
    let epoch = batches[first].header().epoch.unwrap();
    batches.splice(first..first + 3, RecordBatch::filler(Offset(2), Offset(5), epoch));
    // Whatever else is there tells of what was.
    let names = fs.list(&folder()).unwrap();
    names.iter().for_each(|name| fs.remove_file(&folder().join(name)).unwrap());
    let file = fs.open(&segment(), OpenMode::CreateNew).unwrap();
    let buffers: Vec<&[u8]> = batches.iter().map(|batch| &batch.bytes()[..]).collect();
    file.write_all_at(&buffers, 0).unwrap();
    file.sync_data().unwrap();
    fs.sync_dir(&folder()).unwrap();
}

/// What a broker gives that was compacted is of another length: the segment is sealed, and written anew around it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_compacted_broker_holds_takes_the_place_of_what_was_longer() {
    let fs = stopped().await;
    let lean = copy(&fs);
    compact(&lean);
    let other = Node::start(Arc::new(lean));
    other.lead(2).await;
    let node = Node::start_among(Arc::new(fs.clone()), among(NOBODY, &donor(&other).await));
    let handle = node.lead(2).await;
    let before = content(&fs, &segment());
    flip(&fs, 3);
    let served = node.consumed(3).await.unwrap();
    let header = served[0].header();
    assert_eq!((header.base_offset, header.next_offset()), (Offset(3), Offset(4)), "cut to what was damaged");
    assert!(header.is_filler());
    let after = content(&fs, &segment());
    assert!(after.len() < before.len());
    for offset in [1, 2, 4, BATCHES] {
        let (first, end) = place(&fs, offset);
        let bytes = &after[first as usize..end as usize];
        assert!(before.windows(bytes.len()).any(|window| window == bytes), "{offset} is what it was");
        assert_eq!(node.consumed(offset).await.unwrap()[0].bytes(), bytes);
    }
    // Goes on where it was, in another segment.
    answer(node.produce("one more").await).await.unwrap();
    assert!(handle.reader.log_end_offset() > Offset(BATCHES) && !handle.status.borrow().failed);
    node.kill().await;
    other.kill().await;
}

/// Before it may serve: the same of a log that cannot be opened. Where it ended nobody can tell any more, so that it does not vote
/// until it has caught up.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_opened_takes_what_a_compacted_broker_holds() {
    let fs = stopped().await;
    let lean = copy(&fs);
    compact(&lean);
    let other = Node::start(Arc::new(lean));
    other.lead(2).await;
    // A header that is none: opening looks at those.
    let (first, _) = place(&fs, 3);
    open(&fs, &segment()).write_all_at(&[&[0xff; 40]], first).unwrap();
    let names =
        fs.list(&folder()).unwrap().into_iter().filter(|name| !name.to_string_lossy().ends_with(".log"));
    names.for_each(|name| fs.remove_file(&folder().join(name)).unwrap());
    let node = Node::start_among(Arc::new(fs.clone()), among(NOBODY, &donor(&other).await));
    let handle = node.assign(node.together(2, PEER)).await;
    let end = Offset(BATCHES + 1);
    assert_eq!(handle.reader.log_end_offset(), end);
    let batches = handle.reader.read_verified(Offset(3), end, 1 << 20).unwrap().batches;
    let bases: Vec<u64> = batches.iter().map(|batch| batch.header().base_offset.0).collect();
    assert_eq!((bases, batches[0].header().is_filler()), (vec![3, 5, 6], true));
    node.kill().await;
    other.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_gives_is_not_served_and_the_rest_is() {
    let fs = stopped().await;
    let node = Node::start_among(Arc::new(fs.clone()), among(NOBODY, NOBODY));
    let handle = node.lead(2).await;
    flip(&fs, 3);
    let refused = node.consumed(3).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::StorageFailed);
    assert!(refused.code.is_retriable() && refused.retry_after.is_some());
    assert_eq!(node.consumed(4).await.unwrap()[0].header().base_offset, Offset(4));
    assert!(!handle.status.borrow().failed);
    assert_eq!((node.repairs.damaged(), node.repairs.count()), (1, 0));
    node.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_disk_does_not_take_a_repair_leaves() {
    let (fs, node, other) = pair().await;
    let handle = node.partitions.get(PARTITION).unwrap();
    flip(&fs, 3);
    fs.inject(Fault { kind: Some(OperationKind::Write), after: 0, lasting: true });
    assert_eq!(node.consumed(3).await.unwrap_err().code, ErrorCode::StorageFailed);
    until(&handle, "it leaves", |status| status.failed).await;
    node.kill().await;
    other.kill().await;
}

/// A follower is sent what was repaired, and the leader stays.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_for_a_follower_is_repaired_first() {
    let fs = stopped().await;
    let other = Node::start(Arc::new(copy(&fs)));
    other.lead(2).await;
    let mut peer = Peer::start().await;
    let map = among(&peer.endpoint, &donor(&other).await);
    let node = Node::start_among(Arc::new(fs.clone()), map);
    let handle = node.assign(node.together(2, node.me)).await;
    let asks = |message: &Message| matches!(message, Message::Fence { .. }).then_some(());
    peer.hears("the fence", asks).await;
    node.receive(ABSENT, 2, Message::FenceOk { position: position(1, 0), voter: true }).await;
    until(&handle, "it leads", |status| status.active).await;
    flip(&fs, 3);
    let told = async {
        loop {
            node.receive(PEER, 2, fetch(position(1, 3))).await;
            let sent = |message: &Message| match message {
                Message::Data { batches, .. } if !batches.is_empty() => Some(batches[0].clone()),
                _ => None,
            };
            if let Ok(batch) = timeout(Duration::from_millis(500), peer.hears("data", sent)).await {
                return batch;
            }
        }
    };
    let sent = timeout(LONG, told).await.expect("data in the end");
    assert_eq!(sent.header().base_offset, Offset(3));
    assert!(handle.status.borrow().active);
    node.kill().await;
    other.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_reads_is_found_and_repaired() {
    let (fs, node, other) = pair().await;
    let whole = content(&fs, &segment());
    for offset in [1, 2, 5] {
        flip(&fs, offset);
    }
    tokio::spawn(scrub(node.repairs.clone(), 20 << 20, node.fatal.clone()));
    let repaired = async {
        while content(&fs, &segment()) != whole {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, repaired).await.expect("everything is found");
    node.kill().await;
    other.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_opened_is_repaired_and_votes_on() {
    let fs = stopped().await;
    let whole = content(&fs, &segment());
    let other = Node::start(Arc::new(copy(&fs)));
    other.lead(2).await;
    for offset in [0, 2, 3, BATCHES] {
        flip(&fs, offset);
    }
    let node = Node::start_among(Arc::new(fs.clone()), among(NOBODY, &donor(&other).await));
    let handle = node.lead(2).await;
    assert!(content(&fs, &segment()).starts_with(&whole));
    assert_eq!(handle.reader.log_end_offset(), Offset(BATCHES + 2), "with the markers of both terms");
    assert_eq!(fs.list(Path::new("/data/partitions")).unwrap().len(), 1, "nothing is put aside");
    node.kill().await;
    assert!(!Node::start(Arc::new(fs)).stored_nonvoter);
    other.kill().await;
}

/// What was behind the damage is torn as well: more may have been acknowledged than is known.
#[tokio::test(flavor = "multi_thread")]
async fn a_repaired_log_of_which_more_may_be_gone_does_not_vote() {
    let fs = stopped().await;
    let other = Node::start(Arc::new(copy(&fs)));
    other.lead(2).await;
    let (cut, _) = place(&fs, BATCHES - 1);
    let file = open(&fs, &segment());
    file.set_len(cut).unwrap();
    file.sync_data().unwrap();
    let node = Node::start_among(Arc::new(fs.clone()), among(NOBODY, &donor(&other).await));
    let handle = node.assign(node.together(2, PEER)).await;
    assert_eq!(handle.reader.log_end_offset(), Offset(BATCHES + 1));
    node.close().await.await.unwrap();
    node.kill().await;
    assert!(Node::start(Arc::new(fs)).stored_nonvoter);
    other.kill().await;
}

/// The process dies between the repair and the state that says what it found out: the next one sees a log that is whole.
#[tokio::test(flavor = "multi_thread")]
async fn that_more_may_be_gone_is_known_after_a_crash_right_behind_the_repair() {
    let fs = stopped().await;
    let other = Node::start(Arc::new(copy(&fs)));
    other.lead(2).await;
    let (cut, _) = place(&fs, BATCHES - 1);
    let file = open(&fs, &segment());
    file.set_len(cut).unwrap();
    file.sync_data().unwrap();
    let node = Node::start_among(Arc::new(fs.clone()), among(NOBODY, &donor(&other).await));
    let journal = content(&fs, Path::new("/data/replica-state"));
    let handle = node.assign(node.together(2, PEER)).await;
    assert_eq!(handle.reader.log_end_offset(), Offset(BATCHES + 1));
    node.kill().await;
    // It did not come to it.
    let file = open(&fs, Path::new("/data/replica-state"));
    file.set_len(journal.len() as u64).unwrap();
    file.sync_data().unwrap();
    let node = Node::start(Arc::new(fs.clone()));
    assert!(!node.stored_nonvoter && fs.exists(&folder().join("repair")).unwrap());
    let handle = node.assign(node.together(2, PEER)).await;
    assert_eq!(handle.reader.log_end_offset(), Offset(BATCHES + 1));
    // It is noted as long as no state says it.
    let settled = async {
        while fs.exists(&folder().join("repair")).unwrap() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, settled).await.expect("what is on disk need not be noted");
    fs.crash();
    node.kill().await;
    assert!(Node::start(Arc::new(fs)).stored_nonvoter);
    other.kill().await;
}

/// A map that was saved may name those that have left since.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_log_is_not_put_aside_by_the_word_of_an_old_map() {
    let fs = stopped().await;
    let whole = content(&fs, &segment());
    let other = Node::start(Arc::new(copy(&fs)));
    other.lead(2).await;
    let holder = donor(&other).await;
    flip(&fs, 3);
    let left = Node::start(Arc::new(MemFs::new()));
    let (asked, mut times) = watch::channel(0);
    let endpoint = counting_donor(&left, asked).await;
    let (maps, map) = watch::channel(Arc::new(among(&endpoint, &endpoint)));
    let node = Node::start_hearing(Arc::new(fs.clone()), map, DiskReserve::Auto, LogConfig::default());
    let assignment = node.together(2, PEER);
    let command = Command::Assign { partition: PARTITION, durability: Durability::Disk, assignment };
    node.shard.send(command).await.unwrap();
    timeout(LONG, times.wait_for(|times| *times > 2)).await.expect("it asks again").unwrap();
    assert!(node.partitions.get(PARTITION).is_none(), "it waits for what the controllers say");
    maps.send_replace(Arc::new(among(&endpoint, &holder)));
    let handle = node.assign(node.together(2, PEER)).await;
    assert_eq!(handle.reader.log_end_offset(), Offset(BATCHES + 1));
    assert_eq!(content(&fs, &segment()), whole);
    node.kill().await;
    other.kill().await;
    left.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_log_is_put_aside_when_everybody_says_that_it_has_nothing() {
    let fs = stopped().await;
    let empty = Node::start(Arc::new(MemFs::new()));
    let endpoint = donor(&empty).await;
    flip(&fs, 3);
    let node = Node::start_among(Arc::new(fs.clone()), among(&endpoint, &endpoint));
    let handle = node.assign(node.together(2, PEER)).await;
    assert_eq!(handle.reader.log_end_offset(), Offset::ZERO);
    assert_eq!(fs.list(Path::new("/data/partitions")).unwrap().len(), 2);
    node.close().await.await.unwrap();
    node.kill().await;
    assert!(Node::start(Arc::new(fs)).stored_nonvoter);
}

/// A broker that has not opened its log yet.
struct Starting {
    asked: watch::Sender<u32>,
}

#[tonic::async_trait]
impl RepairService for Starting {
    async fn fetch_batches(
        &self,
        _request: Request<FetchBatchesRequest>,
    ) -> Result<Response<FetchBatchesResponse>, Status> {
        self.asked.send_modify(|times| *times += 1);
        let missing = BatchesMissing::NotOpen.into();
        Ok(Response::new(FetchBatchesResponse { missing, ..FetchBatchesResponse::default() }))
    }
}

/// A broker that answers nobody until it is let to, and then that its logs are not open yet.
struct Slow {
    /// How often it was asked, by partition.
    asked: watch::Sender<BTreeMap<u32, u32>>,
    answers: watch::Receiver<bool>,
}

#[tonic::async_trait]
impl RepairService for Slow {
    async fn fetch_batches(
        &self,
        request: Request<FetchBatchesRequest>,
    ) -> Result<Response<FetchBatchesResponse>, Status> {
        let partition = request.get_ref().partition;
        self.asked.send_modify(|asked| *asked.entry(partition).or_default() += 1);
        self.answers.clone().wait_for(|answers| *answers).await.unwrap();
        let missing = BatchesMissing::NotOpen.into();
        Ok(Response::new(FetchBatchesResponse { missing, ..FetchBatchesResponse::default() }))
    }
}

/// After a crash many logs may be damaged. Those that wait for others take nobody's turn.
#[tokio::test(flavor = "multi_thread")]
async fn a_few_damaged_logs_are_repaired_at_once_and_in_the_end_each() {
    const LOGS: u32 = 9;
    const AT_ONCE: usize = 4;
    let fs = stopped().await;
    flip(&fs, 3);
    let ((at, _), damaged) = (place(&fs, 3), content(&fs, &segment()));
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let slow = listener.local_addr().unwrap().to_string();
    let ((asked, mut seen), (answer, answers)) = (watch::channel(BTreeMap::new()), watch::channel(false));
    let incoming = listener.incoming(None).unwrap();
    let service = RepairServiceServer::new(Slow { asked, answers });
    tokio::spawn(server(Link::Peer).add_service(service).serve_with_incoming(incoming));
    let me = ReplicaId { broker: BrokerId(1), dir: DirId(1) };
    let spec = TopicSpec { partitions: LOGS, ..TopicSpec::default() };
    let map = map_with([(me, NOBODY), (PEER, &slow), (ABSENT, NOBODY)], spec);
    let node = Node::start_among(Arc::new(fs.clone()), map);
    let begin = |index| {
        let partition = PartitionId { index, ..PARTITION };
        let dir = Path::new("/data/partitions").join(partition.to_string());
        let segment = dir.join("00000000000000000000.log");
        fs.create_dir_all(&dir).unwrap();
        let file = fs.open(&segment, OpenMode::Truncate).unwrap();
        file.write_all_at(&[&damaged], 0).unwrap();
        let source = Damage::Unreadable { problem: "found while opening it".to_owned() };
        let error = LogError::Corrupt { offset: Offset(3), segment, position: at, source };
        let trusted_end = Offset(BATCHES);
        node.repairs.begin(Damaged {
            partition,
            number: 1,
            error: ReplicaLogError::Damaged(error),
            recovery: Recovery { trusted_end, flushed_end: trusted_end, clean: false },
            high_watermark: trusted_end,
            promise: LeaderEpoch::first(Term(1)),
            reply: node.shard.clone(),
        })
    };
    let repairs: Vec<_> = (0..LOGS).map(begin).collect();
    drop(timeout(LONG, seen.wait_for(|asked| asked.len() == AT_ONCE)).await.expect("they ask"));
    let more =
        timeout(Duration::from_millis(200), seen.wait_for(|asked| asked.len() > AT_ONCE)).await.is_ok();
    assert!(!more, "more than {AT_ONCE} at once");
    assert_eq!(node.repairs.damaged(), LOGS as usize);
    answer.send_replace(true);
    let all_twice =
        |asked: &BTreeMap<u32, u32>| asked.values().filter(|times| **times > 1).count() == LOGS as usize;
    drop(timeout(LONG, seen.wait_for(all_twice)).await.expect("all take turns"));
    drop(repairs);
    node.kill().await;
}

/// As long as somebody may have what is missing the replica is down: it answers nobody, and asks for another leader. It is an
/// operator who decides that nobody is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_log_waits_for_those_that_may_have_what_is_missing() {
    let fs = stopped().await;
    flip(&fs, 3);
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let starting = listener.local_addr().unwrap().to_string();
    let (asked, mut times) = watch::channel(0);
    let incoming = listener.incoming(None).unwrap();
    let service = RepairServiceServer::new(Starting { asked });
    tokio::spawn(server(Link::Peer).add_service(service).serve_with_incoming(incoming));
    let node = Node::start_among(Arc::new(fs.clone()), among(&starting, NOBODY));
    let assignment = node.together(2, node.me);
    let assign =
        |assignment| Command::Assign { partition: PARTITION, durability: Durability::Disk, assignment };
    node.shard.send(assign(assignment.clone())).await.unwrap();
    node.asks_for_a_successor().await;
    timeout(LONG, times.wait_for(|times| *times > 2)).await.expect("it asks again").unwrap();
    answer(node.produce("to nobody").await).await.unwrap_err();
    assert_eq!(node.repairs.damaged(), 1);
    assert!(node.partitions.get(PARTITION).is_none());
    assert!(fs.exists(&folder().join("repair")).unwrap(), "the next run knows that it had begun");
    assert_eq!(fs.list(Path::new("/data/partitions")).unwrap().len(), 1);
    let unclean = Assignment { term: Term(3), unclean_term: Some(Term(3)), ..assignment };
    let handle = node.assign(unclean).await;
    assert_eq!(node.repairs.damaged(), 0);
    assert_eq!(handle.reader.log_end_offset(), Offset::ZERO);
    assert_eq!(fs.list(Path::new("/data/partitions")).unwrap().len(), 2);
    node.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_replica_that_moved_away_is_deleted_and_may_come_back_empty() {
    let fs = stopped().await;
    flip(&fs, 3);
    let node = Node::start_among(Arc::new(fs.clone()), among(NOBODY, NOBODY));
    let assignment = node.together(2, node.me);
    let command = Command::Assign { partition: PARTITION, durability: Durability::Disk, assignment };
    node.shard.send(command).await.unwrap();
    node.asks_for_a_successor().await;
    node.shard.send(Command::DeleteReplica(PARTITION, Term(2))).await.unwrap();
    let handle = node.assign(node.together(3, PEER)).await;
    assert_eq!(handle.reader.log_end_offset(), Offset::ZERO);
    node.close().await.await.unwrap();
    node.kill().await;
    assert!(!Node::start(Arc::new(fs)).stored_nonvoter, "it has forgotten nothing: it never held anything");
}

/// Neither can be opened, and each has what the other one lacks.
#[tokio::test(flavor = "multi_thread")]
async fn two_damaged_logs_mend_each_other() {
    let fs = stopped().await;
    let others = copy(&fs);
    let whole = content(&fs, &segment());
    for offset in [1, 2, 5] {
        flip(&fs, offset);
    }
    for offset in [0, 3, 6] {
        flip(&others, offset);
    }
    // Each has to know where the other listens before that one is there.
    let listeners =
        [Listener::bind("127.0.0.1:0").await.unwrap(), Listener::bind("127.0.0.1:0").await.unwrap()];
    let endpoints = [0, 1].map(|number| listeners[number].local_addr().unwrap().to_string());
    let nodes = [
        Node::start_among(Arc::new(fs.clone()), among(&endpoints[1], NOBODY)),
        Node::start_among(Arc::new(others.clone()), among(&endpoints[0], NOBODY)),
    ];
    for (node, listener) in nodes.iter().zip(listeners) {
        let context = node.service(ClusterMap::default(), None);
        let service = RepairServiceServer::new(RepairApi { context });
        let incoming = listener.incoming(None).unwrap();
        tokio::spawn(server(Link::Peer).add_service(service).serve_with_incoming(incoming));
        let assignment = node.together(2, PEER);
        let command = Command::Assign { partition: PARTITION, durability: Durability::Disk, assignment };
        node.shard.send(command).await.unwrap();
    }
    for (node, fs) in nodes.iter().zip([&fs, &others]) {
        let opened = async {
            while node.partitions.get(PARTITION).is_none() {
                tokio::task::yield_now().await;
            }
        };
        timeout(LONG, opened).await.expect("it is mended");
        assert_eq!(content(fs, &segment()), whole);
    }
    for node in nodes {
        node.kill().await;
    }
}

/// Nothing above the high watermark, nothing that is damaged, nothing of another cluster's.
#[tokio::test(flavor = "multi_thread")]
async fn other_brokers_are_given_what_is_whole_and_committed() {
    let fs = stopped().await;
    let node = Node::start(Arc::new(fs.clone()));
    let api = RepairApi { context: node.service(ClusterMap::default(), None) };
    let asked = |from: u64| FetchBatchesRequest {
        cluster: "test".to_owned(),
        topic_id: PARTITION.topic.to_bytes().to_vec().into(),
        from_offset: from,
        max_bytes: 1,
        ..FetchBatchesRequest::default()
    };
    let ask = async |request| api.fetch_batches(Request::new(request)).await.unwrap().into_inner();
    assert_eq!(ask(asked(0)).await.missing(), BatchesMissing::NotOpen);
    let handle = node.lead(2).await;
    flip(&fs, 3);
    for from in 0..BATCHES + 2 {
        let given = ask(asked(from)).await;
        if from == 3 {
            assert_eq!(given.missing(), BatchesMissing::Damaged);
            continue;
        }
        let batches = RecordBatch::split(given.batches).unwrap();
        assert_eq!((batches.len(), batches[0].header().base_offset), (1, Offset(from)));
    }
    let end = handle.reader.log_end_offset().0;
    assert_eq!(ask(asked(end)).await.missing(), BatchesMissing::NotCommitted);
    assert_eq!(ask(asked(end + 7)).await.missing(), BatchesMissing::NotCommitted);
    // Appended in the next term, and nobody else has it.
    node.assign(node.together(3, node.me)).await;
    node.receive(ABSENT, 3, Message::FenceOk { position: position(2, 0), voter: true }).await;
    until(&handle, "it leads", |status| status.active && status.log_end_offset > Offset(end)).await;
    assert_eq!(ask(asked(end)).await.missing(), BatchesMissing::NotCommitted);
    // Nothing of it was compacted: what the caller has dropped a tombstone for may be in it.
    let dropped = |from| FetchBatchesRequest { tombstones_gone_below: 4, ..asked(from) };
    assert_eq!(ask(dropped(2)).await.missing(), BatchesMissing::NotCleaned);
    assert_eq!(ask(dropped(4)).await.missing(), BatchesMissing::Unspecified);
    let all = ask(FetchBatchesRequest { max_bytes: u32::MAX, to_offset: 3, ..asked(1) }).await;
    assert_eq!(RecordBatch::split(all.batches).unwrap().len(), 2);
    let elsewhere = FetchBatchesRequest { partition: 7, ..asked(0) };
    assert_eq!(ask(elsewhere).await.missing(), BatchesMissing::NoReplica);
    let foreign = FetchBatchesRequest { cluster: "other".to_owned(), ..asked(0) };
    let refused = api.fetch_batches(Request::new(foreign)).await.unwrap_err();
    assert_eq!(ApiError::from_status(&refused).code, ErrorCode::WrongCluster);
    node.kill().await;
}

/// Many readers of one damaged place cost one repair.
#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_many_ask_for_is_repaired_once() {
    let (fs, node, other) = pair().await;
    flip(&fs, 3);
    let deadline = Instant::now() + LONG;
    let asking = (0..20).map(|_| node.repairs.repair(PARTITION, Offset(3), deadline));
    let outcomes = futures::future::join_all(asking).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Whole), "{outcomes:?}");
    assert_eq!(node.repairs.count(), 1);
    node.kill().await;
    other.kill().await;
}

/// A search by time looks at headers, and finds one that is none.
#[tokio::test(flavor = "multi_thread")]
async fn a_search_by_time_is_answered_once_the_log_is_repaired() {
    let (fs, node, other) = pair().await;
    let whole = content(&fs, &segment());
    let file = open(&fs, &segment());
    file.write_all_at(&[&[whole[16] ^ 1]], 16).unwrap();
    let api = FetchApi { context: node.service(among(NOBODY, NOBODY), None) };
    let at = Some(At::TimestampMs(0));
    let request = ListOffsetRequest { topic: "t".to_owned(), at, ..ListOffsetRequest::default() };
    let found = api.list_offset(Request::new(request)).await.unwrap().into_inner();
    assert_eq!(found.offset, 1, "behind the marker, which has no time");
    assert_eq!(content(&fs, &segment()), whole);
    node.kill().await;
    other.kill().await;
}

/// A sector that cannot be read keeps a log from being opened no longer than others need to give what was in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_read_is_repaired_before_it_is_opened() {
    let fs = stopped().await;
    let whole = content(&fs, &segment());
    let other = Node::start(Arc::new(copy(&fs)));
    other.lead(2).await;
    let (first, end) = place(&fs, 2);
    fs.spoil(&segment(), first..end + 20).unwrap();
    let node = Node::start_among(Arc::new(fs.clone()), among(NOBODY, &donor(&other).await));
    node.lead(2).await;
    assert!(content(&fs, &segment()).starts_with(&whole));
    node.kill().await;
    assert!(!Node::start(Arc::new(fs)).stored_nonvoter);
    other.kill().await;
}
