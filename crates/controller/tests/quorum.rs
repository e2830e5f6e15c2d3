//! Three controllers over real gRPC and real files.

mod full;
#[allow(clippy::unwrap_used, reason = "helpers of tests")]
mod support;

use std::time::Duration;

use holdfast_controller::{ControllerError, FolderError};
use holdfast_core::metadata::ClusterMap;
use holdfast_core::{BrokerId, ErrorCode};
use holdfast_proto::ApiError;
use holdfast_proto::internal::v1::{
    AllocateProducerIdsRequest, LeaderReport, LeaderState, WatchControllerMetadataRequest,
};
use holdfast_proto::v1::{CreateTopicRequest, DeleteTopicRequest};
use support::{CLUSTER, FakeBroker, Quorum, Watcher, eventually, heartbeat, runtime, start_error};

fn live(map: &ClusterMap) -> usize {
    map.brokers().filter(|broker| broker.live).count()
}

fn led_by(map: &ClusterMap, broker: u32) -> usize {
    map.partitions().filter(|partition| partition.register.leader.broker == BrokerId(broker)).count()
}

async fn brokers(quorum: &Quorum) -> Vec<FakeBroker> {
    let brokers = (1..=3).map(|id| FakeBroker::start(quorum, id)).collect();
    quorum.all_see("three registered brokers", |map| live(map) == 3).await;
    brokers
}

#[test]
fn a_silent_broker_loses_its_partitions_in_one_update() {
    loses_its_partitions_in_one_update(Quorum::start(|_| {}), |brokers| brokers[2].fall_silent());
}

#[test]
fn a_killed_broker_loses_its_partitions_in_one_update_without_waiting_for_silence() {
    let quorum = Quorum::start(|config| config.session_timeout = Duration::from_secs(600));
    loses_its_partitions_in_one_update(quorum, |brokers| drop(brokers.pop()));
}

/// Broker 3 is taken away, and comes back.
fn loses_its_partitions_in_one_update(quorum: Quorum, take_away: impl Fn(&mut Vec<FakeBroker>)) {
    let test = runtime();
    test.block_on(async {
        let mut brokers = brokers(&quorum).await;
        quorum.create_topic("orders", 6).await;
        let mut watcher = Watcher::start(&quorum, 0).await;
        watcher.until(|map| map.partitions().count() == 6).await;
        assert_eq!(led_by(&watcher.map, 3), 2);

        take_away(&mut brokers);
        let update = watcher.next().await;
        assert!(!update.snapshot);
        assert_eq!((live(&watcher.map), led_by(&watcher.map, 3)), (2, 0));
        assert_eq!((update.brokers.len(), update.partitions.len()), (1, 2));

        brokers.push(FakeBroker::start(&quorum, 3));
        watcher.until(|map| live(map) == 3).await;
    });
}

#[test]
fn leadership_and_state_survive_kills_and_restarts() {
    let test = runtime();
    let mut quorum = Quorum::start(|_| {});
    let brokers = test.block_on(async {
        let brokers = brokers(&quorum).await;
        quorum.create_topic("orders", 6).await;
        brokers
    });
    let leader = test.block_on(quorum.leader());
    quorum.kill(leader);
    test.block_on(async {
        let next = quorum.leader().await;
        assert_ne!(next, leader);
        quorum.create_topic("payments", 3).await;
        quorum.all_see("both topics", |map| map.topics().count() == 2 && live(map) == 3).await;
    });
    quorum.restart(leader);
    test.block_on(quorum.all_see("both topics after a restart", |map| map.partitions().count() == 9));

    let before = quorum.controller(0).map();
    for index in 0..3 {
        if index == 1 { quorum.stop(index) } else { quorum.kill(index) }
    }
    for index in 0..3 {
        quorum.restart(index);
    }
    test.block_on(async {
        quorum.leader().await;
        quorum.create_topic("refunds", 3).await;
        quorum.all_see("all three topics", |map| map.partitions().count() == 12).await;
        let map = quorum.controller(0).map();
        for partition in before.partitions() {
            let after = &map.partition(partition.id).unwrap().register;
            assert!(after.set == partition.register.set && after.term >= partition.register.term);
        }
    });
    drop(brokers);
}

#[test]
fn a_controller_that_was_away_catches_up_by_snapshot_and_a_lost_table_is_rebuilt() {
    let test = runtime();
    let mut quorum = Quorum::start(|config| config.snapshot_after = 20);
    let brokers = test.block_on(brokers(&quorum));
    let leader = test.block_on(quorum.leader());
    let away = (leader + 1) % 3;
    quorum.kill(away);
    test.block_on(async {
        for number in 0..100 {
            quorum.create_topic(&format!("topic-{number}"), 1).await;
        }
    });
    quorum.restart(away);
    test.block_on(quorum.all_see("100 topics", |map| map.topics().count() == 100));
    let data = quorum.configs[away].data_dir.clone();
    assert!(data.join("snapshot").exists());

    for index in 0..3 {
        quorum.kill(index);
        std::fs::remove_dir_all(quorum.configs[index].data_dir.join("applied")).unwrap();
    }
    std::fs::create_dir(data.join("applied")).unwrap();
    std::fs::write(data.join("applied/db"), b"not sled").unwrap();
    for index in 0..3 {
        quorum.restart(index);
    }
    test.block_on(async {
        quorum.leader().await;
        quorum.all_see("100 topics after a restart", |map| map.topics().count() == 100).await;
    });
    drop(brokers);
}

