//! Controllers whose disks fill up.

use std::sync::Arc;

use holdfast_core::ErrorCode;
use holdfast_log::{Fs, MemFs};
use holdfast_proto::ApiError;
use holdfast_proto::v1::CreateTopicRequest;

use crate::brokers;
use crate::support::{Quorum, eventually, runtime};

fn disks() -> Vec<Arc<MemFs>> {
    (0..3).map(|_| Arc::new(MemFs::new())).collect()
}

fn start(disks: &[Arc<MemFs>]) -> Quorum {
    Quorum::start_on(disks.iter().map(|disk| Arc::clone(disk) as Arc<dyn Fs>).collect(), |_| {})
}

/// Not one more byte.
fn fill(disk: &MemFs) {
    disk.set_capacity(Some(disk.used()));
}

async fn ask(quorum: &Quorum, index: usize, name: &str) -> Result<(), ApiError> {
    let request = CreateTopicRequest { name: name.into(), partitions: 3, ..Default::default() };
    let answer = quorum.client(index).create_topic(request).await;
    answer.map(drop).map_err(|status| ApiError::from_status(&status))
}

/// The leader finds no room: another leads, everything asked for is done, and the full one follows again once it can.
#[test]
fn a_leader_without_room_is_followed_by_one_that_has_some() {
    let (test, disks) = (runtime(), disks());
    let quorum = start(&disks);
    test.block_on(async {
        let _brokers = brokers(&quorum).await;
        quorum.create_topic("before", 3).await;
        let full = quorum.leader().await;
        fill(&disks[full]);
        // The first one may be asked for in vain: what became of it is not known before another leads.
        let _ = ask(&quorum, full, "meanwhile").await;
        eventually("another leader that takes it", || async {
            let others = (0..3).filter(|&index| index != full);
            for index in others {
                match ask(&quorum, index, "meanwhile").await {
                    Ok(()) => return Some(()),
                    Err(error) if error.code == ErrorCode::TopicExists => return Some(()),
                    Err(error) => assert!(error.code.is_retriable(), "{error}"),
                }
            }
            None
        })
        .await;
        assert_eq!(quorum.controller(full).leader(), None, "one without room does not lead");
        let refused = ask(&quorum, full, "refused").await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::ControllerUnavailable);
        assert!(refused.message.contains("no room on its disk"), "{refused}");
        assert!(quorum.controller(full).map().topic_named("meanwhile").is_none());
        // It follows again without a restart.
        disks[full].set_capacity(None);
        quorum.all_see("what was done without it", |map| map.topics().count() == 2).await;
        assert!(!quorum.has_failed(full));
    });
}

/// No disk has room: nothing is taken, the error says why, and nobody ends; what was acknowledged is there afterwards.
#[test]
fn controllers_without_room_take_nothing_until_there_is_some() {
    let (test, disks) = (runtime(), disks());
    let mut quorum = start(&disks);
    test.block_on(async {
        let _brokers = brokers(&quorum).await;
        quorum.create_topic("before", 3).await;
        disks.iter().for_each(|disk| fill(disk));
        let asked = quorum.leader().await;
        eventually("a refusal that says why", || async {
            let error = ask(&quorum, asked, "never").await.expect_err("there is no room");
            assert!(error.code.is_retriable(), "{error}");
            error.message.contains("no room on its disk").then_some(())
        })
        .await;
        assert!((0..3).all(|index| quorum.controller(index).map().topic_named("never").is_none()));
        assert!((0..3).all(|index| !quorum.has_failed(index)));
    });
    // Neither end nor start needs room.
    quorum.stop(0);
    quorum.kill(1);
    quorum.restart(0);
    quorum.restart(1);
    disks.iter().for_each(|disk| disk.set_capacity(None));
    test.block_on(async {
        quorum.create_topic("after", 3).await;
        let seen = |map: &holdfast_core::metadata::ClusterMap| {
            map.topic_named("before").is_some() && map.topic_named("after").is_some()
        };
        quorum.all_see("the topics of before and after", seen).await;
    });
}

/// Snapshots wait for room like everything else, and fail nobody.
#[test]
fn a_snapshot_without_room_is_written_when_there_is_some() {
    let (test, disks) = (runtime(), disks());
    let fs = disks.iter().map(|disk| Arc::clone(disk) as Arc<dyn Fs>).collect();
    let quorum = Quorum::start_on(fs, |config| config.snapshot_after = 10);
    test.block_on(async {
        let _brokers = brokers(&quorum).await;
        let leader = quorum.leader().await;
        let full = (leader + 1) % 3;
        // Of the snapshot only the beginning fits, and then of the log nothing.
        disks[full].set_capacity(Some(disks[full].used() + 900));
        for number in 0..25 {
            let name = format!("topic-{number}");
            eventually("a topic", || async { ask(&quorum, leader, &name).await.ok() }).await;
        }
        eventually("a follower that finds no room", || async {
            (quorum.controller(full).map().topics().count() < 25).then_some(())
        })
        .await;
        disks[full].set_capacity(None);
        quorum.all_see("all topics", |map| map.topics().count() == 25).await;
        assert!(!quorum.has_failed(full));
    });
}
