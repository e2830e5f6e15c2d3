//! A broker process: what is started in which order, and how it ends.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use holdfast_core::metadata::BrokerRegistration;
use holdfast_core::replication::{ReplicaConfig, StoredReplica};
use holdfast_core::{Incarnation, PartitionId, ReplicaId};
use holdfast_log::{Fs, RealFs};
use holdfast_proto::internal::v1::repair_service_server::RepairServiceServer;
use holdfast_proto::internal::v1::replication_service_server::ReplicationServiceServer;
use holdfast_proto::transport::{
    ChannelError, Link, Listener, MAX_CLIENT_MESSAGE, MAX_PEER_MESSAGE, Tls, TlsError, server,
};
use holdfast_proto::v1::cluster_service_server::ClusterServiceServer;
use holdfast_proto::v1::fetch_service_server::FetchServiceServer;
use holdfast_proto::v1::offset_service_server::OffsetServiceServer;
use holdfast_proto::v1::partition_service_server::PartitionServiceServer;
use holdfast_proto::v1::produce_service_server::ProduceServiceServer;
use holdfast_proto::v1::topic_service_server::TopicServiceServer;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic_health::server::HealthReporter;
use tower::util::MapResponseLayer;

use crate::clock::Clock;
use crate::compaction::{CompactionStats, CompactorContext, compact};
use crate::config::BrokerConfig;
use crate::controllers::Controllers;
use crate::data_dir::{DataDir, DataDirError};
use crate::disk_space::DiskSpace;
use crate::fatal::Fatal;
use crate::flusher::Flusher;
use crate::handover::Handover;
use crate::heartbeat::{self, HeartbeatContext};
use crate::metadata::{self, MapHolder};
use crate::partition::{
    Command, Newest, Partitions, READ_ROOM, REMOVALS, Shard, ShardContext, ShardSenders, shard_queue,
};
use crate::peers::{PeerContext, Peers};
use crate::producer_ids::ProducerIds;
use crate::repair::{RepairContext, Repairs, scrub};
use crate::reports::Reports;
use crate::service::{
    Channels, ClusterApi, FetchApi, KEYS_ROOM, PEER_ROOM, PartitionApi, ProduceApi, REPAIR_ROOM, RepairApi,
    ReplicationApi, Room, ServiceContext, TopicApi, hold_until_sent,
};
use crate::state_store::{StateStore, StateStoreError};

type HoldRoom = fn(http::Response<Body>) -> http::Response<Body>;

/// How long calls under way may take to end in an orderly stop.
const DRAIN_PATIENCE: Duration = Duration::from_secs(2);
/// How long the disk may take to end the last flushes.
const FLUSH_PATIENCE: Duration = Duration::from_secs(20);

