//! Every way in which a disk fails a replica that leads or follows: it leaves, and nothing is acknowledged that is not on
//! disk. R35.

use holdfast_core::replication::Message;

use super::peer::{ABSENT, PEER, Peer, fetch, map, position};
use super::*;

/// The next operation of that kind fails, and the ones after it go well again: what failed once is not believed later.
fn break_next(fs: &MemFs, kind: OperationKind) {
    fs.inject(Fault { kind: Some(kind), after: 0, lasting: false });
}

impl Node {
    /// It takes no part any more, and remembers that; and what its log did not take is not called flushed.
    async fn assert_left(self, fs: MemFs, handle: &PartitionHandle, flushed: bool) {
        let status = until(handle, "it leaves", |status| status.failed).await;
        assert!(!status.active && !status.settled);
        let later = answer(self.produce("later").await).await;
        assert!(matches!(later, Err(ProduceError::NotLeader { .. })), "{later:?}");
        assert_eq!(timeout(LONG, self.close().await).await.expect("an end").is_ok(), flushed);
        self.kill().await;
        fs.crash();
        assert!(Node::start(Arc::new(fs)).stored_nonvoter, "it may have forgotten what it acknowledged");
    }
}

/// A node that follows the peer, and has its marker on disk.
async fn follower(fs: &MemFs) -> (Node, Peer, Arc<PartitionHandle>) {
    follower_with(fs, DiskReserve::Auto).await
}

/// The same with that reserve on its disk.
pub(super) async fn follower_with(fs: &MemFs, reserve: DiskReserve) -> (Node, Peer, Arc<PartitionHandle>) {
    follower_as(fs, reserve, LogConfig::default()).await
}

