//! What leaders have to tell the controllers: the latest of each partition, told to every controller once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_core::PartitionId;
use holdfast_core::metadata::LeaderReport;

/// Where `Action::Report` goes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reports {
    latest: Arc<Mutex<ReportLog>>,
}

#[derive(Debug, Default)]
struct ReportLog {
    version: u64,
    reports: BTreeMap<PartitionId, (u64, LeaderReport, bool)>,
}

impl Reports {
    /// Takes the place of the partition's report before.
    pub(crate) fn put(&self, report: LeaderReport, complete: bool) {
        let mut log = self.lock();
        log.version += 1;
        let version = log.version;
        log.reports.insert(report.partition, (version, report, complete));
    }

    /// Reports that are newer than `seen`, and the version to ask with next time.
    pub(crate) fn since(&self, seen: u64) -> (Vec<(LeaderReport, bool)>, u64) {
        let log = self.lock();
        let newer = log.reports.values().filter(|(version, ..)| *version > seen);
        (newer.map(|&(_, report, complete)| (report, complete)).collect(), log.version)
    }

    fn lock(&self) -> MutexGuard<'_, ReportLog> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
