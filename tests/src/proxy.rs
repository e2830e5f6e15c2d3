//! A TCP proxy in front of one address that can be stalled: it goes on accepting and keeps every connection open, and
//! forwards nothing, ends included. What a network does that drops every packet. It can also break all connections, as
//! something between that forgets them does.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What is copied at once, in bytes.
const CHUNK: usize = 64 << 10;

/// A proxy; its tasks run on the runtime that made it, until that ends.
#[derive(Debug)]
pub struct StallProxy {
    address: String,
    upstream: watch::Sender<Option<String>>,
    stalled: Arc<watch::Sender<bool>>,
    breaks: watch::Sender<u64>,
    connected: watch::Receiver<u64>,
}

impl StallProxy {
    /// Listens on a port that the system chooses. Connections wait until [`forward_to`](Self::forward_to) says where.
    pub async fn start() -> StallProxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let (upstream, target) = watch::channel(None);
        let stalled = Arc::new(watch::Sender::new(false));
        let ((breaks, broken), (counter, connected)) = (watch::channel(0), watch::channel(0));
        tokio::spawn(accept(listener, target, Arc::clone(&stalled), broken, counter));
        StallProxy { address, upstream, stalled, breaks, connected }
    }

    /// `host:port` that callers are given.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where connections go.
    pub fn forward_to(&self, upstream: &str) {
        self.upstream.send_replace(Some(upstream.to_owned()));
    }

    /// From now on nothing passes, and nobody is told.
    pub fn stall(&self) {
        self.stalled.send_replace(true);
    }

    /// Everything passes again, late.
    pub fn resume(&self) {
        self.stalled.send_replace(false);
    }

    /// All connections end, at both ends. New ones are taken.
    pub fn break_all(&self) {
        self.breaks.send_modify(|breaks| *breaks += 1);
    }

    /// Connections that were taken so far.
    pub fn connections(&self) -> u64 {
        *self.connected.borrow()
    }
}

async fn accept(
    listener: TcpListener,
    mut upstream: watch::Receiver<Option<String>>,
    stalled: Arc<watch::Sender<bool>>,
    broken: watch::Receiver<u64>,
    connected: watch::Sender<u64>,
) {
    while let Ok((client, _)) = listener.accept().await {
        let Ok(target) = upstream.wait_for(Option::is_some).await.map(|target| target.clone()) else {
            return;
        };
        let (mut broken, stalled) = (broken.clone(), stalled.subscribe());
        broken.mark_unchanged();
        connected.send_modify(|connected| *connected += 1);
        tokio::spawn(async move {
            tokio::select! {
                _ = connect(client, target.unwrap_or_default(), stalled) => {}
                Ok(()) = broken.changed() => {}
            }
        });
    }
}

async fn connect(client: TcpStream, upstream: String, mut stalled: watch::Receiver<bool>) -> io::Result<()> {
    flowing(&mut stalled).await;
    let server = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // Both ends close together with the later direction: an end that comes while nothing passes is held back.
    let _ =
        tokio::join!(copy(from_client, to_server, stalled.clone()), copy(from_server, to_client, stalled));
    Ok(())
}

async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut stalled: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = from.read(&mut chunk).await;
        flowing(&mut stalled).await;
        match read {
            Ok(count) if count > 0 => to.write_all(&chunk[..count]).await?,
            _ => return to.shutdown().await,
        }
    }
}

async fn flowing(stalled: &mut watch::Receiver<bool>) {
    // An error says that the proxy is gone; what is connected flows on.
    let _ = stalled.wait_for(|stalled| !stalled).await;
}
