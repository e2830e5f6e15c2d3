//! Heartbeats in, verdicts out: which brokers to register, which to fence, which partitions need another leader.
//!
//! Everything here is volatile and decides nothing by itself: every controller keeps a tracker from the heartbeats that
//! it gets, so that a newly elected leader already knows who lives; only the leader asks for `verdicts` and proposes
//! them. Time is an argument and never goes backwards.
//!
//! A broker is dead after `session_timeout` of silence, or when its heartbeat streams ended, here and at a controller in
//! another zone, and it did not come back within `reset_grace`: a killed process says so at once, by its sockets. Where
//! its port refuses a connection, too, nobody waits for the grace to pass.
//!
//! Another run with the id of a known one is a restart, as a rule, and is taken as soon as the earlier one's stream has ended
//! or is silent; while both are heard it is a second process under one id, maybe on a copy of the data folder.
//!
//! Invariants:  LIV-1  silence, and absence after a reset, count only while this process was awake
//!              LIV-2  one verdict demotes brokers of one zone, all of its silent ones at once
//!              LIV-3  no verdict leaves fewer than a majority of the zones with a live broker: beyond that no
//!                     partition has a quorum, and a mistake of ours is the likelier explanation
//!              LIV-4  an id belongs to the run that has it, as long as that lives: another one is refused

mod session;
mod witness;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use holdfast_core::metadata::{Broker, BrokerRegistration, ClusterMap, majority};
use holdfast_core::{BrokerId, ControllerId, Incarnation, ZoneId};

use crate::ledger::Reason;
use session::{Claim, Session};
pub(crate) use witness::Run;
use witness::Witnesses;

/// Brokers that are tracked at most; further ones are refused.
const MAX_BROKERS: usize = 10_000;
/// A broker that is in no map is forgotten after this many session timeouts.
const FORGET_AFTER: u32 = 60;

/// Who was heard, and when.
#[derive(Debug)]
pub(crate) struct Tracker {
    session_timeout: Duration,
    reset_grace: Duration,
    witnesses: Witnesses,
    sessions: BTreeMap<BrokerId, Session>,
    /// Runs of the map that were never heard and whose port refuses.
    absent: BTreeSet<Run>,
    /// Since when this controller leads; a broker it never heard counts as heard then.
    leads_since: Option<Instant>,
    /// The first look.
    begun: Option<Instant>,
    /// The last look. A gap between two looks is time in which this process did not run.
    looked: Option<Instant>,
    /// Streams opened so far.
    opened: u64,
}

/// What a heartbeat says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// What the map says.
    Known,
    /// The map must be changed for it.
    News,
    /// Nothing yet: another run may have the id.
    Undecided,
}

/// Why a heartbeat does not count, and never will.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("broker {id} is registered in zone {registered}, not {requested}: an id never changes its zone")]
    OtherZone { id: BrokerId, registered: ZoneId, requested: ZoneId },
    #[error("broker {id} was started again elsewhere: this run of it is no longer the broker")]
    Replaced { id: BrokerId },
    #[error(
        "broker {id} runs already, at {endpoint}: stop that one first, or give this one an id and a data folder of its \
         own; a copy of the other's folder is not its own"
    )]
    InUse { id: BrokerId, endpoint: String },
    #[error("{MAX_BROKERS} brokers are known already")]
    TooMany,
}

/// What the leader should propose.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdicts {
    /// Brokers whose heartbeat differs from the map.
    pub(crate) register: Vec<BrokerRegistration>,
    /// Brokers that are dead, all of one zone.
    pub(crate) fence: Vec<(BrokerId, Incarnation)>,
    /// Brokers that seem dead but whose loss would leave no majority of zones (LIV-3).
    pub(crate) held_back: Vec<BrokerId>,
}

impl Tracker {
    /// For a controller in `zone`.
    pub(crate) fn new(session_timeout: Duration, reset_grace: Duration, zone: ZoneId) -> Self {
        Tracker {
            session_timeout,
            reset_grace,
            witnesses: Witnesses::new(zone, session_timeout / 2),
            sessions: BTreeMap::new(),
            absent: BTreeSet::new(),
            leads_since: None,
            begun: None,
            looked: None,
            opened: 0,
        }
    }

