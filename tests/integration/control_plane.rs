//! The data plane without its controllers.

use std::time::{Duration, Instant};

use holdfast_client::Record;
use holdfast_core::metadata::Durability;
use holdfast_tests::{PATIENCE, TestCluster, assert_holds, eventually, produce};

/// Long enough for whatever grows or is used up in an outage.
const OUTAGE: Duration = Duration::from_millis(4200);
/// The first record after it may take so long once the controllers have a leader; on an idle machine it takes some milliseconds.
const SOON: Duration = Duration::from_millis(600);

#[tokio::test(flavor = "multi_thread")]
async fn without_controllers_records_go_on_and_a_restarted_broker_comes_back() {
    let cluster = TestCluster::start().await;
    let client = cluster.client().await;
    cluster.create_topic(&client, "static", 3, Durability::Disk).await;
    let producer = client.producer("static").build().await.unwrap();
    produce(&producer, 0..300).await;
    cluster.with(|cluster| (0..3).for_each(|zone| cluster.kill_controller(zone))).await;
    produce(&producer, 300..600).await;
    // A broker that leads partitions restarts: it comes back from its saved map and leads again, in a run of its own.
    for zone in 0..3 {
        cluster.with(move |cluster| cluster.kill_broker(zone)).await;
        cluster
            .with(move |cluster| cluster.heal_broker(zone))
            .await
            .expect("the broker starts without controllers");
        let (from, to) = (600 + zone as u32 * 100, 700 + zone as u32 * 100);
        produce(&producer, from..to).await;
    }
    // A client that was not there before finds everything, too, and a new producer gets an id.
    let newcomer = cluster.client().await;
    let newcomers = newcomer.producer("static").build().await.expect("an id from a broker's stock");
    produce(&newcomers, 900..950).await;
    assert_holds(&newcomer, "static", 0..950).await;
    cluster
        .with(|cluster| (0..3).try_for_each(|zone| cluster.heal_controller(zone)))
        .await
        .expect("controllers");
    produce(&producer, 950..1000).await;
    cluster.create_topic(&client, "after", 1, Durability::Disk).await;
    assert_holds(&client, "static", 0..1000).await;
}

/// A controller that was left alone calls itself leader no longer, and whoever asks is told so: nobody could be appointed.
#[tokio::test(flavor = "multi_thread")]
async fn controllers_without_a_majority_show_no_leader() {
    let cluster = TestCluster::start().await;
    let client = cluster.client().await;
    let leader = eventually("a leader is shown", || async {
        let state = client.describe_cluster().await.map_err(|error| error.to_string())?;
        let leader = state.controllers.iter().position(|controller| controller.leader);
        leader.ok_or_else(|| format!("{:?}", state.controllers))
    })
    .await;
    for zone in (0..3).filter(|&zone| zone != leader) {
        cluster.with(move |cluster| cluster.kill_controller(zone)).await;
    }
    eventually("it is shown no more, and can be reached", || async {
        let state = client.describe_cluster().await.map_err(|error| error.to_string())?;
        let shown = state.controllers.iter().any(|controller| controller.leader);
        let reached = state.controllers.iter().map(|controller| controller.reachable).collect::<Vec<_>>();
        let alone = (0..3).all(|zone| reached[zone] == (zone == leader));
        if shown || !alone { Err(format!("{:?}", state.controllers)) } else { Ok(()) }
    })
    .await;
}

/// All controllers are gone, and then a broker: what it led stands still, until controllers are back to appoint others. The
/// client is there when they have: nothing that an outage of seconds has used up holds it back.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_record_after_an_outage_of_controllers_and_a_broker_comes_soon() {
    let cluster = TestCluster::start().await;
    let client = cluster.client().await;
    cluster.create_topic(&client, "outage", 6, Durability::Disk).await;
    let producer = client.producer("outage").linger(Duration::from_millis(1)).build().await.unwrap();
    produce(&producer, 0..60).await;
    cluster.with(|cluster| (0..3).for_each(|zone| cluster.kill_controller(zone))).await;
    cluster.with(|cluster| cluster.kill_broker(0)).await;
    let mut pending = Vec::new();
    for number in 60..66 {
        let record = Record::new(number.to_string()).with_partition(number % 6);
        pending.push(producer.send(record).await.unwrap());
    }
    tokio::time::sleep(OUTAGE).await;
    assert!(pending.iter().any(|pending| !pending.is_done()), "the dead broker led nothing");
    cluster
        .with(|cluster| (1..3).try_for_each(|zone| cluster.heal_controller(zone)))
        .await
        .expect("controllers");
    eventually("the controllers have a leader", || async {
        let leader = cluster.with(|cluster| cluster.controller_leader()).await;
        leader.ok_or("none")
    })
    .await;
    let back = Instant::now();
    for pending in pending {
        tokio::time::timeout(PATIENCE, pending).await.expect("an outcome").expect("acknowledged");
    }
    let took = back.elapsed();
    assert!(took < SOON, "took {took:?}");
    assert_holds(&client, "outage", 0..66).await;
}
