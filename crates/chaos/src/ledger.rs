//! The controllers' own account of failovers, asked with the command line: where the time of a slow one went.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::Deserialize;
use tokio::process::Command;

use crate::error::ChaosError;

/// Events asked for: more than one injection makes.
const LIMIT: &str = "20";

/// What befell the cluster, as `holdfast cluster events --format json` tells it; only what is used of it.
#[derive(Debug, Deserialize)]
struct Events {
    events: Vec<Event>,
}

#[derive(Debug, Deserialize)]
struct Event {
    kind: String,
    at_ms: i64,
    #[serde(default)]
    zone: String,
    #[serde(default)]
    partitions: u64,
    detected_ms: Option<f64>,
    appointed_ms: Option<f64>,
    recovered: Option<Times>,
    writable: Option<Times>,
    elected_ms: Option<f64>,
    applied_ms: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Times {
    max_ms: f64,
}

/// What the controllers said of one injection.
#[derive(Debug)]
pub(crate) struct Account {
    /// All of it.
    pub(crate) file: PathBuf,
    /// A line an event, oldest first.
    pub(crate) lines: Vec<String>,
}

/// Asks for what happened since a moment, in milliseconds since 1970, and keeps the answer in a file; none where the
/// binary, or the cluster, gives no account.
pub(crate) async fn ask(
    binary: &Path,
    bootstrap: &[String],
    since_ms: i64,
    file: PathBuf,
) -> Result<Option<Account>, ChaosError> {
    let mut command = Command::new(binary);
    command.args(["cluster", "events", "-n", LIMIT, "--format", "json"]);
    command.args(["--bootstrap", &bootstrap.join(",")]);
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.map_err(ChaosError::io("asking for cluster events"))?;
    let Ok(told) = serde_json::from_slice::<Events>(&output.stdout) else { return Ok(None) };
    let written = tokio::fs::write(&file, &output.stdout).await;
    written.map_err(ChaosError::io(format!("writing {}", file.display())))?;
    let events = told.events.iter().rev().filter(|event| event.at_ms >= since_ms);
    Ok(Some(Account { file, lines: events.filter_map(line).collect() }))
}

/// What an event says of time; nothing of events that take none.
fn line(event: &Event) -> Option<String> {
    let steps = match event.kind.as_str() {
        "election" => vec![("elected", event.elected_ms), ("first entry applied", event.applied_ms)],
        "failover" => vec![
            ("detected", event.detected_ms),
            ("appointed", event.appointed_ms),
            ("recovered", event.recovered.as_ref().map(|times| times.max_ms)),
            ("writable", event.writable.as_ref().map(|times| times.max_ms)),
        ],
        _ => return None,
    };
    let shown = |ms: Option<f64>| ms.map_or_else(|| "not seen".to_owned(), |ms| format!("{ms:.0} ms"));
    let steps: Vec<_> = steps.into_iter().map(|(name, ms)| format!("{name} {}", shown(ms))).collect();
    let what = match event.partitions {
        0 => event.kind.clone(),
        partitions => format!("{} of {partitions} partitions of zone {}", event.kind, event.zone),
    };
    Some(format!("{what}: {}", steps.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The steps of a failover are told in their order, and what was not seen is not made up.
    #[test]
    fn a_failover_in_one_line() {
        let text = r#"{"v":1,"events":[
            {"kind":"failover","at_ms":7,"zone":"b","partitions":4,"detected_ms":100.4,"appointed_ms":120,
             "recovered":{"count":4,"p50_ms":1,"p99_ms":2,"max_ms":140.2}},
            {"kind":"registered","at_ms":8}]}"#;
        let told: Events = serde_json::from_str(text).unwrap();
        let lines: Vec<_> = told.events.iter().filter_map(line).collect();
        assert_eq!(
            lines,
            ["failover of 4 partitions of zone b: detected 100 ms, appointed 120 ms, recovered 140 ms, \
              writable not seen"]
        );
    }
}