    /// A broker was heard.
    pub(crate) fn heard(
        &mut self,
        now: Instant,
        map: &ClusterMap,
        registration: BrokerRegistration,
    ) -> Result<Heard, Refusal> {
        let id = registration.id;
        let known = map.broker(id);
        if let Some(known) = known.filter(|known| known.zone != registration.zone) {
            let (registered, requested) = (known.zone.clone(), registration.zone);
            return Err(Refusal::OtherZone { id, registered, requested });
        }
        if !self.sessions.contains_key(&id) && self.sessions.len() >= MAX_BROKERS {
            return Err(Refusal::TooMany);
        }
        // One that the map does not know does not keep the id from the one that it names: this process just started, and
        // heard the wrong one first.
        let named = known.is_some_and(|known| known.live && known.incarnation == registration.incarnation);
        match self.claim(now, known, &registration) {
            Claim::Refused(refusal) => return Err(refusal),
            Claim::Open if !named => return Ok(Heard::Undecided),
            Claim::Open | Claim::Granted => {}
        }
        let news = !known.is_some_and(|known| matches_map(known, &registration));
        self.absent.retain(|absent| absent.0 != id);
        let session = self.sessions.entry(id).or_insert_with(|| Session::new(now, registration.clone()));
        if session.registration.incarnation != registration.incarnation {
            session.pass_to(now, registration.clone(), named);
        }
        session.registration = registration;
        session.heard = now.max(session.heard);
        Ok(if news { Heard::News } else { Heard::Known })
    }

    /// Whether a run may go by its id.
    fn claim(&mut self, now: Instant, known: Option<&Broker>, claimant: &BrokerRegistration) -> Claim {
        let timeout = self.session_timeout;
        match (self.sessions.get_mut(&claimant.id), known) {
            (Some(session), _) => session.claim(now, claimant, timeout),
            // Another folder is no restart, and what a controller has not heard yet that just started may still live.
            (None, Some(known)) if known.live && known.dir != claimant.dir => {
                let lately = |since: Instant| now.saturating_duration_since(since) < timeout;
                if self.begun.is_none_or(lately) { Claim::Open } else { Claim::Granted }
            }
            (None, _) => Claim::Granted,
        }
    }

    /// A stream begins to carry heartbeats of a run that was heard. Returns its number.
    pub(crate) fn opened(&mut self, run: Run) -> u64 {
        self.opened += 1;
        let number = self.opened;
        if let Some(session) = self.session_of(run) {
            session.streams += 1;
            session.latest_stream = number;
            (session.cut, session.refused) = (None, false);
        }
        number
    }

    /// Whether that stream is the run's latest: what comes on an earlier one was said before.
    pub(crate) fn is_latest(&self, (id, incarnation): Run, stream: u64) -> bool {
        self.sessions.get(&id).is_some_and(|session| {
            session.registration.incarnation == incarnation && session.latest_stream == stream
        })
    }

    /// That stream ended. If it was the last, says where the broker listens, or listened.
    pub(crate) fn closed(&mut self, now: Instant, run: Run) -> Option<String> {
        let session = self.session_of(run)?;
        session.streams = session.streams.saturating_sub(1);
        (session.streams == 0).then(|| {
            session.cut = Some(now);
            session.registration.peer_endpoint.clone()
        })
    }

    /// How long a broker whose streams ended may take to come back.
    pub(crate) fn reset_grace(&self) -> Duration {
        self.reset_grace
    }

    /// Whether that run's streams have ended.
    pub(crate) fn is_cut(&self, (id, incarnation): Run) -> bool {
        let session = self.sessions.get(&id);
        session
            .is_some_and(|session| session.registration.incarnation == incarnation && session.cut.is_some())
    }

