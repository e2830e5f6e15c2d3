//! Whether a leader hears from enough of its replicas to acknowledge anything (R28, R41). One that is cut off refuses new
//! batches before it appends them, and answers those that wait: nobody waits for an acknowledgement that cannot come.
//! Neither decides anything about the log: what was appended stays, and may yet be committed.

use std::time::Duration;

use super::action::ProduceError;
use super::leader::Leader;
use super::{Replica, Role};
use crate::metadata::majority;
use crate::{ReplicaId, Timestamp};

/// Clocks count in this.
const TICK: Duration = Duration::from_micros(1);

/// How many replicas of the set were heard from within the quorum timeout.
pub(super) struct Contact {
    /// This one included.
    pub(super) heard: usize,
    pub(super) needed: usize,
    /// When `heard` falls below `needed` if nobody is heard from any more; `None` for a set of one.
    ends: Option<Timestamp>,
}

impl Replica {
    pub(super) fn contact(&self, now: Timestamp, leader: &Leader) -> Contact {
        let set = self.assignment.as_ref().map_or(&[][..], |assignment| &assignment.set);
        let timeout = self.config.quorum_timeout;
        let others = set.iter().filter(|replica| **replica != self.me);
        let mut heard_at: Vec<Timestamp> = others.map(|&replica| heard_at(leader, replica)).collect();
        heard_at.sort_unstable_by(|a, b| b.cmp(a));
        let own = usize::from(heard_at.len() < set.len());
        let needed = majority(set.len());
        // The one of the majority that was heard from the longest ago.
        let last = needed.checked_sub(own + 1).and_then(|index| heard_at.get(index));
        Contact {
            heard: own + heard_at.iter().filter(|at| now.since(**at) <= timeout).count(),
            needed,
            ends: last.map(|&at| at + timeout + TICK),
        }
    }

    /// When a leader has something to do.
    pub(super) fn leader_deadline(&self, leader: &Leader) -> Timestamp {
        let cut_off = if leader.has_pending() { self.contact(Timestamp(0), leader).ends } else { None };
        let deadline = self.lead_due(leader).min(leader.stalled_at);
        cut_off.map_or(deadline, |at| at.min(deadline))
    }

    /// What waits for its commit ends with an unknown outcome once no majority was heard from for the quorum timeout.
    pub(super) fn answer_cut_off(&mut self, now: Timestamp) {
        let Role::Active(leader) = &self.role else { return };
        if !leader.has_pending() {
            return;
        }
        let Contact { heard, needed, .. } = self.contact(now, leader);
        if heard < needed
            && let Role::Active(leader) = &mut self.role
        {
            let error = ProduceError::NotEnoughReplicasAfterAppend { heard, needed };
            leader.fail_pending(&mut self.outbox, error);
        }
    }
}

/// A member that the leader knows nothing of was never heard from.
fn heard_at(leader: &Leader, replica: ReplicaId) -> Timestamp {
    leader.heard(replica).unwrap_or(Timestamp(0))
}
