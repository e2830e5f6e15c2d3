//! Replicas and leaders that move, by an operator's order, by themselves, and before an orderly stop. Under load: what
//! was acknowledged is there afterwards, once.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use holdfast_cli::demo::cluster::ClusterOptions;
use holdfast_client::{Client, Producer, Record};
use holdfast_core::metadata::{Durability, Register};
use holdfast_core::{BrokerId, ErrorCode, PartitionId, ReplicaId};
use holdfast_tests::{PATIENCE, TestCluster, assert_holds, eventually, led_in, produce, read_all};
use tokio::task::JoinHandle;

/// For what the cluster does by itself: soon.
fn eager(options: &mut ClusterOptions) {
    options.replace_after = Some(Duration::from_secs(1));
    options.home_after = Some(Duration::from_secs(1));
}

fn register(client: &Client, topic: &str, index: u32) -> Register {
    let map = client.map();
    let topic = map.topic_named(topic).expect("the topic").id;
    map.partition(PartitionId { topic, index }).expect("the partition").register.clone()
}

fn brokers(register: &Register) -> Vec<u32> {
    register.set.iter().map(|replica| replica.broker.0).collect()
}

/// Waits until the map shows every partition as wanted.
async fn all(client: &Client, topic: &str, missing: &str, wanted: impl Fn(&Register) -> bool) {
    eventually(missing, || async {
        let map = client.map();
        let topic = map.topic_named(topic).ok_or("no topic")?.id;
        let other = map.partitions_of(topic).find(|partition| !wanted(&partition.register));
        other.map_or(Ok(()), |partition| Err(format!("{partition:?}")))
    })
    .await;
}

async fn broker_is(client: &Client, id: BrokerId, live: bool) {
    eventually(&format!("broker {id} has live = {live}"), || async {
        let found = client.map().broker(id).is_some_and(|broker| broker.live == live);
        if found { Ok(()) } else { Err("not yet") }
    })
    .await;
}

fn folders(partitions: &Path) -> usize {
    std::fs::read_dir(partitions).map_or(0, Iterator::count)
}

async fn no_folder_is_left(partitions: &Path) {
    eventually("replicas that moved away are deleted", || async {
        let left = folders(partitions);
        if left == 0 { Ok(()) } else { Err(format!("{left} folders are left in {}", partitions.display())) }
    })
    .await;
}

/// A record to each partition every 20 ms, waited for, until it is told to stop.
struct Probes {
    stop: Arc<AtomicBool>,
    partitions: Vec<JoinHandle<(Vec<u32>, Duration)>>,
}

impl Probes {
    fn start(producer: &Producer, first: u32) -> Probes {
        let stop = Arc::new(AtomicBool::new(false));
        let count = producer.partitions();
        let probe = |partition| tokio::spawn(probe(producer.clone(), partition, first, Arc::clone(&stop)));
        Probes { partitions: (0..count).map(probe).collect(), stop: Arc::clone(&stop) }
    }

    /// What was acknowledged, and the longest gap of each partition. Any error fails the test.
    async fn end(self) -> (Vec<u32>, Vec<Duration>) {
        self.stop.store(true, Ordering::Relaxed);
        let (mut acked, mut gaps) = (Vec::new(), Vec::new());
        for partition in self.partitions {
            let (numbers, gap) = partition.await.expect("no send failed");
            acked.extend(numbers);
            gaps.push(gap);
        }
        acked.sort_unstable();
        (acked, gaps)
    }
}

async fn probe(
    producer: Producer,
    partition: u32,
    first: u32,
    stop: Arc<AtomicBool>,
) -> (Vec<u32>, Duration) {
    let (mut acked, mut last, mut longest) = (Vec::new(), Instant::now(), Duration::ZERO);
    for turn in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let number = first + turn * producer.partitions() + partition;
        let record = Record::new(number.to_string()).with_partition(partition);
        let pending = producer.send(record).await.expect("room");
        tokio::time::timeout(PATIENCE, pending).await.expect("an outcome").expect("an acknowledgement");
        acked.push(number);
        longest = longest.max(last.elapsed());
        last = Instant::now();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (acked, longest)
}

/// Exactly these, each once.
async fn holds(client: &Client, topic: &str, mut acked: Vec<u32>) {
    let mut found: Vec<u32> = read_all(client, topic).await.into_iter().map(|(_, number)| number).collect();
    found.sort_unstable();
    acked.sort_unstable();
    assert_eq!(found, acked);
}

