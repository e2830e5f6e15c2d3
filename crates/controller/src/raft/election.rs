//! Who stands for election, and when: a value without a clock, fed with what is heard.
//!
//! openraft never elects by itself here. It has no pre-vote, so that a controller that was cut off would depose the
//! leader when it comes back, and its timers are all it has to notice a death by. This machine knows more: what every
//! other controller says of itself (`Account`), and whose connection broke.
//!
//! ```text
//!  leader killed ─┬─ connections break, reconnects are refused: lost, and told to the others
//!                 ├─ a majority has lost it (pre-vote)
//!                 ├─ the leases of the voters needed have run out       ── the best log stands, then the lowest number
//!                 └─ one step later each: the others, if it did not win
//!  nobody won ────── votes are promised first, by disks that may be slow; then the candidate stands
//! ```
//!
//! Invariants:  ELE-1  only a controller stands that knows, from answers to requests of just now, that a majority with
//!                     itself has lost the leader; so no term is used up by one that is cut off or half deaf. To ask
//!                     for promises is to stand, here and in ELE-2
//!              ELE-2  nobody stands while a controller in reach says that it leads itself
//!              ELE-3  what was learned before a pause of this process counts no more after it
//!              ELE-4  a leader that no majority has answered for `silence`, or whose log stands still for want of room,
//!                     does not call itself leader

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod timing;

use std::collections::BTreeMap;
use std::time::Instant;

use holdfast_core::ControllerId;

use super::account::{Account, LastLog};
pub(crate) use timing::Timing;

/// A round that nobody won doubles the time that the next one is given, so often at most.
const MAX_DOUBLINGS: u32 = 4;

/// What this controller's own Raft says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Its term.
    pub(crate) term: u64,
    /// The leader elected in it, if a majority's choice is known.
    pub(crate) leader: Option<ControllerId>,
    /// Whether this controller is in Raft's role of a leader.
    pub(crate) leading: bool,
    /// Whether it belongs to a quorum that was formed.
    pub(crate) voter: bool,
    /// Its last entry.
    pub(crate) last_log: Option<LastLog>,
    /// Whether its log stands still for want of room: it can neither lead nor vote.
    pub(crate) stands_still: bool,
}

impl Facts {
    /// Whether nothing in Raft itself speaks against standing for election.
    fn may_stand(&self) -> bool {
        self.voter && !self.leading && !self.stands_still
    }
}

/// What to do after a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    /// To be done now.
    pub(crate) step: Option<Step>,
    /// Look again then at the latest.
    pub(crate) next: Instant,
}

/// Towards a leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ask for votes in the next term without standing in it yet. Raft does not wait for a disk that takes longer than
    /// `votes`; whose disk holds the vote already answers at once.
    Ask,
    /// Stand for election.
    Stand,
}

/// Another controller, as known here.
#[derive(Debug, Default)]
struct Other {
    /// Its last answer, while it counts.
    answer: Option<Answer>,
    /// The connection broke then, and has not come back.
    broken: Option<Instant>,
    /// The last time that an attempt to connect again failed.
    refused: Option<Instant>,
    /// The last request of this controller's term, as leader or candidate, that it answered in favour was sent then.
    acked: Option<(u64, Instant)>,
    /// The last term in which it promised this controller its vote.
    promised: Option<u64>,
}

#[derive(Debug)]
struct Answer {
    sent: Instant,
    /// Not earlier than when it last heard a leader.
    heard: Option<Instant>,
    account: Account,
}

/// The machine of one controller.
#[derive(Debug)]
pub(crate) struct Election {
    id: ControllerId,
    timing: Timing,
    others: BTreeMap<ControllerId, Other>,
    facts: Option<Facts>,
    started: Instant,
    /// The leader that was heard last.
    heard: Option<(ControllerId, Instant)>,
    /// When term or leader last changed.
    changed: Option<Instant>,
    /// From when on this controller could stand but for its rank and the rounds of others.
    ready: Option<Instant>,
    /// The term in which it stood last for the next one. It does not stand twice in one: Raft may still wait for its disk.
    stood: Option<u64>,
    /// When it asked for votes last.
    asked: Option<Instant>,
    /// The term in which a voter refused its promise for a higher vote, which Raft here hears of by standing.
    outbid: Option<u64>,
    /// The highest vote that was asked of this controller.
    courted: Option<(u64, ControllerId)>,
    /// When the last round began, anybody's, and how many there were since there was a leader.
    round: Option<Instant>,
    rounds: u32,
    /// A gap between two of these is time in which this process did not run.
    noted: Instant,
    /// End of the last pause of this process.
    resumed: Option<Instant>,
}

