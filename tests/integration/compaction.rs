//! Compaction over real sockets and files: of each key the last value is left in every zone, at its offset, whatever happens
//! meanwhile; and what is old goes.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use holdfast_cli::demo::cluster::{ClusterOptions, ZONES};
use holdfast_client::{Client, ErrorCode, ListOffsetAt, Outcome, Producer, Record, StartAt, Until};
use holdfast_core::compaction::Compaction;
use holdfast_core::metadata::{Durability, TopicChange, TopicSpec};
use holdfast_core::record_batch::{Compression, RecordBatch, RecordBatchBuilder};
use holdfast_core::retention::Retention;
use holdfast_core::{BrokerId, Offset};
use holdfast_proto::compression::compress;
use holdfast_proto::v1::fetch_service_client::FetchServiceClient;
use holdfast_proto::v1::produce_service_client::ProduceServiceClient;
use holdfast_proto::{ApiError, v1};
use holdfast_tests::{TestCluster, eventually};

const TOPIC: &str = "latest";
/// Bytes of a value, so that a few hundred fill a segment.
const VALUE: usize = 4 << 10;
const SEGMENT: u64 = 1 << 20;
/// Keys that are overwritten again and again.
const KEYS: u64 = 40;
/// More than a segment and a half of records: behind so many of them nothing is in the active segment.
const SEALING: u64 = 400;

fn eager(options: &mut ClusterOptions) {
    options.segment_size = SEGMENT;
    options.compaction_interval = Some(Duration::from_millis(50));
}

fn compacted() -> TopicSpec {
    let compaction = Compaction { tombstone_delay_ms: 0, min_dirty_percent: 1 };
    TopicSpec { partitions: 1, compaction: Some(compaction), ..TopicSpec::default() }
}

async fn create(client: &Client, spec: TopicSpec) {
    eventually("the topic is created", || async {
        client.create_topic(TOPIC, spec.clone()).await.map_err(|error| error.to_string())
    })
    .await;
}

async fn start() -> (TestCluster, Client) {
    let cluster = TestCluster::start_as(eager).await;
    let client = cluster.client().await;
    create(&client, compacted()).await;
    (cluster, client)
}

/// What was written and acknowledged.
#[derive(Debug, Default)]
struct Written {
    /// By offset: key and number, `None` for a tombstone.
    records: BTreeMap<u64, (u64, Option<u64>)>,
    next: u64,
}

impl Written {
    /// Overwrites the keys in turn.
    async fn overwrite(&mut self, producer: &Producer, count: u64) {
        let numbers: Vec<_> =
            (self.next..self.next + count).map(|number| (number % KEYS, Some(number))).collect();
        self.next += count;
        self.send(producer, numbers).await;
    }

    async fn bury(&mut self, producer: &Producer, keys: std::ops::Range<u64>) {
        self.send(producer, keys.map(|key| (key, None)).collect()).await;
    }

    async fn send(&mut self, producer: &Producer, records: Vec<(u64, Option<u64>)>) {
        let mut pending = Vec::new();
        for (key, number) in records {
            let name = key.to_string();
            let record = match number {
                Some(number) => Record::new(value(number)).with_key(name),
                None => Record::tombstone(name),
            };
            pending.push(((key, number), producer.send(record).await.expect("room")));
        }
        for (record, pending) in pending {
            match pending.await {
                Ok(ack) => assert!(self.records.insert(ack.offset.0, record).is_none(), "an offset twice"),
                Err(error) => panic!("not acknowledged: {}", error.source),
            }
        }
    }

    fn last_offset(&self) -> u64 {
        *self.records.keys().next_back().unwrap()
    }

    /// By key: where its last record is, and what it says.
    fn last(&self) -> BTreeMap<u64, (u64, Option<u64>)> {
        self.records.iter().map(|(&offset, &(key, number))| (key, (offset, number))).collect()
    }

    /// That what was read is what compaction may leave: records as they were written, in order, and of each key its last one,
    /// unless that says that the key is gone.
    fn check(&self, read: &[(u64, u64, Option<u64>)]) {
        assert!(read.windows(2).all(|pair| pair[0].0 < pair[1].0), "offsets go back");
        for &(offset, key, number) in read {
            assert_eq!(self.records.get(&offset), Some(&(key, number)), "at offset {offset}");
        }
        let left: BTreeMap<u64, (u64, Option<u64>)> =
            read.iter().map(|&(offset, key, number)| (key, (offset, number))).collect();
        for (key, last) in self.last() {
            match left.get(&key) {
                Some(found) => assert_eq!(*found, last, "key {key}"),
                None => assert_eq!(last.1, None, "key {key} is gone, and nobody said so"),
            }
        }
    }
}

