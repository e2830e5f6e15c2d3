//! What leaders have to tell the controllers: the latest of each partition, told to every controller once on each
//! stream. So it must be what is, never what was: a leader that got stuck and goes on again says both. What asks for
//! something, a successor for a leader that is stuck (R41) or a note that a change of members is complete (R3), is told
//! again and again as long as it holds: a controller forgets what it could not act upon in time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_core::PartitionId;
use holdfast_core::metadata::{LeaderReport, LeaderState};
use holdfast_core::replication::Assignment;
use tokio::sync::watch;

/// Where `Action::Report` goes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reports {
    latest: Arc<Mutex<ReportLog>>,
    /// Changes with every report.
    news: Arc<watch::Sender<u64>>,
}

#[derive(Debug, Default)]
struct ReportLog {
    version: u64,
    reports: BTreeMap<PartitionId, (u64, LeaderReport, bool)>,
}

impl Reports {
    /// Takes the place of the partition's report before. What was complete in a term stays so in that term.
    pub(crate) fn put(&self, report: LeaderReport, complete: bool) {
        let mut log = self.lock();
        log.version += 1;
        let version = log.version;
        let known = log.reports.get(&report.partition);
        let stands = known.is_some_and(|(_, known, complete)| known.term == report.term && *complete);
        log.reports.insert(report.partition, (version, report, complete || stands));
        self.news.send_replace(version);
    }

    /// Changes when there is something to tell.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// What was reported of an earlier term is of no use to anybody any more. Where the register names no members that are
    /// being left there is nothing to complete either.
    pub(crate) fn assigned(&self, partition: PartitionId, assignment: &Assignment) {
        let mut log = self.lock();
        let Some((_, report, complete)) = log.reports.get_mut(&partition) else { return };
        *complete &= assignment.prev.is_some() || report.term > assignment.term;
        if report.term < assignment.term {
            log.reports.remove(&partition);
        }
    }

    /// The partition is deleted.
    pub(crate) fn forget(&self, partition: PartitionId) {
        self.lock().reports.remove(&partition);
    }

    /// Leaders that are stuck, and changes that are complete and that no register has noted.
    pub(crate) fn unsettled(&self) -> Vec<(LeaderReport, bool)> {
        let log = self.lock();
        let asks = |report: &LeaderReport, complete: bool| complete || report.state == LeaderState::Stalled;
        let unsettled = log.reports.values().filter(|(_, report, complete)| asks(report, *complete));
        unsettled.map(|(_, report, complete)| (report.clone(), *complete)).collect()
    }

    /// Reports that are newer than `seen`, and the version to ask with next time.
    pub(crate) fn since(&self, seen: u64) -> (Vec<(LeaderReport, bool)>, u64) {
        let log = self.lock();
        let newer = log.reports.values().filter(|(version, ..)| *version > seen);
        (newer.map(|(_, report, complete)| (report.clone(), *complete)).collect(), log.version)
    }

    fn lock(&self) -> MutexGuard<'_, ReportLog> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use holdfast_core::{BrokerId, DirId, Offset, ReplicaId, Term, TopicId};

    use super::*;

    #[test]
    fn a_complete_change_is_told_until_the_register_has_noted_it() {
        let partition = PartitionId { topic: TopicId(1), index: 0 };
        let replica = ReplicaId { broker: BrokerId(1), dir: DirId(1) };
        let report = |term, state| LeaderReport {
            partition,
            term: Term(term),
            state,
            log_end_offset: Offset(1),
            writable: true,
            in_sync: Vec::new(),
        };
        let reports = Reports::default();
        reports.put(report(3, LeaderState::Active), true);
        let (told, seen) = reports.since(0);
        assert_eq!(told, [(report(3, LeaderState::Active), true)]);
        assert!(reports.since(seen).0.is_empty(), "told once");
        assert_eq!(reports.unsettled().len(), 1);
        // A later report of the term does not hide it; one of the next term does.
        reports.put(report(3, LeaderState::Stalled), false);
        assert_eq!(reports.since(seen).0, [(report(3, LeaderState::Stalled), true)]);
        assert_eq!(reports.unsettled().len(), 1, "a stuck leader waits for its successor");
        reports.put(report(3, LeaderState::Active), false);
        assert_eq!(
            reports.since(0).0,
            [(report(3, LeaderState::Active), true)],
            "a new stream hears what is"
        );
        let register = |term, prev: Option<&[ReplicaId]>| Assignment {
            term: Term(term),
            leader: replica,
            set: vec![replica],
            prev: prev.map(<[ReplicaId]>::to_vec),
            learners: Vec::new(),
            unclean_term: None,
        };
        reports.assigned(partition, &register(2, None));
        assert_eq!(reports.unsettled().len(), 1, "an earlier register says nothing");
        reports.assigned(partition, &register(3, Some(&[replica])));
        assert_eq!(reports.unsettled().len(), 1, "not noted yet");
        reports.assigned(partition, &register(3, None));
        assert!(reports.unsettled().is_empty());
        assert_eq!(reports.since(0).0, [(report(3, LeaderState::Active), false)]);
        reports.put(report(4, LeaderState::Fencing), false);
        assert_eq!(reports.since(seen).0, [(report(4, LeaderState::Fencing), false)]);
        reports.put(report(4, LeaderState::Stalled), false);
        assert_eq!(reports.unsettled().len(), 1);
        reports.assigned(partition, &register(4, None));
        assert_eq!(reports.unsettled().len(), 1, "the same term");
        reports.put(report(4, LeaderState::Active), false);
        assert!(reports.unsettled().is_empty());
        // Another one leads, or may: nobody is to hear again and again that this one was stuck once.
        reports.put(report(4, LeaderState::Stalled), false);
        reports.assigned(partition, &register(5, None));
        assert!(reports.unsettled().is_empty() && reports.since(0).0.is_empty());
        reports.put(report(5, LeaderState::Active), false);
        reports.forget(partition);
        assert!(reports.since(0).0.is_empty());
    }
}
