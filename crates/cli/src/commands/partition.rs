//! `holdfast partition`: an operator's orders about single partitions.

mod recover;

use std::process::ExitCode;

use holdfast_client::Client;
use holdfast_core::metadata::{ClusterMap, Partition};
use holdfast_core::{BrokerId, ErrorCode, PartitionId};
use holdfast_proto::ApiError;
use serde_json::json;

use super::connect::connect;
use crate::args::{Format, Global, PartitionCommand, PartitionMoveArgs};
use crate::exit::{self, CliError};
use crate::output::{print_json, print_line};

pub(crate) async fn run(global: &Global, command: PartitionCommand) -> Result<ExitCode, CliError> {
    match command {
        PartitionCommand::Move(args) => move_replicas(global, args).await,
        PartitionCommand::Cancel { topic, partition } => cancel(global, &topic, partition).await,
        PartitionCommand::Lead { topic, partition, broker } => {
            lead(global, &topic, partition, BrokerId(broker)).await
        }
        PartitionCommand::Recover(args) => recover::run(global, args).await,
    }
}

async fn move_replicas(global: &Global, args: PartitionMoveArgs) -> Result<ExitCode, CliError> {
    let PartitionMoveArgs { topic, partition, to, wait } = args;
    let what = || format!("moving partition {partition} of topic {topic:?}");
    let client = connect(global).await?;
    let brokers: Vec<BrokerId> = to.iter().copied().map(BrokerId).collect();
    let ordered = client.move_replicas(&topic, partition, &brokers).await;
    ordered.map_err(|error| order_failed(what(), &topic, &error))?;
    let moved =
        if wait { wait_until_moved(global, &client, &topic, partition, &brokers).await? } else { false };
    match global.format {
        Format::Json => {
            print_json(&json!({ "v": 1, "topic": topic, "partition": partition, "to": to, "moved": moved }))?;
        }
        Format::Text if moved => {
            print_line(&format!("moved {topic} {partition}  replicas {}", list(&brokers)))?;
        }
        Format::Text => print_line(&format!(
            "moving {topic} {partition}  to {}: new replicas catch up first; see `holdfast topic describe {topic}`",
            list(&brokers)
        ))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Until the map shows the set that was asked for and nothing that is left to be done.
async fn wait_until_moved(
    global: &Global,
    client: &Client,
    topic: &str,
    index: u32,
    brokers: &[BrokerId],
) -> Result<bool, CliError> {
    let mut maps = client.watch_map();
    let arrived = |map: &ClusterMap| {
        find(map, topic, index).is_none_or(|Partition { register, .. }| {
            let there = register.set.iter().map(|replica| replica.broker).eq(brokers.iter().copied());
            there && register.prev.is_none() && register.target.is_none()
        })
    };
    let waited = tokio::time::timeout(global.timeout, maps.wait_for(|map| arrived(map))).await;
    match waited {
        Ok(_) => Ok(true),
        Err(_) => Err(CliError::new(
            exit::RETRY,
            format!("waiting for partition {index} of topic {topic:?} to move"),
            format!("it is still moving after {}", humantime::format_duration(global.timeout)),
            format!(
                "it goes on by itself: see `holdfast topic describe {topic}`, or wait with a longer --timeout"
            ),
        )),
    }
}

async fn cancel(global: &Global, topic: &str, partition: u32) -> Result<ExitCode, CliError> {
    let what = || format!("calling off the move of partition {partition} of topic {topic:?}");
    let client = connect(global).await?;
    let cancelled = client.cancel_move(topic, partition).await;
    cancelled.map_err(|error| order_failed(what(), topic, &error))?;
    match global.format {
        Format::Json => {
            print_json(&json!({ "v": 1, "topic": topic, "partition": partition, "cancelled": true }))?;
        }
        Format::Text => print_line(&format!("called off the move of {topic} {partition}"))?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn lead(global: &Global, topic: &str, partition: u32, broker: BrokerId) -> Result<ExitCode, CliError> {
    let what = || format!("appointing broker {broker} to lead partition {partition} of topic {topic:?}");
    let client = connect(global).await?;
    let appointed = client.move_leader(topic, partition, broker).await;
    let term = appointed.map_err(|error| order_failed(what(), topic, &error))?;
    match global.format {
        Format::Json => print_json(
            &json!({ "v": 1, "topic": topic, "partition": partition, "leader": broker, "term": term.0 }),
        )?,
        Format::Text => print_line(&format!("broker {broker} leads {topic} {partition}  term {term}"))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn find<'a>(map: &'a ClusterMap, topic: &str, index: u32) -> Option<&'a Partition> {
    map.partition(PartitionId { topic: map.topic_named(topic)?.id, index })
}

fn list(brokers: &[BrokerId]) -> String {
    brokers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// An order that was refused, or of which nobody knows.
fn order_failed(what: String, topic: &str, error: &ApiError) -> CliError {
    let failed = CliError::api(what, error);
    let next = match error.code {
        _ if error.code.is_indefinite() => {
            format!("the outcome is unknown: see `holdfast topic describe {topic}`")
        }
        ErrorCode::ConflictingChange => format!("see `holdfast topic describe {topic}`, and repeat"),
        ErrorCode::InvalidRequest => {
            format!(
                "see `holdfast cluster status` for brokers and zones, and `holdfast topic describe {topic}`"
            )
        }
        _ => failed.next.clone(),
    };
    CliError { next, ..failed }
}
