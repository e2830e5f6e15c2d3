//! Keeps what the other controllers hear of brokers that this one has lost, exact to the moment.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::shared::Shared;

/// Between two looks where no grace runs out before; shorter than any sensible grace.
const LOOK: Duration = Duration::from_millis(25);

/// Runs until cancelled.
pub(crate) async fn run(shared: Arc<Shared>) {
    loop {
        let now = Instant::now();
        let (lost, next) = shared.brokers().tracker.look_for_losses(now);
        let news = shared.lost.send_if_modified(|known| {
            let news = *known != lost;
            *known = lost;
            news
        });
        if news {
            shared.wake.notify_one();
        }
        let until = next.map_or(now + LOOK, |next| next.min(now + LOOK));
        tokio::select! {
            () = shared.cancel.cancelled() => return,
            () = shared.refusal.notified() => {}
            () = tokio::time::sleep_until(until.into()) => {}
        }
    }
}