#[test]
fn a_stalled_leader_is_replaced() {
    let test = runtime();
    let quorum = Quorum::start(|_| {});
    test.block_on(async {
        let brokers = brokers(&quorum).await;
        quorum.create_topic("orders", 1).await;
        let mut watcher = Watcher::start(&quorum, 1).await;
        watcher.until(|map| map.partitions().count() == 1).await;
        let partition = watcher.map.partitions().next().unwrap().clone();
        let leader = partition.register.leader.broker;
        brokers[leader.0 as usize - 1].report(vec![LeaderReport {
            topic_id: partition.id.topic.to_bytes().to_vec().into(),
            partition: partition.id.index,
            term: partition.register.term.0,
            state: LeaderState::Stalled.into(),
            log_end_offset: 0,
            ..LeaderReport::default()
        }]);
        watcher.next().await;
        let register = &watcher.map.partition(partition.id).unwrap().register;
        assert_ne!(register.leader.broker, leader);
        assert_eq!(register.term, partition.register.term.next());
    });
}

#[test]
fn changes_are_taken_by_the_leader_and_refused_with_its_address_elsewhere() {
    let test = runtime();
    let quorum = Quorum::start(|_| {});
    test.block_on(async {
        let _brokers = brokers(&quorum).await;
        let leader = quorum.leader().await;
        let ids = AllocateProducerIdsRequest { count: 100 };
        let first = quorum.client(leader).allocate_producer_ids(ids).await.unwrap().into_inner();
        let second = quorum.client(leader).allocate_producer_ids(ids).await.unwrap().into_inner();
        assert_eq!((first.first, first.count, second.first), (0, 100, 100));

        let refused = quorum.client((leader + 1) % 3).allocate_producer_ids(ids).await.unwrap_err();
        let error = ApiError::from_status(&refused);
        assert_eq!(error.code, ErrorCode::ControllerUnavailable);
        assert_eq!(error.detail("leader_endpoint"), Some(quorum.endpoint(leader)));
        assert!(error.retry_after.is_some());

        let request =
            |name: &str| CreateTopicRequest { name: name.into(), partitions: 1, ..Default::default() };
        let mut client = quorum.client(leader);
        let id = client.create_topic(request("orders")).await.unwrap().into_inner().topic_id;
        for (name, code) in [("orders", ErrorCode::TopicExists), ("a/b", ErrorCode::InvalidRequest)] {
            let status = client.create_topic(request(name)).await.unwrap_err();
            assert_eq!(ApiError::from_status(&status).code, code);
        }
        // Whoever chose the id may ask again: nobody else can have made that topic.
        let chosen = |name: &str| CreateTopicRequest { topic_id: vec![7; 16].into(), ..request(name) };
        for _ in 0..2 {
            let made = client.create_topic(chosen("again")).await.unwrap().into_inner().topic_id;
            assert_eq!(made[..], [7; 16]);
        }
        let status = client.create_topic(chosen("orders")).await.unwrap_err();
        assert_eq!(ApiError::from_status(&status).code, ErrorCode::TopicExists);
        let again = || DeleteTopicRequest { name: "again".into(), topic_id: vec![7; 16].into() };
        for _ in 0..2 {
            client.delete_topic(again()).await.unwrap();
        }
        let delete =
            |topic_id: Vec<u8>| DeleteTopicRequest { name: "orders".into(), topic_id: topic_id.into() };
        let status = client.delete_topic(delete(vec![9; 16])).await.unwrap_err();
        assert_eq!(ApiError::from_status(&status).code, ErrorCode::UnknownTopic);
        client.delete_topic(delete(id.to_vec())).await.unwrap();
        quorum.all_see("no partition", |map| map.partitions().count() == 0).await;
    });
}

#[test]
fn without_a_majority_a_change_ends_with_a_retriable_error() {
    let test = runtime();
    let mut quorum = Quorum::start(|_| {});
    let leader = test.block_on(quorum.leader());
    quorum.kill((leader + 1) % 3);
    quorum.kill((leader + 2) % 3);
    test.block_on(async {
        let ids = AllocateProducerIdsRequest { count: 1 };
        let status = quorum.client(leader).allocate_producer_ids(ids).await.unwrap_err();
        let error = ApiError::from_status(&status);
        assert!(error.code.is_retriable() && error.code.is_indefinite(), "{error}");
    });
}

