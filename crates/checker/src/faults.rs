//! When something was broken on purpose.

use std::sync::Arc;

use serde::Serialize;

use crate::history::Edge;

/// A span of time, in microseconds of the recorder's clock, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Window {
    /// When it begins.
    pub begin_us: u64,
    /// When it ends; `None` while it lasts.
    pub end_us: Option<u64>,
}

impl Window {
    /// Whether the span from one time to another shares a moment with it.
    pub fn overlaps(&self, from_us: u64, to_us: u64) -> bool {
        self.begin_us <= to_us && self.end_us.is_none_or(|end| end >= from_us)
    }
}

/// One fault of a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Its name.
    pub name: Arc<str>,
    /// Its zone, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<Arc<str>>,
    /// When.
    #[serde(flatten)]
    pub window: Window,
}

/// All faults so far, in order of their beginnings.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    all: Vec<Fault>,
    active: Vec<usize>,
}

impl Faults {
    /// A fault begins or ends. False where one ends that did not begin.
    pub(crate) fn edge(&mut self, name: &Arc<str>, zone: Option<&Arc<str>>, edge: Edge, at_us: u64) -> bool {
        match edge {
            Edge::Begin => {
                self.active.push(self.all.len());
                let window = Window { begin_us: at_us, end_us: None };
                self.all.push(Fault { name: Arc::clone(name), zone: zone.cloned(), window });
            }
            Edge::End => {
                let Some(place) = self.active.iter().rposition(|&number| self.all[number].name == *name)
                else {
                    return false;
                };
                self.all[self.active.remove(place)].window.end_us = Some(at_us);
            }
        }
        true
    }

    pub(crate) fn all(&self) -> &[Fault] {
        &self.all
    }

    /// Numbers of those that last.
    pub(crate) fn active(&self) -> impl Iterator<Item = usize> {
        self.active.iter().copied()
    }
}
