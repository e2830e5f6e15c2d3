//! What this controller has recorded, leader or not.

use holdfast_proto::v1::{Event, ListEventsRequest, ListEventsResponse};
use prost::Message as _;

use crate::ledger::event_to_wire;
use crate::shared::Shared;

/// Events where the caller names no limit, and at most.
const DEFAULT_EVENTS: u32 = 100;
const MAX_EVENTS: u32 = 1000;
/// Bytes of an answer, far below what a message may have.
const MAX_BYTES: usize = 4 << 20;

pub(super) fn list_events(shared: &Shared, request: &ListEventsRequest) -> ListEventsResponse {
    let limit = if request.limit == 0 { DEFAULT_EVENTS } else { request.limit.min(MAX_EVENTS) };
    let mut bytes = 0;
    let events = shared.book.newest(limit as usize).into_iter().map(|record| event_to_wire(&record));
    let fits = |event: &Event| {
        bytes += event.encoded_len();
        bytes <= MAX_BYTES
    };
    ListEventsResponse {
        events: events.take_while(fits).collect(),
        answered: vec![shared.id.0],
        silent: Vec::new(),
    }
}
