//! Serving: an accept loop of our own, for TCP_NODELAY and for handshakes that cannot hold up others.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::either::Either;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use super::{FRAME_SIZE, KEEPALIVE, Link, Tls, TlsError};

/// A handshake that takes longer is dropped.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections of one listener at once; more are closed as they come.
const MOST_CONNECTIONS: usize = 4096;
/// Connections that finished their handshake and wait for the server to take them.
const ACCEPT_QUEUE: usize = 64;
/// Pause after accept failed, as it does while the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A bound port.
#[derive(Debug)]
pub struct Listener {
    inner: TcpListener,
}

impl Listener {
    /// Binds `host:port`; port 0 lets the system choose.
    ///
    /// # Errors
    /// As the system gives them: the port is taken, the address is not ours.
    pub async fn bind(address: &str) -> io::Result<Listener> {
        Ok(Listener { inner: TcpListener::bind(address).await? })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    /// The connections to hand to `Server::serve_with_incoming_shutdown`.
    ///
    /// # Errors
    /// Where TLS is asked for without a certificate.
    pub fn incoming(self, tls: Option<&Tls>) -> Result<ReceiverStream<io::Result<Connection>>, TlsError> {
        let acceptor = tls.map(Tls::acceptor).transpose()?;
        let (sender, receiver) = mpsc::channel(ACCEPT_QUEUE);
        tokio::spawn(accept_loop(self.inner, acceptor, sender));
        Ok(ReceiverStream::new(receiver))
    }
}

/// Ends when the server drops its end.
async fn accept_loop(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    sender: mpsc::Sender<io::Result<Connection>>,
) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = sender.closed() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if stream.set_nodelay(true).is_err() {
            continue; // the peer is gone already
        }
        // Dropped, and so closed, where there are too many: those who are served already are served on.
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        tokio::spawn(welcome(acceptor.clone(), stream, place, sender.clone()));
    }
}

/// Waits for the caller's first words: one that says nothing is not handed on.
async fn welcome(
    acceptor: Option<TlsAcceptor>,
    stream: TcpStream,
    place: OwnedSemaphorePermit,
    sender: mpsc::Sender<io::Result<Connection>>,
) {
    let peer = stream.peer_addr().ok();
    let begun = async {
        match acceptor {
            Some(acceptor) => Ok(Either::Right(Box::new(acceptor.accept(stream).await?))),
            None => {
                stream.peek(&mut [0]).await?;
                Ok(Either::Left(stream))
            }
        }
    };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, begun).await {
        Ok(Ok(stream)) => {
            // An error says that the server is gone.
            let _ = sender.send(Ok(Connection { stream, _place: place })).await;
        }
        Ok(Err::<_, io::Error>(error)) => tracing::warn!(?peer, %error, "handshake failed"),
        Err(_) => tracing::warn!(?peer, "handshake timed out"),
    }
}

/// The settings of every server of ours.
pub fn server(link: Link) -> Server {
    Server::builder()
        .initial_stream_window_size(link.stream_window())
        .initial_connection_window_size(link.connection_window())
        .max_frame_size(FRAME_SIZE)
        .max_concurrent_streams(1024)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE * 2))
        .http2_max_header_list_size(16 << 10)
}

/// An accepted connection, plain or TLS.
#[derive(Debug)]
pub struct Connection {
    stream: Either<TcpStream, Box<TlsStream<TcpStream>>>,
    /// One of the listener's, given back when the connection ends.
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn socket(&self) -> &TcpStream {
        match &self.stream {
            Either::Left(stream) => stream,
            Either::Right(stream) => stream.get_ref().0,
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Option<SocketAddr>;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.socket().peer_addr().ok()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio_stream::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn accepted_sockets_have_nodelay() {
        let listener = Listener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut incoming = listener.incoming(None).unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"P").await.unwrap();
        let connection = incoming.next().await.unwrap().unwrap();
        assert!(connection.socket().nodelay().unwrap());
    }
}
