//! The power fails. Everything stands still at once, the disks are copied as they are, and the machines come back with the
//! copies in a new boot: what the kernel had taken and not written is gone.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::sleep;

use crate::clock::Micros;
use crate::cluster::Which;
use crate::cluster::process::Role;
use crate::error::ChaosError;
use crate::measure::gaps::{Window, longest};
use crate::network::injector::Cut;
use crate::storage::Scene;
use crate::storage::row::Struck;
use crate::zone::Zone;

/// A partition that does not come back is given this long.
const LIMIT: Duration = Duration::from_secs(90);
/// Acknowledgements go on for this long before the power is back: a second outage would show.
const AFTERMATH: Duration = Duration::from_secs(2);
/// How much the disks have forgotten that lie about a flush.
const LIE: Duration = Duration::from_secs(3);

/// What a broker writes down of its run; only what is used of it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Run {
    boot_id: String,
}

/// One zone loses power, and gets it back once the others go on.
pub(super) async fn zone(scene: &mut Scene<'_>) -> Result<Struck, ChaosError> {
    let zone = scene.stage.choose(&Zone::ALL);
    let moved = scene.stage.observer.led_in(zone);
    let from = scene.stage.begin("power-zone", Some(zone));
    // A machine without power says nothing, where killed processes would reset their connections.
    if scene.stage.network.can(Cut::Around(zone)) {
        scene.stage.network.cut(Cut::Around(zone)).await?;
    }
    scene.stage.cluster.freeze(Which::zones(&[zone])).await?;
    let copies = scene.machines.copies(&[zone]).await?;
    scene.stage.cluster.kill(Which::zones(&[zone])).await?;
    scene.machines.power_on(copies).await?;
    scene.stage.acks_again(&scene.stage.partitions(), from.after(AFTERMATH), LIMIT).await;
    scene.stage.network.mend().await?;
    let back = Micros::now();
    scene.stage.cluster.start(scene.stage.network, Which::zones(&[zone])).await?;
    in_new_boot(scene, zone)?;
    let mut checks = Vec::new();
    let to = scene.whole(&mut checks).await?;
    scene.stage.end("power-zone", Some(zone));
    let window = Window { from, to };
    let acks = &scene.stage.load.acks;
    let gaps = scene.stage.partitions().into_iter().map(|partition| longest(&acks.of(partition), window));
    let serving = gaps.max().unwrap_or_default();
    Ok(Struck {
        zone: Some(zone),
        moved,
        window,
        serving,
        whole: to.since(back),
        told: String::new(),
        checks,
    })
}

/// All zones lose power at the same moment, and get it back together.
pub(super) async fn all(scene: &mut Scene<'_>) -> Result<Struck, ChaosError> {
    let lie = if scene.spoil { Some(lie(scene).await?) } else { None };
    let from = scene.stage.begin("power-all", None);
    scene.stage.cluster.freeze(Which::ALL).await?;
    let copies = match lie {
        Some(copies) => copies,
        None => scene.machines.copies(&Zone::ALL).await?,
    };
    scene.stage.cluster.kill(Which::ALL).await?;
    scene.machines.power_on(copies).await?;
    let back = Micros::now();
    scene.stage.cluster.start(scene.stage.network, Which::ALL).await?;
    for zone in Zone::ALL {
        in_new_boot(scene, zone)?;
    }
    let serving = scene.served(back, LIMIT).await;
    let mut checks = Vec::new();
    let to = scene.whole(&mut checks).await?;
    scene.stage.end("power-all", None);
    Ok(Struck {
        zone: None,
        moved: scene.stage.partitions(),
        window: Window { from, to },
        serving,
        whole: to.since(back),
        told: String::new(),
        checks,
    })
}

/// Disks as they were some time before the power fails, although flushes were acknowledged since.
async fn lie(
    scene: &mut Scene<'_>,
) -> Result<std::collections::BTreeMap<Zone, std::path::PathBuf>, ChaosError> {
    scene.stage.cluster.freeze(Which::ALL).await?;
    let copies = scene.machines.copies(&Zone::ALL).await?;
    scene.stage.cluster.go_on(Which::ALL);
    sleep(LIE).await;
    Ok(copies)
}

/// A broker that takes itself for merely restarted would prove nothing.
fn in_new_boot(scene: &mut Scene<'_>, zone: Zone) -> Result<(), ChaosError> {
    let booted = scene.machines.booted(zone)?;
    let broker = scene.process(Role::Broker, zone)?;
    let file = broker.data().join("run.json");
    let text = std::fs::read(&file).map_err(ChaosError::io(format!("reading {}", file.display())))?;
    let read = serde_json::from_slice::<Run>(&text).map(|run| run.boot_id).unwrap_or_default();
    if read == booted {
        return Ok(());
    }
    Err(broker.problem(format!("was to run in boot {booted}, and runs in {read:?}")))
}
