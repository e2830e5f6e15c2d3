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

/// The disk takes its time to remove a folder: what else is done here goes on, and the same replica is made again only when
/// nothing is left of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_being_removed_holds_up_nobody() {
    let gated = GatedFs::new(MemFs::new());
    let node = Node::start(Arc::new(gated.clone()));
    node.lead(1).await;
    answer(node.produce("of the first replica").await).await.unwrap();
    let removals = gated.removals();
    removals.shut();
    node.delete(1).await;
    node.until(false).await;
    let hanging = Arc::clone(&removals);
    tokio::task::spawn_blocking(move || hanging.wait_until_one_hangs(LONG)).await.unwrap();
    let (durability, assignment) = (Durability::Disk, node.alone(2));
    node.shard.send(Command::Assign { partition: PARTITION, durability, assignment }).await.unwrap();
    let other = PartitionId { index: 1, ..PARTITION };
    let (durability, assignment) = (Durability::Disk, node.alone(1));
    node.shard.send(Command::Assign { partition: other, durability, assignment }).await.unwrap();
    let leads = async {
        while node.partitions.get(other).is_none() {
            tokio::task::yield_now().await;
        }
        let handle = node.partitions.get(other).unwrap();
        until(&handle, "the other one leads", |status| status.settled).await
    };
    timeout(LONG, leads).await.expect("the shard goes on");
    assert!(node.partitions.get(PARTITION).is_none(), "made in the place of one that is being removed");
    removals.open();
    node.until(true).await;
    until(&node.partitions.get(PARTITION).unwrap(), "it leads", |status| status.settled).await;
    let first = answer(node.produce("of the second replica").await).await.unwrap();
    assert_eq!(first.base_offset, Offset(1), "behind the marker, in an empty log");
    node.kill().await;
}

/// A deletion that the register takes back is not followed by another replica: that one would be nobody's.
#[tokio::test(flavor = "multi_thread")]
async fn a_register_that_is_over_makes_no_replica_once_the_folder_is_removed() {
    let gated = GatedFs::new(MemFs::new());
    let node = Node::start(Arc::new(gated.clone()));
    node.lead(1).await;
    let removals = gated.removals();
    removals.shut();
    node.delete(1).await;
    let (durability, assignment) = (Durability::Disk, node.alone(2));
    node.shard.send(Command::Assign { partition: PARTITION, durability, assignment }).await.unwrap();
    node.delete(2).await;
    node.until(false).await;
    removals.open();
    // One that is deleted after it, and made again.
    let other = PartitionId { index: 1, ..PARTITION };
    for term in [1, 2] {
        let (durability, assignment) = (Durability::Disk, node.alone(term));
        node.shard.send(Command::Assign { partition: other, durability, assignment }).await.unwrap();
        if term == 1 {
            node.shard.send(Command::DeleteReplica(other, Term(1))).await.unwrap();
        }
    }
    let again = |handle: Arc<PartitionHandle>| handle.status.borrow().epoch.term == Term(2);
    let made = async {
        while !node.partitions.get(other).is_some_and(again) {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, made).await.expect("the other one is made again");
    assert!(node.partitions.get(PARTITION).is_none());
    node.kill().await;
}

/// A power cut at any moment of a deletion: of a folder that is left there is a note, by which the next start deletes it.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_left_is_noted() {
    for removed_first in [false, true] {
        let fs = MemFs::new();
        let gated = GatedFs::new(fs.clone());
        let node = Node::start(Arc::new(gated.clone()));
        node.lead(1).await;
        answer(node.produce("kept on the disk").await).await.unwrap();
        let removals = gated.removals();
        removals.shut();
        node.delete(1).await;
        node.until(false).await;
        if removed_first {
            removals.open();
            // A replica is made again only when the note of the one before is gone, or about to go. It leads when what is noted
            // of it is on disk, and not before its folder is.
            node.lead(2).await;
            node.delete(2).await;
        }
        node.kill().await;
        fs.crash();
        removals.open();
        let dir = DataDir::in_memory(Arc::new(fs.clone()), "boot 2").unwrap();
        let noted = crate::state_store::look_at(&dir).unwrap();
        assert!(noted.contains_key(&PARTITION) || !dir.may_hold(PARTITION), "nobody will delete it");
        assert!(removed_first || noted.contains_key(&PARTITION));
        drop(dir);
    }
}
