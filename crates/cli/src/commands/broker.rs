//! `holdfast broker`.

use std::process::ExitCode;

use holdfast_broker::{Broker, BrokerError, DataDirError, Listeners};

use super::process::{bind, runtime, start_failed, stop_token};
use crate::args::ProcessArgs;
use crate::config::{BrokerFile, load, load_tls};
use crate::exit::{self, CliError};

pub(crate) fn run(args: &ProcessArgs) -> Result<ExitCode, CliError> {
    let BrokerFile { cluster, broker: config, tls } = load(&args.config)?;
    let problems = config.validate();
    if !problems.is_empty() {
        let what = format!("configuration {}", args.config.display());
        return Err(CliError::new(exit::CONFIG, what, problems.join("; "), "correct these keys of [broker]"));
    }
    let tls = load_tls(tls.as_ref())?;
    if args.check {
        return Ok(ExitCode::SUCCESS);
    }
    // Records never delay a heartbeat, and metadata never delays an acknowledgement.
    let control = runtime("control", 1)?;
    let data = runtime("data", std::thread::available_parallelism().map_or(2, std::num::NonZero::get))?;
    let stop = stop_token(data.handle())?;
    let outcome = control.block_on(async {
        let listeners = Listeners {
            client: bind(&config.client_listen, "broker.client-listen").await?,
            peer: bind(&config.peer_listen, "broker.peer-listen").await?,
        };
        let (id, zone) = (config.id, config.zone.clone());
        let starting = Broker::start(cluster.clone(), config, tls, listeners, data.handle());
        let broker = tokio::select! {
            started = starting => started.map_err(|error| CliError {
                next: advice(&error).to_owned(),
                ..start_failed("starting the broker", &error)
            })?,
            // Nothing was served yet: this is as good as an end before the start.
            () = stop.cancelled() => return Ok(ExitCode::SUCCESS),
        };
        tracing::info!(cluster, broker = %id, %zone, "broker runs");
        tokio::select! {
            problem = broker.failed() => {
                let next = "correct the configuration, or the disk, and start again";
                return Err(CliError::new(exit::CONFIG, "running the broker", problem, next));
            }
            () = stop.cancelled() => {}
        }
        tracing::info!("stopping");
        broker.shutdown().await;
        Ok(ExitCode::SUCCESS)
    });
    data.shutdown_background();
    control.shutdown_background();
    outcome
}

fn advice(error: &BrokerError) -> &'static str {
    match error {
        BrokerError::DataDir(DataDirError::InUse { .. }) => {
            "stop the process that uses it, or set broker.data-dir to this broker's own folder"
        }
        BrokerError::DataDir(DataDirError::Foreign { .. }) => {
            "set broker.data-dir to this broker's own folder, or to one that is not there yet; nothing was changed"
        }
        BrokerError::DataDir(DataDirError::Io { .. }) => {
            "set broker.data-dir to a folder that this process may write to, with room on its disk"
        }
        _ => "mend what is named above and start again",
    }
}
