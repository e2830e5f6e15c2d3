//! The pings behind the pre-vote gate, and the forming of a new quorum.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use holdfast_core::ControllerId;
use holdfast_proto::internal::v1::PingResponse;
use tokio::time::{MissedTickBehavior, interval};

use super::Quorum;
use super::gate::Gate;
use crate::config::VoterConfig;

/// Pause between two pings, and between two looks at the gate.
const PING_INTERVAL: Duration = Duration::from_millis(100);

/// Who hears of every answer.
type Answered<'a> = &'a (dyn Fn(&VoterConfig, &PingResponse) + Sync);

/// What the pings have found.
struct Pings {
    gate: Gate,
    /// The term in each one's last answer.
    terms: BTreeMap<ControllerId, u64>,
}

/// Pings the others for ever. Elections are allowed after a majority was reachable for `hold`.
pub(super) async fn run(quorum: &Quorum, hold: Duration, answered: Answered<'_>) {
    // Shorter than an election timeout: an isolated voter is barred before it stands.
    let window = quorum.election_timeout.mul_f32(0.6);
    let gate = Gate::new(quorum.voters.len(), window, hold);
    let pings = Mutex::new(Pings { gate, terms: BTreeMap::new() });
    let others = quorum.voters.iter().filter(|voter| voter.id != quorum.id);
    let pingers = join_all(others.map(|voter| ping_one(quorum, voter, window, &pings, answered)));
    tokio::join!(pingers, look(quorum, &pings));
}

fn lock(pings: &Mutex<Pings>) -> std::sync::MutexGuard<'_, Pings> {
    pings.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn ping_one(
    quorum: &Quorum,
    voter: &VoterConfig,
    patience: Duration,
    pings: &Mutex<Pings>,
    answered: Answered<'_>,
) {
    let VoterConfig { id: peer, endpoint, .. } = voter;
    let mut ticks = interval(PING_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reached = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = quorum.ping_now.notified() => {}
        }
        let sent = Instant::now();
        let answer = quorum.peers.ping(peer.0, endpoint, patience).await;
        note(*peer, endpoint, &answer, &mut reached);
        if let Ok(answer) = answer {
            answered(voter, &answer);
            let mut pings = lock(pings);
            pings.gate.answered(peer.0, sent);
            pings.terms.insert(*peer, answer.term);
        }
    }
}

/// Logs when a peer comes and goes, not each ping.
fn note(
    peer: ControllerId,
    endpoint: &str,
    answer: &Result<PingResponse, tonic::Status>,
    reached: &mut Option<bool>,
) {
    if *reached == Some(answer.is_ok()) {
        return;
    }
    *reached = Some(answer.is_ok());
    match answer {
        Ok(_) => tracing::info!(%peer, endpoint, "controller reached"),
        Err(status) => tracing::warn!(%peer, endpoint, %status, "controller not reached"),
    }
}

async fn look(quorum: &Quorum, pings: &Mutex<Pings>) {
    let mut ticks = interval(PING_INTERVAL / 2);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut forming = quorum.forms_quorum();
    loop {
        ticks.tick().await;
        let (open, ready) = {
            let mut pings = lock(pings);
            let now = Instant::now();
            (pings.gate.is_open(now), pings.gate.majority_reachable(now))
        };
        quorum.may_stand(open);
        if forming && ready {
            forming = form(quorum, pings).await;
        }
    }
}

/// Forms the quorum unless there is one already. Returns whether it is yet to be done.
async fn form(quorum: &Quorum, pings: &Mutex<Pings>) -> bool {
    let elsewhere = lock(pings).terms.iter().find(|(_, term)| **term > 0).map(|(&peer, _)| peer);
    if let Some(peer) = elsewhere.or(quorum.standing().leader) {
        // This may be a controller whose disk was replaced: it must not found a second history.
        tracing::info!(%peer, "the quorum exists already; waiting to hear from its leader");
        return false;
    }
    match quorum.initialize().await {
        Ok(()) => {
            tracing::info!(voters = quorum.voters.len(), "formed the controller quorum");
            false
        }
        Err(error) => {
            tracing::warn!(%error, "forming the controller quorum failed, trying again");
            true
        }
    }
}