/// Why a broker could not start.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The configuration cannot be used.
    #[error("broker configuration: {}", .0.join("; "))]
    Config(Vec<String>),
    /// The data folder cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The journal of promises cannot be used.
    #[error(transparent)]
    StateStore(#[from] StateStoreError),
    /// An address cannot be dialled.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The disk does not say how much room there is.
    #[error("asking for the free space of the data folder's file system")]
    DiskSpace(#[source] io::Error),
    /// A thread could not be started.
    #[error("starting a thread")]
    Thread(#[from] io::Error),
    /// gRPC reflection could not be set up.
    #[error("setting up gRPC reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// The ports of a broker, bound.
#[derive(Debug)]
pub struct Listeners {
    /// For clients.
    pub client: Listener,
    /// For other brokers.
    pub peer: Listener,
}

/// A running broker. Dropping the runtimes that it was started on ends it as a kill would.
#[derive(Debug)]
pub struct Broker {
    shards: ShardSenders,
    flusher: Flusher,
    states: StateStore,
    /// None once its end is waited for.
    state_writer: Option<JoinHandle<bool>>,
    dir: Arc<DataDir>,
    health: HealthReporter,
    fatal: Fatal,
    serving: CancellationToken,
    killed: CancellationToken,
    servers: Vec<tokio::task::JoinHandle<()>>,
    handover: Handover,
    /// None where nothing is compacted here, and once its end is waited for.
    compactor: Option<tokio::task::JoinHandle<()>>,
}

impl Broker {
    /// Starts a broker: heartbeats and metadata on the runtime of the caller, records on `data`.
    ///
    /// # Errors
    /// Says which setting, file or address cannot be used.
    pub async fn start(
        cluster: String,
        config: BrokerConfig,
        tls: Option<Tls>,
        listeners: Listeners,
        data: &Handle,
    ) -> Result<Broker, BrokerError> {
        Broker::start_on(Arc::new(RealFs), cluster, config, tls, listeners, data).await
    }

    /// The same on files that behave differently from the system's: for tests of what a bad disk does.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_on(
        files: Arc<dyn Fs>,
        cluster: String,
        config: BrokerConfig,
        tls: Option<Tls>,
        listeners: Listeners,
        data: &Handle,
    ) -> Result<Broker, BrokerError> {
        let problems = config.validate();
        if !problems.is_empty() {
            return Err(BrokerError::Config(problems));
        }
        let dir = Arc::new(DataDir::open(files, &config.data_dir, &cluster, config.id)?);
        let space = DiskSpace::open(&dir, config.disk_reserve).map_err(BrokerError::DiskSpace)?;
        let fatal = Fatal::new();
        let opened = StateStore::open(&dir, &fatal)?;
        let controllers = Controllers::new(&config.controllers, tls.as_ref())?;
        let flusher = Flusher::start(&dir, config.flush_threads, &fatal)?;
        let map = MapHolder::load(&dir);
        let (senders, queues): (Vec<_>, Vec<_>) = (0..config.shard_count()).map(|_| shard_queue()).unzip();
        let me = ReplicaId { broker: config.id, dir: dir.dir_id() };
        let (shards, partitions) = (ShardSenders::new(senders), Partitions::default());
        let repairs = Repairs::new(RepairContext {
            cluster: cluster.clone(),
            me,
            tls: tls.clone(),
            dir: Arc::clone(&dir),
            map: map.subscribe(),
            partitions: partitions.clone(),
            shards: shards.clone(),
            runtime: data.clone(),
        });
        let parts = Parts {
            me,
            incarnation: Incarnation(rand::random_range(1..=u64::MAX)),
            clock: Clock::new(),
            killed: CancellationToken::new(),
            fatal,
            shards,
            reports: Reports::default(),
            partitions,
            repairs,
            compaction_stats: CompactionStats::default(),
            data: data.clone(),
            producer_ids: Arc::new(ProducerIds::load(Arc::clone(&dir), controllers.clone())),
            cluster,
            config,
            tls,
            dir,
            states: opened.store,
            flusher,
            space,
            map,
            controllers,
        };
        match parts.launch(queues, opened.stored, listeners).await {
            Ok(Launched { serving, servers, health, handover, compactor }) => {
                let state_writer = Some(opened.thread);
                let Parts { shards, flusher, states, dir, killed, fatal, .. } = parts;
                Ok(Broker {
                    shards,
                    flusher,
                    states,
                    state_writer,
                    dir,
                    health,
                    fatal,
                    serving,
                    killed,
                    servers,
                    handover,
                    compactor,
                })
            }
            Err(error) => {
                // Threads that were started end, and with them goes the folder's lock.
                parts.killed.cancel();
                parts.flusher.close();
                parts.states.close();
                Err(error)
            }
        }
    }

    /// Waits until the broker cannot go on, and says why: a controller refuses it, or its promises cannot be kept.
    pub async fn failed(&self) -> String {
        self.fatal.wait().await
    }

    /// Ends in order: others take over what is led here, no new calls, what is under way is answered, everything is
    /// flushed.
    pub async fn shutdown(mut self) {
        self.handover.run().await;
        self.health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
        self.serving.cancel();
        let servers = std::mem::take(&mut self.servers);
        let ends: Vec<_> = servers.iter().map(tokio::task::JoinHandle::abort_handle).collect();
        let drained = futures::future::join_all(servers);
        if tokio::time::timeout(DRAIN_PATIENCE, drained).await.is_err() {
            tracing::info!("streams that are still open are cut");
            ends.iter().for_each(tokio::task::AbortHandle::abort);
        }
        if tokio::time::timeout(FLUSH_PATIENCE, self.end_writing()).await.is_err() {
            tracing::warn!("the disk takes too long: stopping without it, the next start checks the logs");
        }
        self.killed.cancel();
    }

    /// Flushes everything, and notes that the run ended in order where that went well.
    async fn end_writing(&mut self) {
        if let Some(compactor) = self.compactor.take() {
            // An error says that it has ended as well.
            let _ = compactor.await;
        }
        let flushed = self.shards.close().await;
        self.states.close();
        self.flusher.close();
        let (dir, writer) = (Arc::clone(&self.dir), self.state_writer.take());
        let ended = tokio::task::spawn_blocking(move || {
            let promises_kept = writer.is_some_and(|writer| writer.join().unwrap_or(false));
            if flushed && promises_kept { dir.mark_clean() } else { Ok(()) }
        });
        if let Ok(Err(error)) = ended.await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "could not note the orderly stop: the next start checks the log");
        }
    }
}

