//! Controllers on real sockets and real files, each on a runtime of its own that can be torn away like a killed process.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_controller::{Controller, ControllerConfig, ControllerError, VoterConfig};
use holdfast_core::metadata::ClusterMap;
use holdfast_core::{ControllerId, ZoneId};
use holdfast_log::{Fs, RealFs};
use holdfast_proto::ApiError;
use holdfast_proto::convert::metadata::update_from_wire;
use holdfast_proto::internal::v1::controller_service_client::ControllerServiceClient;
use holdfast_proto::internal::v1::{HeartbeatRequest, LeaderReport, WatchControllerMetadataRequest};
use holdfast_proto::transport::{Link, Listener, connect_lazy};
use holdfast_proto::v1::{CreateTopicRequest, MetadataUpdate};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

pub(crate) const CLUSTER: &str = "test";
/// Everything is waited for this long; a test machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) type Client = ControllerServiceClient<Channel>;

pub(crate) fn zone(id: u64) -> String {
    format!("zone-{id}")
}

/// Waits until `check` gives something, or panics saying what was missing.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    missing: &str,
    mut check: impl FnMut() -> F,
) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < until, "still missing after {PATIENCE:?}: {missing}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Three controllers, of which some may be down.
pub(crate) struct Quorum {
    pub(crate) configs: Vec<ControllerConfig>,
    /// Where each keeps vote, log and snapshots.
    disks: Vec<Arc<dyn Fs>>,
    nodes: Vec<Option<Node>>,
    _dir: tempfile::TempDir,
}

struct Node {
    controller: Controller,
    runtime: Runtime,
}

impl Quorum {
    /// Starts three. `adjust` changes their configurations.
    pub(crate) fn start(adjust: impl Fn(&mut ControllerConfig)) -> Self {
        Quorum::start_on((0..3).map(|_| Arc::new(RealFs) as _).collect(), adjust)
    }

