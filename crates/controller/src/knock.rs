//! Knocks at the ports of brokers that are not connected: a killed process is told from a broken connection by its
//! port, because the kernel of a host that is up refuses for it. Where nobody answers at all, only time decides.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt as _};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::liveness::Run;
use crate::shared::Shared;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(500);
/// Between two knocks at the same port: a connection may have been taken by a process that was just ending.
const PAUSE: Duration = Duration::from_millis(20);
/// Between two rounds at brokers that were never heard.
const ROUND: Duration = Duration::from_millis(100);
/// Knocks of a round under way at a time.
const AT_ONCE: usize = 64;

/// A broker's last stream ended: knocks until it is back, is refused, or the grace has decided anyway.
pub(crate) async fn after_cut(shared: Arc<Shared>, run: Run, endpoint: String, grace: Duration) {
    let until = Instant::now() + grace;
    while !refused(&endpoint).await {
        if Instant::now() >= until || !shared.brokers().tracker.is_cut(run) {
            return;
        }
        sleep(PAUSE).await;
    }
    note(&shared, run);
}

/// Brokers that the map calls alive and that were never heard, as after a start of all controllers: the session timeout
/// would be long for one that is known to be dead. Runs until cancelled.
pub(crate) async fn at_strangers(shared: Arc<Shared>) {
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.cancel.cancelled() => return,
            _ = rounds.tick() => {}
        }
        let strangers = {
            let brokers = shared.brokers();
            shared.quorum.serving().with_map(|map| brokers.tracker.strangers(map))
        };
        let knocks = strangers.into_iter().map(async |(run, endpoint)| {
            if refused(&endpoint).await {
                note(&shared, run);
            }
        });
        stream::iter(knocks).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    }
}

async fn refused(endpoint: &str) -> bool {
    let knocked = timeout(PATIENCE, TcpStream::connect(endpoint)).await;
    matches!(knocked, Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused)
}

fn note(shared: &Shared, run: Run) {
    tracing::info!(broker = %run.0, "the broker's port refuses connections");
    shared.brokers().tracker.refused(run);
    shared.refusal.notify_one();
    shared.wake.notify_one();
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    /// Only a host that is up and where nobody listens refuses. One that cannot keep up with its callers does not answer.
    #[tokio::test]
    async fn a_closed_port_refuses_and_a_full_one_does_not() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
        assert!(refused(&closed).await);
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let full = listener.local_addr().unwrap().to_string();
        let mut callers = Vec::new();
        while let Ok(Ok(caller)) = timeout(PATIENCE, TcpStream::connect(&full)).await {
            callers.push(caller);
        }
        assert!(!callers.is_empty());
        assert!(!refused(&full).await);
        assert!(!refused("nowhere.invalid:1").await);
    }
}
