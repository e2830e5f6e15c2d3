//! Before an orderly stop: others take over what this broker leads.
//!
//! ```text
//! heartbeats say draining ──► the map shows others leading ──► those leaders take records ──► the stop goes on
//! ```
//!
//! Until the last step this broker serves and follows: a new leader may need its answer to the fence, and its tail.
//! Where that takes too long, or no controller is there to appoint anybody, the stop goes on all the same: then
//! partitions get other leaders when the controllers notice that this broker is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use holdfast_core::metadata::{ClusterMap, Partition};
use holdfast_core::{BrokerId, PartitionId, ReplicaId, TopicId};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::service::{ClusterApi, ServiceContext};

/// Without a leading controller for this long there is nothing to wait for.
const QUORUM_PATIENCE: Duration = Duration::from_secs(1);
/// Between two looks at what only other processes know.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// What is needed to leave without a gap.
pub(crate) struct Handover {
    me: ReplicaId,
    context: Arc<ServiceContext>,
    /// What heartbeats say.
    draining: watch::Sender<bool>,
}

impl fmt::Debug for Handover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handover").field("me", &self.me).finish_non_exhaustive()
    }
}

impl Handover {
    pub(crate) fn new(
        me: ReplicaId,
        context: Arc<ServiceContext>,
        draining: watch::Sender<bool>,
    ) -> Handover {
        Handover { me, context, draining }
    }

    /// Waits until others lead, within what the configuration allows.
    pub(crate) async fn run(&self) {
        let led = self.led(&self.context.map.current());
        self.draining.send_replace(true);
        let limit = self.context.config.drain_timeout;
        let handed_over = timeout(limit, async {
            tokio::select! {
                () = self.others_appointed() => {}
                () = self.no_controllers() => return false,
            }
            self.others_take_records(&led).await;
            true
        });
        match handed_over.await {
            Ok(true) => tracing::info!(partitions = led.len(), "others lead what this broker led"),
            Ok(false) => tracing::warn!("no controllers: stopping without others having taken over"),
            Err(_) => tracing::warn!(?limit, "others did not take over in time: stopping all the same"),
        }
    }

    fn led(&self, map: &ClusterMap) -> BTreeSet<PartitionId> {
        let mine = map.partitions().filter(|partition| partition.register.leader == self.me);
        mine.map(|partition| partition.id).collect()
    }

    async fn others_appointed(&self) {
        let mut maps = self.context.map.subscribe();
        // An error says that the runtime ends.
        let _ = maps.wait_for(|map| is_drained(map, self.me)).await;
    }

    async fn no_controllers(&self) {
        loop {
            let led = async {
                while self.context.controllers.leader().is_none() {
                    sleep(LOOK_INTERVAL).await;
                }
            };
            if timeout(QUORUM_PATIENCE, led).await.is_err() {
                return;
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Their markers are committed: from here on they do without this broker as far as they ever can.
    async fn others_take_records(&self, led: &BTreeSet<PartitionId>) {
        let cluster = ClusterApi { context: Arc::clone(&self.context) };
        let mut waiting = led.clone();
        loop {
            let map = self.context.map.current();
            let leaders = leaders_elsewhere(&map, &waiting, self.me);
            let asked = leaders.keys().filter_map(|&id| map.broker(id));
            let answers = join_all(asked.map(|broker| cluster.remote(broker, ""))).await;
            let active: BTreeSet<PartitionId> = answers
                .into_iter()
                .flat_map(|answer| answer.partitions)
                .filter(|state| state.active)
                .filter_map(|state| {
                    let topic = TopicId::from_bytes(&state.topic_id)?;
                    Some(PartitionId { topic, index: state.partition })
                })
                .collect();
            waiting = leaders.into_values().flatten().filter(|id| !active.contains(id)).collect();
            if waiting.is_empty() {
                return;
            }
            sleep(LOOK_INTERVAL).await;
        }
    }
}

/// Whether the controllers know that the broker leaves, and it leads nothing that another one could lead.
fn is_drained(map: &ClusterMap, me: ReplicaId) -> bool {
    let noted = map.broker(me.broker).is_none_or(|broker| broker.draining || !map.is_live(me));
    let movable = |partition: &Partition| {
        let register = &partition.register;
        register.leader == me && register.set.iter().any(|&other| other != me && map.may_lead(other))
    };
    noted && !map.partitions().any(movable)
}

/// Who leads those partitions now, where it is another live broker.
fn leaders_elsewhere(
    map: &ClusterMap,
    partitions: &BTreeSet<PartitionId>,
    me: ReplicaId,
) -> BTreeMap<BrokerId, Vec<PartitionId>> {
    let mut leaders: BTreeMap<BrokerId, Vec<PartitionId>> = BTreeMap::new();
    for &id in partitions {
        if let Some(leader) = map.leader_of(id).filter(|leader| leader.id != me.broker) {
            leaders.entry(leader.id).or_default().push(id);
        }
    }
    leaders
}

#[cfg(test)]
mod tests {
    use holdfast_core::metadata::{BrokerRegistration, Command, Metadata, TopicSpec};
    use holdfast_core::{DirId, Incarnation, ZoneId};

    use super::*;

    #[test]
    fn a_broker_is_drained_when_it_leads_nothing_that_another_could_lead() {
        let mut metadata = Metadata::default();
        let apply = |metadata: &mut Metadata, command| {
            metadata.apply(metadata.map().index() + 1, &command).0.unwrap();
        };
        let replica = |id| ReplicaId { broker: BrokerId(id), dir: DirId(1) };
        for id in 1..=3 {
            let registration = BrokerRegistration {
                id: BrokerId(id),
                zone: ZoneId::new(&format!("z{id}")),
                dir: DirId(1),
                incarnation: Incarnation(1),
                client_endpoint: "b:1".into(),
                peer_endpoint: "b:2".into(),
            };
            apply(&mut metadata, Command::RegisterBroker(registration));
        }
        let spec = TopicSpec { partitions: 3, ..TopicSpec::default() };
        apply(&mut metadata, Command::CreateTopic { id: TopicId(5), name: "t".into(), spec });
        let drain = |id| Command::DrainBroker { id: BrokerId(id), incarnation: Incarnation(1) };
        assert!(!is_drained(metadata.map(), replica(1)));
        apply(&mut metadata, drain(1));
        assert!(is_drained(metadata.map(), replica(1)));
        assert!(!is_drained(metadata.map(), replica(2)));
        for id in [2, 3] {
            apply(&mut metadata, drain(id));
        }
        assert!(is_drained(metadata.map(), replica(3)), "it leads all, and nobody else could");
        let all: BTreeSet<PartitionId> = metadata.map().partitions().map(|partition| partition.id).collect();
        assert_eq!(leaders_elsewhere(metadata.map(), &all, replica(1))[&BrokerId(3)].len(), 3);
        assert!(leaders_elsewhere(metadata.map(), &all, replica(3)).is_empty());
    }
}
