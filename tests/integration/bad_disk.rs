//! Disks that are full, and disks that fail: what was acknowledged stays, the rest is told to whoever asked, and it ends by
//! itself.

use std::time::{Duration, Instant};

use holdfast_client::{Client, Outcome, ProducerConfig, Record};
use holdfast_core::metadata::Durability;
use holdfast_core::{BrokerId, PartitionId};
use holdfast_tests::{BadDisk, PATIENCE, TestCluster, assert_holds, eventually, led_in, produce, read_all};

/// A cluster of three zones, and their disks.
async fn cluster() -> (TestCluster, Vec<BadDisk>) {
    let disks: Vec<BadDisk> = (0..3).map(|_| BadDisk::default()).collect();
    let files = disks.iter().map(|disk| std::sync::Arc::new(disk.clone()) as _).collect();
    let cluster = TestCluster::start_as(|options| {
        options.files = files;
        options.home_after = Some(Duration::from_secs(1));
    })
    .await;
    (cluster, disks)
}

async fn leads(client: &Client, topic: &str, zone: usize, wanted: impl Fn(usize) -> bool) {
    eventually(&format!("leaders of {topic} in zone {zone}"), || async {
        let led = led_in(client, topic, zone);
        if wanted(led) { Ok(()) } else { Err(format!("it leads {led}")) }
    })
    .await;
}

/// The producer hardly notices: others lead while there is no room, and the leaders come home afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn leaders_leave_a_disk_that_is_nearly_full() {
    let (cluster, disks) = cluster().await;
    let client = cluster.client().await;
    cluster.create_topic(&client, "leave", 6, Durability::Disk).await;
    let producer = client.producer("leave").linger(Duration::from_millis(1)).build().await.unwrap();
    produce(&producer, 0..100).await;
    leads(&client, "leave", 0, |led| led == 2).await;
    disks[0].says_free(1 << 20);
    produce(&producer, 100..200).await;
    leads(&client, "leave", 0, |led| led == 0).await;
    produce(&producer, 200..300).await;
    disks[0].mend();
    leads(&client, "leave", 0, |led| led == 2).await;
    produce(&producer, 300..400).await;
    assert_holds(&client, "leave", 0..400).await;
}

