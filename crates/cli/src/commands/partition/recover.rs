//! `holdfast partition recover --unclean`: says what may be lost, and asks.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use holdfast_client::Client;
use holdfast_core::metadata::{ClusterMap, Partition, Register, majority};
use holdfast_core::{BrokerId, LeaderEpoch, ReplicaId, Term};
use serde_json::json;
use tokio::time::{Duration, Instant, sleep};

use super::{find, order_failed};
use crate::args::{Format, Global, PartitionRecoverArgs};
use crate::commands::connect::connect;
use crate::exit::{self, CliError};
use crate::output::{print_json, print_line};

/// Between two looks at the partition.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

pub(super) async fn run(global: &Global, args: PartitionRecoverArgs) -> Result<ExitCode, CliError> {
    let PartitionRecoverArgs { topic, partition, leader, yes, .. } = args;
    let what = || format!("recovering partition {partition} of topic {topic:?}");
    let interactive = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if !yes && !interactive {
        let why = "nobody can be asked: this is not a terminal";
        let next = "add --yes to accept that acknowledged records may be lost";
        return Err(CliError::new(exit::USAGE, what(), why, next));
    }
    let client = connect(global).await?;
    let map = client.map();
    let known = find(&map, &topic, partition).ok_or_else(|| {
        let next = "see `holdfast topic ls` and `holdfast topic describe`";
        CliError::new(exit::DATA, what(), "there is no such partition", next)
    })?;
    plan(&map, &topic, known).iter().for_each(|line| eprintln!("{line}"));
    let word = format!("{topic}/{partition}");
    if !yes && !confirmed(&word) {
        eprintln!("nothing was changed");
        return Ok(ExitCode::SUCCESS);
    }
    let ordered = client.recover_unclean(&topic, partition, leader.map(BrokerId), &who()).await;
    let (term, leader) = ordered.map_err(|error| order_failed(what(), &topic, &error))?;
    let end = wait_until_writable(global, &client, &topic, partition, term).await?;
    match global.format {
        Format::Json => print_json(&json!({
            "v": 1, "topic": topic, "partition": partition, "leader": leader, "term": term.0, "end": end,
        }))?,
        Format::Text => print_line(&format!(
            "recovered {topic} {partition}  leader {leader}  term {term}: everything below offset {end} is there; \
             what was acknowledged at {end} and above, if anything was, is lost"
        ))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What is there to recover from, and what that means.
fn plan(map: &ClusterMap, topic: &str, partition: &Partition) -> Vec<String> {
    let Register { set, prev, .. } = &partition.register;
    let mut lines = vec![format!("partition {} of topic {topic} has these replicas:", partition.id.index)];
    let being_left = prev.iter().flatten().filter(|replica| !set.contains(replica));
    lines.extend(set.iter().chain(being_left).map(|replica| {
        let broker = map.broker(replica.broker);
        let zone = broker.map_or_else(|| "?".to_owned(), |broker| broker.zone.to_string());
        let state = match broker {
            _ if map.is_live(*replica) => "alive",
            Some(broker) if broker.dir != replica.dir => "gone for good: its broker serves another disk",
            _ => "dead",
        };
        format!("  broker {} in zone {zone}: {state}", replica.broker)
    }));
    let kept = |set: &[ReplicaId]| set.iter().filter(|&&replica| map.is_kept(replica)).count();
    let lost = |set: &Vec<ReplicaId>| kept(set) < majority(set.len());
    let (how, what) = if lost(set) || prev.as_ref().is_some_and(lost) {
        let how = "a majority of the disks is gone: the partition goes on with what is left, and fills new disks from it.";
        (how.to_owned(), "only lost disks held")
    } else {
        let enough = majority(set.len());
        let how = format!(
            "any {enough} of them are enough for an unclean recovery, also those that may have forgotten what they acknowledged."
        );
        (how, "no majority has on disk")
    };
    lines.push(how);
    lines.push(format!("records that were acknowledged and that {what} are lost by it, for good;"));
    lines.push("if a replica that is dead now can be brought back, do that instead.".to_owned());
    lines
}

/// The first offset that is not there, once the partition takes records.
async fn wait_until_writable(
    global: &Global,
    client: &Client,
    topic: &str,
    partition: u32,
    term: Term,
) -> Result<u64, CliError> {
    // A leader of before may still believe that it leads.
    let led_since = |epoch| LeaderEpoch::from_wire(epoch).is_some_and(|epoch| epoch.term >= term);
    let deadline = Instant::now() + global.timeout;
    loop {
        let states = client.describe_partitions(Some(topic)).await.unwrap_or_default();
        let state = states.iter().find(|state| state.partition == partition && state.active);
        if let Some(state) = state.filter(|state| led_since(state.leader_epoch)) {
            return Ok(state.high_watermark);
        }
        if Instant::now() + POLL_INTERVAL > deadline {
            let what = format!("waiting for partition {partition} of topic {topic:?}");
            let why = "the recovery was ordered, and the partition does not take records yet: too few replicas answer";
            let next =
                format!("see `holdfast topic describe {topic}`: a majority of its brokers has to be alive");
            return Err(CliError::new(exit::RETRY, what, why, next));
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// Typed out, so that a habit of saying yes does not lose anything.
fn confirmed(word: &str) -> bool {
    eprint!("Type {word} to continue: ");
    let mut answer = String::new();
    // Where nothing can be written or read, nothing was confirmed.
    let asked = std::io::stderr().flush().and_then(|()| std::io::stdin().read_line(&mut answer));
    asked.is_ok() && answer.trim() == word
}

/// For the record.
fn who() -> String {
    std::env::var("USER").unwrap_or_else(|_| "somebody".to_owned())
}
