//! The run that has a broker's id, and others that claim it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use holdfast_core::Incarnation;
use holdfast_core::metadata::BrokerRegistration;

use super::Refusal;

/// Earlier runs of a broker that are remembered, so that a zombie does not take its id back.
const REMEMBERED_RUNS: usize = 8;

/// Whether a run may go by its id.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Claim {
    Granted,
    /// It is not known yet whether the run that has it lives.
    Open,
    Refused(Refusal),
}

/// What is known of the run that has an id.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) registration: BrokerRegistration,
    pub(super) heard: Instant,
    /// Streams that carry this run's heartbeats.
    pub(super) streams: usize,
    /// Number of the one opened last.
    pub(super) latest_stream: u64,
    /// When the last of them ended; `None` while there is one, or before there was.
    pub(super) cut: Option<Instant>,
    /// Whether its port has refused a connection since.
    pub(super) refused: bool,
    /// Another run that claims the id, and since when.
    pub(super) claim: Option<(Incarnation, Instant)>,
    /// Runs that had the id before.
    replaced: VecDeque<Incarnation>,
}

impl Session {
    pub(super) fn new(now: Instant, registration: BrokerRegistration) -> Session {
        Session {
            registration,
            heard: now,
            streams: 0,
            latest_stream: 0,
            cut: None,
            refused: false,
            claim: None,
            replaced: VecDeque::new(),
        }
    }

    /// Granted as soon as this run's streams have ended or are silent. Refused once it is heard well after it was first
    /// claimed: what comes sooner may have waited in our sockets since before it died.
    pub(super) fn claim(
        &mut self,
        now: Instant,
        claimant: &BrokerRegistration,
        session_timeout: Duration,
    ) -> Claim {
        let (id, run) = (claimant.id, claimant.incarnation);
        if run == self.registration.incarnation {
            return Claim::Granted;
        }
        if self.replaced.contains(&run) {
            return Claim::Refused(Refusal::Replaced { id });
        }
        let silent = now.saturating_duration_since(self.heard) >= session_timeout / 2;
        if self.streams == 0 || silent {
            return Claim::Granted;
        }
        let since = self.claim.filter(|(by, _)| *by == run).map_or(now, |(_, since)| since);
        self.claim = Some((run, since));
        if self.heard.saturating_duration_since(since) < session_timeout / 4 {
            return Claim::Open;
        }
        Claim::Refused(Refusal::InUse { id, endpoint: self.registration.peer_endpoint.clone() })
    }

    /// Another run has the id from now on; `only_now` where it had it all the time and was not heard.
    pub(super) fn pass_to(&mut self, now: Instant, registration: BrokerRegistration, only_now: bool) {
        let earlier = std::mem::replace(self, Session::new(now, registration));
        self.replaced = earlier.replaced;
        if !only_now {
            self.replaced.truncate(REMEMBERED_RUNS - 1);
            self.replaced.push_front(earlier.registration.incarnation);
        }
    }
}
