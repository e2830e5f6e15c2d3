//! Two zones are killed, and come back: the survivor alone acknowledges nothing and says so in time.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::clock::Micros;
use crate::cluster::Which;
use crate::error::ChaosError;
use crate::faults::{Check, Struck, at_most};
use crate::stage::Stage;
use crate::zone::Zone;

/// How long the survivor is alone.
const ALONE: Duration = Duration::from_secs(8);
/// By then a write is refused or given up.
const REFUSED: Duration = Duration::from_secs(5);
/// What both had when they died may still be acknowledged within this time.
const IN_FLIGHT: Duration = Duration::from_millis(100);
/// A partition that does not come back is given this long.
const LIMIT: Duration = Duration::from_secs(30);
/// Pause between two looks at what is under way.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What a client of this fault waits for an outcome: what is refused for longer it reports, instead of trying on.
pub(crate) const DELIVERY: Duration = Duration::from_millis(4500);

/// Kills all but one zone, and starts them.
pub(crate) async fn inject(stage: &mut Stage<'_>) -> Result<Struck, ChaosError> {
    let survivor = stage.choose(&Zone::ALL);
    let dead = survivor.others();
    let from = stage.begin("two-zones", None);
    stage.cluster.kill(Which::zones(&dead)).await?;
    let alone = Micros::now().after(IN_FLIGHT);
    let longest = longest_open(stage, ALONE).await;
    let acks =
        stage.partitions().into_iter().filter(|partition| acked_since(stage, *partition, alone)).count();
    let refused = stage.load.refusals_between(alone, Micros::now());
    let back = Micros::now();
    stage.cluster.start(stage.network, Which::zones(&dead)).await?;
    stage.acks_again(&stage.partitions(), back, LIMIT).await;
    let to = stage.healed().await?;
    stage.end("two-zones", None);
    let checks = vec![
        at_most("partitions that the survivor alone acknowledges", acks as u64, 0),
        Check::of("writes are refused", refused > 0, "none was".to_owned()),
        Check::of(
            "a write has an outcome within 5 s",
            longest <= REFUSED,
            format!("one had none after {longest:?}"),
        ),
    ];
    Ok(Struck { moved: stage.partitions(), back_since: Some(back), checks, ..Struck::over(from, to) })
}

/// Watches for `length`; the longest time that a record was without outcome in it.
async fn longest_open(stage: &Stage<'_>, length: Duration) -> Duration {
    let deadline = Instant::now() + length;
    let mut longest = Duration::ZERO;
    while Instant::now() < deadline {
        sleep(LOOK_AGAIN).await;
        longest = longest.max(stage.load.oldest_open());
    }
    longest
}

fn acked_since(stage: &Stage<'_>, partition: u32, moment: Micros) -> bool {
    stage.load.acks.first_since(partition, moment).is_some()
}
