//! Changes of the controllers' leader, as this controller sees them.

use std::time::{Duration, Instant};

use holdfast_core::ControllerId;

use super::failover::micros;
use super::observation::Moment;
use super::record::{Election, Kind, Reason, Record, Since};

/// A controller without leader for longer, that does not lead itself afterwards, was away: others may have elected long
/// before it heard of it.
pub(super) const AWAY: Duration = Duration::from_secs(2);

/// Follows who leads.
#[derive(Debug, Default)]
pub(super) struct Elections {
    /// The leader known last, its term, and when it was lost, if it is.
    known: Option<(ControllerId, u64)>,
    lost: Option<Moment>,
    /// Elected, and nothing of it applied yet.
    awaited: Option<(Moment, Record)>,
}

impl Elections {
    /// The standing changed. Says whether this controller was away.
    pub(super) fn standing(
        &mut self,
        moment: Moment,
        me: ControllerId,
        term: u64,
        leader: Option<ControllerId>,
    ) -> bool {
        let Some(leader) = leader else {
            self.lost.get_or_insert(moment);
            return false;
        };
        let lost = self.lost.take().unwrap_or(moment);
        let away = leader != me && moment.now.saturating_duration_since(lost.now) >= AWAY;
        if let Some((from, before)) = self.known.replace((leader, term))
            && before != term
            && !away
        {
            self.awaited = Some((lost, record(moment, lost, me, (from, leader), term)));
        }
        away
    }

    /// An entry of that term was applied: gives the record of the election that this completes.
    pub(super) fn applied(&mut self, now: Instant, term: u64) -> Option<Record> {
        let (lost, mut record) = self.awaited.take_if(|(_, record)| record.term == term)?;
        if let Some(election) = &mut record.election {
            election.applied_us = Some(micros(now.saturating_duration_since(lost.now)));
        }
        record.complete = true;
        Some(record)
    }

    /// This process did not run: when the leader was lost, if it is, cannot be told.
    pub(super) fn forget(&mut self) {
        (self.lost, self.awaited, self.known) = (None, None, None);
    }
}

fn record(
    moment: Moment,
    lost: Moment,
    me: ControllerId,
    (from, to): (ControllerId, ControllerId),
    term: u64,
) -> Record {
    Record {
        kind: Kind::Election,
        reason: Reason::Lost,
        since: Since::Lost,
        at_ms: lost.wall_ms,
        controller: me.0,
        led: to == me,
        index: 0,
        term,
        zone: None,
        brokers: Vec::new(),
        complete: false,
        detected_us: None,
        appointed_us: None,
        partitions: 0,
        recovered: None,
        writable: None,
        in_sync: None,
        shares: None,
        rows: Vec::new(),
        election: Some(Election {
            from: from.0,
            to: to.0,
            elected_us: micros(moment.now.saturating_duration_since(lost.now)),
            applied_us: None,
        }),
    }
}
