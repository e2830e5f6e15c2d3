//! The leader's loop: turns what is known of the brokers into proposals.
//!
//! It looks every 25 ms and whenever a heartbeat brought news. One round of proposals is in flight at a time, so that
//! nothing is proposed twice; looking goes on meanwhile, because the tracker tells our own pauses by it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, FutureExt as _, join_all, pending};
use holdfast_core::metadata::Command;
use tokio::time::{MissedTickBehavior, interval};

use crate::ledger::Watch;
use crate::liveness::Verdicts;
use crate::raft::{ProposeError, Standing};
use crate::shared::{Brokers, Shared};

const LOOK_INTERVAL: Duration = Duration::from_millis(25);
/// Proposals in flight at a time.
const AT_ONCE: usize = 64;

/// Runs until cancelled.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut ticks = interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watch = Watch::new(shared.observer.clone());
    let mut supervisor =
        Supervisor { shared: Arc::clone(&shared), leads: None, work: None, held_back: false, watch };
    loop {
        tokio::select! {
            () = shared.cancel.cancelled() => return,
            _ = ticks.tick() => {}
            () = shared.wake.notified() => {}
            caught_up = finished(&mut supervisor.work) => supervisor.finish(caught_up),
        }
        supervisor.look();
    }
}

/// Ends with the term in which it turned out that this controller leads and is up to date, if that was the work.
type Work = BoxFuture<'static, Option<u64>>;

async fn finished(work: &mut Option<Work>) -> Option<u64> {
    match work {
        Some(work) => work.await,
        None => pending().await,
    }
}

struct Supervisor {
    shared: Arc<Shared>,
    /// The term in which this controller leads and has applied what was committed before.
    leads: Option<u64>,
    /// What is in flight: a round of proposals, or catching up.
    work: Option<Work>,
    /// Whether the alarm of LIV-3 was raised.
    held_back: bool,
    /// What the ledger is told.
    watch: Watch,
}

impl Supervisor {
    fn look(&mut self) {
        let now = Instant::now();
        let standing = self.shared.quorum.standing();
        let mut brokers = self.shared.brokers();
        brokers.tracker.look(now);
        observe(&self.shared, &mut self.watch, standing, &brokers, now);
        if !standing.leads {
            brokers.tracker.follow();
            brokers.upkeep.follow();
            drop(brokers);
            if self.leads.take().is_some() {
                tracing::info!(leader = ?standing.leader, "no longer leading the controllers");
            }
            return;
        }
        if self.work.is_some() {
            return;
        }
        if self.leads != Some(standing.term) {
            drop(brokers);
            self.work = Some(catch_up(Arc::clone(&self.shared), standing.term).boxed());
            return;
        }
        let round = decide(&self.shared, &mut brokers, now);
        drop(brokers);
        self.raise_alarm(&round.verdicts);
        let commands = round.commands();
        if !commands.is_empty() {
            self.work = Some(propose_all(Arc::clone(&self.shared), commands).boxed());
        }
    }

    fn finish(&mut self, caught_up: Option<u64>) {
        self.work = None;
        if let Some(term) = caught_up {
            tracing::info!(term, "leading the controllers");
            self.leads = Some(term);
        }
    }

    fn raise_alarm(&mut self, verdicts: &Verdicts) {
        let holds_back = !verdicts.held_back.is_empty();
        if holds_back && !self.held_back {
            tracing::error!(
                brokers = ?verdicts.held_back,
                "silent brokers are not fenced: their loss would leave no majority of zones"
            );
            self.watch.held_back(&verdicts.held_back);
        }
        self.held_back = holds_back;
    }
}

/// Tells the ledger what this controller sees, leader or not.
fn observe(shared: &Shared, watch: &mut Watch, standing: Standing, brokers: &Brokers, now: Instant) {
    watch.look(now, standing, || (shared.id, shared.quorum.last_entry()));
    shared.quorum.serving().with_map(|map| watch.judge(now, &brokers.tracker, map));
}

/// What one look found.
struct Round {
    verdicts: Verdicts,
    others: Vec<Command>,
}

fn decide(shared: &Shared, brokers: &mut Brokers, now: Instant) -> Round {
    let Brokers { tracker, reports, leaving, upkeep } = brokers;
    shared.quorum.serving().with_map(|map| {
        let verdicts = tracker.verdicts(now, map);
        let mut others = leaving.hand_over(map, reports);
        if !reports.is_empty() {
            let (appointments, complete) = reports.verdicts(now, map);
            let appointments = upkeep.with_room(map, reports, appointments);
            if !appointments.is_empty() {
                tracing::warn!(partitions = appointments.len(), "leaders are stuck; appointing others");
                upkeep.stuck(now, map, &appointments);
                others.push(Command::Appoint(appointments));
            }
            others.extend(
                complete.into_iter().map(|(partition, term)| Command::CompleteChange { partition, term }),
            );
        }
        // First what somebody waits for: the rest looks at what came of it.
        if verdicts.fence.is_empty() && others.is_empty() {
            others = upkeep.look(now, map, reports);
        }
        Round { verdicts, others }
    })
}

impl Round {
    /// Fencing comes first: it is what somebody waits for.
    fn commands(self) -> Vec<Command> {
        let Verdicts { register, fence, .. } = self.verdicts;
        let mut commands = Vec::new();
        if !fence.is_empty() {
            let brokers: Vec<u32> = fence.iter().map(|(id, _)| id.0).collect();
            tracing::warn!(?brokers, "brokers are gone; fencing them");
            commands.push(Command::FenceBrokers(fence));
        }
        for registration in register {
            tracing::info!(broker = %registration.id, zone = %registration.zone, "registering broker");
            commands.push(Command::RegisterBroker(registration));
        }
        commands.extend(self.others);
        commands
    }
}

/// Verdicts wait until what earlier leaders committed is applied here.
async fn catch_up(shared: Arc<Shared>, term: u64) -> Option<u64> {
    let caught_up = shared.quorum.takes_over(term).await;
    let standing = shared.quorum.standing();
    (caught_up && standing.leads && standing.term == term).then_some(term)
}

async fn propose_all(shared: Arc<Shared>, commands: Vec<Command>) -> Option<u64> {
    let mut commands = commands.into_iter().peekable();
    while commands.peek().is_some() {
        let proposals = commands.by_ref().take(AT_ONCE).map(|command| shared.quorum.propose(command));
        for result in join_all(proposals).await {
            match result {
                Ok(_) => {}
                Err(ProposeError::NotLeader) => return None,
                // What was not carried out is found again by the next look.
                Err(error) => tracing::warn!(%error, "a proposal about brokers was not carried out"),
            }
        }
    }
    None
}
