//! A report for people. The last line is the verdict.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use crate::anomaly::{Example, Place};
use crate::figures::Quantiles;
use crate::report::{Ends, Report, Verdict};

/// Faults shown one by one; more only in the sum.
const FAULTS: usize = 30;

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.write_counts(f)?;
        self.write_times(f)?;
        self.write_anomalies(f)?;
        for reason in &self.not_judged {
            writeln!(f, "not judged  {reason}")?;
        }
        f.write_str(&self.summary())
    }
}

impl Report {
    /// The verdict in one line: `valid`, `INVALID: 2 lost-write, 1 duplicate`, or `INCOMPLETE: reason`.
    pub fn summary(&self) -> String {
        match self.verdict {
            Verdict::Valid => "valid".to_owned(),
            Verdict::Incomplete => format!("INCOMPLETE: {}", self.not_judged.join("; ")),
            Verdict::Invalid => {
                let found = self.anomalies.iter().map(|(kind, finding)| format!("{} {kind}", finding.count));
                format!("INVALID: {}", found.collect::<Vec<_>>().join(", "))
            }
        }
    }

    fn write_counts(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        writeln!(f, "history     {} events, {} keys", counts.events, counts.keys)?;
        write_ends(f, "sends", &counts.sends)?;
        let values = &counts.values;
        writeln!(
            f,
            "values      {} acknowledged, {} failed for certain, {} unknown",
            values.acked, values.failed, values.unknown
        )?;
        write_ends(f, "polls", &counts.polls)?;
        writeln!(f, "            {} records shown", counts.records_shown)?;
        let errors = &counts.errors;
        write_codes(f, "send fail", &errors.send_fail)?;
        write_codes(f, "send info", &errors.send_info)?;
        write_codes(f, "poll fail", &errors.poll_fail)?;
        write_codes(f, "poll info", &errors.poll_info)
    }

    fn write_times(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "lag         {}", Times(&self.lag.overall))?;
        let rto = &self.rto;
        writeln!(f, "quiet gap   p99.9 {} ms of {}", Millis(rto.quiet_p999_us), rto.quiet_gaps)?;
        for (fault, lag) in rto.faults.iter().zip(&self.lag.faults).take(FAULTS) {
            let (name, lag) = (&fault.fault.name, Times(&lag.lag));
            writeln!(f, "fault       {name}: gap {}; lag {lag}", Times(&fault.raw))?;
        }
        if rto.faults.len() > FAULTS {
            writeln!(f, "            {} more faults", rto.faults.len() - FAULTS)?;
        }
        if !rto.faults.is_empty() {
            writeln!(f, "RTO         {} (raw {})", Times(&rto.corrected), Times(&rto.raw))?;
        }
        Ok(())
    }

    fn write_anomalies(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (kind, finding) in self.anomalies.iter() {
            writeln!(f, "{kind}: {}", finding.count)?;
            for example in &finding.examples {
                writeln!(f, "  {example}")?;
            }
        }
        Ok(())
    }
}

fn write_ends(f: &mut Formatter<'_>, name: &str, ends: &Ends) -> fmt::Result {
    let Ends { begun, ok, fail, info, unanswered } = ends;
    writeln!(f, "{name:<12}{begun} begun: {ok} ok, {fail} fail, {info} info, {unanswered} unanswered")
}

fn write_codes(f: &mut Formatter<'_>, name: &str, codes: &BTreeMap<String, u64>) -> fmt::Result {
    if codes.is_empty() {
        return Ok(());
    }
    let codes: Vec<String> = codes.iter().map(|(code, count)| format!("{count} {code}")).collect();
    writeln!(f, "{name:<12}{}", codes.join(", "))
}

struct Millis(u64);

impl Display for Millis {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1}", self.0 as f64 / 1000.0)
    }
}

struct Times<'a>(&'a Quantiles);

impl Display for Times<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Quantiles { count, p50_us, p99_us, max_us } = *self.0;
        if count == 0 {
            return f.write_str("none measured");
        }
        write!(
            f,
            "p50 {} ms, p99 {} ms, max {} ms of {count}",
            Millis(p50_us),
            Millis(p99_us),
            Millis(max_us)
        )
    }
}

impl Display for Example {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Example { key, offset, value, place, detail, mentions } = self;
        f.write_str(key)?;
        if let Some(offset) = offset {
            write!(f, " offset {offset}")?;
        }
        if let Some(value) = value {
            write!(f, " value {value}")?;
        }
        write!(f, ": {detail}")?;
        if let Some(Place { line, process, op }) = place {
            write!(f, " (line {line}, process {process}, op {op})")?;
        }
        if !mentions.is_empty() {
            let lines: Vec<String> = mentions.iter().map(|place| place.line.to_string()).collect();
            write!(f, "; see lines {}", lines.join(", "))?;
        }
        Ok(())
    }
}
