//! Makes packets vanish. Which way works is tried before the first fault: applied, seen to work, removed.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::{ChaosError, chain};
use crate::network::namespaces::{HUB, address, namespace};
use crate::network::system::{run, run_beside};
use crate::zone::Zone;

/// A packet that is not answered within this time was dropped. On one machine an answer takes microseconds.
const SILENCE: Duration = Duration::from_millis(300);
/// How long new cables may take to carry packets.
const CABLES: Duration = Duration::from_secs(10);
/// Nothing listens here: whoever is reached refuses.
const CLOSED_PORT: u16 = 9;

/// Whose packets vanish. Nobody is told: no reset, no error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// To and from the zone.
    Around(Zone),
    /// To the zone: it hears nobody.
    Into(Zone),
    /// From the zone: nobody hears it.
    OutOf(Zone),
    /// Between two zones; the third, and the runner, see both.
    Between(Zone, Zone),
}

impl Cut {
    /// Pairs of (from, to) bridge ports; none: any.
    fn directions(self) -> Vec<(Option<Zone>, Option<Zone>)> {
        match self {
            Cut::Around(zone) => vec![(Some(zone), None), (None, Some(zone))],
            Cut::Into(zone) => vec![(None, Some(zone))],
            Cut::OutOf(zone) => vec![(Some(zone), None)],
            Cut::Between(one, other) => vec![(Some(one), Some(other)), (Some(other), Some(one))],
        }
    }
}

/// How packets are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Injector {
    /// Rules of netfilter at the bridge: every kind of cut.
    Nft,
    /// The bridge's port is disabled: around a zone only.
    BridgePort,
}

impl Injector {
    /// The first that passes its test.
    pub(crate) fn find(runner: &Path) -> Result<Injector, ChaosError> {
        await_cables()?;
        let mut tried = Vec::new();
        for injector in [Injector::Nft, Injector::BridgePort] {
            match injector.prove(runner) {
                Ok(()) => return Ok(injector),
                Err(why) => tried.push(format!("{injector:?}: {why}")),
            }
        }
        Err(ChaosError::NoInjector { tried: tried.join("; ") })
    }

    /// Whether it can make this cut.
    pub(crate) fn can(self, cut: Cut) -> bool {
        self == Injector::Nft || matches!(cut, Cut::Around(_))
    }

    /// Applies every kind of cut, looks whether it holds, and removes it.
    fn prove(self, runner: &Path) -> Result<(), String> {
        let cuts =
            [Cut::Around(Zone::A), Cut::Into(Zone::A), Cut::OutOf(Zone::A), Cut::Between(Zone::A, Zone::B)];
        for cut in cuts.into_iter().filter(|cut| self.can(*cut)) {
            let ask = || match cut {
                Cut::Between(from, to) => reached_from(runner, from, to),
                _ => Ok(reached(&closed_port(Zone::A))),
            };
            if !ask()? {
                return Err(format!("zone a is not reachable even without {cut:?}"));
            }
            self.apply_now(cut).map_err(|error| chain(&error))?;
            let held = ask().map(|reached| !reached);
            self.remove_now().map_err(|error| chain(&error))?;
            if !held? {
                return Err(format!("{cut:?} lets packets through"));
            }
        }
        if reached(&closed_port(Zone::A)) { Ok(()) } else { Err("zone a stays cut off".to_owned()) }
    }

