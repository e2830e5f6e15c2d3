//! Packets vanish in one direction only: by turns the zone hears nobody, and nobody hears it.

use std::time::Duration;

use tokio::time::sleep;

use crate::error::ChaosError;
use crate::faults::{Struck, at_most};
use crate::network::injector::Cut;
use crate::stage::Stage;
use crate::zone::Zone;

/// How long packets vanish.
const LENGTH: Duration = Duration::from_secs(10);
/// Elections that one cut may cost.
const ELECTIONS: u64 = 2;

/// Cuts one direction; which, by the number of the round.
pub(crate) async fn inject(stage: &mut Stage<'_>, round: u32) -> Result<Struck, ChaosError> {
    let zone = stage.choose(&Zone::ALL);
    let (name, cut) = match round % 2 {
        0 => ("unheard", Cut::OutOf(zone)),
        _ => ("deaf", Cut::Into(zone)),
    };
    let before = stage.observer.controllers().await?.term;
    let moved = stage.observer.led_in(zone);
    let from = stage.begin(name, Some(zone));
    stage.network.cut(cut).await?;
    sleep(LENGTH).await;
    stage.network.mend().await?;
    let to = stage.healed().await?;
    stage.end(name, Some(zone));
    let terms = stage.observer.controllers().await?.term.saturating_sub(before);
    let moves = stage.observer.most_moves_since(from) as u64;
    let checks = vec![
        at_most("growth of the controllers' term", terms, ELECTIONS),
        at_most("moves of one partition's leader", moves, 1),
    ];
    Ok(Struck { zone: Some(zone), moved, checks, ..Struck::over(from, to) })
}
