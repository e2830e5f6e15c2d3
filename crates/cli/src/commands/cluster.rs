//! `holdfast cluster`: what the cluster survives now, in words, and what befell it.

pub(crate) mod event_json;
pub(crate) mod events;
pub(crate) mod facts;
mod state;
pub(crate) mod tolerance;

use std::process::ExitCode;

use serde_json::{Value, json};

use super::connect::connect;
use super::human::count;
use crate::args::{ClusterCommand, Format, Global};
use crate::exit::{self, CliError};
use crate::output::{print_json, print_line, print_table, table};
use facts::{BrokerFact, ClusterState, ControllerFact, ZoneFact};
use tolerance::{Judgement, judge};

pub(crate) async fn run(global: &Global, command: ClusterCommand) -> Result<ExitCode, CliError> {
    match command {
        ClusterCommand::Status => status(global).await,
        ClusterCommand::Events(args) => events::run(global, &args).await,
    }
}

async fn status(global: &Global) -> Result<ExitCode, CliError> {
    let state = observe(global).await?;
    let judgement = judge(&state);
    match global.format {
        Format::Json => print_json(&to_json(&state, &judgement))?,
        Format::Text => print_status(&state, &judgement)?,
    }
    Ok(ExitCode::from(judgement.health.exit()))
}

/// The state of the cluster, or an error that says that it could not be found out.
pub(crate) async fn observe(global: &Global) -> Result<ClusterState, CliError> {
    let unknown = |error: CliError| match error.exit {
        exit::USAGE | exit::CONFIG => error,
        _ => CliError { exit: exit::UNKNOWN, ..error },
    };
    let client = connect(global).await.map_err(unknown)?;
    state::observe(global, &client).await.map_err(unknown)
}

fn print_status(state: &ClusterState, judgement: &Judgement) -> Result<(), CliError> {
    print_line(&format!("{}  {}  {}", state.cluster, judgement.health.name(), judgement.sentence()))?;
    for reason in &judgement.reasons {
        print_line(&format!("  {reason}"))?;
    }
    for line in &judgement.waived {
        print_line(&format!("  waived: {line}"))?;
    }
    print_line(&format!(
        "seen by broker {} in {}  v{}  partitions {}",
        state.seen_by,
        state.seen_from,
        state.version,
        state.partitions.len()
    ))?;
    print_line("")?;
    print_controllers(&state.controllers)?;
    print_line("")?;
    print_zones(state, judgement)?;
    print_line("")?;
    print_brokers(&state.brokers)
}

fn print_controllers(controllers: &[ControllerFact]) -> Result<(), CliError> {
    let mut rows = table(&["CONTROLLER", "ZONE", "ENDPOINT", "STATE", "TERM"]);
    for controller in controllers {
        rows.add_row([
            controller.id.to_string(),
            controller.zone.clone(),
            controller.endpoint.clone(),
            controller.state().to_owned(),
            controller.term.to_string(),
        ]);
    }
    print_table(&rows)
}

fn print_zones(state: &ClusterState, judgement: &Judgement) -> Result<(), CliError> {
    let mut rows = table(&["ZONE", "BROKERS", "STATE", "LEADERS", "IN-SYNC", "IF-LOST"]);
    for zone in state.zones() {
        rows.add_row([
            zone.name.clone(),
            format!("{}/{}", zone.brokers_live, zone.brokers),
            zone.state().to_owned(),
            zone.leaders.to_string(),
            format!("{}/{}", zone.in_sync, zone.replicas),
            if_lost(&zone, judgement),
        ]);
    }
    print_table(&rows)
}

/// What losing the zone now would mean, in a few words.
fn if_lost(zone: &ZoneFact, judgement: &Judgement) -> String {
    match judgement.loss_of(&zone.name) {
        Some(loss) if loss.partitions > 0 => format!("{} stop", count(loss.partitions, "partition")),
        Some(loss) if loss.controllers => "leaders can no longer move".to_owned(),
        _ if judgement.unavailable > 0 => "nothing more stops".to_owned(),
        _ => "everything goes on".to_owned(),
    }
}

fn print_brokers(brokers: &[BrokerFact]) -> Result<(), CliError> {
    let mut rows = table(&["BROKER", "ZONE", "ENDPOINT", "STATE", "LEADERS", "IN-SYNC"]);
    for broker in brokers {
        rows.add_row([
            broker.id.to_string(),
            broker.zone.clone(),
            broker.endpoint.clone(),
            broker.state().to_owned(),
            broker.leaders.to_string(),
            format!("{}/{}", broker.in_sync, broker.replicas),
        ]);
    }
    print_table(&rows)
}

fn to_json(state: &ClusterState, judgement: &Judgement) -> Value {
    let zones = state.zones().into_iter().map(|zone| zone_json(&zone, judgement));
    let zones: Vec<Value> = zones.collect();
    json!({
        "v": 1,
        "cluster": state.cluster,
        "health": judgement.health.word(),
        "tolerates": judgement.sentence(),
        "zone_losses_tolerated": judgement.zone_losses_tolerated(),
        "reasons": judgement.reasons,
        "waived": judgement.waived,
        "partitions": state.partitions.len(),
        "partitions_unavailable": judgement.unavailable,
        "partitions_under_replicated": judgement.under_replicated,
        "seen_by": { "broker": state.seen_by, "zone": state.seen_from, "version": state.version },
        "controllers": state.controllers,
        "zones": zones,
        "brokers": state.brokers,
    })
}

/// One zone, for programs.
pub(crate) fn zone_json(zone: &ZoneFact, judgement: &Judgement) -> Value {
    let loss = judgement.loss_of(&zone.name);
    json!({
        "zone": zone.name,
        "state": zone.state(),
        "brokers": zone.brokers,
        "brokers_live": zone.brokers_live,
        "controllers": zone.controllers,
        "controllers_reachable": zone.controllers_reachable,
        "leaders": zone.leaders,
        "replicas": zone.replicas,
        "replicas_in_sync": zone.in_sync,
        "if_lost": {
            "partitions_stopped": loss.map_or(0, |loss| loss.partitions),
            "controller_quorum_lost": loss.is_some_and(|loss| loss.controllers),
        },
    })
}
