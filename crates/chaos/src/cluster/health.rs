//! Asks one process whether it serves.

use std::time::Duration;

use holdfast_proto::transport::{Link, connect_lazy};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// Whether the process at `endpoint` says within `limit` that it serves.
pub(crate) async fn serves(endpoint: &str, limit: Duration) -> bool {
    let Ok(channel) = connect_lazy(endpoint, Link::Client, None) else { return false };
    let mut client = HealthClient::new(channel);
    let request = HealthCheckRequest { service: String::new() };
    let answer = tokio::time::timeout(limit, client.check(request)).await;
    matches!(answer, Ok(Ok(response)) if response.get_ref().status() == ServingStatus::Serving)
}
