//! `holdfast topic delete`: says what goes, and asks.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use holdfast_client::Client;
use holdfast_core::metadata::Topic;
use serde_json::json;

use super::{change_failed, unknown};
use crate::args::{Format, Global};
use crate::commands::connect::connect;
use crate::commands::human::bytes;
use crate::exit::{self, CliError};
use crate::output::{print_json, print_line};

pub(super) async fn run(global: &Global, name: &str, yes: bool) -> Result<ExitCode, CliError> {
    let what = || format!("deleting topic {name:?}");
    let interactive = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if !yes && !interactive {
        let why = "nobody can be asked: this is not a terminal";
        return Err(CliError::new(exit::USAGE, what(), why, "add --yes to delete it and all its records"));
    }
    let client = connect(global).await?;
    let map = client.map();
    let topic = map.topic_named(name).ok_or_else(|| unknown(what(), name))?;
    eprintln!("{}", plan(&client, topic).await);
    if !yes && !confirmed() {
        eprintln!("nothing was deleted");
        return Ok(ExitCode::SUCCESS);
    }
    client.delete_topic(name).await.map_err(|error| change_failed(what(), name, &error))?;
    match global.format {
        Format::Json => print_json(&json!({ "v": 1, "deleted": name, "id": topic.id.to_string() }))?,
        Format::Text => print_line(&format!("deleted {name}  id {}", topic.id))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What is about to go. A partition whose leader does not answer goes all the same.
async fn plan(client: &Client, topic: &Topic) -> String {
    let head = format!("topic {} (id {}) with {} partitions", topic.name, topic.id, topic.spec.partitions);
    match client.describe_partitions(Some(&topic.name)).await {
        Ok(states) => {
            let records =
                states.iter().map(|state| state.high_watermark.saturating_sub(state.log_start_offset));
            let size = states.iter().map(|state| state.size_bytes);
            let (records, size): (u64, u64) = (records.sum(), size.sum());
            format!("{head}, {records} records, {} per replica, will be deleted for good", bytes(size))
        }
        Err(_) => format!("{head} and all its records will be deleted for good"),
    }
}

fn confirmed() -> bool {
    eprint!("Continue? [y/N] ");
    let mut answer = String::new();
    // Where nothing can be written or read, nothing was confirmed.
    let asked = std::io::stderr().flush().and_then(|()| std::io::stdin().read_line(&mut answer));
    asked.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}
