//! A replica whose log failed begins anew, without a restart of the broker.

use holdfast_core::replication::{FetchKind, Message};

use super::disk::follower_with;
use super::peer::{PEER, position};
use super::*;

impl Node {
    /// Waits for a replica in the place of this one.
    async fn is_rebuilt(&self, failed: &Arc<PartitionHandle>) -> Arc<PartitionHandle> {
        let rebuilt = async {
            loop {
                match self.partitions.get(PARTITION) {
                    Some(handle) if !Arc::ptr_eq(&handle, failed) => return handle,
                    _ => tokio::task::yield_now().await,
                }
            }
        };
        timeout(LONG, rebuilt).await.expect("it begins anew")
    }
}

fn put_aside(fs: &MemFs) -> usize {
    let names = fs.list(std::path::Path::new("/data/partitions")).unwrap();
    names.iter().filter(|name| name.to_string_lossy().contains("quarantine")).count()
}

/// It follows on fresh files, as one that may have forgotten something; and what was answered to the one before proves
/// nothing of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_flush_failed_begins_anew_from_its_leader() {
    let fs = MemFs::new();
    let (node, mut peer, mut handle) = follower_with(&fs, DiskReserve::Auto).await;
    let mut incarnations = vec![Incarnation(1)];
    for _ in 0..2 {
        let end = handle.reader.log_end_offset().0;
        fs.inject(Fault { kind: Some(OperationKind::SyncData), after: 0, lasting: false });
        node.is_sent(1, position(1, end), Some("lost")).await;
        until(&handle, "it fails", |status| status.failed).await;
        node.is_led(1).await;
        handle = node.is_rebuilt(&handle).await;
        assert_eq!(handle.reader.log_end_offset(), Offset::ZERO);
        node.is_led(1).await;
        let rejoins = |message: &Message| match message {
            Message::Fetch { kind: FetchKind::Rejoin, position, incarnation, .. } => {
                Some((*position, *incarnation))
            }
            _ => None,
        };
        let (asked, incarnation) = peer.hears("it rejoins", rejoins).await;
        assert_eq!(asked, position(1, 0));
        assert!(!incarnations.contains(&incarnation), "{incarnation:?} among {incarnations:?}");
        incarnations.push(incarnation);
        node.is_sent(1, position(1, 0), None).await;
        peer.hears_of_flushed(1).await;
        assert_eq!(put_aside(&fs), 1, "the first one is kept");
    }
    node.kill().await;
    assert!(Node::start(Arc::new(fs)).stored_nonvoter);
}

/// It is told to a failed disk that nothing is wrong with only by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_takes_nothing_keeps_its_replica_out() {
    let fs = MemFs::new();
    let (node, _peer, handle) = follower_with(&fs, DiskReserve::Auto).await;
    fs.inject(Fault { kind: Some(OperationKind::SyncData), after: 0, lasting: false });
    node.is_sent(1, position(1, 1), Some("lost")).await;
    until(&handle, "it fails", |status| status.failed).await;
    fs.inject(Fault { kind: Some(OperationKind::Create), after: 0, lasting: true });
    node.is_led(1).await;
    let mut status = handle.status.clone();
    status.mark_unchanged();
    assert!(timeout(Duration::from_millis(1500), status.changed()).await.is_err(), "it began anew");
    fs.clear_faults();
    node.is_rebuilt(&handle).await;
    node.kill().await;
}

/// Where nobody leads it may be the last copy: late words of a leader that was do not count.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_failed_is_kept_where_nobody_leads() {
    let fs = MemFs::new();
    let node = Node::start(Arc::new(fs.clone()));
    let handle = node.lead(2).await;
    fs.inject(Fault { kind: Some(OperationKind::SyncData), after: 0, lasting: false });
    answer(node.produce("lost").await).await.unwrap_err();
    until(&handle, "it fails", |status| status.failed).await;
    let (high_watermark, log_end_offset, cleaned_by_all) = (Offset::ZERO, Offset::ZERO, Offset::ZERO);
    node.receive(PEER, 1, Message::Lead { high_watermark, log_end_offset, cleaned_by_all }).await;
    let mut status = handle.status.clone();
    status.mark_unchanged();
    assert!(timeout(Duration::from_millis(1500), status.changed()).await.is_err(), "it began anew");
    assert_eq!(put_aside(&fs), 0);
    node.kill().await;
}

/// What a leader had appended and nobody else took may be another batch in the log that it is filled with.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_in_memory_of_a_log_that_failed_is_forgotten() {
    let fs = MemFs::new();
    let node = Node::start(Arc::new(fs.clone()));
    node.newest.allow(1 << 20);
    let handle = node.lead(1).await;
    answer(node.produce("of the first log").await).await.unwrap();
    let kept = |handle: &PartitionHandle| handle.read_newest(Offset(1), Offset(2), 1 << 20).is_some();
    assert!(kept(&handle));
    fs.inject(Fault { kind: Some(OperationKind::SyncData), after: 0, lasting: false });
    answer(node.produce("lost").await).await.unwrap_err();
    node.assign(node.together(2, PEER)).await;
    node.is_led(2).await;
    let rebuilt = node.is_rebuilt(&handle).await;
    assert!(!kept(&rebuilt));
    node.kill().await;
}
