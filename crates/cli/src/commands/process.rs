//! What `controller` and `broker` share: runtimes, ports, signals.

use std::io;

use holdfast_proto::transport::Listener;
use tokio::runtime::{Handle, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::exit::{self, CliError};

/// A runtime with its threads named.
pub(crate) fn runtime(name: &str, threads: usize) -> Result<Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name(name)
        .enable_all()
        .build()
        .map_err(|error| start_failed("starting", &error))
}

/// Binds a port, or says whose it is.
pub(crate) async fn bind(address: &str, key: &str) -> Result<Listener, CliError> {
    Listener::bind(address).await.map_err(|error| {
        let next = match error.kind() {
            io::ErrorKind::AddrInUse => {
                format!("stop the process that has the port, or choose another with {key}")
            }
            io::ErrorKind::AddrNotAvailable => format!("set {key} to an address of this machine"),
            _ => format!("correct {key}"),
        };
        CliError::new(exit::CANNOT_CREATE, format!("listening on {address}"), error.to_string(), next)
    })
}

/// Waits for SIGTERM or SIGINT.
pub(crate) async fn asked_to_stop() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

pub(crate) fn start_failed(what: &str, error: &dyn std::error::Error) -> CliError {
    CliError::new(
        exit::CANNOT_CREATE,
        what,
        crate::config::chain(error),
        "mend what is named above and start again",
    )
}

/// Cancelled by SIGTERM or SIGINT. Made before a process begins to serve: from then on it is to end in order.
pub(crate) fn stop_token(runtime: &Handle) -> Result<CancellationToken, CliError> {
    let _entered = runtime.enter();
    let failed = |error: io::Error| start_failed("waiting for signals", &error);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let stop = CancellationToken::new();
    let asked = stop.clone();
    runtime.spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        asked.cancel();
    });
    Ok(stop)
}
