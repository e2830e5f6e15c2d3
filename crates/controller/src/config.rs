//! A controller's section of the configuration.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use holdfast_core::{ControllerId, ZoneId};
use holdfast_proto::config::{duration, duration_or_never};
use serde::{Deserialize, Serialize};

/// More voters make every decision slower and no safer.
const MAX_VOTERS: usize = 5;
/// Bound of a name or address, in bytes.
pub(crate) const MAX_NAME: usize = 256;

/// How one controller takes part in its quorum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ControllerConfig {
    /// Number of this controller, from 1; one of `voters`. A controller that lost its data folder comes back under a
    /// number that was never used.
    pub id: ControllerId,
    /// The zone that it runs in.
    pub zone: ZoneId,
    /// Folder of its vote, log and snapshots. Belongs to one controller of one cluster.
    pub data_dir: PathBuf,
    /// Where it listens for controllers and brokers, as `host:port`. Others dial the voter's `endpoint`.
    pub listen: String,
    /// All voters of the quorum, this one included; the same on each. 3 in three zones, or 5; 1 for a trial.
    pub voters: Vec<VoterConfig>,
    /// Pause between two heartbeats of the leader to the other controllers, and how long an answer may take: not less than
    /// a few round trips between zones. Smaller: an earlier failover at more messages. Default: 50ms. At most a tenth of
    /// `election-timeout`.
    #[serde(default = "defaults::heartbeat_interval", with = "duration")]
    pub heartbeat_interval: Duration,
    /// Silence of the leader after which it is lost although its connections stand, and a leader without a majority's
    /// answers stops calling itself one. When connections break and are refused nothing is waited for but a fifth of
    /// this since the leader was heard: so long its voters are bound to it. Also a fifth is how long votes may take: where
    /// disks take longer to flush, an election takes several rounds, ten times that or more, so raise it there. Default:
    /// 500ms. Minimum: 100ms.
    #[serde(default = "defaults::election_timeout", with = "duration")]
    pub election_timeout: Duration,
    /// Silence of a broker after which it is declared dead and its partitions get other leaders. A false verdict costs
    /// a leader move, never a record. Default: 1s. Minimum: 100ms.
    #[serde(default = "defaults::session_timeout", with = "duration")]
    pub session_timeout: Duration,
    /// How long a broker whose heartbeat streams ended, as seen by controllers in two zones, may take to come back on a
    /// fresh stream before it is declared dead. Default: 100ms. Less than `session-timeout`.
    #[serde(default = "defaults::reset_grace", with = "duration")]
    pub reset_grace: Duration,
    /// A broker that stays dead for this long is replaced: its replicas move to other brokers of its zone, a few
    /// partitions at a time. Where the zone has no other broker they wait for its return. Default: 15m. Not less than
    /// `session-timeout`; `never` turns it off.
    #[serde(default = "defaults::replace_after", with = "duration_or_never")]
    pub replace_after: Option<Duration>,
    /// A broker that has been alive for this long gets back the leaders that are at home on it, a few at a time. Smaller:
    /// load is even sooner after an outage; larger: fewer moves where a broker comes and goes. Default: 60s.
    #[serde(default = "defaults::home_after", with = "duration")]
    pub home_after: Duration,
    /// Log entries after which the state is written as a snapshot and the log is cut. Default: 5000. Minimum: 10.
    #[serde(default = "defaults::snapshot_after")]
    pub snapshot_after: u64,
}

/// One member of the quorum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VoterConfig {
    /// Its number.
    pub id: ControllerId,
    /// Its zone.
    pub zone: ZoneId,
    /// `host:port` at which controllers and brokers reach it.
    pub endpoint: String,
}

mod defaults {
    use std::time::Duration;

    pub(super) fn heartbeat_interval() -> Duration {
        Duration::from_millis(50)
    }

    pub(super) fn election_timeout() -> Duration {
        Duration::from_millis(500)
    }

    pub(super) fn session_timeout() -> Duration {
        Duration::from_secs(1)
    }

    pub(super) fn reset_grace() -> Duration {
        Duration::from_millis(100)
    }

    #[expect(clippy::unnecessary_wraps, reason = "it has the type of its field")]
    pub(super) fn replace_after() -> Option<Duration> {
        Some(Duration::from_secs(15 * 60))
    }

    pub(super) fn home_after() -> Duration {
        Duration::from_secs(60)
    }

    pub(super) fn snapshot_after() -> u64 {
        5000
    }
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// One sentence each.
    pub problems: Vec<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "controller configuration: {}", self.problems.join("; "))
    }
}

impl std::error::Error for ConfigError {}

impl ControllerConfig {
    /// A configuration with defaults for all that has one.
    pub fn new(
        id: ControllerId,
        zone: ZoneId,
        data_dir: PathBuf,
        listen: String,
        voters: Vec<VoterConfig>,
    ) -> Self {
        ControllerConfig {
            id,
            zone,
            data_dir,
            listen,
            voters,
            heartbeat_interval: defaults::heartbeat_interval(),
            election_timeout: defaults::election_timeout(),
            session_timeout: defaults::session_timeout(),
            reset_grace: defaults::reset_grace(),
            replace_after: defaults::replace_after(),
            home_after: defaults::home_after(),
            snapshot_after: defaults::snapshot_after(),
        }
    }

