//! The producer against a scripted cluster: what is acknowledged is stored once and in order, whatever fails.

use std::collections::HashSet;
use std::time::Duration;

use holdfast_core::ErrorCode;
use holdfast_core::record_batch::Compression;

use super::*;
use crate::error::BuildError;
use crate::mock::{Fault, MockCluster, TOPIC, eventually};
use crate::{Client, Outcome, ProducerConfig};

const MS: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(20);

/// Small batches, so that several are on their way at once.
async fn producer(cluster: &MockCluster) -> Producer {
    let config = ProducerConfig {
        batch_size: 1024,
        linger: MS,
        request_timeout: 500 * MS,
        delivery_timeout: LONG,
        ..ProducerConfig::default()
    };
    cluster.client().await.producer(TOPIC).config(config).build().await.unwrap()
}

fn record(number: usize) -> Record {
    Record::new(format!("record {number:06} {}", "x".repeat(100))).with_partition(0)
}

fn expected(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("record {number:06} {}", "x".repeat(100))).collect()
}

async fn send_all(producer: &Producer, count: usize) -> Vec<Pending> {
    let mut pending = Vec::new();
    for number in 0..count {
        pending.push(producer.send(record(number)).await.unwrap());
    }
    pending
}

/// Waits until the producer's map has a dead broker.
async fn wait_for_death(producer: &Producer) {
    let client = &producer.inner.session.client;
    eventually("a dead broker in the map", || client.map().brokers().any(|broker| !broker.live)).await;
}

/// Every record acknowledged at the offset where it stands, none lost, repeated or out of order.
async fn assert_stored(cluster: &MockCluster, pending: Vec<Pending>) {
    let count = pending.len();
    for (number, pending) in pending.into_iter().enumerate() {
        let ack = tokio::time::timeout(LONG, pending).await.expect("an outcome in time").unwrap();
        assert_eq!(ack.offset.0, number as u64);
    }
    assert_eq!(cluster.values(0), expected(count));
}

#[tokio::test]
async fn records_are_batched_and_acknowledged_in_order() {
    let cluster = MockCluster::start(3, 1).await;
    let producer = producer(&cluster).await;
    let pending = send_all(&producer, 500).await;
    assert_stored(&cluster, pending).await;
    let batches = cluster.log(0).len();
    assert!(batches < 200, "{batches} batches for 500 records");
    let stats = producer.stats();
    assert_eq!((stats.acked, stats.unfinished(), stats.resends), (500, 0, 0));
    let report = producer.close(LONG).await;
    assert_eq!(report, CloseReport { acked: 500, failed: 0, unknown: 0 });
    assert_eq!(producer.send(record(0)).await.unwrap_err().outcome, Outcome::Failed);
}

#[tokio::test]
async fn compressed_batches_carry_the_same_records() {
    let cluster = MockCluster::start(1, 1).await;
    let client = cluster.client().await;
    let config = ProducerConfig { linger: MS, ..ProducerConfig::cross_zone() };
    let producer = client.producer(TOPIC).config(config).build().await.unwrap();
    let pending = send_all(&producer, 100).await;
    producer.flush().await;
    assert!(pending.iter().all(Pending::is_done));
    let log = cluster.log(0);
    assert!(log.iter().all(|batch| batch.header().compression() == Compression::Zstd));
    assert_eq!(log.iter().map(|batch| batch.header().records).sum::<u32>(), 100);
}

#[tokio::test]
async fn every_way_of_losing_a_stream_keeps_order_and_repeats_nothing() {
    let faults = [
        Fault::Cut,
        Fault::AppendThenCut,
        Fault::AppendThenSilent,
        Fault::Silent,
        Fault::Refuse(ErrorCode::Overloaded),
        Fault::Refuse(ErrorCode::NotEnoughReplicas),
        Fault::Refuse(ErrorCode::DiskFull),
        Fault::Refuse(ErrorCode::LeaderLost),
        Fault::Refuse(ErrorCode::UnknownTopic),
        Fault::Refuse(ErrorCode::OutOfOrderSequence),
    ];
    for fault in faults {
        let cluster = MockCluster::start(1, 1).await;
        let producer = producer(&cluster).await;
        let first = producer.send(record(0)).await.unwrap();
        let mut pending = vec![first];
        producer.flush().await;
        cluster.fault(0, [fault, fault]);
        for number in 1..100 {
            pending.push(producer.send(record(number)).await.unwrap());
        }
        assert_stored(&cluster, pending).await;
        assert!(producer.stats().resends > 0, "{fault:?}");
    }
}

