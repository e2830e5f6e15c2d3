//! What one injection cost, and all injections of a fault together.

use std::time::Duration;

use crate::clock::Micros;
use crate::faults::{Check, Limits, Struck};
use crate::judge::Verdict;
use crate::load::Load;
use crate::measure::gaps::{Window, longest, quantile, quiet_p999};

/// What one injection cost.
#[derive(Debug)]
pub(crate) struct Cost {
    /// Longest gap of each partition that was led where the fault struck.
    pub(crate) moved: Vec<Duration>,
    /// Longest gap of all others.
    pub(crate) elsewhere: Duration,
    /// Longest gap of any while it was healed.
    pub(crate) heal: Duration,
    /// How late the runner itself was at worst: that much of every gap may be its own.
    pub(crate) late: Duration,
    pub(crate) checks: Vec<Check>,
    /// All of it, healing included.
    pub(crate) window: Window,
}

impl Cost {
    /// Measures an injection that is over.
    pub(crate) fn of(struck: Struck, load: &Load) -> Cost {
        let gap = |partition: u32, window| longest(&load.acks.of(partition), window);
        let recovery = |partition: u32| match struck.back_since {
            Some(since) => back_after(load, partition, since, struck.fault.to),
            None => gap(partition, struck.fault),
        };
        let others = (0..load.partitions).filter(|partition| !struck.moved.contains(partition));
        let elsewhere = others.map(|partition| gap(partition, struck.elsewhere)).max().unwrap_or_default();
        let all = |window| (0..load.partitions).map(|partition| gap(partition, window)).max();
        let window = struck.whole();
        Cost {
            moved: struck.moved.iter().map(|partition| recovery(*partition)).collect(),
            elsewhere,
            heal: struck.heal.and_then(all).unwrap_or_default(),
            late: load.latest_tick(struck.fault.from, struck.fault.to),
            checks: struck.checks,
            window,
        }
    }
}

/// From a moment to the first acknowledgement after it, or to the end.
fn back_after(load: &Load, partition: u32, since: Micros, end: Micros) -> Duration {
    load.acks.first_since(partition, since).unwrap_or(end).since(since)
}

/// Durations, shortest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spread(Vec<Duration>);

impl Spread {
    /// Of any durations.
    pub(crate) fn of(mut durations: Vec<Duration>) -> Spread {
        durations.sort_unstable();
        Spread(durations)
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// A percentile, by nearest rank.
    pub(crate) fn at(&self, quantile_of: f64) -> Duration {
        quantile(&self.0, quantile_of)
    }

    /// The longest.
    pub(crate) fn max(&self) -> Duration {
        self.0.last().copied().unwrap_or_default()
    }
}

/// A fault injected many times.
#[derive(Debug, Default)]
pub(crate) struct Row {
    pub(crate) fault: &'static str,
    pub(crate) setting: &'static str,
    pub(crate) seed: u64,
    pub(crate) injections: usize,
    pub(crate) acked: u64,
    pub(crate) verdict: Verdict,
    /// Gaps of partitions that were struck.
    pub(crate) moved: Spread,
    pub(crate) elsewhere: Duration,
    pub(crate) heal: Duration,
    /// 99.9th percentile of the gaps without a fault: the noise of the machine. It is taken off nothing.
    pub(crate) quiet: Duration,
    pub(crate) limits: Limits,
    /// What was broken, in words.
    pub(crate) broken: Vec<String>,
    /// What the controllers say of injections over a limit: where the time went.
    pub(crate) accounts: Vec<String>,
}

impl Row {
    /// Puts injections together.
    pub(crate) fn of(costs: &[Cost], load: &Load, verdict: Verdict, limits: Limits) -> Row {
        let faults: Vec<Window> = costs.iter().map(|cost| cost.window).collect();
        let acks: Vec<_> = (0..load.partitions).map(|partition| load.acks.of(partition)).collect();
        Row {
            injections: costs.len(),
            acked: load.acks.count(),
            verdict,
            moved: Spread::of(costs.iter().flat_map(|cost| cost.moved.iter().copied()).collect()),
            elsewhere: costs.iter().map(|cost| cost.elsewhere).max().unwrap_or_default(),
            heal: costs.iter().map(|cost| cost.heal).max().unwrap_or_default(),
            quiet: quiet_p999(&acks, &faults),
            ..Row::empty(limits)
        }
    }

    /// A row of nothing.
    pub(crate) fn empty(limits: Limits) -> Row {
        Row { limits, ..Row::default() }
    }

    /// Names everything that does not hold.
    pub(crate) fn judge(&mut self, checks: &[Check]) {
        let failed = checks.iter().filter(|check| !check.holds);
        self.broken.extend(failed.map(|check| format!("{}: {}", check.name, check.seen)));
        self.broken.extend(self.verdict.problems());
        let recovery = self.moved.at(0.99);
        if let Some(limit) = self.limits.recovery_p99.filter(|limit| recovery >= *limit) {
            self.broken.push(format!("recovery p99 {recovery:.0?}, limit {limit:?}"));
        }
        if let Some(limit) = self.limits.elsewhere_max.filter(|limit| self.elsewhere >= *limit) {
            self.broken.push(format!("gap elsewhere {:.0?}, limit {limit:?}", self.elsewhere));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(moved: u64, elsewhere: u64) -> Row {
        let ms = Duration::from_millis;
        let limits = Limits { recovery_p99: Some(ms(250)), elsewhere_max: Some(ms(100)) };
        Row { moved: Spread::of(vec![ms(20), ms(moved)]), elsewhere: ms(elsewhere), ..Row::empty(limits) }
    }

    /// A row fails by each of its limits alone, by a check alone, and by nothing else.
    #[test]
    fn rows_fail_by_their_limits() {
        for (moved, elsewhere, broken) in [(249, 99, 0), (250, 99, 1), (249, 100, 1), (400, 400, 2)] {
            let mut row = row(moved, elsewhere);
            row.judge(&[Check::of("holds", true, String::new())]);
            assert_eq!(row.broken.len(), broken, "{moved} {elsewhere}: {:?}", row.broken);
        }
        let mut row = row(30, 30);
        row.judge(&[Check::of("leaders stay", false, "one moved".to_owned())]);
        assert_eq!(row.broken, ["leaders stay: one moved"]);
    }
}
