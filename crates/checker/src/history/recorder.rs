//! Writes a history from many threads: lines in the order of the calls, through a bounded buffer, by a thread of its own.
//!
//! ```text
//!  record ──► buffer (BUFFER bytes) ──► writer thread ──► file
//! ```
//! A history with a hole is worth nothing: a checker would call what is missing lost. So nothing is ever dropped
//! silently. Where the disk fails, or does not take the lines for `PATIENCE` while the buffer is full, recording is over:
//! this call, every later one and `finish` say so.

use std::fs::File;

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Event, line};

/// Bytes of lines that may wait for the disk. A line longer than that is taken when the buffer is empty.
pub const BUFFER: usize = 16 << 20;
/// How long a call waits for room in the buffer.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Recording is over, and the history is not whole.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RecordError {
    /// The disk refused.
    #[error("writing the history: {0}; what was recorded since is missing, do not judge it")]
    Io(Arc<std::io::Error>),
    /// The disk is too slow.
    #[error("the disk took no lines of the history for {waited:?}; it is not whole, do not judge it")]
    Stalled {
        /// How long a call waited for room.
        waited: Duration,
    },
    /// `finish` was called before.
    #[error("the history is closed already")]
    Closed,
}

/// Takes events from any thread.
#[derive(Debug, Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
}

/// The file behind a recorder, to be finished once.
#[derive(Debug)]
#[must_use = "without finish() the last lines may be missing, and nobody hears of a failed disk"]
pub struct Recording {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// Bytes of lines that may wait.
    buffer: usize,
    /// How long a call waits for room.
    patience: Duration,
    state: Mutex<State>,
    /// There are lines to write, or there will be no more.
    work: Condvar,
    /// There is room, or recording is over.
    room: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<u8>,
    closed: bool,
    failed: Option<RecordError>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorder {
    /// Makes the file, or empties it, and starts its thread.
    ///
    /// # Errors
    /// Where file or thread cannot be made.
    pub fn create(path: &Path) -> std::io::Result<(Recorder, Recording)> {
        Recorder::write_to(File::create(path)?)
    }

    /// Records to any output; it is given whole lines in large pieces.
    ///
    /// # Errors
    /// Where the thread cannot be started.
    pub fn write_to(
        output: impl std::io::Write + std::marker::Send + 'static,
    ) -> std::io::Result<(Recorder, Recording)> {
        Recorder::write_to_within(output, BUFFER, PATIENCE)
    }

    fn write_to_within(
        output: impl std::io::Write + std::marker::Send + 'static,
        buffer: usize,
        patience: Duration,
    ) -> std::io::Result<(Recorder, Recording)> {
        let (state, work, room) = (Mutex::default(), Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { state, work, room, buffer, patience });
        let source = Arc::clone(&shared);
        let writer = std::thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || write_lines(&source, output))?;
        Ok((Recorder { shared: Arc::clone(&shared) }, Recording { shared, writer: Some(writer) }))
    }

    /// Takes one event. Events come out in the order of these calls, so an invoke is recorded before the call that it
    /// announces, and a completion after. Waits for room for `PATIENCE` at most, which only a disk slower than the load
    /// makes it do.
    ///
    /// # Errors
    /// Recording is over.
    pub fn record(&self, event: &Event) -> Result<(), RecordError> {
        let mut text = Vec::with_capacity(160);
        line::write(event, &mut text);
        let Shared { buffer, patience, .. } = *self.shared;
        let full = |state: &mut State| {
            state.failed.is_none() && !state.lines.is_empty() && state.lines.len() + text.len() > buffer
        };
        let state = self.shared.lock();
        let waited = self.shared.room.wait_timeout_while(state, patience, full);
        let (mut state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() && state.failed.is_none() {
            state.failed = Some(RecordError::Stalled { waited: patience });
            self.shared.room.notify_all();
        }
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        if state.closed {
            return Err(RecordError::Closed);
        }
        state.lines.extend_from_slice(&text);
        self.shared.work.notify_one();
        Ok(())
    }
}

impl Recording {
    /// Writes what waits and closes the file.
    ///
    /// # Errors
    /// The history is not whole.
    pub fn finish(mut self) -> Result<(), RecordError> {
        self.close();
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            return Err(RecordError::Io(Arc::new(std::io::Error::other(
                "the writer's thread ended with a panic",
            ))));
        }
        self.shared.lock().failed.clone().map_or(Ok(()), Err)
    }

    fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_one();
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // The thread ends by itself once it has written what waits.
        self.close();
    }
}

fn write_lines(shared: &Shared, mut output: impl std::io::Write) {
    let mut taken = Vec::new();
    loop {
        let idle = |state: &mut State| state.lines.is_empty() && !state.closed;
        let state = shared.work.wait_while(shared.lock(), idle);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        if state.lines.is_empty() || matches!(state.failed, Some(RecordError::Io(_))) {
            return;
        }
        taken.clear();
        std::mem::swap(&mut taken, &mut state.lines);
        shared.room.notify_all();
        drop(state);
        if let Err(error) = output.write_all(&taken).and_then(|()| output.flush()) {
            shared.lock().failed = Some(RecordError::Io(Arc::new(error)));
            shared.room.notify_all();
            return;
        }
    }
}

#[cfg(test)]
#[path = "recorder_tests.rs"]
mod tests;
