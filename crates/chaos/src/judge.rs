//! The checker's verdict on a history.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use holdfast_checker::{Checker, Event, Kind, Reader, Report};

use crate::error::{ChaosError, chain};

/// Where the whole report is kept, beside the history.
const REPORT: &str = "verdict.json";

/// What the checker found.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Acknowledged records that are not to be read any more.
    pub(crate) lost: u64,
    /// Every other anomaly, by name.
    pub(crate) others: BTreeMap<&'static str, u64>,
    /// Why the history could not be judged whole.
    not_judged: Vec<String>,
}

impl Verdict {
    /// Anomalies beside losses.
    pub(crate) fn other_count(&self) -> u64 {
        self.others.values().sum()
    }

    /// What is wrong, in words.
    pub(crate) fn problems(&self) -> Vec<String> {
        let lost = (self.lost > 0).then(|| format!("{} acknowledged records lost", self.lost));
        let others = self.others.iter().map(|(name, count)| format!("{count} {name}"));
        lost.into_iter().chain(others).chain(self.not_judged.iter().cloned()).collect()
    }

    fn of(report: &Report) -> Verdict {
        let found = &report.anomalies;
        let losses = [Kind::LostWrite, Kind::Unseen];
        let others = found.iter().filter(|(kind, _)| !losses.contains(kind));
        Verdict {
            lost: losses.into_iter().map(|kind| found.count(kind)).sum(),
            others: others.map(|(kind, finding)| (kind.name(), finding.count)).collect(),
            not_judged: report.not_judged.clone(),
        }
    }
}

/// Reads the history, twice where something is wrong with it, and keeps the whole report beside it.
pub(crate) fn judge(history: &Path) -> Result<Verdict, ChaosError> {
    let mut checker = Checker::new();
    read(history, |line, event| {
        checker.observe(line, event).map_err(|error| unreadable(history, chain(&error)))
    })?;
    let mut report = checker.finish();
    if !report.anomalies.is_empty() {
        read(history, |line, event| {
            report.locate_in(line, event);
            Ok(())
        })?;
    }
    keep(&report, history.with_file_name(REPORT))?;
    Ok(Verdict::of(&report))
}

fn read(
    history: &Path,
    mut each: impl FnMut(u64, &Event) -> Result<(), ChaosError>,
) -> Result<(), ChaosError> {
    let file = File::open(history).map_err(ChaosError::io(format!("opening {}", history.display())))?;
    for event in Reader::new(BufReader::new(file)) {
        let (line, event) = event.map_err(|error| unreadable(history, chain(&error)))?;
        each(line, &event)?;
    }
    Ok(())
}

fn unreadable(history: &Path, why: String) -> ChaosError {
    ChaosError::Client { what: format!("judging {}", history.display()), why }
}

fn keep(report: &Report, file: PathBuf) -> Result<(), ChaosError> {
    let what = || format!("writing {}", file.display());
    let text = serde_json::to_vec_pretty(report).map_err(|error| ChaosError::io(what())(error.into()))?;
    std::fs::write(&file, text).map_err(ChaosError::io(what()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::History;
    use crate::record::{SendOutcome, Sent};

    /// One acknowledged record, and a final phase that reads it, or does not.
    fn verdict_of(read_back: bool) -> Verdict {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("history.jsonl");
        let history = History::create(&file, "t", 1).unwrap();
        let sent = |op, value| Sent { process: 1, op, partition: 0, value };
        for (op, value, offset) in [(1, 11, 0), (2, 12, 1)] {
            history.send_invoked(sent(op, value));
            history.send_done(sent(op, value), &SendOutcome::Acked { base_offset: offset, epoch: 256 });
        }
        history.final_phase();
        history.assigned(2, 1, 0, 0);
        history.poll_invoked(2, 2, 0);
        let records = if read_back { vec![(0, 11), (1, 12)] } else { vec![(1, 12)] };
        history.polled(2, 2, 0, records, 2);
        history.finish().unwrap();
        judge(&file).unwrap()
    }

    /// What the runner writes down is what the checker judges: a record that is gone is told as lost.
    #[test]
    fn a_lost_record_is_told() {
        let whole = verdict_of(true);
        assert_eq!((whole.lost, whole.problems()), (0, Vec::new()));
        let lost = verdict_of(false);
        assert_eq!(lost.lost, 1, "{lost:?}");
        assert!(lost.problems()[0].contains("1 acknowledged records lost"), "{lost:?}");
    }
}
