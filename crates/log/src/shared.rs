//! What a log shares with its readers and its flush tickets.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use holdfast_core::Offset;

use crate::LogError;
use crate::segment::Segment;

/// The segments in order. Never empty; only the last one is appended to.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) segments: Vec<Segment>,
    /// Counts truncations. A read during which it changed may have seen old and new bytes side by side.
    pub(crate) truncations: u64,
}

impl View {
    pub(crate) fn active(&self) -> &Segment {
        self.segments
            .last()
            .expect("a log has a segment from opening on, and none is removed but by truncation")
    }

    pub(crate) fn active_mut(&mut self) -> &mut Segment {
        self.segments.last_mut().expect("a log has a segment from opening on, and truncation keeps one")
    }

    pub(crate) fn start(&self) -> Offset {
        self.segments.first().map_or(Offset::ZERO, |segment| segment.base)
    }

    pub(crate) fn end(&self) -> Offset {
        self.active().end
    }

    /// Number of the segment whose range holds `offset`, which is not below the log's start.
    pub(crate) fn segment_of(&self, offset: Offset) -> usize {
        self.segments.partition_point(|segment| segment.base <= offset).saturating_sub(1)
    }
}

/// The lock is held for looking up and for publishing, never during I/O.
#[derive(Debug)]
pub(crate) struct Shared {
    view: RwLock<View>,
    poisoned: AtomicBool,
}

impl Shared {
    pub(crate) fn new(segments: Vec<Segment>) -> Shared {
        let view = View { segments, truncations: 0 };
        Shared { view: RwLock::new(view), poisoned: AtomicBool::new(false) }
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, View> {
        self.view.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn poison(&self) {
        self.poisoned.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::SeqCst)
    }

    pub(crate) fn check_alive(&self) -> Result<(), LogError> {
        if self.is_poisoned() { Err(LogError::Poisoned) } else { Ok(()) }
    }
}
