//! A zone's disk is full, and has room again: what is stored there can be read all the time, what would be led there is
//! refused or goes elsewhere, nothing ends, and all of it goes on by itself.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::clock::Micros;
use crate::error::ChaosError;
use crate::faults::{Check, at_most};
use crate::measure::gaps::Window;
use crate::storage::Scene;
use crate::storage::ballast::{Ballast, free_bytes};
use crate::storage::fetches::Fetches;
use crate::storage::row::Struck;
use crate::zone::Zone;

/// How long there is no room.
const LENGTH: Duration = Duration::from_secs(15);
/// What is deleted meanwhile makes room; that is taken, too.
const FILL_AGAIN: Duration = Duration::from_millis(200);
/// By then a record that was sent to a full disk was refused, or goes elsewhere.
const SPOKEN: Duration = Duration::from_secs(6);
/// A partition that does not come back is given this long.
const LIMIT: Duration = Duration::from_secs(30);

/// Fills a zone's disk, and empties it.
pub(super) async fn inject(scene: &mut Scene<'_>) -> Result<Struck, ChaosError> {
    let zone = scene.stage.choose(&Zone::ALL);
    let moved = scene.stage.observer.led_in(zone);
    let point = scene.machines.disk(zone)?.point().to_owned();
    let free = free_bytes(&point).map_err(ChaosError::io("asking for free space"))?;
    let fetches = Fetches::start(&scene.stage, zone).await?;
    let from = scene.stage.begin("disk-full", Some(zone));
    let mut ballast = fill(Ballast::create(point.join("ballast")).map_err(ballast_failed)?).await?;
    let full = Micros::now();
    let deadline = Instant::now() + LENGTH;
    while Instant::now() < deadline {
        sleep(FILL_AGAIN).await;
        ballast = fill(ballast).await?;
    }
    let (good, failed) = fetches.stop().await;
    let freeing = Micros::now();
    if scene.spoil {
        sleep(LIMIT / 2).await;
    }
    ballast.free().map_err(ballast_failed)?;
    let freed = if scene.spoil { freeing } else { Micros::now() };
    let serving = scene.served(freed, LIMIT).await;
    let mut checks = Vec::new();
    let to = scene.whole(&mut checks).await?;
    scene.stage.end("disk-full", Some(zone));
    let load = &scene.stage.load;
    let refused = load.refusals_between(full, freeing);
    let late = full.after(SPOKEN);
    let silent = moved.iter().filter(|partition| {
        let acked = load.acks.first_since(**partition, late).is_some_and(|at| at < freeing);
        !acked && refused == 0
    });
    let silent = silent.count() as u64;
    checks.extend([
        Check::of(
            "fetches of what is stored succeed",
            failed == 0 && good > 0,
            format!("{failed} failed, {good} did not"),
        ),
        at_most("partitions led on the full disk of which nobody hears anything", silent, 0),
    ]);
    Ok(Struck {
        zone: Some(zone),
        moved,
        window: Window { from, to },
        serving,
        whole: to.since(freed),
        told: format!("{} MiB taken, {good} of {} fetches good", free >> 20, good + failed),
        checks,
    })
}

/// Writing takes the disk's time: not on the threads of the runtime.
pub(super) async fn fill(mut ballast: Ballast) -> Result<Ballast, ChaosError> {
    let filled = tokio::task::spawn_blocking(move || ballast.fill().map(|()| ballast)).await;
    filled.map_err(|error| ChaosError::client("filling a disk", &error))?.map_err(ballast_failed)
}

pub(super) fn ballast_failed(source: std::io::Error) -> ChaosError {
    ChaosError::Io { what: "filling or emptying a disk".to_owned(), source }
}
