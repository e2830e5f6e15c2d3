//! Removing what a log has given up, apart from appending: a ticket that another thread redeems.
//!
//! The new start is durable before a byte below goes, and what goes is what lies below the start that is durable: whatever the
//! log does meanwhile, a crash at any moment leaves a log that starts where it says, or leftovers below that are removed at
//! the next start.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_core::Offset;

use crate::log_start::LogStart;
use crate::recovery::{below_start, segment_bases};
use crate::shared::Shared;
use crate::{Fs, LogError, index_file, segment};

/// What a log and its tickets agree upon.
#[derive(Debug, Default)]
pub(crate) struct Trimming {
    /// A start that was asked for and is not on disk. Held for a moment only, by who drives the log.
    asked: Mutex<Option<LogStart>>,
    /// The start that is on disk. Changed while the log [stands still](Shared::stand_still).
    noted: AtomicU64,
}

impl Trimming {
    /// Of a log that was found to start there.
    pub(crate) fn found(start: Offset) -> Trimming {
        Trimming { noted: AtomicU64::new(start.0), ..Trimming::default() }
    }

    /// The start that is on disk: where the log starts after a crash, at the lowest.
    pub(crate) fn noted(&self) -> Offset {
        Offset(self.noted.load(Ordering::SeqCst))
    }

    /// The log starts there from now on; a ticket is to say so on disk. `None`: nothing that was asked for before counts.
    pub(crate) fn ask(&self, start: Option<LogStart>) {
        *lock(&self.asked) = start;
    }

    /// That start is on disk.
    pub(crate) fn note(&self, start: Offset) {
        self.noted.store(start.0, Ordering::SeqCst);
    }
}

/// A start of the log that is to be noted, and what lies below that is to be removed.
#[derive(Debug)]
pub struct TrimTicket {
    shared: Arc<Shared>,
}

impl TrimTicket {
    pub(crate) fn new(shared: Arc<Shared>) -> TrimTicket {
        TrimTicket { shared }
    }

    /// Notes the start durably, then removes the segments below, oldest first. On any thread; it may take long. Nothing
    /// happens once the log was dropped.
    ///
    /// # Errors
    /// The log is none the worse for it: what is left to do is done with the next ticket, or when the log is opened.
    pub fn run(&self) -> Result<(), LogError> {
        let Shared { fs, dir, trimming, .. } = &*self.shared;
        let owned = self.shared.stand_still();
        if !*owned {
            return Ok(());
        }
        self.shared.finish_merge()?;
        // Not held any longer: who drives the log never waits here for the disk.
        let asked = lock(&trimming.asked).take();
        if let Some(start) = asked {
            if let Err(error) = start.write(&**fs, dir) {
                lock(&trimming.asked).get_or_insert(start);
                return Err(error);
            }
            trimming.note(start.base.end);
        }
        let noted = trimming.noted();
        // What was appended to when it was trimmed the log still has, sealed since or not, until it gives that up as well.
        let known = self.shared.read().segments.first().map_or(Offset::ZERO, |segment| segment.base);
        let bases = segment_bases(&**fs, dir)?;
        let mut gone = bases[..below_start(&bases, noted)].iter().take_while(|base| **base < known);
        gone.try_for_each(|base| remove(&**fs, dir, *base))
    }
}

/// Removes a segment and its index.
pub(crate) fn remove(fs: &dyn Fs, dir: &Path, base: Offset) -> Result<(), LogError> {
    let (segment, index) = (segment::path(dir, base), index_file::path(dir, base));
    fs.remove_file(&segment).map_err(LogError::io("removing segment", &segment))?;
    match fs.remove_file(&index) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(LogError::io("removing index", &index)(error))
        }
        _ => Ok(()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
