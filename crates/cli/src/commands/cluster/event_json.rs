//! Events for programs. What was not seen is absent.

use holdfast_core::metadata::ClusterMap;
use holdfast_proto::v1::{Event, EventQuantiles, EventRow, ListEventsResponse};
use serde_json::{Map, Value, json};

use super::events::{kind, time};

/// The whole answer, newest event first.
pub(super) fn to_json(map: &ClusterMap, answer: &ListEventsResponse) -> Value {
    let events: Vec<Value> = answer.events.iter().map(event_json).collect();
    json!({
        "v": 1,
        "metadata_index": map.index(),
        "controllers_answered": answer.answered,
        "controllers_silent": answer.silent,
        "events": events,
    })
}

/// One event.
pub(crate) fn event_json(event: &Event) -> Value {
    let mut fields = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            fields.insert(name.to_owned(), value);
        }
    };
    put("kind", Some(kind(event.kind()).into()));
    put("reason", Some(event.reason.clone().into()));
    put("at", Some(time(event.at_ms).into()));
    put("at_ms", Some(event.at_ms.into()));
    put("index", (event.index > 0).then(|| event.index.into()));
    put("term", Some(event.term.into()));
    put("zone", (!event.zone.is_empty()).then(|| event.zone.clone().into()));
    put("brokers", Some(event.brokers.clone().into()));
    put("observed_by", Some(event.controller_id.into()));
    put("observer_led", Some(event.led.into()));
    put("since", Some(event.since.clone().into()));
    put("complete", Some(event.complete.into()));
    put("partitions", Some(event.partitions.into()));
    put("detected_ms", event.detected_us.map(ms));
    put("appointed_ms", event.appointed_us.map(ms));
    put("recovered", event.recovered.map(quantiles));
    put("writable", event.writable.map(quantiles));
    put("in_sync", event.in_sync.map(quantiles));
    let shares = event.shares.map(|shares| {
        let round = |share: f64| (share * 1e4).round() / 1e4;
        json!({
            "detect": round(shares.detect),
            "appoint": round(shares.appoint),
            "recover": round(shares.recover),
            "commit": round(shares.commit),
        })
    });
    put("shares", shares);
    let rows: Vec<Value> = event.rows.iter().map(|row| row_json(event, row)).collect();
    put("rows_left_out", Some((event.partitions as usize).saturating_sub(rows.len()).into()));
    put("rows", Some(rows.into()));
    put("from_controller", event.election.map(|election| election.from.into()));
    put("to_controller", event.election.map(|election| election.to.into()));
    put("elected_ms", event.election.map(|election| ms(election.elected_us)));
    put("applied_ms", event.election.and_then(|election| election.applied_us).map(ms));
    Value::Object(fields)
}

fn row_json(event: &Event, row: &EventRow) -> Value {
    let mut fields = Map::new();
    fields.insert("topic".to_owned(), row.topic.clone().into());
    fields.insert("partition".to_owned(), row.partition.into());
    fields.insert("from".to_owned(), row.from.into());
    fields.insert("to".to_owned(), row.to.into());
    fields.insert("term".to_owned(), row.term.into());
    let times = [
        ("detected_ms", event.detected_us),
        ("appointed_ms", event.appointed_us),
        ("recovered_ms", row.recovered_us),
        ("writable_ms", row.writable_us),
        ("in_sync_ms", row.in_sync_us),
    ];
    for (name, us) in times {
        if let Some(us) = us {
            fields.insert(name.to_owned(), ms(us));
        }
    }
    fields.insert("superseded".to_owned(), row.superseded.into());
    Value::Object(fields)
}

fn quantiles(times: EventQuantiles) -> Value {
    json!({
        "count": times.count,
        "p50_ms": ms(times.p50_us),
        "p99_ms": ms(times.p99_us),
        "max_ms": ms(times.max_us),
    })
}

fn ms(us: u64) -> Value {
    (us as f64 / 1000.0).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Programs tell "not seen" from 0 by the field's absence.
    #[test]
    fn what_was_not_seen_is_absent() {
        let row = EventRow { topic: "t".to_owned(), writable_us: Some(1500), ..EventRow::default() };
        let event = Event { partitions: 3, appointed_us: Some(0), rows: vec![row], ..Event::default() };
        let shown = event_json(&event);
        for absent in ["detected_ms", "recovered", "shares", "index", "zone", "to_controller"] {
            assert!(shown.get(absent).is_none(), "{absent}: {shown}");
        }
        assert_eq!(shown["appointed_ms"], 0.0);
        assert_eq!(shown["rows_left_out"], 2);
        assert_eq!(shown["rows"][0]["writable_ms"], 1.5);
        assert!(shown["rows"][0].get("in_sync_ms").is_none());
    }
}
