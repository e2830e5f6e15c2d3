//! What one storage fault cost, and all of a kind together.

use std::time::Duration;

use crate::faults::Check;
use crate::judge::Verdict;
use crate::load::Load;
use crate::measure::gaps::{Window, longest};
use crate::zone::Zone;

/// One injection, as it went.
#[derive(Debug)]
pub(crate) struct Struck {
    /// Where.
    pub(crate) zone: Option<Zone>,
    /// Partitions that were led there.
    pub(crate) moved: Vec<u32>,
    /// From the fault until everything was whole again.
    pub(crate) window: Window,
    /// Until it served again; from when on it could, each fault says for itself.
    pub(crate) serving: Duration,
    /// Until every replica was whole and in sync, from when on it could be.
    pub(crate) whole: Duration,
    /// What else is worth telling.
    pub(crate) told: String,
    /// What else had to hold.
    pub(crate) checks: Vec<Check>,
}

/// What it cost.
#[derive(Debug)]
pub(crate) struct Cost {
    pub(crate) zone: Option<Zone>,
    pub(crate) acked: usize,
    pub(crate) refused: usize,
    /// Longest gap of a partition that was led where it struck.
    pub(crate) gap: Duration,
    /// Longest gap of any other.
    pub(crate) elsewhere: Duration,
    pub(crate) serving: Duration,
    pub(crate) whole: Duration,
    /// How late the runner itself was at worst.
    pub(crate) late: Duration,
    pub(crate) told: String,
    pub(crate) checks: Vec<Check>,
}

impl Cost {
    /// Measures an injection that is over.
    pub(crate) fn of(struck: Struck, load: &Load) -> Cost {
        let Window { from, to } = struck.window;
        let gaps = |moved: bool| {
            let those = (0..load.partitions).filter(|partition| struck.moved.contains(partition) == moved);
            let gaps = those.map(|partition| longest(&load.acks.of(partition), struck.window));
            gaps.max().unwrap_or_default()
        };
        Cost {
            zone: struck.zone,
            acked: load.acks.between(from, to),
            refused: load.refusals_between(from, to),
            gap: gaps(true),
            elsewhere: gaps(false),
            serving: struck.serving,
            whole: struck.whole,
            late: load.latest_tick(from, to),
            told: struck.told,
            checks: struck.checks,
        }
    }

    /// In one line.
    pub(crate) fn summary(&self) -> String {
        let ms = |duration: Duration| duration.as_millis();
        let mut line = format!(
            "acked {}, refused {}; longest gap {} ms, elsewhere {} ms; serving again after {} ms, whole after {} ms",
            self.acked,
            self.refused,
            ms(self.gap),
            ms(self.elsewhere),
            ms(self.serving),
            ms(self.whole),
        );
        if !self.told.is_empty() {
            line.push_str(&format!("; {}", self.told));
        }
        if !self.late.is_zero() {
            line.push_str(&format!("; the runner itself was {} ms late", ms(self.late)));
        }
        for check in self.checks.iter().filter(|check| !check.holds) {
            line.push_str(&format!("; BROKEN {}: {}", check.name, check.seen));
        }
        line
    }
}

/// What a fault may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) serving: Duration,
    pub(crate) whole: Duration,
}

/// A fault injected some times.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) fault: &'static str,
    pub(crate) seed: u64,
    pub(crate) injections: usize,
    pub(crate) acked: u64,
    pub(crate) refused: usize,
    pub(crate) verdict: Verdict,
    pub(crate) gap: Duration,
    pub(crate) elsewhere: Duration,
    pub(crate) serving: Duration,
    pub(crate) whole: Duration,
    pub(crate) told: Vec<String>,
    pub(crate) limits: Limits,
    /// What was broken, in words.
    pub(crate) broken: Vec<String>,
    /// Why it was not run at all.
    pub(crate) not_run: Option<String>,
}

impl Row {
    /// A row of nothing.
    pub(crate) fn empty(fault: &'static str, seed: u64, limits: Limits) -> Row {
        Row {
            fault,
            seed,
            injections: 0,
            acked: 0,
            refused: 0,
            verdict: Verdict::default(),
            gap: Duration::ZERO,
            elsewhere: Duration::ZERO,
            serving: Duration::ZERO,
            whole: Duration::ZERO,
            told: Vec::new(),
            limits,
            broken: Vec::new(),
            not_run: None,
        }
    }

    /// Adds injections, and the verdict on all of them.
    pub(crate) fn with(self, costs: &[Cost], acked: u64, verdict: Verdict) -> Row {
        let longest = |of: fn(&Cost) -> Duration| costs.iter().map(of).max().unwrap_or_default();
        Row {
            injections: costs.len(),
            acked,
            refused: costs.iter().map(|cost| cost.refused).sum(),
            verdict,
            gap: longest(|cost| cost.gap),
            elsewhere: longest(|cost| cost.elsewhere),
            serving: longest(|cost| cost.serving),
            whole: longest(|cost| cost.whole),
            told: costs.iter().map(|cost| cost.told.clone()).filter(|told| !told.is_empty()).collect(),
            ..self
        }
    }

    /// Names everything that does not hold.
    pub(crate) fn judge(&mut self, checks: &[Check]) {
        let failed = checks.iter().filter(|check| !check.holds);
        self.broken.extend(failed.map(|check| format!("{}: {}", check.name, check.seen)));
        self.broken.extend(self.verdict.problems());
        for (what, took, limit) in [
            ("serving again", self.serving, self.limits.serving),
            ("whole again", self.whole, self.limits.whole),
        ] {
            if took > limit {
                self.broken.push(format!("{what} after {took:.1?}, limit {limit:?}"));
            }
        }
        // A run in which nothing was acknowledged has shown nothing.
        if self.acked == 0 {
            self.broken.push("nothing was acknowledged".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(serving: u64, whole: u64, acked: u64, checks: &[Check]) -> Vec<String> {
        let limits = Limits { serving: Duration::from_secs(10), whole: Duration::from_secs(60) };
        let (serving, whole) = (Duration::from_millis(serving), Duration::from_millis(whole));
        let mut row = Row { serving, whole, acked, ..Row::empty("disk-full", 1, limits) };
        row.judge(checks);
        row.broken
    }

    /// A row fails by each limit alone, by a check alone, by having shown nothing, and by nothing else.
    #[test]
    fn rows_fail_by_their_limits() {
        assert_eq!(broken(10_000, 60_000, 1, &[]), Vec::<String>::new());
        assert_eq!(broken(10_001, 1, 1, &[]).len(), 1);
        assert_eq!(broken(1, 60_001, 1, &[]).len(), 1);
        assert_eq!(broken(1, 1, 0, &[]), ["nothing was acknowledged"]);
        let check = Check::of("every fetch gives records", false, "2 of 9 did not".to_owned());
        assert_eq!(broken(1, 1, 1, &[check]), ["every fetch gives records: 2 of 9 did not"]);
    }
}
