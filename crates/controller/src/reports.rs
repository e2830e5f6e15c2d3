//! Reports of leaders: who is stuck gets a successor, what is complete is noted (docs/protocol.md R41, R3), and who is in
//! sync is remembered for whatever prefers those (R5, R6).
//!
//! Volatile, and kept by every controller like the heartbeats that bring them; only the leader acts. Time is an
//! argument.

mod stuck;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use holdfast_core::metadata::{Appointment, ClusterMap, LeaderReport, LeaderState, Register};
use holdfast_core::{BrokerId, PartitionId, ReplicaId, Term};

use stuck::{Course, Successors};

/// A report is acted on for this long.
const REPORT_LIFE: Duration = Duration::from_secs(10);

/// What leaders have reported of terms that still stand.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    stalled: BTreeMap<PartitionId, (Term, Instant)>,
    complete: BTreeMap<PartitionId, (Term, Instant)>,
    successors: Successors,
    standing: BTreeMap<PartitionId, LeaderStanding>,
}

/// How a leader stands, by its own account.
#[derive(Debug)]
struct LeaderStanding {
    term: Term,
    writable: bool,
    in_sync: Vec<ReplicaId>,
}

impl Reports {
    /// Takes in what `broker` says of a partition. Only the leader of the current term is believed, which also bounds
    /// how much is kept.
    pub(crate) fn reported(
        &mut self,
        now: Instant,
        map: &ClusterMap,
        broker: BrokerId,
        report: &LeaderReport,
        complete: bool,
    ) {
        let id = report.partition;
        let Some(register) = map.partition(id).map(|partition| &partition.register) else { return };
        if report.term >= register.term && (report.term > register.term || register.leader.broker == broker) {
            // One of a later term is ahead of this controller's map: it counts as soon as the map says the same.
            let (term, writable, in_sync) = (report.term, report.writable, report.in_sync.clone());
            self.standing.insert(id, LeaderStanding { term, writable, in_sync });
        }
        if register.term != report.term || register.leader.broker != broker {
            return;
        }
        if report.state == LeaderState::Stalled {
            self.stalled.insert(id, (report.term, now));
        } else {
            self.stalled.remove(&id);
        }
        if complete && register.prev.is_some() {
            self.complete.insert(id, (report.term, now));
        }
    }

    /// The broker's streams have ended. Whether its leaders are stuck is not known any more: they may go on by now, and say
    /// so elsewhere. It tells all that is, again, as soon as it is back.
    pub(crate) fn cut(&mut self, map: &ClusterMap, broker: BrokerId) {
        let leads =
            |id: PartitionId| map.partition(id).is_some_and(|known| known.register.leader.broker == broker);
        self.stalled.retain(|&id, _| !leads(id));
    }

    /// Whether there is anything to act on.
    pub(crate) fn is_empty(&self) -> bool {
        self.stalled.is_empty() && self.complete.is_empty()
    }

    /// Whether the leader of that term acknowledges records.
    pub(crate) fn writable(&self, partition: PartitionId, term: Term) -> bool {
        self.standing_in(partition, term).is_some_and(|standing| standing.writable)
    }

    /// Whether the leader of that term says that the replica holds what is committed.
    pub(crate) fn in_sync(&self, partition: PartitionId, term: Term, replica: ReplicaId) -> bool {
        self.standing_in(partition, term).is_some_and(|standing| standing.in_sync.contains(&replica))
    }

    /// Forgets what was said of terms that are over. Call it now and then.
    pub(crate) fn forget_past_terms(&mut self, map: &ClusterMap) {
        self.standing.retain(|&id, standing| {
            map.partition(id).is_some_and(|known| known.register.term <= standing.term)
        });
    }

    fn standing_in(&self, partition: PartitionId, term: Term) -> Option<&LeaderStanding> {
        self.standing.get(&partition).filter(|standing| standing.term == term)
    }

    /// Leaders to appoint in place of those that are stuck, and the changes that are complete.
    pub(crate) fn verdicts(
        &mut self,
        now: Instant,
        map: &ClusterMap,
    ) -> (Vec<Appointment>, Vec<(PartitionId, Term)>) {
        self.forget(now, map);
        let (stalled, standing) = (&self.stalled, &self.standing);
        self.successors.review(now, |id, term| course(map, stalled, standing, id, term));
        let wanted = stalled.iter().filter_map(|(&partition, &(expected_term, _))| {
            let register = &map.partition(partition)?.register;
            Some(Appointment { partition, expected_term, leader: successor(map, register)? })
        });
        let appointments = self.successors.choose(now, wanted.collect());
        let complete = self.complete.iter().map(|(&partition, &(term, _))| (partition, term)).collect();
        (appointments, complete)
    }

