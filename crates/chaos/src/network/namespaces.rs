//! One network namespace a zone, all plugged into a bridge in a namespace of its own, and a cable to the runner.
//!
//! ```text
//!   holdfast-chaos-a      holdfast-chaos-b      holdfast-chaos-c        the runner
//!   eth0 10.77.0.1        eth0 10.77.0.2        eth0 10.77.0.3          hfchaos0 10.77.0.254
//!        │                     │                     │                       │
//!   ─────┴─ port a ────────────┴─ port b ────────────┴─ port c ──────────────┴─ port r ─── bridge in holdfast-chaos-hub
//! ```
//! Faults are rules of the bridge, so that no process sees more of them than silence. Names begin with a fixed prefix:
//! what a run that crashed left behind is found by it.

use crate::error::ChaosError;
use crate::network::leftovers::kill_all;
use crate::network::system::run;
use crate::zone::Zone;

/// Every namespace of ours begins like this.
pub(crate) const PREFIX: &str = "holdfast-chaos-";
/// The namespace with the bridge.
pub(crate) const HUB: &str = "holdfast-chaos-hub";
/// The runner's end of its cable. Interfaces have names of 15 letters at most.
const CABLE: &str = "hfchaos0";
const BRIDGE: &str = "br0";
/// Where `ip` keeps namespaces by name.
const MOUNTED: &str = "/run/netns";
/// The first three numbers of all addresses.
const SUBNET: &str = "10.77.0";

/// The namespace of a zone.
pub(crate) fn namespace(zone: Zone) -> String {
    format!("{PREFIX}{zone}")
}

/// The address of a zone.
pub(crate) fn address(zone: Zone) -> String {
    format!("{SUBNET}.{}", zone.number())
}

/// Removes what an earlier run left, if it left anything: a run on 127.0.0.1 needs neither root nor `ip`.
pub(crate) fn remove_leftovers() -> Result<(), ChaosError> {
    let Ok(entries) = std::fs::read_dir(MOUNTED) else { return Ok(()) };
    let left = |name: std::ffi::OsString| name.to_string_lossy().starts_with(PREFIX);
    if entries.flatten().any(|entry| left(entry.file_name())) { tear_down() } else { Ok(()) }
}

/// Makes namespaces, bridge and cables.
pub(crate) fn set_up() -> Result<(), ChaosError> {
    if run("ip", &["route", "show", "10.77.0.0/24"])?.trim() != "" {
        let stderr = "this machine has a route to 10.77.0.0/24 already".to_owned();
        return Err(ChaosError::Command { command: "claiming 10.77.0.0/24".to_owned(), stderr });
    }
    run("ip", &["netns", "add", HUB])?;
    ip_in(HUB, &["link", "add", "name", BRIDGE, "type", "bridge"])?;
    ip_in(HUB, &["link", "set", "dev", BRIDGE, "up"])?;
    for zone in Zone::ALL {
        plug_in(zone)?;
    }
    run("ip", &["link", "add", "name", CABLE, "type", "veth", "peer", "name", "r", "netns", HUB])?;
    ip_in(HUB, &["link", "set", "dev", "r", "master", BRIDGE, "up"])?;
    run("ip", &["address", "add", &format!("{SUBNET}.254/24"), "dev", CABLE])?;
    run("ip", &["link", "set", "dev", CABLE, "up"])?;
    Ok(())
}

fn plug_in(zone: Zone) -> Result<(), ChaosError> {
    // Names of one letter are taken for abbreviations of keywords, unless they follow one.
    let (namespace, port) = (namespace(zone), zone.name());
    run("ip", &["netns", "add", &namespace])?;
    ip_in(HUB, &["link", "add", "name", port, "type", "veth", "peer", "name", "eth0", "netns", &namespace])?;
    ip_in(HUB, &["link", "set", "dev", port, "master", BRIDGE, "up"])?;
    ip_in(&namespace, &["address", "add", &format!("{}/24", address(zone)), "dev", "eth0"])?;
    ip_in(&namespace, &["link", "set", "dev", "eth0", "up"])?;
    ip_in(&namespace, &["link", "set", "dev", "lo", "up"])?;
    Ok(())
}

fn ip_in(namespace: &str, arguments: &[&str]) -> Result<String, ChaosError> {
    run("ip", &[&["-n", namespace], arguments].concat())
}

/// Removes everything of that prefix, and ends what still runs in it.
pub(crate) fn tear_down() -> Result<(), ChaosError> {
    let listed = run("ip", &["netns", "list"])?;
    let ours: Vec<&str> = listed
        .lines()
        .filter_map(|line| line.split(' ').next())
        .filter(|name| name.starts_with(PREFIX))
        .collect();
    for namespace in &ours {
        let pids = run("ip", &["netns", "pids", namespace])?;
        kill_all(pids.lines().filter_map(|pid| pid.trim().parse().ok()));
    }
    if run("ip", &["link", "show", "dev", CABLE]).is_ok() {
        run("ip", &["link", "del", "dev", CABLE])?;
    }
    for namespace in ours {
        run("ip", &["netns", "del", namespace])?;
    }
    Ok(())
}