    /// Checks the values against each other.
    ///
    /// # Errors
    /// Names every problem at once.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        self.check_voters(&mut problems);
        self.check_times(&mut problems);
        if self.snapshot_after < 10 {
            problems.push(format!("snapshot-after {} is less than 10", self.snapshot_after));
        }
        if self.data_dir.as_os_str().is_empty() {
            problems.push("data-dir is empty".to_owned());
        }
        if problems.is_empty() { Ok(()) } else { Err(ConfigError { problems }) }
    }

    fn check_voters(&self, problems: &mut Vec<String>) {
        if !matches!(self.voters.len(), 1..=MAX_VOTERS) {
            problems.push(format!("voters must be 1 to {MAX_VOTERS}, not {}", self.voters.len()));
        }
        match self.voters.iter().find(|voter| voter.id == self.id) {
            None => problems.push(format!("voters does not list id {}", self.id)),
            Some(own) if own.zone != self.zone => problems.push(format!(
                "zone {:?} differs from zone {:?} of id {} in voters",
                self.zone.as_str(),
                own.zone.as_str(),
                self.id
            )),
            Some(_) => {}
        }
        for (position, voter) in self.voters.iter().enumerate() {
            if voter.id.0 == 0 {
                problems.push("id 0 in voters: numbers begin at 1".to_owned());
            }
            if self.voters[..position].iter().any(|earlier| earlier.id == voter.id) {
                problems.push(format!("voters lists id {} twice", voter.id));
            }
            let zone = voter.zone.as_str();
            if zone.is_empty() || zone.len() > MAX_NAME {
                problems.push(format!("zone of voter {} must have 1 to {MAX_NAME} bytes", voter.id));
            }
            if !is_endpoint(&voter.endpoint) {
                problems
                    .push(format!("endpoint {:?} of voter {} is not host:port", voter.endpoint, voter.id));
            }
        }
    }

    fn check_times(&self, problems: &mut Vec<String>) {
        let least = Duration::from_millis(100);
        if self.election_timeout < least {
            problems.push(format!("election-timeout {:?} is less than 100ms", self.election_timeout));
        }
        if self.session_timeout < least {
            problems.push(format!("session-timeout {:?} is less than 100ms", self.session_timeout));
        }
        if self.reset_grace >= self.session_timeout {
            problems.push(format!(
                "reset-grace {:?} is not less than session-timeout {:?}",
                self.reset_grace, self.session_timeout
            ));
        }
        if self.replace_after.is_some_and(|replace_after| replace_after < self.session_timeout) {
            problems.push(format!(
                "replace-after {:?} is less than session-timeout {:?}",
                self.replace_after.unwrap_or_default(),
                self.session_timeout
            ));
        }
        if self.heartbeat_interval < Duration::from_millis(1) {
            problems.push("heartbeat-interval is less than 1ms".to_owned());
        }
        if self.heartbeat_interval.saturating_mul(10) > self.election_timeout {
            problems.push(format!(
                "heartbeat-interval {:?} is more than a tenth of election-timeout {:?}",
                self.heartbeat_interval, self.election_timeout
            ));
        }
    }

    /// The voters by id.
    pub(crate) fn sorted_voters(&self) -> Vec<VoterConfig> {
        let mut voters = self.voters.clone();
        voters.sort_by_key(|voter| voter.id);
        voters
    }
}

/// Whether `text` has the form `host:port`, within bounds.
pub(crate) fn is_endpoint(text: &str) -> bool {
    text.len() <= MAX_NAME
        && text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ControllerConfig {
        let voters = (1..=3)
            .map(|id| VoterConfig {
                id: ControllerId(id),
                zone: ZoneId::new(&format!("zone-{id}")),
                endpoint: format!("controller-{id}:7071"),
            })
            .collect();
        let zone = ZoneId::new("zone-2");
        ControllerConfig::new(ControllerId(2), zone, "data".into(), "0.0.0.0:7071".into(), voters)
    }

    #[test]
    fn defaults_are_valid() {
        config().validate().unwrap();
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let mut config = config();
        config.id = ControllerId(9);
        config.voters[0].endpoint = "nowhere".into();
        config.voters[1].id = ControllerId(1);
        config.heartbeat_interval = Duration::from_millis(400);
        config.snapshot_after = 1;
        config.replace_after = Some(Duration::from_millis(1));
        let problems = config.validate().unwrap_err().problems;
        assert_eq!(problems.len(), 6, "{problems:?}");
    }

    #[test]
    fn keys_are_kebab_case_and_unknown_ones_are_refused() {
        let text = r#"{"id":1,"zone":"a","data-dir":"d","listen":"0.0.0.0:1","session-timeout":"2s",
            "voters":[{"id":1,"zone":"a","endpoint":"h:1"}]}"#;
        let config: ControllerConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.session_timeout, Duration::from_secs(2));
        assert_eq!(config.heartbeat_interval, Duration::from_millis(50));
        config.validate().unwrap();
        assert!(serde_json::from_str::<ControllerConfig>(&text.replace("listen", "listne")).is_err());
    }
}
