//! What the integration tests share: a cluster of three zones on ports that the system chooses, and waiting with a
//! deadline that says what was missing.

mod bad_disk;
mod proxy;
mod spare;

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use holdfast_cli::demo::cluster::{ClusterOptions, LocalCluster, ZONES};
use holdfast_client::{Client, Producer, Record, StartAt, Until};
use holdfast_core::ZoneId;
use holdfast_core::metadata::{Durability, TopicSpec};
use holdfast_proto::transport::Tls;
use tempfile::TempDir;

pub use bad_disk::BadDisk;
pub use proxy::StallProxy;
pub use spare::SpareBroker;

/// Deadline of everything that is waited for: generous, because a test never fails for a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster whose files go with it.
#[derive(Debug)]
pub struct TestCluster {
    cluster: Arc<Mutex<Option<LocalCluster>>>,
    bootstrap: Vec<String>,
    tls: Option<Tls>,
    dir: TempDir,
}

impl TestCluster {
    /// Three zones, each with a controller and a broker.
    pub async fn start() -> TestCluster {
        TestCluster::start_with(None).await
    }

    /// The same, speaking TLS.
    pub async fn start_with(tls: Option<Tls>) -> TestCluster {
        TestCluster::start_as(|options| options.tls = tls).await
    }

    /// Three zones whose clients come through a proxy each. The proxies live as long as the runtime of the caller.
    pub async fn start_behind_proxies() -> (TestCluster, Vec<StallProxy>) {
        let mut proxies = Vec::new();
        for _ in ZONES {
            proxies.push(StallProxy::start().await);
        }
        let endpoints: Vec<String> = proxies.iter().map(|proxy| proxy.address().to_owned()).collect();
        let given = endpoints.clone();
        let mut cluster = TestCluster::start_as(|options| options.client_endpoints = given).await;
        for (proxy, listens_at) in proxies.iter().zip(&cluster.bootstrap) {
            proxy.forward_to(listens_at);
        }
        cluster.bootstrap = endpoints;
        (cluster, proxies)
    }

    /// The same with options of its own.
    pub async fn start_as(set: impl FnOnce(&mut ClusterOptions)) -> TestCluster {
        holdfast_proto::transport::install_crypto_provider();
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut options = ClusterOptions::new("test", dir.path());
        set(&mut options);
        let tls = options.tls.clone();
        let started = tokio::task::spawn_blocking(move || LocalCluster::start(options));
        let cluster = started.await.expect("no panic").expect("the cluster starts");
        let bootstrap = cluster.bootstrap();
        TestCluster { cluster: Arc::new(Mutex::new(Some(cluster))), bootstrap, tls, dir }
    }

    /// Addresses of all brokers for clients.
    pub fn bootstrap(&self) -> &[String] {
        &self.bootstrap
    }

    /// Folder of a broker's partitions.
    pub fn partitions_dir(&self, zone: usize) -> std::path::PathBuf {
        self.dir.path().join(format!("broker-{}", ZONES[zone])).join("partitions")
    }

    /// Folder of everything that a broker keeps.
    pub fn broker_dir(&self, zone: usize) -> std::path::PathBuf {
        self.dir.path().join(format!("broker-{}", ZONES[zone]))
    }

    /// A further broker in a zone; its number has to be a new one.
    pub async fn spare(&self, id: u32, zone: usize) -> SpareBroker {
        let dir = self.dir.path().join(format!("spare-{id}"));
        self.with(move |cluster| SpareBroker::start(id, ZONES[zone], dir, cluster.controllers())).await
    }

    /// A client that knows all brokers.
    pub async fn client(&self) -> Client {
        self.client_of(&self.bootstrap).await
    }

    /// A client that knows some brokers.
    pub async fn client_of(&self, bootstrap: &[String]) -> Client {
        let client = Client::builder().bootstrap(bootstrap.iter().cloned()).tls(self.tls.clone());
        client.connect_timeout(PATIENCE).connect().await.expect("a broker answers")
    }

