//! When each broker was heard last, cut off, and judged gone: where the times of a failover begin.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use holdfast_core::{BrokerId, Incarnation};

use super::record::{Reason, Since};
use crate::liveness::Run;

/// The brokers that this controller has heard itself.
#[derive(Debug, Default)]
pub(super) struct Contacts {
    /// The last two runs of each, the later one first: a restart is noticed before the entry that it leads to.
    runs: BTreeMap<BrokerId, Vec<Contact>>,
}

#[derive(Debug)]
struct Contact {
    incarnation: Incarnation,
    heard: Instant,
    /// When its last stream ended; `None` while there is one.
    cut: Option<Instant>,
    /// When this controller judged it dead, and by what.
    gone: Option<(Instant, Reason)>,
}

/// How a broker was lost to this controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Loss {
    pub(super) at: Instant,
    pub(super) since: Since,
    /// When this controller judged it dead, if it has.
    pub(super) gone: Option<(Instant, Reason)>,
}

impl Contacts {
    pub(super) fn heard(&mut self, now: Instant, (broker, incarnation): Run) {
        let runs = self.runs.entry(broker).or_default();
        match runs.iter_mut().find(|contact| contact.incarnation == incarnation) {
            Some(contact) => (contact.heard, contact.cut, contact.gone) = (now, None, None),
            None => {
                runs.insert(0, Contact { incarnation, heard: now, cut: None, gone: None });
                runs.truncate(2);
            }
        }
    }

    pub(super) fn cut(&mut self, now: Instant, run: Run) {
        if let Some(contact) = self.contact(run) {
            contact.cut = Some(now);
        }
    }

    pub(super) fn gone(&mut self, now: Instant, run: Run, reason: Reason) {
        if let Some(contact) = self.contact(run) {
            contact.gone.get_or_insert((now, reason));
        }
    }

    /// How that run was lost, or `None` where it was never heard here, or is heard still: silence shorter than `silence`
    /// says nothing.
    pub(super) fn loss(&self, now: Instant, (broker, incarnation): Run, silence: Duration) -> Option<Loss> {
        let contact = self.runs.get(&broker)?.iter().find(|contact| contact.incarnation == incarnation)?;
        let silent = contact.gone.is_some() || now.saturating_duration_since(contact.heard) >= silence;
        match contact.cut {
            Some(cut) => Some(Loss { at: cut, since: Since::Cut, gone: contact.gone }),
            None if silent => Some(Loss { at: contact.heard, since: Since::Heard, gone: contact.gone }),
            None => None,
        }
    }

    fn contact(&mut self, (broker, incarnation): Run) -> Option<&mut Contact> {
        self.runs.get_mut(&broker)?.iter_mut().find(|contact| contact.incarnation == incarnation)
    }
}
