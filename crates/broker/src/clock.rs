//! The process's monotonic clock, as the rules count time.

use std::time::Instant;

use holdfast_core::Timestamp;

/// Counts from when it was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn new() -> Clock {
        Clock { start: Instant::now() }
    }

    pub(crate) fn now(self) -> Timestamp {
        Timestamp(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    pub(crate) fn instant(self, at: Timestamp) -> Instant {
        self.start + std::time::Duration::from_micros(at.0)
    }
}
