//! `holdfast topic describe`: the map's view of a topic, and its leaders' where they answer.

use std::process::ExitCode;

use holdfast_core::metadata::{ClusterMap, Partition, Register, Topic};
use holdfast_core::{LeaderEpoch, ReplicaId};
use holdfast_proto::v1::PartitionState;
use serde_json::{Value, json};

use super::{compaction, durability, facts, promise, retention, unknown, zone_of};
use crate::args::{Format, Global};
use crate::commands::connect::connect;
use crate::commands::human::bytes;
use crate::exit::CliError;
use crate::output::{print_json, print_line, print_table, table};

pub(super) async fn run(global: &Global, name: &str) -> Result<ExitCode, CliError> {
    let client = connect(global).await?;
    let map = client.map();
    let topic = map.topic_named(name).ok_or_else(|| unknown(format!("describing topic {name:?}"), name))?;
    let states = match client.describe_partitions(Some(name)).await {
        Ok(states) => states,
        Err(error) => {
            eprintln!("warning: the leaders' view is missing: {error}");
            Vec::new()
        }
    };
    let view = View { map: &map, states: &states };
    match global.format {
        Format::Json => print_json(&view.to_json(topic))?,
        Format::Text => view.print(topic)?,
    }
    Ok(ExitCode::SUCCESS)
}

struct View<'a> {
    map: &'a ClusterMap,
    states: &'a [PartitionState],
}

