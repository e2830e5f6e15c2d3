//! A zone that goes dark for its clients: every connection to it stays open and nothing comes any more. What the
//! cluster itself makes of a zone in the dark is shown on real processes; here it sees the zone die, so that all that
//! is measured is what clients add.

use std::time::{Duration, Instant};

use holdfast_client::{Client, Consumer, FetchedBatch, Producer, Record, StartAt};
use holdfast_core::metadata::Durability;
use holdfast_tests::{PATIENCE, StallProxy, TestCluster, assert_holds, eventually, led_in};

const TOPIC: &str = "dark";
const PARTITIONS: u32 = 6;
/// What a client may add to a failover: news of the new leader, and one round trip to it. Aimed at are 100 ms, which
/// `holdfast-chaos` measures; here it is only told from the timeouts that would get a client out of the dark otherwise,
/// on any machine.
const CLIENTS_SHARE: Duration = Duration::from_millis(1500);

/// The longest pause between acknowledgements of one partition, with probes every 20 ms.
async fn probe(producer: Producer, partition: u32, numbers: std::ops::Range<u32>) -> Duration {
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    for number in numbers.filter(|number| number % PARTITIONS == partition) {
        let record = Record::new(number.to_string()).with_partition(partition);
        let pending = producer.send(record).await.expect("room");
        tokio::time::timeout(PATIENCE, pending).await.expect("an outcome").expect("an acknowledgement");
        longest = longest.max(last.elapsed());
        last = Instant::now();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    longest
}

/// When every partition had another leader than those of `zone`, as an observer with connections of its own saw it.
async fn moved(observer: &Client, zone: usize) -> Instant {
    let mut map = observer.watch_map();
    while led_in(observer, TOPIC, zone) > 0 {
        let changed = tokio::time::timeout(PATIENCE, map.changed()).await.expect("leaders move in time");
        changed.expect("the observer goes on");
    }
    Instant::now()
}

/// Each zone in turn: a client that loses it without a word goes on as soon as there are other leaders.
#[tokio::test(flavor = "multi_thread")]
async fn clients_leave_a_dark_zone_as_soon_as_others_lead() {
    let (cluster, proxies) = TestCluster::start_behind_proxies().await;
    let client = cluster.client().await;
    cluster.create_topic(&client, TOPIC, PARTITIONS, Durability::Disk).await;
    let producer = client.producer(TOPIC).linger(Duration::from_millis(1)).build().await.unwrap();
    let mut consumer = client.consumer(TOPIC).start(StartAt::Beginning).build().await.unwrap();
    let mut next = 0;
    for (zone, proxy) in proxies.iter().enumerate() {
        // Long enough for the second metadata stream to be open, and for probes on both sides of the outage.
        let numbers = next..next + 150 * PARTITIONS;
        next = numbers.end;
        let probes: Vec<_> = (0..PARTITIONS)
            .map(|partition| tokio::spawn(probe(producer.clone(), partition, numbers.clone())))
            .collect();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let observer = cluster.client_of(&others(&proxies, zone)).await;
        let led = led_in(&observer, TOPIC, zone);
        let dark = Instant::now();
        proxy.stall();
        cluster.kill(zone).await;
        let takeover = moved(&observer, zone).await.duration_since(dark);
        let mut gaps = Vec::new();
        for probe in probes {
            gaps.push(probe.await.expect("no panic"));
        }
        let longest = gaps.iter().max().expect("partitions");
        println!("zone {zone} led {led}: others led after {takeover:?}, longest pause {longest:?}");
        assert!(*longest < takeover + CLIENTS_SHARE, "others led after {takeover:?}, pauses: {gaps:?}");
        read_up_to(&mut consumer, numbers.len()).await;
        proxy.resume();
        cluster.heal(zone).await;
        eventually("the zone is back in the map", || async {
            let live = client.map().brokers().filter(|broker| broker.live).count();
            if live == 3 { Ok(()) } else { Err(format!("{live} brokers live")) }
        })
        .await;
    }
    assert_holds(&client, TOPIC, 0..next).await;
}

fn others(proxies: &[StallProxy], dark: usize) -> Vec<String> {
    let others = proxies.iter().enumerate().filter(|&(zone, _)| zone != dark);
    others.map(|(_, proxy)| proxy.address().to_owned()).collect()
}

/// A consumer in the dark has everything as soon as it is committed, too.
async fn read_up_to(consumer: &mut Consumer, count: usize) {
    let mut read = 0;
    while read < count {
        let batch = tokio::time::timeout(Duration::from_secs(2), consumer.next_batch()).await;
        let batch: FetchedBatch = batch.expect("records in time").expect("no end").expect("readable");
        read += batch.records.len();
    }
    assert_eq!(read, count);
}