/// Records are refused, and everything else goes on: reading, the map, deleting. Once there is room they are taken again.
#[tokio::test(flavor = "multi_thread")]
async fn with_all_disks_full_all_is_read_and_nothing_taken_until_there_is_room() {
    let (cluster, disks) = cluster().await;
    let client = cluster.client().await;
    for topic in ["full", "deleted"] {
        cluster.create_topic(&client, topic, 3, Durability::Disk).await;
    }
    let producer = client.producer("full").linger(Duration::from_millis(1)).build().await.unwrap();
    produce(&producer, 0..60).await;
    disks.iter().for_each(|disk| disk.says_free(0));
    eventually("records are refused for want of room", || async {
        let config = ProducerConfig {
            linger: Duration::from_millis(1),
            request_timeout: Duration::from_millis(500),
            delivery_timeout: Duration::from_secs(1),
            ..ProducerConfig::default()
        };
        let refused = client.producer("full").config(config).build().await.unwrap();
        let refused = refused.send(Record::new("1000").with_partition(0)).await.unwrap();
        match refused.await {
            Err(error) if error.source.message.contains("DISK_FULL") && error.outcome == Outcome::Failed => {
                Ok(())
            }
            // One was on its way when the disk became full.
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let before = read_all(&client, "full").await;
    assert!(before.len() >= 60);
    client.delete_topic("deleted").await.unwrap();
    disks.iter().for_each(BadDisk::mend);
    let freed = Instant::now();
    produce(&producer, 60..61).await;
    assert!(freed.elapsed() < Duration::from_secs(10), "{:?}", freed.elapsed());
    produce(&producer, 61..120).await;
    let mut numbers: Vec<u32> =
        read_all(&client, "full").await.into_iter().map(|(_, number)| number).collect();
    numbers.retain(|number| *number < 1000);
    numbers.sort_unstable();
    assert_eq!(numbers, (0..120).collect::<Vec<_>>());
}

/// Somebody else has taken the last byte of every disk, under load. What was acknowledged is there, what was not is taken
/// when there is room, once; and nobody has left.
#[tokio::test(flavor = "multi_thread")]
async fn full_disks_take_nothing_that_was_acknowledged_and_go_on_once_there_is_room() {
    let (cluster, disks) = cluster().await;
    let client = cluster.client().await;
    cluster.create_topic(&client, "filled", 6, Durability::Disk).await;
    let producer = client.producer("filled").linger(Duration::from_millis(1)).build().await.unwrap();
    produce(&producer, 0..60).await;
    let mut pending = Vec::new();
    for number in 60..200_u32 {
        if number == 100 {
            disks.iter().for_each(BadDisk::fill);
        }
        let record = Record::new(number.to_string()).with_partition(number % 6);
        pending.push(producer.send(record).await.unwrap());
        tokio::task::yield_now().await;
    }
    eventually("nothing is acknowledged any more", || async {
        let before = producer.stats().acked;
        tokio::time::sleep(Duration::from_secs(1)).await;
        if producer.stats().acked == before { Ok(()) } else { Err("still") }
    })
    .await;
    let acked = producer.stats().acked;
    assert!(acked < 200, "the disks were never full");
    assert!(read_all(&client, "filled").await.len() as u64 >= acked, "what was acknowledged can be read");
    disks.iter().for_each(BadDisk::mend);
    let freed = Instant::now();
    for pending in pending {
        tokio::time::timeout(PATIENCE, pending).await.expect("in time").expect("acknowledged in the end");
    }
    assert!(freed.elapsed() < Duration::from_secs(10), "{:?}", freed.elapsed());
    assert_holds(&client, "filled", 0..200).await;
}

/// Its log takes nothing any more: another one leads within a second, and it begins anew from that one, on fresh files,
/// without a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_flush_fails_is_replaced_at_once_and_comes_back_by_itself() {
    let (cluster, disks) = cluster().await;
    let client = cluster.client().await;
    cluster.create_topic(&client, "failing", 1, Durability::Disk).await;
    let producer = client.producer("failing").linger(Duration::from_millis(1)).build().await.unwrap();
    produce(&producer, 0..100).await;
    let leader = (0..3).find(|&zone| led_in(&client, "failing", zone) == 1).expect("a leader");
    disks[leader].fail_next_flush();
    let begun = Instant::now();
    let pending = producer.send(Record::new("100").with_partition(0)).await.unwrap();
    let mut map = client.watch_map();
    let topic = client.map().topic_named("failing").unwrap().id;
    let id = PartitionId { topic, index: 0 };
    let moved = map.wait_for(|map| {
        map.partition(id).is_some_and(|known| known.register.leader.broker != BrokerId(leader as u32 + 1))
    });
    drop(tokio::time::timeout(PATIENCE, moved).await.expect("another leads").unwrap());
    assert!(begun.elapsed() < Duration::from_secs(1), "fenced after {:?}", begun.elapsed());
    pending.await.expect("the new leader takes it");
    produce(&producer, 101..200).await;
    eventually("the replica that failed is back", || async {
        let states = client.describe_partitions(Some("failing")).await.map_err(|error| error.to_string())?;
        let state = states.first().ok_or("nobody leads")?;
        let back = state.replicas.iter().all(|replica| replica.in_sync);
        if back && state.replicas.len() == 3 { Ok(()) } else { Err(format!("{state:?}")) }
    })
    .await;
    produce(&producer, 200..300).await;
    assert_holds(&client, "failing", 0..300).await;
    let names = std::fs::read_dir(cluster.partitions_dir(leader)).unwrap();
    let aside = names.filter(|name| {
        name.as_ref().is_ok_and(|name| name.file_name().to_string_lossy().contains("quarantine"))
    });
    assert_eq!(aside.count(), 1, "the log that failed is kept for a human");
    // It counts again: without one of the others the partition goes on.
    cluster.kill((leader + 1) % 3).await;
    produce(&producer, 300..310).await;
}
