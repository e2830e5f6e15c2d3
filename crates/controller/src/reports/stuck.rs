//! Which of the leaders that are stuck get a successor now (docs/protocol.md R41).
//!
//! A few get one at once. Where many are stuck together, what ails them is seldom their leaders: brokers are still opening
//! thousands of logs, or making them. To replace them all would have everybody begin anew, and be stuck again. So they are
//! replaced little by little, and faster the better that helps ([ADR 23](../../../../docs/adr/0023-many-stuck-leaders.md)).
//!
//! Invariant: no more successors than the window says are on their way at a time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use holdfast_core::metadata::Appointment;
use holdfast_core::{PartitionId, Term};

/// Pause after the first appointment of a partition; doubles each time.
const BACKOFF_FIRST: Duration = Duration::from_secs(2);
const BACKOFF_LAST: Duration = Duration::from_secs(30);
/// A partition that stayed calm for this long begins with the first pause again.
const CALM: Duration = Duration::from_secs(60);
/// The window at first, and where replacing does not help.
const FEW: usize = 100;
/// Appointments in one entry at most.
const MOST: usize = 10_000;
/// A successor that does not take records for so long, and does not say that it is stuck, has not helped.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a successor gets on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Course {
    /// The appointment is not in the map, and may never be.
    Proposed,
    /// It is not heard of yet.
    OnItsWay,
    /// It takes records.
    Leads,
    /// It got stuck, too.
    Stuck,
    /// Somebody else was appointed meanwhile.
    Over,
}

/// Successors, and how many there may be.
#[derive(Debug)]
pub(super) struct Successors {
    window: usize,
    /// Appointed in that term, and not known to lead yet.
    under_way: BTreeMap<PartitionId, (Term, Instant)>,
    backoff: BTreeMap<PartitionId, Backoff>,
    /// Who had a turn last.
    last: Option<PartitionId>,
}

#[derive(Debug)]
struct Backoff {
    appointed: Instant,
    pause: Duration,
}

impl Default for Successors {
    fn default() -> Self {
        Successors { window: FEW, under_way: BTreeMap::new(), backoff: BTreeMap::new(), last: None }
    }
}

impl Successors {
    /// Learns how those on their way get on. Each that leads makes room for one more besides its own, so that the window
    /// doubles with every round that helps; it is halved where one does not.
    pub(super) fn review(&mut self, now: Instant, course: impl Fn(PartitionId, Term) -> Course) {
        self.backoff.retain(|_, backoff| now.saturating_duration_since(backoff.appointed) < CALM);
        let (mut helped, mut failed) = (0, false);
        self.under_way.retain(|&id, &mut (term, since)| {
            match course(id, term) {
                Course::Proposed | Course::OnItsWay if now.saturating_duration_since(since) < PATIENCE => {
                    return true;
                }
                Course::OnItsWay | Course::Stuck => failed = true,
                Course::Leads => helped += 1,
                Course::Proposed | Course::Over => {}
            }
            false
        });
        self.window = (self.window + helped).min(MOST);
        if failed {
            self.window = (self.window / 2).max(FEW);
        }
        if self.backoff.is_empty() {
            self.window = FEW; // long ago
        }
    }

    /// Which of these appointments are made now. Partitions take turns: one that cannot be helped keeps none waiting for ever.
    pub(super) fn choose(&mut self, now: Instant, mut wanted: Vec<Appointment>) -> Vec<Appointment> {
        wanted.retain(|one| self.may_have_another(now, one.partition));
        wanted.sort_by_key(|one| (self.last.is_some_and(|last| one.partition <= last), one.partition));
        wanted.truncate(self.window.saturating_sub(self.under_way.len()));
        self.last = wanted.last().map(|one| one.partition).or(self.last);
        for one in &wanted {
            self.appointed(now, one);
        }
        wanted
    }

    /// Whether its pause is over, and nobody is on the way.
    fn may_have_another(&self, now: Instant, partition: PartitionId) -> bool {
        let over = |known: &Backoff| now.saturating_duration_since(known.appointed) >= known.pause;
        !self.under_way.contains_key(&partition) && self.backoff.get(&partition).is_none_or(over)
    }

    fn pause(&self, partition: PartitionId) -> Option<Duration> {
        self.backoff.get(&partition).map(|known| known.pause)
    }

    fn appointed(&mut self, now: Instant, one: &Appointment) {
        let pause = self.pause(one.partition).map_or(BACKOFF_FIRST, |pause| (pause * 2).min(BACKOFF_LAST));
        self.backoff.insert(one.partition, Backoff { appointed: now, pause });
        self.under_way.insert(one.partition, (one.expected_term.next(), now));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, VecDeque};

    use holdfast_core::{BrokerId, TopicId};

    use super::*;

    /// A leader says so when it is stuck for this long.
    const STALL: u64 = 5000;
    const TICK: u64 = 100;

