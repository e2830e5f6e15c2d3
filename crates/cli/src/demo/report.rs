//! What a demo says at its end.

use serde::Serialize;

use super::ledger::Totals;

/// The outcome, as the last line of stdout has it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Whether every promise was kept.
    pub ok: bool,
    /// Records acknowledged.
    pub acked: u64,
    /// Different records read back at the end.
    pub read_back: u64,
    /// Acknowledged, or seen by a reader, and not read back.
    pub lost: u64,
    /// Read back more than once.
    pub duplicated: u64,
    /// Records whose outcome the producer did not learn.
    pub unknown: u64,
    /// Records refused for certain.
    pub failed: u64,
    /// Records refused for certain that are there all the same.
    pub resurrected: u64,
    /// Records that came back out of order.
    pub disordered: u64,
    /// Acknowledged megabytes per second over the run.
    pub throughput_mb_s: f64,
    /// Acknowledgement latency of records.
    pub ack_ms: Latency,
    /// One for every zone that was killed, in order.
    pub failovers: Vec<Failover>,
}

/// Quantiles in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// Of a hundred records 99 were faster.
    pub p99: f64,
    /// Of a thousand records 999 were faster.
    pub p999: f64,
}

/// What a lost zone cost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Failover {
    /// The zone.
    pub zone: String,
    /// Over the partitions that were led there: the longest gap between two acknowledgements that overlaps the fault,
    /// less the gap that was exceeded once in a thousand before it.
    pub rto_ms: RecoveryTime,
    /// The gap that was exceeded once in a thousand before the fault: what `rto_ms` leaves out.
    pub quiet_gap_ms: f64,
    /// How many partitions were led there.
    pub moved: usize,
    /// Over all other partitions: the longest gap that overlaps the fault.
    pub unaffected_gap_ms_max: f64,
}

/// Recovery times over partitions, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct RecoveryTime {
    /// Median.
    pub p50: f64,
    /// Of a hundred partitions 99 were faster; the slowest where there are fewer.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
}

impl RecoveryTime {
    pub(crate) fn of(mut millis: Vec<f64>) -> RecoveryTime {
        millis.sort_by(f64::total_cmp);
        let at = |quantile: f64| {
            let rank = (quantile * millis.len() as f64).ceil() as usize;
            millis.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
        };
        RecoveryTime { p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

impl Report {
    pub(super) fn new(
        totals: Totals,
        throughput_mb_s: f64,
        ack_ms: [f64; 3],
        failovers: Vec<Failover>,
    ) -> Report {
        let Totals { acked, failed, unknown, read_back, lost, duplicated, resurrected, disordered } = totals;
        Report {
            ok: acked > 0 && lost + duplicated + resurrected + disordered == 0,
            acked,
            read_back,
            lost,
            duplicated,
            unknown,
            failed,
            resurrected,
            disordered,
            throughput_mb_s: rounded(throughput_mb_s),
            ack_ms: Latency { p50: rounded(ack_ms[0]), p99: rounded(ack_ms[1]), p999: rounded(ack_ms[2]) },
            failovers,
        }
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "{}  acked {}  read back {}  lost {}  duplicated {}  unknown {}  failed {}\n\
             throughput {} MB/s  ack p50 {} ms  p99 {} ms  p99.9 {} ms",
            if self.ok { "OK" } else { "BROKEN" },
            self.acked,
            self.read_back,
            self.lost,
            self.duplicated,
            self.unknown,
            self.failed,
            self.throughput_mb_s,
            self.ack_ms.p50,
            self.ack_ms.p99,
            self.ack_ms.p999,
        );
        for failover in &self.failovers {
            let RecoveryTime { p50, p99, max } = failover.rto_ms;
            text.push_str(&format!(
                "\nzone {} lost: {} partitions moved, RTO p50 {p50} ms  p99 {p99} ms  max {max} ms, RPO {} records; \
                 elsewhere the longest gap was {} ms",
                failover.zone, failover.moved, self.lost, failover.unaffected_gap_ms_max
            ));
        }
        text
    }
}

/// Three digits behind the point are more than any of these figures is worth.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_without_acknowledgements_is_not_ok() {
        assert!(!Report::new(Totals::default(), 0.0, [0.0; 3], Vec::new()).ok);
        let totals = Totals { acked: 5, read_back: 5, ..Totals::default() };
        assert!(Report::new(totals, 1.0, [1.0; 3], Vec::new()).ok);
        assert!(!Report::new(Totals { lost: 1, ..totals }, 1.0, [1.0; 3], Vec::new()).ok);
        assert!(!Report::new(Totals { duplicated: 1, ..totals }, 1.0, [1.0; 3], Vec::new()).ok);
    }

    #[test]
    fn recovery_times_by_rank() {
        let times = RecoveryTime::of(vec![400.0, 100.0, 300.0, 200.0]);
        assert_eq!(times, RecoveryTime { p50: 200.0, p99: 400.0, max: 400.0 });
        assert_eq!(RecoveryTime::of(Vec::new()), RecoveryTime::default());
    }
}
