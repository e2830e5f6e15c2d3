//! `holdfast health`: asks one process, and nobody else, whether it serves.

use std::process::ExitCode;
use std::time::Duration;

use holdfast_proto::ApiError;
use holdfast_proto::transport::{Link, Tls, connect_lazy};
use serde_json::json;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::connect::tls;
use crate::args::{Format, Global, HealthArgs};
use crate::config::chain;
use crate::exit::{self, CliError};
use crate::output::{print_json, print_line};

pub(crate) async fn run(global: &Global, args: HealthArgs) -> Result<ExitCode, CliError> {
    let tls = tls(global)?;
    let health = check(&args.endpoint, tls.as_ref(), global.timeout).await;
    let (state, code) = match &health {
        Health::Serving => ("serving", exit::OK),
        Health::NotServing => ("not serving", exit::CRITICAL),
        Health::Unreachable(why) => {
            let what = format!("asking {} for its health", args.endpoint);
            let next = "check the address, the --tls flags, and that the process runs";
            return Err(CliError::new(exit::UNKNOWN, what, why, next));
        }
    };
    match global.format {
        Format::Text => print_line(&format!("{}  {state}", args.endpoint))?,
        Format::Json => print_json(&json!({
            "v": 1, "endpoint": args.endpoint, "serving": health == Health::Serving,
        }))?,
    }
    Ok(ExitCode::from(code))
}

/// What a process said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Health {
    /// It takes requests.
    Serving,
    /// It runs and takes none.
    NotServing,
    /// It said nothing, for this reason.
    Unreachable(String),
}

/// Asks the process at `endpoint`, for at most `limit`.
pub(crate) async fn check(endpoint: &str, tls: Option<&Tls>, limit: Duration) -> Health {
    let channel = match connect_lazy(endpoint, Link::Client, tls) {
        Ok(channel) => channel,
        Err(error) => return Health::Unreachable(chain(&error)),
    };
    let mut client = HealthClient::new(channel);
    let request = HealthCheckRequest { service: String::new() };
    match tokio::time::timeout(limit, client.check(request)).await {
        Ok(Ok(response)) if response.get_ref().status() == ServingStatus::Serving => Health::Serving,
        Ok(Ok(_)) => Health::NotServing,
        Ok(Err(status)) => Health::Unreachable(ApiError::from_status(&status).to_string()),
        Err(_) => Health::Unreachable(format!("no answer within {limit:?}")),
    }
}

#[cfg(test)]
mod tests {
    use holdfast_proto::transport::{Listener, server};

    use super::*;

    #[tokio::test]
    async fn tells_serving_from_not_serving_from_unreachable() {
        let listener = Listener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let (reporter, service) = tonic_health::server::health_reporter();
        let incoming = listener.incoming(None).unwrap();
        let served = tokio::spawn(server(Link::Client).add_service(service).serve_with_incoming(incoming));
        let limit = Duration::from_secs(5);
        assert_eq!(check(&endpoint, None, limit).await, Health::Serving);
        reporter.set_service_status("", tonic_health::ServingStatus::NotServing).await;
        assert_eq!(check(&endpoint, None, limit).await, Health::NotServing);
        served.abort();
        let _ = served.await;
        assert!(matches!(check("127.0.0.1:1", None, limit).await, Health::Unreachable(_)));
        assert!(matches!(check("no address", None, limit).await, Health::Unreachable(_)));
    }
}
