//! Which brokers there are, in which order to try them, and one channel to each.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdfast_core::metadata::{Broker, ClusterMap};
use holdfast_core::{ErrorCode, Incarnation, PartitionId, Term, ZoneId};
use holdfast_proto::ApiError;
use holdfast_proto::transport::{Link, MAX_CLIENT_MESSAGE, Tls, connect_lazy};
use holdfast_proto::v1::cluster_service_client::ClusterServiceClient;
use holdfast_proto::v1::fetch_service_client::FetchServiceClient;
use holdfast_proto::v1::offset_service_client::OffsetServiceClient;
use holdfast_proto::v1::partition_service_client::PartitionServiceClient;
use holdfast_proto::v1::produce_service_client::ProduceServiceClient;
use holdfast_proto::v1::topic_service_client::TopicServiceClient;
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::retry::RetryBudget;
use crate::sync::lock;

/// How long an address that failed stands behind the others.
const DEMOTION: Duration = Duration::from_secs(30);
/// How long its whole zone does: it may be the zone that went dark, and silence costs seconds per address.
const ZONE_DEMOTION: Duration = Duration::from_secs(5);
/// A request that is silent for this long beyond what it was told to wait casts doubt on the map, long before it counts
/// as lost: the stream that would bring a better map may be as dead as the leader.
pub(crate) const DOUBT_AFTER: Duration = Duration::from_millis(500);

/// Where a partition's requests go, as of one map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// `host:port` of the broker.
    pub(crate) endpoint: String,
    /// Its run: what an earlier one did, or did not do, says nothing of this one.
    pub(crate) run: Incarnation,
    /// The partition's term in the map that said so.
    pub(crate) term: Term,
}

impl Target {
    fn new(broker: &Broker, term: Term) -> Target {
        Target { endpoint: broker.client_endpoint.clone(), run: broker.incarnation, term }
    }

    /// Whether `later` has to be judged by itself: another appointment, or another run of the same broker.
    pub(crate) fn is_over_with(&self, later: &Target) -> bool {
        self.term < later.term || (self.endpoint == later.endpoint && self.run != later.run)
    }
}

/// The live leader of a partition.
pub(crate) fn leader_of(map: &ClusterMap, partition: PartitionId) -> Option<Target> {
    let term = map.partition(partition)?.register.term;
    Some(Target::new(map.leader_of(partition)?, term))
}

/// The leader that a refusal names, if that is news: a broker of the map, in a term that the map does not know yet or
/// that it knows no leader of. A broker that hears less than we do must not send us back to a dead leader.
pub(crate) fn hinted(
    map: &ClusterMap,
    partition: PartitionId,
    refused_by: &Target,
    error: &ApiError,
) -> Option<Target> {
    let endpoint = error.detail("leader_endpoint").filter(|_| error.code == ErrorCode::NotLeader)?;
    let known = map.partition(partition)?.register.term;
    let named = error.detail("leader_term").and_then(|term| term.parse().ok()).map_or(known, Term);
    let must_live = named == known;
    let is_it = |broker: &&Broker| broker.client_endpoint == endpoint && (broker.live || !must_live);
    let broker = map.brokers().find(is_it)?;
    let is_news = named >= known && endpoint != refused_by.endpoint;
    is_news.then(|| Target::new(broker, named))
}

/// A live replica in `zone`, which may be the leader.
pub(crate) fn replica_in(map: &ClusterMap, partition: PartitionId, zone: &ZoneId) -> Option<Target> {
    let register = &map.partition(partition)?.register;
    let live = register.set.iter().filter(|replica| map.is_live(**replica));
    let broker = live.filter_map(|replica| map.broker(replica.broker)).find(|broker| broker.zone == *zone)?;
    Some(Target::new(broker, register.term))
}

/// A broker by address: its channel and the retries it can still bear.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) endpoint: String,
    pub(crate) budget: RetryBudget,
    channel: Channel,
}

macro_rules! service {
    ($name:ident, $client:ident) => {
        pub(crate) fn $name(&self) -> $client<Channel> {
            $client::new(self.channel.clone())
                .max_decoding_message_size(MAX_CLIENT_MESSAGE)
                .max_encoding_message_size(MAX_CLIENT_MESSAGE)
        }
    };
}

impl Node {
    service!(produce, ProduceServiceClient);
    service!(fetch, FetchServiceClient);
    service!(offsets, OffsetServiceClient);
    service!(topics, TopicServiceClient);
    service!(partitions, PartitionServiceClient);
    service!(cluster, ClusterServiceClient);
}

