//! Losing zones.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use holdfast_client::{Outcome, Record};
use holdfast_core::metadata::Durability;
use holdfast_tests::{PATIENCE, TestCluster, assert_holds, eventually, led_in, produce, read_all};

/// The main promise, zone after zone: what was acknowledged before and while a zone is lost is there, once.
#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_records_survive_the_loss_of_each_zone_in_turn() {
    let cluster = TestCluster::start().await;
    let client = cluster.client().await;
    cluster.create_topic(&client, "turns", 6, Durability::Disk).await;
    let producer = client.producer("turns").build().await.unwrap();
    let mut next = 0;
    let mut some = async |count: u32| {
        produce(&producer, next..next + count).await;
        next += count;
    };
    some(600).await;
    for zone in 0..3 {
        cluster.kill(zone).await;
        some(600).await;
        eventually("leadership left the lost zone", || async {
            if led_in(&client, "turns", zone) == 0 { Ok(()) } else { Err("still there") }
        })
        .await;
        cluster.heal(zone).await;
        some(600).await;
        all_in_sync(&client, "turns").await;
    }
    assert_holds(&client, "turns", 0..next).await;
}

/// Under load: every record has one outcome, and what each outcome promises holds.
#[tokio::test(flavor = "multi_thread")]
async fn a_zone_killed_under_load_loses_and_repeats_nothing() {
    let cluster = TestCluster::start().await;
    let client = cluster.client().await;
    cluster.create_topic(&client, "load", 6, Durability::Disk).await;
    let producer = client.producer("load").build().await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (producer, stop) = (producer.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut sent = Vec::new();
            for number in 0u32.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let record = Record::new(number.to_string()).with_partition(number % 6);
                sent.push((number, producer.send(record).await.unwrap()));
                if number % 64 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            sent
        })
    };
    let acked = |at_least: u64| {
        let producer = producer.clone();
        async move {
            eventually("records are acknowledged", || async {
                let acked = producer.stats().acked;
                if acked >= at_least { Ok(()) } else { Err(format!("{acked} of {at_least}")) }
            })
            .await;
        }
    };
    acked(500).await;
    cluster.kill(1).await;
    let before = producer.stats().acked;
    acked(before + 500).await;
    cluster.heal(1).await;
    let before = producer.stats().acked;
    acked(before + 500).await;
    stop.store(true, Ordering::Relaxed);
    let (mut acked, mut unknown) = (BTreeSet::new(), BTreeSet::new());
    for (number, pending) in writer.await.unwrap() {
        match pending.await {
            Ok(_) => _ = acked.insert(number),
            Err(error) if error.outcome == Outcome::Unknown => _ = unknown.insert(number),
            Err(error) => panic!("record {number} failed: {}", error.source),
        }
    }
    let read = read_all(&client, "load").await;
    let found: BTreeSet<u32> = read.iter().map(|&(_, number)| number).collect();
    assert_eq!(read.len(), found.len(), "records came back twice");
    assert!(acked.is_subset(&found), "lost: {:?}", acked.difference(&found).collect::<Vec<_>>());
    let expected: BTreeSet<u32> = acked.union(&unknown).copied().collect();
    assert!(found.is_subset(&expected));
}

/// With two zones lost nothing is acknowledged; what waited is not lost when one returns.
#[tokio::test(flavor = "multi_thread")]
async fn a_lone_zone_acknowledges_nothing() {
    let cluster = TestCluster::start().await;
    let client = cluster.client().await;
    cluster.create_topic(&client, "alone", 3, Durability::Disk).await;
    let producer = client.producer("alone").build().await.unwrap();
    produce(&producer, 0..90).await;
    cluster.kill(0).await;
    cluster.kill(1).await;
    let before = producer.stats().acked;
    let mut waiting = Vec::new();
    for number in 90..120u32 {
        let record = Record::new(number.to_string()).with_partition(number % 3);
        waiting.push(producer.send(record).await.unwrap());
    }
    // The survivor must not acknowledge in the time that it would take to notice that it is alone.
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    assert_eq!(producer.stats().acked, before, "a lone zone acknowledged");
    cluster.heal(0).await;
    for pending in waiting {
        tokio::time::timeout(PATIENCE, pending)
            .await
            .expect("an outcome")
            .expect("acknowledged after the return");
    }
    cluster.heal(1).await;
    assert_holds(&client, "alone", 0..120).await;
}

