//! What is noted of a log when a run ends in order.

use super::*;
use crate::data_dir::DataDir;

/// Enough that the end of a run notes it.
fn much() -> String {
    "much ".repeat(300_000)
}

fn checkpoint() -> std::path::PathBuf {
    std::path::Path::new("/data/partitions").join(PARTITION.to_string()).join("checkpoint")
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_orderly_end_a_replica_goes_on_from_what_was_noted() {
    let fs = MemFs::new();
    let node = Node::start(Arc::new(fs.clone()));
    node.lead(1).await;
    answer(node.produce(&much()).await).await.unwrap();
    timeout(LONG, node.close().await).await.unwrap().unwrap();
    node.kill().await;
    assert!(fs.exists(&checkpoint()).unwrap());
    DataDir::in_memory(Arc::new(fs.clone()), "boot 1").unwrap().mark_clean().unwrap();
    // It was flushed before the end was called orderly.
    fs.crash();
    let node = Node::start(Arc::new(fs.clone()));
    let handle = node.lead(2).await;
    let acknowledged = answer(node.produce("more").await).await.unwrap();
    assert_eq!(acknowledged.base_offset.0, 3, "behind two markers and the first batch");
    assert_eq!(handle.reader.log_end_offset().0, 4);
    node.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_cannot_note_its_log_does_not_end_in_order() {
    for kind in [OperationKind::Rename, OperationKind::Create] {
        let fs = MemFs::new();
        let node = Node::start(Arc::new(fs.clone()));
        node.lead(1).await;
        answer(node.produce(&much()).await).await.unwrap();
        fs.inject(Fault { kind: Some(kind), after: 0, lasting: false });
        assert!(timeout(LONG, node.close().await).await.unwrap().is_err(), "{kind:?}");
        node.kill().await;
    }
}