    /// Applies a cut while load runs.
    pub(crate) async fn apply(self, cut: Cut) -> Result<(), ChaosError> {
        for (program, arguments) in self.commands(cut) {
            run_beside(program, &arguments.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        }
        Ok(())
    }

    /// Removes all cuts while load runs.
    pub(crate) async fn remove(self) -> Result<(), ChaosError> {
        for (program, arguments) in self.undo() {
            run_beside(program, &arguments.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        }
        Ok(())
    }

    fn apply_now(self, cut: Cut) -> Result<(), ChaosError> {
        run_all(self.commands(cut))
    }

    fn remove_now(self) -> Result<(), ChaosError> {
        run_all(self.undo())
    }

    /// One command, so that all directions of a cut begin at once.
    fn commands(self, cut: Cut) -> Vec<(&'static str, Vec<String>)> {
        match self {
            Injector::Nft => vec![in_hub("nft", &[ruleset(cut)])],
            Injector::BridgePort => match cut {
                Cut::Around(zone) | Cut::Into(zone) | Cut::OutOf(zone) | Cut::Between(zone, _) => {
                    vec![port_state(zone, "0")]
                }
            },
        }
    }

    fn undo(self) -> Vec<(&'static str, Vec<String>)> {
        match self {
            // Deleting what is not there is an error, so it is made first.
            Injector::Nft => {
                vec![in_hub("nft", &["add table bridge faults; delete table bridge faults".to_owned()])]
            }
            Injector::BridgePort => Zone::ALL.into_iter().map(|zone| port_state(zone, "3")).collect(),
        }
    }
}

fn run_all(commands: Vec<(&'static str, Vec<String>)>) -> Result<(), ChaosError> {
    for (program, arguments) in commands {
        run(program, &arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    Ok(())
}

fn in_hub(program: &str, arguments: &[String]) -> (&'static str, Vec<String>) {
    let prefix = ["netns", "exec", HUB, program].map(str::to_owned);
    ("ip", prefix.into_iter().chain(arguments.iter().cloned()).collect())
}

fn port_state(zone: Zone, state: &str) -> (&'static str, Vec<String>) {
    in_hub("bridge", &["link", "set", "dev", zone.name(), "state", state].map(str::to_owned))
}

/// One transaction of nft. Address resolution passes: beyond a router nobody would hear that it fails.
fn ruleset(cut: Cut) -> String {
    let mut rules = "add table bridge faults; \
        add chain bridge faults forward { type filter hook forward priority 0; policy accept; }"
        .to_owned();
    for (from, to) in cut.directions() {
        let from = from.map(|zone| format!("iifname {zone} ")).unwrap_or_default();
        let to = to.map(|zone| format!("oifname {zone} ")).unwrap_or_default();
        rules.push_str(&format!("; add rule bridge faults forward {from}{to}ether type ip drop"));
    }
    rules
}

/// A new cable carries nothing until the kernel has noticed that both ends are up.
fn await_cables() -> Result<(), ChaosError> {
    let deadline = Instant::now() + CABLES;
    let missing = || Zone::ALL.into_iter().find(|zone| !reached(&closed_port(*zone)));
    while let Some(zone) = missing() {
        if Instant::now() >= deadline {
            let (what, seen) = (format!("a way to zone {zone}"), "silence".to_owned());
            return Err(ChaosError::Late { what, limit: CABLES, seen });
        }
    }
    Ok(())
}

fn closed_port(zone: Zone) -> String {
    format!("{}:{CLOSED_PORT}", address(zone))
}

/// Whether anybody answers there, be it with a refusal.
pub(crate) fn reached(endpoint: &str) -> bool {
    let Ok(address) = endpoint.parse::<SocketAddr>() else { return false };
    match TcpStream::connect_timeout(&address, SILENCE) {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
    }
}

/// The same as seen from a zone: this program runs itself there.
fn reached_from(runner: &Path, from: Zone, to: Zone) -> Result<bool, String> {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &namespace(from)]).arg(runner).args(["reach", &closed_port(to)]);
    let status = command.stdin(Stdio::null()).status().map_err(|error| error.to_string())?;
    Ok(status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cut drops exactly the directions that its name says.
    #[test]
    fn rules_name_the_ports() {
        let drops = |cut| ruleset(cut).split("; ").skip(2).filter(|rule| rule.contains("drop")).count();
        assert_eq!(drops(Cut::Around(Zone::B)), 2);
        assert_eq!(drops(Cut::Into(Zone::B)), 1);
        assert!(ruleset(Cut::Into(Zone::B)).contains("forward oifname b ether type ip drop"));
        assert!(ruleset(Cut::OutOf(Zone::B)).contains("forward iifname b ether type ip drop"));
        assert!(ruleset(Cut::Between(Zone::B, Zone::C)).contains("iifname c oifname b ether"));
    }
}