    fn forget(&mut self, now: Instant, map: &ClusterMap) {
        let stands = |id: &PartitionId, (term, since): &mut (Term, Instant)| {
            now.saturating_duration_since(*since) < REPORT_LIFE
                && map.partition(*id).is_some_and(|partition| partition.register.term == *term)
        };
        self.stalled.retain(stands);
        self.complete.retain(stands);
        self.complete
            .retain(|id, _| map.partition(*id).is_some_and(|partition| partition.register.prev.is_some()));
    }
}

/// How the leader gets on that was appointed in place of one that was stuck.
fn course(
    map: &ClusterMap,
    stalled: &BTreeMap<PartitionId, (Term, Instant)>,
    standing: &BTreeMap<PartitionId, LeaderStanding>,
    id: PartitionId,
    term: Term,
) -> Course {
    let leads = standing.get(&id).is_some_and(|standing| standing.term >= term && standing.writable);
    match map.partition(id).map(|known| known.register.term) {
        _ if leads => Course::Leads,
        Some(known) if known < term => Course::Proposed,
        Some(known) if known == term && stalled.contains_key(&id) => Course::Stuck,
        Some(known) if known == term => Course::OnItsWay,
        _ => Course::Over,
    }
}

/// The next live member of the set after the leader. Which one is only a preference (R5): recovery makes it safe.
fn successor(map: &ClusterMap, register: &Register) -> Option<BrokerId> {
    let set = &register.set;
    let position = set.iter().position(|&replica| replica == register.leader).unwrap_or(0);
    (1..=set.len())
        .map(|step| set[(position + step) % set.len()])
        .find(|&replica| replica != register.leader && map.may_lead(replica))
        .map(|replica| replica.broker)
}

#[cfg(test)]
mod tests {
    use holdfast_core::metadata::{BrokerRegistration, Command, Metadata, TopicSpec};
    use holdfast_core::{DirId, Incarnation, Offset, TopicId, ZoneId};

    use super::*;

    const PARTITION: PartitionId = PartitionId { topic: TopicId(5), index: 0 };

    fn apply(metadata: &mut Metadata, command: Command) {
        metadata.apply(metadata.map().index() + 1, &command).0.unwrap();
    }

    fn cluster() -> Metadata {
        let mut metadata = Metadata::default();
        for id in 1..=3 {
            let registration = BrokerRegistration {
                id: BrokerId(id),
                zone: ZoneId::new(&format!("z{id}")),
                dir: DirId(1),
                incarnation: Incarnation(1),
                client_endpoint: "b:1".into(),
                peer_endpoint: "b:2".into(),
            };
            apply(&mut metadata, Command::RegisterBroker(registration));
        }
        let spec = TopicSpec::default();
        apply(&mut metadata, Command::CreateTopic { id: TopicId(5), name: "t".into(), spec });
        metadata
    }

    /// The current leader says that it is stuck; what is proposed for it is applied.
    fn stall(reports: &mut Reports, metadata: &mut Metadata, now: Instant) -> Option<BrokerId> {
        let register = metadata.map().partition(PARTITION).unwrap().register.clone();
        let report = LeaderReport {
            partition: PARTITION,
            term: register.term,
            state: LeaderState::Stalled,
            log_end_offset: Offset(0),
            writable: false,
            in_sync: vec![],
        };
        reports.reported(now, metadata.map(), register.leader.broker, &report, false);
        let (appointments, _) = reports.verdicts(now, metadata.map());
        let appointed = appointments.first().map(|appointment| appointment.leader);
        apply(metadata, Command::Appoint(appointments));
        appointed
    }

    #[test]
    fn a_stuck_leader_is_replaced_with_growing_pauses() {
        let (mut reports, mut metadata) = (Reports::default(), cluster());
        let start = Instant::now();
        let mut moves = Vec::new();
        for ms in (0..40_000).step_by(100) {
            if stall(&mut reports, &mut metadata, start + Duration::from_millis(ms)).is_some() {
                moves.push(ms);
            }
        }
        assert_eq!(moves, [0, 2000, 6000, 14_000, 30_000]);
    }

