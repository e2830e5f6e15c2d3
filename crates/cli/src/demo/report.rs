//! What a demo says at its end.

use serde::Serialize;

use holdfast_checker::{Findings, Kind, Verdict};

/// The outcome, as the last line of stdout has it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Whether something was acknowledged, everything was read back, and the checker found every promise kept.
    pub ok: bool,
    /// What the checker says of the history.
    pub verdict: Verdict,
    /// What it found, by name, with examples.
    pub anomalies: Findings,
    /// Records acknowledged.
    pub acked: u64,
    /// Records read back at the end.
    pub read_back: u64,
    /// Acknowledged, or seen by a reader, and not there any more.
    pub lost: u64,
    /// There more than once.
    pub duplicated: u64,
    /// Records whose outcome the producer did not learn.
    pub unknown: u64,
    /// Records refused for certain.
    pub failed: u64,
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
        judged: holdfast_checker::Report,
        read_back: u64,
        throughput_mb_s: f64,
        ack_ms: [f64; 3],
        failovers: Vec<Failover>,
    ) -> Report {
        let values = judged.counts.values;
        let found = |kinds: &[Kind]| kinds.iter().map(|&kind| judged.anomalies.count(kind)).sum();
        Report {
            ok: values.acked > 0 && judged.valid,
            acked: values.acked,
            read_back,
            lost: found(&[Kind::LostWrite, Kind::Unseen, Kind::PrecommittedRead]),
            duplicated: found(&[Kind::Duplicate]),
            unknown: values.unknown,
            failed: values.failed,
            throughput_mb_s: rounded(throughput_mb_s),
            ack_ms: Latency { p50: rounded(ack_ms[0]), p99: rounded(ack_ms[1]), p999: rounded(ack_ms[2]) },
            failovers,
            verdict: judged.verdict,
            anomalies: judged.anomalies,
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
        for (kind, finding) in self.anomalies.iter() {
            text.push_str(&format!("\n{} {kind}", finding.count));
            if let Some(example) = finding.examples.first() {
                text.push_str(&format!(", such as {example}"));
            }
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
    use holdfast_checker::history::{PollStage, SendStage};
    use holdfast_checker::{Checker, Event};

    use super::*;

    /// What is said of three records at one partition of which so many were read back.
    fn report(acked: u64, read: u64) -> Report {
        let mut checker = Checker::new();
        let (key, mut lines) = ("demo/0".into(), 0);
        let mut take = |event: Event| {
            lines += 1;
            checker.observe(lines, &event).unwrap();
        };
        for op in 0..acked {
            let send = |stage| Event::send(op, 1, op, &key, vec![op], stage);
            take(send(SendStage::Invoke { deadline_us: None }));
            take(send(SendStage::Ok { base_offset: op, epoch: None }));
        }
        take(Event::begin_final(9));
        take(Event::poll(9, 2, 0, &key, PollStage::Invoke));
        let records = (0..read).map(|offset| (offset, offset)).collect();
        take(Event::poll(9, 2, 0, &key, PollStage::Ok { records, high_watermark: None }));
        Report::new(checker.finish(), read, 1.0, [1.0; 3], Vec::new())
    }

    #[test]
    fn the_checker_says_whether_a_run_is_ok() {
        assert!(report(3, 3).ok);
        assert!(!report(0, 0).ok, "nothing was acknowledged");
        let lossy = report(3, 2);
        assert_eq!((lossy.ok, lossy.lost, lossy.verdict), (false, 1, Verdict::Invalid));
        assert!(lossy.to_text().contains("1 unseen, such as demo/0 offset 2 value 2"), "{}", lossy.to_text());
        assert_eq!(serde_json::to_value(&lossy).unwrap()["anomalies"]["unseen"]["count"], 1);
    }

    #[test]
    fn recovery_times_by_rank() {
        let times = RecoveryTime::of(vec![400.0, 100.0, 300.0, 200.0]);
        assert_eq!(times, RecoveryTime { p50: 200.0, p99: 400.0, max: 400.0 });
        assert_eq!(RecoveryTime::of(Vec::new()), RecoveryTime::default());
    }
}
