//! `holdfast demo`.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use crate::args::{DemoArgs, Format, Global};
use crate::demo::{DemoOptions, Script};
use crate::exit::{self, CliError};
use crate::output::{print_json, print_line};

pub(crate) fn run(global: &Global, args: &DemoArgs) -> Result<ExitCode, CliError> {
    let usage = |why: String| {
        CliError::new(exit::USAGE, "reading the demo's flags", why, "see `holdfast demo --help`")
    };
    let script = match &args.script {
        Some(text) => text.parse::<Script>().map_err(|error| usage(error.to_string()))?,
        None => Script::default(),
    };
    if !(args.rate > 0.0 && args.rate <= 10_000.0) {
        return Err(usage(format!("--rate {} is not within 0 to 10000 MB/s", args.rate)));
    }
    if !(1..=1000).contains(&args.partitions) {
        return Err(usage(format!("--partitions {} is not within 1 to 1000", args.partitions)));
    }
    if args.duration.is_some_and(|duration| duration <= script.end()) && !script.steps.is_empty() {
        return Err(usage("--duration ends before the last step of the script".to_owned()));
    }
    // Kept until the zones are shut down, then removed.
    let temporary = match args.dir {
        Some(_) => None,
        None => Some(tempfile::tempdir().map_err(|error| {
            let next = "free some space, or name a folder with --dir";
            CliError::new(exit::CANNOT_CREATE, "making a temporary folder", error.to_string(), next)
        })?),
    };
    let dir = match (&args.dir, &temporary) {
        (Some(dir), _) => dir.clone(),
        (None, Some(temporary)) => temporary.path().to_owned(),
        (None, None) => std::env::temp_dir(),
    };
    let terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    let options = DemoOptions {
        screen: terminal && args.script.is_none() && global.format == Format::Text,
        script,
        duration: args.duration,
        rate: args.rate,
        partitions: args.partitions,
        dir,
        history: args.history.clone(),
    };
    super::with_runtime(async {
        let report = crate::demo::run(options).await?;
        match global.format {
            Format::Text => print_line(&report.to_text())?,
            Format::Json => print_json(&report)?,
        }
        Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::from(exit::WARNING) })
    })
}