#[tokio::test]
async fn a_leader_change_in_the_map_moves_everything_at_once() {
    let cluster = MockCluster::start(3, 1).await;
    let producer = producer(&cluster).await;
    let mut pending = send_all(&producer, 1).await;
    producer.flush().await;
    // The old leader has gone silent: nothing but the map tells.
    cluster.fault(0, [Fault::AppendThenSilent]);
    for number in 1..60 {
        pending.push(producer.send(record(number)).await.unwrap());
    }
    eventually("appends at the silent leader", || cluster.log(0).len() > 1).await;
    let moved = Instant::now();
    cluster.move_leader(0, 1);
    cluster.publish();
    assert_stored(&cluster, pending).await;
    assert!(moved.elapsed() < 400 * MS, "took {:?}, the request timeout is 500 ms", moved.elapsed());
    assert!(producer.stats().duplicates > 0, "the batch that was appended is answered as a duplicate");
}

#[tokio::test]
async fn a_refusal_that_names_the_leader_is_followed_before_the_map_knows() {
    let cluster = MockCluster::start(3, 1).await;
    let producer = producer(&cluster).await;
    cluster.move_leader(0, 2);
    let pending = send_all(&producer, 20).await;
    assert_stored(&cluster, pending).await;
    let at_old: Vec<_> = cluster.arrived().into_iter().filter(|(broker, ..)| *broker == 0).collect();
    assert!(!at_old.is_empty() && at_old.len() <= 5, "{at_old:?}");
}

#[tokio::test]
async fn a_killed_leader_costs_no_record() {
    let mut cluster = MockCluster::start(3, 1).await;
    let producer = producer(&cluster).await;
    let mut pending = send_all(&producer, 200).await;
    cluster.kill(0);
    for number in 200..300 {
        pending.push(producer.send(record(number)).await.unwrap());
    }
    cluster.move_leader(0, 1);
    cluster.publish();
    assert_stored(&cluster, pending).await;
    let sequences: HashSet<_> =
        cluster.log(0).iter().map(|batch| batch.header().producer.unwrap().base_sequence).collect();
    assert_eq!(sequences.len(), cluster.log(0).len(), "a sequence number was stored twice");
}

/// The first record after an outage may take so long.
const SOON: Duration = Duration::from_millis(600);
/// Long enough for whatever grows or is used up in an outage, and over when nobody at the pace of a spent budget is about to
/// try.
const OUTAGE: Duration = Duration::from_millis(4200);

/// Nobody appoints another leader: only the leader's own return ends the outage, and no map tells of it.
#[tokio::test]
async fn a_leader_that_came_back_without_controllers_gets_records_soon() {
    let partitions = 12;
    let mut cluster = MockCluster::start(1, partitions).await;
    let producer = producer(&cluster).await;
    for round in 0..2 {
        if round == 1 {
            cluster.kill(0);
        }
        for partition in 0..partitions {
            // Its outcome is in the counters.
            drop(producer.send(Record::new("value").with_partition(partition)).await.unwrap());
        }
        if round == 1 {
            tokio::time::sleep(OUTAGE).await;
            cluster.restart(0).await;
        }
        let back = Instant::now();
        producer.flush().await;
        assert!(back.elapsed() < SOON, "took {:?}", back.elapsed());
    }
    assert_eq!(producer.stats().acked, 2 * u64::from(partitions));
}