    /// The same on three disks.
    pub(crate) fn start_on(disks: Vec<Arc<dyn Fs>>, adjust: impl Fn(&mut ControllerConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (configs, listeners) = configure(dir.path(), adjust);
        let mut quorum = Quorum { nodes: Vec::new(), disks, configs, _dir: dir };
        for (index, listener) in listeners.into_iter().enumerate() {
            let disk = Arc::clone(&quorum.disks[index]);
            let node = start_node(disk, CLUSTER, &quorum.configs[index], Some(listener)).unwrap();
            quorum.nodes.push(Some(node));
        }
        quorum
    }

    pub(crate) fn endpoint(&self, index: usize) -> &str {
        &self.configs[index].listen
    }

    pub(crate) fn client(&self, index: usize) -> Client {
        client(self.endpoint(index))
    }

    pub(crate) fn controller(&self, index: usize) -> &Controller {
        &self.nodes[index].as_ref().unwrap().controller
    }

    /// Whether it has stopped by itself.
    pub(crate) fn has_failed(&self, index: usize) -> bool {
        use futures::FutureExt as _;
        self.controller(index).failed().now_or_never().is_some()
    }

    fn running(&self) -> impl Iterator<Item = (usize, &Controller)> {
        let nodes = self.nodes.iter().enumerate();
        nodes.filter_map(|(index, node)| Some((index, &node.as_ref()?.controller)))
    }

    /// Tears the runtime away, as SIGKILL would.
    pub(crate) fn kill(&mut self, index: usize) {
        let Node { controller, runtime } = self.nodes[index].take().unwrap();
        drop(runtime);
        drop(controller);
    }

    /// Stops it in order.
    pub(crate) fn stop(&mut self, index: usize) {
        let Node { controller, runtime } = self.nodes[index].take().unwrap();
        runtime.block_on(controller.shutdown());
    }

    /// Starts it again on its old folder and port.
    pub(crate) fn restart(&mut self, index: usize) {
        let disk = Arc::clone(&self.disks[index]);
        self.nodes[index] = Some(start_node(disk, CLUSTER, &self.configs[index], None).unwrap());
    }

    /// Waits until all that run agree on a leader that runs; gives its index.
    pub(crate) async fn leader(&self) -> usize {
        let found = eventually("a leader that all know", || async {
            let mut leaders: Vec<_> = self.running().map(|(_, controller)| controller.leader()).collect();
            leaders.dedup();
            let [Some(leader)] = leaders[..] else { return None };
            self.running().find(|(_, controller)| controller.id() == leader).map(|(index, _)| index)
        });
        found.await
    }

    /// Raft's term at one controller.
    pub(crate) async fn term(&self, index: usize) -> u64 {
        let answers = self.client(index).heartbeat(tokio_stream::iter([heartbeat(9, 1)])).await;
        answers.unwrap().into_inner().message().await.unwrap().unwrap().term
    }

    /// Waits until all that run have maps that `check` accepts.
    pub(crate) async fn all_see(&self, missing: &str, check: impl Fn(&ClusterMap) -> bool) {
        let all = || async { self.running().all(|(_, node)| check(&node.map())).then_some(()) };
        eventually(missing, all).await;
    }

    /// Creates a topic at whoever leads. An attempt of unknown outcome may have been carried out.
    pub(crate) async fn create_topic(&self, name: &str, partitions: u32) {
        eventually("a controller that takes the topic", || async {
            let request = CreateTopicRequest { name: name.into(), partitions, ..Default::default() };
            let leader = self.leader().await;
            match self.client(leader).create_topic(request).await {
                Ok(_) => Some(()),
                Err(status) => {
                    let error = ApiError::from_status(&status);
                    if error.code == holdfast_core::ErrorCode::TopicExists {
                        return Some(());
                    }
                    assert!(error.code.is_retriable(), "{error}");
                    None
                }
            }
        })
        .await;
    }
}

fn configure(
    dir: &Path,
    adjust: impl Fn(&mut ControllerConfig),
) -> (Vec<ControllerConfig>, Vec<std::net::TcpListener>) {
    let listeners: Vec<_> = (0..3).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let voters: Vec<VoterConfig> = listeners
        .iter()
        .zip(1..)
        .map(|(listener, id)| VoterConfig {
            id: ControllerId(id),
            zone: ZoneId::new(&zone(id)),
            endpoint: listener.local_addr().unwrap().to_string(),
        })
        .collect();
    let configs = voters
        .iter()
        .map(|own| {
            let data = dir.join(format!("controller-{}", own.id));
            let endpoint = own.endpoint.clone();
            let mut config = ControllerConfig::new(own.id, own.zone.clone(), data, endpoint, voters.clone());
            adjust(&mut config);
            config
        })
        .collect();
    (configs, listeners)
}

fn start_node(
    disk: Arc<dyn Fs>,
    cluster: &str,
    config: &ControllerConfig,
    reserved: Option<std::net::TcpListener>,
) -> Result<Node, ControllerError> {
    // Only kept the port for us.
    drop(reserved);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let controller = runtime.block_on(async {
        let listener = eventually("the port", || async { Listener::bind(&config.listen).await.ok() }).await;
        // The lock and what is no more than a cache are on the system's own.
        std::fs::create_dir_all(&config.data_dir).unwrap();
        Controller::start_on(disk, cluster.to_owned(), config.clone(), None, listener).await
    })?;
    Ok(Node { controller, runtime })
}

/// Starts a controller that is expected to refuse.
pub(crate) fn start_error(cluster: &str, config: &ControllerConfig) -> ControllerError {
    match start_node(Arc::new(RealFs), cluster, config, None) {
        Ok(_) => panic!("started"),
        Err(error) => error,
    }
}

pub(crate) fn client(endpoint: &str) -> Client {
    ControllerServiceClient::new(connect_lazy(endpoint, Link::Peer, None).unwrap())
}

pub(crate) fn heartbeat(id: u32, incarnation: u64) -> HeartbeatRequest {
    HeartbeatRequest {
        cluster: CLUSTER.into(),
        broker_id: id,
        zone: zone(id.into()),
        dir: u64::from(id),
        incarnation,
        client_endpoint: format!("127.0.0.1:{}", 1000 + id),
        peer_endpoint: format!("127.0.0.1:{}", 2000 + id),
        reports: Vec::new(),
        draining: false,
        disk_full: false,
    }
}

/// A broker that does nothing but send heartbeats to every controller, until dropped.
pub(crate) struct FakeBroker {
    /// What heartbeats carry; with `None` there are no more of them, on streams that stay open.
    reports: watch::Sender<Option<Vec<LeaderReport>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl FakeBroker {
    pub(crate) fn start(quorum: &Quorum, id: u32) -> Self {
        let (reports, _) = watch::channel(Some(Vec::new()));
        let incarnation = rand::random();
        let tasks = (0..3)
            .map(|index| {
                let endpoint = quorum.endpoint(index).to_owned();
                tokio::spawn(beat_for_ever(endpoint, heartbeat(id, incarnation), reports.subscribe()))
            })
            .collect();
        FakeBroker { reports, tasks }
    }

    /// Has every further heartbeat carry these.
    pub(crate) fn report(&self, reports: Vec<LeaderReport>) {
        self.reports.send_replace(Some(reports));
    }

    /// Falls silent with its connections open, as behind a black hole.
    pub(crate) fn fall_silent(&self) {
        self.reports.send_replace(None);
    }
}

impl Drop for FakeBroker {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn beat_for_ever(
    endpoint: String,
    heartbeat: HeartbeatRequest,
    reports: watch::Receiver<Option<Vec<LeaderReport>>>,
) {
    loop {
        // An error says that the controller is down; it may come back.
        let _ = beat(&endpoint, &heartbeat, &reports).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn beat(
    endpoint: &str,
    heartbeat: &HeartbeatRequest,
    reports: &watch::Receiver<Option<Vec<LeaderReport>>>,
) -> Result<(), Status> {
    let (sender, receiver) = mpsc::channel(1);
    let mut answers = client(endpoint).heartbeat(ReceiverStream::new(receiver)).await?.into_inner();
    loop {
        let carried = reports.borrow().clone();
        let Some(reports) = carried else { return std::future::pending().await };
        let next = HeartbeatRequest { reports, ..heartbeat.clone() };
        if sender.send(next).await.is_err() {
            return Ok(());
        }
        let Some(answer) = answers.message().await? else { return Ok(()) };
        assert_eq!(answer.refusal, "");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Follows one controller's map.
pub(crate) struct Watcher {
    stream: tonic::Streaming<MetadataUpdate>,
    pub(crate) map: ClusterMap,
}

impl Watcher {
    pub(crate) async fn start(quorum: &Quorum, index: usize) -> Self {
        let request = WatchControllerMetadataRequest { cluster: CLUSTER.into() };
        let stream = quorum.client(index).watch_metadata(request).await.unwrap().into_inner();
        Watcher { stream, map: ClusterMap::default() }
    }

    /// The next update, adopted.
    pub(crate) async fn next(&mut self) -> MetadataUpdate {
        let next = tokio::time::timeout(PATIENCE, self.stream.message()).await.expect("no update came");
        let update = next.unwrap().expect("the stream ended");
        self.map.adopt(&update_from_wire(update.clone()).unwrap()).unwrap();
        update
    }

    /// Adopts updates until `check` accepts the map; gives the last one.
    pub(crate) async fn until(&mut self, check: impl Fn(&ClusterMap) -> bool) -> MetadataUpdate {
        loop {
            let update = self.next().await;
            if check(&self.map) {
                return update;
            }
        }
    }
}

/// A runtime for the test itself, apart from the controllers'.
pub(crate) fn runtime() -> Runtime {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_test_writer()
        .try_init();
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}
