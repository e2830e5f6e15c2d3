//! SIGSTOP to both processes of a zone, and SIGCONT: a leader that does not know that it was replaced comes back. What
//! it acknowledges, and what consumers attached to it read, the checker judges.

use std::time::Duration;

use tokio::time::sleep;

use crate::cluster::Which;
use crate::error::ChaosError;
use crate::faults::Struck;
use crate::stage::Stage;
use crate::zone::Zone;

/// Stops a zone for `length`.
pub(crate) async fn inject(stage: &mut Stage<'_>, length: Duration) -> Result<Struck, ChaosError> {
    let zone = stage.choose(&Zone::ALL);
    let attached = stage.attach(zone).await?;
    let moved = stage.observer.led_in(zone);
    let from = stage.begin("stop", Some(zone));
    stage.cluster.stop(Which::zones(&[zone]));
    sleep(length).await;
    stage.cluster.go_on(Which::zones(&[zone]));
    let to = stage.healed().await?;
    stage.end("stop", Some(zone));
    attached.stop().await;
    Ok(Struck { zone: Some(zone), moved, ..Struck::over(from, to) })
}
