//! `holdfast zone`: one zone, and what losing it now would mean.

use std::process::ExitCode;

use holdfast_proto::v1::Event;
use serde_json::{Value, json};

use super::cluster::event_json::event_json;
use super::cluster::events::{is_failover_of, last_failover};
use super::cluster::facts::ZoneFact;
use super::cluster::tolerance::{Judgement, Loss, judge};
use super::cluster::{observe, zone_json};
use super::connect::connect;
use super::human::count;
use crate::args::{Format, Global, ZoneCommand};
use crate::exit::{self, CliError};
use crate::output::{print_json, print_line};

/// Events among which the last failover of a zone is looked for.
const EVENTS: u32 = 1000;

pub(crate) async fn run(global: &Global, command: ZoneCommand) -> Result<ExitCode, CliError> {
    let ZoneCommand::Status { zone: wanted } = command;
    let state = observe(global).await?;
    let judgement = judge(&state);
    let zones = choose(state.zones(), wanted.as_deref())?;
    let events = recent_events(global).await;
    match global.format {
        Format::Json => {
            let zones = zones.iter().map(|zone| with_failover(zone_json(zone, &judgement), zone, &events));
            let zones: Vec<Value> = zones.collect();
            print_json(&json!({ "v": 1, "cluster": state.cluster, "zones": zones }))?;
        }
        Format::Text => {
            for zone in &zones {
                print_zone(zone, &judgement)?;
                if let Some(failover) = last_failover(&events, &zone.name) {
                    print_line(&format!("  {failover}"))?;
                }
            }
        }
    }
    Ok(ExitCode::from(code(&zones)))
}

/// What the controllers have recorded; nothing where none can be asked. The status of a zone is known without it.
async fn recent_events(global: &Global) -> Vec<Event> {
    let Ok(client) = connect(global).await else { return Vec::new() };
    client.list_events(EVENTS).await.map_or_else(|_| Vec::new(), |answer| answer.events)
}

/// With the zone's last failover, if there was one.
fn with_failover(mut shown: Value, zone: &ZoneFact, events: &[Event]) -> Value {
    let failover = events.iter().find(|event| is_failover_of(event, &zone.name));
    if let (Some(failover), Some(fields)) = (failover, shown.as_object_mut()) {
        fields.insert("last_failover".to_owned(), event_json(failover));
    }
    shown
}

/// The zone asked for, or all.
fn choose(zones: Vec<ZoneFact>, wanted: Option<&str>) -> Result<Vec<ZoneFact>, CliError> {
    let Some(wanted) = wanted else { return Ok(zones) };
    let names: Vec<String> = zones.iter().map(|zone| zone.name.clone()).collect();
    let found: Vec<ZoneFact> = zones.into_iter().filter(|zone| zone.name == wanted).collect();
    if found.is_empty() {
        let why = format!("no broker and no controller is in a zone called {wanted:?}");
        let next = format!("the zones are {}", names.join(", "));
        return Err(CliError::new(exit::DATA, format!("looking at zone {wanted:?}"), why, next));
    }
    Ok(found)
}

/// 0 where all of it is up, 1 otherwise.
fn code(zones: &[ZoneFact]) -> u8 {
    if zones.iter().all(|zone| zone.state() == "up") { exit::OK } else { exit::WARNING }
}

fn print_zone(zone: &ZoneFact, judgement: &Judgement) -> Result<(), CliError> {
    print_line(&format!(
        "{}  {}  brokers {}/{}  controllers {}/{}  leaders {}  in sync {}/{}",
        zone.name,
        zone.state().to_uppercase(),
        zone.brokers_live,
        zone.brokers,
        zone.controllers_reachable,
        zone.controllers,
        zone.leaders,
        zone.in_sync,
        zone.replicas,
    ))?;
    let loss = judgement.loss_of(&zone.name).copied().unwrap_or_default();
    print_line(&format!("  {}", meaning(zone, &loss, judgement.unavailable)))
}

/// What losing the zone now would mean; `unavailable` partitions take no records as it is.
fn meaning(zone: &ZoneFact, loss: &Loss, unavailable: usize) -> String {
    match (zone.state(), unavailable) {
        ("lost", 0) => return "it is lost: the other zones serve what it served".to_owned(),
        ("lost", _) => return format!("it is lost, and {} take no records", count(unavailable, "partition")),
        _ => {}
    }
    let mut consequences = Vec::new();
    if loss.partitions > 0 {
        consequences.push(format!("{} would stop", count(loss.partitions, "partition")));
    }
    if loss.waived > 0 {
        consequences
            .push(format!("{} of topics with waived zones would stop", count(loss.waived, "partition")));
    }
    if loss.controllers {
        consequences.push("the controllers would lose their majority, and leaders could not move".to_owned());
    }
    let rest = match zone.leaders {
        0 => "no leader would move".to_owned(),
        leaders => format!("{} would move to other zones", count(leaders, "leader")),
    };
    if consequences.is_empty() {
        return format!("losing it now: everything goes on, {rest}");
    }
    format!("losing it now: {}", consequences.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str, up: usize) -> ZoneFact {
        ZoneFact {
            name: name.to_owned(),
            brokers: 1,
            brokers_live: up,
            controllers: 1,
            controllers_reachable: up,
            leaders: 4 * up,
            ..ZoneFact::default()
        }
    }

    #[test]
    fn an_unknown_zone_is_bad_data_and_the_others_are_named() {
        let error = choose(vec![zone("a", 1), zone("b", 1)], Some("d")).unwrap_err();
        assert_eq!(error.exit, exit::DATA);
        assert!(error.next.contains("a, b"), "{error}");
        assert_eq!(choose(vec![zone("a", 1), zone("b", 1)], Some("b")).unwrap().len(), 1);
    }

    #[test]
    fn a_zone_is_up_partly_up_or_lost() {
        let partly = ZoneFact { controllers_reachable: 0, ..zone("b", 1) };
        assert_eq!(
            [zone("a", 1), partly.clone(), zone("c", 0)].map(|zone| zone.state()),
            ["up", "partly", "lost"]
        );
        assert_eq!(code(&[zone("a", 1)]), exit::OK);
        assert_eq!(code(&[zone("a", 1), partly]), exit::WARNING);
        assert_eq!(code(&[zone("c", 0)]), exit::WARNING);
    }

    #[test]
    fn what_a_loss_means_is_said_in_words() {
        let loss = Loss { partitions: 1, waived: 0, controllers: true };
        assert_eq!(
            meaning(&zone("a", 1), &loss, 0),
            "losing it now: 1 partition would stop; the controllers would lose their majority, and leaders could not move"
        );
        let none = meaning(&zone("a", 1), &Loss::default(), 0);
        assert_eq!(none, "losing it now: everything goes on, 4 leaders would move to other zones");
    }
}