/// The addresses known and the channels opened.
#[derive(Debug)]
pub(crate) struct Router {
    zone: Option<ZoneId>,
    tls: Option<Tls>,
    addresses: Mutex<BTreeMap<String, Address>>,
    /// Only for addresses in `addresses`.
    nodes: Mutex<HashMap<String, Arc<Node>>>,
}

#[derive(Debug, Default)]
struct Address {
    bootstrap: bool,
    zone: Option<ZoneId>,
    /// The run of the broker that the map names.
    run: Option<Incarnation>,
    /// Whether the map says that the broker is dead.
    dead: bool,
    failed_at: Option<Instant>,
}

impl Router {
    pub(crate) fn new(bootstrap: &[String], zone: Option<&str>, tls: Option<Tls>) -> Router {
        let address = |_| Address { bootstrap: true, ..Address::default() };
        let addresses = bootstrap.iter().map(|endpoint| (endpoint.clone(), address(endpoint))).collect();
        Router { zone: zone.map(ZoneId::new), tls, addresses: Mutex::new(addresses), nodes: Mutex::default() }
    }

    /// The client's own zone.
    pub(crate) fn zone(&self) -> Option<&ZoneId> {
        self.zone.as_ref()
    }

    /// Takes in the brokers of a map. Bootstrap addresses stay; others go with their broker, and their channels too. A
    /// broker that came back starts afresh: what its earlier run failed at, and the retries that took, are forgotten.
    pub(crate) fn learn(&self, map: &ClusterMap) {
        let (mut addresses, mut nodes) = (lock(&self.addresses), lock(&self.nodes));
        addresses.retain(|endpoint, address| {
            address.dead = false;
            address.bootstrap || map.brokers().any(|broker| broker.client_endpoint == *endpoint)
        });
        for broker in map.brokers() {
            let address = addresses.entry(broker.client_endpoint.clone()).or_default();
            address.zone = Some(broker.zone.clone());
            address.dead = !broker.live;
            let earlier = address.run.replace(broker.incarnation);
            if earlier.is_some_and(|earlier| earlier != broker.incarnation) {
                address.failed_at = None;
                nodes.remove(&broker.client_endpoint);
            }
        }
        nodes.retain(|endpoint, _| addresses.contains_key(endpoint));
    }

    /// Puts an address behind the others for a while.
    pub(crate) fn demote(&self, endpoint: &str) {
        if let Some(address) = lock(&self.addresses).get_mut(endpoint) {
            address.failed_at = Some(Instant::now());
        }
    }

    /// Every address, the most promising first: not known dead, not failed lately, in no zone that failed lately, own
    /// zone, else random.
    pub(crate) fn order(&self) -> Vec<String> {
        self.order_apart_from(None)
    }

    /// The same without `other`; addresses in its zone come behind equally promising ones in other zones.
    pub(crate) fn order_apart_from(&self, other: Option<&str>) -> Vec<String> {
        let addresses = lock(&self.addresses);
        let other_zone = other.and_then(|other| addresses.get(other)?.zone.as_ref());
        let suspects: Vec<&ZoneId> = addresses
            .values()
            .filter(|address| address.failed_at.is_some_and(|at| at.elapsed() < ZONE_DEMOTION))
            .filter_map(|address| address.zone.as_ref())
            .collect();
        let mut order: Vec<_> = addresses
            .iter()
            .filter(|(endpoint, _)| Some(endpoint.as_str()) != other)
            .map(|(endpoint, address)| {
                let failed_at = address.failed_at.filter(|at| at.elapsed() < DEMOTION);
                let suspect = address.zone.as_ref().is_some_and(|zone| suspects.contains(&zone));
                let shared = other_zone.is_some() && address.zone.as_ref() == other_zone;
                let foreign = self.zone.is_none() || address.zone != self.zone;
                ((address.dead, failed_at, suspect, shared, foreign, rand::random::<u32>()), endpoint.clone())
            })
            .collect();
        order.sort();
        order.into_iter().map(|(_, endpoint)| endpoint).collect()
    }

