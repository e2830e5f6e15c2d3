//! One pass over one log, on a thread that may wait for the disk.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::mpsc;
use std::time::Duration;

use holdfast_log::{CompactionOutcome, CompactionPlan, LogError};
use tokio::time::Instant;

use super::choice::Choice;
use super::codec::Codecs;
use super::{CompactorContext, Pace};
use crate::disk_space::DiskSpace;
use crate::partition::PassBounds;

/// The most that a batch may become when decompressed: more is not taken from producers of compacted topics either.
const MAX_SECTION: usize = crate::service::MOST_DECOMPRESSED;

/// What became of it.
pub(super) struct Passed {
    pub(super) outcome: Result<CompactionOutcome, LogError>,
    pub(super) pace: Pace,
    pub(super) took: Duration,
}

/// Runs a pass to its end. `None` where the runtime ends.
pub(super) async fn run(
    context: &CompactorContext,
    pace: Pace,
    choice: &Choice,
    bounds: PassBounds,
) -> Option<Passed> {
    let plan = CompactionPlan {
        below: bounds.below,
        now_ms: bounds.now_ms,
        tombstone_delay_ms: choice.compaction.tombstone_delay_ms,
        map_bytes: context.map_bytes,
        max_section_bytes: MAX_SECTION,
    };
    let (hold, held) = mpsc::channel();
    let status = choice.handle.status.clone();
    let mut throttle =
        Throttle { pace, held, space: context.space.clone(), gone: move || status.has_changed().is_err() };
    let (reader, watched) = (bounds.reader, context.fatal.watch_thread());
    // Whoever opens this folder next waits until nothing is written here any more.
    let folder = context.dir.clone();
    let began = Instant::now();
    let running = tokio::task::spawn_blocking(move || {
        let (_watched, _folder) = (watched, folder);
        let outcome = reader.compact(&plan, &Codecs, &mut |bytes| throttle.spend(bytes));
        (outcome, throttle.pace)
    });
    tokio::pin!(running);
    let ended = tokio::select! {
        ended = &mut running => ended,
        () = context.ending.cancelled() => {
            drop(hold);
            running.await
        }
    };
    let (outcome, pace) = ended.ok()?;
    Some(Passed { outcome, pace, took: began.elapsed() })
}

/// Makes a pass wait, and says when it is to end.
struct Throttle<G> {
    pace: Pace,
    /// Cut off when the pass is to end: also when the runtime does.
    held: mpsc::Receiver<Infallible>,
    space: DiskSpace,
    /// Whether the replica is.
    gone: G,
}

impl<G: Fn() -> bool> Throttle<G> {
    /// Waits until so many bytes have had their time; breaks where the pass is to end.
    fn spend(&mut self, bytes: u64) -> ControlFlow<()> {
        let now = Instant::now();
        let wait = self.pace.after(now, bytes).saturating_duration_since(now);
        let ended = matches!(self.held.recv_timeout(wait), Err(mpsc::RecvTimeoutError::Disconnected));
        if ended || (self.gone)() || self.space.room().is_short() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}