    /// Does something to the cluster, on a thread that may block.
    pub async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut LocalCluster) -> T + Send + 'static,
    ) -> T {
        let cluster = Arc::clone(&self.cluster);
        let done = tokio::task::spawn_blocking(move || {
            let mut guard = cluster.lock().unwrap_or_else(PoisonError::into_inner);
            work(guard.as_mut().expect("the cluster was not shut down"))
        });
        done.await.expect("no panic")
    }

    /// Kills a zone.
    pub async fn kill(&self, zone: usize) {
        self.with(move |cluster| cluster.kill(zone)).await;
    }

    /// Starts a zone again.
    pub async fn heal(&self, zone: usize) {
        self.with(move |cluster| cluster.heal(zone)).await.expect("the zone starts again");
    }

    /// Creates a topic; retries while zones register.
    pub async fn create_topic(&self, client: &Client, name: &str, partitions: u32, durability: Durability) {
        let spec = TopicSpec { partitions, durability, ..TopicSpec::default() };
        eventually(&format!("topic {name} is created"), || async {
            client.create_topic(name, spec.clone()).await.map_err(|error| error.to_string())
        })
        .await;
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        let cluster = self.cluster.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut cluster) = cluster {
            (0..ZONES.len()).for_each(|zone| cluster.kill(zone));
        }
    }
}

/// Tries until it succeeds; after `PATIENCE` fails with what was missing.
pub async fn eventually<T, E: std::fmt::Display, F: Future<Output = Result<T, E>>>(
    what: &str,
    mut attempt: impl FnMut() -> F,
) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) if Instant::now() > give_up => panic!("not within {PATIENCE:?}: {what}: {error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Sends numbered records to all partitions in turn and waits for every acknowledgement.
pub async fn produce(producer: &Producer, numbers: std::ops::Range<u32>) {
    let mut pending = Vec::new();
    for number in numbers {
        let record = Record::new(number.to_string()).with_partition(number % producer.partitions());
        pending.push((number, producer.send(record).await.expect("room")));
    }
    for (number, pending) in pending {
        if let Err(error) = pending.await {
            panic!("record {number} was not acknowledged: {error}: {}", error.source);
        }
    }
}

/// Everything committed, as (partition, number), in the order of each partition.
pub async fn read_all(client: &Client, topic: &str) -> Vec<(u32, u32)> {
    let consumer = client.consumer(topic).start(StartAt::Beginning).stop(Until::HighWatermarkAtStart);
    let mut consumer = consumer.build().await.expect("a consumer");
    let mut numbers = Vec::new();
    while let Some(batch) = consumer.next_batch().await {
        let batch = batch.expect("readable");
        for record in &batch.records {
            let text = std::str::from_utf8(record.value.as_deref().expect("a value")).expect("a number");
            numbers.push((batch.partition, text.parse().expect("a number")));
        }
    }
    numbers
}

/// Asserts that exactly these numbers are there, each once, in order within their partition.
pub async fn assert_holds(client: &Client, topic: &str, numbers: std::ops::Range<u32>) {
    let read = read_all(client, topic).await;
    let mut last = std::collections::BTreeMap::new();
    for &(partition, number) in &read {
        if let Some(before) = last.insert(partition, number) {
            assert!(before < number, "partition {partition}: {number} after {before}");
        }
    }
    let mut found: Vec<u32> = read.into_iter().map(|(_, number)| number).collect();
    found.sort_unstable();
    assert_eq!(found, numbers.collect::<Vec<_>>());
}

/// Partitions of a topic that are led in a zone, as the client's map says.
pub fn led_in(client: &Client, topic: &str, zone: usize) -> usize {
    let map = client.map();
    let Some(topic) = map.topic_named(topic) else { return 0 };
    let zone = ZoneId::new(ZONES[zone]);
    let led = |id| map.leader_of(id).is_some_and(|leader| leader.zone == zone);
    map.partitions_of(topic.id).filter(|partition| led(partition.id)).count()
}