    /// The broker at a known address.
    pub(crate) fn node(&self, endpoint: &str) -> Result<Arc<Node>, ApiError> {
        let mut nodes = lock(&self.nodes);
        if let Some(node) = nodes.get(endpoint) {
            return Ok(node.clone());
        }
        // A broker's windows: it sends us what we fetch.
        let channel = connect_lazy(endpoint, Link::Peer, self.tls.as_ref()).map_err(|error| {
            ApiError::new(ErrorCode::Unavailable, format!("{error}: {}", error.source))
                .with("endpoint", endpoint)
        })?;
        let node = Arc::new(Node { endpoint: endpoint.to_owned(), budget: RetryBudget::default(), channel });
        nodes.insert(endpoint.to_owned(), node.clone());
        Ok(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mock::{cluster_map, cluster_map_at};
    use crate::retry::Failure;

    #[test]
    fn own_zone_first_failed_last_bootstrap_kept() {
        let bootstrap = ["first:1".to_owned()];
        let router = Router::new(&bootstrap, Some("zone-b"), None);
        router.learn(&cluster_map(&["a:1", "b:1", "c:1"], &[0], &[]));
        assert_eq!(router.order().len(), 4);
        assert_eq!(router.order()[0], "b:1");
        router.demote("b:1");
        assert_eq!(router.order()[3], "b:1");
        router.learn(&cluster_map(&["d:1"], &[0], &[]));
        let mut left = router.order();
        left.sort();
        assert_eq!(left, ["d:1", "first:1"]);
    }

    #[test]
    fn the_second_stream_goes_to_another_zone() {
        let router = Router::new(&["a:1".to_owned()], Some("zone-a"), None);
        router.learn(&cluster_map(&["a:1", "b:1", "c:1"], &[0], &[]));
        assert_eq!(router.order()[0], "a:1");
        assert!(!router.order_apart_from(Some("a:1")).contains(&"a:1".to_owned()));
        assert_eq!(router.order_apart_from(Some("b:1"))[0], "a:1");
    }

    /// What a broker with an older map says must not lead back to a leader that the map calls dead.
    #[test]
    fn only_a_leader_that_is_news_is_followed() {
        let map = cluster_map(&["a:1", "b:1", "c:1"], &[1], &[0]);
        let partition = map.partitions().next().unwrap().id;
        let refused_by = Target { endpoint: "b:1".to_owned(), run: Incarnation(1), term: Term(1) };
        let hint = |endpoint: &str, term: u32| {
            let error = ApiError::new(ErrorCode::NotLeader, "not me").with("leader_endpoint", endpoint);
            hinted(&map, partition, &refused_by, &error.with("leader_term", term)).map(|hint| hint.endpoint)
        };
        assert_eq!(hint("c:1", 2).as_deref(), Some("c:1"));
        assert_eq!(hint("c:1", 0), None, "of an earlier term");
        assert_eq!(hint("a:1", 1), None, "dead in that very term");
        assert_eq!(hint("a:1", 2).as_deref(), Some("a:1"), "back in a later one");
        assert_eq!(hint("b:1", 2), None, "itself");
        assert_eq!(hint("x:1", 2), None, "no broker");
    }

    /// What the earlier run used up is not the new one's to make good.
    #[tokio::test]
    async fn a_broker_that_came_back_starts_afresh() {
        let router = Router::new(&[], None, None);
        router.learn(&cluster_map(&["a:1", "b:1"], &[0], &[]));
        let overloaded = Failure::reached(ApiError::new(ErrorCode::Overloaded, "full"));
        let node = router.node("a:1").unwrap();
        while node.budget.charge(&overloaded) {}
        router.demote("a:1");
        router.learn(&cluster_map_at(&["a:1", "b:1"], &[0], &[], &BTreeMap::new(), 2));
        assert!(!router.node("a:1").unwrap().budget.charge(&overloaded), "the same run");
        assert_eq!(router.order()[1], "a:1");
        router.learn(&cluster_map_at(&["a:1", "b:1"], &[0], &[], &BTreeMap::from([(0, 2)]), 3));
        assert!(router.node("a:1").unwrap().budget.charge(&overloaded));
        assert!(lock(&router.addresses)["a:1"].failed_at.is_none());
    }

    #[tokio::test]
    async fn channels_are_kept_for_known_brokers_only() {
        let router = Router::new(&["a:1".to_owned()], None, None);
        router.learn(&cluster_map(&["b:1"], &[0], &[]));
        let node = router.node("b:1").unwrap();
        assert!(Arc::ptr_eq(&node, &router.node("b:1").unwrap()));
        router.learn(&cluster_map(&["c:1"], &[0], &[]));
        assert!(lock(&router.nodes).is_empty());
        assert!(router.node("not an address").is_err());
    }
}
