//! Records of what is over or under way, bounded, newest last.

use std::collections::VecDeque;

use super::record::{Kind, Record};

/// Failovers that are kept.
const MAX_FAILOVERS: usize = 1000;
/// Records of all other kinds that are kept.
const MAX_OTHERS: usize = 1000;

/// What a controller remembers.
#[derive(Debug, Default)]
pub(crate) struct History {
    records: VecDeque<Record>,
    failovers: usize,
}

impl History {
    /// Keeps a record, in the place of an earlier one of the same key.
    pub(crate) fn keep(&mut self, record: Record) {
        let key = record.key();
        // What is replaced is recent.
        if let Some(known) = self.records.iter_mut().rev().find(|known| known.key() == key) {
            *known = record;
            return;
        }
        self.failovers += usize::from(record.kind == Kind::Failover);
        self.records.push_back(record);
        let others = self.records.len() - self.failovers;
        if self.failovers > MAX_FAILOVERS {
            self.drop_first(|kind| kind == Kind::Failover);
        } else if others > MAX_OTHERS {
            self.drop_first(|kind| kind != Kind::Failover);
        }
    }

    fn drop_first(&mut self, which: impl Fn(Kind) -> bool) {
        if let Some(position) = self.records.iter().position(|record| which(record.kind))
            && let Some(dropped) = self.records.remove(position)
        {
            self.failovers -= usize::from(dropped.kind == Kind::Failover);
        }
    }

    /// Newest first.
    pub(crate) fn newest(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().rev()
    }
}