/// The controllers were away as well: their first act is to appoint another leader.
#[tokio::test]
async fn the_leader_appointed_after_an_outage_gets_records_soon() {
    let mut cluster = MockCluster::start(3, 1).await;
    let producer = producer(&cluster).await;
    let mut pending = send_all(&producer, 1).await;
    producer.flush().await;
    cluster.kill(0);
    for number in 1..60 {
        pending.push(producer.send(record(number)).await.unwrap());
    }
    tokio::time::sleep(OUTAGE).await;
    cluster.move_leader(0, 1);
    cluster.publish();
    let back = Instant::now();
    producer.flush().await;
    assert!(back.elapsed() < SOON, "took {:?}", back.elapsed());
    assert_stored(&cluster, pending).await;
}

/// A leader that lacks its followers, or room on its disk, is asked often, with one batch: everything else waits until it
/// takes that.
#[tokio::test]
async fn a_leader_that_takes_nothing_for_now_is_asked_with_one_batch() {
    for code in [ErrorCode::NotEnoughReplicas, ErrorCode::DiskFull] {
        is_asked_with_one_batch(code).await;
    }
}

async fn is_asked_with_one_batch(code: ErrorCode) {
    let cluster = MockCluster::start(1, 1).await;
    let producer = producer(&cluster).await;
    let mut pending = send_all(&producer, 1).await;
    producer.flush().await;
    let refusals = 30;
    cluster.fault(0, [Fault::Refuse(code); 30]);
    let before = cluster.arrived().len();
    let begun = Instant::now();
    for number in 1..60 {
        pending.push(producer.send(record(number)).await.unwrap());
    }
    assert_stored(&cluster, pending).await;
    let took = begun.elapsed();
    // Ten of a budget and one each second from then on would be twenty seconds.
    assert!(took < Duration::from_secs(12), "took {took:?}");
    // What was on its way with the first one came along once.
    let arrived = &cluster.arrived()[before..];
    assert!(arrived[5..refusals].iter().all(|asked| *asked == arrived[0]), "{:?}", &arrived[..refusals]);
}

/// The first batches of a producer are sent together. Where the leader refuses one that comes before, it knows nothing of
/// the producer when it sees the next: that says nothing against the producer.
#[tokio::test]
async fn a_producer_whose_first_batch_was_refused_is_not_over() {
    for faults in [&[Fault::Overlooked][..], &[Fault::Refuse(ErrorCode::DiskFull), Fault::Overlooked]] {
        let cluster = MockCluster::start(1, 1).await;
        let producer = producer(&cluster).await;
        cluster.fault(0, faults.iter().copied());
        let mut pending = Vec::new();
        for number in 0..60 {
            pending.push(producer.send(record(number)).await.unwrap());
        }
        assert_stored(&cluster, pending).await;
    }
}

#[tokio::test]
async fn a_refused_batch_fails_alone_and_what_follows_is_stored_once() {
    let cluster = MockCluster::start(1, 1).await;
    let producer = producer(&cluster).await;
    let first = producer.send(record(0)).await.unwrap();
    producer.flush().await;
    cluster.fault(0, [Fault::Refuse(ErrorCode::CorruptBatch)]);
    // Seven of these fill a batch.
    let mut pending = vec![first];
    for number in 1..100 {
        pending.push(producer.send(record(number)).await.unwrap());
    }
    let mut stored = Vec::new();
    for (number, pending) in pending.into_iter().enumerate() {
        match pending.await {
            Ok(ack) => {
                assert_eq!(ack.offset.0, stored.len() as u64);
                stored.push(expected(100)[number].clone());
            }
            Err(error) => assert_eq!(error.outcome, Outcome::Failed, "{error:?}"),
        }
    }
    assert!(stored.len() < 100 && stored.len() > 80, "{}", stored.len());
    assert_eq!(cluster.values(0), stored);
}

#[tokio::test]
async fn unknown_and_fenced_producers_end_the_partition() {
    for code in [ErrorCode::UnknownProducer, ErrorCode::FencedProducer] {
        let cluster = MockCluster::start(1, 2).await;
        let producer = producer(&cluster).await;
        cluster.fault(0, [Fault::Refuse(code)]);
        let error = producer.send(record(0)).await.unwrap().await.unwrap_err();
        assert_eq!((error.outcome, error.source.code), (Outcome::Failed, code));
        let error = producer.send(record(1)).await.unwrap_err();
        assert_eq!(error.source.code, code);
        producer.send(record(2).with_partition(1)).await.unwrap().await.unwrap();
    }
}

