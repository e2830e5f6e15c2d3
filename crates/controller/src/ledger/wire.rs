//! Records for the wire.

use holdfast_proto::v1;

use super::record::{Election, Kind, Quantiles, Reason, Record, Row, Since};

/// A record as clients get it.
pub(crate) fn event_to_wire(record: &Record) -> v1::Event {
    v1::Event {
        kind: kind(record.kind).into(),
        reason: reason(record.reason).to_owned(),
        since: since(record.since).to_owned(),
        at_ms: record.at_ms,
        controller_id: record.controller,
        led: record.led,
        index: record.index,
        term: record.term,
        zone: record.zone.clone().unwrap_or_default(),
        brokers: record.brokers.clone(),
        complete: record.complete,
        detected_us: record.detected_us,
        appointed_us: record.appointed_us,
        partitions: record.partitions,
        recovered: record.recovered.map(quantiles),
        writable: record.writable.map(quantiles),
        in_sync: record.in_sync.map(quantiles),
        shares: record.shares.map(|shares| v1::EventShares {
            detect: shares.detect,
            appoint: shares.appoint,
            recover: shares.recover,
            commit: shares.commit,
        }),
        rows: record.rows.iter().map(row).collect(),
        election: record.election.map(election),
    }
}

fn kind(kind: Kind) -> v1::EventKind {
    match kind {
        Kind::Failover => v1::EventKind::Failover,
        Kind::Move => v1::EventKind::Move,
        Kind::Election => v1::EventKind::Election,
        Kind::Registered => v1::EventKind::Registered,
        Kind::ReplicasMoved => v1::EventKind::ReplicasMoved,
        Kind::HeldBack => v1::EventKind::HeldBack,
        Kind::Unclean => v1::EventKind::Unclean,
    }
}

fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Refused => "refused",
        Reason::Reset => "reset",
        Reason::Silence => "silence",
        Reason::Verdict => "verdict",
        Reason::Restart => "restart",
        Reason::Return => "return",
        Reason::Stalled => "stalled",
        Reason::Home => "home",
        Reason::Drain => "drain",
        Reason::Reassign => "reassign",
        Reason::Appointed => "appointed",
        Reason::New => "new",
        Reason::Returned => "returned",
        Reason::Restarted => "restarted",
        Reason::Changed => "changed",
        Reason::Lost => "lost",
        Reason::Ordered => "ordered",
    }
}

fn since(since: Since) -> &'static str {
    match since {
        Since::Cut => "cut",
        Since::Heard => "heard",
        Since::Stalled => "stalled",
        Since::Appointed => "appointed",
        Since::Lost => "lost",
        Since::Begun => "begun",
    }
}

fn quantiles(times: Quantiles) -> v1::EventQuantiles {
    let Quantiles { count, p50_us, p99_us, max_us } = times;
    v1::EventQuantiles { count, p50_us, p99_us, max_us }
}

fn row(row: &Row) -> v1::EventRow {
    v1::EventRow {
        topic: row.topic.clone(),
        partition: row.partition,
        from: row.from,
        to: row.to,
        term: row.term,
        recovered_us: row.recovered_us,
        writable_us: row.writable_us,
        in_sync_us: row.in_sync_us,
        superseded: row.superseded,
    }
}

fn election(election: Election) -> v1::EventElection {
    let Election { from, to, elected_us, applied_us } = election;
    v1::EventElection { from, to, elected_us, applied_us }
}
