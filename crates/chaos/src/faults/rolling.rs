//! After zones were killed one after the other, leaders are spread over all zones again.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::faults::Check;
use crate::load::PARTITIONS;
use crate::stage::Stage;
use crate::zone::Zone;

/// Leaders go home when a zone has been stable for a minute; half a minute for the moves themselves.
const HOME: Duration = Duration::from_secs(90);
/// Pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Waits until each zone leads its share.
pub(crate) async fn leaders_home(stage: &Stage<'_>) -> Check {
    let share = PARTITIONS as usize / Zone::ALL.len();
    let deadline = Instant::now() + HOME;
    loop {
        let led = Zone::ALL.map(|zone| stage.observer.led_in(zone).len());
        let home = led.iter().all(|led| *led == share);
        if home || Instant::now() >= deadline {
            return Check::of("every zone leads its share after 60 s", home, format!("a, b, c lead {led:?}"));
        }
        sleep(LOOK_AGAIN).await;
    }
}