async fn move_to(client: &Client, topic: &str, partition: u32, to: [u32; 3]) {
    let to = to.map(BrokerId);
    eventually("the move is ordered", || async { client.move_replicas(topic, partition, &to).await }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_moves_under_load_and_its_old_replica_is_deleted() {
    let cluster = TestCluster::start().await;
    let client = cluster.client().await;
    cluster.create_topic(&client, "moves", 1, Durability::Disk).await;
    let spare = cluster.spare(4, 0).await;
    broker_is(&client, spare.id(), true).await;
    let producer = client.producer("moves").build().await.unwrap();
    produce(&producer, 0..500).await;
    let probes = Probes::start(&producer, 500);
    // What cannot be is refused with a reason, and changes nothing.
    let one_zone = client.move_replicas("moves", 0, &[1, 4, 2].map(BrokerId)).await.unwrap_err();
    assert_eq!(one_zone.code, ErrorCode::InvalidRequest, "{one_zone}");
    assert_eq!(client.cancel_move("moves", 0).await.unwrap_err().code, ErrorCode::ConflictingChange);
    let stranger = client.move_leader("moves", 0, spare.id()).await.unwrap_err();
    assert_eq!(stranger.code, ErrorCode::InvalidRequest, "{stranger}");
    move_to(&client, "moves", 0, [4, 2, 3]).await;
    all(&client, "moves", "the replica has moved", |register| {
        brokers(register) == [4, 2, 3] && register.prev.is_none() && register.target.is_none()
    })
    .await;
    no_folder_is_left(&cluster.partitions_dir(0)).await;
    assert_eq!(folders(&spare.partitions_dir()), 1);
    // The new replica is as good as any: it leads, and with it another zone may go.
    eventually("the new replica leads", || client.move_leader("moves", 0, spare.id())).await;
    cluster.kill(1).await;
    let before = producer.stats().acked;
    eventually("records are acknowledged without zone b", || async {
        let acked = producer.stats().acked;
        if acked > before + 20 { Ok(()) } else { Err(format!("{acked}")) }
    })
    .await;
    let (acked, gaps) = probes.end().await;
    println!("longest gap while a replica moved and a zone died: {gaps:?}");
    holds(&client, "moves", (0..500).chain(acked).collect()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_stays_away_is_replaced_and_another_zone_may_go() {
    let cluster = TestCluster::start_as(eager).await;
    let client = cluster.client().await;
    cluster.create_topic(&client, "heals", 4, Durability::Disk).await;
    let spare = cluster.spare(4, 0).await;
    broker_is(&client, spare.id(), true).await;
    let producer = client.producer("heals").build().await.unwrap();
    produce(&producer, 0..400).await;
    cluster.with(|cluster| cluster.kill_broker(0)).await;
    produce(&producer, 400..500).await;
    let replaced = |register: &Register| {
        let set = brokers(register);
        set.contains(&4) && !set.contains(&1) && register.prev.is_none() && register.target.is_none()
    };
    all(&client, "heals", "the broker that is gone was replaced", replaced).await;
    cluster.kill(1).await;
    produce(&producer, 500..600).await;
    assert_holds(&client, "heals", 0..600).await;
    // Back at last, the first one finds that nothing is its own any more.
    cluster.heal(1).await;
    cluster.with(|cluster| cluster.heal_broker(0)).await.expect("the broker starts");
    no_folder_is_left(&cluster.partitions_dir(0)).await;
    assert_holds(&client, "heals", 0..600).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_disk_under_the_same_id_is_filled_at_once() {
    let cluster = TestCluster::start().await; // replace-after is minutes: it has nothing to do with this
    let client = cluster.client().await;
    cluster.create_topic(&client, "disk", 3, Durability::Disk).await;
    let producer = client.producer("disk").build().await.unwrap();
    produce(&producer, 0..300).await;
    let old = client.map().broker(BrokerId(1)).unwrap().dir;
    cluster.with(|cluster| cluster.kill_broker(0)).await;
    produce(&producer, 300..400).await;
    std::fs::remove_dir_all(cluster.broker_dir(0)).unwrap();
    cluster.with(|cluster| cluster.heal_broker(0)).await.expect("the broker starts");
    let filled = |register: &Register| {
        register.set.iter().all(|replica| replica.dir != old)
            && register.prev.is_none()
            && register.target.is_none()
    };
    all(&client, "disk", "the new disk holds its replicas", filled).await;
    cluster.kill(2).await;
    produce(&producer, 400..500).await;
    assert_holds(&client, "disk", 0..500).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_go_home() {
    let cluster = TestCluster::start_as(eager).await;
    let client = cluster.client().await;
    cluster.create_topic(&client, "home", 6, Durability::Disk).await;
    let producer = client.producer("home").build().await.unwrap();
    produce(&producer, 0..60).await;
    assert_eq!(led_in(&client, "home", 0), 2);
    cluster.kill(0).await;
    eventually("others lead", || async {
        if led_in(&client, "home", 0) == 0 { Ok(()) } else { Err("not yet") }
    })
    .await;
    cluster.heal(0).await;
    let probes = Probes::start(&producer, 60);
    all(&client, "home", "every leader is at home", |register| register.leader == register.set[0]).await;
    let (acked, gaps) = probes.end().await;
    println!("longest gaps while leaders went home: {gaps:?}");
    holds(&client, "home", (0..60).chain(acked).collect()).await;
}

/// Each broker in turn is stopped in order: no send fails, and nobody waits for a broker to be missed.
#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_stop_moves_the_leaders_first() {
    let cluster = TestCluster::start_as(|options| options.home_after = Some(Duration::from_secs(600))).await;
    let client = cluster.client().await;
    cluster.create_topic(&client, "stop", 6, Durability::Disk).await;
    let producer = client.producer("stop").linger(Duration::from_millis(1)).build().await.unwrap();
    produce(&producer, 0..60).await;
    let mut acked: Vec<u32> = (0..60).collect();
    for zone in 0..3 {
        let probes = Probes::start(&producer, *acked.last().unwrap() + 1);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let led = led_in(&client, "stop", zone);
        let begun = Instant::now();
        cluster.with(move |cluster| cluster.stop_broker(zone)).await;
        let took = begun.elapsed();
        assert_eq!(led_in(&client, "stop", zone), 0, "it stopped before others led");
        tokio::time::sleep(Duration::from_millis(500)).await;
        let (numbers, gaps) = probes.end().await;
        println!("zone {zone} led {led}: stopped in {took:?}, longest gaps {gaps:?}");
        // Far below what it takes to notice that a broker is gone (1 s), on any machine.
        assert!(gaps.iter().all(|gap| *gap < Duration::from_millis(900)), "{gaps:?}");
        acked.extend(numbers);
        acked.sort_unstable();
        cluster.heal(zone).await;
        broker_is(&client, BrokerId(zone as u32 + 1), true).await;
        all_in_sync(&client, "stop").await;
    }
    holds(&client, "stop", acked).await;
}

/// Without controllers there is nobody to hand over to: the stop does not wait for long.
#[tokio::test(flavor = "multi_thread")]
async fn without_controllers_a_broker_stops_soon() {
    let cluster = TestCluster::start().await;
    let client = cluster.client().await;
    cluster.create_topic(&client, "alone", 3, Durability::Disk).await;
    cluster.with(|cluster| (0..3).for_each(|zone| cluster.kill_controller(zone))).await;
    let begun = Instant::now();
    cluster.with(|cluster| cluster.stop_broker(0)).await;
    // Less than the whole drain-timeout of 5 s, with what two busy cores may add.
    assert!(begun.elapsed() < Duration::from_millis(4500), "{:?}", begun.elapsed());
}

/// The logs of two brokers are gone: a majority of the replicas may have forgotten what they acknowledged. Nothing is led
/// until an operator says so, and then all that one replica kept is there.
#[tokio::test(flavor = "multi_thread")]
async fn an_unclean_recovery_brings_a_partition_back() {
    let cluster = TestCluster::start().await;
    let client = cluster.client().await;
    cluster.create_topic(&client, "last", 1, Durability::Disk).await;
    let producer = client.producer("last").build().await.unwrap();
    produce(&producer, 0..300).await;
    all_in_sync(&client, "last").await;
    let refused = client.recover_unclean("last", 0, None, "test").await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidRequest, "it takes records: {refused}");
    cluster.with(|cluster| (0..3).for_each(|zone| cluster.stop_broker(zone))).await;
    for zone in [1, 2] {
        remove_logs(&cluster.partitions_dir(zone));
    }
    cluster.with(|cluster| (0..3).try_for_each(|zone| cluster.heal_broker(zone))).await.expect("they start");
    let term = register(&client, "last", 0).term;
    eventually("all brokers are back", || async {
        let live = client.map().brokers().filter(|broker| broker.live && !broker.draining).count();
        if live == 3 { Ok(()) } else { Err(format!("{live}")) }
    })
    .await;
    // Longer than a recovery takes: no leader without a majority of voters.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let states = client.describe_partitions(Some("last")).await.unwrap();
    assert!(states.iter().all(|state| !state.active), "{states:?}");
    eventually("the recovery is ordered", || async {
        client.recover_unclean("last", 0, Some(BrokerId(1)), "test").await
    })
    .await;
    let ordered = register(&client, "last", 0);
    // Who was to lead may have done so already, and another may lead since.
    let unclean = ordered.unclean_term.expect("an unclean term is noted");
    assert!(
        unclean > term && (ordered.term > unclean || ordered.leader.broker == BrokerId(1)),
        "{ordered:?}"
    );
    let fresh = cluster.client().await;
    let producer = fresh.producer("last").build().await.unwrap();
    produce(&producer, 300..400).await;
    assert_holds(&fresh, "last", 0..400).await;
}

/// The disks of two zones are lost for good. Nothing is written until an operator says so; then everything that the third
/// one holds is there, the new disks are filled from it, and it may go, too.
#[tokio::test(flavor = "multi_thread")]
async fn an_unclean_recovery_goes_on_from_the_last_disk() {
    let cluster = TestCluster::start().await;
    let client = cluster.client().await;
    cluster.create_topic(&client, "last-disk", 1, Durability::Disk).await;
    let producer = client.producer("last-disk").build().await.unwrap();
    produce(&producer, 0..300).await;
    all_in_sync(&client, "last-disk").await;
    let before = register(&client, "last-disk", 0);
    cluster.with(|cluster| [1, 2].into_iter().for_each(|zone| cluster.kill_broker(zone))).await;
    let order = async || client.recover_unclean("last-disk", 0, None, "test").await;
    // Refused as long as the leader believes that it has followers. Dead is not lost: the set stays.
    eventually("a recovery is ordered without a majority", order).await;
    all(&client, "last-disk", "the map shows the order", |register| register.is_unclean()).await;
    let waits = register(&client, "last-disk", 0);
    assert!(waits.set == before.set && waits.prev.is_none(), "{waits:?}");
    for zone in [1, 2] {
        std::fs::remove_dir_all(cluster.broker_dir(zone)).unwrap();
    }
    cluster.with(|cluster| [1, 2].into_iter().try_for_each(|zone| cluster.heal_broker(zone))).await.unwrap();
    eventually("both brokers are back, with other disks", || async {
        let lost = before.set.iter().filter(|&&replica| !client.map().is_kept(replica)).count();
        if lost == 2 { Ok(()) } else { Err(format!("{lost}")) }
    })
    .await;
    eventually("the recovery is ordered", order).await;
    let fresh = cluster.client().await;
    let producer = fresh.producer("last-disk").build().await.unwrap();
    produce(&producer, 300..400).await;
    assert_holds(&fresh, "last-disk", 0..400).await;
    all(&fresh, "last-disk", "the new disks are members, and nothing else is asked", |register| {
        let kept = |replica: &ReplicaId| fresh.map().is_kept(*replica);
        register.set.iter().all(kept) && register.prev.is_none() && register.target.is_none()
    })
    .await;
    all_in_sync(&fresh, "last-disk").await;
    cluster.kill(0).await;
    produce(&producer, 400..450).await;
    assert_holds(&fresh, "last-disk", 0..450).await;
}

/// What is damaged would be repaired; what is not there at all is nothing that could be.
fn remove_logs(partitions: &Path) {
    for folder in std::fs::read_dir(partitions).unwrap() {
        std::fs::remove_dir_all(folder.unwrap().path()).unwrap();
    }
}

async fn all_in_sync(client: &Client, topic: &str) {
    eventually("all replicas are in sync", || async {
        let states = client.describe_partitions(Some(topic)).await.map_err(|error| error.to_string())?;
        let in_sync = |state: &holdfast_proto::v1::PartitionState| {
            state.active && state.replicas.len() == 3 && state.replicas.iter().all(|replica| replica.in_sync)
        };
        let partitions = client.map().topic_named(topic).map_or(0, |topic| topic.spec.partitions as usize);
        let ready = states.iter().filter(|state| in_sync(state)).count();
        if ready == partitions { Ok(()) } else { Err(format!("{ready} of {partitions}")) }
    })
    .await;
}