/// What runs once a broker was started.
struct Launched {
    serving: CancellationToken,
    servers: Vec<tokio::task::JoinHandle<()>>,
    health: HealthReporter,
    handover: Handover,
    compactor: Option<tokio::task::JoinHandle<()>>,
}

/// Everything that the parts of a broker share.
struct Parts {
    me: ReplicaId,
    incarnation: Incarnation,
    clock: Clock,
    cluster: String,
    config: BrokerConfig,
    tls: Option<Tls>,
    dir: Arc<DataDir>,
    states: StateStore,
    flusher: Flusher,
    space: DiskSpace,
    map: MapHolder,
    controllers: Controllers,
    shards: ShardSenders,
    reports: Reports,
    partitions: Partitions,
    repairs: Repairs,
    compaction_stats: CompactionStats,
    producer_ids: Arc<ProducerIds>,
    data: Handle,
    killed: CancellationToken,
    fatal: Fatal,
}

impl Parts {
    /// Starts threads, tasks and servers.
    async fn launch(
        &self,
        queues: Vec<mpsc::Receiver<Command>>,
        stored: BTreeMap<PartitionId, StoredReplica>,
        listeners: Listeners,
    ) -> Result<Launched, BrokerError> {
        self.end_with_runtimes();
        self.start_shards(queues, stored)?;
        let serving = CancellationToken::new();
        let context = self.service_context(&serving);
        let (servers, health) = self.start_servers(listeners, &serving, &context).await?;
        let (draining, says_draining) = watch::channel(false);
        self.start_control(&says_draining);
        let compactor = self.start_compactor(&serving);
        let handover = Handover::new(self.me, context, draining);
        Ok(Launched { serving, servers, health, handover, compactor })
    }

    /// Threads of our own end with either runtime, without a word, as they would with the process.
    fn end_with_runtimes(&self) {
        for runtime in [Handle::current(), self.data.clone()] {
            let end = self.killed.clone().drop_guard();
            runtime.spawn(async move {
                let _end = end;
                std::future::pending::<()>().await;
            });
        }
    }

    fn start_shards(
        &self,
        queues: Vec<mpsc::Receiver<Command>>,
        stored: BTreeMap<PartitionId, StoredReplica>,
    ) -> Result<(), BrokerError> {
        let peers = Peers::new(PeerContext {
            cluster: self.cluster.clone(),
            me: self.me.broker,
            incarnation: self.incarnation,
            tls: self.tls.clone(),
            map: self.map.subscribe(),
            shards: self.shards.clone(),
            queue_bytes: usize::try_from(self.config.replication.peer_queue.0).unwrap_or(usize::MAX),
            runtime: self.data.clone(),
        });
        let read_room = Arc::new(Semaphore::new(READ_ROOM));
        let newest_bytes = usize::try_from(self.config.newest_batches.0).unwrap_or(usize::MAX);
        let removals = Arc::new(Semaphore::new(REMOVALS));
        for (number, (own, queue)) in self.shards.all().cloned().zip(queues).enumerate() {
            let is_mine = |partition: &PartitionId| self.shards.of(*partition).same_channel(&own);
            let mine = stored.iter().filter(|(partition, _)| is_mine(partition));
            let mine = mine.map(|(&partition, stored)| (partition, stored.clone())).collect();
            let context = ShardContext {
                clock: self.clock,
                dir: Arc::clone(&self.dir),
                me: self.me,
                incarnation: self.incarnation,
                log: self.config.log.clone(),
                replica: replica_config(&self.config),
                states: self.states.clone(),
                flusher: self.flusher.clone(),
                space: self.space.clone(),
                peers: peers.clone(),
                newest: Newest::new(newest_bytes / self.shards.all().count()),
                reports: self.reports.clone(),
                partitions: self.partitions.clone(),
                repairs: self.repairs.clone(),
                blocking: self.data.clone(),
                read_room: Arc::clone(&read_room),
                removals: Arc::clone(&removals),
                own,
                killed: self.killed.clone(),
                fatal: self.fatal.clone(),
            };
            Shard::start(number, context, mine, queue)?;
        }
        Ok(())
    }

