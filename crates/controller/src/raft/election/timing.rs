//! How long things may take.

use std::time::Duration;

/// The times of an election. All follow from `election-timeout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timing {
    /// A leader that was not heard for this long is lost, whatever its connections look like. `election-timeout`.
    pub(crate) silence: Duration,
    /// A voter that heard the leader within this refuses every candidate. Also how long a broken connection may take
    /// to come back, and by how much the ranks stand apart.
    pub(crate) lease: Duration,
    /// How long a candidate may take for its votes. openraft waits no longer.
    pub(crate) votes: Duration,
    /// How long a question to another controller is held when there is nothing to say.
    pub(crate) hold: Duration,
}

impl Timing {
    /// For an election timeout.
    pub(crate) fn of(election_timeout: Duration) -> Self {
        let fifth = election_timeout / 5;
        let lease = fifth + Duration::from_millis(1);
        Timing { silence: election_timeout, lease, votes: fifth, hold: fifth.min(Duration::from_millis(100)) }
    }

    /// How long an answer counts, from the moment at which it was asked for: two held questions and some delay.
    pub(crate) fn window(&self) -> Duration {
        self.hold * 4
    }

    /// How long the first round is left alone before somebody stands again, and how long a promise is waited for before
    /// it is asked for again.
    pub(crate) fn round(&self) -> Duration {
        self.votes * 3 / 2
    }

    /// What a voter's lease is waited for in addition, for it may note a heartbeat somewhat later than it says. Also
    /// what news takes to travel.
    pub(super) fn margin(&self) -> Duration {
        self.lease / 20
    }

    /// Between two looks.
    pub(super) fn look(&self) -> Duration {
        self.lease / 4
    }
}
