//! Retention over real sockets and files: what is beyond it goes everywhere, what is acknowledged and within stays, and a zone
//! that was away for longer comes back.

use holdfast_client::{
    Client, ConsumeError, ConsumerConfig, ErrorCode, ListOffsetAt, Producer, Record, StartAt, Until,
    WhenTrimmed,
};
use holdfast_core::Offset;
use holdfast_core::metadata::{Durability, TopicChange, TopicSpec};
use holdfast_core::retention::Retention;
use holdfast_tests::{TestCluster, eventually};

const TOPIC: &str = "kept";
/// Bytes of a value, so that a few hundred fill a segment.
const VALUE: usize = 4 << 10;
const SEGMENT: u64 = 1 << 20;

/// A topic of one partition of which 2 MiB are kept.
async fn start() -> (TestCluster, Client) {
    let cluster = TestCluster::start_as(|options| options.segment_size = SEGMENT).await;
    let client = cluster.client().await;
    let retention = Retention { time_ms: None, bytes: Some(2 * SEGMENT) };
    let spec = TopicSpec { partitions: 1, durability: Durability::Disk, retention, ..TopicSpec::default() };
    eventually("the topic is created", || async {
        client.create_topic(TOPIC, spec.clone()).await.map_err(|error| error.to_string())
    })
    .await;
    (cluster, client)
}

/// Values that say which record they are.
async fn produce(producer: &Producer, numbers: std::ops::Range<u64>) {
    let mut pending = Vec::new();
    for number in numbers {
        let mut value = vec![0x5a; VALUE];
        value[..8].copy_from_slice(&number.to_be_bytes());
        pending.push(producer.send(Record::new(value)).await.expect("room"));
    }
    for pending in pending {
        if let Err(error) = pending.await {
            panic!("not acknowledged: {}", error.source);
        }
    }
}

async fn log_start(client: &Client) -> Offset {
    client.list_offset(TOPIC, 0, ListOffsetAt::Earliest).await.unwrap()
}

async fn trimmed_above(client: &Client, least: u64) -> Offset {
    eventually(&format!("the log starts above {least}"), || async {
        let start =
            client.list_offset(TOPIC, 0, ListOffsetAt::Earliest).await.map_err(|error| error.to_string())?;
        if start.0 > least { Ok(start) } else { Err(format!("it starts at {start}")) }
    })
    .await
}

/// What the records from the first one kept on say of themselves, in order.
async fn read(client: &Client) -> Vec<u64> {
    let consumer = client.consumer(TOPIC).start(StartAt::Beginning).stop(Until::HighWatermarkAtStart);
    let mut consumer = consumer.build().await.unwrap();
    let mut numbers = Vec::new();
    while let Some(batch) = consumer.next_batch().await {
        for record in batch.unwrap().records {
            numbers.push(u64::from_be_bytes(*record.value.unwrap().first_chunk().unwrap()));
        }
    }
    numbers
}

async fn all_in_sync(client: &Client) {
    eventually("all three are in sync", || async {
        let states = client.describe_partitions(Some(TOPIC)).await.map_err(|error| error.to_string())?;
        let in_sync =
            states.iter().flat_map(|state| &state.replicas).filter(|replica| replica.in_sync).count();
        if in_sync == 3 { Ok(()) } else { Err(format!("{in_sync} are")) }
    })
    .await;
}

