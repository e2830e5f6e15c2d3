//! `holdfast controller`.

use std::process::ExitCode;

use holdfast_controller::Controller;

use super::process::{asked_to_stop, bind, runtime, start_failed};
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
    let outcome = runtime.block_on(async {
        let listener = bind(&config.listen, "controller.listen").await?;
        let (id, zone) = (config.id, config.zone.clone());
        let controller = Controller::start(cluster.clone(), config, tls, listener)
            .await
            .map_err(|error| start_failed("starting the controller", &error))?;
        tracing::info!(cluster, controller = %id, %zone, "controller runs");
        tokio::select! {
            problem = controller.failed() => {
                let next = "mend the disk and start again: what is on it is judged anew";
                return Err(CliError::new(exit::CANNOT_CREATE, "running the controller", problem, next));
            }
            stop = asked_to_stop() => stop.map_err(|error| start_failed("waiting for signals", &error))?,
        }
        tracing::info!("stopping");
        controller.shutdown().await;
        Ok(ExitCode::SUCCESS)
    });
    runtime.shutdown_background();
    outcome
}
