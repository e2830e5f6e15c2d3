//! The consumer against a scripted cluster: every record once and in order, whatever fails.

use std::time::Duration;

use holdfast_core::record_batch::{RecordBatch, RecordBatchBuilder};
use tokio::time::timeout;

use super::*;
use crate::mock::{FetchFault, MockCluster, TOPIC};

const LONG: Duration = Duration::from_secs(20);

fn batch(first: usize, count: usize) -> RecordBatch {
    let mut builder = RecordBatchBuilder::new();
    for number in first..first + count {
        builder.push(number as i64, None, Some(format!("{number}").as_bytes()), &[]).unwrap();
    }
    builder.build(None).unwrap()
}

/// Ten batches of ten records.
fn fill(cluster: &MockCluster, partition: u32) {
    for number in 0..10 {
        cluster.put(partition, &batch(number * 10, 10));
    }
}

fn small_fetches() -> ConsumerConfig {
    ConsumerConfig { max_bytes: 1024, max_wait: Duration::from_millis(100), ..ConsumerConfig::default() }
}

/// Offsets read from one partition, whose values say the same; ends with the consumer or the first error.
async fn offsets(consumer: &mut Consumer) -> Result<Vec<u64>, ConsumeError> {
    let mut offsets = Vec::new();
    while let Some(batch) = timeout(LONG, consumer.next_batch()).await.expect("a batch in time") {
        for record in batch?.records {
            assert_eq!(record.value.unwrap(), record.offset.to_string());
            offsets.push(record.offset.0);
        }
    }
    Ok(offsets)
}

async fn reader(cluster: &MockCluster, start: StartAt, until: Until) -> Consumer {
    let client = cluster.client().await;
    client.consumer(TOPIC).config(small_fetches()).start(start).stop(until).build().await.unwrap()
}