/// Bytes of each segment of the zone's broker.
fn segments(cluster: &TestCluster, zone: usize) -> Vec<u64> {
    let partitions = std::fs::read_dir(cluster.partitions_dir(zone)).unwrap();
    let of = |partition: std::fs::DirEntry| std::fs::read_dir(partition.path()).unwrap();
    let files = partitions.flat_map(|partition| of(partition.unwrap())).map(Result::unwrap);
    let segments = files.filter(|file| file.path().extension().is_some_and(|it| it == "log"));
    // One that goes meanwhile has none.
    segments.map(|file| file.metadata().map_or(0, |known| known.len())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_beyond_the_limit_goes_in_every_zone_and_the_rest_is_read_whole() {
    let (cluster, client) = start().await;
    let producer = client.producer(TOPIC).build().await.unwrap();
    produce(&producer, 0..2000).await;
    let start = trimmed_above(&client, 1000).await;
    for zone in 0..3 {
        eventually("the files are gone", || async {
            let left = segments(&cluster, zone).len();
            if left <= 4 { Ok(()) } else { Err(format!("{left} segments in zone {zone}")) }
        })
        .await;
    }
    let kept = read(&client).await;
    assert!(kept.windows(2).all(|pair| pair[0] + 1 == pair[1]), "a gap");
    assert_eq!(kept.last(), Some(&1999));
    assert!(kept.len() as u64 * VALUE as u64 >= 2 * SEGMENT - SEGMENT / 8, "{} records", kept.len());

    // A reader below the start is told where it is, or goes on there if that is what it wants.
    let below = client.consumer(TOPIC).start(StartAt::Offset(Offset(1))).stop(Until::Count(1));
    let error = below.build().await.unwrap().next_batch().await.unwrap().unwrap_err();
    assert!(
        matches!(error, ConsumeError::OutOfRange { log_start_offset: Some(at), .. } if at >= start),
        "{error:?}"
    );
    let config = ConsumerConfig { when_trimmed: WhenTrimmed::Skip, ..ConsumerConfig::default() };
    let below = client.consumer(TOPIC).config(config).start(StartAt::Offset(Offset(1))).stop(Until::Count(1));
    let first = below.build().await.unwrap().next_batch().await.unwrap().unwrap();
    assert!(first.records[0].offset >= start, "{}", first.records[0].offset);
}

/// Zone c is away while more is written than is kept. What it lacks is nowhere any more; it begins anew at the start of the
/// log, is in sync again, and what was acknowledged is there when it leads.
#[tokio::test(flavor = "multi_thread")]
async fn a_zone_that_was_away_for_longer_than_retention_comes_back() {
    let (cluster, client) = start().await;
    let producer = client.producer(TOPIC).build().await.unwrap();
    produce(&producer, 0..50).await;
    cluster.kill(2).await;
    produce(&producer, 50..2000).await;
    let start = trimmed_above(&client, 1000).await;
    cluster.heal(2).await;
    all_in_sync(&client).await;
    for zone in 0..2 {
        cluster.kill(zone).await;
        produce(&producer, 2000 + zone as u64 * 10..2010 + zone as u64 * 10).await;
        assert!(log_start(&client).await >= start, "the start went back with the leader of zone {zone}");
        cluster.heal(zone).await;
        all_in_sync(&client).await;
    }
    let kept = read(&client).await;
    assert!(kept.windows(2).all(|pair| pair[0] + 1 == pair[1]), "a gap");
    assert_eq!(kept.last(), Some(&2019));
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_is_changed_while_the_topic_lives() {
    let cluster = TestCluster::start_as(|options| options.segment_size = SEGMENT).await;
    let client = cluster.client().await;
    cluster.create_topic(&client, TOPIC, 1, Durability::Disk).await;
    let producer = client.producer(TOPIC).build().await.unwrap();
    produce(&producer, 0..1500).await;
    assert_eq!(log_start(&client).await, Offset(0));
    let kept = |time_ms, bytes| {
        let retention = Some(Retention { time_ms, bytes });
        TopicChange { retention, ..TopicChange::default() }
    };
    let error = client.alter_topic(TOPIC, kept(None, Some(1))).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidRequest, "{error}");
    // What is too young for it today goes with a later look.
    client.alter_topic(TOPIC, kept(Some(1000), None)).await.unwrap();
    let spec = client.map().topic_named(TOPIC).unwrap().spec.clone();
    assert_eq!(spec.retention.time_ms, Some(1000));
    // Also what is in the segment that was written to last; what comes after it is taken as ever.
    trimmed_above(&client, 1499).await;
    client.alter_topic(TOPIC, kept(None, None)).await.unwrap();
    produce(&producer, 1500..1600).await;
    let kept = read(&client).await;
    assert_eq!(kept.last(), Some(&1599));
}

/// Each replica seals its files at other moments: the followers learn that everything is trimmed while they would still append to
/// the file that holds it.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_topic_that_nobody_writes_to_nothing_is_left_in_any_zone() {
    let (cluster, client) = start().await;
    let producer = client.producer(TOPIC).build().await.unwrap();
    produce(&producer, 0..20).await;
    let retention = Some(Retention { time_ms: Some(1000), bytes: None });
    client.alter_topic(TOPIC, TopicChange { retention, ..TopicChange::default() }).await.unwrap();
    for zone in 0..3 {
        eventually("the last file is empty", || async {
            match segments(&cluster, zone).iter().sum::<u64>() {
                0 => Ok(()),
                left => Err(format!("{left} bytes of segments in zone {zone}")),
            }
        })
        .await;
    }
}
