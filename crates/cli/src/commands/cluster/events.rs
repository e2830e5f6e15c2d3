//! `holdfast cluster events`: what befell the cluster, as its controllers have recorded it.

use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use holdfast_client::Client;
use holdfast_proto::v1::{Event, EventKind, EventQuantiles, ListEventsResponse};

use super::event_json::to_json;
use crate::args::{EventsArgs, Format, Global};
use crate::commands::connect::connect;
use crate::commands::human::{count, millis};
use crate::exit::{self, CliError};
use crate::output::{print_json, print_line, print_table, table};

/// What stands where nothing was seen.
const UNSEEN: &str = "-";

pub(crate) async fn run(global: &Global, args: &EventsArgs) -> Result<ExitCode, CliError> {
    let client = connect(global).await?;
    let answer = fetch(&client, args.limit).await?;
    match global.format {
        Format::Json => print_json(&to_json(&client.map(), &answer))?,
        Format::Text => print_events(&answer)?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn fetch(client: &Client, limit: u32) -> Result<ListEventsResponse, CliError> {
    let what = "asking for what befell the cluster";
    let answer = client.list_events(limit).await.map_err(|error| CliError::api(what, &error))?;
    if answer.answered.is_empty() {
        let next = "start a controller; or read events.jsonl in the data-dir of one";
        return Err(CliError::new(exit::RETRY, what, "no controller answers", next));
    }
    Ok(answer)
}

fn print_events(answer: &ListEventsResponse) -> Result<(), CliError> {
    let header = [
        "TIME",
        "WHAT",
        "BY",
        "ZONE",
        "BROKERS",
        "PARTITIONS",
        "DETECT",
        "APPOINT",
        "RECOVER",
        "WRITABLE",
        "IN-SYNC",
        "TOTAL",
    ];
    let mut rows = table(&header);
    for event in &answer.events {
        rows.add_row(row(event));
    }
    print_table(&rows)?;
    if !answer.silent.is_empty() {
        let ids: Vec<String> = answer.silent.iter().map(ToString::to_string).collect();
        print_line(&format!("not asked: {} ({})", ids.join(", "), count(ids.len(), "silent controller")))?;
    }
    Ok(())
}

/// Each step by itself, for the slowest partition; the total is until that one was writable.
fn row(event: &Event) -> Vec<String> {
    let max = |times: Option<EventQuantiles>| times.map(|times| times.max_us);
    let step = |from: Option<u64>, to: Option<u64>| from.zip(to).map(|(from, to)| to.saturating_sub(from));
    let (recovered, writable, in_sync) = (max(event.recovered), max(event.writable), max(event.in_sync));
    let elected = event.election.map(|election| election.elected_us);
    let applied = event.election.and_then(|election| election.applied_us);
    // Moves of replicas have a beginning and an end, and no leader to wait for.
    let moved = event.kind() == EventKind::ReplicasMoved;
    let synced = if moved { in_sync } else { step(writable, in_sync) };
    let total = writable.or(applied).or(in_sync.filter(|_| moved));
    let shown = |us: Option<u64>| us.map_or_else(|| UNSEEN.to_owned(), millis);
    vec![
        time(event.at_ms),
        kind(event.kind()).to_owned(),
        by(event),
        text(&event.zone),
        text(&event.brokers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")),
        event.partitions.to_string(),
        shown(event.detected_us),
        shown(step(event.detected_us.or(Some(0)), event.appointed_us).or(elected)),
        shown(step(event.appointed_us, recovered)),
        shown(step(recovered, writable)),
        shown(synced),
        shown(total),
    ]
}

fn text(value: &str) -> String {
    if value.is_empty() { UNSEEN.to_owned() } else { value.to_owned() }
}

fn by(event: &Event) -> String {
    match event.election {
        Some(election) => format!("controller {} after {}", election.to, election.from),
        None => event.reason.clone(),
    }
}

/// Wall clock, as logs show it.
pub(super) fn time(at_ms: i64) -> String {
    let at = UNIX_EPOCH + Duration::from_millis(u64::try_from(at_ms).unwrap_or_default());
    humantime::format_rfc3339_millis(at).to_string()
}

/// As programs and people read it.
pub(super) fn kind(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Unspecified => "unknown",
        EventKind::Failover => "failover",
        EventKind::Move => "move",
        EventKind::Election => "election",
        EventKind::Registered => "registered",
        EventKind::ReplicasMoved => "replicas-moved",
        EventKind::HeldBack => "held-back",
        EventKind::Unclean => "unclean",
    }
}

/// The last failover out of a zone, in a sentence. `None` where there was none, or nobody can tell.
pub(crate) fn last_failover(events: &[Event], zone: &str) -> Option<String> {
    let event = events.iter().find(|event| is_failover_of(event, zone))?;
    let when = time(event.at_ms);
    let what =
        format!("last failover {when} ({}): {}", event.reason, count(event.partitions as usize, "leader"));
    let Some(writable) = event.writable else {
        return Some(format!("{what} moved"));
    };
    let since = match event.since.as_str() {
        "cut" => "the cut",
        "heard" => "the last sign of life",
        _ => "the appointment",
    };
    let left = event.partitions.saturating_sub(writable.count);
    let left = if left == 0 { String::new() } else { format!("; {left} not writable under that leader") };
    Some(format!(
        "{what} moved, writable p50 {}, max {} after {since}{left}",
        millis(writable.p50_us),
        millis(writable.max_us)
    ))
}

/// Whether the event is a failover out of that zone.
pub(crate) fn is_failover_of(event: &Event, zone: &str) -> bool {
    event.kind() == EventKind::Failover && event.zone == zone && event.partitions > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(us: u64) -> Option<EventQuantiles> {
        Some(EventQuantiles { count: 4, p50_us: us / 2, p99_us: us, max_us: us })
    }

    fn failover() -> Event {
        Event {
            kind: EventKind::Failover.into(),
            reason: "refused".to_owned(),
            since: "cut".to_owned(),
            at_ms: 1_000,
            zone: "a".to_owned(),
            brokers: vec![1],
            partitions: 4,
            detected_us: Some(3_000),
            appointed_us: Some(10_000),
            recovered: times(30_000),
            writable: times(42_000),
            in_sync: times(43_500),
            ..Event::default()
        }
    }

    #[test]
    fn a_row_shows_what_each_step_took() {
        let shown = row(&failover()).join(" ");
        assert_eq!(
            shown,
            "1970-01-01T00:00:01.000Z failover refused a 1 4 3.0ms 7.0ms 20.0ms 12.0ms 1.5ms 42.0ms"
        );
        let unseen = Event { detected_us: None, appointed_us: None, recovered: None, ..failover() };
        assert_eq!(row(&unseen)[6..9], [UNSEEN; 3]);
    }

    #[test]
    fn the_last_failover_of_a_zone_is_told_in_a_sentence() {
        let events = [Event { zone: "b".to_owned(), ..failover() }, failover()];
        assert_eq!(
            last_failover(&events, "a").unwrap(),
            "last failover 1970-01-01T00:00:01.000Z (refused): 4 leaders moved, writable p50 21.0ms, \
             max 42.0ms after the cut"
        );
        assert_eq!(last_failover(&events, "c"), None);
    }
}
