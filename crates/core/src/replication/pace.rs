//! How often a leader makes itself heard: four times a second as long as anything happens, and once in a while where
//! everybody has everything and was told so ([ADR 21](../../../../docs/adr/0021-calm-leaders.md)).
//!
//! What is decided here is when messages are sent, never what they mean: nothing of it bears on safety.

use super::leader::{Leader, Progress};
use super::{Replica, Role};
use crate::{Offset, Timestamp};

/// Rounds at the usual pace, in a row, in which nothing happened and everybody answered: the news of a watermark that got lost
/// is noticed in the second one.
const CALM_AFTER: u8 = 4;

/// Of a leader.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Pace {
    /// When it made itself heard to all last.
    led_at: Timestamp,
    /// Calm rounds in a row, `CALM_AFTER` at most.
    calm: u8,
}

impl Pace {
    pub(super) fn new(now: Timestamp) -> Pace {
        Pace { led_at: now, calm: 0 }
    }
}

impl Progress {
    /// Whether there is nothing to tell it, and nothing to hear from it before the next round.
    fn is_level(&self, end: Offset, news: [Offset; 3], led_at: Timestamp) -> bool {
        self.in_sync
            && self.streaming
            && !self.reading
            && self.rejoining.is_none()
            && self.inflight.is_empty()
            && self.next == end
            && self.told == (end, end)
            && self.announced == news
            && self.heard >= led_at
    }
}

impl Replica {
    /// When a leader is to make itself heard next. Whatever happens to a calm one makes that earlier, at once.
    pub(super) fn lead_due(&self, leader: &Leader) -> Timestamp {
        if leader.pace.calm < CALM_AFTER || !self.is_calm(leader) {
            return leader.pace.led_at + self.config.lead_interval;
        }
        let latest = leader.pace.led_at + self.config.calm_lead_interval;
        Timestamp(latest.0 - latest.0 % self.together())
    }

    /// Calm leaders are heard at multiples of this, in clock ticks. What all those of a broker say, and what is answered, goes
    /// in few messages so; one by one, each would have to wake up who sends it and who takes it.
    fn together(&self) -> u64 {
        let ticks = u64::try_from(self.config.lead_interval.as_micros() / 4).unwrap_or(u64::MAX);
        ticks.max(1)
    }

    /// A round begins. What there is to say of the one before has to be looked at first.
    pub(super) fn begin_round(&mut self, now: Timestamp, was_calm: bool) {
        // Where both paces are the same the count would only tell states apart that are not different.
        let counts = was_calm && self.config.calm_lead_interval > self.config.lead_interval;
        let Role::Active(leader) = &mut self.role else { return };
        let calm = if counts { (leader.pace.calm + 1).min(CALM_AFTER) } else { 0 };
        leader.pace = Pace { led_at: now, calm };
    }

    /// Whether nothing has happened since the round began, nothing is under way, and everybody has answered it. A peer that
    /// was given up need not: it is greeted when its broker comes back, and whatever it says ends the calm.
    pub(super) fn is_calm(&self, leader: &Leader) -> bool {
        let (end, news, led_at) = (self.epochs.end(), self.announcement(), leader.pace.led_at);
        let silent_for = self.config.quorum_timeout;
        let given_up = |peer: &Progress| !peer.in_sync && led_at.since(peer.heard) > silent_for;
        leader.settled
            && !leader.stall_told
            && leader.due == end
            && self.high_watermark == end
            && self.durable_high_watermark == end
            && leader.peers.values().all(|peer| peer.is_level(end, news, led_at) || given_up(peer))
    }
}
