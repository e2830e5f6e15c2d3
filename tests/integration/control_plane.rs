//! The data plane without its controllers.

use holdfast_core::metadata::Durability;
use holdfast_tests::{TestCluster, assert_holds, produce};

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
