use super::super::facts::{BrokerFact, CompactionFact, ControllerFact, ReplicaFact};
use super::*;

const ZONES: [&str; 3] = ["a", "b", "c"];

/// Three zones with a broker and a controller each; `down` are lost. Every partition has a replica per zone.
fn cluster(down: &[&str], partitions: usize) -> ClusterState {
    let up = |zone: &str| !down.contains(&zone);
    let first = ZONES.iter().position(|zone| up(zone));
    let controllers = (1..).zip(ZONES).map(|(id, zone)| ControllerFact {
        id,
        zone: zone.to_owned(),
        endpoint: String::new(),
        reachable: up(zone),
        leader: first == Some(id as usize - 1),
        term: 1,
    });
    let brokers = (1..).zip(ZONES).map(|(id, zone)| BrokerFact {
        id,
        zone: zone.to_owned(),
        endpoint: String::new(),
        live: up(zone),
        answers: up(zone),
        up: up(zone),
        leaders: 0,
        replicas: 0,
        in_sync: 0,
        failed: 0,
        damaged: 0,
        repaired_places: 0,
        compaction: CompactionFact::default(),
        disk_full: false,
    });
    ClusterState {
        controllers: controllers.collect(),
        brokers: brokers.collect(),
        partitions: (0..partitions).map(|_| partition(&ZONES, down)).collect(),
        ..ClusterState::default()
    }
}

fn partition(zones: &[&str], down: &[&str]) -> PartitionFact {
    let replicas = (1..).zip(zones).map(|(broker, zone)| ReplicaFact {
        broker,
        zone: (*zone).to_owned(),
        good: !down.contains(zone),
    });
    let replicas: Vec<ReplicaFact> = replicas.collect();
    let leader = replicas.iter().find(|replica| replica.good).map(|replica| replica.broker);
    PartitionFact { topic: "orders".to_owned(), waived: false, leader, full: false, replicas }
}

#[test]
fn a_whole_cluster_tolerates_any_zone() {
    for partitions in [0, 12] {
        let judgement = judge(&cluster(&[], partitions));
        assert_eq!(judgement.sentence(), "tolerates the loss of any 1 zone");
        assert_eq!((judgement.health.exit(), judgement.zone_losses_tolerated()), (exit::OK, 1));
        assert!(judgement.reasons.is_empty() && judgement.losses.len() == 3);
    }
}

#[test]
fn after_a_zone_is_lost_none_other_may_be() {
    let judgement = judge(&cluster(&["b"], 12));
    assert_eq!(judgement.sentence(), "tolerates no further loss");
    assert_eq!((judgement.health.exit(), judgement.under_replicated), (exit::WARNING, 12));
    let loss = judgement.loss_of("a").unwrap();
    assert_eq!((loss.partitions, loss.controllers), (12, true));
    assert_eq!(judgement.loss_of("b"), Some(&Loss::default()));
    assert!(judgement.reasons.iter().any(|reason| reason == "zone b is lost"));
}

#[test]
fn two_lost_zones_make_partitions_unavailable() {
    let judgement = judge(&cluster(&["b", "c"], 3));
    assert_eq!(judgement.sentence(), "partly unavailable");
    assert_eq!((judgement.health.exit(), judgement.unavailable), (exit::CRITICAL, 3));
}

#[test]
fn one_replica_behind_is_no_further_loss() {
    let mut state = cluster(&[], 3);
    state.partitions[1].replicas[2].good = false;
    let judgement = judge(&state);
    assert_eq!(judgement.sentence(), "tolerates no further loss");
    assert_eq!((judgement.health, judgement.under_replicated), (Health::Degraded, 1));
    assert_eq!(judgement.loss_of("a").unwrap().partitions, 1);
    assert_eq!(judgement.loss_of("c").unwrap().partitions, 0);
}

#[test]
fn a_partition_without_active_leader_does_not_work() {
    let mut state = cluster(&[], 3);
    state.partitions[0].leader = None;
    assert_eq!(judge(&state).health, Health::PartlyUnavailable);
}

#[test]
fn without_controllers_records_flow_and_nothing_is_tolerated() {
    let mut state = cluster(&[], 3);
    for controller in &mut state.controllers {
        (controller.reachable, controller.leader) = (false, false);
    }
    let judgement = judge(&state);
    assert_eq!(judgement.sentence(), "tolerates no further loss");
    assert_eq!((judgement.health, judgement.unavailable), (Health::Degraded, 0));
    assert!(judgement.reasons[0].contains("no controller can be reached"));
}

#[test]
fn a_dead_controller_alone_uses_up_the_tolerance() {
    let mut state = cluster(&[], 3);
    state.controllers[2].reachable = false;
    let judgement = judge(&state);
    assert_eq!(judgement.sentence(), "tolerates no further loss");
    assert!(judgement.loss_of("a").unwrap().controllers && !judgement.loss_of("c").unwrap().controllers);
}

#[test]
fn waived_topics_are_told_apart() {
    let mut state = cluster(&[], 3);
    state.partitions.push(PartitionFact {
        topic: "scratch".to_owned(),
        waived: true,
        ..partition(&["b"], &[])
    });
    let judgement = judge(&state);
    assert_eq!(judgement.sentence(), "tolerates the loss of any 1 zone");
    assert_eq!(judgement.waived, ["topic scratch of 1 partition, by loss of a zone: b stops 1"]);
    assert_eq!(judgement.loss_of("b").unwrap().waived, 1);
}

#[test]
fn two_zones_are_not_enough() {
    let mut state = cluster(&[], 0);
    state.brokers.pop();
    assert_eq!(judge(&state).sentence(), "tolerates no further loss");
}

/// Nothing is lost and nobody is down; and what is led there takes no records.
#[test]
fn a_full_disk_and_a_failed_log_are_named() {
    let mut state = cluster(&[], 3);
    state.brokers[1].disk_full = true;
    state.brokers[2].failed = 2;
    let judgement = judge(&state);
    assert_eq!(judgement.health, Health::Degraded);
    let expected = [
        "the disk of broker 2 in b is nearly full: no records are taken there",
        "2 replicas on broker 3 in c failed: look at its disk",
    ];
    assert_eq!(judgement.reasons, expected);
    assert_eq!(
        state.brokers.iter().map(BrokerFact::state).collect::<Vec<_>>(),
        ["up", "up, disk full", "up, logs failed"]
    );
    state.partitions[0].full = true;
    let judgement = judge(&state);
    assert_eq!((judgement.health, judgement.unavailable), (Health::PartlyUnavailable, 1));
}

#[test]
fn damage_that_nobody_mends_is_named_and_what_was_mended_is_not() {
    let mut state = cluster(&[], 3);
    state.brokers[0].repaired_places = 7;
    state.brokers[1].damaged = 1;
    let judgement = judge(&state);
    assert_eq!(judgement.health, Health::Degraded);
    let expected =
        ["1 replica on broker 2 in b damaged, and no other broker gave what is missing: see its log"];
    assert_eq!(judgement.reasons, expected);
    let states: Vec<_> = state.brokers.iter().map(BrokerFact::state).collect();
    assert_eq!(states, ["up", "up, logs damaged", "up"]);
}