    fn start_control(&self, draining: &watch::Receiver<bool>) {
        tokio::spawn(self.space.clone().run());
        if self.config.scrub_rate.0 > 0 {
            let (repairs, fatal) = (self.repairs.clone(), self.fatal.clone());
            self.data.spawn(scrub(repairs, self.config.scrub_rate.0, fatal));
        }
        let heartbeats = HeartbeatContext {
            cluster: self.cluster.clone(),
            registration: BrokerRegistration {
                id: self.me.broker,
                zone: self.config.zone.clone(),
                dir: self.me.dir,
                incarnation: self.incarnation,
                client_endpoint: self.config.client_endpoint().to_owned(),
                peer_endpoint: self.config.peer_endpoint().to_owned(),
            },
            interval: self.config.heartbeat_interval,
            reports: self.reports.clone(),
            draining: draining.clone(),
            room: self.space.subscribe(),
            fatal: self.fatal.clone(),
        };
        for controller in self.controllers.iter() {
            tokio::spawn(heartbeat::run(heartbeats.clone(), Arc::clone(controller)));
            tokio::spawn(metadata::watch_controller(
                self.cluster.clone(),
                Arc::clone(controller),
                self.map.clone(),
            ));
        }
        let producer_ids = Arc::clone(&self.producer_ids);
        tokio::spawn(async move { producer_ids.keep_filled().await });
        // What was loaded is what is on disk.
        let (saved, saved_index) = watch::channel(self.map.current().index());
        tokio::spawn(metadata::save(Arc::clone(&self.dir), self.map.subscribe(), saved));
        tokio::spawn(metadata::assign(
            self.me,
            self.map.subscribe(),
            saved_index,
            self.shards.clone(),
            Arc::clone(&self.dir),
        ));
    }

    /// Ends with `serving`, before the logs are closed.
    fn start_compactor(&self, serving: &CancellationToken) -> Option<tokio::task::JoinHandle<()>> {
        let config = &self.config;
        let context = CompactorContext {
            dir: Arc::clone(&self.dir),
            map: self.map.subscribe(),
            partitions: self.partitions.clone(),
            shards: self.shards.clone(),
            repairs: self.repairs.clone(),
            space: self.space.clone(),
            stats: self.compaction_stats.clone(),
            fatal: self.fatal.clone(),
            ending: serving.clone(),
            rate: config.compaction_rate.0,
            map_bytes: usize::try_from(config.compaction_map.0).unwrap_or(usize::MAX),
            interval: config.compaction_interval,
        };
        (config.compaction_rate.0 > 0).then(|| self.data.spawn(compact(context)))
    }

