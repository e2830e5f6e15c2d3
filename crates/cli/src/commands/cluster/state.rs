//! What can be found out about the cluster from outside: the map and the controllers as one broker knows them, the
//! partitions as their leaders do, and whether each broker answers us.
//!
//! A replica is in sync here if its leader does not say that it lags, and it holds everything that was committed when the
//! leaders were first asked: under load a healthy follower is always a few records behind the latest state.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use holdfast_client::{ApiError, Client};
use holdfast_core::metadata::{ClusterMap, Partition};
use holdfast_core::{BrokerId, ErrorCode, PartitionId, TopicId};
use holdfast_proto::convert::metadata::update_from_wire;
use holdfast_proto::v1::{BrokerState, DescribeClusterResponse, DescribePartitionsResponse, PartitionState};
use tokio::time::Instant;

use super::facts::{BrokerFact, ClusterState, CompactionFact, ControllerFact, PartitionFact, ReplicaFact};
use crate::args::Global;
use crate::commands::connect::tls;
use crate::commands::health::{Health, check};
use crate::exit::CliError;

/// How long a broker may take to say that it serves.
const HEALTH_LIMIT: Duration = Duration::from_secs(1);
/// Pause between two looks at the partitions.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How long a live replica may take to reach what was committed at the first look.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(1);

/// Asks whoever can be reached; works with every controller dead.
pub(crate) async fn observe(global: &Global, client: &Client) -> Result<ClusterState, CliError> {
    let failed = |error: &ApiError| CliError::api("asking for the state of the cluster", error);
    let answer = client.describe_cluster().await.map_err(|error| failed(&error))?;
    let map = map_of(&answer).map_err(|error| failed(&error))?;
    let answering = answering_brokers(global, &map).await?;
    let controllers = controllers(&answer);
    // Without a leader among them nobody notices a broker's death: what the map says of life is only its last word.
    let judged_by_controllers = controllers.iter().any(|controller| controller.leader);
    let up: BTreeSet<BrokerId> = map
        .brokers()
        .filter(|broker| broker.live && (judged_by_controllers || answering.contains(&broker.id)))
        .map(|broker| broker.id)
        .collect();
    let (known, standing) = describe(client, &up).await.map_err(|error| failed(&error))?;
    let partitions = map.partitions().map(|partition| partition_fact(&map, partition, &known, &up));
    let mut partitions: Vec<PartitionFact> = partitions.collect();
    let is_full = |leader: u32| standing.get(&leader).is_some_and(|broker| broker.disk_full);
    for partition in &mut partitions {
        partition.full = partition.leader.is_some_and(is_full);
    }
    let mut brokers = brokers(&map, &partitions, &up, &answering);
    for fact in &mut brokers {
        if let Some(said) = standing.get(&fact.id) {
            (fact.disk_full, fact.failed) = (said.disk_full, said.failed_replicas);
            (fact.damaged, fact.repaired_places) = (said.damaged_replicas, said.repaired_places);
            fact.compaction = CompactionFact {
                passes: said.compaction_passes,
                removed_records: said.compacted_records,
                freed_bytes: said.compacted_bytes,
            };
        }
    }
    Ok(ClusterState {
        cluster: answer.cluster,
        seen_by: answer.broker_id,
        seen_from: answer.zone,
        version: answer.version,
        controllers,
        brokers,
        partitions,
    })
}

/// The map that the answering broker holds: complete or refused.
fn map_of(answer: &DescribeClusterResponse) -> Result<ClusterMap, ApiError> {
    let refused = |problem: &str| {
        ApiError::new(ErrorCode::MetadataIncomplete, format!("broker {}: {problem}", answer.broker_id))
    };
    let update = answer.metadata.clone().ok_or_else(|| refused("sent no map"))?;
    let update = update_from_wire(update).map_err(|error| refused(&error.to_string()))?;
    let mut map = ClusterMap::default();
    map.adopt(&update).map_err(|error| refused(&error.to_string()))?;
    Ok(map)
}

async fn answering_brokers(global: &Global, map: &ClusterMap) -> Result<BTreeSet<BrokerId>, CliError> {
    let tls = tls(global)?;
    let limit = HEALTH_LIMIT.min(global.timeout);
    let asked = map.brokers().map(|broker| {
        let tls = tls.as_ref();
        async move { (broker.id, check(&broker.client_endpoint, tls, limit).await) }
    });
    let answers = join_all(asked).await.into_iter();
    Ok(answers.filter(|(_, health)| *health == Health::Serving).map(|(broker, _)| broker).collect())
}

fn controllers(answer: &DescribeClusterResponse) -> Vec<ControllerFact> {
    let fact = |controller: &holdfast_proto::v1::ControllerState| ControllerFact {
        id: controller.id,
        zone: controller.zone.clone(),
        endpoint: controller.endpoint.clone(),
        reachable: controller.reachable,
        leader: controller.leader,
        term: controller.term,
    };
    answer.controllers.iter().map(fact).collect()
}

/// Active leaders and the replicas in sync, by partition.
type Known = BTreeMap<PartitionId, Described>;

/// What brokers say of themselves.
type Standing = BTreeMap<u32, BrokerState>;

#[derive(Debug)]
struct Described {
    leader: u32,
    /// What was committed when the leader was first asked.
    committed: u64,
    in_sync: BTreeSet<u32>,
}

