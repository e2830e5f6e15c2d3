//! Actions as lines of a script.

use holdfast_core::metadata::LeaderState;
use holdfast_core::record_batch::RecordBatch;
use holdfast_core::replication::{Action, DurableState, Envelope, FetchKind, Message, Position};
use holdfast_core::{LeaderEpoch, Offset, ReplicaId};

pub(crate) fn action(action: &Action) -> String {
    match action {
        Action::Persist { number, state } => format!("persist #{number} {}", durable(state)),
        Action::Append { batches } => format!("append {}", all(batches)),
        Action::Truncate { end } => format!("truncate to {end}"),
        Action::Trim { start, .. } => format!("trim to {}", at(*start)),
        Action::Reset { start, .. } => format!("reset to {}", at(*start)),
        Action::NoteTombstonesGone { below } => format!("note tombstones gone below {below}"),
        Action::Flush { generation } => format!("flush generation {generation}"),
        Action::Read { to, epoch, from, .. } => format!("read for {} in {epoch} from {from}", name(*to)),
        Action::Send(envelope) => send(envelope),
        Action::Reply { request, result } => match result {
            Ok(ok) if ok.duplicate => {
                format!("reply {} duplicate of {}..={}", request.0, ok.base_offset, ok.last_offset)
            }
            Ok(ok) => {
                format!("reply {} at {}..={} in {}", request.0, ok.base_offset, ok.last_offset, ok.epoch)
            }
            Err(error) => format!("reply {} error {:?}: {error}", request.0, error.code()),
        },
        Action::Report { term, state, complete, writable, in_sync } => {
            let complete = if *complete { " complete" } else { "" };
            let writable = if *writable { " writable" } else { "" };
            let names: Vec<String> = in_sync.iter().map(|&replica| name(replica)).collect();
            let in_sync =
                if names.is_empty() { String::new() } else { format!(", in sync {}", names.join(" ")) };
            format!("report term {term} {}{complete}{writable}{in_sync}", leader_state(*state))
        }
    }
}

fn leader_state(state: LeaderState) -> &'static str {
    match state {
        LeaderState::Fencing => "fencing",
        LeaderState::Active => "active",
        LeaderState::Stalled => "stalled",
    }
}

fn name(replica: ReplicaId) -> String {
    format!("r{}", replica.broker)
}

fn at(position: Position) -> String {
    format!("{}/{}", position.epoch, position.end)
}

fn durable(state: &DurableState) -> String {
    let assignment = state.assignment.as_ref();
    let term = assignment
        .map_or(String::new(), |known| format!(" term {} leader {}", known.term, name(known.leader)));
    let vote = if state.nonvoter { " nonvoter" } else { "" };
    format!("promise {}{term}{vote}", state.promise)
}

fn all(batches: &[RecordBatch]) -> String {
    let shown: Vec<String> = batches.iter().map(batch).collect();
    if shown.is_empty() { "nothing".to_owned() } else { shown.join(", ") }
}

fn batch(batch: &RecordBatch) -> String {
    let header = batch.header();
    let epoch = header.epoch.unwrap_or(LeaderEpoch::ZERO);
    if header.is_filler() {
        return format!("{epoch} filler {}..{}", header.base_offset, header.next_offset());
    }
    if header.is_control() {
        return format!("marker {epoch} at {}", header.base_offset);
    }
    let producer = header
        .producer
        .map_or(String::new(), |producer| format!(" of p{}:{}", producer.id, producer.base_sequence));
    format!("{epoch}x{} at {}{producer}", header.records, header.base_offset)
}

/// Where most logs have none nothing is said.
fn bound(name: &str, offset: Offset) -> String {
    if offset > Offset::ZERO { format!(" {name} {offset}") } else { String::new() }
}

fn send(envelope: &Envelope) -> String {
    let what = match &envelope.message {
        Message::Fence { .. } => "fence".to_owned(),
        Message::FenceOk { position, voter } => {
            format!("fence-ok at {}{}", at(*position), if *voter { "" } else { " nonvoter" })
        }
        Message::Lead { high_watermark, log_end_offset, cleaned_by_all } => {
            format!("lead hw {high_watermark} end {log_end_offset}{}", bound("cleaned", *cleaned_by_all))
        }
        Message::Fetch { position, durable_end, kind, restart, cleaned_end, .. } => {
            let kind = match kind {
                FetchKind::Follow => "",
                FetchKind::Recover => " kind recover",
                FetchKind::Rejoin => " kind rejoin",
            };
            let restart = if *restart { " restart" } else { "" };
            let cleaned = bound("cleaned", *cleaned_end);
            format!("fetch at {} durable {durable_end}{kind}{restart}{cleaned}", at(*position))
        }
        Message::Diverge { echo, common } => format!("diverge at {} common {}", at(*echo), at(*common)),
        Message::Reset { echo, start, .. } => format!("reset at {} start {}", at(*echo), at(*start)),
        Message::Stale { promise } => format!("stale promise {promise}"),
        Message::Data {
            echo,
            batches,
            high_watermark,
            log_end_offset,
            log_start_offset,
            tombstones_gone_below,
            incarnation,
            ..
        } => {
            let run = incarnation.map_or(String::new(), |run| format!(" incarnation {run}"));
            let start = bound("start", *log_start_offset);
            let gone = bound("gone", *tombstones_gone_below);
            let batches = all(batches);
            format!(
                "data at {}: {batches}; hw {high_watermark} end {log_end_offset}{start}{gone}{run}",
                at(*echo)
            )
        }
    };
    format!("send {} in {} {what}", name(envelope.to), envelope.epoch)
}
