//! Log lines on stderr.

use tracing_subscriber::EnvFilter;

use crate::args::{Command, Format, Global};
use crate::exit::{self, CliError};

/// Processes tell what happens; commands only what goes wrong. `HOLDFAST_LOG` overrides both.
pub(crate) fn install(global: &Global, command: &Command) -> Result<(), CliError> {
    let default = match command {
        Command::Controller(_) | Command::Broker(_) => "info,openraft=warn,sled=warn",
        _ => "error,openraft=off",
    };
    let directives = std::env::var("HOLDFAST_LOG").unwrap_or_else(|_| default.to_owned());
    let filter = EnvFilter::try_new(&directives).map_err(|error| {
        CliError::new(
            exit::USAGE,
            "reading HOLDFAST_LOG",
            error.to_string(),
            "use a form such as HOLDFAST_LOG=debug",
        )
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // An error only says that a test installed one before.
    let _ = match global.log_format {
        Format::Text => builder.with_ansi(false).try_init(),
        Format::Json => builder.json().try_init(),
    };
    Ok(())
}
