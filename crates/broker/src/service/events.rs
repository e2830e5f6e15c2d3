//! What befell the cluster, out of the ledgers of all controllers that can be reached.
//!
//! Each keeps its own, so any one of them is enough. Of records of the same thing the most complete one is given, and
//! of two as complete the one of the controller that led: what it saw is what it decided on.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use holdfast_proto::v1::{Event, EventKind, ListEventsRequest, ListEventsResponse};

use crate::controllers::{Controller, Controllers};

/// How long a controller may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Events where the caller names no limit.
const DEFAULT_EVENTS: u32 = 100;

/// Asks all controllers at once. That none answered is for the caller to see: their folders hold what they know.
pub(super) async fn list(controllers: &Controllers, request: ListEventsRequest) -> ListEventsResponse {
    let asked = controllers
        .iter()
        .map(|controller| async move { (controller.config.id.0, ask(controller, request).await) });
    let answers = join_all(asked).await;
    let answered: Vec<u64> =
        answers.iter().filter(|(_, answer)| answer.is_some()).map(|(id, _)| *id).collect();
    let silent = answers.iter().filter(|(_, answer)| answer.is_none()).map(|(id, _)| *id).collect();
    let mut events = merge(answers.into_iter().filter_map(|(_, answer)| answer).flatten());
    let limit = if request.limit == 0 { DEFAULT_EVENTS } else { request.limit };
    events.truncate(limit as usize);
    ListEventsResponse { events, answered, silent }
}

async fn ask(controller: &Controller, request: ListEventsRequest) -> Option<Vec<Event>> {
    let mut client = controller.client();
    match tokio::time::timeout(PATIENCE, client.list_events(request)).await {
        Ok(Ok(answer)) => Some(answer.into_inner().events),
        _ => None,
    }
}

/// The best record of each thing, newest first.
fn merge(events: impl Iterator<Item = Event>) -> Vec<Event> {
    let mut best: BTreeMap<_, Event> = BTreeMap::new();
    for event in events {
        let known = best.get(&key(&event));
        if known.is_none_or(|known| worth(known) < worth(&event)) {
            best.insert(key(&event), event);
        }
    }
    let mut events: Vec<Event> = best.into_values().collect();
    events.sort_by_key(|event| Reverse((event.at_ms, event.index)));
    events
}

/// The same for the same thing, whoever saw it: entries by their index, elections by their term.
fn key(event: &Event) -> (i32, u64, u64, Option<(u64, i64)>) {
    let own = event.kind() == EventKind::HeldBack;
    (event.kind, event.index, event.term, own.then_some((event.controller_id, event.at_ms)))
}

fn worth(event: &Event) -> (bool, usize, u32, bool, Reverse<u64>) {
    let times = [event.detected_us, event.appointed_us].iter().flatten().count();
    let partitions =
        [event.recovered, event.writable, event.in_sync].into_iter().flatten().map(|times| times.count);
    let applied = event.election.and_then(|election| election.applied_us).is_some();
    (event.complete, times + usize::from(applied), partitions.sum(), event.led, Reverse(event.controller_id))
}

#[cfg(test)]
mod tests {
    use holdfast_proto::v1::EventQuantiles;

    use super::*;

    fn failover(controller_id: u64, index: u64) -> Event {
        let kind = EventKind::Failover.into();
        Event { kind, index, controller_id, at_ms: 1000 * index as i64, term: 3, ..Event::default() }
    }

    /// One event per thing, the most complete record of it, whoever answers first; newest first.
    #[test]
    fn the_most_complete_record_of_each_thing_is_given() {
        let writable = Some(EventQuantiles { count: 4, ..EventQuantiles::default() });
        let complete = Event { complete: true, detected_us: Some(1), writable, ..failover(2, 9) };
        let partly = Event { detected_us: Some(2), led: true, ..failover(1, 9) };
        let blank = failover(3, 9);
        let other = failover(3, 12);
        let orders = [
            [&complete, &partly, &blank, &other],
            [&other, &blank, &partly, &complete],
            [&partly, &complete, &other, &blank],
        ];
        for order in orders {
            assert_eq!(merge(order.into_iter().cloned()), [other.clone(), complete.clone()]);
        }
    }

    /// Of two that are as complete, the leader's word counts: it decided on it.
    #[test]
    fn of_equals_the_leader_is_believed() {
        let follower = Event { detected_us: Some(9), ..failover(1, 9) };
        let leader = Event { detected_us: Some(7), led: true, ..failover(2, 9) };
        for order in [[&follower, &leader], [&leader, &follower]] {
            assert_eq!(merge(order.into_iter().cloned()), std::slice::from_ref(&leader));
        }
    }

    /// What only one controller knows of has no index in common with others.
    #[test]
    fn verdicts_held_back_are_kept_apart() {
        let held_back = |controller_id, at_ms| Event {
            kind: EventKind::HeldBack.into(),
            controller_id,
            at_ms,
            ..Event::default()
        };
        let events = [held_back(1, 5), held_back(2, 5), held_back(1, 6)];
        assert_eq!(merge(events.into_iter()).len(), 3);
    }
}