#[tokio::test]
async fn reads_to_the_high_watermark_and_ends() {
    let cluster = MockCluster::start(1, 1).await;
    fill(&cluster, 0);
    let mut consumer = reader(&cluster, StartAt::Beginning, Until::HighWatermarkAtStart).await;
    assert_eq!(offsets(&mut consumer).await.unwrap(), (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn starts_inside_a_batch_and_stops_inside_another() {
    let cluster = MockCluster::start(1, 1).await;
    fill(&cluster, 0);
    let mut consumer = reader(&cluster, StartAt::Offset(Offset(13)), Until::Count(25)).await;
    assert_eq!(offsets(&mut consumer).await.unwrap(), (13..38).collect::<Vec<_>>());
    let mut consumer = reader(&cluster, StartAt::Timestamp(35), Until::Count(1)).await;
    assert_eq!(offsets(&mut consumer).await.unwrap(), [30]);
}

#[tokio::test]
async fn new_records_arrive_by_long_poll() {
    let cluster = MockCluster::start(1, 1).await;
    fill(&cluster, 0);
    let mut consumer = reader(&cluster, StartAt::End, Until::Count(10)).await;
    let put = async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        cluster.put(0, &batch(100, 10));
    };
    let (read, ()) = tokio::join!(offsets(&mut consumer), put);
    assert_eq!(read.unwrap(), (100..110).collect::<Vec<_>>());
}

/// Of a hundred records six are left: in batches with gaps, between stretches of which nothing is left, and behind the last.
#[tokio::test]
async fn a_compacted_partition_is_read_from_anywhere_to_its_end() {
    let cluster = MockCluster::start(1, 1).await;
    fill(&cluster, 0);
    let left = [3, 7, 40, 41, 49, 63];
    cluster.compact(0, |offset| left.contains(&offset));
    assert_eq!(cluster.log(0).len(), 6, "three batches with records, and a filler behind each");
    for start in [0, 3, 4, 8, 25, 39, 40, 42, 62, 63, 64, 70, 99, 100] {
        let mut consumer =
            reader(&cluster, StartAt::Offset(Offset(start)), Until::HighWatermarkAtStart).await;
        let expected: Vec<u64> = left.iter().copied().filter(|offset| *offset >= start).collect();
        assert_eq!(offsets(&mut consumer).await.unwrap(), expected, "from {start}");
    }
    let mut consumer = reader(&cluster, StartAt::Beginning, Until::Count(4)).await;
    let mut batch = timeout(LONG, consumer.next_batch()).await.unwrap().unwrap().unwrap();
    assert_eq!((batch.records.len(), batch.next_offset), (2, Offset(10)));
    batch = timeout(LONG, consumer.next_batch()).await.unwrap().unwrap().unwrap();
    assert_eq!((batch.records.len(), batch.next_offset), (2, Offset(49)), "the count ends inside a batch");
    assert!(consumer.next_batch().await.is_none());
}

/// Answers in which there is no record are no reason to wait, to ask elsewhere, or to ask for the same again.
#[tokio::test]
async fn stretches_without_records_are_passed_and_what_comes_behind_is_read() {
    let cluster = MockCluster::start(1, 1).await;
    fill(&cluster, 0);
    cluster.compact(0, |_| false);
    let mut consumer = reader(&cluster, StartAt::Beginning, Until::Count(10)).await;
    cluster.put(0, &batch(100, 10));
    assert_eq!(offsets(&mut consumer).await.unwrap(), (100..110).collect::<Vec<_>>());
    assert!(cluster.fetched_from().len() <= 3, "{:?}", cluster.fetched_from());
}

#[tokio::test]
async fn all_partitions_are_merged() {
    let cluster = MockCluster::start(3, 3).await;
    (0..3).for_each(|partition| fill(&cluster, partition));
    let mut consumer = reader(&cluster, StartAt::Beginning, Until::HighWatermarkAtStart).await;
    let mut next = [0; 3];
    while let Some(batch) = timeout(LONG, consumer.next_batch()).await.unwrap() {
        let batch = batch.unwrap();
        for record in batch.records {
            assert_eq!(record.offset.0, next[batch.partition as usize]);
            next[batch.partition as usize] += 1;
        }
    }
    assert_eq!(next, [100; 3]);
}

#[tokio::test]
async fn failover_skips_and_repeats_nothing() {
    let mut cluster = MockCluster::start(3, 1).await;
    fill(&cluster, 0);
    let mut consumer = reader(&cluster, StartAt::Beginning, Until::Count(200)).await;
    let mut read = Vec::new();
    while read.len() < 50 {
        let batch = timeout(LONG, consumer.next_batch()).await.unwrap().unwrap().unwrap();
        read.extend(batch.records.into_iter().map(|record| record.offset.0));
    }
    cluster.kill(0);
    cluster.move_leader(0, 1);
    cluster.publish();
    (10..20).for_each(|number| cluster.put(0, &batch(number * 10, 10)));
    cluster.fetch_fault(1, [FetchFault::Refuse(ApiError::new(ErrorCode::Overloaded, "as scripted"))]);
    // Moved again, and nobody told: the refusal names the leader.
    cluster.move_leader(0, 2);
    read.extend(offsets(&mut consumer).await.unwrap());
    assert_eq!(read, (0..200).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_gap_is_an_error() {
    let cluster = MockCluster::start(1, 1).await;
    fill(&cluster, 0);
    cluster.fetch_fault(0, [FetchFault::Skip]);
    let mut consumer = reader(&cluster, StartAt::Beginning, Until::Count(100)).await;
    let error = offsets(&mut consumer).await.unwrap_err();
    assert!(matches!(error, ConsumeError::Decode { source: DecodeError::NotDense { .. }, .. }), "{error:?}");
    assert!(consumer.next_batch().await.is_none(), "its only partition has ended");
}

#[tokio::test]
async fn a_bad_checksum_is_an_error() {
    let cluster = MockCluster::start(1, 1).await;
    fill(&cluster, 0);
    cluster.fetch_fault(0, [FetchFault::Garble]);
    let mut consumer = reader(&cluster, StartAt::Beginning, Until::Count(100)).await;
    let error = offsets(&mut consumer).await.unwrap_err();
    assert!(matches!(error, ConsumeError::Decode { source: DecodeError::Batch { .. }, .. }), "{error:?}");
}

#[tokio::test]
async fn an_offset_that_is_gone_is_an_error_with_the_range() {
    let cluster = MockCluster::start(1, 1).await;
    let error = ApiError::new(ErrorCode::OffsetOutOfRange, "gone").with("log_start_offset", 40);
    cluster.fetch_fault(0, [FetchFault::Refuse(error.with("high_watermark", 90))]);
    let mut consumer = reader(&cluster, StartAt::Offset(Offset(5)), Until::Never).await;
    let error = offsets(&mut consumer).await.unwrap_err();
    let ConsumeError::OutOfRange { position, log_start_offset, high_watermark, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!((position, log_start_offset, high_watermark), (Offset(5), Some(Offset(40)), Some(Offset(90))));
}

fn trimmed_to(start: u64) -> FetchFault {
    let error = ApiError::new(ErrorCode::OffsetOutOfRange, "gone").with("log_start_offset", start);
    FetchFault::Refuse(error.with("high_watermark", 100))
}

#[tokio::test]
async fn who_begins_with_the_first_record_kept_begins_there_although_it_moves() {
    let cluster = MockCluster::start(1, 1).await;
    fill(&cluster, 0);
    cluster.fetch_fault(0, [trimmed_to(40), trimmed_to(50)]);
    let mut consumer = reader(&cluster, StartAt::Beginning, Until::Count(20)).await;
    assert_eq!(offsets(&mut consumer).await.unwrap(), (50..70).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_was_trimmed_is_skipped_on_request_only() {
    let cluster = MockCluster::start(1, 1).await;
    fill(&cluster, 0);
    let client = cluster.client().await;
    let config = ConsumerConfig { when_trimmed: crate::WhenTrimmed::Skip, ..small_fetches() };
    cluster.fetch_fault(0, [trimmed_to(40)]);
    let builder = client.consumer(TOPIC).config(config).start(StartAt::Offset(Offset(5)));
    let mut consumer = builder.stop(Until::Count(10)).build().await.unwrap();
    assert_eq!(offsets(&mut consumer).await.unwrap(), (40..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_new_leader_that_knows_less_of_the_high_watermark_is_waited_for() {
    let cluster = MockCluster::start(1, 1).await;
    fill(&cluster, 0);
    let behind = ApiError::new(ErrorCode::OffsetOutOfRange, "not yet").with("high_watermark", 20);
    cluster.fetch_fault(0, [FetchFault::Refuse(behind)]);
    let mut consumer = reader(&cluster, StartAt::Offset(Offset(30)), Until::Count(10)).await;
    assert_eq!(offsets(&mut consumer).await.unwrap(), (30..40).collect::<Vec<_>>());
}

async fn zone_reader(cluster: &MockCluster, until: Until) -> Consumer {
    let client = Client::builder().bootstrap(cluster.endpoints()).zone("zone-b").connect().await.unwrap();
    let builder = client.consumer(TOPIC).config(small_fetches()).start(StartAt::Beginning);
    builder.stop(until).build().await.unwrap()
}

#[tokio::test]
async fn the_replica_in_the_own_zone_is_read() {
    let cluster = MockCluster::start(3, 1).await;
    fill(&cluster, 0);
    let mut consumer = zone_reader(&cluster, Until::Count(100)).await;
    assert_eq!(offsets(&mut consumer).await.unwrap().len(), 100);
    assert!(cluster.fetched_from().iter().all(|broker| *broker == 1), "{:?}", cluster.fetched_from());
}

#[tokio::test]
async fn a_replica_that_fails_lags_or_lies_gives_way_to_the_leader() {
    let refusal = ApiError::new(ErrorCode::Unavailable, "as scripted");
    let faults = [
        vec![FetchFault::Refuse(refusal)],
        vec![FetchFault::Skip],
        vec![FetchFault::Garble],
        vec![FetchFault::Empty; 20],
    ];
    for fault in faults {
        let cluster = MockCluster::start(3, 1).await;
        fill(&cluster, 0);
        cluster.fetch_fault(1, fault.clone());
        let mut consumer = zone_reader(&cluster, Until::Count(100)).await;
        assert_eq!(offsets(&mut consumer).await.unwrap(), (0..100).collect::<Vec<_>>(), "{fault:?}");
        assert!(cluster.fetched_from().contains(&0), "{fault:?}");
    }
}

#[tokio::test]
async fn prefetch_is_bounded_by_bytes() {
    let cluster = MockCluster::start(1, 1).await;
    (0..100).for_each(|number| cluster.put(0, &batch(number * 10, 10)));
    let config = ConsumerConfig { prefetch: 1024, ..small_fetches() };
    let client = cluster.client().await;
    let builder = client.consumer(TOPIC).config(config).start(StartAt::Beginning);
    let mut consumer = builder.stop(Until::Count(1000)).build().await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let fetches = cluster.fetched_from().len();
    assert!(fetches <= 4, "{fetches} fetches without anybody reading");
    assert_eq!(offsets(&mut consumer).await.unwrap().len(), 1000);
}

#[tokio::test]
async fn partitions_that_do_not_exist_are_refused() {
    let cluster = MockCluster::start(1, 2).await;
    let built = cluster.client().await.consumer(TOPIC).partitions([0, 2]).build().await;
    assert!(matches!(built, Err(BuildError::Api(error)) if error.code == ErrorCode::UnknownPartition));
}