#[test]
fn strangers_are_refused() {
    let test = runtime();
    let mut quorum = Quorum::start(|_| {});
    test.block_on(async {
        let _brokers = brokers(&quorum).await;
        let request = WatchControllerMetadataRequest { cluster: "other".into() };
        let status = quorum.client(0).watch_metadata(request).await.unwrap_err();
        assert_eq!(ApiError::from_status(&status).code, ErrorCode::WrongCluster);

        let mut stranger = heartbeat(7, 1);
        stranger.cluster = "other".into();
        let mut mover = heartbeat(1, 9);
        mover.zone = "zone-2".into();
        let mut client = quorum.client(0);
        let answers = client.heartbeat(tokio_stream::iter([stranger, mover, heartbeat(7, 1)])).await;
        let mut answers = answers.unwrap().into_inner();
        let refusals = ["other", "zone-2", ""];
        for expected in refusals {
            let answer = answers.message().await.unwrap().unwrap();
            assert!(answer.refusal.contains(expected), "{answer:?}");
            assert_eq!(answer.refusal.is_empty(), expected.is_empty(), "{answer:?}");
        }
    });

    let mut config = quorum.configs[0].clone();
    quorum.kill(0);
    let error = start_error("other", &config);
    assert!(matches!(error, ControllerError::Folder(FolderError::NotOurs { .. })), "{error}");
    config.id = quorum.configs[1].id;
    config.zone = quorum.configs[1].zone.clone();
    let error = start_error(CLUSTER, &config);
    assert!(matches!(error, ControllerError::Folder(FolderError::NotOurs { .. })), "{error}");
    quorum.restart(0);
    test.block_on(quorum.leader());
}

#[test]
fn a_controller_without_majority_keeps_its_term_and_does_not_disturb_the_leader() {
    let test = runtime();
    let mut quorum = Quorum::start(|_| {});
    let leader = test.block_on(quorum.leader());
    for index in (0..3).filter(|&index| index != leader) {
        quorum.kill(index);
    }
    let lonely = (leader + 1) % 3;
    quorum.kill(leader);
    quorum.restart(lonely);
    test.block_on(async {
        let (term, until) = (quorum.term(lonely).await, tokio::time::Instant::now() + Duration::from_secs(2));
        while tokio::time::Instant::now() < until {
            assert_eq!(quorum.term(lonely).await, term, "it stood for election alone");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    quorum.restart(leader);
    test.block_on(eventually("a leader of two", || async { quorum.controller(leader).leader() }));
}

#[test]
fn a_killed_leading_controller_is_replaced_by_its_broken_connections_not_by_a_timer() {
    let test = runtime();
    let timeout = Duration::from_secs(4);
    let mut quorum = Quorum::start(|config| config.election_timeout = timeout);
    for _ in 0..3 {
        let leader = test.block_on(quorum.leader());
        let term = test.block_on(quorum.term(leader));
        let killed = std::time::Instant::now();
        quorum.kill(leader);
        let next = test.block_on(quorum.leader());
        // Silence alone would take that long. A fifth of it is the lease in which voters are bound to the dead one.
        assert!(killed.elapsed() < timeout, "{:?}", killed.elapsed());
        assert!(test.block_on(quorum.term(next)) > term);
        quorum.restart(leader);
        test.block_on(quorum.leader());
    }
}

#[test]
fn a_restarted_controller_causes_no_election_and_three_cause_one_at_most() {
    let test = runtime();
    // A machine that is busy for less is not what is tested.
    let mut quorum = Quorum::start(|config| config.election_timeout = Duration::from_secs(3));
    let leader = test.block_on(quorum.leader());
    let term = test.block_on(quorum.term(leader));
    let other = (leader + 1) % 3;
    quorum.kill(other);
    quorum.restart(other);
    test.block_on(async {
        assert_eq!(quorum.leader().await, leader);
        takes_changes(&quorum).await;
        assert_eq!(quorum.term(leader).await, term);
    });
    (0..3).for_each(|index| quorum.kill(index));
    (0..3).for_each(|index| quorum.restart(index));
    test.block_on(async {
        let leader = quorum.leader().await;
        assert!(quorum.term(leader).await <= term + 1);
    });
}

#[test]
fn a_leader_that_no_majority_answers_does_not_call_itself_leader() {
    let test = runtime();
    let mut quorum = Quorum::start(|_| {});
    let leader = test.block_on(quorum.leader());
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    for other in others {
        quorum.kill(other);
    }
    let nobody = || async { quorum.controller(leader).leader().is_none().then_some(()) };
    test.block_on(eventually("an end of its leadership", nobody));
    let ids = AllocateProducerIdsRequest { count: 1 };
    let refused =
        test.block_on(async { quorum.client(leader).allocate_producer_ids(ids).await.unwrap_err() });
    assert_eq!(ApiError::from_status(&refused).code, ErrorCode::ControllerUnavailable);
    quorum.restart(others[0]);
    test.block_on(takes_changes(&quorum));
}

/// Waits until some leader carries out a change.
async fn takes_changes(quorum: &Quorum) {
    eventually("a change that is carried out", || async {
        let leader = quorum.leader().await;
        let ids = AllocateProducerIdsRequest { count: 1 };
        quorum.client(leader).allocate_producer_ids(ids).await.ok()
    })
    .await;
}
