//! The questions to the other controllers: one is always outstanding at each.
//!
//! The other answers when it has news, or after a moment. When its process dies the system ends the connection, the
//! question fails within a millisecond, and so does the attempt to connect again: that is how a death is noticed
//! without waiting for any timer to run out.

use std::time::{Duration, Instant};

use futures::future::join_all;
use holdfast_core::ControllerId;
use holdfast_proto::internal::v1::PingResponse;
use tonic::Status;

use super::Quorum;
use super::account::Account;
use crate::config::VoterConfig;

/// Least time between two questions to the same controller, however much it has to say.
const PACE: Duration = Duration::from_millis(5);
/// Pauses before a controller that cannot be reached is asked again. None after the first failure: what a fresh
/// connection meets is what tells a death from a connection that was cut.
const PAUSES: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(10), Duration::from_millis(20), Duration::from_millis(50)];

/// Who hears of every answer.
pub(super) type Answered<'a> = &'a (dyn Fn(&VoterConfig, &PingResponse) + Sync);

/// Asks all others for ever, also where there are none.
pub(super) async fn run(quorum: &Quorum, answered: Answered<'_>) {
    let others = quorum.voters.iter().filter(|voter| voter.id != quorum.id);
    join_all(others.map(|voter| Line::new(quorum, voter).run(answered))).await;
    std::future::pending::<()>().await;
}

/// The questions to one controller.
struct Line<'a> {
    quorum: &'a Quorum,
    voter: &'a VoterConfig,
    /// Tag of its last answer.
    seen: u64,
    failures: usize,
    reached: Option<bool>,
}

impl<'a> Line<'a> {
    fn new(quorum: &'a Quorum, voter: &'a VoterConfig) -> Self {
        Line { quorum, voter, seen: 0, failures: 0, reached: None }
    }

    async fn run(mut self, answered: Answered<'_>) {
        // Longer than the other holds an answer back.
        let patience = self.quorum.timing.hold * 3;
        loop {
            let sent = Instant::now();
            let question = self.quorum.peers.ping(self.voter.id.0, &self.voter.endpoint, self.seen);
            let outcome = tokio::time::timeout(patience, question).await;
            let pause = match outcome {
                Ok(Ok(answer)) => {
                    self.take(sent, &answer);
                    answered(self.voter, &answer);
                    PACE.saturating_sub(sent.elapsed())
                }
                Ok(Err(status)) => self.fail(&status),
                // A black hole looks so, and a machine that is busy: only silence counts.
                Err(_) => self.note(false, &"no answer in time"),
            };
            self.quorum.look_again.notify_one();
            tokio::time::sleep(pause).await;
        }
    }

    fn take(&mut self, sent: Instant, answer: &PingResponse) {
        let (id, account) = (self.voter.id, Account::from_wire(answer));
        let counts = self.quorum.election(|election, now| election.answered(now, id, sent, account));
        // What does not count was not seen: the next answer is not held back.
        (self.seen, self.failures) = (if counts { answer.tag } else { 0 }, 0);
        self.note(true, &"");
    }

    /// Gives the pause before the next attempt.
    fn fail(&mut self, status: &Status) -> Duration {
        self.seen = 0;
        self.quorum.election(|election, now| election.failed(now, self.voter.id));
        self.note(false, status);
        let pause = PAUSES[self.failures.min(PAUSES.len() - 1)];
        self.failures += 1;
        pause
    }

    /// Logs when the other comes and goes, not each question.
    fn note(&mut self, reached: bool, reason: &dyn std::fmt::Display) -> Duration {
        if self.reached.replace(reached) != Some(reached) {
            let (peer, endpoint): (ControllerId, _) = (self.voter.id, &self.voter.endpoint);
            if reached {
                tracing::info!(%peer, endpoint, "controller reached");
            } else {
                tracing::warn!(%peer, endpoint, %reason, "controller not reached");
            }
        }
        Duration::ZERO
    }
}