    fn service_context(&self, serving: &CancellationToken) -> Arc<ServiceContext> {
        Arc::new(ServiceContext {
            cluster: self.cluster.clone(),
            broker: self.me.broker,
            zone: self.config.zone.clone(),
            config: self.config.clone(),
            clock: self.clock,
            map: self.map.clone(),
            partitions: self.partitions.clone(),
            shards: self.shards.clone(),
            space: self.space.clone(),
            controllers: self.controllers.clone(),
            tls: self.tls.clone(),
            produce_room: Arc::new(Semaphore::new(
                usize::try_from(self.config.max_inflight_produce.0)
                    .unwrap_or(usize::MAX)
                    .min(Semaphore::MAX_PERMITS),
            )),
            keys_room: Room::new(KEYS_ROOM),
            fetch_room: Room::new(self.config.max_inflight_fetch.0),
            peer_room: Arc::new(Semaphore::new(PEER_ROOM)),
            repair_room: Room::new(REPAIR_ROOM),
            repairs: self.repairs.clone(),
            compaction_stats: self.compaction_stats.clone(),
            channels: Channels::default(),
            producer_ids: Arc::clone(&self.producer_ids),
            ending: serving.clone(),
        })
    }

    async fn start_servers(
        &self,
        listeners: Listeners,
        serving: &CancellationToken,
        context: &Arc<ServiceContext>,
    ) -> Result<(Vec<tokio::task::JoinHandle<()>>, HealthReporter), BrokerError> {
        let (health, health_service) = tonic_health::server::health_reporter();
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(holdfast_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        let fetch = FetchApi { context: Arc::clone(context) };
        let produce = limited(ProduceServiceServer::new(ProduceApi::new(Arc::clone(context))));
        let fetching = FetchServiceServer::new(fetch.clone())
            .max_decoding_message_size(MAX_CLIENT_MESSAGE)
            .max_encoding_message_size(MAX_CLIENT_MESSAGE);
        let offsets = OffsetServiceServer::new(fetch);
        let cluster = ClusterServiceServer::new(ClusterApi { context: Arc::clone(context) });
        let held = MapResponseLayer::new(hold_until_sent as HoldRoom);
        let clients = server(Link::Client)
            .layer(held.clone())
            .add_service(health_service.clone())
            .add_service(reflection)
            .add_service(PartitionServiceServer::new(PartitionApi { context: Arc::clone(context) }))
            .add_service(TopicServiceServer::new(TopicApi { context: Arc::clone(context) }))
            .add_service(produce.clone())
            .add_service(fetching.clone())
            .add_service(offsets.clone())
            .add_service(cluster.clone());
        // Other brokers forward to the leader here.
        let peers = server(Link::Peer)
            .layer(held)
            .add_service(health_service)
            .add_service(produce)
            .add_service(fetching)
            .add_service(offsets)
            .add_service(cluster)
            .add_service(
                RepairServiceServer::new(RepairApi { context: Arc::clone(context) })
                    .max_encoding_message_size(MAX_PEER_MESSAGE),
            )
            .add_service(
                ReplicationServiceServer::new(ReplicationApi { context: Arc::clone(context) })
                    .max_decoding_message_size(MAX_PEER_MESSAGE)
                    .max_encoding_message_size(MAX_PEER_MESSAGE),
            );
        // Accept loops, connections and calls run where records are worked on.
        let _data = self.data.enter();
        let served = [
            ("clients", clients, listeners.client.incoming(self.tls.as_ref())?),
            ("brokers", peers, listeners.peer.incoming(self.tls.as_ref())?),
        ]
        .map(|(name, router, incoming)| {
            let end = serving.clone().cancelled_owned();
            self.data.spawn(async move {
                if let Err(error) = router.serve_with_incoming_shutdown(incoming, end).await {
                    tracing::error!(error = &error as &dyn std::error::Error, "serving {name} ended");
                }
            })
        });
        Ok((served.into(), health))
    }
}

fn limited(service: ProduceServiceServer<ProduceApi>) -> ProduceServiceServer<ProduceApi> {
    service.max_decoding_message_size(MAX_CLIENT_MESSAGE).max_encoding_message_size(MAX_CLIENT_MESSAGE)
}

fn replica_config(config: &BrokerConfig) -> ReplicaConfig {
    let replication = &config.replication;
    ReplicaConfig {
        flush_interval: replication.flush_interval,
        inflight_limit: usize::try_from(replication.inflight_limit.0).unwrap_or(usize::MAX),
        calm_lead_interval: replication.calm_lead_interval(),
        quorum_timeout: replication.quorum_timeout,
        stall_timeout: replication.stall_timeout,
        ..ReplicaConfig::default()
    }
}
