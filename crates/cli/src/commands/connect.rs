//! What every client command begins with: a connection made of the global flags.

use holdfast_client::{BuildError, Client, ClientConfig, ConnectError};
use holdfast_core::ErrorCode;
use holdfast_proto::transport::{Tls, TlsConfig};
use tokio_util::sync::CancellationToken;

use super::process::asked_to_stop;
use crate::args::Global;
use crate::config::chain;
use crate::exit::{self, CliError};

/// Connects within `--timeout`.
pub(crate) async fn connect(global: &Global) -> Result<Client, CliError> {
    let config = ClientConfig {
        bootstrap: global.bootstrap.clone(),
        zone: global.zone.clone(),
        tls: tls(global)?,
        connect_timeout: global.timeout,
        request_timeout: global.timeout,
        ..ClientConfig::default()
    };
    Client::builder().config(config).connect().await.map_err(|error| connect_failed(global, &error))
}

/// The certificates that the flags name, if any.
pub(crate) fn tls(global: &Global) -> Result<Option<Tls>, CliError> {
    let Some(authority) = global.tls_authority.clone() else {
        if global.tls_certificate.is_none() {
            return Ok(None);
        }
        let why = "--tls-certificate is given without --tls-authority";
        let next = "add --tls-authority: the brokers' certificates are checked against it";
        return Err(CliError::new(exit::USAGE, "reading certificates", why, next));
    };
    let config = TlsConfig {
        certificate: global.tls_certificate.clone(),
        key: global.tls_key.clone(),
        authority,
        require_client_certificate: false,
    };
    Tls::load(&config).map(Some).map_err(|error| {
        let next = "check the files of --tls-authority, --tls-certificate and --tls-key";
        CliError::new(exit::CONFIG, "reading certificates", chain(&error), next)
    })
}

fn connect_failed(global: &Global, error: &ConnectError) -> CliError {
    let what = format!("connecting to {}", global.bootstrap.join(", "));
    match error {
        ConnectError::Config(problem) => {
            CliError::new(exit::USAGE, what, problem.to_string(), "correct --bootstrap: host:port,host:port")
        }
        ConnectError::Unreachable { source, .. } if source.code == ErrorCode::MetadataIncomplete => {
            let next = "try again in a moment; if it stays so, see the brokers' logs";
            CliError::new(exit::RETRY, what, chain(error), next)
        }
        ConnectError::Unreachable { .. } => {
            let next = "check --bootstrap (or HOLDFAST_BOOTSTRAP), the --tls flags, and that the brokers run";
            CliError::new(exit::UNREACHABLE, what, chain(error), next)
        }
    }
}

/// A producer or consumer that cannot be made, in the course of `what`.
pub(crate) fn build_failed(what: impl Into<String>, error: &BuildError) -> CliError {
    match error {
        BuildError::Config(problem) => {
            CliError::new(exit::USAGE, what, problem.to_string(), "correct the flags named")
        }
        // A broker answered before: who is silent now is a leader, or the controllers.
        BuildError::Api(error) if error.code == ErrorCode::Unavailable => {
            let next = "try again in a moment; see `holdfast cluster status` for the controllers";
            CliError { exit: exit::RETRY, next: next.to_owned(), ..CliError::api(what, error) }
        }
        BuildError::Api(error) => CliError::api(what, error),
    }
}

/// Cancelled by the first SIGINT or SIGTERM; the second child of the pair by the second one.
pub(crate) fn interrupts() -> (CancellationToken, CancellationToken) {
    let (first, second) = (CancellationToken::new(), CancellationToken::new());
    let (on_first, on_second) = (first.clone(), second.clone());
    tokio::spawn(async move {
        for token in [on_first, on_second] {
            // Without signal handlers the system's default applies: the process ends.
            if asked_to_stop().await.is_err() {
                return;
            }
            token.cancel();
        }
    });
    (first, second)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Arguments;

    fn global(flags: &[&str]) -> Global {
        let line = ["holdfast", "version"].into_iter().chain(flags.iter().copied());
        Arguments::try_parse_from(line).unwrap().global
    }

    #[tokio::test]
    async fn an_unreachable_cluster_ends_in_three_lines_and_69() {
        // Nobody listens on port 1.
        let error = connect(&global(&["-b", "127.0.0.1:1", "--timeout", "300ms"])).await.unwrap_err();
        assert_eq!(error.exit, exit::UNREACHABLE);
        assert_eq!(error.to_string().lines().count(), 3, "{error}");
    }

    #[tokio::test]
    async fn a_bad_address_is_a_usage_error() {
        let error = connect(&global(&["-b", "nowhere"])).await.unwrap_err();
        assert_eq!(error.exit, exit::USAGE);
    }

    #[test]
    fn a_certificate_needs_an_authority() {
        let error = tls(&global(&["--tls-certificate", "c.pem", "--tls-key", "k.pem"])).unwrap_err();
        assert_eq!(error.exit, exit::USAGE);
    }
}