#[tokio::test]
async fn out_of_order_for_good_ends_the_partition() {
    let cluster = MockCluster::start(1, 1).await;
    let producer = producer(&cluster).await;
    cluster.fault(0, [Fault::Refuse(ErrorCode::OutOfOrderSequence); 100]);
    let error = timeout(LONG, producer.send(record(0)).await.unwrap()).await.unwrap().unwrap_err();
    assert_eq!((error.outcome, error.source.code), (Outcome::Failed, ErrorCode::OutOfOrderSequence));
}

/// A client in the zone that goes dark hears of the new leader although its own metadata stream is as dead.
#[tokio::test]
async fn a_black_holed_leader_is_left_within_two_seconds() {
    let cluster = MockCluster::start(3, 1).await;
    let bootstrap = [cluster.endpoints()[0].clone()];
    let client = Client::builder().bootstrap(bootstrap).zone("zone-a").connect().await.unwrap();
    let producer = client.producer(TOPIC).linger(MS).build().await.unwrap();
    producer.send(record(0)).await.unwrap().await.unwrap();
    cluster.fault(0, [Fault::Silent; 10]);
    // Broker 0 tells nobody of the change any more.
    cluster.map_fault(0, Some(crate::mock::MapFault::Silent));
    cluster.move_leader(0, 1);
    cluster.publish();
    let sent = Instant::now();
    timeout(LONG, producer.send(record(1)).await.unwrap()).await.unwrap().unwrap();
    assert!(sent.elapsed() < Duration::from_secs(2), "took {:?}", sent.elapsed());
}

#[tokio::test]
async fn a_batch_never_sent_has_failed_and_one_without_an_answer_is_unknown() {
    let mut cluster = MockCluster::start(2, 2).await;
    let config = ProducerConfig {
        linger: MS,
        request_timeout: 100 * MS,
        delivery_timeout: 400 * MS,
        ..ProducerConfig::default()
    };
    let producer = cluster.client().await.producer(TOPIC).config(config).build().await.unwrap();
    cluster.fault(1, [Fault::Silent; 50]);
    cluster.kill(0);
    cluster.publish();
    wait_for_death(&producer).await;
    let never_sent = producer.send(record(0).with_partition(0)).await.unwrap();
    let unanswered = producer.send(record(1).with_partition(1)).await.unwrap();
    assert_eq!(never_sent.await.unwrap_err().outcome, Outcome::Failed);
    assert_eq!(unanswered.await.unwrap_err().outcome, Outcome::Unknown);
    let stats = producer.stats();
    assert_eq!((stats.failed, stats.unknown, stats.unfinished()), (1, 1, 0));
}

#[tokio::test]
async fn after_an_unknown_outcome_the_partition_goes_on() {
    let cluster = MockCluster::start(1, 1).await;
    let config = ProducerConfig {
        linger: MS,
        request_timeout: 100 * MS,
        delivery_timeout: 300 * MS,
        ..ProducerConfig::default()
    };
    let producer = cluster.client().await.producer(TOPIC).config(config).build().await.unwrap();
    cluster.fault(0, [Fault::AppendThenSilent, Fault::Silent, Fault::Silent, Fault::Silent, Fault::Silent]);
    let lost = producer.send(record(0)).await.unwrap().await.unwrap_err();
    assert_eq!(lost.outcome, Outcome::Unknown);
    cluster.fault(0, []);
    let mut acked = None;
    for number in 1..20 {
        if let Ok(ack) = producer.send(record(number)).await.unwrap().await {
            acked = Some((number, ack));
            break;
        }
    }
    let (number, ack) = acked.expect("the partition goes on");
    let stored = cluster.values(0);
    assert_eq!(stored[ack.offset.0 as usize], expected(20)[number]);
    assert_eq!(stored.iter().collect::<HashSet<_>>().len(), stored.len(), "stored twice");
}