impl View<'_> {
    fn state_of(&self, partition: &Partition) -> Option<&PartitionState> {
        let same = |state: &&PartitionState| {
            state.partition == partition.id.index && state.topic_id[..] == partition.id.topic.to_bytes()
        };
        self.states.iter().find(same)
    }

    fn print(&self, topic: &Topic) -> Result<(), CliError> {
        let waived = if topic.spec.zone_waiver { " (zones waived)" } else { " (one per zone)" };
        print_line(&format!(
            "{}  id {}  partitions {}  replication {}{waived}",
            topic.name, topic.id, topic.spec.partitions, topic.spec.replication
        ))?;
        print_line(&format!("durability {}: {}", durability(topic.spec.durability), promise(topic)))?;
        print_line(&format!("retention {}", retention(topic.spec.retention)))?;
        print_line(&format!("compaction {}", compaction(topic.spec.compaction)))?;
        let mut rows = table(&[
            "PARTITION",
            "LEADER",
            "EPOCH",
            "REPLICAS",
            "IN-SYNC",
            "LOG-START",
            "HIGH-WATERMARK",
            "LOG-END",
            "SIZE",
            "MOVING",
        ]);
        for partition in self.map.partitions_of(topic.id) {
            rows.add_row(self.row(partition));
        }
        print_table(&rows)
    }

    fn row(&self, partition: &Partition) -> [String; 10] {
        let state = self.state_of(partition);
        let shown = |value: fn(&PartitionState) -> String| state.map_or_else(|| "?".to_owned(), value);
        let replicas = partition.register.set.iter().map(|replica| self.place(replica.broker.0));
        [
            partition.id.index.to_string(),
            self.leader(partition, state),
            epoch(partition, state),
            replicas.collect::<Vec<_>>().join(" "),
            state.map_or_else(|| "?".to_owned(), |state| self.in_sync(state).join(" ")),
            shown(|state| state.log_start_offset.to_string()),
            shown(|state| state.high_watermark.to_string()),
            shown(|state| state.log_end_offset.to_string()),
            shown(|state| bytes(state.size_bytes)),
            self.moving(partition),
        ]
    }

    /// What is under way with its replicas.
    fn moving(&self, partition: &Partition) -> String {
        let Register { set, prev, target, .. } = &partition.register;
        let places = |replicas: Vec<ReplicaId>| {
            replicas.iter().map(|replica| self.place(replica.broker.0)).collect::<Vec<_>>().join(" ")
        };
        let missing = |all: &[ReplicaId], from: &[ReplicaId]| {
            all.iter().copied().filter(|replica| !from.contains(replica)).collect::<Vec<_>>()
        };
        match (prev, target) {
            // After an unclean recovery (R37).
            (Some(prev), _) if prev.len() < set.len() => {
                format!("new disks being filled from {}", places(prev.clone()))
            }
            (Some(prev), _) => format!("leaving {}", places(missing(prev, set))),
            (None, Some(target)) => {
                format!(
                    "{} catching up, then without {}",
                    places(missing(target, set)),
                    places(missing(set, target))
                )
            }
            (None, None) => "-".to_owned(),
        }
    }

    fn leader(&self, partition: &Partition, state: Option<&PartitionState>) -> String {
        let appointed = self.place(partition.register.leader.broker.0);
        match (state, self.map.leader_of(partition.id)) {
            (Some(state), _) if state.active => self.place(state.leader),
            (Some(_), _) => format!("{appointed} (recovering)"),
            (None, Some(_)) => format!("{appointed} (silent)"),
            (None, None) => format!("none ({appointed} is down)"),
        }
    }

    /// `broker/zone`.
    fn place(&self, broker: u32) -> String {
        format!("{broker}/{}", zone_of(self.map, holdfast_core::BrokerId(broker)))
    }

    /// Zones whose replica is in sync and alive.
    fn in_sync(&self, state: &PartitionState) -> Vec<String> {
        let live =
            |broker| self.map.broker(holdfast_core::BrokerId(broker)).is_some_and(|broker| broker.live);
        let replicas = state.replicas.iter().filter(|replica| replica.in_sync && live(replica.broker_id));
        replicas.map(|replica| zone_of(self.map, holdfast_core::BrokerId(replica.broker_id))).collect()
    }

    fn to_json(&self, topic: &Topic) -> Value {
        let partitions: Vec<Value> =
            self.map.partitions_of(topic.id).map(|partition| self.partition_json(partition)).collect();
        json!({
            "v": 1,
            "topic": facts(self.map, topic),
            "promise": promise(topic),
            "partitions": partitions,
        })
    }

    fn partition_json(&self, partition: &Partition) -> Value {
        let state = self.state_of(partition);
        let acknowledged = |broker| {
            let replicas = state.into_iter().flat_map(|state| &state.replicas);
            replicas.into_iter().find(|replica| replica.broker_id == broker)
        };
        let replicas = partition.register.set.iter().map(|replica| {
            let known = acknowledged(replica.broker.0);
            json!({
                "broker": replica.broker,
                "zone": zone_of(self.map, replica.broker),
                "live": self.map.is_live(*replica),
                "in_sync": known.map(|known| known.in_sync),
                "acknowledged_offset": known.map(|known| known.acknowledged_offset),
            })
        });
        let replicas: Vec<Value> = replicas.collect();
        let appointed = partition.register.leader.broker;
        json!({
            "partition": partition.id.index,
            "leader": appointed,
            "leader_zone": zone_of(self.map, appointed),
            "active": state.is_some_and(|state| state.active),
            "epoch": epoch(partition, state),
            "replicas": replicas,
            "target": brokers(partition.register.target.as_deref()),
            "prev": brokers(partition.register.prev.as_deref()),
            "learners": partition.register.learners().map(|replica| replica.broker.0).collect::<Vec<_>>(),
            "unclean": partition.register.is_unclean(),
            "unclean_term": partition.register.unclean_term.map(|term| term.0),
            "log_start_offset": state.map(|state| state.log_start_offset),
            "high_watermark": state.map(|state| state.high_watermark),
            "log_end_offset": state.map(|state| state.log_end_offset),
            "size_bytes": state.map(|state| state.size_bytes),
            "cleaned_end": state.map(|state| state.cleaned_end),
            "cleaned_by_all": state.map(|state| state.cleaned_by_all),
        })
    }
}

fn brokers(set: Option<&[ReplicaId]>) -> Option<Vec<u32>> {
    set.map(|set| set.iter().map(|replica| replica.broker.0).collect())
}

/// `term.run` as the leader has it; where it is silent, the term it was appointed for.
fn epoch(partition: &Partition, state: Option<&PartitionState>) -> String {
    match state.and_then(|state| LeaderEpoch::from_wire(state.leader_epoch)) {
        Some(epoch) => format!("{}.{}", epoch.term, epoch.run),
        None => format!("{}.?", partition.register.term),
    }
}