/// Asks the leaders, and again while replicas that are up have not reached what was committed at first.
async fn describe(client: &Client, up: &BTreeSet<BrokerId>) -> Result<(Known, Standing), ApiError> {
    let deadline = Instant::now() + CATCH_UP_LIMIT;
    let mut known = Known::new();
    loop {
        let DescribePartitionsResponse { partitions, brokers } = client.describe_brokers(None).await?;
        let settled = note(&mut known, &partitions, up);
        if settled || Instant::now() >= deadline {
            return Ok((known, brokers.into_iter().map(|broker| (broker.broker_id, broker)).collect()));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Takes in one answer; whether every replica that is up is in sync.
fn note(known: &mut Known, states: &[PartitionState], up: &BTreeSet<BrokerId>) -> bool {
    let mut settled = true;
    for state in states.iter().filter(|state| state.active) {
        let Some(topic) = TopicId::from_bytes(&state.topic_id) else { continue };
        let described = known.entry(PartitionId { topic, index: state.partition }).or_insert_with(|| {
            Described { leader: state.leader, committed: state.high_watermark, in_sync: BTreeSet::new() }
        });
        described.leader = state.leader;
        for replica in &state.replicas {
            let holds = !replica.lags && replica.acknowledged_offset >= described.committed;
            // A leader holds what it committed.
            if holds || replica.broker_id == state.leader {
                described.in_sync.insert(replica.broker_id);
            } else {
                settled &= !up.contains(&BrokerId(replica.broker_id));
            }
        }
    }
    settled
}

fn partition_fact(
    map: &ClusterMap,
    partition: &Partition,
    known: &Known,
    up: &BTreeSet<BrokerId>,
) -> PartitionFact {
    let topic = map.topic(partition.id.topic);
    let described = known.get(&partition.id);
    let replicas = partition.register.set.iter().map(|replica| {
        let in_sync = described.is_some_and(|described| described.in_sync.contains(&replica.broker.0));
        ReplicaFact {
            broker: replica.broker.0,
            zone: map.broker(replica.broker).map_or_else(String::new, |broker| broker.zone.to_string()),
            good: in_sync && up.contains(&replica.broker) && map.is_live(*replica),
        }
    });
    PartitionFact {
        topic: topic.map_or_else(|| partition.id.topic.to_string(), |topic| topic.name.clone()),
        waived: topic.is_some_and(|topic| topic.spec.zone_waiver),
        leader: described.map(|described| described.leader).filter(|leader| up.contains(&BrokerId(*leader))),
        full: false,
        replicas: replicas.collect(),
    }
}

fn brokers(
    map: &ClusterMap,
    partitions: &[PartitionFact],
    up: &BTreeSet<BrokerId>,
    answering: &BTreeSet<BrokerId>,
) -> Vec<BrokerFact> {
    let mut facts: BTreeMap<u32, BrokerFact> = map
        .brokers()
        .map(|broker| {
            let fact = BrokerFact {
                id: broker.id.0,
                zone: broker.zone.to_string(),
                endpoint: broker.client_endpoint.clone(),
                live: broker.live,
                answers: answering.contains(&broker.id),
                up: up.contains(&broker.id),
                leaders: 0,
                replicas: 0,
                in_sync: 0,
                failed: 0,
                damaged: 0,
                repaired_places: 0,
                compaction: CompactionFact::default(),
                disk_full: false,
            };
            (broker.id.0, fact)
        })
        .collect();
    for partition in partitions {
        if let Some(leader) = partition.leader.and_then(|leader| facts.get_mut(&leader)) {
            leader.leaders += 1;
        }
        for replica in &partition.replicas {
            let Some(broker) = facts.get_mut(&replica.broker) else { continue };
            broker.replicas += 1;
            broker.in_sync += usize::from(replica.good);
        }
    }
    facts.into_values().collect()
}

#[cfg(test)]
mod tests {
    use holdfast_proto::v1::ReplicaState;

    use super::*;

    fn answer(high_watermark: u64, acknowledged: [u64; 3]) -> Vec<PartitionState> {
        let replica = |(broker, offset)| ReplicaState {
            broker_id: broker,
            acknowledged_offset: offset,
            in_sync: offset >= high_watermark,
            lags: false,
        };
        vec![PartitionState {
            topic_id: vec![7; 16].into(),
            leader: 1,
            active: true,
            high_watermark,
            replicas: (1..).zip(acknowledged).map(replica).collect(),
            ..PartitionState::default()
        }]
    }

    #[test]
    fn a_follower_under_load_is_in_sync_once_it_reaches_the_first_high_watermark() {
        let up = [1, 2, 3].map(BrokerId).into();
        let mut known = Known::new();
        assert!(!note(&mut known, &answer(100, [110, 100, 90]), &up));
        assert!(note(&mut known, &answer(200, [210, 200, 190]), &up));
        assert_eq!(known.values().next().unwrap().in_sync, [1, 2, 3].into());
    }

    #[test]
    fn what_was_acknowledged_once_does_not_make_a_follower_that_lags_in_sync() {
        let up = [1, 2, 3].map(BrokerId).into();
        let mut known = Known::new();
        let mut states = answer(100, [100, 100, 100]);
        states[0].replicas[2].lags = true;
        assert!(!note(&mut known, &states, &up));
        assert_eq!(known.values().next().unwrap().in_sync, [1, 2].into());
        states[0].replicas[2].lags = false;
        assert!(note(&mut known, &states, &up));
        assert_eq!(known.values().next().unwrap().in_sync, [1, 2, 3].into());
    }

    #[test]
    fn nobody_waits_for_a_replica_that_is_down() {
        let up = [1, 2].map(BrokerId).into();
        let mut known = Known::new();
        assert!(note(&mut known, &answer(100, [110, 100, 90]), &up));
        assert_eq!(known.values().next().unwrap().in_sync, [1, 2].into());
    }
}
