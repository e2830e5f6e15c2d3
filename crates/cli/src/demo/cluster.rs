//! A whole cluster in this process: real listeners, real files, a runtime or two per zone.
//!
//! A zone is killed by dropping its runtimes: its sockets close as those of a killed process do, nothing is flushed,
//! nobody is told.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_broker::{Broker, BrokerConfig, BrokerError, ControllerEndpoint, Listeners};
use holdfast_controller::{Controller, ControllerConfig, ControllerError, VoterConfig};
use holdfast_core::{BrokerId, ControllerId, ZoneId};
use holdfast_log::{ByteSize, Fs, LogConfig, RealFs};
use holdfast_proto::transport::{Listener, Tls};
use tokio::runtime::Runtime;

/// Names of the zones.
pub const ZONES: [&str; 3] = ["a", "b", "c"];
/// A port of a zone that was just killed may be taken for a moment.
const BIND_PATIENCE: Duration = Duration::from_secs(5);

/// Why a cluster could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A port cannot be had.
    #[error("listening on {address}")]
    Bind {
        /// The address.
        address: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A runtime cannot be had.
    #[error("starting a runtime")]
    Runtime(#[source] io::Error),
    /// A controller.
    #[error("starting the controller of zone {zone}")]
    Controller {
        /// Its zone.
        zone: &'static str,
        /// Why not.
        #[source]
        source: ControllerError,
    },
    /// A broker.
    #[error("starting the broker of zone {zone}")]
    Broker {
        /// Its zone.
        zone: &'static str,
        /// Why not.
        #[source]
        source: BrokerError,
    },
}

/// How a cluster is set up.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// Name of the cluster.
    pub name: String,
    /// Folder of all zones' files.
    pub dir: PathBuf,
    /// First client port; zone b has the next, zone c the one after. 0: the system chooses all ports.
    pub client_port: u16,
    /// `host:port` that clients are given instead of where brokers listen, one per zone; empty: as they listen.
    pub client_endpoints: Vec<String>,
    /// Size at which log segments are sealed.
    pub segment_size: u64,
    /// How often a broker looks for partitions to compact; `None`: as they have it.
    pub compaction_interval: Option<Duration>,
    /// Certificates of all processes.
    pub tls: Option<Tls>,
    /// When a dead broker is replaced (`replace-after` of the controllers); `None`: as they have it.
    pub replace_after: Option<Duration>,
    /// When leaders go home (`home-after` of the controllers); `None`: as they have it.
    pub home_after: Option<Duration>,
    /// Files of the brokers, one kind per zone, for tests of what a bad disk does; empty: the system's.
    pub files: Vec<Arc<dyn Fs>>,
}

impl ClusterOptions {
    /// Any free ports, files in `dir`.
    pub fn new(name: &str, dir: &Path) -> ClusterOptions {
        ClusterOptions {
            name: name.to_owned(),
            dir: dir.to_owned(),
            client_port: 0,
            client_endpoints: Vec::new(),
            segment_size: LogConfig::default().segment_size.0,
            compaction_interval: None,
            tls: None,
            replace_after: None,
            home_after: None,
            files: Vec::new(),
        }
    }
}

/// Three zones. Its methods block: call them from a thread that may.
#[derive(Debug)]
pub struct LocalCluster {
    options: ClusterOptions,
    addresses: Vec<Addresses>,
    zones: Vec<Zone>,
}

#[derive(Debug, Clone)]
struct Addresses {
    controller: String,
    client: String,
    peer: String,
}

#[derive(Debug, Default)]
struct Zone {
    controller: Option<RunningController>,
    broker: Option<RunningBroker>,
}

#[derive(Debug)]
struct RunningController {
    runtime: Runtime,
    controller: Controller,
}

#[derive(Debug)]
struct RunningBroker {
    control: Runtime,
    data: Runtime,
    broker: Broker,
}

/// A controller's port, bound on its runtime.
struct BoundController {
    runtime: Runtime,
    listener: Listener,
}

/// A broker's ports, bound on its runtime.
struct BoundBroker {
    control: Runtime,
    data: Runtime,
    listeners: Listeners,
}

