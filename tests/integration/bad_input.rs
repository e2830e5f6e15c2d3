//! What is wrong is refused with one clear, typed error, and changes nothing.

use bytes::{Bytes, BytesMut};
use holdfast_client::{ErrorCode, ListOffsetAt, Outcome, Record};
use holdfast_core::metadata::{Durability, TopicSpec};
use holdfast_core::record_batch::RecordBatchBuilder;
use holdfast_proto::v1::fetch_service_client::FetchServiceClient;
use holdfast_proto::v1::produce_service_client::ProduceServiceClient;
use holdfast_proto::{ApiError, v1};
use holdfast_tests::{TestCluster, produce, read_all};

fn batch(value: &[u8]) -> Bytes {
    let mut builder = RecordBatchBuilder::new();
    builder.push(1, None, Some(value), &[]).unwrap();
    builder.build(None).unwrap().bytes().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_and_append_nothing() {
    let cluster = TestCluster::start().await;
    let client = cluster.client().await;
    cluster.create_topic(&client, "strict", 1, Durability::Disk).await;
    let endpoint = format!("http://{}", cluster.bootstrap()[0]);
    let mut append = ProduceServiceClient::connect(endpoint.clone()).await.unwrap();
    let mut refused = async |request: v1::AppendRequest| {
        let request = v1::AppendRequest { routing: v1::Routing::Forward.into(), ..request };
        ApiError::from_status(&append.append(request).await.expect_err("must be refused"))
    };
    let request = |batch: Bytes| v1::AppendRequest { topic: "strict".into(), batch, ..Default::default() };

    let mut corrupt = BytesMut::from(&batch(b"value")[..]);
    let last = corrupt.len() - 1;
    corrupt[last] ^= 1;
    assert_eq!(refused(request(corrupt.freeze())).await.code, ErrorCode::CorruptBatch);
    assert_eq!(refused(request(Bytes::from_static(b"no batch at all"))).await.code, ErrorCode::CorruptBatch);
    let two = [batch(b"one"), batch(b"two")].concat();
    assert_eq!(refused(request(two.into())).await.code, ErrorCode::CorruptBatch);
    let oversize = batch(&vec![7; 5 << 20]);
    assert_eq!(refused(request(oversize)).await.code, ErrorCode::BatchTooLarge);
    assert_eq!(refused(request(Bytes::new())).await.code, ErrorCode::InvalidRequest);
    let unknown = v1::AppendRequest { topic: "nowhere".into(), ..request(batch(b"x")) };
    assert_eq!(refused(unknown).await.code, ErrorCode::UnknownTopic);
    let other_id = v1::AppendRequest { topic_id: vec![9; 16].into(), ..request(batch(b"x")) };
    assert_eq!(refused(other_id).await.code, ErrorCode::UnknownTopic);
    let beyond = v1::AppendRequest { partition: 1, ..request(batch(b"x")) };
    assert_eq!(refused(beyond).await.code, ErrorCode::UnknownPartition);
    let control = holdfast_core::record_batch::RecordBatch::marker(
        holdfast_core::Offset(0),
        holdfast_core::LeaderEpoch::ZERO,
        holdfast_core::BrokerId(1),
    );
    assert_eq!(refused(request(control.bytes().clone())).await.code, ErrorCode::InvalidRequest);

    let mut fetch = FetchServiceClient::connect(endpoint).await.unwrap();
    let bad_offset = v1::FetchRequest { topic: "strict".into(), offset: 1 << 40, ..Default::default() };
    let error = ApiError::from_status(&fetch.fetch(bad_offset).await.expect_err("out of range"));
    assert_eq!(error.code, ErrorCode::OffsetOutOfRange);
    assert!(error.detail("log_start_offset").is_some() && error.detail("high_watermark").is_some());

    let producer = client.producer("strict").build().await.unwrap();
    produce(&producer, 0..3).await;
    assert_eq!(read_all(&client, "strict").await, [(0, 0), (0, 1), (0, 2)], "only what was taken is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_cannot_be_are_refused() {
    let cluster = TestCluster::start().await;
    let client = cluster.client().await;
    cluster.create_topic(&client, "taken", 1, Durability::Disk).await;
    let refused = async |name: &str, spec: TopicSpec| client.create_topic(name, spec).await.unwrap_err().code;
    let spec = TopicSpec::default;
    assert_eq!(refused("taken", spec()).await, ErrorCode::TopicExists);
    assert_eq!(refused("no/slash", spec()).await, ErrorCode::InvalidRequest);
    assert_eq!(refused("..", spec()).await, ErrorCode::InvalidRequest);
    assert_eq!(refused("none", TopicSpec { partitions: 0, ..spec() }).await, ErrorCode::InvalidRequest);
    assert_eq!(refused("two", TopicSpec { replication: 2, ..spec() }).await, ErrorCode::InvalidRequest);
    assert_eq!(refused("four", TopicSpec { replication: 4, ..spec() }).await, ErrorCode::PlacementImpossible);
    let waived = TopicSpec { replication: 1, zone_waiver: true, ..spec() };
    client.create_topic("waived", waived).await.expect("a waiver is a waiver");
    assert_eq!(client.delete_topic("nowhere").await.unwrap_err().code, ErrorCode::UnknownTopic);
    let missing = client.list_offset("nowhere", 0, ListOffsetAt::Earliest).await.unwrap_err();
    assert_eq!(missing.code, ErrorCode::UnknownTopic);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversize_record_is_certainly_not_stored() {
    let cluster = TestCluster::start().await;
    let client = cluster.client().await;
    cluster.create_topic(&client, "large", 1, Durability::Disk).await;
    let producer = client.producer("large").build().await.unwrap();
    // Within the client's own limit, above the broker's.
    let error = match producer.send(Record::new(vec![0; 5 << 20])).await {
        Ok(pending) => pending.await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!((error.outcome, error.source.code), (Outcome::Failed, ErrorCode::BatchTooLarge));
    producer.send(Record::new("7")).await.unwrap().await.expect("the producer goes on");
    assert_eq!(read_all(&client, "large").await, [(0, 7)]);
}
