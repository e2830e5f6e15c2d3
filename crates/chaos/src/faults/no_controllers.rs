//! All controllers are killed, then the broker of one zone: nobody is appointed, whatever is led elsewhere goes on. Once
//! two controllers are back, the partitions of the dead broker get leaders.

use std::time::Duration;

use tokio::time::sleep;

use crate::clock::Micros;
use crate::cluster::Which;
use crate::error::ChaosError;
use crate::faults::{Check, Struck};
use crate::measure::gaps::Window;
use crate::stage::Stage;
use crate::zone::Zone;

/// How long the cluster goes without controllers before and after a broker dies.
const ALONE: Duration = Duration::from_secs(3);
/// A partition that does not come back is given this long.
const LIMIT: Duration = Duration::from_secs(15);

/// Kills controllers, then a broker; starts two controllers, then the rest.
pub(crate) async fn inject(stage: &mut Stage<'_>) -> Result<Struck, ChaosError> {
    let zone = stage.choose(&Zone::ALL);
    let before = stage.observer.appointments();
    let begin = stage.begin("no-controllers", Some(zone));
    stage.cluster.kill(Which::controllers(&Zone::ALL)).await?;
    sleep(ALONE).await;
    let moved = stage.observer.led_in(zone);
    stage.cluster.kill(Which::brokers(&[zone])).await?;
    sleep(ALONE).await;
    let appointed = stage.observer.appointments() != before;
    let alone = Window { from: begin, to: Micros::now() };
    stage.cluster.start(stage.network, Which::controllers(&zone.others())).await?;
    let quorum = Micros::now();
    stage.acks_again(&moved, quorum, LIMIT).await;
    let to = stage.end("no-controllers", Some(zone));
    stage.cluster.start(stage.network, Which::zones(&[zone])).await?;
    let healed = stage.healed().await?;
    let checks =
        vec![Check::of("nobody is appointed without controllers", !appointed, "leaders moved".to_owned())];
    Ok(Struck {
        zone: Some(zone),
        moved,
        back_since: Some(quorum),
        elsewhere: alone,
        heal: Some(Window { from: to, to: healed }),
        checks,
        ..Struck::over(begin, to)
    })
}
