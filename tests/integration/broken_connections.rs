//! Connections that break while both ends live.

use holdfast_client::Client;
use holdfast_core::BrokerId;
use holdfast_core::metadata::Durability;
use holdfast_proto::v1::{Event, EventKind};
use holdfast_tests::{SpareBroker, StallProxy, TestCluster, eventually};

const BROKER: u32 = 9;
const ROUNDS: usize = 10;

/// A broker whose connections to all controllers break at once comes back before it is taken for dead. A busy machine may
/// be too slow for that now and then.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_whose_connections_break_is_not_taken_for_dead() {
    let cluster = TestCluster::start().await;
    let client = cluster.client().await;
    let mut controllers = cluster.with(|cluster| cluster.controllers()).await;
    let mut proxies = Vec::new();
    for controller in &mut controllers {
        let proxy = StallProxy::start().await;
        proxy.forward_to(&controller.endpoint);
        controller.endpoint = proxy.address().to_owned();
        proxies.push(proxy);
    }
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_owned();
    let start = move || SpareBroker::start(BROKER, "a", folder, controllers);
    let broker = tokio::task::spawn_blocking(start).await.unwrap();
    for round in 0..ROUNDS {
        is_live(&client).await;
        let before: Vec<u64> = proxies.iter().map(StallProxy::connections).collect();
        proxies.iter().for_each(StallProxy::break_all);
        eventually("the broker connects again", || async {
            let back = proxies.iter().zip(&before).all(|(proxy, before)| proxy.connections() > *before);
            back.then_some(()).ok_or("not yet")
        })
        .await;
        // Whatever was decided about it stands in the log before this.
        cluster.create_topic(&client, &format!("round-{round}"), 1, Durability::Disk).await;
    }
    is_live(&client).await;
    let events = client.list_events(200).await.unwrap().events;
    let deaths = events.iter().filter(|event| is_death(event)).count();
    assert!(deaths < ROUNDS / 2, "{deaths} deaths of {ROUNDS} breaks");
    tokio::task::spawn_blocking(|| drop(broker)).await.unwrap();
}

async fn is_live(client: &Client) {
    eventually("the broker is live", || async {
        let live = client.map().broker(BrokerId(BROKER)).is_some_and(|broker| broker.live);
        live.then_some(()).ok_or("not yet")
    })
    .await;
}

fn is_death(event: &Event) -> bool {
    event.kind() == EventKind::Failover && event.brokers == [BROKER]
}
