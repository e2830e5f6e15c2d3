//! Positions in a log.

use std::fmt;
use std::ops::{Add, Sub};

use serde::{Deserialize, Serialize};

/// The place of a record in its partition, from 0, dense: any gap is an error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Offset(pub u64);

impl Offset {
    /// The first offset of every log.
    pub const ZERO: Offset = Offset(0);
}

impl Add<u64> for Offset {
    type Output = Offset;

    fn add(self, records: u64) -> Offset {
        Offset(self.0 + records)
    }
}

impl Sub for Offset {
    type Output = u64;

    /// How many records lie between; 0 where `other` is ahead.
    fn sub(self, other: Offset) -> u64 {
        self.0.saturating_sub(other.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