impl LocalCluster {
    /// Starts all zones.
    ///
    /// # Errors
    /// Says what could not be had.
    pub fn start(options: ClusterOptions) -> Result<LocalCluster, ClusterError> {
        let first = options.client_port;
        let address = |offset: u16, zone: usize| {
            let port = if first == 0 { 0 } else { first + offset + zone as u16 };
            format!("127.0.0.1:{port}")
        };
        let mut bound = Vec::new();
        let mut addresses = Vec::new();
        for zone in 0..ZONES.len() {
            let controller = bind_controller(&address(200, zone))?;
            let broker = bind_broker(&address(0, zone), &address(100, zone))?;
            addresses.push(Addresses {
                controller: bound_to(&controller.listener)?,
                client: bound_to(&broker.listeners.client)?,
                peer: bound_to(&broker.listeners.peer)?,
            });
            bound.push((controller, broker));
        }
        let mut cluster = LocalCluster { options, addresses, zones: Vec::new() };
        for (number, (controller, broker)) in bound.into_iter().enumerate() {
            let controller = Some(cluster.start_controller(number, controller)?);
            let broker = Some(cluster.start_broker(number, broker)?);
            cluster.zones.push(Zone { controller, broker });
        }
        Ok(cluster)
    }

    /// Addresses of all brokers for clients.
    pub fn bootstrap(&self) -> Vec<String> {
        self.addresses.iter().map(|addresses| addresses.client.clone()).collect()
    }

    /// Where the controllers are, for further brokers.
    pub fn controllers(&self) -> Vec<ControllerEndpoint> {
        let controllers = self.addresses.iter().enumerate().map(|(zone, addresses)| ControllerEndpoint {
            id: ControllerId(zone as u64 + 1),
            zone: ZoneId::new(ZONES[zone]),
            endpoint: addresses.controller.clone(),
        });
        controllers.collect()
    }

    /// Whether both processes of a zone run.
    pub fn is_up(&self, zone: usize) -> bool {
        self.zones[zone].controller.is_some() && self.zones[zone].broker.is_some()
    }

    /// The zone whose controller leads, as the controllers that run say.
    pub fn controller_leader(&self) -> Option<usize> {
        let mut running = self.zones.iter().filter_map(|zone| zone.controller.as_ref());
        let leader = running.find_map(|running| running.controller.leader())?;
        let zone = usize::try_from(leader.0 - 1).ok()?;
        self.zones.get(zone)?.controller.as_ref().map(|_| zone)
    }

    /// Ends a zone as a power cut of its machines would: sockets close, memory is gone. What is down stays down.
    pub fn kill(&mut self, zone: usize) {
        self.kill_broker(zone);
        self.kill_controller(zone);
    }

    /// Ends only the controller of a zone.
    pub fn kill_controller(&mut self, zone: usize) {
        if let Some(RunningController { runtime, .. }) = self.zones[zone].controller.take() {
            runtime.shutdown_background();
        }
    }

    /// Ends only the broker of a zone.
    pub fn kill_broker(&mut self, zone: usize) {
        if let Some(RunningBroker { control, data, .. }) = self.zones[zone].broker.take() {
            data.shutdown_background();
            control.shutdown_background();
        }
    }

    /// Ends only the broker of a zone, in order.
    pub fn stop_broker(&mut self, zone: usize) {
        if let Some(RunningBroker { control, data, broker }) = self.zones[zone].broker.take() {
            control.block_on(broker.shutdown());
            data.shutdown_background();
            control.shutdown_background();
        }
    }

    /// Starts what is down in a zone, on the files it left.
    ///
    /// # Errors
    /// Says what could not be had.
    pub fn heal(&mut self, zone: usize) -> Result<(), ClusterError> {
        self.heal_controller(zone)?;
        self.heal_broker(zone)
    }

    /// Starts the controller of a zone if it is down.
    ///
    /// # Errors
    /// Says what could not be had.
    pub fn heal_controller(&mut self, zone: usize) -> Result<(), ClusterError> {
        if self.zones[zone].controller.is_none() {
            let bound = bind_controller(&self.addresses[zone].controller)?;
            self.zones[zone].controller = Some(self.start_controller(zone, bound)?);
        }
        Ok(())
    }

    /// Starts the broker of a zone if it is down.
    ///
    /// # Errors
    /// Says what could not be had.
    pub fn heal_broker(&mut self, zone: usize) -> Result<(), ClusterError> {
        if self.zones[zone].broker.is_none() {
            let addresses = &self.addresses[zone];
            let bound = bind_broker(&addresses.client, &addresses.peer)?;
            self.zones[zone].broker = Some(self.start_broker(zone, bound)?);
        }
        Ok(())
    }

