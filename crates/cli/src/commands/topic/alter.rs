//! `holdfast topic alter`: how much is kept, and whether it is compacted.

use std::process::ExitCode;

use holdfast_core::compaction::Compaction;
use holdfast_core::metadata::{TopicChange, TopicSpec};
use holdfast_core::retention::Retention;
use serde_json::json;

use super::{change_failed, compaction, compaction_facts, milliseconds, retention, unknown};
use crate::args::{Format, Global, TopicAlterArgs};
use crate::commands::connect::connect;
use crate::exit::{self, CliError};
use crate::output::{print_json, print_line};

pub(super) async fn run(global: &Global, args: TopicAlterArgs) -> Result<ExitCode, CliError> {
    let name = args.name.as_str();
    let what = || format!("altering topic {name:?}");
    let client = connect(global).await?;
    let known = client.map().topic_named(name).map(|topic| topic.spec.clone());
    let known = known.ok_or_else(|| unknown(what(), name))?;
    let change = change(&args, &known).ok_or_else(|| {
        let why =
            "the topic is not compacted, so there is no --tombstone-delay or --min-dirty-percent to change";
        CliError::new(exit::USAGE, what(), why, "add --compact to have it compacted; nothing was changed")
    })?;
    client.alter_topic(name, change).await.map_err(|error| change_failed(what(), name, &error))?;
    let TopicSpec { retention: kept, compaction: compacted, .. } = change.applied_to(&known);
    match global.format {
        Format::Json => print_json(&json!({
            "v": 1, "altered": name, "retention_ms": kept.time_ms, "retention_bytes": kept.bytes,
            "compaction": compacted.map(compaction_facts),
        }))?,
        Format::Text => {
            let (kept, compacted) = (retention(kept), compaction(compacted));
            print_line(&format!("altered {name}  retention {kept}  compaction {compacted}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What is asked for; `None` where it is about the compaction of a topic that has none.
fn change(args: &TopicAlterArgs, known: &TopicSpec) -> Option<TopicChange> {
    let kept = (args.retention.is_some() || args.retention_bytes.is_some()).then(|| Retention {
        time_ms: args.retention.map_or(known.retention.time_ms, |kept| kept.0),
        bytes: args.retention_bytes.map_or(known.retention.bytes, |kept| kept.0),
    });
    let details = args.tombstone_delay.is_some() || args.min_dirty_percent.is_some();
    let compacted = if args.no_compact {
        Some(None)
    } else if args.compact || details {
        let before = if args.compact { known.compaction.unwrap_or_default() } else { known.compaction? };
        Some(Some(Compaction {
            tombstone_delay_ms: args.tombstone_delay.map_or(before.tombstone_delay_ms, milliseconds),
            min_dirty_percent: args.min_dirty_percent.unwrap_or(before.min_dirty_percent),
        }))
    } else {
        None
    };
    Some(TopicChange { retention: kept, compaction: compacted })
}
