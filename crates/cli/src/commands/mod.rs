//! One module per command.

pub(crate) mod bench;
pub(crate) mod broker;
pub(crate) mod cluster;
pub(crate) mod connect;
pub(crate) mod consume;
pub(crate) mod controller;
pub(crate) mod demo;
pub(crate) mod health;
pub(crate) mod human;
pub(crate) mod log;
pub(crate) mod partition;
pub(crate) mod process;
pub(crate) mod produce;
pub(crate) mod topic;
pub(crate) mod verify;
pub(crate) mod version;
pub(crate) mod zone;

use std::process::ExitCode;

use crate::exit::{self, CliError};

/// Runs a client command.
pub(crate) fn with_runtime(
    command: impl Future<Output = Result<ExitCode, CliError>>,
) -> Result<ExitCode, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| {
        CliError::new(
            exit::SOFTWARE,
            "starting",
            error.to_string(),
            "check the limits on threads and open files",
        )
    })?;
    let result = runtime.block_on(command);
    runtime.shutdown_background();
    result
}
