//! SIGKILL to both processes of a zone, with the leading controller elsewhere, in it, or wherever it is.

use std::time::Duration;

use crate::cluster::Which;
use crate::error::ChaosError;
use crate::faults::{Struck, linger};
use crate::measure::gaps::Window;
use crate::stage::Stage;
use crate::zone::Zone;

/// A partition that does not come back is given this long.
const LIMIT: Duration = Duration::from_secs(15);

/// Where the leading controller is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leader {
    /// In another zone than the one struck.
    Elsewhere,
    /// In the zone struck.
    Inside,
    /// Wherever.
    Anywhere,
}

/// Kills a zone, waits until every partition acknowledges again, and starts the zone.
pub(crate) async fn inject(stage: &mut Stage<'_>, leader: Leader) -> Result<Struck, ChaosError> {
    let zone = victim(stage, leader).await?;
    let moved = stage.observer.led_in(zone);
    let from = stage.begin("kill", Some(zone));
    stage.cluster.kill(Which::zones(&[zone])).await?;
    linger(stage, from, LIMIT).await;
    let to = stage.end("kill", Some(zone));
    stage.cluster.start(stage.network, Which::zones(&[zone])).await?;
    let healed = stage.healed().await?;
    let heal = Some(Window { from: to, to: healed });
    Ok(Struck { zone: Some(zone), moved, heal, ..Struck::over(from, to) })
}

async fn victim(stage: &mut Stage<'_>, leader: Leader) -> Result<Zone, ChaosError> {
    let leading = stage.observer.controllers().await?.leader;
    Ok(match (leader, leading) {
        (Leader::Inside, Some(zone)) => zone,
        (Leader::Elsewhere, Some(zone)) => stage.choose(&zone.others()),
        _ => stage.choose(&Zone::ALL),
    })
}