/// A value that says which one it is.
fn value(number: u64) -> Vec<u8> {
    let mut value = vec![0x5a; VALUE];
    value[..8].copy_from_slice(&number.to_be_bytes());
    value
}

/// All records, as (offset, key, number), as the replica of a zone has them.
async fn read(cluster: &TestCluster, zone: usize) -> Vec<(u64, u64, Option<u64>)> {
    let client = Client::builder().bootstrap(cluster.bootstrap().iter().cloned()).zone(ZONES[zone]);
    let client = client.connect().await.expect("a broker answers");
    let consumer = client.consumer(TOPIC).start(StartAt::Beginning).stop(Until::HighWatermarkAtStart);
    let mut consumer = consumer.build().await.unwrap();
    let mut records = Vec::new();
    while let Some(batch) = consumer.next_batch().await {
        for record in batch.expect("readable").records {
            let key = std::str::from_utf8(&record.key.expect("a key")).unwrap().parse().unwrap();
            let number = record.value.map(|value| u64::from_be_bytes(*value.first_chunk().unwrap()));
            records.push((record.offset.0, key, number));
        }
    }
    records
}

/// Waits until what is left in a zone is as little as wanted, and checks it.
async fn left_in(
    cluster: &TestCluster,
    zone: usize,
    written: &Written,
    missing: &str,
    wanted: impl Fn(&[(u64, u64, Option<u64>)]) -> bool,
) {
    eventually(&format!("in zone {}: {missing}", ZONES[zone]), || async {
        let read = read(cluster, zone).await;
        written.check(&read);
        let (first, last) = (read.first(), read.last());
        if wanted(&read) { Ok(()) } else { Err(format!("{} records from {first:?} to {last:?}", read.len())) }
    })
    .await;
}

/// Nothing is left below the active segment but the last record of each key there.
fn few(read: &[(u64, u64, Option<u64>)]) -> bool {
    (read.len() as u64) < KEYS + SEALING
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

#[tokio::test(flavor = "multi_thread")]
async fn of_each_key_the_last_value_is_left_in_every_zone_and_restarts_keep_it() {
    let (cluster, client) = start().await;
    let producer = client.producer(TOPIC).build().await.unwrap();
    let mut written = Written::default();
    written.overwrite(&producer, 2000).await;
    for zone in 0..3 {
        left_in(&cluster, zone, &written, "old values go", few).await;
    }
    let brokers = client.describe_brokers(None).await.unwrap().brokers;
    let told = |broker: &v1::BrokerState| broker.compaction_passes > 0 && broker.compacted_bytes > SEGMENT;
    assert!(brokers.len() == 3 && brokers.iter().all(told), "{brokers:?}");
    // The producer goes on behind what was compacted, under the same id, also at the next leader.
    written.overwrite(&producer, 10).await;
    for zone in 0..3 {
        cluster.kill(zone).await;
        written.overwrite(&producer, 20).await;
        cluster.heal(zone).await;
        all_in_sync(&client).await;
        written.overwrite(&producer, 20).await;
        left_in(&cluster, zone, &written, "what was gone stays gone", few).await;
    }
    assert_eq!(client.list_offset(TOPIC, 0, ListOffsetAt::Earliest).await.unwrap(), Offset(0));
    let latest = client.list_offset(TOPIC, 0, ListOffsetAt::Latest).await.unwrap();
    assert!(latest.0 > written.last_offset());
}

/// A key that was deleted shows nothing in the end, in no zone; also not in one that was away when it was deleted.
#[tokio::test(flavor = "multi_thread")]
async fn a_tombstone_goes_last_and_its_key_stays_gone_also_where_nobody_was_home() {
    let (cluster, client) = start().await;
    let producer = client.producer(TOPIC).build().await.unwrap();
    let mut written = Written::default();
    written.overwrite(&producer, 1000).await;
    for zone in 0..3 {
        left_in(&cluster, zone, &written, "old values go", few).await;
    }
    cluster.kill(2).await;
    written.bury(&producer, 0..10).await;
    let alive: Vec<_> = (0..SEALING).map(|number| (10 + number % 5, Some(number))).collect();
    written.send(&producer, alive.clone()).await;
    let no_value =
        |read: &[(u64, u64, Option<u64>)]| read.iter().all(|(_, key, number)| *key >= 10 || number.is_none());
    for zone in 0..2 {
        left_in(&cluster, zone, &written, "values of deleted keys go", no_value).await;
        let tombstones = read(&cluster, zone).await.iter().filter(|(_, _, number)| number.is_none()).count();
        assert_eq!(tombstones, 10, "zone {zone} forgot what zone c has not heard");
    }
    cluster.heal(2).await;
    all_in_sync(&client).await;
    let mut rounds = 0;
    let gone = |read: &[(u64, u64, Option<u64>)]| read.iter().all(|(_, key, _)| *key >= 10);
    // A pass begins when there is something new, and learns what the others have cleaned.
    while !gone(&read(&cluster, 0).await)
        || !gone(&read(&cluster, 1).await)
        || !gone(&read(&cluster, 2).await)
    {
        rounds += 1;
        assert!(rounds < 20, "tombstones stay for ever: {:?}", read(&cluster, 0).await);
        written.send(&producer, alive.clone()).await;
        for zone in 0..3 {
            left_in(&cluster, zone, &written, "values of deleted keys go", no_value).await;
        }
    }
    for zone in 0..3 {
        written.check(&read(&cluster, zone).await);
    }
}

/// Zone c is away while everything that it has is overwritten and compacted, and leads in the end. A new broker then copies
/// what is left.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_and_who_is_new_copy_what_is_left() {
    let (cluster, client) = start().await;
    let producer = client.producer(TOPIC).build().await.unwrap();
    let mut written = Written::default();
    written.overwrite(&producer, 300).await;
    cluster.kill(2).await;
    written.overwrite(&producer, 1500).await;
    for zone in 0..2 {
        left_in(&cluster, zone, &written, "old values go", few).await;
    }
    cluster.heal(2).await;
    all_in_sync(&client).await;
    left_in(&cluster, 2, &written, "it has caught up, and old values go", few).await;

    let spare = cluster.spare(9, 2).await;
    eventually("the new broker is known", || async {
        if client.map().broker(spare.id()).is_some_and(|broker| broker.live) {
            Ok(())
        } else {
            Err("not yet")
        }
    })
    .await;
    let brokers = [BrokerId(1), BrokerId(2), spare.id()];
    eventually("the replica moves", || async {
        client.move_replicas(TOPIC, 0, &brokers).await.map_err(|error| error.to_string())
    })
    .await;
    eventually("the new broker is a member, and nobody else is being left", || async {
        let map = client.map();
        let topic = map.topic_named(TOPIC).ok_or("no topic")?.id;
        let register = map.partitions_of(topic).next().ok_or("no partition")?.register.clone();
        let member = register.set.iter().any(|replica| replica.broker == spare.id());
        if member && register.prev.is_none() && register.target.is_none() { Ok(()) } else { Err("not yet") }
    })
    .await;
    written.overwrite(&producer, 20).await;
    all_in_sync(&client).await;
    left_in(&cluster, 2, &written, "the new broker has what is left", few).await;
    drop(spare);
}