impl Election {
    /// For the controller `id` among `voters`, itself included.
    pub(crate) fn new(
        now: Instant,
        id: ControllerId,
        voters: impl IntoIterator<Item = ControllerId>,
        timing: Timing,
    ) -> Self {
        let others = voters.into_iter().filter(|&voter| voter != id);
        Election {
            id,
            timing,
            others: others.map(|voter| (voter, Other::default())).collect(),
            facts: None,
            started: now,
            heard: None,
            changed: None,
            ready: None,
            stood: None,
            asked: None,
            outbid: None,
            courted: None,
            round: None,
            rounds: 0,
            noted: now,
            resumed: None,
        }
    }

    /// What Raft says now. To be called before anything else, so that a pause is noticed first.
    pub(crate) fn note(&mut self, now: Instant, facts: Facts) {
        self.forgive_pause(now);
        let before = self.facts.replace(facts);
        if before.is_some_and(|before| (before.term, before.leader) != (facts.term, facts.leader)) {
            self.changed = Some(now);
            if facts.leader.is_some() {
                (self.stood, self.round, self.rounds) = (None, None, 0);
            } else {
                (self.round, self.rounds) = (Some(now), self.rounds.saturating_add(1));
            }
        }
    }

    /// A candidate whose log reaches to `last_log` asks for this controller's vote in `term`: its round begins, however
    /// long the disk here takes over the answer, and only once, however often it asks.
    pub(crate) fn courted(&mut self, now: Instant, by: ControllerId, term: u64, last_log: Option<LastLog>) {
        let vote = Some((term, by));
        if last_log >= self.facts().last_log && vote > self.courted {
            (self.courted, self.round) = (vote, Some(now));
        }
    }

    fn facts(&self) -> Facts {
        self.facts.unwrap_or_default()
    }

    /// Whether that is the leader of the present term.
    pub(crate) fn knows(&self, leader: ControllerId, term: u64) -> bool {
        let facts = self.facts();
        facts.leader == Some(leader) && facts.term == term
    }

    /// A message of `leader` came that Raft accepts.
    pub(crate) fn heard(&mut self, now: Instant, leader: ControllerId) {
        let before = self.heard.filter(|(before, _)| *before == leader).map(|(_, at)| at);
        self.heard = Some((leader, before.map_or(now, |before| before.max(now))));
    }

    /// A controller promised this one its vote in `term`.
    pub(crate) fn promised(&mut self, by: ControllerId, term: u64) {
        if let Some(other) = self.others.get_mut(&by) {
            other.promised = other.promised.max(Some(term));
        }
    }

    /// A controller has given a higher vote than the one that it was asked to promise.
    pub(crate) fn outbid(&mut self) {
        self.outbid = Some(self.facts().term);
    }

    /// A controller obeyed or elected this one in `term`, in answer to a request sent at `sent`.
    pub(crate) fn acked(&mut self, by: ControllerId, term: u64, sent: Instant) {
        if let Some(other) = self.others.get_mut(&by) {
            other.acked = other.acked.max(Some((term, sent)));
        }
    }

    /// A controller answered a question that was sent at `sent`. Returns false where that counts no more (ELE-3).
    pub(crate) fn answered(
        &mut self,
        now: Instant,
        by: ControllerId,
        sent: Instant,
        account: Account,
    ) -> bool {
        if self.resumed.is_some_and(|resumed| sent < resumed) {
            return false;
        }
        if let Some(other) = self.others.get_mut(&by) {
            let heard = account.heard_ago.map(|ago| now.checked_sub(ago).unwrap_or(self.started));
            *other = Other {
                answer: Some(Answer { sent, heard, account }),
                broken: None,
                refused: None,
                ..*other
            };
        }
        true
    }

    /// The connection to a controller broke, or could not be had.
    pub(crate) fn failed(&mut self, now: Instant, to: ControllerId) {
        if let Some(other) = self.others.get_mut(&to) {
            other.answer = None;
            if other.broken.is_some() {
                other.refused = Some(now);
            } else {
                other.broken = Some(now);
            }
        }
    }

