//! The disk of the leading controller is full while a topic is changed all the time: another controller leads, every change is
//! carried out, nothing ends, and the one without room goes on by itself when there is some.

use std::path::Path;
use std::time::Duration;

use holdfast_client::Client;
use holdfast_core::metadata::TopicChange;
use holdfast_core::retention::Retention;
use tokio::time::{Instant, sleep};

use crate::clock::Micros;
use crate::cluster::process::Role;
use crate::error::{ChaosError, chain};
use crate::faults::Check;
use crate::measure::gaps::Window;
use crate::storage::Scene;
use crate::storage::ballast::Ballast;
use crate::storage::disk_full::{ballast_failed, fill};
use crate::storage::row::Struck;
use crate::zone::Zone;

/// How long there is no room.
const LENGTH: Duration = Duration::from_secs(15);
/// Between two changes. Their entries fill what is left of a block within a second.
const PAUSE: Duration = Duration::from_millis(10);
/// What a controller says that found no room.
const STANDS_STILL: &str = "this controller stands still";

/// Fills the disk of the leading controller's zone, and empties it.
pub(super) async fn inject(scene: &mut Scene<'_>) -> Result<Struck, ChaosError> {
    let zone = leading(scene).await?.unwrap_or(Zone::A);
    let moved = scene.stage.observer.led_in(zone);
    let log = scene.process(Role::Controller, zone)?.log().to_owned();
    let stood_still = count(&log);
    let from = scene.stage.begin("controller-disk-full", Some(zone));
    // No majority is left with room where two are full.
    let full: &[Zone] = if scene.spoil { &[zone, zone.others()[0]] } else { &[zone] };
    let mut ballasts = Vec::new();
    for zone in full {
        let point = scene.machines.disk(*zone)?.point().to_owned();
        ballasts.push(Ballast::create(point.join("ballast")).map_err(ballast_failed)?);
    }
    let mut changes = Changes::default();
    let deadline = Instant::now() + LENGTH;
    while Instant::now() < deadline {
        for ballast in std::mem::take(&mut ballasts) {
            ballasts.push(fill(ballast).await?);
        }
        changes.make(&scene.stage.client, &scene.stage.load.topic).await;
        sleep(PAUSE).await;
    }
    let elsewhere = leading(scene).await?.is_some_and(|leader| leader != zone);
    let met = count(&log) > stood_still;
    ballasts.into_iter().try_for_each(Ballast::free).map_err(ballast_failed)?;
    let freed = Micros::now();
    let mut checks = vec![
        Check::of(
            "every change of a topic is carried out",
            changes.failed.is_empty(),
            changes.failed.join("; "),
        ),
        Check::of("a controller with room leads", elsewhere || !met, "it does not".to_owned()),
        Check::of("the controller met the full disk", met, "it found room for everything".to_owned()),
    ];
    let to = scene.whole(&mut checks).await?;
    scene.stage.end("controller-disk-full", Some(zone));
    Ok(Struck {
        zone: Some(zone),
        moved,
        window: Window { from, to },
        serving: changes.longest,
        whole: to.since(freed),
        told: format!("{} changes of a topic", changes.made),
        checks,
    })
}

/// Changes of a topic, one after the other.
#[derive(Debug, Default)]
struct Changes {
    made: u64,
    failed: Vec<String>,
    longest: Duration,
}

impl Changes {
    /// One more; it says nothing that holds for any record.
    async fn make(&mut self, client: &Client, topic: &str) {
        let begun = Instant::now();
        let retention = Retention { time_ms: None, bytes: Some((1 << 50) + self.made) };
        let change = TopicChange { retention: Some(retention), ..TopicChange::default() };
        if let Err(error) = client.alter_topic(topic, change).await {
            self.failed.push(chain(&error));
        }
        self.made += 1;
        self.longest = self.longest.max(begun.elapsed());
    }
}

async fn leading(scene: &Scene<'_>) -> Result<Option<Zone>, ChaosError> {
    Ok(scene.stage.observer.controllers().await?.leader)
}

/// How often a controller has told that it found no room.
fn count(log: &Path) -> usize {
    std::fs::read_to_string(log).map_or(0, |text| text.matches(STANDS_STILL).count())
}