/// Zones are killed while every broker compacts what is written all the time, by a producer that never notices.
#[tokio::test(flavor = "multi_thread")]
async fn kills_in_the_middle_of_passes_lose_and_revive_nothing() {
    let (cluster, client) = start().await;
    let producer = client.producer(TOPIC).build().await.unwrap();
    let mut written = Written::default();
    written.overwrite(&producer, 800).await;
    for round in 0..6 {
        let zone = round % 3;
        written.bury(&producer, 0..5).await;
        cluster.kill(zone).await;
        written.overwrite(&producer, 500).await;
        for other in (0..3).filter(|other| *other != zone) {
            written.check(&read(&cluster, other).await);
        }
        cluster.heal(zone).await;
        written.overwrite(&producer, 300).await;
        all_in_sync(&client).await;
        written.check(&read(&cluster, zone).await);
    }
    for zone in 0..3 {
        left_in(&cluster, zone, &written, "old values go", few).await;
    }
}

/// Without a key nothing is appended, whoever asks and however it is packed; what else was asked for at the same time neither.
#[tokio::test(flavor = "multi_thread")]
async fn records_without_a_key_are_refused() {
    let (cluster, client) = start().await;
    let producer = client.producer(TOPIC).build().await.unwrap();
    let error = producer.send(Record::new("no key")).await.unwrap_err();
    assert_eq!((error.outcome, error.source.code), (Outcome::Failed, ErrorCode::InvalidRecord));

    let endpoint = format!("http://{}", cluster.bootstrap()[1]);
    let mut append = ProduceServiceClient::connect(endpoint.clone()).await.unwrap();
    let mut refused = async |request: v1::AppendRequest| {
        let request =
            v1::AppendRequest { topic: TOPIC.into(), routing: v1::Routing::Forward.into(), ..request };
        ApiError::from_status(&append.append(request).await.expect_err("must be refused"))
    };
    for codec in
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd]
    {
        let batch = half_keyed(codec).bytes().clone();
        let error = refused(v1::AppendRequest { batch, ..Default::default() }).await;
        assert_eq!(error.code, ErrorCode::InvalidRecord, "{codec:?}: {error}");
        assert!(error.message.contains("key") && !error.code.is_retriable() && !error.code.is_indefinite());
    }
    let keyless = v1::Record { value: Some(Bytes::from_static(b"v")), ..Default::default() };
    let error = refused(v1::AppendRequest { records: vec![keyless], ..Default::default() }).await;
    assert_eq!(error.code, ErrorCode::InvalidRecord);

    let mut written = Written::default();
    written.bury(&producer, 3..4).await;
    assert_eq!(read(&cluster, 0).await.len(), 1, "only what was taken is there");

    // A topic that is not compacted takes them, from the moment on that it is not.
    let off = TopicChange { compaction: Some(None), ..TopicChange::default() };
    client.alter_topic(TOPIC, off).await.unwrap();
    let accepted = async || {
        producer
            .send(Record::new("no key"))
            .await
            .map_err(|error| error.to_string())?
            .await
            .map_err(|error| error.to_string())
    };
    eventually("records without a key are taken", accepted).await;
}