#[tokio::test]
async fn a_full_buffer_holds_senders_back_and_hands_records_back() {
    let mut cluster = MockCluster::start(1, 1).await;
    let client = cluster.client().await;
    let config = ProducerConfig {
        batch_size: 1024,
        buffer_memory: 4096,
        request_timeout: 100 * MS,
        delivery_timeout: 700 * MS,
        ..ProducerConfig::default()
    };
    let producer = client.producer(TOPIC).config(config).build().await.unwrap();
    cluster.fault(0, [Fault::Silent; 100]);
    let mut taken = Vec::new();
    let refused = loop {
        match producer.try_send(record(taken.len())) {
            Ok(pending) => taken.push(pending),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, TrySendError::Full(back) if back == record(taken.len())));
    let waiting = producer.send(record(99));
    assert!(timeout(50 * MS, waiting).await.is_err(), "send took a record without room");
    cluster.kill(0);
    // The delivery timeout makes room again: nothing is leaked.
    let pending = timeout(LONG, producer.send(record(100))).await.unwrap().unwrap();
    assert!(pending.await.is_err());
    producer.close(MS).await;
    assert_eq!(producer.stats().unfinished(), 0);
    assert_eq!(producer.inner.session.ledger.room.available_permits(), 4096);
}

#[tokio::test]
async fn records_without_a_key_avoid_a_partition_without_leader() {
    let mut cluster = MockCluster::start(3, 3).await;
    let producer = producer(&cluster).await;
    cluster.kill(1);
    cluster.publish();
    wait_for_death(&producer).await;
    for number in 0..200 {
        let record = Record::new(format!("record {number}"));
        let ack = timeout(LONG, producer.send(record).await.unwrap()).await.unwrap().unwrap();
        assert_ne!(ack.partition, 1);
    }
    assert!(!cluster.log(0).is_empty() && !cluster.log(2).is_empty());
}

#[tokio::test]
async fn keys_go_where_the_java_client_puts_them() {
    let cluster = MockCluster::start(1, 7).await;
    let producer = producer(&cluster).await;
    for key in ["", "21", "foobar"] {
        let ack = producer.send(Record::new("v").with_key(key)).await.unwrap().await.unwrap();
        assert_eq!(ack.partition, partition_of(key.as_bytes(), 7), "{key:?}");
    }
}

#[tokio::test]
async fn close_reports_what_it_could_not_deliver() {
    let cluster = MockCluster::start(1, 1).await;
    let producer = producer(&cluster).await;
    producer.send(record(0)).await.unwrap().await.unwrap();
    cluster.fault(0, [Fault::Silent; 10]);
    let lost = producer.send(record(1)).await.unwrap();
    eventually("the record at the broker", || cluster.arrived().len() > 1).await;
    let report = producer.close(20 * MS).await;
    assert_eq!(report, CloseReport { acked: 1, failed: 0, unknown: 1 });
    assert_eq!(lost.await.unwrap_err().outcome, Outcome::Unknown);
}

#[tokio::test]
async fn a_dropped_producer_leaves_no_pending_without_outcome() {
    let cluster = MockCluster::start(1, 1).await;
    let producer = producer(&cluster).await;
    cluster.fault(0, [Fault::Silent; 10]);
    let pending = producer.send(record(0)).await.unwrap();
    drop(producer);
    assert!(timeout(LONG, pending).await.unwrap().is_err());
}

#[tokio::test]
async fn options_that_contradict_each_other_are_refused() {
    let cluster = MockCluster::start(1, 1).await;
    let builder = cluster.client().await.producer(TOPIC).delivery_timeout(MS);
    assert!(matches!(builder.build().await, Err(BuildError::Config(_))));
    let builder = cluster.client().await.producer("nonesuch");
    assert!(
        matches!(builder.build().await, Err(BuildError::Api(error)) if error.code == ErrorCode::UnknownTopic)
    );
}
