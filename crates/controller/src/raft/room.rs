//! Room on a controller's disk. Where there is none, its log stands still until there is (ADR 22).
//!
//! ```text
//!  journal: no room ──► waits ──► election: leads no more, does not stand     what Raft asked for is neither done nor failed:
//!        ▲    │                   services: messages and commands refused     to all others this is a process that pauses
//!        └────┘ every 250 ms
//! ```
//! Invariant: nobody is told of a vote or an entry that waits here.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

/// Between two attempts to write where there was no room.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// Whether a controller's log finds room. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    lacking: watch::Sender<bool>,
    /// Nobody waits for room any more: the controller ends.
    given_up: Mutex<bool>,
    ends: Condvar,
}

impl Room {
    /// There is some until a write finds none.
    pub(crate) fn new() -> Room {
        let (lacking, given_up) = (watch::Sender::new(false), Mutex::new(false));
        Room { inner: Arc::new(Inner { lacking, given_up, ends: Condvar::new() }) }
    }

    /// Whether the log stands still for want of room.
    pub(crate) fn is_lacking(&self) -> bool {
        *self.inner.lacking.borrow()
    }

    /// Changes when the log stands still, and when it goes on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<bool> {
        self.inner.lacking.subscribe()
    }

    /// The log stands still from now on.
    pub(crate) fn lacks(&self) {
        self.inner.lacking.send_if_modified(|lacking| !std::mem::replace(lacking, true));
    }

    /// The log goes on. Returns whether it stood still.
    pub(crate) fn found(&self) -> bool {
        self.inner.lacking.send_if_modified(|lacking| std::mem::replace(lacking, false))
    }

    /// Blocks until the next attempt is due. Returns false where there is to be none.
    pub(crate) fn wait(&self) -> bool {
        let given_up = self.given_up();
        let waited = self.inner.ends.wait_timeout_while(given_up, RETRY_INTERVAL, |given_up| !*given_up);
        let (given_up, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !*given_up
    }

    /// Whoever waits, or will, fails instead.
    pub(crate) fn give_up(&self) {
        *self.given_up() = true;
        self.inner.ends.notify_all();
    }

    fn given_up(&self) -> MutexGuard<'_, bool> {
        // One assignment cannot be left half done.
        self.inner.given_up.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
