//! How Holdfast speaks gRPC: the same windows, frames and keepalive on both ends, TLS where configured.
//!
//! Invariant: every accepted and every dialled socket has TCP_NODELAY. Without it on the accepting side throughput
//! falls by a factor of twenty, and the server builder's own setting is ignored for listeners that we bind ourselves.

mod channel;
mod listener;
mod tls;

use std::time::Duration;

pub use channel::{ChannelError, connect_lazy};
pub use listener::{Connection, Listener, server};
pub use tls::{Tls, TlsConfig, TlsError, install_crypto_provider};

/// Who is at the other end: it decides how much memory it may make us hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// A broker or controller of the cluster.
    Peer,
    /// A client.
    Client,
}

/// The largest message taken between processes of the cluster.
pub const MAX_PEER_MESSAGE: usize = 64 << 20;
/// The largest message taken from a client, and the largest sent to one.
pub const MAX_CLIENT_MESSAGE: usize = 20 << 20;

/// Larger frames double the receiver's CPU, smaller ones cost headers.
const FRAME_SIZE: u32 = 64 << 10;
/// A dead peer is noticed on an idle channel within two of these.
const KEEPALIVE: Duration = Duration::from_secs(1);

impl Link {
    /// HTTP/2 window of one stream: what may be in flight on it. Of 1, 4, 8 and 16 MiB between brokers, 8 and more
    /// were fastest.
    fn stream_window(self) -> u32 {
        match self {
            Link::Peer => 8 << 20,
            Link::Client => 2 << 20,
        }
    }

    fn connection_window(self) -> u32 {
        2 * self.stream_window()
    }
}
