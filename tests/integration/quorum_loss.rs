//! What a leader says that no majority can hear: nothing is acknowledged, and nobody waits for it in vain.

use std::time::{Duration, Instant};

use holdfast_client::{Outcome, ProducerConfig, Record};
use holdfast_core::ErrorCode;
use holdfast_core::metadata::Durability;
use holdfast_proto::ApiError;
use holdfast_proto::v1::produce_service_client::ProduceServiceClient;
use holdfast_proto::v1::{self, AppendRequest, Routing};
use holdfast_tests::{PATIENCE, TestCluster, assert_holds, eventually, led_in, produce};

/// Appends one record at the broker given, and says what came of it and when.
async fn append(endpoint: &str, topic: &str, value: &str) -> (Result<(), ApiError>, Duration) {
    let mut client = ProduceServiceClient::connect(format!("http://{endpoint}")).await.expect("it listens");
    let record = v1::Record { value: Some(value.to_owned().into()), ..v1::Record::default() };
    let request = AppendRequest {
        topic: topic.to_owned(),
        routing: Routing::Redirect.into(),
        timeout_ms: 30_000,
        records: vec![record],
        ..AppendRequest::default()
    };
    let asked = Instant::now();
    let answer = client.append(request).await;
    (answer.map(drop).map_err(|status| ApiError::from_status(&status)), asked.elapsed())
}

/// A request that was appended hears within the quorum timeout that its outcome is unknown; from then on the leader
/// refuses before it appends. What it kept may be committed later, and is not lost by being called unknown.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_a_quorum_answers_what_waits_as_unknown() {
    let cluster = TestCluster::start().await;
    let client = cluster.client().await;
    cluster.create_topic(&client, "cut", 1, Durability::Disk).await;
    let producer = client.producer("cut").build().await.unwrap();
    produce(&producer, 0..10).await;
    let leader = (0..3).find(|&zone| led_in(&client, "cut", zone) == 1).expect("a leader");
    for zone in (0..3).filter(|&zone| zone != leader) {
        cluster.kill(zone).await;
    }
    let endpoint = &cluster.bootstrap()[leader];
    let (waited, after) = append(endpoint, "cut", "10").await;
    assert_eq!(waited.unwrap_err().code, ErrorCode::NotEnoughReplicasAfterAppend);
    assert!(after < Duration::from_millis(3500), "answered after {after:?}");
    let (refused, after) = append(endpoint, "cut", "refused").await;
    assert_eq!(refused.unwrap_err().code, ErrorCode::NotEnoughReplicas);
    assert!(after < Duration::from_secs(1), "refused after {after:?}");
    cluster.heal((leader + 1) % 3).await;
    produce(&producer, 11..20).await;
    assert_holds(&client, "cut", 0..20).await;
}

/// The client goes on with the same sequence numbers while it has time, and then says what it knows: of a batch that
/// may be in the leader's log that it is unknown, of one that no leader ever took that it failed.
#[tokio::test(flavor = "multi_thread")]
async fn the_producer_ends_with_the_right_outcome_without_a_quorum() {
    let cluster = TestCluster::start().await;
    let client = cluster.client().await;
    cluster.create_topic(&client, "outcome", 1, Durability::Disk).await;
    let config = ProducerConfig {
        linger: Duration::from_millis(1),
        request_timeout: Duration::from_secs(4),
        delivery_timeout: Duration::from_secs(6),
        ..ProducerConfig::default()
    };
    let producer = client.producer("outcome").config(config).build().await.unwrap();
    produce(&producer, 0..10).await;
    let leader = (0..3).find(|&zone| led_in(&client, "outcome", zone) == 1).expect("a leader");
    for zone in (0..3).filter(|&zone| zone != leader) {
        cluster.kill(zone).await;
    }
    let appended = producer.send(Record::new("10").with_partition(0)).await.unwrap();
    let endpoint = cluster.bootstrap()[leader].clone();
    eventually("the leader refuses", || async {
        match append(&endpoint, "outcome", "refused").await.0 {
            Err(error) if error.code == ErrorCode::NotEnoughReplicas => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    eventually("a record that no leader ever took is known to be nowhere", || async {
        let fresh = client.producer("outcome").linger(Duration::from_millis(1));
        let fresh = fresh.request_timeout(Duration::from_secs(1)).delivery_timeout(Duration::from_secs(2));
        let fresh = fresh.build().await.unwrap();
        let never = fresh.send(Record::new("never").with_partition(0)).await.unwrap();
        let never = tokio::time::timeout(PATIENCE, never).await.unwrap().unwrap_err();
        match never.outcome {
            Outcome::Failed => Ok(()),
            // An attempt was on its way when the time was up.
            Outcome::Unknown => Err(never.source.to_string()),
        }
    })
    .await;
    let appended = tokio::time::timeout(PATIENCE, appended).await.unwrap().unwrap_err();
    assert_eq!(appended.outcome, Outcome::Unknown, "{}", appended.source);
    assert_eq!(producer.stats().acked, 10, "a lone leader acknowledged");
}