    /// Whether this controller leads, as far as a majority has answered it lately (ELE-4).
    pub(crate) fn leads(&self, now: Instant) -> bool {
        let lately = |other: &Other| {
            other.acked.is_some_and(|(term, sent)| {
                term == self.facts().term && now.saturating_duration_since(sent) < self.timing.silence
            })
        };
        self.facts().leading && !self.facts().stands_still && self.is_majority_with_this(lately)
    }

    /// The leader that may be believed in.
    pub(crate) fn leader(&self, now: Instant) -> Option<ControllerId> {
        let leader = self.facts().leader?;
        let there = if leader == self.id { self.leads(now) } else { !self.has_lost(now, leader) };
        there.then_some(leader)
    }

    /// What this controller says of itself.
    pub(crate) fn account(&self, now: Instant) -> Account {
        let leader = self.leader(now);
        // A vote that is not yet a majority's choice carries no lease.
        let lease = self.heard.filter(|_| self.facts().leader.is_some());
        Account {
            term: self.facts().term,
            leader,
            lost: leader.is_none(),
            may_stand: self.facts().may_stand(),
            heard_ago: lease.map(|(_, heard)| now.saturating_duration_since(heard)),
            last_log: self.facts().last_log,
        }
    }

    /// Whether a majority, this controller included, has answered lately.
    pub(crate) fn reaches_majority(&self, now: Instant) -> bool {
        1 + self.answers(now).count() >= self.majority()
    }

    /// A controller that has been in a quorum already, as it says.
    pub(crate) fn member_elsewhere(&self) -> Option<ControllerId> {
        let term = |other: &Other| other.answer.as_ref().map_or(0, |answer| answer.account.term);
        self.others.iter().find(|(_, other)| term(other) > 0).map(|(&id, _)| id)
    }

    /// To be called regularly, and whenever something was heard.
    pub(crate) fn look(&mut self, now: Instant) -> Look {
        let next = now + self.timing.look();
        match self.stands_at(now) {
            Some(at) if at <= now => Look { step: self.step(now), next },
            at => Look { step: None, next: at.map_or(next, |at| next.min(at)) },
        }
    }

    /// How to come to lead, where nothing speaks against it. The first round is the fastest, and most often enough.
    fn step(&mut self, now: Instant) -> Option<Step> {
        let term = self.facts().term;
        if self.rounds == 0 || self.is_promised() || self.outbid == Some(term) {
            self.stood = Some(term);
            return Some(Step::Stand);
        }
        let waits = self.asked.is_some_and(|asked| now < asked + self.timing.round());
        (!waits).then(|| {
            self.asked = Some(now);
            Step::Ask
        })
    }

    /// Whether a majority, this controller included, has promised its votes in the next term.
    fn is_promised(&self) -> bool {
        let next = self.facts().term + 1;
        self.is_majority_with_this(|other| other.promised == Some(next))
    }

    /// Whether this controller was elected in the present term. Raft says so itself only when its disk has the first entry.
    fn is_elected(&self) -> bool {
        let term = self.facts().term;
        self.is_majority_with_this(|other| other.acked.is_some_and(|(acked, _)| acked == term))
    }

    fn is_majority_with_this(&self, is_for: impl Fn(&Other) -> bool) -> bool {
        1 + self.others.values().filter(|other| is_for(other)).count() >= self.majority()
    }

    /// ELE-3: while this process did not run, heartbeats waited in its sockets.
    fn forgive_pause(&mut self, now: Instant) {
        let pause = now.saturating_duration_since(self.noted);
        self.noted = now;
        if pause < self.timing.silence / 4 {
            return;
        }
        self.resumed = Some(now);
        self.ready = None;
        self.heard = self.heard.map(|(leader, at)| (leader, (at + pause).min(now)));
        for other in self.others.values_mut() {
            other.answer = None;
        }
    }

    /// When to stand, as things are; `None` where that is not to be.
    fn stands_at(&mut self, now: Instant) -> Option<Instant> {
        let Some(votes_at) = self.votes_at(now) else {
            self.ready = None;
            return None;
        };
        if self.stood == Some(self.facts().term) {
            return None;
        }
        // Those who have lost the leader this very moment may not know of each other.
        let told = if self.others.is_empty() { now } else { now + self.timing.margin() };
        // It does not come nearer when a candidate frees itself from its lease.
        let ready = self.ready.map_or(votes_at.max(told), |ready| ready.max(votes_at));
        self.ready = Some(ready);
        let apart = self.timing.lease * self.rank(now);
        // A round is left alone, and longer each time that nobody has won: disks may be slow. The longer is one that this
        // controller won, as it seems.
        let doublings = if self.is_elected() { MAX_DOUBLINGS } else { self.rounds.saturating_sub(1) };
        let round = self.timing.round() * (1 << doublings.min(MAX_DOUBLINGS));
        Some((ready + apart).max(self.round.map_or(ready, |begun| begun + round + apart)))
    }

