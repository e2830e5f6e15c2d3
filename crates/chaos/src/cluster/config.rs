//! Configuration files of the six processes: what deploy/local has, with the addresses of this run's network.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cluster::process::Role;
use crate::error::ChaosError;
use crate::network::Network;
use crate::zone::Zone;

/// Writes the file of one process, and tells where it is.
pub(crate) fn write(network: &Network, folder: &Path, role: Role, zone: Zone) -> Result<PathBuf, ChaosError> {
    let text = match role {
        Role::Controller => controller(network, folder, zone),
        Role::Broker => broker(network, folder, zone),
    };
    let configs = folder.join("config");
    let file = configs.join(format!("{role}-{zone}.toml"));
    fs::create_dir_all(&configs)
        .and_then(|()| fs::write(&file, text))
        .map_err(ChaosError::io(format!("writing {}", file.display())))?;
    Ok(file)
}

fn controller(network: &Network, folder: &Path, zone: Zone) -> String {
    let endpoints = network.endpoints(zone);
    format!(
        "cluster = \"chaos\"\n[controller]\nid = {}\nzone = \"{zone}\"\ndata-dir = \"{}\"\nlisten = \"{}\"\nvoters = {}\n",
        zone.number(),
        folder.join(format!("controller-{zone}")).display(),
        endpoints.controller,
        controllers(network),
    )
}

fn broker(network: &Network, folder: &Path, zone: Zone) -> String {
    let endpoints = network.endpoints(zone);
    format!(
        "cluster = \"chaos\"\n[broker]\nid = {}\nzone = \"{zone}\"\ndata-dir = \"{}\"\nclient-listen = \"{}\"\n\
         peer-listen = \"{}\"\ncontrollers = {}\n",
        zone.number(),
        folder.join(format!("broker-{zone}")).display(),
        endpoints.client,
        endpoints.peer,
        controllers(network),
    )
}

fn controllers(network: &Network) -> String {
    let entry = |zone: Zone| {
        let endpoint = network.endpoints(zone).controller;
        format!("{{ id = {}, zone = \"{zone}\", endpoint = \"{endpoint}\" }}", zone.number())
    };
    format!("[{}]", Zone::ALL.map(entry).join(", "))
}
