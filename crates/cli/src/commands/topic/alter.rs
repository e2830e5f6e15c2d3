//! `holdfast topic alter`: how much is kept.

use std::process::ExitCode;

use holdfast_core::retention::Retention;
use serde_json::json;

use super::{change_failed, retention, unknown};
use crate::args::{Format, Global, TopicAlterArgs};
use crate::commands::connect::connect;
use crate::exit::CliError;
use crate::output::{print_json, print_line};

pub(super) async fn run(global: &Global, args: TopicAlterArgs) -> Result<ExitCode, CliError> {
    let name = args.name.as_str();
    let what = || format!("altering topic {name:?}");
    let client = connect(global).await?;
    let known = client.map().topic_named(name).map(|topic| topic.spec.retention);
    let known = known.ok_or_else(|| unknown(what(), name))?;
    let kept = Retention {
        time_ms: args.retention.map_or(known.time_ms, |kept| kept.0),
        bytes: args.retention_bytes.map_or(known.bytes, |kept| kept.0),
    };
    client.set_retention(name, kept).await.map_err(|error| change_failed(what(), name, &error))?;
    match global.format {
        Format::Json => print_json(&json!({
            "v": 1, "altered": name, "retention_ms": kept.time_ms, "retention_bytes": kept.bytes,
        }))?,
        Format::Text => print_line(&format!("altered {name}  retention {}", retention(kept)))?,
    }
    Ok(ExitCode::SUCCESS)
}
