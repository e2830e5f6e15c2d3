//! The table of a run: for people, for programs, and for the documents.

use std::fs;
use std::path::Path;
use std::time::Duration;

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde_json::{Value, json};

use crate::error::ChaosError;
use crate::measure::row::Row;

/// Lines of a document, between which a table stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Marks {
    pub(crate) begin: &'static str,
    pub(crate) end: &'static str,
}

/// Those of failovers.
pub(crate) const MARKS: Marks =
    Marks { begin: "<!-- holdfast-chaos: table begins -->", end: "<!-- holdfast-chaos: table ends -->" };

const HEADINGS: [&str; 13] = [
    "Fault",
    "Setting",
    "Injections",
    "Acked",
    "Lost",
    "Other anomalies",
    "RTO n",
    "p50 ms",
    "p99 ms",
    "max ms",
    "Elsewhere max ms",
    "Limits ms",
    "Verdict",
];

fn cells(row: &Row) -> [String; 13] {
    let ms = |duration: Duration| duration.as_millis().to_string();
    let struck =
        |quantile: f64| if row.moved.len() == 0 { "-".to_owned() } else { ms(row.moved.at(quantile)) };
    [
        row.fault.to_owned(),
        row.setting.to_owned(),
        row.injections.to_string(),
        row.acked.to_string(),
        row.verdict.lost.to_string(),
        row.verdict.other_count().to_string(),
        row.moved.len().to_string(),
        struck(0.5),
        struck(0.99),
        struck(1.0),
        ms(row.elsewhere),
        limits(row),
        if row.broken.is_empty() {
            "passed".to_owned()
        } else {
            format!("FAILED: {}", row.broken.join("; "))
        },
    ]
}

fn limits(row: &Row) -> String {
    let recovery = row.limits.recovery_p99.map(|limit| format!("p99 < {}", limit.as_millis()));
    let elsewhere = row.limits.elsewhere_max.map(|limit| format!("elsewhere < {}", limit.as_millis()));
    let limits: Vec<_> = recovery.into_iter().chain(elsewhere).collect();
    if limits.is_empty() { "-".to_owned() } else { limits.join(", ") }
}

/// What the numbers mean.
pub(crate) fn legend(rows: &[Row]) -> String {
    let quiet = rows.iter().map(|row| row.quiet).max().unwrap_or_default();
    format!(
        "RTO is the longest gap between two acknowledgements of a partition led where the fault struck, as measured by a \
         probe every 20 ms; where nothing can be led (no controllers, two zones), the time from the moment that it could \
         again. Without a fault one gap in a thousand is longer than {} ms at most; nothing is taken off for that.",
        quiet.as_millis()
    )
}

/// For people.
pub(crate) fn text(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(HEADINGS);
    for row in rows {
        table.add_row(cells(row));
    }
    format!("{table}\n{}{}", legend(rows), accounts(rows))
}

/// Where the time of injections over a limit went.
fn accounts(rows: &[Row]) -> String {
    let lines: String = rows.iter().flat_map(|row| &row.accounts).map(|line| format!("\n- {line}")).collect();
    if lines.is_empty() {
        return lines;
    }
    format!("\n\nInjections over a limit, as the controllers account for them, from the fault on:\n{lines}")
}

/// For programs.
pub(crate) fn json(rows: &[Row]) -> Value {
    let row = |row: &Row| {
        let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
        json!({
            "fault": row.fault,
            "setting": row.setting,
            "seed": row.seed,
            "injections": row.injections,
            "acked": row.acked,
            "lost": row.verdict.lost,
            "anomalies": row.verdict.others,
            "recovery_ms": {
                "n": row.moved.len(),
                "p50": ms(row.moved.at(0.5)),
                "p99": ms(row.moved.at(0.99)),
                "max": ms(row.moved.max()),
                "limit_p99": row.limits.recovery_p99.map(ms),
            },
            "quiet_gap_p999_ms": ms(row.quiet),
            "elsewhere_max_ms": ms(row.elsewhere),
            "elsewhere_limit_ms": row.limits.elsewhere_max.map(ms),
            "healing_max_ms": ms(row.heal),
            "broken": row.broken,
            "over_limit": row.accounts,
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
    format!("{table}\n{}{}\n", legend(rows), accounts(rows))
}

/// Puts the table into a document, in the place of the one before.
pub(crate) fn update(file: &Path, marks: Marks, table: &str) -> Result<(), ChaosError> {
    let before = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(source) => return Err(ChaosError::Io { what: format!("reading {}", file.display()), source }),
    };
    fs::write(file, replaced(&before, marks, table))
        .map_err(ChaosError::io(format!("writing {}", file.display())))
}

fn replaced(document: &str, marks: Marks, table: &str) -> String {
    let Marks { begin, end } = marks;
    let marked = format!("{begin}\n{table}{end}\n");
    let end = document.find(end).map(|at| at + end.len() + 1);
    let begin = document.find(begin);
    match (begin, end) {
        (Some(begin), Some(end)) if begin < end => {
            let rest = document.get(end..).unwrap_or_default();
            format!("{}{marked}{rest}", &document[..begin])
        }
        _ => format!("{document}{marked}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only what stands between the marks changes, however often a run is told, and whatever other tables there are.
    #[test]
    fn a_document_keeps_what_is_not_the_table() {
        let other = Marks { begin: "<!-- other begins -->", end: "<!-- other ends -->" };
        let once = replaced("# Title\n\nbefore\n", MARKS, "first\n");
        let document = replaced(&format!("{once}\nafter\n"), other, "other\n");
        let twice = replaced(&document, MARKS, "second\n");
        let Marks { begin, end } = MARKS;
        let table = format!("{begin}\nsecond\n{end}");
        let expected =
            format!("# Title\n\nbefore\n{table}\n\nafter\n{}\nother\n{}\n", other.begin, other.end);
        assert_eq!(twice, expected);
    }
}