fn half_keyed(codec: Compression) -> RecordBatch {
    let mut builder = RecordBatchBuilder::new();
    builder.push(1, Some(b"key"), Some(b"value"), &[]).unwrap();
    builder.push(1, None, Some(b"value"), &[]).unwrap();
    let built: Result<_, Box<dyn std::error::Error>> =
        builder.finish_with(None, codec, |section| Ok(compress(codec, section)?));
    built.unwrap()
}

/// Without a decoder, and by time.
#[tokio::test(flavor = "multi_thread")]
async fn plain_readers_and_lookups_by_time_pass_what_is_gone() {
    let (cluster, client) = start().await;
    let producer = client.producer(TOPIC).build().await.unwrap();
    let mut written = Written::default();
    written.overwrite(&producer, 1200).await;
    left_in(&cluster, 0, &written, "old values go", few).await;
    let mut fetch = FetchServiceClient::connect(format!("http://{}", cluster.bootstrap()[0])).await.unwrap();
    let (mut next, mut read) = (0, Vec::new());
    loop {
        let request = v1::FetchRequest {
            topic: TOPIC.into(),
            offset: next,
            routing: v1::Routing::Forward.into(),
            format: v1::RecordFormat::Records.into(),
            // One batch: of some nothing is left.
            max_bytes: 1,
            ..Default::default()
        };
        let answer = fetch.fetch(request).await.unwrap().into_inner();
        if answer.records.is_empty() {
            assert_eq!(answer.next_offset, answer.high_watermark, "an answer without records is the end");
            break;
        }
        assert!(answer.next_offset > next);
        next = answer.next_offset;
        for record in answer.records {
            let number = record.value.map(|value| u64::from_be_bytes(*value.first_chunk().unwrap()));
            let key = std::str::from_utf8(&record.key.unwrap()).unwrap().parse().unwrap();
            read.push((record.offset, key, number));
        }
    }
    written.check(&read);
    let first = client.list_offset(TOPIC, 0, ListOffsetAt::Timestamp(1)).await.unwrap();
    assert!(first.0 <= read[0].0, "the first record that is left is {} and found is {first}", read[0].0);
    let never = client.list_offset(TOPIC, 0, ListOffsetAt::Timestamp(i64::MAX)).await.unwrap();
    assert_eq!(never, client.list_offset(TOPIC, 0, ListOffsetAt::Latest).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_becomes_compacted_and_retained_while_it_lives_or_not_at_all() {
    let cluster = TestCluster::start_as(eager).await;
    let client = cluster.client().await;
    create(&client, TopicSpec { durability: Durability::Disk, compaction: None, ..compacted() }).await;
    let producer = client.producer(TOPIC).build().await.unwrap();
    let mut written = Written::default();
    written.overwrite(&producer, 1200).await;
    assert_eq!(read(&cluster, 0).await.len(), 1200);
    let compaction = Compaction { tombstone_delay_ms: 1000, min_dirty_percent: 1 };
    let retention = Retention { time_ms: None, bytes: Some(1) };
    let bad = TopicChange { retention: Some(retention), compaction: Some(Some(compaction)) };
    assert_eq!(client.alter_topic(TOPIC, bad).await.unwrap_err().code, ErrorCode::InvalidRequest);
    assert_eq!(client.map().topic_named(TOPIC).unwrap().spec.compaction, None, "half of it was done");

    let retention = Some(Retention { time_ms: None, bytes: Some(64 << 20) });
    let both = TopicChange { retention, compaction: Some(Some(compaction)) };
    client.alter_topic(TOPIC, both).await.unwrap();
    let spec = client.map().topic_named(TOPIC).unwrap().spec.clone();
    assert_eq!((spec.compaction, Some(spec.retention)), (Some(compaction), retention));
    for zone in 0..3 {
        left_in(&cluster, zone, &written, "old values go", few).await;
    }
}