    #[test]
    fn only_the_leader_of_the_current_term_is_believed() {
        let (mut reports, metadata) = (Reports::default(), cluster());
        let register = metadata.map().partition(PARTITION).unwrap().register.clone();
        let now = Instant::now();
        let mut report = LeaderReport {
            partition: PARTITION,
            term: register.term,
            state: LeaderState::Stalled,
            log_end_offset: Offset(0),
            writable: false,
            in_sync: vec![],
        };
        let other = register.set.iter().find(|&&replica| replica != register.leader).unwrap().broker;
        reports.reported(now, metadata.map(), other, &report, true);
        report.term = Term(7);
        reports.reported(now, metadata.map(), register.leader.broker, &report, true);
        assert!(reports.is_empty());
    }

    #[test]
    fn who_is_in_sync_counts_in_its_term_only() {
        let (mut reports, mut metadata) = (Reports::default(), cluster());
        let now = Instant::now();
        let register = metadata.map().partition(PARTITION).unwrap().register.clone();
        let in_sync = vec![register.set[0], register.set[1]];
        // Ahead of the map: kept until the map comes to that term.
        let report = LeaderReport {
            partition: PARTITION,
            term: Term(2),
            state: LeaderState::Active,
            log_end_offset: Offset(9),
            writable: true,
            in_sync,
        };
        let next = register.set[1].broker;
        reports.reported(now, metadata.map(), next, &report, false);
        assert!(!reports.writable(PARTITION, Term(1)), "another term");
        let appointment = Appointment { partition: PARTITION, expected_term: Term(1), leader: next };
        apply(&mut metadata, Command::Appoint(vec![appointment]));
        reports.forget_past_terms(metadata.map());
        assert!(reports.writable(PARTITION, Term(2)));
        assert!(reports.in_sync(PARTITION, Term(2), register.set[0]));
        assert!(!reports.in_sync(PARTITION, Term(2), register.set[2]));
        // Who led before knows nothing of it.
        let past = LeaderReport { term: Term(1), ..report };
        reports.reported(now, metadata.map(), register.leader.broker, &past, false);
        assert!(reports.writable(PARTITION, Term(2)));
        let appointment =
            Appointment { partition: PARTITION, expected_term: Term(2), leader: register.set[0].broker };
        apply(&mut metadata, Command::Appoint(vec![appointment]));
        reports.forget_past_terms(metadata.map());
        assert!(reports.standing.is_empty());
    }

    /// It may have got going since, and told so only to others: a controller that is elected later must not move it for
    /// what it was told before.
    #[test]
    fn what_a_broker_said_before_it_was_cut_off_moves_no_leader() {
        let (mut reports, metadata) = (Reports::default(), cluster());
        let register = metadata.map().partition(PARTITION).unwrap().register.clone();
        let now = Instant::now();
        let report = LeaderReport {
            partition: PARTITION,
            term: register.term,
            state: LeaderState::Stalled,
            log_end_offset: Offset(0),
            writable: false,
            in_sync: vec![],
        };
        let leader = register.leader.broker;
        let other = register.set.iter().find(|replica| replica.broker != leader).unwrap().broker;
        reports.reported(now, metadata.map(), leader, &report, false);
        reports.cut(metadata.map(), other);
        assert!(!reports.is_empty(), "the end of another broker's stream");
        reports.cut(metadata.map(), leader);
        assert_eq!(reports.verdicts(now, metadata.map()), (vec![], vec![]));
        reports.reported(now, metadata.map(), leader, &report, false);
        assert_eq!(reports.verdicts(now, metadata.map()).0.len(), 1, "it is back, and still stuck");
    }

    #[test]
    fn a_leader_that_got_going_again_stays() {
        let (mut reports, metadata) = (Reports::default(), cluster());
        let register = metadata.map().partition(PARTITION).unwrap().register.clone();
        let now = Instant::now();
        for state in [LeaderState::Stalled, LeaderState::Active] {
            let log_end_offset = Offset(0);
            let (partition, term, in_sync) = (PARTITION, register.term, vec![]);
            let report = LeaderReport { partition, term, state, log_end_offset, writable: false, in_sync };
            reports.reported(now, metadata.map(), register.leader.broker, &report, false);
        }
        assert_eq!(reports.verdicts(now, metadata.map()), (vec![], vec![]));
    }
}