    /// Ends all zones in order.
    pub fn shutdown(self) {
        for Zone { controller, broker } in self.zones {
            if let Some(RunningBroker { control, data, broker }) = broker {
                control.block_on(broker.shutdown());
                data.shutdown_background();
                control.shutdown_background();
            }
            if let Some(RunningController { runtime, controller }) = controller {
                runtime.block_on(controller.shutdown());
                runtime.shutdown_background();
            }
        }
    }

    fn start_controller(
        &self,
        number: usize,
        bound: BoundController,
    ) -> Result<RunningController, ClusterError> {
        let BoundController { runtime, listener } = bound;
        let config = self.controller_config(number);
        let start = Controller::start(self.options.name.clone(), config, self.options.tls.clone(), listener);
        match runtime.block_on(start) {
            Ok(controller) => Ok(RunningController { runtime, controller }),
            Err(source) => {
                runtime.shutdown_background();
                Err(ClusterError::Controller { zone: ZONES[number], source })
            }
        }
    }

    fn start_broker(&self, number: usize, bound: BoundBroker) -> Result<RunningBroker, ClusterError> {
        let BoundBroker { control, data, listeners } = bound;
        let (name, tls) = (self.options.name.clone(), self.options.tls.clone());
        let files = self.options.files.get(number).cloned().unwrap_or_else(|| Arc::new(RealFs));
        let config = self.broker_config(number);
        let start = Broker::start_on(files, name, config, tls, listeners, data.handle());
        match control.block_on(start) {
            Ok(broker) => Ok(RunningBroker { control, data, broker }),
            Err(source) => {
                data.shutdown_background();
                control.shutdown_background();
                Err(ClusterError::Broker { zone: ZONES[number], source })
            }
        }
    }

    fn controller_config(&self, number: usize) -> ControllerConfig {
        let voters = self.addresses.iter().enumerate().map(|(zone, addresses)| VoterConfig {
            id: ControllerId(zone as u64 + 1),
            zone: ZoneId::new(ZONES[zone]),
            endpoint: addresses.controller.clone(),
        });
        let mut config = ControllerConfig::new(
            ControllerId(number as u64 + 1),
            ZoneId::new(ZONES[number]),
            self.options.dir.join(format!("controller-{}", ZONES[number])),
            self.addresses[number].controller.clone(),
            voters.collect(),
        );
        config.replace_after = self.options.replace_after.or(config.replace_after);
        config.home_after = self.options.home_after.unwrap_or(config.home_after);
        config
    }

    fn broker_config(&self, number: usize) -> BrokerConfig {
        let addresses = &self.addresses[number];
        let mut config = BrokerConfig::new(
            BrokerId(number as u32 + 1),
            ZoneId::new(ZONES[number]),
            self.options.dir.join(format!("broker-{}", ZONES[number])),
            addresses.client.clone(),
            addresses.peer.clone(),
            self.controllers(),
        );
        config.client_endpoint = self.options.client_endpoints.get(number).cloned();
        config.log.segment_size = ByteSize(self.options.segment_size);
        config.compaction_interval = self.options.compaction_interval.unwrap_or(config.compaction_interval);
        config
    }
}

fn bound_to(listener: &Listener) -> Result<String, ClusterError> {
    Ok(listener.local_addr().map_err(ClusterError::Runtime)?.to_string())
}

fn bind_controller(address: &str) -> Result<BoundController, ClusterError> {
    let runtime = runtime("controller", 1)?;
    let listener = runtime.block_on(bind_one(address))?;
    Ok(BoundController { runtime, listener })
}

fn bind_broker(client: &str, peer: &str) -> Result<BoundBroker, ClusterError> {
    let control = runtime("control", 1)?;
    let data = runtime("data", 2)?;
    let listeners = control
        .block_on(async { Ok(Listeners { client: bind_one(client).await?, peer: bind_one(peer).await? }) })?;
    Ok(BoundBroker { control, data, listeners })
}

async fn bind_one(address: &str) -> Result<Listener, ClusterError> {
    let give_up = Instant::now() + BIND_PATIENCE;
    loop {
        match Listener::bind(address).await {
            Ok(listener) => return Ok(listener),
            // The listener of the zone's last life closes when its runtime has let go of it.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < give_up => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(source) => return Err(ClusterError::Bind { address: address.to_owned(), source }),
        }
    }
}

fn runtime(name: &str, threads: usize) -> Result<Runtime, ClusterError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name(name)
        .enable_all()
        .build()
        .map_err(ClusterError::Runtime)
}
