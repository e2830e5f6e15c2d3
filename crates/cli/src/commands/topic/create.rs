//! `holdfast topic create`: done when every partition takes records.

use std::process::ExitCode;
use std::time::Duration;

use holdfast_client::Client;
use holdfast_core::ErrorCode;
use holdfast_core::compaction::Compaction;
use holdfast_core::metadata::{Durability, Topic, TopicSpec};
use holdfast_core::retention::Retention;
use serde_json::json;
use tokio::time::Instant;

use super::{change_failed, durability, facts, milliseconds, promise, unknown, zones};
use crate::args::{DurabilityArg, Format, Global, TopicCreateArgs};
use crate::commands::connect::connect;
use crate::exit::{self, CliError};
use crate::output::{print_json, print_line};

/// Pause between two looks at the partitions.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// With so many replicas, each in another zone, the loss of a zone stops nothing.
const SAFE_REPLICATION: u32 = 3;

pub(super) async fn run(global: &Global, args: TopicCreateArgs) -> Result<ExitCode, CliError> {
    let deadline = Instant::now() + global.timeout;
    let client = connect(global).await?;
    let name = args.name.as_str();
    let what = || format!("creating topic {name:?}");
    let spec = spec(&args);
    let created = match client.create_topic(name, spec.clone()).await {
        Ok(_) => true,
        Err(error) if error.code == ErrorCode::TopicExists && args.if_not_exists => false,
        Err(error) => {
            let failed = change_failed(what(), name, &error);
            return Err(if needs_waiver(&args, error.code) { with_waiver_named(failed) } else { failed });
        }
    };
    wait_until_active(&client, name, deadline).await?;
    let map = client.map();
    let topic = map.topic_named(name).ok_or_else(|| unknown(what(), name))?;
    if topic.spec != spec {
        eprintln!("warning: topic {name:?} existed with other settings, which stay as they are");
    }
    match global.format {
        Format::Json => {
            let mut answer = json!({ "v": 1, "created": created });
            if let (Some(answer), serde_json::Value::Object(facts)) =
                (answer.as_object_mut(), facts(&map, topic))
            {
                answer.extend(facts);
            }
            print_json(&answer)?;
        }
        Format::Text => print_line(&sentence(created, topic, &zones(&map, topic)))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Fewer replicas than zones to survive the loss of one: possible, and only on request.
fn needs_waiver(args: &TopicCreateArgs, code: ErrorCode) -> bool {
    code == ErrorCode::InvalidRequest && args.replication < SAFE_REPLICATION && !args.waive_zones
}

fn with_waiver_named(error: CliError) -> CliError {
    let next =
        "add --waive-zones to accept fewer than 3 replicas: the loss of a zone may then stop the topic";
    CliError { next: next.to_owned(), ..error }
}

fn spec(args: &TopicCreateArgs) -> TopicSpec {
    TopicSpec {
        partitions: args.partitions,
        replication: args.replication,
        durability: match args.durability {
            DurabilityArg::Disk => Durability::Disk,
            DurabilityArg::Memory => Durability::Memory,
        },
        zone_waiver: args.waive_zones,
        retention: Retention { time_ms: args.retention.0, bytes: args.retention_bytes.0 },
        compaction: args.compact.then_some(Compaction {
            tombstone_delay_ms: milliseconds(args.tombstone_delay),
            min_dirty_percent: args.min_dirty_percent,
        }),
    }
}

fn sentence(created: bool, topic: &Topic, zones: &[String]) -> String {
    format!(
        "{} {}  id {}  partitions {}  zones {}  durability {}: {}",
        if created { "created" } else { "exists" },
        topic.name,
        topic.id,
        topic.spec.partitions,
        zones.join(" "),
        durability(topic.spec.durability),
        promise(topic),
    )
}

/// Waits until every partition has a leader that takes records.
async fn wait_until_active(client: &Client, name: &str, deadline: Instant) -> Result<(), CliError> {
    loop {
        let partitions = client.map().topic_named(name).map(|topic| topic.spec.partitions);
        let (active, problem) = match client.describe_partitions(Some(name)).await {
            Ok(states) => (states.iter().filter(|state| state.active).count(), None),
            // A broker whose map is a moment behind knows no such topic: as good as no leader yet.
            Err(error) => (0, Some(error.to_string())),
        };
        if partitions.is_some_and(|partitions| active >= partitions as usize) {
            return Ok(());
        }
        if Instant::now() + POLL_INTERVAL > deadline {
            let why = problem.unwrap_or_else(|| {
                let partitions = partitions.map_or_else(|| "?".to_owned(), |count| count.to_string());
                format!("it exists, but only {active} of {partitions} partitions have an active leader")
            });
            let next = format!("see `holdfast topic describe {name}` and `holdfast cluster status`");
            let what = format!("waiting for the leaders of topic {name:?}");
            return Err(CliError::new(exit::RETRY, what, why, next));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