/// All zones at once: everything acknowledged was on disk.
#[tokio::test(flavor = "multi_thread")]
async fn everything_acknowledged_survives_the_loss_of_all_zones_at_once() {
    let cluster = TestCluster::start().await;
    let client = cluster.client().await;
    cluster.create_topic(&client, "all", 4, Durability::Disk).await;
    let producer = client.producer("all").build().await.unwrap();
    produce(&producer, 0..1000).await;
    for zone in 0..3 {
        cluster.kill(zone).await;
    }
    for zone in 0..3 {
        cluster.heal(zone).await;
    }
    produce(&producer, 1000..2000).await;
    let fresh = cluster.client().await;
    assert_holds(&fresh, "all", 0..2000).await;
}

/// A leader whose disk changed a committed batch does not serve it. It gets it back from the others, and leads on.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_batch_is_never_served_and_its_leader_gets_it_back() {
    let cluster = TestCluster::start().await;
    let client = cluster.client().await;
    cluster.create_topic(&client, "rot", 1, Durability::Disk).await;
    let producer = client.producer("rot").build().await.unwrap();
    produce(&producer, 0..200).await;
    let leader = (0..3).find(|&zone| led_in(&client, "rot", zone) == 1).expect("a leader");
    let folder = std::fs::read_dir(cluster.partitions_dir(leader)).unwrap().next().unwrap().unwrap().path();
    let segment = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let file = std::fs::OpenOptions::new().read(true).write(true).open(segment).unwrap();
    let last = file.metadata().unwrap().len() - 1;
    let mut byte = [0];
    file.read_exact_at(&mut byte, last).unwrap();
    file.write_all_at(&[byte[0] ^ 1], last).unwrap();
    assert_holds(&client, "rot", 0..200).await;
    eventually("the damaged batch is as it was", || async {
        let mut now = [0];
        file.read_exact_at(&mut now, last).map_err(|error| error.to_string())?;
        if now == byte { Ok(()) } else { Err(format!("{now:?} instead of {byte:?}")) }
    })
    .await;
    assert_eq!(led_in(&client, "rot", leader), 1, "the rest of its log was as good as before");
    produce(&producer, 200..300).await;
    assert_holds(&client, "rot", 0..300).await;
}

/// Nothing is produced that it could miss: only its silence tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_follower_of_an_idle_partition_is_not_in_sync() {
    let cluster = TestCluster::start().await;
    let client = cluster.client().await;
    cluster.create_topic(&client, "idle", 1, Durability::Disk).await;
    produce(&client.producer("idle").build().await.unwrap(), 0..100).await;
    all_in_sync(&client, "idle").await;
    let follower = (0..3).find(|&zone| led_in(&client, "idle", zone) == 0).expect("two of three follow");
    cluster.kill(follower).await;
    eventually("the dead follower lags", || async {
        let states = client.describe_partitions(Some("idle")).await.map_err(|error| error.to_string())?;
        let state = states.first().ok_or("nobody leads")?;
        let lags: Vec<usize> = state
            .replicas
            .iter()
            .filter(|replica| replica.lags && !replica.in_sync)
            .map(|replica| replica.broker_id as usize - 1)
            .collect();
        if lags == [follower] { Ok(()) } else { Err(format!("{state:?}")) }
    })
    .await;
    cluster.heal(follower).await;
    all_in_sync(&client, "idle").await;
}

async fn all_in_sync(client: &holdfast_client::Client, topic: &str) {
    eventually("all replicas are in sync", || async {
        let states = client.describe_partitions(Some(topic)).await.map_err(|error| error.to_string())?;
        let behind =
            states.iter().filter(|state| state.replicas.iter().any(|replica| !replica.in_sync)).count();
        let partitions = states.len();
        if behind == 0 && partitions > 0 {
            Ok(())
        } else {
            Err(format!("{behind} of {partitions} are behind"))
        }
    })
    .await;
}