    /// Runs that the map calls alive and that were never heard nor found absent, and where they listen, or listened.
    pub(crate) fn strangers(&self, map: &ClusterMap) -> Vec<(Run, String)> {
        let unheard = map.brokers().filter(|broker| broker.live && !self.sessions.contains_key(&broker.id));
        let runs = unheard.map(|broker| ((broker.id, broker.incarnation), broker.peer_endpoint.clone()));
        runs.filter(|(run, _)| !self.absent.contains(run)).collect()
    }

    /// Nobody listens where that run did. Says nothing of one that is connected.
    pub(crate) fn refused(&mut self, run: Run) {
        match self.sessions.get_mut(&run.0) {
            None => _ = self.absent.insert(run),
            Some(session) => {
                session.refused |= session.cut.is_some() && session.registration.incarnation == run.1;
            }
        }
    }

    fn session_of(&mut self, (id, incarnation): Run) -> Option<&mut Session> {
        self.sessions.get_mut(&id).filter(|session| session.registration.incarnation == incarnation)
    }

    /// Runs whose streams to this controller ended, and who did not come back in time.
    fn lost(&self, now: Instant) -> BTreeSet<Run> {
        let gone = self.sessions.values().filter(|session| {
            let over = |cut| now.saturating_duration_since(cut) >= self.reset_grace;
            session.cut.is_some_and(|cut| session.refused || over(cut))
        });
        let gone = gone.map(|session| (session.registration.id, session.registration.incarnation));
        gone.chain(self.absent.iter().copied()).collect()
    }

    /// A look, what is lost by it, and when the next grace runs out. What is told to others, too, must not take a pause of
    /// this process for absence (LIV-1).
    pub(crate) fn look_for_losses(&mut self, now: Instant) -> (BTreeSet<Run>, Option<Instant>) {
        self.look(now);
        (self.lost(now), self.next_loss(now))
    }

    /// When the next grace of a broker runs out whose streams ended.
    fn next_loss(&self, now: Instant) -> Option<Instant> {
        let ends = self.sessions.values().filter_map(|session| Some(session.cut? + self.reset_grace));
        ends.filter(|end| *end > now).min()
    }

    /// Another controller said which runs it has lost.
    pub(crate) fn witnessed(&mut self, now: Instant, by: ControllerId, zone: &ZoneId, lost: BTreeSet<Run>) {
        self.witnesses.said(now, by, zone, lost);
    }

    /// Brokers of the map that this controller judges dead, leader or not, and by what. For the ledger only.
    pub(crate) fn gone(&self, now: Instant, map: &ClusterMap) -> Vec<(Run, Reason)> {
        let mut lost = self.lost(now);
        lost.retain(|run| self.witnesses.confirm(now, run));
        let judge = |broker: &Broker| {
            let run = (broker.id, broker.incarnation);
            let session = self.sessions.get(&broker.id)?;
            if session.registration.incarnation != broker.incarnation {
                return None;
            }
            let silent = now.saturating_duration_since(session.heard) >= self.session_timeout;
            match (lost.contains(&run), session.refused) {
                (true, true) => Some((run, Reason::Refused)),
                (true, false) => Some((run, Reason::Reset)),
                (false, _) => silent.then_some((run, Reason::Silence)),
            }
        };
        map.brokers().filter(|broker| broker.live).filter_map(judge).collect()
    }

    /// Another controller leads, or nobody.
    pub(crate) fn follow(&mut self) {
        self.leads_since = None;
    }

    /// Call it regularly, leader or not, whatever else is waited for. While this process did not run, heartbeats
    /// waited in its sockets: that silence is ours and is forgiven (LIV-1).
    pub(crate) fn look(&mut self, now: Instant) {
        let pause = self.looked.map_or(Duration::ZERO, |looked| now.saturating_duration_since(looked));
        self.looked = Some(now);
        self.begun.get_or_insert(now);
        if pause >= self.reset_grace / 2 {
            // The fresh stream may wait in our listener.
            for session in self.sessions.values_mut() {
                let since = session.claim.as_mut().map(|(_, since)| since);
                for since in session.cut.as_mut().into_iter().chain(since) {
                    *since = (*since + pause).min(now);
                }
            }
        }
        if pause < self.session_timeout / 4 {
            return;
        }
        for session in self.sessions.values_mut() {
            session.heard = (session.heard + pause).min(now);
        }
        self.leads_since = self.leads_since.map(|since| (since + pause).min(now));
    }