    /// The moment from which on a majority would vote for this controller; `None` where it would not (ELE-1, ELE-2).
    fn votes_at(&self, now: Instant) -> Option<Instant> {
        let may_stand = self.facts().may_stand() && self.leader(now).is_none();
        if !may_stand || !self.is_settled(now) {
            return None;
        }
        if self.answers(now).any(|(id, answer)| answer.account.leader == Some(id)) {
            return None;
        }
        let lease = self.timing.lease + self.timing.margin();
        let voters =
            self.lost_too(now).filter(|(_, answer)| answer.account.last_log <= self.facts().last_log);
        let mut leases: Vec<Instant> =
            voters.map(|(_, answer)| answer.heard.map_or(self.started, |heard| heard + lease)).collect();
        leases.sort_unstable();
        let free = match self.majority() - 1 {
            0 => now,
            needed => leases.get(needed - 1).copied()?,
        };
        Some(self.last_word().map_or(free, |word| word.max(free)))
    }

    /// Until when a leader whose connections broke would have been heard again, if it lives. One that says itself that it
    /// leads no more is not waited for.
    fn last_word(&self) -> Option<Instant> {
        let (leader, heard) = self.heard.filter(|(leader, _)| self.facts().leader == Some(*leader))?;
        let known = self.changed.unwrap_or(self.started);
        let resigned = self.others.get(&leader).is_some_and(|other| self.denies(known, other));
        (!resigned).then(|| heard + self.timing.lease)
    }

    /// How many others should come before this controller. A leader that lost its majority is one of them: it needs
    /// no election to lead again.
    fn rank(&self, now: Instant) -> u32 {
        let facts = self.facts();
        let better = self.lost_too(now).filter(|(id, answer)| {
            let theirs = answer.account.last_log;
            let stands_first = theirs > facts.last_log || theirs == facts.last_log && *id < self.id;
            facts.leader == Some(*id) || answer.account.may_stand && stands_first
        });
        u32::try_from(better.count()).unwrap_or(u32::MAX)
    }

    /// Others that have lost the leader, as they say.
    fn lost_too(&self, now: Instant) -> impl Iterator<Item = (ControllerId, &Answer)> {
        self.answers(now).filter(|(_, answer)| answer.account.lost)
    }

    /// The answers that count.
    fn answers(&self, now: Instant) -> impl Iterator<Item = (ControllerId, &Answer)> {
        let answers = self.others.iter().filter_map(|(&id, other)| Some((id, other.answer.as_ref()?)));
        answers.filter(move |(_, answer)| now.saturating_duration_since(answer.sent) < self.timing.window())
    }

    /// Right after the start it is not known yet who is there.
    fn is_settled(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.started) >= self.timing.lease
            || self.others.values().all(|other| other.answer.is_some() || other.refused.is_some())
    }

    fn has_lost(&self, now: Instant, leader: ControllerId) -> bool {
        let heard = self.heard.filter(|(heard, _)| *heard == leader).map(|(_, at)| at);
        let known = self.changed.unwrap_or(self.started);
        let last = heard.map_or(known, |heard| heard.max(known));
        let silent = now.saturating_duration_since(last) >= self.timing.silence;
        silent
            || self
                .others
                .get(&leader)
                .is_some_and(|other| self.is_gone(now, last, other) || self.denies(known, other))
    }

    /// Whether the connection to a leader, last heard at `last`, is gone for good.
    fn is_gone(&self, now: Instant, last: Instant, other: &Other) -> bool {
        let overdue = other.broken.map(|broken| broken + self.timing.lease).filter(|due| *due <= now);
        other.refused.max(overdue).is_some_and(|failed| failed > last)
    }

    /// Whether one that is known to be the leader since `known` says that it does not lead.
    fn denies(&self, known: Instant, other: &Other) -> bool {
        other.answer.as_ref().is_some_and(|Answer { sent, account, .. }| {
            *sent > known && account.term == self.facts().term && account.lost
        })
    }

    fn majority(&self) -> usize {
        self.others.len().div_ceil(2) + 1
    }
}
