//! What the controllers record of a failover.

use holdfast_core::ControllerId;
use holdfast_core::metadata::Durability;
use holdfast_proto::internal::v1::controller_service_client::ControllerServiceClient;
use holdfast_proto::transport::{Link, connect_lazy};
use holdfast_proto::v1::{Event, EventKind, ListEventsRequest};
use holdfast_tests::{TestCluster, assert_holds, eventually, led_in, produce};

const PARTITIONS: u32 = 6;

/// Waits until the controllers are led; the zone of the one that leads.
async fn leading_controller(cluster: &TestCluster) -> usize {
    eventually("a controller leads", || async {
        cluster.with(|cluster| cluster.controller_leader()).await.ok_or("none leads")
    })
    .await
}

/// Every surviving controller has the whole failover, each by itself, and brokers tell of it.
#[tokio::test(flavor = "multi_thread")]
async fn every_survivor_has_timed_the_loss_of_a_zone() {
    let cluster = TestCluster::start().await;
    let leader = leading_controller(&cluster).await;
    // Not the leader's.
    a_lost_zone_is_timed(&cluster, (leader + 1) % 3).await;
}

/// The same where the leading controller goes with the zone; the election has a record, too.
#[tokio::test(flavor = "multi_thread")]
async fn the_loss_of_the_leading_controllers_zone_is_timed() {
    let cluster = TestCluster::start().await;
    let leader = leading_controller(&cluster).await;
    a_lost_zone_is_timed(&cluster, leader).await;
    for zone in (0..3).filter(|&zone| zone != leader) {
        eventually(&format!("controller {} has recorded the election", zone + 1), || async {
            let events = ask(&cluster, zone).await?;
            let election = events.iter().find(|event| event.kind() == EventKind::Election);
            let election = election.ok_or_else(|| format!("no election among {events:#?}"))?;
            let times = election.election.ok_or("no times")?;
            assert_eq!(times.from, leader as u64 + 1);
            assert!(times.applied_us.ok_or("nothing applied")? >= times.elected_us);
            Ok::<(), String>(())
        })
        .await;
    }
}

/// What a controller has recorded is there after it was started again, and is not recorded anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_controller_remembers_and_invents_nothing() {
    let cluster = TestCluster::start().await;
    let leader = leading_controller(&cluster).await;
    let (lost, restarted) = ((leader + 1) % 3, (leader + 2) % 3);
    a_lost_zone_is_timed(&cluster, lost).await;
    let before = failovers(&ask(&cluster, restarted).await.unwrap());
    cluster.with(move |cluster| cluster.kill_controller(restarted)).await;
    cluster.with(move |cluster| cluster.heal_controller(restarted)).await.expect("it starts again");
    cluster.heal(lost).await;
    let returned = |event: &Event| event.kind() == EventKind::Registered && event.reason == "returned";
    eventually("the restarted controller has seen the return", || async {
        let events = ask(&cluster, restarted).await?;
        if events.iter().any(returned) { Ok(()) } else { Err(format!("{events:#?}")) }
    })
    .await;
    let after = failovers(&ask(&cluster, restarted).await.unwrap());
    assert_eq!(after, before, "the log of before was taken for news");
}

/// Kills a zone, and waits until each surviving controller, and each surviving broker, has the complete record.
async fn a_lost_zone_is_timed(cluster: &TestCluster, lost: usize) {
    let client = cluster.client().await;
    cluster.create_topic(&client, "timed", PARTITIONS, Durability::Disk).await;
    let producer = client.producer("timed").build().await.unwrap();
    produce(&producer, 0..60).await;
    let moving = led_in(&client, "timed", lost);
    assert!(moving > 0, "the zone leads nothing");
    cluster.kill(lost).await;
    produce(&producer, 60..120).await;
    for zone in (0..3).filter(|&zone| zone != lost) {
        let failover = eventually(&format!("controller {} has the whole failover", zone + 1), || async {
            whole_failover(&ask(cluster, zone).await?)
        })
        .await;
        check(&failover, lost, moving);
    }
    let told = eventually("a broker tells of it", || async {
        let answer = client.list_events(100).await.map_err(|error| error.to_string())?;
        let whole = whole_failover(&answer.events)?;
        if answer.answered.len() == 2 { Ok((answer, whole)) } else { Err(format!("{:?}", answer.answered)) }
    })
    .await;
    let (answer, failover) = told;
    check(&failover, lost, moving);
    assert_eq!(answer.silent, [lost as u64 + 1]);
    assert_eq!(failovers(&answer.events).len(), 1, "two records of one thing");
    assert_holds(&client, "timed", 0..120).await;
}

/// What a controller has recorded, told by itself.
async fn ask(cluster: &TestCluster, zone: usize) -> Result<Vec<Event>, String> {
    let endpoint = cluster.with(move |cluster| cluster.controllers()[zone].endpoint.clone()).await;
    let channel = connect_lazy(&endpoint, Link::Peer, None).map_err(|error| error.to_string())?;
    let mut controller = ControllerServiceClient::new(channel);
    let answer = controller.list_events(ListEventsRequest { limit: 0 }).await;
    let answer = answer.map_err(|status| status.to_string())?.into_inner();
    assert_eq!(answer.answered, [ControllerId(zone as u64 + 1).0]);
    Ok(answer.events)
}

fn failovers(events: &[Event]) -> Vec<Event> {
    events.iter().filter(|event| event.kind() == EventKind::Failover).cloned().collect()
}

fn whole_failover(events: &[Event]) -> Result<Event, String> {
    let mut failovers = failovers(events);
    failovers.retain(|failover| failover.complete);
    failovers.pop().ok_or_else(|| format!("no complete failover among {events:#?}"))
}

/// No step is missing, none comes before the one that it depends on, and the shares are of the whole.
fn check(failover: &Event, lost: usize, moving: usize) {
    assert_eq!(failover.brokers, [lost as u32 + 1], "{failover:#?}");
    assert_eq!(failover.zone, ["a", "b", "c"][lost]);
    assert_eq!(failover.since, "cut", "the streams of a dead process break");
    assert!(["refused", "reset", "verdict"].contains(&failover.reason.as_str()), "{}", failover.reason);
    let moved: Vec<_> = failover.rows.iter().filter(|row| row.topic == "timed").collect();
    assert_eq!(moved.len(), moving);
    let (detected, appointed) = (failover.detected_us.unwrap(), failover.appointed_us.unwrap());
    assert!(detected <= appointed, "{failover:#?}");
    for row in moved {
        let (recovered, writable) = (row.recovered_us.unwrap(), row.writable_us.unwrap());
        assert!(appointed <= recovered && recovered <= writable, "{row:#?}");
        assert!(writable <= row.in_sync_us.unwrap(), "{row:#?}");
        assert!(writable < 30_000_000, "half a minute is no failover: {row:#?}");
        assert_ne!(row.to, lost as u32 + 1);
    }
    let shares = failover.shares.as_ref().unwrap();
    let sum = shares.detect + shares.appoint + shares.recover + shares.commit;
    assert!((sum - 1.0).abs() < 1e-6, "{shares:?}");
}
