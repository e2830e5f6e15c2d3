//! Clusters of processes: one controller, and a broker in each of some zones.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::process::{Process, eventually, run};

/// Names of the zones that brokers run in, in the order of their numbers.
pub(crate) const ZONES: [&str; 3] = ["a", "b", "c"];

/// Ports that were free a moment ago.
pub(crate) fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    // All are held until all are known: none comes twice.
    let held = [(); COUNT].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    held.map(|listener| listener.local_addr().expect("bound").port())
}

/// What the file of a broker says.
#[derive(Debug, Clone)]
pub(crate) struct BrokerFile {
    pub(crate) cluster: String,
    pub(crate) id: u32,
    pub(crate) zone: String,
    pub(crate) data_dir: PathBuf,
    pub(crate) client_port: u16,
    pub(crate) peer_port: u16,
    pub(crate) controller_port: u16,
}

impl BrokerFile {
    /// A broker of zone a that finds no controller.
    pub(crate) fn alone(data_dir: &Path) -> BrokerFile {
        let [client_port, peer_port, controller_port] = free_ports();
        let (cluster, zone) = ("test".to_owned(), "a".to_owned());
        BrokerFile {
            cluster,
            id: 1,
            zone,
            data_dir: data_dir.to_owned(),
            client_port,
            peer_port,
            controller_port,
        }
    }

    pub(crate) fn text(&self) -> String {
        format!(
            "cluster = {:?}\n[broker]\nid = {}\nzone = {:?}\ndata-dir = {:?}\n\
             client-listen = \"127.0.0.1:{}\"\npeer-listen = \"127.0.0.1:{}\"\n\
             controllers = [{{ id = 1, zone = \"a\", endpoint = \"127.0.0.1:{}\" }}]\n",
            self.cluster,
            self.id,
            self.zone,
            self.data_dir,
            self.client_port,
            self.peer_port,
            self.controller_port,
        )
    }

    /// Writes the file, and starts a broker with it.
    pub(crate) fn start(&self, folder: &Path, name: &str) -> Process {
        start("broker", &self.text(), folder, name)
    }
}

/// What the file of a controller says.
#[derive(Debug, Clone)]
pub(crate) struct ControllerFile {
    pub(crate) cluster: String,
    pub(crate) id: u32,
    pub(crate) data_dir: PathBuf,
    pub(crate) port: u16,
}

impl ControllerFile {
    /// The only controller of its cluster.
    pub(crate) fn alone(data_dir: &Path) -> ControllerFile {
        let [port] = free_ports();
        ControllerFile { cluster: "test".to_owned(), id: 1, data_dir: data_dir.to_owned(), port }
    }

    pub(crate) fn text(&self) -> String {
        let ControllerFile { cluster, id, data_dir, port } = self;
        format!(
            "cluster = {cluster:?}\n[controller]\nid = {id}\nzone = \"a\"\ndata-dir = {data_dir:?}\n\
             listen = \"127.0.0.1:{port}\"\n\
             voters = [{{ id = {id}, zone = \"a\", endpoint = \"127.0.0.1:{port}\" }}]\n",
        )
    }

    /// Writes the file, and starts a controller with it.
    pub(crate) fn start(&self, folder: &Path, name: &str) -> Process {
        start("controller", &self.text(), folder, name)
    }
}

/// Writes a file with this text, and starts a process with it.
pub(crate) fn start(role: &str, text: &str, folder: &Path, name: &str) -> Process {
    let file = folder.join(format!("{name}.toml"));
    std::fs::write(&file, text).expect("a file");
    Process::start(&[role, "--config", file.to_str().expect("text")], folder, name)
}

/// A controller and brokers that run.
pub(crate) struct Cluster {
    // Fields are dropped in order: the processes go before their files.
    pub(crate) controller: Process,
    pub(crate) brokers: Vec<Process>,
    pub(crate) controller_file: ControllerFile,
    pub(crate) broker_files: Vec<BrokerFile>,
    pub(crate) dir: TempDir,
}

impl Cluster {
    /// Starts a controller and a broker in each of the first `zones` zones, and waits until a topic can be made over
    /// them. The topic is called `ready`, has one partition, and stays.
    pub(crate) fn start(zones: usize) -> Cluster {
        let dir = tempfile::tempdir().expect("a folder");
        let controller_file = ControllerFile::alone(&dir.path().join("controller"));
        let broker_file = |number: usize| BrokerFile {
            id: number as u32 + 1,
            zone: ZONES[number].to_owned(),
            controller_port: controller_file.port,
            ..BrokerFile::alone(&dir.path().join(format!("broker-{}", ZONES[number])))
        };
        let broker_files: Vec<BrokerFile> = (0..zones).map(broker_file).collect();
        let controller = controller_file.start(dir.path(), "the-controller");
        let started = |file: &BrokerFile| file.start(dir.path(), &format!("the-broker-{}", file.zone));
        let brokers = broker_files.iter().map(started).collect();
        let mut cluster = Cluster { controller, brokers, controller_file, broker_files, dir };
        cluster.wait_until_ready(zones);
        cluster
    }

    fn wait_until_ready(&mut self, zones: usize) {
        let replication = zones.to_string();
        let mut create = vec!["topic", "create", "ready", "-p", "1", "-r", &replication, "--if-not-exists"];
        create.extend((zones < 3).then_some("--waive-zones"));
        eventually(|| {
            let log = |process: &Process| process.log();
            assert!(self.controller.is_alive(), "{}", log(&self.controller));
            assert!(self.brokers.iter_mut().all(Process::is_alive), "{:?}", self.brokers.iter().map(log));
            let outcome = self.run(&create);
            if outcome.code == Some(0) { Ok(()) } else { Err(outcome.stderr) }
        });
    }

    /// Address of a broker for clients.
    pub(crate) fn client_endpoint(&self, broker: usize) -> String {
        format!("127.0.0.1:{}", self.broker_files[broker].client_port)
    }

    /// Addresses of all listeners.
    pub(crate) fn listeners(&self) -> Vec<String> {
        let brokers = self.broker_files.iter().flat_map(|file| [file.client_port, file.peer_port]);
        brokers.chain([self.controller_file.port]).map(|port| format!("127.0.0.1:{port}")).collect()
    }

    /// Runs a client command against the first broker.
    pub(crate) fn run(&self, arguments: &[&str]) -> crate::process::Outcome {
        let bootstrap = self.client_endpoint(0);
        run(&[arguments, &["--bootstrap", &bootstrap]].concat())
    }

    /// Runs a client command against the first broker, with something on standard input.
    pub(crate) fn run_with_input(&self, arguments: &[&str], input: &str) -> crate::process::Outcome {
        let bootstrap = self.client_endpoint(0);
        crate::process::run_with(&[arguments, &["--bootstrap", &bootstrap]].concat(), &[], input)
    }
}
