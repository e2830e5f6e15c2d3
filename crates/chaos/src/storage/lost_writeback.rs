//! A disk that has less space than it says, as a thin volume: the kernel takes writes, cannot write them back, and tells
//! whoever flushes, once. What is then in memory is not on disk, and never will be.

use std::time::Duration;

use tokio::time::sleep;

use crate::clock::Micros;
use crate::cluster::Which;
use crate::error::ChaosError;
use crate::measure::gaps::Window;
use crate::storage::Scene;
use crate::storage::ballast::Ballast;
use crate::storage::row::Struck;
use crate::zone::Zone;

/// How long the disk has no space after the last partition is led elsewhere.
const LENGTH: Duration = Duration::from_secs(3);
/// A partition that is not led elsewhere is given this long.
const LIMIT: Duration = Duration::from_secs(30);

/// Takes away the space behind a zone's disk; gives it back, mends the file system and boots the machine.
pub(super) async fn inject(scene: &mut Scene<'_>) -> Result<Struck, ChaosError> {
    let zone = scene.stage.choose(&Zone::ALL);
    let moved = scene.stage.observer.led_in(zone);
    let store = scene.machines.disk(zone)?.store().to_owned();
    let from = scene.stage.begin("lost-writeback", Some(zone));
    // In memory, and at once.
    let failed = || ChaosError::io("taking the space behind a disk");
    let mut ballast = Ballast::create(store.join("ballast")).map_err(failed())?;
    ballast.fill().map_err(failed())?;
    let serving = scene.led_elsewhere(zone, &moved, from, LIMIT).await;
    sleep(LENGTH).await;
    scene.stage.cluster.kill(Which::zones(&[zone])).await?;
    ballast.free().map_err(failed())?;
    let disk = scene.machines.disk(zone)?;
    disk.mend().await?;
    scene.machines.boot(zone)?;
    let back = Micros::now();
    scene.stage.cluster.start(scene.stage.network, Which::zones(&[zone])).await?;
    let mut checks = Vec::new();
    let to = scene.whole(&mut checks).await?;
    scene.stage.end("lost-writeback", Some(zone));
    Ok(Struck {
        zone: Some(zone),
        moved,
        window: Window { from, to },
        serving,
        whole: to.since(back),
        told: String::new(),
        checks,
    })
}
