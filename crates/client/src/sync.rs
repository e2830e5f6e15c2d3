//! Locks without poison: what they guard here is consistent between any two statements.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also after a holder panicked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
