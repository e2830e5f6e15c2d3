//! `holdfast topic`.

mod alter;
mod create;
mod delete;
mod describe;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use holdfast_core::compaction::Compaction;
use holdfast_core::metadata::{ClusterMap, Durability, Topic};
use holdfast_core::retention::Retention;
use holdfast_core::{BrokerId, ErrorCode};
use holdfast_proto::ApiError;
use serde_json::{Value, json};

use super::connect::connect;
use super::human::bytes;
use crate::args::{Format, Global, TopicCommand};
use crate::exit::{self, CliError};
use crate::output::{print_json, print_table, table};

pub(crate) async fn run(global: &Global, command: TopicCommand) -> Result<ExitCode, CliError> {
    match command {
        TopicCommand::Create(args) => create::run(global, args).await,
        TopicCommand::Ls => list(global).await,
        TopicCommand::Describe { name } => describe::run(global, &name).await,
        TopicCommand::Alter(args) => alter::run(global, args).await,
        TopicCommand::Delete { name, yes } => delete::run(global, &name, yes).await,
    }
}

async fn list(global: &Global) -> Result<ExitCode, CliError> {
    let map = connect(global).await?.map();
    let mut topics: Vec<&Topic> = map.topics().filter(|topic| !topic.deleted).collect();
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    match global.format {
        Format::Json => {
            let topics: Vec<Value> = topics.into_iter().map(|topic| facts(&map, topic)).collect();
            print_json(&json!({ "v": 1, "topics": topics }))?;
        }
        Format::Text => {
            let mut rows = table(&["NAME", "PARTITIONS", "REPLICATION", "DURABILITY", "ZONES", "ID"]);
            for topic in topics {
                rows.add_row([
                    topic.name.clone(),
                    topic.spec.partitions.to_string(),
                    topic.spec.replication.to_string(),
                    durability(topic.spec.durability).to_owned(),
                    zones(&map, topic).join(" "),
                    topic.id.to_string(),
                ]);
            }
            print_table(&rows)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What a topic is, for programs.
fn facts(map: &ClusterMap, topic: &Topic) -> Value {
    json!({
        "name": topic.name,
        "id": topic.id.to_string(),
        "partitions": topic.spec.partitions,
        "replication": topic.spec.replication,
        "durability": durability(topic.spec.durability),
        "zone_waiver": topic.spec.zone_waiver,
        "retention_ms": topic.spec.retention.time_ms,
        "retention_bytes": topic.spec.retention.bytes,
        "compaction": topic.spec.compaction.map(compaction_facts),
        "zones": zones(map, topic),
    })
}

/// The zones that hold a replica of it.
fn zones(map: &ClusterMap, topic: &Topic) -> Vec<String> {
    let replicas = map.partitions_of(topic.id).flat_map(|partition| &partition.register.set);
    let zones: BTreeSet<String> = replicas.map(|replica| zone_of(map, replica.broker)).collect();
    zones.into_iter().collect()
}

fn zone_of(map: &ClusterMap, broker: BrokerId) -> String {
    map.broker(broker).map_or_else(|| "?".to_owned(), |broker| broker.zone.to_string())
}

fn durability(durability: Durability) -> &'static str {
    match durability {
        Durability::Disk => "disk",
        Durability::Memory => "memory",
    }
}

/// How much of a topic is kept, in words.
fn retention(retention: Retention) -> String {
    let time = retention.time_ms.map(|ms| humantime::format_duration(Duration::from_millis(ms)).to_string());
    let size = retention.bytes.map(|size| format!("{} of each partition", bytes(size)));
    match (time, size) {
        (None, None) => "unlimited".to_owned(),
        (Some(limit), None) | (None, Some(limit)) => limit,
        (Some(time), Some(size)) => format!("{time} or {size}, whichever is less"),
    }
}

/// How a topic is compacted, for programs.
fn compaction_facts(compaction: Compaction) -> Value {
    json!({
        "tombstone_delay_ms": compaction.tombstone_delay_ms,
        "min_dirty_percent": compaction.min_dirty_percent,
    })
}

/// How a topic is compacted, in words.
fn compaction(compaction: Option<Compaction>) -> String {
    let Some(Compaction { tombstone_delay_ms, min_dirty_percent }) = compaction else {
        return "none".to_owned();
    };
    let delay = humantime::format_duration(Duration::from_millis(tombstone_delay_ms));
    format!("last record of each key, when {min_dirty_percent}% is new; tombstones stay {delay}")
}

/// A time in milliseconds.
fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What an acknowledgement by this topic means.
fn promise(topic: &Topic) -> String {
    let majority = holdfast_core::metadata::majority(topic.spec.replication as usize);
    let place = match (topic.spec.zone_waiver, majority) {
        (true, 1) => "by one replica; it does not survive the loss of that replica's zone".to_owned(),
        (true, _) => format!("by {majority} replicas; zones were waived"),
        (false, _) => format!("in {majority} zones"),
    };
    match topic.spec.durability {
        Durability::Disk => format!("acknowledged means flushed to disk {place}"),
        Durability::Memory => {
            format!("acknowledged means held in memory {place}; on disk within the brokers' flush-interval")
        }
    }
}

/// An error of a change. The brokers could be reached before: silence is now the controllers'.
fn change_failed(what: String, name: &str, error: &ApiError) -> CliError {
    let mut failed = CliError::api(what, error);
    if error.code.is_indefinite() {
        failed.next = format!(
            "the outcome is unknown: see `holdfast topic describe {name}`, and `holdfast cluster status` for the controllers"
        );
        failed.exit = if error.code == ErrorCode::Unavailable { exit::RETRY } else { failed.exit };
    }
    failed
}

fn unknown(what: String, name: &str) -> CliError {
    let message = format!("no topic is called {name:?}");
    CliError::api(what, &ApiError::new(ErrorCode::UnknownTopic, message))
}
