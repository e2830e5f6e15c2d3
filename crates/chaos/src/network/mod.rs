//! Where the processes run: on 127.0.0.1, or each zone in a network namespace with its own address.

pub(crate) mod injector;
pub(crate) mod leftovers;
pub(crate) mod namespaces;
pub(crate) mod system;

use std::path::Path;

use crate::error::ChaosError;
use crate::zone::Zone;
use injector::{Cut, Injector};

/// Ports of the processes of a zone in its namespace, and of zone a on 127.0.0.1 before the shift.
const CLIENT_PORT: u16 = 7070;
const PEER_PORT: u16 = 7170;
const CONTROLLER_PORT: u16 = 7270;

/// The network of a run.
#[derive(Debug)]
pub(crate) enum Network {
    /// Six ports of 127.0.0.1.
    Loopback {
        /// Added to every port.
        shift: u16,
    },
    /// One namespace a zone.
    Namespaces {
        /// How packets are dropped.
        injector: Injector,
    },
}

/// Where the processes of a zone listen, `host:port`.
#[derive(Debug, Clone)]
pub(crate) struct Endpoints {
    /// The broker, for clients.
    pub(crate) client: String,
    /// The broker, for other brokers.
    pub(crate) peer: String,
    /// The controller.
    pub(crate) controller: String,
}

impl Network {
    /// Ports of 127.0.0.1.
    pub(crate) fn loopback(shift: u16) -> Network {
        Network::Loopback { shift }
    }

    /// Makes the namespaces and finds out how packets can be dropped here. `runner` is this program.
    pub(crate) fn namespaces(runner: &Path) -> Result<Network, ChaosError> {
        if !rustix::process::geteuid().is_root() {
            return Err(ChaosError::NotRoot);
        }
        let injector = namespaces::set_up().and_then(|()| Injector::find(runner));
        match injector {
            Ok(injector) => Ok(Network::Namespaces { injector }),
            Err(error) => {
                // Nothing is left behind; what failed first is what is told.
                let _ = namespaces::tear_down();
                Err(error)
            }
        }
    }

    /// What the setting is called in tables.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Network::Loopback { .. } => "processes",
            Network::Namespaces { .. } => "namespaces",
        }
    }

    /// Where the processes of a zone listen.
    pub(crate) fn endpoints(&self, zone: Zone) -> Endpoints {
        let (host, add) = match self {
            Network::Loopback { shift } => ("127.0.0.1".to_owned(), shift + u16::from(zone.number()) - 1),
            Network::Namespaces { .. } => (namespaces::address(zone), 0),
        };
        Endpoints {
            client: format!("{host}:{}", CLIENT_PORT + add),
            peer: format!("{host}:{}", PEER_PORT + add),
            controller: format!("{host}:{}", CONTROLLER_PORT + add),
        }
    }

    /// The addresses that a client begins with.
    pub(crate) fn bootstrap(&self) -> Vec<String> {
        Zone::ALL.into_iter().map(|zone| self.endpoints(zone).client).collect()
    }

    /// A command that runs in a zone. `ip netns exec` becomes the program itself: the process id is the program's.
    pub(crate) fn command(&self, zone: Zone, program: &Path) -> tokio::process::Command {
        match self {
            Network::Loopback { .. } => tokio::process::Command::new(program),
            Network::Namespaces { .. } => {
                let mut command = tokio::process::Command::new("ip");
                command.args(["netns", "exec", &namespaces::namespace(zone)]).arg(program);
                command
            }
        }
    }

    /// Whether the cut can be made here.
    pub(crate) fn can(&self, cut: Cut) -> bool {
        matches!(self, Network::Namespaces { injector } if injector.can(cut))
    }

    /// Makes packets vanish until [`mend`](Self::mend).
    pub(crate) async fn cut(&self, cut: Cut) -> Result<(), ChaosError> {
        match self {
            Network::Namespaces { injector } => injector.apply(cut).await,
            Network::Loopback { .. } => {
                Err(ChaosError::Unsupported { fault: "network cut", needs: "network namespaces" })
            }
        }
    }

    /// All packets pass again.
    pub(crate) async fn mend(&self) -> Result<(), ChaosError> {
        match self {
            Network::Namespaces { injector } => injector.remove().await,
            Network::Loopback { .. } => Ok(()),
        }
    }

    /// Removes namespaces, bridge and cables, with whatever runs in them.
    pub(crate) fn remove(&self) -> Result<(), ChaosError> {
        match self {
            Network::Namespaces { .. } => namespaces::tear_down(),
            Network::Loopback { .. } => Ok(()),
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // After a removal in order there is nothing left to remove; after an error this is the last chance.
        if let Err(error) = self.remove() {
            eprintln!("holdfast-chaos: what is left of the network: {error}");
        }
    }
}
