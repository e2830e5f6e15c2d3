//! All packets to and from a zone vanish, without a reset. A client in the zone must be acknowledged nothing, and
//! consumers attached to its broker must not read what later vanishes.

use std::time::Duration;

use tokio::time::sleep;

use crate::clock::Micros;
use crate::error::ChaosError;
use crate::faults::{Check, Struck};
use crate::load::inside::Inside;
use crate::network::injector::Cut;
use crate::stage::Stage;
use crate::zone::Zone;

/// How long packets vanish.
const LENGTH: Duration = Duration::from_secs(10);
/// What was on its way when the cut began may still be acknowledged within this time.
const IN_FLIGHT: Duration = Duration::from_millis(100);

/// Cuts a zone off and lets it back.
pub(crate) async fn inject(stage: &mut Stage<'_>) -> Result<Struck, ChaosError> {
    let zone = stage.choose(&Zone::ALL);
    let inside = Inside::start(stage.network, zone, &stage.load).await?;
    let attached = stage.attach(zone).await?;
    let moved = stage.observer.led_in(zone);
    let from = stage.begin("black-hole", Some(zone));
    stage.network.cut(Cut::Around(zone)).await?;
    let cut = Micros::now();
    sleep(LENGTH).await;
    let mending = Micros::now();
    stage.network.mend().await?;
    let to = stage.healed().await?;
    stage.end("black-hole", Some(zone));
    let acked = inside.acked_between(cut.after(IN_FLIGHT), mending);
    inside.stop().await?;
    attached.stop().await;
    let checks = vec![Check::of("the cut zone acknowledges nothing", acked == 0, format!("{acked} acks"))];
    Ok(Struck { zone: Some(zone), moved, checks, ..Struck::over(from, to) })
}
