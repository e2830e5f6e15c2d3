//! Replicas that are deleted, and made again, within one run of the process (R46).

use holdfast_core::metadata::LeaderReport;

use super::*;

impl Node {
    /// The register of that term names others only.
    async fn delete(&self, term: u32) {
        self.shard.send(Command::DeleteReplica(PARTITION, Term(term))).await.unwrap();
    }

    /// Waits until the controllers are to hear that it leads that term.
    async fn is_told_active(&self, term: u32) {
        let mut news = self.reports.news();
        let leads = |report: &LeaderReport| report.term == Term(term) && report.state == LeaderState::Active;
        let told = async {
            while !self.reports.since(0).0.iter().any(|(report, _)| leads(report)) {
                news.changed().await.unwrap();
            }
        };
        timeout(LONG, told).await.expect("it leads");
    }

    /// Waits until the replica is there, or is not.
    async fn until(&self, there: bool) {
        let changed = async {
            while self.partitions.get(PARTITION).is_some() != there {
                tokio::task::yield_now().await;
            }
        };
        timeout(LONG, changed).await.unwrap_or_else(|_| panic!("the replica is there: {}", !there));
    }
}

/// A flush of the first replica hangs, and fails, while the second one is made and flushes too. That is none of its business:
/// neither is it out of service, nor is its own flush over.
#[tokio::test(flavor = "multi_thread")]
async fn a_flush_of_a_deleted_replica_says_nothing_of_the_next_one() {
    let fs = MemFs::new();
    let gated = GatedFs::new(fs.clone());
    let node = Node::start(Arc::new(gated.clone()));
    node.lead(1).await;
    gated.shut();
    let lost = node.produce("of the first replica").await;
    let hanging = gated.clone();
    tokio::task::spawn_blocking(move || hanging.wait_until_one_hangs(LONG)).await.unwrap();
    node.delete(1).await;
    node.until(false).await;
    assert!(timeout(LONG, lost).await.unwrap().is_err(), "nobody waits for a replica that is gone");
    let (durability, assignment) = (Durability::Disk, node.alone(2));
    node.shard.send(Command::Assign { partition: PARTITION, durability, assignment }).await.unwrap();
    node.until(true).await;
    // Its promise is on disk: the failure is for the flush that hangs.
    node.is_told_active(2).await;
    fs.inject(Fault { kind: Some(OperationKind::SyncData), after: 0, lasting: false });
    gated.open();
    let mut status = node.partitions.get(PARTITION).unwrap().status.clone();
    let ended = status.wait_for(|status| status.settled || status.failed);
    let status = timeout(LONG, ended).await.expect("its own flush ends").unwrap().clone();
    assert!(status.settled && !status.failed, "{status:?}");
    node.kill().await;
}

/// An old register, as a start from a saved map finds it, deletes nothing of a replica that has promised a later term.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_register_deletes_nothing() {
    let node = Node::start(Arc::new(MemFs::new()));
    node.lead(5).await;
    node.delete(4).await;
    answer(node.produce("still here").await).await.unwrap();
    node.delete(5).await;
    node.until(false).await;
    let gone = answer(node.produce("gone").await).await;
    assert!(matches!(gone, Err(ProduceError::NotLeader { .. })), "{gone:?}");
    node.kill().await;
}
