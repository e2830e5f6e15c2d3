//! A further broker in a zone of a test cluster, for replicas to move to.

use std::path::PathBuf;

use holdfast_broker::{Broker, BrokerConfig, ControllerEndpoint, Listeners};
use holdfast_core::{BrokerId, ZoneId};
use holdfast_proto::transport::Listener;
use tokio::runtime::{Builder, Runtime};

/// Its number, zone and files, and the process as long as it runs. Its methods block.
#[derive(Debug)]
pub struct SpareBroker {
    id: u32,
    zone: &'static str,
    dir: PathBuf,
    controllers: Vec<ControllerEndpoint>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    control: Runtime,
    data: Runtime,
    _broker: Broker,
}

impl SpareBroker {
    /// Starts it.
    pub fn start(
        id: u32,
        zone: &'static str,
        dir: PathBuf,
        controllers: Vec<ControllerEndpoint>,
    ) -> SpareBroker {
        let mut spare = SpareBroker { id, zone, dir, controllers, running: None };
        spare.run();
        spare
    }

    /// Its number.
    pub fn id(&self) -> BrokerId {
        BrokerId(self.id)
    }

    /// Folder of its partitions.
    pub fn partitions_dir(&self) -> PathBuf {
        self.dir.join("partitions")
    }

    /// Ends it as a kill would.
    pub fn kill(&mut self) {
        if let Some(Running { control, data, .. }) = self.running.take() {
            data.shutdown_background();
            control.shutdown_background();
        }
    }

    fn run(&mut self) {
        let runtime =
            || Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let (control, data) = (runtime(), runtime());
        let broker = control.block_on(async {
            let bind = async || Listener::bind("127.0.0.1:0").await.expect("a free port");
            let listeners = Listeners { client: bind().await, peer: bind().await };
            let address = |listener: &Listener| listener.local_addr().expect("it is bound").to_string();
            let config = BrokerConfig::new(
                self.id(),
                ZoneId::new(self.zone),
                self.dir.clone(),
                address(&listeners.client),
                address(&listeners.peer),
                self.controllers.clone(),
            );
            let started = Broker::start("test".to_owned(), config, None, listeners, data.handle()).await;
            started.expect("the broker starts")
        });
        self.running = Some(Running { control, data, _broker: broker });
    }
}

impl Drop for SpareBroker {
    fn drop(&mut self) {
        self.kill();
    }
}
