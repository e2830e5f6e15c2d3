//! `holdfast controller`.

use std::process::ExitCode;

use holdfast_controller::{Controller, ControllerError, FolderError};

use super::process::{bind, runtime, start_failed, stop_token};
use crate::args::ProcessArgs;
use crate::config::{ControllerFile, load, load_tls};
use crate::exit::{self, CliError};

pub(crate) fn run(args: &ProcessArgs) -> Result<ExitCode, CliError> {
    let ControllerFile { cluster, controller: config, tls } = load(&args.config)?;
    config.validate().map_err(|error| {
        let what = format!("configuration {}", args.config.display());
        CliError::new(exit::CONFIG, what, error.to_string(), "correct these keys of [controller]")
    })?;
    let tls = load_tls(tls.as_ref())?;
    if args.check {
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = runtime("controller", 2)?;
    let stop = stop_token(runtime.handle())?;
    let outcome = runtime.block_on(async {
        let listener = bind(&config.listen, "controller.listen").await?;
        let (id, zone) = (config.id, config.zone.clone());
        let starting = Controller::start(cluster.clone(), config, tls, listener);
        let controller = tokio::select! {
            started = starting => started.map_err(|error| CliError {
                next: advice(&error).to_owned(),
                ..start_failed("starting the controller", &error)
            })?,
            // Nothing was served yet: this is as good as an end before the start.
            () = stop.cancelled() => return Ok(ExitCode::SUCCESS),
        };
        tracing::info!(cluster, controller = %id, %zone, "controller runs");
        tokio::select! {
            problem = controller.failed() => {
                let next = "mend the disk and start again: what is on it is judged anew";
                return Err(CliError::new(exit::CANNOT_CREATE, "running the controller", problem, next));
            }
            () = stop.cancelled() => {}
        }
        tracing::info!("stopping");
        controller.shutdown().await;
        Ok(ExitCode::SUCCESS)
    });
    runtime.shutdown_background();
    outcome
}

fn advice(error: &ControllerError) -> &'static str {
    match error {
        ControllerError::Folder(FolderError::InUse { .. }) => {
            "stop the process that uses it, or set controller.data-dir to this controller's own folder"
        }
        ControllerError::Folder(FolderError::NotOurs { .. }) => {
            "set controller.data-dir to this controller's own folder, or to one that is not there yet; nothing was \
             changed"
        }
        ControllerError::Folder(FolderError::Io { .. }) => {
            "set controller.data-dir to a folder that this process may write to, with room on its disk"
        }
        ControllerError::Folder(FolderError::LogMissing { .. }) => {
            "put the file back, or list a new id in controller.voters of every controller and give it an empty data-dir"
        }
        _ => "mend what is named above and start again",
    }
}
