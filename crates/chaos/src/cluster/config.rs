//! Configuration files of the six processes: what deploy/local has, with the addresses of this run's network.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cluster::Setting;
use crate::cluster::process::Role;
use crate::error::ChaosError;
use crate::network::Network;
use crate::zone::Zone;

/// Writes the file of one process, and tells where it is.
pub(crate) fn write(setting: &Setting<'_>, role: Role, zone: Zone) -> Result<PathBuf, ChaosError> {
    let Setting { network, folder, homes, .. } = *setting;
    let data = homes.data_dir(folder, role, zone);
    let text = match role {
        Role::Controller => controller(network, &data, zone),
        Role::Broker => broker(network, &data, zone) + homes.broker_settings(),
    };
    let configs = folder.join("config");
    let file = configs.join(format!("{role}-{zone}.toml"));
    fs::create_dir_all(&configs)
        .and_then(|()| fs::write(&file, text))
        .map_err(ChaosError::io(format!("writing {}", file.display())))?;
    Ok(file)
}

fn controller(network: &Network, data: &Path, zone: Zone) -> String {
    let endpoints = network.endpoints(zone);
    format!(
        "cluster = \"chaos\"\n[controller]\nid = {}\nzone = \"{zone}\"\ndata-dir = \"{}\"\nlisten = \"{}\"\nvoters = {}\n",
        zone.number(),
        data.display(),
        endpoints.controller,
        controllers(network),
    )
}

fn broker(network: &Network, data: &Path, zone: Zone) -> String {
    let endpoints = network.endpoints(zone);
    format!(
        "cluster = \"chaos\"\n[broker]\nid = {}\nzone = \"{zone}\"\ndata-dir = \"{}\"\nclient-listen = \"{}\"\n\
         peer-listen = \"{}\"\ncontrollers = {}\n",
        zone.number(),
        data.display(),
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