/// The same with a log kept like that.
pub(super) async fn follower_as(
    fs: &MemFs,
    reserve: DiskReserve,
    log: LogConfig,
) -> (Node, Peer, Arc<PartitionHandle>) {
    let mut peer = Peer::start().await;
    let me = ReplicaId { broker: BrokerId(1), dir: holdfast_core::DirId(1) };
    let node = Node::start_as(Arc::new(fs.clone()), map(me, &peer.endpoint), reserve, log);
    let handle = node.assign(node.together(1, PEER)).await;
    node.is_led(1).await;
    let asks = |message: &Message| matches!(message, Message::Fetch { .. }).then_some(());
    peer.hears("where it stands", asks).await;
    node.is_sent(1, position(1, 0), None).await;
    peer.hears_of_flushed(1).await;
    (node, peer, handle)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_acknowledges_no_batch_that_it_could_not_write() {
    let fs = MemFs::new();
    let node = Node::start(Arc::new(fs.clone()));
    let handle = node.lead(1).await;
    answer(node.produce("kept").await).await.unwrap();
    break_next(&fs, OperationKind::Write);
    assert_eq!(answer(node.produce("lost").await).await, Err(ProduceError::StorageFailed));
    node.asks_for_a_successor().await;
    node.assert_left(fs, &handle, false).await;
}

/// The promise of the second term is not on disk: nobody hears of it, and the process ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_promise_cannot_be_kept_does_not_lead() {
    for kind in [OperationKind::Write, OperationKind::SyncData] {
        let fs = MemFs::new();
        let node = Node::start(Arc::new(fs.clone()));
        node.lead(1).await;
        answer(node.produce("kept").await).await.unwrap();
        break_next(&fs, kind);
        let handle = node.assign(node.alone(2)).await;
        let problem = timeout(LONG, node.fatal.wait()).await.expect("the process has to end");
        assert!(problem.contains("promises cannot be kept"), "{problem}");
        let produced = node.produce("of a leadership that never was").await;
        assert!(timeout(LONG, node.close().await).await.unwrap().is_ok(), "the log itself is flushed");
        assert!(
            !matches!(timeout(LONG, produced).await.unwrap(), Ok(Ok(_))),
            "acknowledged without a promise"
        );
        assert!(!handle.status.borrow().settled);
        let (told, _) = node.reports.since(0);
        assert!(told.iter().all(|(report, _)| report.term == Term(1)), "{told:?}");
        node.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_acknowledges_nothing_that_is_not_on_disk() {
    for kind in [OperationKind::Write, OperationKind::SyncData] {
        let fs = MemFs::new();
        let (node, mut peer, handle) = follower(&fs).await;
        node.is_sent(1, position(1, 1), Some("kept")).await;
        peer.hears_of_flushed(2).await;
        break_next(&fs, kind);
        node.is_sent(1, position(1, 2), Some("lost")).await;
        until(&handle, "it leaves", |status| status.failed).await;
        // Whatever its leader says from here on is not answered.
        node.is_led(1).await;
        node.is_sent(1, position(1, 2), Some("lost")).await;
        answer(node.produce("what was sent before has been dealt with").await).await.unwrap_err();
        let acknowledged = peer.acknowledged();
        let kept = |&(end, durable_end): &(Offset, Offset)| {
            durable_end <= Offset(2) && (end <= Offset(2) || kind == OperationKind::SyncData)
        };
        assert!(acknowledged.iter().all(kept), "{kind:?}: {acknowledged:?}");
        node.assert_left(fs, &handle, false).await;
    }
}

/// What should have gone is still there: the log is not what its leader takes it for.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_cannot_cut_its_log_leaves() {
    let fs = MemFs::new();
    let (node, mut peer, handle) = follower(&fs).await;
    node.is_sent(1, position(1, 1), Some("nobody else has it")).await;
    peer.hears_of_flushed(2).await;
    node.is_led(2).await;
    break_next(&fs, OperationKind::SetLen);
    let (echo, common) = (position(1, 2), position(1, 1));
    node.receive(PEER, 2, Message::Diverge { echo, common }).await;
    until(&handle, "it leaves", |status| status.failed).await;
    let acknowledged = peer.acknowledged();
    assert!(acknowledged.iter().all(|&(end, _)| end == Offset(2)), "{acknowledged:?}");
    node.assert_left(fs, &handle, false).await;
}

/// It cannot give what it holds: another one has to lead.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_cannot_read_for_a_follower_leaves() {
    let fs = MemFs::new();
    let mut peer = Peer::start().await;
    let me = ReplicaId { broker: BrokerId(1), dir: holdfast_core::DirId(1) };
    let node = Node::start_among(Arc::new(fs.clone()), map(me, &peer.endpoint));
    let handle = node.assign(node.together(1, node.me)).await;
    let asks = |message: &Message| matches!(message, Message::Fence { .. }).then_some(());
    peer.hears("the fence", asks).await;
    node.receive(ABSENT, 1, Message::FenceOk { position: position(1, 0), voter: true }).await;
    until(&handle, "it leads", |status| status.active).await;
    // Nor can anybody give it what it cannot read.
    fs.inject(Fault { kind: Some(OperationKind::Read), after: 0, lasting: true });
    node.receive(PEER, 1, fetch(position(1, 0))).await;
    until(&handle, "it leaves", |status| status.failed).await;
    node.asks_for_a_successor().await;
    node.assert_left(fs, &handle, true).await;
}

/// What is noted of a replica says that it voted, and its folder is not there: put aside in a run that was killed before it
/// could say so, or removed by hand.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_folder_is_gone_may_have_forgotten_anything() {
    let fs = MemFs::new();
    let node = Node::start(Arc::new(fs.clone()));
    node.lead(1).await;
    node.kill().await;
    fs.remove_dir_all(&std::path::Path::new("/data/partitions").join(PARTITION.to_string())).unwrap();
    let node = Node::start(Arc::new(fs.clone()));
    assert!(!node.stored_nonvoter);
    let handle = node.assign(node.alone(2)).await;
    answer(node.produce("who has nobody to ask leads nothing").await).await.unwrap_err();
    assert!(!handle.status.borrow().active);
    node.kill().await;
    assert!(Node::start(Arc::new(fs)).stored_nonvoter);
}
