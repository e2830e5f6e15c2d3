//! The one clock of a run: microseconds of CLOCK_MONOTONIC, which all processes of a machine share, so that a probe in
//! another namespace tells times that compare with ours.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Microseconds since the machine started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Micros(pub(crate) u64);

impl Micros {
    /// Now.
    pub(crate) fn now() -> Micros {
        let time = clock_gettime(ClockId::Monotonic);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        let nanos = u64::try_from(time.tv_nsec).unwrap_or_default();
        Micros(seconds * 1_000_000 + nanos / 1000)
    }

    /// How long ago `earlier` was; nothing if it was later.
    pub(crate) fn since(self, earlier: Micros) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// So much later.
    pub(crate) fn after(self, delay: Duration) -> Micros {
        Micros(self.0 + u64::try_from(delay.as_micros()).unwrap_or(u64::MAX / 2))
    }
}
