//! Ending in order.

use std::time::{Duration, Instant};

use holdfast_cli::demo::cluster::{ClusterOptions, LocalCluster};
use holdfast_client::{Client, ListOffsetAt};
use holdfast_core::metadata::{Durability, TopicSpec};
use holdfast_proto::v1;
use holdfast_proto::v1::cluster_service_client::ClusterServiceClient;
use holdfast_proto::v1::fetch_service_client::FetchServiceClient;
use holdfast_proto::v1::produce_service_client::ProduceServiceClient;
use holdfast_tests::{assert_holds, eventually, produce};

/// On ports that the system chooses: a second start finds everybody at another address than before.
fn start(dir: &std::path::Path) -> LocalCluster {
    LocalCluster::start(ClusterOptions::new("test", dir)).expect("the cluster starts")
}

async fn client_of(cluster: &LocalCluster) -> Client {
    Client::builder().bootstrap(cluster.bootstrap()).connect().await.unwrap()
}

/// Clients that hold streams and wait for records do not hold up the end, and what was acknowledged in either
/// durability is there at the next start, also where every process has another address then.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_hang_on_do_not_delay_the_end_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let cluster = tokio::task::spawn_blocking(move || start(&path)).await.unwrap();
    let client = client_of(&cluster).await;
    for (topic, durability) in [("disk", Durability::Disk), ("memory", Durability::Memory)] {
        let spec = TopicSpec { partitions: 3, durability, ..TopicSpec::default() };
        eventually("the topic is created", || client.create_topic(topic, spec.clone())).await;
        let producer = client.producer(topic).build().await.unwrap();
        produce(&producer, 0..300).await;
    }
    let end = client.list_offset("disk", 0, ListOffsetAt::Latest).await.unwrap();
    let mut held = Vec::new();
    for endpoint in cluster.bootstrap() {
        let endpoint = format!("http://{endpoint}");
        let mut watching = ClusterServiceClient::connect(endpoint.clone()).await.unwrap();
        let watch = watching.watch_metadata(v1::WatchMetadataRequest {}).await.unwrap().into_inner();
        let mut producing = ProduceServiceClient::connect(endpoint.clone()).await.unwrap();
        let appends = producing.append_stream(futures::stream::pending()).await.unwrap().into_inner();
        let mut fetching = FetchServiceClient::connect(endpoint).await.unwrap();
        let poll = tokio::spawn(async move {
            let request = v1::FetchRequest {
                topic: "disk".into(),
                offset: end.0,
                max_wait_ms: 30_000,
                ..Default::default()
            };
            fetching.fetch(request).await
        });
        held.push((watch, appends, poll));
    }
    // Shorter than any of the waits above, and long enough for any machine.
    let begun = Instant::now();
    tokio::task::spawn_blocking(move || cluster.shutdown()).await.unwrap();
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(20), "ending three brokers took {took:?}");
    drop(held);

    let path = dir.path().to_owned();
    let cluster = tokio::task::spawn_blocking(move || start(&path)).await.unwrap();
    let client = client_of(&cluster).await;
    for topic in ["disk", "memory"] {
        assert_holds(&client, topic, 0..300).await;
    }
    tokio::task::spawn_blocking(move || cluster.shutdown()).await.unwrap();
}
