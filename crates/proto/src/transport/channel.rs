//! Opening channels.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use super::{KEEPALIVE, Link, Tls};

/// An address that cannot be dialled.
#[derive(Debug, thiserror::Error)]
#[error("{endpoint:?} is not an address of the form host:port")]
pub struct ChannelError {
    /// The address.
    pub endpoint: String,
    /// What the HTTP library says.
    #[source]
    pub source: tonic::transport::Error,
}

/// A channel to `host:port` that connects when first used and again whenever it was cut.
///
/// # Errors
/// Where the address cannot be parsed or the TLS settings do not fit it.
pub fn connect_lazy(endpoint: &str, link: Link, tls: Option<&Tls>) -> Result<Channel, ChannelError> {
    let failed = |source| ChannelError { endpoint: endpoint.to_owned(), source };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let mut channel = Endpoint::from_shared(format!("{scheme}://{endpoint}"))
        .map_err(failed)?
        .connect_timeout(Duration::from_secs(1))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(link.stream_window())
        .initial_connection_window_size(link.connection_window());
    if let Some(tls) = tls {
        channel = channel.tls_config(tls.client_config()).map_err(failed)?;
    }
    Ok(channel.connect_lazy())
}
