//! How much of a disk is kept in reserve: a key of the configuration.

use std::fmt;
use std::str::FromStr;

use holdfast_log::{ByteSize, Space};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const AUTO: &str = "auto";
/// `auto` keeps this part of the disk, and no more than so many bytes.
const AUTO_PART: u64 = 20;
const AUTO_MOST: u64 = 1 << 30;

/// What no record of a client may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DiskReserve {
    /// A twentieth of the file system, 1 GiB at most.
    #[default]
    Auto,
    /// So much.
    Size(ByteSize),
}

impl DiskReserve {
    /// In bytes, on that file system.
    pub(crate) fn of(self, space: Space) -> u64 {
        match self {
            DiskReserve::Auto => (space.total / AUTO_PART).min(AUTO_MOST),
            DiskReserve::Size(size) => size.0,
        }
    }
}

/// The text is neither a size nor `auto`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither \"auto\" nor a size in bytes such as 512MiB")]
pub struct ParseDiskReserveError(String);

impl FromStr for DiskReserve {
    type Err = ParseDiskReserveError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim() == AUTO {
            return Ok(DiskReserve::Auto);
        }
        text.parse().map(DiskReserve::Size).map_err(|_| ParseDiskReserveError(text.to_owned()))
    }
}

impl fmt::Display for DiskReserve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiskReserve::Auto => f.write_str(AUTO),
            DiskReserve::Size(size) => size.fmt(f),
        }
    }
}

impl Serialize for DiskReserve {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DiskReserve {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Visitor)
    }
}

struct Visitor;

impl de::Visitor<'_> for Visitor {
    type Value = DiskReserve;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"auto\" or a size such as \"512MiB\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<DiskReserve, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<DiskReserve, E> {
        Ok(DiskReserve::Size(ByteSize(bytes)))
    }

    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<DiskReserve, E> {
        u64::try_from(bytes).map(ByteSize).map(DiskReserve::Size).map_err(E::custom)
    }
}
