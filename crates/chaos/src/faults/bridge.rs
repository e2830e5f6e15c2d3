//! Two zones are cut from each other, the third sees both: writes go on, and leaders do not go to and fro.

use std::time::Duration;

use tokio::time::sleep;

use crate::error::ChaosError;
use crate::faults::{Check, Struck, at_most};
use crate::network::injector::Cut;
use crate::stage::Stage;
use crate::zone::Zone;

/// How long packets vanish.
const LENGTH: Duration = Duration::from_secs(20);
/// After this every partition takes records.
const UNAVAILABLE: Duration = Duration::from_secs(10);
/// Elections that it may cost.
const ELECTIONS: u64 = 2;

/// Cuts the two others of a zone from each other.
pub(crate) async fn inject(stage: &mut Stage<'_>) -> Result<Struck, ChaosError> {
    let middle = stage.choose(&Zone::ALL);
    let [one, other] = middle.others();
    let before = stage.observer.controllers().await?.term;
    let moved = [stage.observer.led_in(one), stage.observer.led_in(other)].concat();
    let from = stage.begin("bridge", None);
    stage.network.cut(Cut::Between(one, other)).await?;
    sleep(UNAVAILABLE).await;
    let available =
        stage.acks_again(&stage.partitions(), from.after(UNAVAILABLE), LENGTH - UNAVAILABLE).await;
    sleep(LENGTH - UNAVAILABLE).await;
    stage.network.mend().await?;
    let to = stage.healed().await?;
    stage.end("bridge", None);
    let terms = stage.observer.controllers().await?.term.saturating_sub(before);
    let moves = stage.observer.most_moves_since(from) as u64;
    let checks = vec![
        Check::of("every partition takes records after 10 s", available, "some do not".to_owned()),
        at_most("growth of the controllers' term", terms, ELECTIONS),
        at_most("moves of one partition's leader", moves, 1),
    ];
    Ok(Struck { zone: None, moved, checks, ..Struck::over(from, to) })
}