    fn partition(index: u32) -> PartitionId {
        PartitionId { topic: TopicId(1), index }
    }

    /// Partitions whose leaders have something to do before they take records, one after the other: a cluster that starts.
    struct Starting {
        successors: Successors,
        begun: Instant,
        now: u64,
        /// Attempts in the order in which they get their turn, also those that were given up by now.
        queue: VecDeque<(PartitionId, Term)>,
        /// The newest attempt of each, and when it began.
        attempts: BTreeMap<PartitionId, (Term, u64)>,
        active: BTreeSet<PartitionId>,
        /// These never get anywhere.
        hopeless: BTreeSet<PartitionId>,
        appointed: usize,
    }

    impl Starting {
        fn new(partitions: u32) -> Starting {
            let mut starting = Starting {
                successors: Successors::default(),
                begun: Instant::now(),
                now: 0,
                queue: VecDeque::new(),
                attempts: BTreeMap::new(),
                active: BTreeSet::new(),
                hopeless: BTreeSet::new(),
                appointed: 0,
            };
            (0..partitions).for_each(|index| starting.attempt(partition(index), Term(1)));
            starting
        }

        fn attempt(&mut self, id: PartitionId, term: Term) {
            self.attempts.insert(id, (term, self.now));
            self.queue.push_back((id, term));
        }

        fn is_stuck(&self, id: PartitionId) -> bool {
            !self.active.contains(&id) && self.now - self.attempts[&id].1 >= STALL
        }

        /// Time passes; so many attempts get their turn. Returns for whom somebody was appointed.
        fn tick(&mut self, turns: usize) -> Vec<PartitionId> {
            self.now += TICK;
            for _ in 0..turns {
                let Some((id, term)) = self.queue.pop_front() else { break };
                if self.attempts[&id].0 == term && !self.hopeless.contains(&id) {
                    self.active.insert(id);
                }
            }
            let now = self.begun + Duration::from_millis(self.now);
            let mut successors = std::mem::take(&mut self.successors);
            successors.review(now, |id, term| match self.attempts[&id].0 {
                known if known < term => Course::Proposed,
                _ if self.active.contains(&id) => Course::Leads,
                _ if self.is_stuck(id) => Course::Stuck,
                _ => Course::OnItsWay,
            });
            let stuck = self.attempts.keys().filter(|&&id| self.is_stuck(id));
            let wanted = stuck.map(|&partition| {
                let expected_term = self.attempts[&partition].0;
                Appointment { partition, expected_term, leader: BrokerId(1) }
            });
            let chosen = successors.choose(now, wanted.collect());
            self.successors = successors;
            self.appointed += chosen.len();
            chosen.iter().for_each(|one| self.attempt(one.partition, one.expected_term.next()));
            chosen.iter().map(|one| one.partition).collect()
        }

        fn run_until(&mut self, turns: usize, done: impl Fn(&Starting) -> bool) -> u64 {
            let begin = self.now;
            while !done(self) {
                self.tick(turns);
                assert!(self.now < 600_000, "{} of {} lead", self.active.len(), self.attempts.len());
            }
            self.now - begin
        }
    }

    /// 400 a second: all of 6000 lead after 15 s if nobody disturbs them, three times longer than a leader waits.
    #[test]
    fn a_cluster_that_starts_slowly_is_left_to_it() {
        let mut starting = Starting::new(6000);
        let took = starting.run_until(40, |starting| starting.active.len() == 6000);
        assert!(took < 16_500, "{took} ms with {} appointments", starting.appointed);
        assert!(starting.appointed < 600, "{} appointments", starting.appointed);
    }

    /// They can be helped: all have another leader soon, although only a few had one at once.
    #[test]
    fn many_that_are_stuck_for_good_are_replaced_faster_and_faster() {
        let mut starting = Starting::new(3333);
        let first = starting.queue.drain(..).count();
        assert_eq!(starting.run_until(0, |starting| starting.appointed > 0), STALL);
        assert_eq!((first, starting.appointed), (3333, FEW));
        let took = starting.run_until(10_000, |starting| starting.active.len() == 3333);
        assert!(took <= 1000, "{took} ms");
    }

    #[test]
    fn those_that_cannot_be_helped_do_not_keep_others_waiting() {
        let mut starting = Starting::new(2000);
        starting.hopeless = starting.attempts.keys().copied().collect();
        starting.run_until(10_000, |starting| starting.now >= 100_000);
        let id = partition(9999);
        starting.attempt(id, Term(1));
        starting.hopeless.insert(id);
        let begin = starting.now;
        while !starting.tick(10_000).contains(&id) {
            let waited = starting.now - begin;
            assert!(waited <= 22 * STALL, "not yet after {waited} ms: {:?}", starting.successors);
        }
    }
}
