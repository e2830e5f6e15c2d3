//! Carries out what `election` decides, tells the others what changed, and forms a quorum that is new.

use tokio::time::Instant as TokioInstant;

use super::Quorum;
use super::account::News;
use super::election::Step;

/// Runs for ever. `changed` is called whenever there is another leader or term.
pub(super) async fn run(quorum: &Quorum, changed: &(dyn Fn() + Sync)) {
    let mut metrics = quorum.raft.server_metrics();
    let mut forming = quorum.forms_quorum();
    loop {
        metrics.mark_unchanged();
        let (look, news) =
            quorum.election(|election, now| (election.look(now), election.account(now).news()));
        if tell(quorum, news) {
            changed();
        }
        match look.step {
            Some(Step::Ask) => ask(quorum),
            Some(Step::Stand) => stand(quorum).await,
            None if forming && quorum.election(|election, now| election.reaches_majority(now)) => {
                forming = form(quorum).await;
            }
            None => {}
        }
        tokio::select! {
            () = tokio::time::sleep_until(TokioInstant::from_std(look.next)) => {}
            () = quorum.look_again.notified() => {}
            // An error says that raft has stopped, which `Quorum::run` sees by itself.
            Ok(()) = metrics.changed() => {}
        }
    }
}

/// Has waiting questions answered if there is something new. Returns whether there was.
fn tell(quorum: &Quorum, news: News) -> bool {
    let before = *quorum.news.borrow();
    if before == news {
        return false;
    }
    if before.leader != news.leader {
        match news.leader {
            Some(leader) => tracing::info!(%leader, term = news.term, "the controllers are led"),
            None => {
                tracing::warn!(was = ?before.leader, term = news.term, "lost the leader of the controllers");
            }
        }
    }
    quorum.news.send_replace(news);
    true
}

/// Asks for votes in the next term. The answers go to `election`; each question ends before the next is asked.
fn ask(quorum: &Quorum) {
    tracing::debug!(term = quorum.standing().term + 1, "asking for votes before standing again");
    for voter in quorum.voters.iter().filter(|voter| voter.id != quorum.id) {
        let (quorum, voter) = (quorum.clone(), voter.clone());
        tokio::spawn(async move { quorum.ask_for_promise(&voter).await });
    }
}

async fn stand(quorum: &Quorum) {
    tracing::info!(term = quorum.standing().term + 1, "standing for election");
    if let Err(error) = quorum.raft.trigger().elect().await {
        tracing::warn!(%error, "raft takes no candidature");
    }
}

/// Forms the quorum unless there is one already. Returns whether it is yet to be done.
async fn form(quorum: &Quorum) -> bool {
    let elsewhere = quorum.election(|election, now| election.member_elsewhere().or(election.leader(now)));
    if let Some(peer) = elsewhere {
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
