//! `holdfast broker`.

use std::process::ExitCode;

use holdfast_broker::{Broker, BrokerError, DataDirError, Listeners};

use super::process::{asked_to_stop, bind, runtime, start_failed};
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
    let outcome = control.block_on(async {
        let listeners = Listeners {
            client: bind(&config.client_listen, "broker.client-listen").await?,
            peer: bind(&config.peer_listen, "broker.peer-listen").await?,
        };
        let (id, zone) = (config.id, config.zone.clone());
        let broker =
            Broker::start(cluster.clone(), config, tls, listeners, data.handle()).await.map_err(|error| {
                CliError { next: advice(&error).to_owned(), ..start_failed("starting the broker", &error) }
            })?;
        tracing::info!(cluster, broker = %id, %zone, "broker runs");
        tokio::select! {
            problem = broker.failed() => {
                let next = "correct the configuration, or the disk, and start again";
                return Err(CliError::new(exit::CONFIG, "running the broker", problem, next));
            }
            stop = asked_to_stop() => stop.map_err(|error| start_failed("waiting for signals", &error))?,
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
