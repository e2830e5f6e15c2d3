//! The three zones, and what they are called everywhere.

use std::fmt;

use serde::Serialize;

/// A zone: one controller, one broker and, with namespaces, one network namespace of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Zone {
    /// Zone a.
    A,
    /// Zone b.
    B,
    /// Zone c.
    C,
}

impl Zone {
    /// All of them.
    pub(crate) const ALL: [Zone; 3] = [Zone::A, Zone::B, Zone::C];

    /// As configuration, namespaces and ports are named.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Zone::A => "a",
            Zone::B => "b",
            Zone::C => "c",
        }
    }

    /// Number of its controller and of its broker, and end of its address: 1 to 3.
    pub(crate) fn number(self) -> u8 {
        self as u8 + 1
    }

    /// The zone of that name.
    pub(crate) fn named(name: &str) -> Option<Zone> {
        Zone::ALL.into_iter().find(|zone| zone.name() == name)
    }

    /// The zone of the broker of that number.
    pub(crate) fn of_broker(id: u32) -> Option<Zone> {
        Zone::ALL.into_iter().find(|zone| u32::from(zone.number()) == id)
    }

    /// The two others.
    pub(crate) fn others(self) -> [Zone; 2] {
        match self {
            Zone::A => [Zone::B, Zone::C],
            Zone::B => [Zone::A, Zone::C],
            Zone::C => [Zone::A, Zone::B],
        }
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
