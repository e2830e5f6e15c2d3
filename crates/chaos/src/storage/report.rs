//! The table of storage faults: for people, for programs, and for the documents.

use std::time::Duration;

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde_json::{Value, json};

use crate::report::Marks;
use crate::storage::row::Row;

/// Between these lines of a document the table stands.
pub(crate) const MARKS: Marks = Marks {
    begin: "<!-- holdfast-chaos: storage table begins -->",
    end: "<!-- holdfast-chaos: storage table ends -->",
};

const HEADINGS: [&str; 12] = [
    "Fault",
    "Injections",
    "Acked",
    "Lost",
    "Other anomalies",
    "Refused",
    "Longest gap ms",
    "Elsewhere ms",
    "Serving again ms",
    "Whole again ms",
    "What happened",
    "Verdict",
];

/// What the numbers mean.
const LEGEND: &str = "Gaps are between two acknowledgements of a partition, from the fault until all was whole again: of \
those led where it struck, and of all others. Serving again: until every partition acknowledged, from when the power was \
back (power-all) or space was (disk-full, write-enospc); until everything was led elsewhere, from the first flush that failed \
(flush-eio) or the moment that space was gone (lost-writeback); the longest that a change of a topic took \
(controller-disk-full); otherwise the longest gap. Whole again: until every replica \
was in sync and mended, from when power, space or a working disk was there, or the last bit was turned.";

fn cells(row: &Row) -> [String; 12] {
    let ms = |duration: Duration| duration.as_millis().to_string();
    let limited = |took: Duration, limit: Duration| format!("{} (limit {})", ms(took), ms(limit));
    [
        row.fault.to_owned(),
        row.injections.to_string(),
        row.acked.to_string(),
        row.verdict.lost.to_string(),
        row.verdict.other_count().to_string(),
        row.refused.to_string(),
        ms(row.gap),
        ms(row.elsewhere),
        limited(row.serving, row.limits.serving),
        limited(row.whole, row.limits.whole),
        if row.told.is_empty() { "-".to_owned() } else { row.told.join("; ") },
        verdict(row),
    ]
}

fn verdict(row: &Row) -> String {
    match &row.not_run {
        Some(why) => format!("NOT RUN: {why}"),
        None if row.broken.is_empty() => "passed".to_owned(),
        None => format!("FAILED: {}", row.broken.join("; ")),
    }
}

/// For people.
pub(crate) fn text(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(HEADINGS);
    for row in rows {
        table.add_row(cells(row));
    }
    format!("{table}\n{LEGEND}")
}

/// For programs.
pub(crate) fn json(rows: &[Row]) -> Value {
    let row = |row: &Row| {
        let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
        json!({
            "fault": row.fault,
            "seed": row.seed,
            "injections": row.injections,
            "acked": row.acked,
            "lost": row.verdict.lost,
            "anomalies": row.verdict.others,
            "refused": row.refused,
            "gap_max_ms": ms(row.gap),
            "elsewhere_max_ms": ms(row.elsewhere),
            "serving_max_ms": ms(row.serving),
            "serving_limit_ms": ms(row.limits.serving),
            "whole_max_ms": ms(row.whole),
            "whole_limit_ms": ms(row.limits.whole),
            "told": row.told,
            "broken": row.broken,
            "not_run": row.not_run,
        })
    };
    json!({ "v": 1, "rows": rows.iter().map(row).collect::<Vec<_>>() })
}

/// For the documents.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut table = line(&HEADINGS.map(str::to_owned));
    table.push_str(&line(&HEADINGS.map(|_| "---".to_owned())));
    rows.iter().for_each(|row| table.push_str(&line(&cells(row))));
    format!("{table}\n{LEGEND}\n")
}

/// How many rows passed, failed, and were not run.
pub(crate) fn counts(rows: &[Row]) -> (usize, usize, usize) {
    let not_run = rows.iter().filter(|row| row.not_run.is_some()).count();
    let failed = rows.iter().filter(|row| !row.broken.is_empty()).count();
    (rows.len() - failed - not_run, failed, not_run)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::row::Limits;

    /// A row that was not run is neither passed nor failed, in the table and in the counts.
    #[test]
    fn what_was_not_run_is_told_as_such() {
        let limits = Limits { serving: Duration::from_secs(1), whole: Duration::from_secs(60) };
        let row = |broken: &[&str], not_run: Option<&str>| Row {
            broken: broken.iter().map(|&broken| broken.to_owned()).collect(),
            not_run: not_run.map(str::to_owned),
            ..Row::empty("flush-eio", 1, limits)
        };
        let rows = [row(&[], None), row(&["2 acknowledged records lost"], None), row(&[], Some("no strace"))];
        assert_eq!(counts(&rows), (1, 1, 1));
        let table = markdown(&rows);
        assert!(table.contains("| passed |"), "{table}");
        assert!(table.contains("| FAILED: 2 acknowledged records lost |"), "{table}");
        assert!(table.contains("| NOT RUN: no strace |"), "{table}");
        assert_eq!(table.lines().next().map(|line| line.matches('|').count()), Some(HEADINGS.len() + 1));
    }
}
