//! What the runner's own clients say, in a file beside the history: where a slow recovery was the client's doing.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use tracing_subscriber::EnvFilter;

use crate::error::ChaosError;

/// What is written down without HOLDFAST_LOG.
const DEFAULT: &str = "warn,holdfast_client=debug";

/// Log lines of this process go to a file, in UTC as those of the cluster's processes.
pub(crate) fn to_file(path: &Path) -> Result<(), ChaosError> {
    let file = File::create(path).map_err(ChaosError::io(format!("creating {}", path.display())))?;
    let directives = std::env::var("HOLDFAST_LOG").unwrap_or_else(|_| DEFAULT.to_owned());
    let filter = EnvFilter::try_new(&directives)
        .map_err(|error| ChaosError::client(format!("reading HOLDFAST_LOG={directives}"), &error))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    // An error only says that one is installed already.
    let _ = builder.with_writer(Arc::new(file)).try_init();
    Ok(())
}