    /// What to propose, right after a `look`. For the leader only.
    pub(crate) fn verdicts(&mut self, now: Instant, map: &ClusterMap) -> Verdicts {
        let leads_since = *self.leads_since.get_or_insert(now);
        self.sessions.retain(|&id, session| {
            map.broker(id).is_some()
                || now.saturating_duration_since(session.heard) < self.session_timeout * FORGET_AFTER
        });
        self.absent.retain(|&(id, incarnation)| {
            map.broker(id).is_some_and(|broker| broker.live && broker.incarnation == incarnation)
        });
        let mut verdicts = Verdicts { register: self.news(now, map), ..Verdicts::default() };
        let silent = |broker: &&Broker, limit: Duration| {
            let heard = self.sessions.get(&broker.id).map_or(leads_since, |session| session.heard);
            now.saturating_duration_since(heard) >= limit
        };
        let mut lost = self.lost(now);
        lost.retain(|run| self.witnesses.confirm(now, run));
        let gone = |broker: &&Broker, limit: Duration| {
            silent(broker, limit) || lost.contains(&(broker.id, broker.incarnation))
        };
        let live = || map.brokers().filter(|broker| broker.live);
        let expired: Vec<&Broker> = live().filter(|broker| gone(broker, self.session_timeout)).collect();
        for zone in expired.iter().map(|broker| &broker.zone).collect::<BTreeSet<_>>() {
            let of_zone = |broker: &&Broker| broker.zone == *zone;
            let dead: Vec<&Broker> =
                live().filter(of_zone).filter(|broker| gone(broker, self.session_timeout / 2)).collect();
            if leaves_majority_of_zones(map, &dead) {
                verdicts.fence = dead.iter().map(|broker| (broker.id, broker.incarnation)).collect();
                return verdicts;
            }
            verdicts.held_back.extend(expired.iter().copied().filter(of_zone).map(|broker| broker.id));
        }
        verdicts
    }

    /// Brokers that were heard lately and of which the map says something else.
    fn news(&self, now: Instant, map: &ClusterMap) -> Vec<BrokerRegistration> {
        let lately = |session: &&Session| {
            session.cut.is_none() && now.saturating_duration_since(session.heard) < self.session_timeout / 2
        };
        let differs = |registration: &&BrokerRegistration| match map.broker(registration.id) {
            Some(known) => known.zone == registration.zone && !matches_map(known, registration),
            None => true,
        };
        let registrations = self.sessions.values().filter(lately).map(|session| &session.registration);
        registrations.filter(differs).cloned().collect()
    }
}

fn matches_map(known: &Broker, registration: &BrokerRegistration) -> bool {
    known.live
        && known.dir == registration.dir
        && known.incarnation == registration.incarnation
        && known.client_endpoint == registration.client_endpoint
        && known.peer_endpoint == registration.peer_endpoint
}

/// LIV-3: whether a majority of all zones keeps a live broker without `dead`, or the zone keeps one itself.
fn leaves_majority_of_zones(map: &ClusterMap, dead: &[&Broker]) -> bool {
    let is_dead = |broker: &&Broker| dead.iter().any(|dead| dead.id == broker.id);
    let zones: BTreeSet<&ZoneId> = map.brokers().map(|broker| &broker.zone).collect();
    let alive: BTreeSet<&ZoneId> =
        map.brokers().filter(|broker| broker.live && !is_dead(broker)).map(|broker| &broker.zone).collect();
    let keeps_one = dead.first().is_some_and(|dead| alive.contains(&dead.zone));
    keeps_one || alive.len() >= majority(zones.len())
}

#[cfg(test)]
mod tests;
