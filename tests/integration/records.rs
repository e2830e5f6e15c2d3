//! Producing and consuming while nothing fails.

use std::time::Duration;

use holdfast_client::{Compression, Header, ProducerConfig, Record, StartAt, Until};
use holdfast_core::metadata::Durability;
use holdfast_proto::v1;
use holdfast_proto::v1::fetch_service_client::FetchServiceClient;
use holdfast_proto::v1::produce_service_client::ProduceServiceClient;
use holdfast_tests::{TestCluster, assert_holds, produce, read_all};

#[tokio::test(flavor = "multi_thread")]
async fn records_come_back_once_and_in_order_in_both_durabilities() {
    let cluster = TestCluster::start().await;
    let client = cluster.client().await;
    for (topic, durability) in [("disk", Durability::Disk), ("memory", Durability::Memory)] {
        cluster.create_topic(&client, topic, 3, durability).await;
        let producer = client.producer(topic).build().await.unwrap();
        produce(&producer, 0..3000).await;
        assert_holds(&client, topic, 0..3000).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_codec_keeps_key_value_headers_and_time() {
    let cluster = TestCluster::start().await;
    let client = cluster.client().await;
    cluster.create_topic(&client, "codecs", 1, Durability::Disk).await;
    let codecs =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
    for codec in codecs {
        let producer = client.producer("codecs").compression(codec).build().await.unwrap();
        let value = format!("{codec:?} {}", "x".repeat(2000));
        let record = Record::new(value).with_key("key").with_header("h", "1").with_header("h", "2");
        producer.send(record.with_timestamp(1_700_000_000_123)).await.unwrap().await.unwrap();
    }
    let consumer = client.consumer("codecs").start(StartAt::Beginning).stop(Until::HighWatermarkAtStart);
    let mut consumer = consumer.build().await.unwrap();
    let mut seen = 0;
    while let Some(batch) = consumer.next_batch().await {
        for record in batch.unwrap().records {
            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            assert!(value.starts_with(&format!("{:?} ", codecs[seen])), "{value}");
            assert_eq!(record.key.as_deref(), Some(&b"key"[..]));
            assert_eq!(record.timestamp, 1_700_000_000_123);
            let header = |value: &'static str| Header { key: "h".into(), value: Some(value.into()) };
            assert_eq!(record.headers, [header("1"), header("2")]);
            seen += 1;
        }
    }
    assert_eq!(seen, codecs.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_starts_at_an_offset_at_the_end_or_at_a_time() {
    let cluster = TestCluster::start().await;
    let client = cluster.client().await;
    cluster.create_topic(&client, "starts", 1, Durability::Disk).await;
    // One record per batch, so that a time leads to its own record.
    let config = ProducerConfig { linger: Duration::ZERO, ..ProducerConfig::default() };
    let producer = client.producer("starts").config(config).build().await.unwrap();
    for number in 0..20i64 {
        let record = Record::new(number.to_string()).with_timestamp(1_000_000 + number * 1000);
        producer.send(record).await.unwrap().await.unwrap();
    }
    let first = async |start: StartAt| {
        let consumer = client.consumer("starts").start(start).stop(Until::Count(1));
        let mut consumer = consumer.build().await.unwrap();
        let batch = consumer.next_batch().await.unwrap().unwrap();
        String::from_utf8(batch.records[0].value.clone().unwrap().to_vec()).unwrap()
    };
    assert_eq!(first(StartAt::Beginning).await, "0");
    let seven =
        client.list_offset("starts", 0, holdfast_client::ListOffsetAt::Timestamp(1_006_500)).await.unwrap();
    assert_eq!(first(StartAt::Offset(seven)).await, "7");
    assert_eq!(first(StartAt::Timestamp(1_006_500)).await, "7");
    let mut tail = client.consumer("starts").start(StartAt::End).build().await.unwrap();
    producer.send(Record::new("new")).await.unwrap().await.unwrap();
    let batch = tail.next_batch().await.unwrap().unwrap();
    assert_eq!(batch.records[0].value.as_deref(), Some(&b"new"[..]));
}

/// What a client in any language does with generated stubs: any broker, plain records.
#[tokio::test(flavor = "multi_thread")]
async fn any_broker_takes_plain_records_and_gives_them_back() {
    let cluster = TestCluster::start().await;
    let client = cluster.client().await;
    cluster.create_topic(&client, "plain", 1, Durability::Disk).await;
    for (number, endpoint) in cluster.bootstrap().iter().enumerate() {
        let mut produce = ProduceServiceClient::connect(format!("http://{endpoint}")).await.unwrap();
        let record = v1::Record { value: Some(format!("hello {number}").into()), ..Default::default() };
        let request =
            v1::AppendRequest { topic: "plain".into(), records: vec![record], ..Default::default() };
        produce.append(request).await.unwrap();
    }
    for endpoint in cluster.bootstrap() {
        let mut fetch = FetchServiceClient::connect(format!("http://{endpoint}")).await.unwrap();
        let request = v1::FetchRequest {
            topic: "plain".into(),
            format: v1::RecordFormat::Records.into(),
            max_wait_ms: 5000,
            ..Default::default()
        };
        let response = fetch.fetch(request).await.unwrap().into_inner();
        let values: Vec<_> = response.records.iter().map(|record| record.value.clone().unwrap()).collect();
        assert_eq!(values, ["hello 0", "hello 1", "hello 2"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_created_anew_never_shows_old_records() {
    let cluster = TestCluster::start().await;
    let client = cluster.client().await;
    cluster.create_topic(&client, "again", 2, Durability::Disk).await;
    let producer = client.producer("again").build().await.unwrap();
    produce(&producer, 0..100).await;
    client.delete_topic("again").await.unwrap();
    cluster.create_topic(&client, "again", 2, Durability::Disk).await;
    let producer = client.producer("again").build().await.unwrap();
    produce(&producer, 500..510).await;
    let mut numbers: Vec<u32> =
        read_all(&client, "again").await.into_iter().map(|(_, number)| number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (500..510).collect::<Vec<_>>());
}
