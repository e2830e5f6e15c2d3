//! Configuration files: defaults, then TOML, then environment.

mod extract;

use std::path::Path;

use figment::Figment;
use figment::providers::{Env, Format as _, Toml};
use holdfast_broker::BrokerConfig;
use holdfast_controller::ControllerConfig;
use holdfast_proto::transport::{Tls, TlsConfig, TlsError};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::exit::{self, CliError};

/// The file of a controller.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ControllerFile {
    /// Name of the cluster; processes of another one are refused, and data folders of another one not touched.
    pub cluster: String,
    /// The controller.
    pub controller: ControllerConfig,
    /// Certificates.
    pub tls: Option<TlsConfig>,
}

/// The file of a broker.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BrokerFile {
    /// Name of the cluster; processes of another one are refused, and data folders of another one not touched.
    pub cluster: String,
    /// The broker.
    pub broker: BrokerConfig,
    /// Certificates.
    pub tls: Option<TlsConfig>,
}

/// Reads a file and the environment.
///
/// # Errors
/// Names the file or variable of every key that is wrong.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, CliError> {
    let what = format!("reading configuration {}", path.display());
    if !path.is_file() {
        let why = if path.exists() { "this is no file" } else { "there is no such file" };
        let next = "name a file with --config; deploy/local has one for every process";
        return Err(CliError::new(exit::CONFIG, what, why, next));
    }
    let figment = Figment::new().merge(Toml::file_exact(path)).merge(environment());
    extract::extract(&figment, path).map_err(|problems| {
        let next = "correct what is named above: the files in deploy/local show and explain every key";
        CliError::new(exit::CONFIG, what, problems.join("; "), next)
    })
}

/// `HOLDFAST_BROKER__DATA_DIR` is `data-dir` of `[broker]`. Variables of single flags have no double underscore.
fn environment() -> Env {
    Env::prefixed("HOLDFAST_")
        .filter(|key| key.as_str().contains("__") || key == "cluster")
        .map(|key| key.as_str().to_ascii_lowercase().replace("__", ".").replace('_', "-").into())
}

/// Reads the certificates of a process that listens, if there are any.
///
/// # Errors
/// Names the file that cannot be used.
pub fn load_tls(config: Option<&TlsConfig>) -> Result<Option<Tls>, CliError> {
    let Some(config) = config else { return Ok(None) };
    // Clients may do without; found out here so that `--check` tells.
    let loaded = match &config.certificate {
        Some(_) => Tls::load(config),
        None => Err(TlsError::NoCertificate),
    };
    loaded.map(Some).map_err(|error| {
        CliError::new(exit::CONFIG, "reading certificates", chain(&error), "correct the [tls] section")
    })
}

/// An error with all its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
