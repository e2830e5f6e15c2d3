//! Bits turn in the segments of one replica, sealed ones and the active ones below what is flushed: while its broker runs,
//! and, every second time, while it is stopped in order. All of them are to be found and mended, and no reader may see one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::clock::Micros;
use crate::cluster::Which;
use crate::cluster::process::Role;
use crate::error::ChaosError;
use crate::faults::Check;
use crate::measure::gaps::{Window, longest};
use crate::storage::Scene;
use crate::storage::flips::{self, Flips, Place};
use crate::storage::row::Struck;
use crate::zone::Zone;

/// Of all bytes.
const RATE: f64 = 1e-5;
/// Also where the logs are short.
const AT_LEAST: usize = 8;
/// Bytes of logs that are waited for, and for how long: on a slow machine it is done with less.
const ENOUGH: u64 = 24 << 20;
const FILLED: Duration = Duration::from_secs(60);
/// What was appended longer ago than this is flushed. A turned bit above that looks like a torn write after a crash,
/// which no log can tell (docs/testing.md).
const FLUSHED: Duration = Duration::from_secs(2);
/// All is mended by then.
const REPAIRED: Duration = Duration::from_secs(60);
/// In every line in which a broker tells of a repair: of one partition, maybe of several places.
const REPAIRED_FROM: &str = "was repaired from other brokers";
/// Pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Turns them, and waits until all are turned back.
pub(super) async fn inject(scene: &mut Scene<'_>, round: u32) -> Result<Struck, ChaosError> {
    let zone = scene.stage.choose(&Zone::ALL);
    let moved = scene.stage.observer.led_in(zone);
    let data = scene.broker_data(zone)?;
    let log = scene.process(Role::Broker, zone)?.log().to_owned();
    let segments = enough(&data).await?;
    let said = repairs(&log);
    sleep(FLUSHED).await;
    let places = flips::choose(&mut scene.stage.random, &segments, RATE, AT_LEAST);
    let stopped = round.is_multiple_of(2);
    let from = scene.stage.begin("bit-flips", Some(zone));
    if stopped {
        scene.stage.cluster.end_in_order(Which::brokers(&[zone])).await?;
    }
    if scene.spoil {
        for other in zone.others() {
            let there = scene.broker_data(other)?;
            turn(elsewhere(&places, &data, &there)).await?;
        }
    }
    let flips = turn(places).await?;
    let turned = Micros::now();
    if stopped {
        scene.stage.cluster.start(scene.stage.network, Which::brokers(&[zone])).await?;
    }
    // Consumers read all of it, from this replica where it serves them.
    let readers = scene.stage.attach_from_beginning(zone).await?;
    let standing = mended(&flips).await;
    let repaired = Micros::now().since(turned);
    readers.stop().await;
    let mut checks = Vec::new();
    let to = scene.whole(&mut checks).await?;
    scene.stage.end("bit-flips", Some(zone));
    let acks = &scene.stage.load.acks;
    let window = Window { from, to };
    let gaps = scene.stage.partitions().into_iter().map(|partition| longest(&acks.of(partition), window));
    let serving = gaps.max().unwrap_or_default();
    let stand = format!("{standing} of {} stand", flips.len());
    checks.push(Check::of("every turned bit is mended within 60 s", standing == 0, stand));
    let how = if stopped { "while it was stopped" } else { "while it ran" };
    Ok(Struck {
        zone: Some(zone),
        moved,
        window,
        serving,
        whole: repaired.max(to.since(turned)),
        told: format!(
            "{} bits turned {how}, {} mended in {} repairs",
            flips.len(),
            flips.len() - standing,
            repairs(&log).saturating_sub(said)
        ),
        checks,
    })
}

/// The replica's segments, once there are some of every kind to break.
async fn enough(data: &Path) -> Result<Vec<(PathBuf, u64)>, ChaosError> {
    let deadline = Instant::now() + FILLED;
    loop {
        let segments = flips::segments(data);
        let segments = segments.map_err(ChaosError::io(format!("listing {}", data.display())))?;
        let bytes: u64 = segments.iter().map(|(_, len)| len).sum();
        if bytes >= ENOUGH || Instant::now() >= deadline {
            return Ok(segments);
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Repairs that a broker has told of in its log so far.
fn repairs(log: &Path) -> usize {
    std::fs::read_to_string(log).map_or(0, |text| text.matches(REPAIRED_FROM).count())
}

/// Waits until none stands any more; how many do after all.
async fn mended(flips: &Flips) -> usize {
    let deadline = Instant::now() + REPAIRED;
    loop {
        let standing = flips.standing();
        if standing == 0 || Instant::now() >= deadline {
            return standing;
        }
        sleep(LOOK_AGAIN).await;
    }
}

async fn turn(places: Vec<Place>) -> Result<Flips, ChaosError> {
    let turned = tokio::task::spawn_blocking(move || Flips::turn(places)).await;
    let turned = turned.map_err(|error| ChaosError::client("turning bits", &error))?;
    turned.map_err(ChaosError::io("turning bits"))
}

/// The same places in another broker's folder.
fn elsewhere(places: &[Place], from: &Path, to: &Path) -> Vec<Place> {
    let moved = |file: &PathBuf| file.strip_prefix(from).map(|inside| to.join(inside)).ok();
    let places = places.iter();
    places.filter_map(|place| Some(Place { file: moved(&place.file)?, ..place.clone() })).collect()
}
